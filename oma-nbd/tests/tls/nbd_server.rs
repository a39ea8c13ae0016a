//! nbd-server, which speaks TLS by GnuTLS, as a server of ours.

use std::sync::Arc;

use oma_core::ErrorKind;
use oma_core::conformance::{
    DEVICE_CAPACITY, DeviceSubject, Requirement, Trial, block_device_cases, cases_needing, trial,
};
use oma_nbd::ClientConfig;

use crate::fixture::{SIZE, assert_error, config};
use crate::foreign::carries;
use crate::peer::{NBD_SERVER, Peer, connect_patiently};
use crate::pki::{self, Pki};

const NEEDS: &[Requirement] = &[NBD_SERVER, Requirement::Program("timeout")];

/// What it takes unless it is told otherwise, which is 1.2; and the newest.
const VERSIONS: [&str; 2] = ["", "tlsprio = NORMAL:-VERS-TLS-ALL:+VERS-TLS1.3"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("nbd_server_serves_us_through_tls", NEEDS, serves),
        trial("nbd_server_demands_tls_and_a_certificate_of_us", NEEDS, demands),
        trial("cve_2024_7383_nbd_server_for_another_host_or_out_of_date_is_refused", NEEDS, is_refused),
    ];
    trials.extend(cases_needing("nbd_server_through_tls", NEEDS, &block_device_cases(), device));
    trials
}

/// Serves `disk` of so many bytes to clients that have a certificate.
async fn start(pki: &Pki, size: u64, general: &str) -> Peer {
    let mut peer = Peer::new();
    let image = peer.path("image");
    std::fs::File::create(&image).unwrap().set_len(size).unwrap();
    let file = |key: &str, name: &str| format!("{key} = {}\n", pki.path(name).display());
    let files =
        [("certfile", "server-cert.pem"), ("keyfile", "server-key.pem"), ("cacertfile", "ca-cert.pem")];
    let files: String = files.map(|(key, name)| file(key, name)).concat();
    let export = format!("[disk]\nexportname = {}\nflush = true\nfua = true\ntrim = true\n", image.display());
    peer.start_nbd_server(&format!("{files}force_tls = true\n{general}"), &export).await;
    peer
}

async fn serves() {
    for version in VERSIONS {
        let pki = Pki::new();
        let peer = start(&pki, SIZE.bytes(), version).await;
        carries(connect_patiently(&peer.uri("disk"), config(pki.client("client"))).await.unwrap()).await;
    }
}

async fn demands() {
    for version in VERSIONS {
        let pki = Pki::new();
        let peer = start(&pki, SIZE.bytes(), version).await;
        let uri = peer.uri("disk");
        let error = connect_patiently(&uri, ClientConfig::default()).await.unwrap_err();
        assert_error(&error, ErrorKind::Unsupported, "nbds://");
        // It may hang up without a word, or say nothing any more.
        for tls in [pki.nobody(), Pki::new().client("client")] {
            let tls = oma_nbd::TlsClientConfig { trust: pki.nobody().trust, ..tls };
            let error = connect_patiently(&uri, config(tls)).await.unwrap_err();
            let refused = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unavailable);
            assert!(refused, "{}", error.chain());
        }
    }
}

async fn is_refused() {
    let other = pki::server(&["other.example"]);
    let late = pki::expired(pki::server(&["localhost"]));
    for (server, text) in [(other, "tls-hostname=NAME"), (late, "renew it")] {
        let pki = Pki::new();
        pki.issue("server", &server);
        let peer = start(&pki, SIZE.bytes(), "").await;
        let error = connect_patiently(&peer.uri("disk"), config(pki.client("client"))).await.unwrap_err();
        assert_error(&error, ErrorKind::PermissionDenied, text);
    }
}

async fn device() -> DeviceSubject {
    let pki = Pki::new();
    let peer = start(&pki, DEVICE_CAPACITY.bytes(), "").await;
    let client = connect_patiently(&peer.uri("disk"), config(pki.client("client"))).await.unwrap();
    DeviceSubject { device: Arc::new(client), guard: Box::new((peer, pki)) }
}
