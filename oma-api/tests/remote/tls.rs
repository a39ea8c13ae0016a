//! A daemon that speaks TLS with a certificate of a private authority.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use oma_api::client::{RemoteBackend, RemoteConfig, Token};
use oma_api::server::{Api, BackendRoutes, Publisher};
use oma_core::conformance::{Trial, trial};
use oma_core::memory::{MemoryBackend, MemoryExportServer};
use oma_core::traits::{Access, VolumeBackend};
use oma_core::{ErrorKind, InstanceId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;

use crate::daemon::{Memory, attached, open_door, tag};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_daemon_is_reached_over_tls_with_a_private_authority", &[], trusted),
        trial("l29_a_daemon_that_is_not_who_it_should_be_is_not_told_the_token", &[], untrusted),
    ]
}

/// A daemon with a certificate for `localhost`, and the file of its authority.
struct World {
    port: u16,
    authority: PathBuf,
    opener: Arc<Memory>,
    _folder: TempDir,
}

fn served(folder: &TempDir) -> (ServerConfig, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, authority.pem()).unwrap();
    let (mine, own) =
        (CertificateParams::new(["localhost".to_owned()]).unwrap(), KeyPair::generate().unwrap());
    let certificate = mine.signed_by(&own, &Issuer::new(params, key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let secret = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let chain = vec![certificate.der().clone()];
    (builder.with_no_client_auth().with_single_cert(chain, secret).unwrap(), file)
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (config, authority) = served(&folder);
        let opener = Memory(MemoryExportServer::new());
        let publisher = Publisher::new(Arc::new(opener.0.clone()), Arc::new(opener.clone()));
        let backend = Arc::new(MemoryBackend::new());
        let routes = BackendRoutes { backend, instance: InstanceId::mint(), publisher };
        let router = Api::new("test").backend(routes).router(open_door());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(config))).unwrap();
        tokio::spawn(server.serve(router.into_make_service()));
        Self { port, authority, opener: Arc::new(opener), _folder: folder }
    }

    fn config(&self, host: &str) -> RemoteConfig {
        RemoteConfig {
            ca_file: Some(self.authority.clone()),
            ..RemoteConfig::new(format!("https://{host}:{}", self.port))
        }
    }
}

async fn trusted() {
    let world = World::new().await;
    let config = world.config("localhost");
    let remote = RemoteBackend::connect(&config, None, world.opener.clone()).await.unwrap();
    let tag = tag();
    let id = attached(&remote, &tag).await;
    drop(remote.open(&id, &tag, Access::ReadWrite).await.unwrap());
    remote.detach(&id, &tag).await.expect("it is closed by what closes the connection");
}

async fn untrusted() {
    let (world, other) = (World::new().await, World::new().await);
    let token = Token::new("oma_s3cret").unwrap();
    for config in [
        RemoteConfig { ca_file: None, ..world.config("localhost") },
        RemoteConfig { ca_file: Some(other.authority.clone()), ..world.config("localhost") },
        world.config("127.0.0.1"),
    ] {
        let opener = world.opener.clone();
        let error = RemoteBackend::connect(&config, Some(token.clone()), opener).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
        assert!(error.chain().contains("not who this client trusts"), "{}", error.chain());
    }
}
