//! What an operator sees while the engine works, and what is kept of it.

mod kept;

use std::sync::Arc;

use oma_core::VmPath;
pub(crate) use oma_examples::progress::for_stderr;

pub(crate) use self::kept::Kept;

/// What fits where standard error goes, which keeps how far the run is.
pub(crate) fn kept(vm: &VmPath) -> Arc<Kept> {
    Arc::new(Kept::new(for_stderr(), vm.clone()))
}
