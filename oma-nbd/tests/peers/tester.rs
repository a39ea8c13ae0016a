//! The tester of the reference project, `nbd-tester-client`: Debian's package leaves it out, so `.ci/nbd-tester` builds it.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::traits::{Access, ExportServer, ExportSpec, ExportStatistics};
use oma_core::{ByteSize, ExportName, Fence};
use oma_volume::device::FileDevice;

use crate::fixture::{Fixture, outcome, run, text};

const TESTER: &str = "nbd-tester-client";

pub(crate) fn trials() -> Vec<Trial> {
    let need = [Requirement::Program(TESTER)];
    vec![
        trial("nbd_tester_client_reads_and_writes", &need, reads_and_writes),
        trial("nbd_tester_client_is_refused_what_it_must_be", &need, refused),
        trial("nbd_tester_client_replays_its_log", &need, || replays("integrity-test.tr")),
        trial("nbd_tester_client_replays_its_log_of_huge_requests", &need, || {
            replays("integrityhuge-test.tr")
        }),
    ]
}

/// A file that lies beside the program.
fn beside(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let home = env::split_paths(&path).find(|folder| folder.join(TESTER).is_file()).unwrap();
    home.join(name)
}

/// A server with an empty export of the size that the tester wants, in a file: requests are huge.
async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    let path = fixture.path("tester.raw");
    std::fs::File::create(&path).unwrap().set_len(ByteSize::mib(50).bytes()).unwrap();
    let device = Arc::new(FileDevice::open(path, Access::ReadWrite).await.unwrap());
    let (name, description) = (ExportName::parse("tester").unwrap(), String::new());
    let (access, fence) = (Access::ReadWrite, Fence(1));
    fixture.server.publish(ExportSpec { name, description, access, fence, device }).await.unwrap();
    fixture
}

async fn statistics(fixture: &Fixture) -> ExportStatistics {
    fixture.server.statistics(&ExportName::parse("tester").unwrap()).await.unwrap().unwrap()
}

async fn reads_and_writes() {
    let fixture = fixture().await;
    let (socket, port) = (fixture.path("socket"), fixture.port.to_string());
    let (unix, tcp) = (["-u", text(&socket)], ["127.0.0.1", &port]);
    for place in [unix, tcp] {
        for mode in [&[][..], &["-w"], &["-w", "-f"], &["-o"], &["-h"]] {
            run(TESTER, &[&["-N", "tester"], mode, &place].concat()).await;
        }
    }
    let seen = statistics(&fixture).await;
    assert!(seen.bytes_written > 0 && seen.bytes_read > 0 && seen.errors == 0, "{seen:?}");
    fixture.close().await;
}

async fn refused() {
    let fixture = fixture().await;
    let socket = fixture.path("socket");
    // It ends well when the write fails, and badly when it is taken.
    run(TESTER, &["-N", "locked", "-w", "-F", "-u", text(&socket)]).await;
    let (said, well) = outcome(TESTER, &["-N", "none", "-u", text(&socket)]).await;
    assert!(!well, "{said}");
    fixture.close().await;
}

async fn replays(log: &str) {
    let fixture = fixture().await;
    let (socket, log) = (fixture.path("socket"), beside(log));
    run(TESTER, &["-N", "tester", "-i", "-t", text(&log), "-u", text(&socket)]).await;
    let seen = statistics(&fixture).await;
    assert!(seen.bytes_written > 0 && seen.bytes_read > 0 && seen.errors == 0, "{seen:?}");
    fixture.close().await;
}
