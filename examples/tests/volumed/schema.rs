//! The routes do what their document says, as a tester finds that nobody here wrote.

use oma_core::conformance::{Requirement, Trial, trial};
use tokio::process::Command;

use crate::world::World;

pub(crate) fn trials() -> Vec<Trial> {
    let tester = [Requirement::Program("schemathesis")];
    vec![
        trial("schemathesis_finds_no_fault_as_operator", &tester, || tested("operator")),
        trial("schemathesis_finds_no_fault_as_viewer", &tester, || tested("viewer")),
    ]
}

async fn tested(role: &'static str) {
    let world = World::new();
    let token = world.token("tester", role).await;
    let daemon = world.start(&["--listen", "127.0.0.1:0"]).await;
    // Something to find.
    daemon.volume("web01").await;
    let mut tester = Command::new("schemathesis");
    // Without sequences that it infers: those of the document are none that it can follow.
    tester.args([
        "run",
        "--phases",
        "examples,coverage,fuzzing",
        "--header",
        &format!("Authorization: Bearer {token}"),
    ]);
    tester.args([
        "--max-examples",
        "20",
        "--seed",
        "1",
        "--workers",
        "1",
        "--no-color",
        "--request-timeout",
        "30",
    ]);
    tester.arg("--checks=status_code_conformance,content_type_conformance,response_schema_conformance");
    tester.arg(format!("{}/openapi.json", daemon.url()));
    let ran = tester.current_dir(world.path("data")).output().await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    daemon.get("/volumes").await;
    // What is not possible here (501) and no room (507) are answers; a defect of the daemon (500) is none.
    let said = daemon.stop().await;
    assert!(!said.err.contains("status=500") && !said.err.contains("panicked"), "{}", said.err);
}
