//! Who a client is, and what it may open.

use bytes::{Bytes, BytesMut};
use oma_core::ErrorKind;
use oma_core::conformance::{Trial, trial};
use oma_core::memory::MemoryDevice;
use oma_core::traits::{BlockDevice, Durability, ExportServer};
use oma_nbd::{
    ClientCertificates, Clients, ExportOptions, TlsClientConfig, TlsFiles, TlsPolicy, TlsServer, client,
};

use crate::fixture::{Fixture, SIZE, assert_error, config, connect, named, spec};
use crate::pki::{self, Pki};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("each_name_of_a_client_certificate_opens_its_export", &[], each_name_opens),
        trial("an_export_is_unknown_to_clients_it_is_not_for", &[], unknown_to_others),
        trial("a_client_without_a_certificate_is_nobody_where_none_is_demanded", &[], nobody),
        trial("clients_without_a_good_certificate_are_refused_where_one_is_demanded", &[], refused_clients),
        trial("a_client_whose_certificate_is_revoked_is_shut_out_once_the_list_is_read", &[], revoked),
        trial("a_unix_socket_tells_the_user", &[], unix_user),
        trial("the_same_export_for_other_clients_needs_a_newer_token", &[], other_clients),
        trial("certificates_are_read_again_while_clients_work", &[], reload_under_load),
        trial("broken_certificates_keep_the_old_ones_and_say_what_to_do", &[], broken_reload),
        trial("l29_keys_are_never_shown", &[], keys_are_never_shown),
    ]
}

async fn each_name_opens() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.mutual().await).await;
    for (number, name) in [
        "cn:agent",
        "dns:agent.example",
        "ip:10.9.8.7",
        "email:agent@example.com",
        "uri:spiffe://example/agent",
    ]
    .into_iter()
    .enumerate()
    {
        let export = format!("disk{number}");
        fixture.publish(&export, MemoryDevice::new(&export, SIZE), named(&[name])).await;
        connect(&fixture.tcp(&export), pki.client("client")).await.unwrap().close().await;
    }
    fixture.close().await;
}

async fn unknown_to_others() {
    let pki = Pki::new();
    pki.issue("other", &pki::client("other"));
    let fixture = Fixture::new(pki.mutual().await).await;
    fixture.publish("secret", MemoryDevice::new("secret", SIZE), named(&["cn:agent"])).await;
    let mut answers = Vec::new();
    for export in ["secret", "nothing"] {
        let error = connect(&fixture.tcp(export), pki.client("other")).await.unwrap_err();
        assert_error(&error, ErrorKind::NotFound, "offers \"disk\"");
        answers.push(error.chain().replace(export, "…"));
    }
    assert_eq!(answers[0], answers[1], "nothing tells an export that is hidden from one that is not there");
    let listed = async |name: &str| {
        let exports = client::list(&fixture.tcp(""), &config(pki.client(name))).await.unwrap();
        exports.into_iter().map(|export| export.name).collect::<Vec<_>>()
    };
    assert_eq!(listed("client").await, ["disk", "secret"]);
    assert_eq!(listed("other").await, ["disk"]);
    let contexts = client::list_contexts(&fixture.tcp("secret"), "", &config(pki.client("other"))).await;
    assert_eq!(contexts.unwrap_err().kind(), ErrorKind::NotFound);
    fixture.close().await;
}

async fn nobody() {
    let pki = Pki::new();
    let files = TlsFiles {
        clients: ClientCertificates::Optional(pki.path("ca-cert.pem")),
        ..TlsFiles::in_directory(pki.folder())
    };
    let fixture = Fixture::new(TlsPolicy::Required(TlsServer::open(files).await.unwrap())).await;
    fixture.publish("secret", MemoryDevice::new("secret", SIZE), named(&["cn:agent"])).await;
    connect(&fixture.tcp("disk"), pki.nobody()).await.unwrap();
    assert_eq!(connect(&fixture.tcp("secret"), pki.nobody()).await.unwrap_err().kind(), ErrorKind::NotFound);
    connect(&fixture.tcp("secret"), pki.client("client")).await.unwrap();
    // Where nobody is asked, a certificate that is shown is nobody's.
    let unasked = Fixture::new(pki.required().await).await;
    unasked.publish("secret", MemoryDevice::new("secret", SIZE), named(&["cn:agent"])).await;
    let error = connect(&unasked.tcp("secret"), pki.client("client")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    fixture.close().await;
    unasked.close().await;
}

async fn refused_clients() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    pki.issue("early", &pki::not_yet(pki::client("agent")));
    pki.issue("wrong-use", &pki::server(&["agent.example"]));
    let fixture = Fixture::new(pki.mutual().await).await;
    let foreign = TlsClientConfig { trust: pki.nobody().trust, ..stranger.client("client") };
    for (shown, text) in [
        (pki.nobody(), "CertificateRequired"),
        (pki.client("early"), "CertificateExpired"),
        (pki.client("wrong-use"), "UnsupportedCertificate"),
        (foreign, "UnknownCA"),
    ] {
        for uri in [fixture.tcp("disk"), fixture.unix("disk")] {
            let error = connect(&uri, shown.clone()).await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::PermissionDenied), "{text}: {}", error.chain());
            assert!(error.chain().contains("refused this side's certificate"), "{text}: {}", error.chain());
        }
    }
    // One that is out of date is not even shown.
    pki.issue("late", &pki::expired(pki::client("agent")));
    let error = connect(&fixture.tcp("disk"), pki.client("late")).await.unwrap_err();
    assert_error(&error, ErrorKind::Invalid, "out of date");
    connect(&fixture.tcp("disk"), pki.client("client")).await.unwrap();
    fixture.close().await;
}

async fn revoked() {
    let (pki, other) = (Pki::new(), Pki::new());
    for (name, number) in [("thief", 7_u64), ("honest", 8)] {
        let mut params = pki::client(name);
        params.serial_number = Some(number.into());
        pki.issue(name, &params);
    }
    // A second authority, which has no list, is trusted too.
    let both = [&pki, &other].map(|pki| std::fs::read_to_string(pki.path("ca-cert.pem")).unwrap()).concat();
    std::fs::write(pki.path("both.pem"), both).unwrap();
    let files = TlsFiles {
        clients: ClientCertificates::Required(pki.path("both.pem")),
        ..TlsFiles::mutual_in_directory(pki.folder())
    };
    let server = TlsServer::open(files).await.unwrap();
    let fixture = Fixture::new(TlsPolicy::Required(server.clone())).await;
    let uri = fixture.tcp("disk");
    let foreign = TlsClientConfig { trust: pki.nobody().trust, ..other.client("client") };
    let enters = async |shown: TlsClientConfig| connect(&uri, shown).await.map(|_| ());
    enters(pki.client("thief")).await.unwrap();
    pki.revoke(&[7]);
    enters(pki.client("thief")).await.unwrap();
    server.reload().await.unwrap();
    let error = enters(pki.client("thief")).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, "CertificateRevoked");
    for shown in [pki.client("honest"), pki.client("client"), foreign] {
        enters(shown).await.unwrap();
    }
    // Nor does a certificate of the server keep the list from being heeded that cannot be used.
    let certificate = std::fs::read(pki.path("server-cert.pem")).unwrap();
    std::fs::write(pki.path("server-cert.pem"), "nothing").unwrap();
    pki.revoke(&[7, 8]);
    assert_error(&server.reload().await.unwrap_err(), ErrorKind::Invalid, "has no certificate");
    let error = enters(pki.client("honest")).await.unwrap_err();
    assert_error(&error, ErrorKind::PermissionDenied, "CertificateRevoked");
    std::fs::write(pki.path("server-cert.pem"), certificate).unwrap();
    pki.revoke(&[7]);
    server.reload().await.unwrap();
    // One that is taken away stays in use.
    std::fs::remove_file(pki.path("ca-crl.pem")).unwrap();
    server.reload().await.unwrap();
    assert!(enters(pki.client("thief")).await.is_err());
    // A list that cannot be read shuts nobody else out, and lets nobody in.
    for (list, text) in [
        ("", "has no list of revoked certificates"),
        ("-----BEGIN X509 CRL-----\n!", "PEM"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----", "cannot be read; make it again"),
    ] {
        std::fs::write(pki.path("ca-crl.pem"), list).unwrap();
        let error = server.reload().await.unwrap_err();
        assert_error(&error, ErrorKind::Invalid, text);
        assert!(error.chain().contains("ca-crl.pem"), "{}", error.chain());
        assert!(enters(pki.client("thief")).await.is_err());
        enters(pki.client("honest")).await.unwrap();
    }
    fixture.close().await;
}

async fn unix_user() {
    let pki = Pki::new();
    let fixture = Fixture::new(TlsPolicy::Optional(pki.server().await)).await;
    let me = rustix::process::getuid().as_raw();
    let (mine, others) = (format!("uid:{me}"), format!("uid:{}", me + 1));
    fixture.publish("mine", MemoryDevice::new("mine", SIZE), named(&[&mine])).await;
    fixture.publish("others", MemoryDevice::new("others", SIZE), named(&[&others])).await;
    for tls in [None, Some(pki.nobody())] {
        let config = oma_nbd::ClientConfig { tls, ..config(pki.nobody()) };
        oma_nbd::Client::connect(&fixture.unix("mine"), config.clone()).await.unwrap();
        for uri in [fixture.unix("others"), fixture.tcp("mine")] {
            let error = oma_nbd::Client::connect(&uri, config.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }
    fixture.close().await;
}

async fn other_clients() {
    let pki = Pki::new();
    let fixture = Fixture::new(pki.mutual().await).await;
    let publish = async |fence, clients| {
        let spec = oma_core::traits::ExportSpec { fence, ..spec("disk", fixture.device.clone()) };
        fixture.server.publish_to(spec, ExportOptions { clients, ..ExportOptions::default() }).await
    };
    publish(oma_core::Fence(1), Clients::Anybody).await.unwrap();
    let error = publish(oma_core::Fence(1), named(&["cn:other"])).await.unwrap_err();
    assert_error(&error, ErrorKind::AlreadyExists, "newer token");
    connect(&fixture.tcp("disk"), pki.client("client")).await.unwrap();
    publish(oma_core::Fence(2), named(&["cn:other"])).await.unwrap();
    let error = connect(&fixture.tcp("disk"), pki.client("client")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    fixture.close().await;
}

async fn reload_under_load() {
    let pki = Pki::new();
    let server = pki.server().await;
    let fixture = Fixture::new(TlsPolicy::Required(server.clone())).await;
    let named = |name: &str| TlsClientConfig { server_name: Some(name.to_owned()), ..pki.nobody() };
    let old = connect(&fixture.tcp("disk"), named("localhost")).await.unwrap();
    let work = async {
        for turn in 0u64..200 {
            let bytes = vec![turn.to_le_bytes()[0]; 16 << 10];
            old.write_at(turn * 16384, Bytes::from(bytes.clone()), Durability::Cached).await.unwrap();
            assert!(old.read_at(turn * 16384, BytesMut::zeroed(16384)).await.unwrap() == bytes);
        }
    };
    let change = async {
        for turn in 0..10 {
            let name = format!("turn{turn}.example");
            pki.issue("server", &pki::server(&[&name]));
            server.reload().await.unwrap();
            connect(&fixture.tcp("disk"), named(&name)).await.unwrap().close().await;
            let error = connect(&fixture.tcp("disk"), named("localhost")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    };
    tokio::join!(work, change);
    let statistics = fixture.server.statistics(&oma_core::ExportName::parse("disk").unwrap()).await;
    assert_eq!(statistics.unwrap().unwrap().errors, 0);
    drop(old);
    fixture.close().await;
}

async fn broken_reload() {
    let pki = Pki::new();
    let server = pki.server().await;
    let fixture = Fixture::new(TlsPolicy::Required(server.clone())).await;
    let (certificate, key) = (pki.path("server-cert.pem"), pki.path("server-key.pem"));
    let (good_certificate, good_key) = (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());
    pki.issue("late", &pki::expired(pki::server(&["localhost"])));
    let (late, stranger) =
        (std::fs::read(pki.path("late-cert.pem")).unwrap(), std::fs::read(pki.path("late-key.pem")).unwrap());
    for (certificate_now, key_now, kind, text) in [
        (&good_certificate[..], &stranger[..], ErrorKind::Invalid, "does not belong to the private key"),
        (b"", &good_key, ErrorKind::Invalid, "has no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!", &good_key, ErrorKind::Invalid, "PEM"),
        (&good_certificate, b"nothing", ErrorKind::Invalid, "no private key that can be read"),
        (&late, &stranger, ErrorKind::Invalid, "out of date"),
        (&good_key, &good_key, ErrorKind::Invalid, "has no certificate"),
    ] {
        std::fs::write(&certificate, certificate_now).unwrap();
        std::fs::write(&key, key_now).unwrap();
        let error = server.reload().await.unwrap_err();
        assert_error(&error, kind, text);
        connect(&fixture.tcp("disk"), pki.nobody()).await.unwrap().close().await;
    }
    std::fs::remove_file(&key).unwrap();
    std::fs::write(&certificate, good_certificate).unwrap();
    assert_error(&server.reload().await.unwrap_err(), ErrorKind::NotFound, "server-key.pem");
    std::fs::write(&key, good_key).unwrap();
    server.reload().await.unwrap();
    connect(&fixture.tcp("disk"), pki.nobody()).await.unwrap().close().await;
    fixture.close().await;
}

async fn keys_are_never_shown() {
    let pki = Pki::new();
    let server = pki.server().await;
    let fixture = Fixture::new(TlsPolicy::Required(server.clone())).await;
    let client = connect(&fixture.tcp("disk"), pki.client("client")).await.unwrap();
    let shown = format!("{server:?} {:?} {client:?} {:?}", fixture.server, pki.client("client"));
    for file in ["server-key.pem", "client-key.pem"] {
        let key = std::fs::read_to_string(pki.path(file)).unwrap();
        let secret = key.lines().nth(1).unwrap();
        assert!(!shown.contains(secret));
    }
    assert!(shown.contains("server-key.pem"), "{shown}");
    // An error names the file only, whatever is in it.
    let wrong = TlsFiles { key: pki.path("server-cert.pem"), ..TlsFiles::in_directory(pki.folder()) };
    let error = TlsServer::open(wrong).await.unwrap_err();
    assert!(!format!("{error:?}").contains("BEGIN"), "{error:?}");
    drop(client);
    fixture.close().await;
}
