//! Authorities and certificates, in directories as `docs/tls.md` lays them out.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// An authority, and directories of those that trust it.
pub(crate) struct Pki {
    folder: TempDir,
    authority: Issuer<'static, KeyPair>,
    pem: String,
}

impl Pki {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { folder: TempDir::new().unwrap(), authority: Issuer::new(params, key), pem }
    }

    /// The directory of this name, of somebody who trusts this authority.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.folder.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("ca-cert.pem"), &self.pem).unwrap();
        directory
    }

    /// Whoever has this directory is the server `localhost`, and trusts clients of this authority.
    pub(crate) fn make_server(&self, directory: &Path) {
        let mut params =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()].to_vec()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        fs::write(directory.join("ca-cert.pem"), &self.pem).unwrap();
        self.issue(directory, "server", &params);
    }

    /// Whoever has this directory has a client's certificate of this authority.
    pub(crate) fn make_client(&self, directory: &Path) {
        self.issue(directory, "client", &client());
    }

    /// One that was good once.
    pub(crate) fn make_expired_client(&self, directory: &Path) {
        let mut params = client();
        (params.not_before, params.not_after) = (date_time_ymd(2010, 1, 1), date_time_ymd(2020, 1, 1));
        self.issue(directory, "client", &params);
    }

    fn issue(&self, directory: &Path, side: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(directory.join(format!("{side}-cert.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{side}-key.pem")), key.serialize_pem()).unwrap();
    }
}

fn client() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "replicator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
