//! What an operator sees while the engine works: bars on a terminal, lines elsewhere. All of it on standard error.

mod bars;
mod kept;
mod lines;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use oma_core::VmPath;
use oma_core::engine::Progress;
use oma_core::state::ReplicationType;

use self::bars::Bars;
pub(crate) use self::kept::Kept;
use self::lines::Lines;

/// What fits where standard error goes.
pub(crate) fn for_stderr() -> Arc<dyn Progress> {
    if io::stderr().is_terminal() { Arc::new(Bars::default()) } else { Arc::new(Lines::default()) }
}

/// The same, which keeps how far the run is.
pub(crate) fn kept(vm: &VmPath) -> Arc<Kept> {
    Arc::new(Kept::new(for_stderr(), vm.clone()))
}

const fn mode_name(mode: ReplicationType) -> &'static str {
    match mode {
        ReplicationType::Initial => "full copy",
        ReplicationType::Incremental => "changes",
    }
}
