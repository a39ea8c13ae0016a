//! A machine with a guest that writes while it is replicated, is powered off, and whose copy boots.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../oma-nbd/tests/guest/initramfs.rs"]
mod initramfs;
mod machine;
mod point;
#[path = "../cli/world.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the tests of the command line use the rest")]
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use oma_core::conformance::{self, Requirement, trial};
use serde_json::Value;

use crate::initramfs::Kernel;
use crate::machine::Machine;
use crate::world::{World, number};

fn main() -> ExitCode {
    let programs = ["qemu-system-x86_64", "qemu-img", "busybox", "cpio", "mke2fs", "e2fsck", "debugfs"]
        .map(Requirement::Program);
    let needs: Vec<_> = programs.into_iter().chain([Kernel::requirement()]).collect();
    let name = "a_guest_that_writes_all_the_time_is_replicated_and_its_copy_boots_and_is_whole";
    conformance::run(vec![trial(name, &needs, replicated_and_booted)])
}

/// Epochs while the guest writes.
const EPOCHS: u64 = 4;
/// The guest gets so far between two of them.
const STEPS: u64 = 5;
const DISKS: [&str; 3] = ["fs", "one", "two"];

async fn replicated_and_booted() {
    let begun = Instant::now();
    let world = World::new();
    machine::make_disks(&world).await;
    let mut guest = Machine::boot(&world, "write", &machine::LIVE, true);
    for epoch in 1..=EPOCHS {
        let from = guest.steps();
        guest.waits_for(from + STEPS).await;
        let report = replicate(&world, &[]).await;
        assert_eq!(number(&report["epoch"]), epoch);
        let kind = if epoch == 1 { "initial" } else { "incremental" };
        assert_eq!(report["replication_type"], Value::from(kind), "{report}");
        point::check(&world, guest.steps()).await;
    }
    kill_a_run(&world).await;
    guest.waits_for(guest.steps() + STEPS).await;
    replicate(&world, &[]).await;
    point::check(&world, guest.steps()).await;
    let written = guest.steps();
    guest.power_off().await;
    let report = replicate(&world, &["--verify", "full"]).await;
    assert_eq!(report["replication_type"], Value::from("incremental"), "{report}");
    let copied: u64 =
        report["disks"].as_array().unwrap().iter().map(|disk| number(&disk["bytes_written"])).sum();
    assert!(copied < 64 << 20, "the last epoch is small: {copied}");
    world.run(&["verify", "--vm-path", world::VM, "--qmp", &world.text("qmp")]).await.ok();
    guest.end().await;
    assert!(point::check(&world, u64::MAX).await >= written);
    for (disk, format) in DISKS.into_iter().zip(["qcow2", "raw", "qcow2"]) {
        let (source, volume) = (world.text(disk), world.volume(disk).await.display().to_string());
        world.must("qemu-img", &["compare", "-f", format, "-F", "raw", &source, &volume]).await;
    }
    boot_the_copy(&world).await;
    // The whole of it, builds excepted, has three minutes.
    assert!(begun.elapsed() < Duration::from_secs(180));
}

async fn replicate(world: &World, more: &[&str]) -> Value {
    let qmp = world.text("qmp");
    world.replicate(&[&["--qmp", &qmp], more].concat()).await.ok().json()
}

/// Kills a run once the disks are frozen and exported.
async fn kill_a_run(world: &World) {
    let qmp = world.text("qmp");
    for _ in 0..5 {
        let mut run = world.oma(&world::replicate_args(&["--qmp", &qmp])).spawn().unwrap();
        world::until!("the disks are exported or the run has ended", {
            let names = std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().path());
            run.try_wait().unwrap().is_some()
                || names.into_iter().any(|name| name.extension().is_some_and(|e| e == "nbd"))
        });
        run.start_kill().unwrap();
        if run.wait().await.unwrap().code().is_none() {
            return;
        }
    }
    panic!("every run was faster than its end");
}

async fn boot_the_copy(world: &World) {
    let mut volumes = Vec::new();
    for disk in DISKS {
        volumes.push(world.volume(disk).await.display().to_string());
    }
    let disks: Vec<_> =
        DISKS.into_iter().zip(&volumes).map(|(name, volume)| (name, volume.as_str(), "raw")).collect();
    let disks: [_; 3] = disks.try_into().unwrap();
    let mut copy = Machine::boot(world, "check", &disks, false);
    for case in ["fsck", "files", "devices"] {
        copy.waits_for_line(&format!("case {case} ok")).await;
    }
}
