//! A backend behind the backend routes is the backend itself, as far as anybody can tell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod appliance;
mod cut;
mod cutter;
mod daemon;
mod document;
mod exports;
mod late;
mod lists;
mod sessions;
mod strangers;
mod stuck;
mod tls;

use std::process::ExitCode;
use std::sync::Arc;

use oma_core::ByteSize;
use oma_core::conformance::{self, BackendSubject, Trial};
use oma_core::memory::MemoryBackend;

use crate::daemon::{Daemon, Way};

fn main() -> ExitCode {
    let mut trials = backends();
    trials.extend(access::trials());
    trials.extend(appliance::trials());
    trials.extend(cut::trials());
    trials.extend(document::trials());
    trials.extend(exports::trials());
    trials.extend(late::trials());
    trials.extend(lists::trials());
    trials.extend(sessions::trials());
    trials.extend(strangers::trials());
    trials.extend(stuck::trials());
    trials.extend(tls::trials());
    conformance::run(trials)
}

/// Two clients of one daemon.
async fn subject(backend: MemoryBackend, way: Way) -> BackendSubject {
    let daemon = Daemon::start(Arc::new(backend), way).await;
    let (backend, second) = (Arc::new(daemon.remote().await), Arc::new(daemon.remote().await));
    BackendSubject { backend, second, guard: Box::new(daemon) }
}

fn backends() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, way) in [("memory_over_tcp", Way::Tcp), ("memory_over_unix", Way::Unix)] {
        trials.extend(conformance::cases(name, &conformance::volume_backend_cases(), move || async move {
            subject(MemoryBackend::new(), way).await
        }));
        trials.extend(conformance::cases(name, &conformance::full_backend_cases(), move || async move {
            subject(MemoryBackend::new().with_room(ByteSize::mib(8)), way).await
        }));
        trials.extend(conformance::cases(
            name,
            &conformance::unreachable_backend_cases(),
            move || async move {
                let backend = MemoryBackend::new();
                backend.disconnect();
                subject(backend, way).await
            },
        ));
    }
    // The daemon itself is gone.
    trials.extend(conformance::cases(
        "gone",
        &conformance::unreachable_backend_cases(),
        move || async move {
            let subject = subject(MemoryBackend::new(), Way::Tcp).await;
            let daemon = subject.guard.downcast::<Daemon>().unwrap();
            daemon.stop().await;
            BackendSubject { guard: Box::new(()), ..subject }
        },
    ));
    trials
}
