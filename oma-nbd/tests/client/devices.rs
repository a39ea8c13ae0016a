//! The promises of a block device, kept through the client by each kind of server.

use std::sync::Arc;

use oma_core::conformance::{DeviceSubject, Requirement, Trial, block_device_cases, cases};
use oma_nbd::ClientConfig;

use crate::fixture::{NBD_SERVER, NBDKIT, Peer, QEMU_NBD, connect_patiently, text};

/// 1 MiB and three blocks of 512 bytes.
const SIZE: u64 = (1 << 20) + 1536;

pub(crate) fn trials() -> Vec<Trial> {
    let nbdkit = || async { subject(Peer::nbdkit(&["memory", &SIZE.to_string()]).await).await };
    let small = || async {
        // A server that takes little at once and knows neither zeroes nor holes.
        let size = SIZE.to_string();
        let arguments =
            ["--filter=nozero", "--filter=noextents", "--filter=blocksize-policy", "memory", &size];
        let sizes = ["blocksize-minimum=1", "blocksize-preferred=4096", "blocksize-maximum=65536"];
        let policy = ["blocksize-error-policy=error"];
        subject(Peer::nbdkit(&[&arguments[..], &sizes, &policy].concat()).await).await
    };
    let simple = || async {
        let size = SIZE.to_string();
        subject(Peer::nbdkit(&["--no-sr", "memory", &size]).await).await
    };
    let oldest = || async {
        let size = SIZE.to_string();
        subject(Peer::nbdkit(&["--mask-handshake=0", "memory", &size]).await).await
    };
    let qemu = || async {
        let mut peer = Peer::new();
        let image = image(&peer);
        peer.start_qemu_nbd(&["--format=raw", "--discard=unmap", &image]).await;
        subject(peer).await
    };
    let compact = || async {
        let mut peer = Peer::new();
        let image = image(&peer);
        peer.start_qemu_nbd(&["--format=raw", "--discard=unmap", &image]).await;
        let config = ClientConfig { extended_headers: false, ..crate::fixture::config() };
        with(peer, "", config).await
    };
    let server = || async {
        let mut peer = Peer::new();
        let export = format!("[]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n", image(&peer));
        peer.start_nbd_server("", &export.replace("[]", "[disk]")).await;
        named(peer, "disk").await
    };
    [
        suite(NBDKIT, "nbdkit", nbdkit),
        suite(NBDKIT, "nbdkit_with_small_requests", small),
        suite(NBDKIT, "nbdkit_with_simple_replies", simple),
        suite(NBDKIT, "nbdkit_without_options", oldest),
        suite(QEMU_NBD, "qemu_nbd", qemu),
        suite(QEMU_NBD, "qemu_nbd_with_compact_headers", compact),
        suite(NBD_SERVER, "nbd_server", server),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn suite<F, Fut>(need: Requirement, name: &str, factory: F) -> Vec<Trial>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = DeviceSubject> + Send + 'static,
{
    if need.is_met() || need.is_required() {
        return cases(name, &block_device_cases(), factory);
    }
    vec![oma_core::conformance::trial(name, &[need], || async {})]
}

/// A sparse file of the right size; qemu-nbd and nbd-server serve whole blocks of 512 bytes.
fn image(peer: &Peer) -> String {
    let path = peer.path("image");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    text(&path).to_owned()
}

async fn subject(peer: Peer) -> DeviceSubject {
    named(peer, "").await
}

async fn named(peer: Peer, export: &str) -> DeviceSubject {
    with(peer, export, crate::fixture::config()).await
}

async fn with(peer: Peer, export: &str, config: ClientConfig) -> DeviceSubject {
    let client = connect_patiently(&peer.uri(export), config).await.unwrap();
    DeviceSubject { device: Arc::new(client), guard: Box::new(peer) }
}
