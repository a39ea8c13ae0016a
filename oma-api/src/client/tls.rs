//! Whom to trust.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::error::Failure;

const LARGEST_FILE: usize = 1 << 20;

/// TLS with these authorities, or with those that this machine trusts. Reads files.
pub(super) fn tls(authorities: Option<&Path>) -> Result<ClientConfig, Failure> {
    let store = match authorities {
        Some(path) => named(path)?,
        None => system(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|_| Failure::Tls)?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// None at all is told by the first request over TLS, which fails; one without needs none.
fn system() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

fn named(path: &Path) -> Result<RootCertStore, Failure> {
    let refused = |source| Failure::Authorities { path: path.to_owned(), source };
    let damaged = |problem| refused(io::Error::new(io::ErrorKind::InvalidData, problem));
    let pem = std::fs::read(path).map_err(refused)?;
    if pem.len() > LARGEST_FILE {
        return Err(damaged("it is longer than a file of certificates can be"));
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map(|certificate| store.add(certificate));
        if !matches!(added, Ok(Ok(()))) {
            return Err(damaged(
                "it is not PEM throughout, or has a certificate that cannot be an authority",
            ));
        }
    }
    if store.is_empty() { Err(damaged("it has no certificate")) } else { Ok(store) }
}
