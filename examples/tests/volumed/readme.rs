//! The README's quick start of the appliance, as it stands there.

use std::fs;
use std::path::Path;

use oma_core::conformance::{Requirement, Trial, trial};
use tokio::process::Command;

use crate::world::{LIMIT, World};

const PAGE: &str = include_str!("../../../README.md");

pub(crate) fn trials() -> Vec<Trial> {
    let tools = [Requirement::Program("curl"), Requirement::Program("bash")];
    vec![trial("the_quick_start_of_the_readme_does_what_it_says", &tools, quick_start)]
}

async fn quick_start() {
    let world = World::of_appliance();
    for name in ["web01", "web02"] {
        fs::write(world.path(&format!("images/{name}.raw")), vec![7; 1 << 20]).unwrap();
    }
    let (_, section) = PAGE.split_once("## An appliance that runs unattended").unwrap();
    let commands = section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    let (start, rest) = commands.split_once(" &\n").expect("the daemon goes on beside the rest");
    let folder = |text: &str| {
        text.replace("/var/lib/oma", &world.text("data")).replace("/srv/images", &world.text("images"))
    };
    // Who types is slower than a start; what was asked for last is waited for.
    let script = format!(
        "{} & omad=$!\ntrap 'kill $omad' EXIT\nuntil curl -sf --unix-socket {1} http://localhost/ready; do :; done\n{2}\n\
         until oma --json --data-dir {3} jobs --vm-path /DC/vm/web02 | grep -q completed; do :; done\n\
         oma --data-dir {3} jobs",
        folder(start),
        world.text("data/omad.sock"),
        folder(rest),
        world.text("data"),
    );
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &script]).kill_on_drop(true).env("PATH", path());
    // Its ports are another one's by now.
    shell.env("OMAD_API__LISTEN", "127.0.0.1:0").env("OMAD_VOLUME_API__LISTEN", "none");
    shell.env("OMAD_NBD__LISTEN", "none").env_remove("OMA_API").env_remove("OMA_DATABASE");
    let ran = tokio::time::timeout(LIMIT, shell.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    for told in ["epoch 1 of /DC/vm/web01 is committed", "/DC/vm/web02", "attached"] {
        assert!(out.contains(told), "{told}: {out}{err}");
    }
}

/// With the programs that were built, before all others.
fn path() -> String {
    let built = Path::new(env!("CARGO_BIN_EXE_oma")).parent().unwrap().display();
    format!("{built}:{}", std::env::var("PATH").unwrap())
}
