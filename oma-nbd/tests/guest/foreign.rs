//! nbd-client and the kernel as clients of our server, and what is theirs is left alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, Drained, ExportServer, ExportSpec};
use oma_core::{ByteSize, Fence};
use oma_nbd::kernel::{attached, sweep};
use oma_nbd::{Client, ClientConfig, Server, ServerConfig, Uri};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exports::{exports, name, spec};
use crate::inside::{Case, cases, program, well};

/// A device that the kernel does not choose by itself before the others.
const NODE: &str = "/dev/nbd3";
const LONG: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    cases![
        nbd_client_reads_and_writes_over_a_unix_socket,
        nbd_client_reads_and_writes_over_tcp_by_four_connections,
        nbd_client_lists_the_exports,
        l22_nbd_client_does_not_notice_another_export,
        l23_a_withdrawn_export_fails_for_the_kernel,
        what_nbd_client_attached_is_never_touched,
        an_export_of_another_server_is_attached_through_our_client,
    ]
}

struct Served {
    server: Server,
    device: MemoryDevice,
    port: u16,
    _listeners: JoinSet<()>,
}

async fn served(socket: &str) -> Served {
    let (server, device) = (Server::new(ServerConfig::default()), MemoryDevice::new("d", ByteSize::mib(16)));
    server.publish(spec("disk", &device)).await.unwrap();
    let _ = std::fs::remove_file(socket);
    let unix = UnixListener::bind(socket).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let mut listeners = JoinSet::new();
    let (one, other) = (server.clone(), server.clone());
    listeners.spawn(async move { one.serve_unix(unix, CancellationToken::new()).await });
    listeners.spawn(async move { other.serve_tcp(tcp, CancellationToken::new()).await });
    Served { server, device, port, _listeners: listeners }
}

/// Writes random blocks through the kernel, and compares what the kernel reads and what the device has.
async fn exercise(device: &MemoryDevice) {
    exercise_at(NODE, device).await;
}

async fn exercise_at(node: &str, device: &MemoryDevice) {
    well("dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null").await;
    well(&format!("dd if=/tmp/data of={node} bs=64k seek=32 conv=fsync 2>/dev/null")).await;
    well("echo 3 > /proc/sys/vm/drop_caches").await;
    well(&format!(
        "dd if={node} of=/tmp/back bs=64k skip=32 count=16 2>/dev/null && cmp /tmp/data /tmp/back"
    ))
    .await;
    let data = std::fs::read("/tmp/data").unwrap();
    let at = 32 << 16;
    assert!(device.bytes()[at..at + data.len()] == data[..], "the device has other bytes than were written");
    let touched = device.unflushed();
    assert!(touched.is_empty(), "fsync reaches the device");
}

async fn nbd_client_reads_and_writes_over_a_unix_socket() {
    let served = served("/tmp/s1").await;
    well(&format!("nbd-client -unix /tmp/s1 {NODE} -N disk")).await;
    exercise(&served.device).await;
    well(&format!("nbd-client -d {NODE}")).await;
}

async fn nbd_client_reads_and_writes_over_tcp_by_four_connections() {
    let served = served("/tmp/s2").await;
    well(&format!("nbd-client 127.0.0.1 {} {NODE} -N disk -C 4 -timeout 6", served.port)).await;
    let counted = served.server.statistics(&name("disk")).await.unwrap().unwrap();
    assert_eq!(counted.connections, 4);
    exercise(&served.device).await;
    well(&format!("nbd-client -d {NODE}")).await;
}

async fn nbd_client_lists_the_exports() {
    let served = served("/tmp/s3").await;
    let said = well(&format!("nbd-client -l 127.0.0.1 -p {}", served.port)).await;
    assert!(said.lines().any(|line| line.trim() == "disk"), "{said}");
}

async fn l22_nbd_client_does_not_notice_another_export() {
    let served = served("/tmp/s4").await;
    well(&format!("nbd-client -unix /tmp/s4 {NODE} -N disk")).await;
    let other = MemoryDevice::new("e", ByteSize::mib(1));
    served.server.publish(spec("other", &other)).await.unwrap();
    served.server.withdraw(&name("other"), LONG).await.unwrap();
    exercise(&served.device).await;
    well(&format!("nbd-client -d {NODE}")).await;
}

async fn l23_a_withdrawn_export_fails_for_the_kernel() {
    let served = served("/tmp/s5").await;
    well(&format!("nbd-client -unix /tmp/s5 {NODE} -N disk")).await;
    exercise(&served.device).await;
    let before = served.device.calls();
    assert_eq!(served.server.withdraw(&name("disk"), LONG).await.unwrap(), Drained::Graceful);
    let (said, well_ended) = program(&format!("dd if=/tmp/data of={NODE} bs=64k conv=fsync")).await;
    assert!(!well_ended, "{said}");
    assert_eq!(served.device.calls(), before);
    well(&format!("nbd-client -d {NODE}")).await;
}

async fn what_nbd_client_attached_is_never_touched() {
    let served = served("/tmp/s6").await;
    well(&format!("nbd-client -unix /tmp/s6 {NODE} -N disk")).await;
    let exports = exports();
    for number in 0..6 {
        // More than there are free devices: the kernel makes new ones.
        let device = MemoryDevice::new(number.to_string(), ByteSize::mib(1));
        exports.publish(spec(&format!("e{number}"), &device)).await.unwrap();
        assert_ne!(exports.path(&name(&format!("e{number}"))).await.as_deref(), Some(Path::new(NODE)));
    }
    assert!(sweep().await.unwrap().is_empty());
    assert!(attached().await.unwrap().iter().all(|found| found.path != Path::new(NODE)));
    for number in 0..6 {
        exports.withdraw(&name(&format!("e{number}")), LONG).await.unwrap();
    }
    exercise(&served.device).await;
    well(&format!("nbd-client -d {NODE}")).await;
}

async fn an_export_of_another_server_is_attached_through_our_client() {
    let served = served("/tmp/s7").await;
    let uri = Uri::unix("/tmp/s7", "disk").unwrap();
    let client = Client::connect(&uri, ClientConfig::default()).await.unwrap();
    let exports = exports();
    let remote = ExportSpec {
        name: name("remote"),
        description: String::new(),
        access: Access::ReadWrite,
        fence: Fence(1),
        device: Arc::new(client),
    };
    exports.publish(remote).await.unwrap();
    let node = exports.path(&name("remote")).await.unwrap();
    exercise_at(node.to_str().unwrap(), &served.device).await;
    // The other server ends it: the device fails, the machine and the withdrawal do not.
    served.server.withdraw(&name("disk"), LONG).await.unwrap();
    let (said, ended_well) =
        program(&format!("dd if=/tmp/data of={} bs=64k conv=fsync", node.display())).await;
    assert!(!ended_well, "{said}");
    exports.withdraw(&name("remote"), LONG).await.unwrap();
    assert!(attached().await.unwrap().is_empty());
}
