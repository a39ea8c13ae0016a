//! The kernel's NBD client, in a machine of its own: this program builds one, boots it and runs in it as well.
//!
//! ```text
//!  here:  cases ── one initramfs: this program, its libraries, busybox, nbd-client, nbd.ko ── qemu ── serial console
//!  there: init ── this program with OMA_TEST_GUEST=1 ── "case NAME ok", "case NAME failed: …"
//! ```
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]
#![allow(clippy::print_stdout, reason = "the console is how the guest is heard")]

mod exports;
mod foreign;
mod inside;
mod machine;

use std::process::ExitCode;
use std::sync::OnceLock;

use oma_core::conformance::{Trial, run, trial};

use crate::inside::Case;
use crate::machine::{IN_GUEST, Machine, Report};

fn main() -> ExitCode {
    if std::env::var_os(IN_GUEST).is_some() {
        return inside::run(&cases());
    }
    run(cases().iter().map(|case| here(case.name)).collect())
}

fn cases() -> Vec<Case> {
    exports::cases().into_iter().chain(foreign::cases()).collect()
}

/// A case as it is seen from here: what the one machine for all said of it.
fn here(name: &'static str) -> Trial {
    static BOOTED: OnceLock<Report> = OnceLock::new();
    let machine = Machine { modules: &["nbd"], programs: &["nbd-client"] };
    trial(name, &machine.needs(), move || async move {
        let report = BOOTED.get_or_init(|| machine.boot());
        if let Err(said) = report.of(name) {
            panic!("{said}");
        }
    })
}
