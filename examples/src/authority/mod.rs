//! The authority of a data directory: it certifies the daemon itself, and the clients that an operator names.
//!
//! ```text
//!  DATA/tls/ca-cert.pem, ca-key.pem            made once, good for ten years
//!  DATA/tls/server-cert.pem, server-key.pem    the daemon; made anew from the authority in time
//!  DATA/tls/clients/SERIAL.json                whom it has certified, and who was shut out
//!  DATA/tls/ca-crl.pem                         what it has revoked, once it has
//! ```

mod clients;
mod files;
mod fingerprint;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oma_core::{Error, ErrorKind, Result, Timestamp};
use oma_nbd::validity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;

use crate::failure::{io_error, read_error};
use crate::private_file;

pub use clients::{Certified, NewClient};
pub use fingerprint::Fingerprint;

/// Names as libnbd, nbdkit and QEMU have them.
const AUTHORITY: &str = "ca-cert.pem";
const AUTHORITY_KEY: &str = "ca-key.pem";
const SERVER: &str = "server-cert.pem";
const SERVER_KEY: &str = "server-key.pem";
const CLIENT: &str = "client-cert.pem";
const CLIENT_KEY: &str = "client-key.pem";

const DAY: Duration = Duration::from_hours(24);
/// Ten years.
const AUTHORITY_LASTS: u32 = 3653;
/// As long as browsers believe a server.
const CERTIFICATE_LASTS: u32 = 397;
/// A server is certified anew so long before.
const RENEWED: u32 = 30;
/// That the authority ends is noted so long before.
const NOTED: u32 = 365;

/// An authority with its key.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    /// From when until when it is good.
    good: (SystemTime, SystemTime),
    /// One at a time makes anew what the server shows.
    certifying: Mutex<()>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Authority {
    /// The one in a directory, which is made when there is no such directory. Two processes must not do so at once.
    ///
    /// # Errors
    /// As [`Authority::load`]; what the system answers.
    pub fn load_or_make(directory: &Path, now: SystemTime) -> Result<Self> {
        let failed = |error| io_error("read", directory.display(), error);
        if directory.try_exists().map_err(failed)? {
            let found = Self::load(directory)?;
            found.mend(now)?;
            return Ok(found);
        }
        let failed = |error| unmade(directory, error);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = authority(&key);
        last(&mut params, now, AUTHORITY_LASTS, None)?;
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        let files = [(AUTHORITY, &*pem), (AUTHORITY_KEY, &*key.serialize_pem())];
        files::make(directory, &files).map_err(|error| io_error("make", directory.display(), error))?;
        Self::load(directory)
    }

    /// The one in a directory.
    ///
    /// # Errors
    /// `NotFound` when it has none, `PermissionDenied` when others may read its key, `Corrupt` for files that are none.
    pub fn load(directory: &Path) -> Result<Self> {
        let (certificate, key) = (directory.join(AUTHORITY), directory.join(AUTHORITY_KEY));
        if !key.exists() {
            return Err(Error::new(ErrorKind::NotFound, "find", key.display()).because(
                "it is the key of a daemon's own authority, which a daemon makes that is to serve with TLS without other certificates, unless the \
                 directory is there already; where that has certificates of your own, name them: nbd.tls_certificates for NBD \
                 (--nbd-tls-certificates), api.tls_certificate and api.tls_key for HTTPS (--tls-certificate, --tls-key); or do without NBD on \
                 a port by nbd.listen = \"none\" (--nbd-listen none)",
            ));
        }
        let text = private_file::read(&key)?;
        let pem = fs::read_to_string(&certificate)
            .map_err(|error| read_error("read", certificate.display(), error))?;
        // What is wrong with a key is not shown (L29).
        let pair = KeyPair::from_pem(&text).map_err(|_| damaged(&key))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged(&certificate))?;
        let issuer = Issuer::new(authority(&pair), pair);
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let good = validity(&der).map(|(from, until)| (at(from), at(until)));
        let good = good.ok_or_else(|| damaged(&certificate))?;
        Ok(Self { directory: directory.to_owned(), issuer, pem, der, good, certifying: Mutex::default() })
    }

    /// Refuses to certify when it is not good itself.
    fn check(&self, now: SystemTime) -> Result<()> {
        let (from, until) = self.good;
        let reason = match () {
            () if now < from => format!(
                "it is good from {} on, and the clock of this machine is before that; set the clock",
                shown(from)
            ),
            () if now > until => format!(
                "it was good until {}; set the clock of this machine if that is wrong, else take {} away and start anew: a new authority is \
                 made, which everybody has to trust anew",
                shown(until),
                self.directory.display()
            ),
            () => return Ok(()),
        };
        Err(Error::new(ErrorKind::Invalid, "certify by", self.directory.join(AUTHORITY).display())
            .because(reason))
    }

    /// What to think of when it ends within a year.
    #[must_use]
    pub fn ending(&self, now: SystemTime) -> Option<String> {
        let until = self.good.1;
        (now + DAY * NOTED > until).then(|| {
            format!(
                "the authority in {0} is good until {1}, and nothing that it has certified longer than that; before then take {0} away and start \
                 anew: a new authority is made, which everybody has to trust anew",
                self.directory.display(),
                shown(until)
            )
        })
    }

    /// By which others know it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// Where its files are, and those of the server.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's certificate, and its key.
    #[must_use]
    pub fn server(&self) -> (PathBuf, PathBuf) {
        (self.directory.join(SERVER), self.directory.join(SERVER_KEY))
    }

    /// Certifies the server by these names and addresses, unless it is so already for some time to come; answers whether it was done. A
    /// certificate that is of another key is made anew, with a new one.
    ///
    /// # Errors
    /// `Invalid` for what is neither a name nor an address, and when the authority is not good itself; `Corrupt` when the key is not the
    /// authority's; what the system answers.
    pub fn certify(&self, names: &BTreeSet<String>, now: SystemTime) -> Result<bool> {
        let _one = self.certifying.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(now)?;
        let (certificate, key) = self.server();
        let pair = match private_file::read(&key) {
            Ok(text) => Some(KeyPair::from_pem(&text).map_err(|_| damaged(&key))?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let pair = pair.filter(|pair| self.shows().is_none_or(|shown| is_of(&shown, pair)));
        if pair.is_some() && self.is_good(names, now)? {
            return Ok(false);
        }
        let failed = |error| unmade(&certificate, error);
        let pair = match pair {
            Some(pair) => pair,
            None => {
                let pair = KeyPair::generate().map_err(failed)?;
                written(&key, &pair.serialize_pem())?;
                pair
            }
        };
        let names_in_order: Vec<String> = names.iter().cloned().collect();
        let params = CertificateParams::new(names_in_order).map_err(failed)?;
        let params = subject("OMA daemon", ExtendedKeyUsagePurpose::ServerAuth, params, now, self.good.1)?;
        let issued = params.signed_by(&pair, &self.issuer).map_err(failed)?.pem();
        // Behind it the authority: that is how `oma trust` learns of it.
        written(&certificate, &format!("{}{issued}{}", head(names), self.pem))?;
        match self.is_good(names, now)? {
            true => Ok(true),
            false => Err(damaged(&self.directory.join(AUTHORITY_KEY))),
        }
    }

    /// The certificate of the server, if there is one.
    fn shows(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(&fs::read(self.server().0).ok()?).ok()
    }

    /// Whether the server is certified by exactly these names, now and for some time to come.
    fn is_good(&self, names: &BTreeSet<String>, now: SystemTime) -> Result<bool> {
        let names = names
            .iter()
            .map(|name| server_name(name))
            .collect::<Result<Vec<_>>>()
            .map(|parsed| (parsed, head(names)));
        let (names, head) = names?;
        let text = fs::read_to_string(self.server().0).unwrap_or_default();
        let Ok(certificate) = CertificateDer::from_pem_slice(text.as_bytes()) else { return Ok(false) };
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).map_err(|_| damaged(&self.directory.join(AUTHORITY)))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|_| damaged(&self.directory.join(AUTHORITY)))?;
        let is_good = |name: &ServerName<'_>, at: SystemTime| {
            let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
            verifier.verify_server_cert(&certificate, &[], name, &[], at).is_ok()
        };
        // Nothing lasts longer than the authority.
        let later = (now + DAY * RENEWED).min(self.good.1);
        Ok(text.starts_with(&head) && names.iter().all(|name| is_good(name, now) && is_good(name, later)))
    }
}

/// What an authority with this key is. Its name is that of its key: it is the same each time it is looked at.
fn authority(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let id: String = params.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02X}")).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("OMA authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A certificate for one purpose.
fn subject(
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
    mut params: CertificateParams,
    now: SystemTime,
    at_most: SystemTime,
) -> Result<CertificateParams> {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    last(&mut params, now, CERTIFICATE_LASTS, Some(at_most))?;
    Ok(params)
}

/// Good for so many days, the one before now among them, as clocks differ; but not after `at_most`.
fn last(
    params: &mut CertificateParams,
    now: SystemTime,
    days: u32,
    at_most: Option<SystemTime>,
) -> Result<()> {
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.not_before = (now - DAY).into();
    let until = now + DAY * (days - 1);
    params.not_after = at_most.map_or(until, |at_most| until.min(at_most)).into();
    Ok(())
}

fn serial() -> Result<[u8; 16]> {
    let mut serial = [0; 16];
    let drawn = SystemRandom::new().fill(&mut serial);
    drawn.map_err(|_| Error::new(ErrorKind::Internal, "draw", "a serial number"))?;
    // Positive and of full length as DER.
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

/// Whether a certificate is of this key.
fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    let certified = ParsedCertificate::try_from(certificate);
    certified
        .is_ok_and(|certified| certified.subject_public_key_info().as_ref() == key.subject_public_key_info())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn shown(time: SystemTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds(time).saturating_mul(1000)).unwrap_or(i64::MAX))
}

/// Stands before the certificate, for readers and to be compared.
fn head(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!(
        "This daemon, made by its own authority; made anew when it is out of date.\nNames: {}\n",
        names.join(", ")
    )
}

/// Refuses what no server can be certified by.
///
/// # Errors
/// `Invalid` for what is neither a name nor an address.
pub fn check_name(name: &str) -> Result<()> {
    server_name(name).map(drop)
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        Error::new(ErrorKind::Invalid, "certify", name.escape_debug())
            .because("it is neither a name of a host nor an address, e.g. oma.example or 192.0.2.7")
    })
}

fn written(path: &Path, text: &str) -> Result<()> {
    files::write(path, text).map_err(|error| io_error("write", path.display(), error))
}

fn unmade(path: &Path, error: rcgen::Error) -> Error {
    Error::new(ErrorKind::Internal, "make", path.display()).with_source(error)
}

fn damaged(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, "use", path.display()).because(
        "it is damaged, or does not belong to the other files; restore it, or take the whole directory away: a new authority is made, \
         which everybody has to trust anew",
    )
}

#[cfg(test)]
mod tests;
