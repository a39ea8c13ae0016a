//! Who a VM is: its machine, wherever it is named from, and the one path that it has.

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::world::{MIB, VM, World, finish};

pub(crate) fn trials() -> Vec<Trial> {
    let machine = [Requirement::Program("qemu-system-x86_64")];
    vec![
        trial("a_machine_is_not_renamed_by_a_slip_of_the_pen", &machine, slip_of_the_pen),
        trial("a_machine_is_the_same_from_wherever_its_monitor_is_named", &machine, from_elsewhere),
    ]
}

async fn slip_of_the_pen() {
    let world = World::new();
    let machine = ["-uuid", "1f0d4c1e-8f0c-4f5e-9d62-6f2a7b3c9d10"];
    let _machine = world.machine("web01", &machine).await;
    let qmp = world.text("web01.qmp");
    let (renamed, wrong) = ("/DC/vm/renamed", "/DC/vm/wbe01");
    let oma = async |command: &str, path: &str, more: &[&str]| {
        world.run(&[&[command, "--vm-path", path][..], more].concat()).await
    };
    oma("replicate", VM, &["--qmp", &qmp]).await.ok();
    for command in ["replicate", "verify"] {
        oma(command, wrong, &["--qmp", &qmp]).await.refused(4, &["known as /DC/vm/web01", "--rename"]);
    }
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!((jobs.as_array().unwrap().len(), &jobs[0]["vm_path"]), (1, &Value::from(VM)));
    oma("replicate", renamed, &["--qmp", &qmp, "--rename"]).await.ok();
    oma("replicate", renamed, &["--qmp", &qmp]).await.ok();
    let rows = world.disks().await;
    assert_eq!((rows.len(), &rows[0]["vm_path"], &rows[0]["epoch"]), (1, &renamed.into(), &3.into()));
    // A disk that is named by itself is another VM.
    world.raw("disk.raw", MIB, 2);
    let disk = ["--source", &world.text("disk.raw")].map(str::to_owned);
    let disk = disk.each_ref().map(String::as_str);
    oma("replicate", renamed, &disk).await.refused(4, &["of another VM", "at qemu", "another path"]);
    oma("replicate", VM, &disk).await.ok();
    oma("replicate", VM, &["--qmp", &qmp, "--rename"]).await.refused(4, &["of another VM", "at direct"]);
}

async fn from_elsewhere() {
    let world = World::new();
    let _machine = world.machine("web01", &[]).await;
    let args = ["replicate", "--vm-path", VM, "--qmp", "web01.qmp"];
    finish(world.oma(&args).current_dir(world.path("")).spawn().unwrap()).await.ok();
    world.run(&["replicate", "--vm-path", VM, "--qmp", &world.text("web01.qmp")]).await.ok();
    let rows = world.disks().await;
    assert_eq!((rows.len(), &rows[0]["epoch"]), (1, &Value::from(2)));
}
