//! TLS that the kernel does, where it has the module for it.

mod data;
mod messages;
mod records;

use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oma_core::traits::{BlockDevice, Durability};
use oma_nbd::protocol::{NBD_OPT_STARTTLS, NBD_REP_ACK};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use self::records::Records;
use crate::fixture::{Fixture, connect};
use crate::inside::{Case, Errand, cases, runtime, well};
use crate::pki::Pki;
use crate::talk::{answer, connection, greet};

/// What a server by TCP reports of a connection whose TLS the kernel does.
const BY_KERNEL: &str = "through TLS of the kernel";
/// Makes this program serve itself and say how.
const REPORT: &str = "--report-tls";
pub(crate) const ERRANDS: [Errand; 1] = [(REPORT, report)];

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

pub(crate) fn cases() -> Vec<Case> {
    let own = cases![
        without_its_module_tls_is_done_in_the_process_and_reported_so,
        with_its_module_the_kernel_does_tls_for_tcp_only,
    ];
    own.into_iter().chain(data::cases()).chain(messages::cases()).collect()
}

/// What the process does that looks for TLS in the kernel anew.
fn report() -> ExitCode {
    runtime().block_on(async {
        let (fixture, pki) = served().await;
        for uri in [fixture.tcp("disk"), fixture.unix("disk")] {
            let client = connect(&uri, pki.nobody()).await.unwrap();
            client.write_at(7, Bytes::from_static(&[7; 100_000]), Durability::Durable).await.unwrap();
            assert_eq!(client.read_at(7, BytesMut::zeroed(100_000)).await.unwrap(), [7; 100_000][..]);
            println!("{}", fixture.served("disk").await.client);
            client.close().await;
            fixture.left("disk").await;
        }
    });
    ExitCode::SUCCESS
}

async fn without_its_module_tls_is_done_in_the_process_and_reported_so() {
    well("rmmod tls").await;
    let said = well(&format!("/test {REPORT}")).await;
    well("insmod /modules/tls.ko").await;
    assert!(said.lines().count() == 2 && said.lines().all(|line| line.contains("TLSv1_3")), "{said}");
}

async fn with_its_module_the_kernel_does_tls_for_tcp_only() {
    let said = well(&format!("/test {REPORT}")).await;
    let [tcp, unix] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(tcp.ends_with(BY_KERNEL) && unix.contains("by a unix socket through TLSv1_3"), "{said}");
    // The kernel has counted a session each way.
    let counted = well("cat /proc/net/tls_stat").await;
    for name in ["TlsTxSw", "TlsRxSw"] {
        let count = counted.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        assert!(count > Some(0), "{counted}");
    }
}

/// A client that has started TLS, but not said the last word of its handshake.
fn open(port: u16, pki: &Pki, version: &'static SupportedProtocolVersion) -> Records {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.set_nodelay(true).unwrap();
    greet(&mut socket);
    assert_eq!(answer(&mut socket, NBD_OPT_STARTTLS, &[]), NBD_REP_ACK);
    Records::shake(socket, connection(pki, &[version]))
}

/// A server with the export `disk`, and who trusts it.
async fn served() -> (Arc<Fixture>, Arc<Pki>) {
    // Keys take their time here.
    static PKI: LazyLock<Arc<Pki>> = LazyLock::new(|| Arc::new(Pki::new()));
    (Arc::new(Fixture::new(PKI.required().await).await), PKI.clone())
}
