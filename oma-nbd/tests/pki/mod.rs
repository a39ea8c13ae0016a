//! Authorities and certificates, laid out as libnbd, nbdkit and QEMU want them.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test panics when its setup fails, and uses some of this"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use oma_nbd::{TlsClientConfig, TlsFiles, TlsIdentity, TlsPolicy, TlsServer, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, date_time_ymd,
};
use tempfile::TempDir;

/// A folder with an authority (`ca-cert.pem`), a server `localhost` and a client `agent`.
pub(crate) struct Pki {
    folder: TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca-cert.pem"), certificate.pem()).unwrap();
        let pki = Self { folder, authority: Issuer::new(params, key) };
        pki.issue("server", &server(&["localhost", "127.0.0.1"]));
        pki.issue("client", &client("agent"));
        pki
    }

    /// Writes `NAME-cert.pem` and `NAME-key.pem`.
    pub(crate) fn issue(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.path(&format!("{name}-cert.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }

    /// Writes `ca-crl.pem` with certificates of these numbers, out of date since long.
    pub(crate) fn revoke(&self, numbers: &[u64]) {
        let then = date_time_ymd(2020, 1, 1);
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: (*number).into(),
            revocation_time: then,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: then,
            next_update: date_time_ymd(2021, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).unwrap();
        std::fs::write(self.path("ca-crl.pem"), list.pem().unwrap()).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The server `localhost`.
    pub(crate) async fn server(&self) -> TlsServer {
        TlsServer::open(TlsFiles::in_directory(self.folder())).await.unwrap()
    }

    pub(crate) async fn required(&self) -> TlsPolicy {
        TlsPolicy::Required(self.server().await)
    }

    /// The server `localhost`, which wants each client to show who it is.
    pub(crate) async fn mutual(&self) -> TlsPolicy {
        TlsPolicy::Required(TlsServer::open(TlsFiles::mutual_in_directory(self.folder())).await.unwrap())
    }

    /// A client that trusts the authority and shows `NAME-cert.pem`.
    pub(crate) fn client(&self, name: &str) -> TlsClientConfig {
        let file = |kind| self.path(&format!("{name}-{kind}.pem"));
        let identity = TlsIdentity { certificate: file("cert"), key: file("key") };
        TlsClientConfig { identity: Some(identity), ..self.nobody() }
    }

    /// A client that trusts the authority and shows nothing.
    pub(crate) fn nobody(&self) -> TlsClientConfig {
        TlsClientConfig {
            trust: Trust::Authorities(self.path("ca-cert.pem")),
            identity: None,
            server_name: None,
        }
    }
}

/// A server with these names.
pub(crate) fn server(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A client with names of each kind made of one.
pub(crate) fn client(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![format!("{name}.Example"), "10.9.8.7".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::Rfc822Name(format!("{name}@example.com").try_into().unwrap()));
    params.subject_alt_names.push(SanType::URI(format!("spiffe://example/{name}").try_into().unwrap()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "an organisation");
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The same, out of date.
pub(crate) fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2010, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
    params
}

/// The same, for later.
pub(crate) fn not_yet(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2090, 1, 1);
    params
}
