//! The kernel's NBD client, and its TLS, in a machine of its own: this program builds one, boots it and runs in it as well.
//!
//! ```text
//!  here:  cases ── one initramfs: this program, its libraries, busybox, nbd-client, modules ── qemu ── serial console
//!  there: init ── this program with OMA_TEST_GUEST=1 ── "case NAME ok", "case NAME failed: …"
//! ```
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]
#![allow(clippy::print_stdout, reason = "the console is how the guest is heard")]

mod exports;
#[cfg(feature = "tls")]
#[path = "../tls/fixture.rs"]
#[allow(dead_code, reason = "the tests of TLS use the rest")]
mod fixture;
mod foreign;
mod inside;
mod machine;
#[cfg(feature = "tls")]
#[path = "../pki/mod.rs"]
mod pki;
mod promises;
#[cfg(feature = "tls")]
#[path = "../tls/talk.rs"]
#[allow(dead_code, reason = "the tests of TLS use the rest")]
mod talk;
#[cfg(feature = "tls")]
mod tls;

use std::process::ExitCode;
use std::sync::OnceLock;

use oma_core::conformance::{Trial, run, trial};

use crate::inside::{Case, Errand};
use crate::machine::{IN_GUEST, Machine, Report};

/// What the kernel needs for TLS besides its own module; in this order.
const MODULES: &[&str] = &["nbd", "gf128mul", "ghash-generic", "ctr", "gcm", "tls"];

fn main() -> ExitCode {
    let cases = cases();
    if std::env::var_os(IN_GUEST).is_some() {
        return inside::run(&cases, &errands());
    }
    run(cases.into_iter().map(|case| here(case.name)).collect())
}

fn cases() -> Vec<Case> {
    let cases = exports::cases().into_iter().chain(foreign::cases()).chain(promises::cases());
    #[cfg(feature = "tls")]
    let cases = cases.chain(tls::cases());
    cases.collect()
}

fn errands() -> Vec<Errand> {
    let attach: Errand = (exports::ABANDON, exports::abandon);
    #[cfg(feature = "tls")]
    return [attach].into_iter().chain(tls::ERRANDS).collect();
    #[cfg(not(feature = "tls"))]
    vec![attach]
}

/// A case as it is seen from here: what the one machine for all said of it.
fn here(name: String) -> Trial {
    static BOOTED: OnceLock<Report> = OnceLock::new();
    let machine = Machine { modules: MODULES, programs: &["nbd-client"] };
    trial(&name.clone(), &machine.needs(), move || async move {
        let report = BOOTED.get_or_init(|| machine.boot());
        if let Err(said) = report.of(&name) {
            panic!("{said}");
        }
    })
}
