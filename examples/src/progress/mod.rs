//! What an operator sees while the engine works: bars on a terminal, lines elsewhere. All of it on standard error.

mod bars;
mod lines;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use oma_core::engine::Progress;
use oma_core::state::ReplicationType;

use self::bars::Bars;
use self::lines::Lines;

/// What fits where standard error goes.
pub fn for_stderr() -> Arc<dyn Progress> {
    if io::stderr().is_terminal() { Arc::new(Bars::default()) } else { Arc::new(Lines::default()) }
}

const fn mode_name(mode: ReplicationType) -> &'static str {
    match mode {
        ReplicationType::Initial => "full copy",
        ReplicationType::Incremental => "changes",
    }
}
