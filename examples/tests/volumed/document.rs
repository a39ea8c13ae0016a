//! The document of the routes that is kept beside the source: who changes a route sees what becomes of it for its clients.

use oma_core::conformance::{Trial, trial};

use crate::world::World;

/// Made anew by `just openapi`.
const KEPT: &str = include_str!("../../../docs/openapi.json");

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("the_document_that_is_kept_is_the_one_of_the_program", &[], kept)]
}

async fn kept() {
    let world = World::of_appliance();
    let printed = world.run(&["openapi"]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let (ours, theirs) = (printed.out.lines(), KEPT.lines());
    let differs = ours.zip(theirs).enumerate().find(|(_, (ours, theirs))| ours != theirs);
    assert!(differs.is_none(), "from line {differs:?} on; run `just openapi` and look at what it changes");
    assert_eq!(printed.out.lines().count(), KEPT.lines().count(), "run `just openapi`");
}
