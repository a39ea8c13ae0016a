//! PEM files.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
#[cfg(feature = "server")]
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::TlsFailure;

/// No file of certificates is larger; what an operating system trusts is a quarter of it.
const LARGEST: u64 = 1 << 20;

fn read(path: &Path) -> Result<Vec<u8>, TlsFailure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(size) if u64::try_from(size).is_ok_and(|size| size <= LARGEST) => Ok(bytes),
        Ok(_) => Err(problem(path, "is longer than a file of certificates can be; name the right one")),
        Err(error) => Err(TlsFailure::Unreadable { path: path.to_owned(), source: Arc::new(error) }),
    }
}

pub(super) fn problem(path: &Path, problem: &'static str) -> TlsFailure {
    TlsFailure::File { path: path.to_owned(), problem }
}

/// The certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFailure> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(problem(path, "has no certificate; it must have -----BEGIN CERTIFICATE-----")),
        Err(_) => Err(problem(path, "is not PEM throughout; write it again")),
    }
}

/// The lists of revoked certificates in a file, at least one; `None` while there is no such file.
#[cfg(feature = "server")]
pub(super) fn revoked(path: &Path) -> Result<Option<Vec<CertificateRevocationListDer<'static>>>, TlsFailure> {
    let bytes = match read(path) {
        Err(TlsFailure::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        read => read?,
    };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(Some(found)),
        Ok(_) => {
            Err(problem(path, "has no list of revoked certificates; it must have -----BEGIN X509 CRL-----"))
        }
        Err(_) => Err(problem(path, "is not PEM throughout; write it again")),
    }
}

/// The private key of a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFailure> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        problem(
            path,
            "has no private key that can be read; it must be PEM: PKCS#8, PKCS#1 or SEC1, not encrypted",
        )
    })
}

/// The authorities of a file.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsFailure> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = store.add(certificate);
        added.map_err(|_| problem(path, "has a certificate that cannot be an authority; make it again"))?;
    }
    Ok(store)
}
