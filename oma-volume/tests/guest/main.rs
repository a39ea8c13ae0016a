//! Disks that QEMU plugs in, resizes and takes away, and loop devices of another kernel, in a machine of its own: this program builds it,
//! boots it, runs in it as well, and plays the cloud.
//!
//! ```text
//!  here:  cases ── one initramfs: this program, its libraries, busybox, modules ── qemu ── serial console, QMP
//!  there: init ── this program with OMA_TEST_GUEST=1 ── "ask plug virtio" … "case NAME ok", "case NAME failed: …"
//! ```
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]
#![allow(clippy::print_stdout, reason = "the console is how the guest is heard")]

mod disks;
#[path = "../../../oma-nbd/tests/guest/initramfs.rs"]
#[allow(dead_code, reason = "other machines take programs along")]
mod initramfs;
#[path = "../../../oma-nbd/tests/guest/inside.rs"]
#[allow(dead_code, reason = "other machines run more")]
mod inside;
mod loops;
mod machine;

use std::process::ExitCode;
use std::sync::OnceLock;

use oma_core::conformance::{Trial, run, trial};

use crate::inside::Case;
use crate::machine::{IN_GUEST, Report};

fn main() -> ExitCode {
    let cases = cases();
    if std::env::var_os(IN_GUEST).is_some() {
        return inside::run(&cases, &[]);
    }
    run(cases.into_iter().map(|case| here(case.name)).collect())
}

fn cases() -> Vec<Case> {
    disks::cases().into_iter().chain(loops::cases()).collect()
}

/// A case as it is seen from here: what the one machine for all said of it.
fn here(name: String) -> Trial {
    static BOOTED: OnceLock<Report> = OnceLock::new();
    trial(&name.clone(), &machine::needs(), move || async move {
        let report = BOOTED.get_or_init(machine::boot);
        if let Err(said) = report.of(&name) {
            panic!("{said}");
        }
    })
}
