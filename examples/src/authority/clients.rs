//! Clients: those that are certified, and those that are shut out.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oma_core::{Error, ErrorKind, Result};
use oma_nbd::ClientName;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use serde::{Deserialize, Serialize};

use super::{AUTHORITY, Authority, CLIENT, CLIENT_KEY, DAY, damaged, seconds, subject, unmade, written};
use crate::failure::{io_error, read_error};
use crate::folder;

/// What is known of clients.
const CLIENTS: &str = "clients";
/// As QEMU names it.
const REVOKED: &str = "ca-crl.pem";
/// The longest common name of a certificate (X.520).
const LONGEST_NAME: usize = 64;

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// Its number, in hexadecimal digits as OpenSSL prints it.
    pub serial: String,
    /// Its common name.
    pub name: String,
    /// When it was made, in seconds of Unix time.
    pub created_at: u64,
    /// The last second that it is good.
    pub good_until: u64,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
}

impl Authority {
    /// Certifies a client by this common name, in a directory of its own with all that it needs.
    ///
    /// # Errors
    /// `Invalid` for a name that is none, and when the authority is not good itself; `AlreadyExists` when a client has the directory, or
    /// another authority; `PermissionDenied` when others may write it; what the system answers.
    pub fn certify_client(&self, name: &str, directory: &Path, now: SystemTime) -> Result<Certified> {
        ClientName::parse(&format!("cn:{name}"))?;
        if name.chars().count() > LONGEST_NAME {
            return Err(Error::new(ErrorKind::Invalid, "certify", name)
                .because(format!("the name has more than {LONGEST_NAME} characters")));
        }
        let (certificate, key) = (directory.join(CLIENT), directory.join(CLIENT_KEY));
        if certificate.exists() || key.exists() {
            return Err(Error::new(ErrorKind::AlreadyExists, "certify", name).because(format!(
                "{} has a client's certificate or key already; name another directory, or take them away",
                directory.display()
            )));
        }
        self.check(now)?;
        self.check_directory(name, directory)?;
        let _alone = self.alone()?;
        let failed = |error| unmade(&certificate, error);
        let pair = KeyPair::generate().map_err(failed)?;
        let (purpose, params) = (ExtendedKeyUsagePurpose::ClientAuth, CertificateParams::default());
        let params = subject(name, purpose, params, now, self.good.1)?;
        let certified = Certified {
            serial: params.serial_number.as_ref().map(digits).unwrap_or_default(),
            name: name.to_owned(),
            created_at: seconds(now),
            good_until: seconds(params.not_after.into()),
            revoked_at: None,
        };
        let issued = params.signed_by(&pair, &self.issuer).map_err(failed)?.pem();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| io_error("make", directory.display(), error))?;
        // Before anybody can have it: one that is not known here could not be shut out.
        self.keep(&certified)?;
        written(&directory.join(AUTHORITY), &self.pem)?;
        written(&certificate, &issued)?;
        written(&key, &pair.serialize_pem())?;
        Ok(certified)
    }

    /// Whom it has certified, the last ones first.
    ///
    /// # Errors
    /// `Corrupt` for a file that is damaged; what the system answers.
    pub fn clients(&self) -> Result<Vec<Certified>> {
        let folder = self.directory.join(CLIENTS);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| read_error("read", folder.display(), error))?,
        };
        let mut clients = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| read_error("read", folder.display(), error))?.path();
            // Drafts of a killed process stay.
            if path.extension().is_some_and(|end| end == "json") {
                let text = fs::read(&path).map_err(|error| read_error("read", path.display(), error))?;
                clients.push(serde_json::from_slice(&text).map_err(|_| damaged(&path))?);
            }
        }
        clients.sort_by(|one: &Certified, other| {
            (&other.created_at, &other.serial).cmp(&(&one.created_at, &one.serial))
        });
        Ok(clients)
    }

    /// Shuts a client out: all certificates with this common name, or the one with this number. Servers refuse them once they have read
    /// `ca-crl.pem`. Idempotent. Answers the certificates.
    ///
    /// # Errors
    /// `NotFound` when there is none; as [`Authority::clients`]; what the system answers.
    pub fn revoke(&self, client: &str, now: SystemTime) -> Result<Vec<Certified>> {
        let _alone = self.alone()?;
        let mut clients = self.clients()?;
        let mut revoked = Vec::new();
        for certified in clients.iter_mut().filter(|one| one.name == client || one.serial == client) {
            if certified.revoked_at.is_none() {
                certified.revoked_at = Some(seconds(now));
                self.keep(certified)?;
            }
            revoked.push(certified.clone());
        }
        if revoked.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "revoke the certificate of", client.escape_debug())
                .because("this authority has made none for such a client; `oma certificate list` lists those that it made"));
        }
        self.publish_revoked(&clients, now)?;
        Ok(revoked)
    }

    /// Writes the list of what was revoked. What is out of date need not be on it.
    fn publish_revoked(&self, clients: &[Certified], now: SystemTime) -> Result<()> {
        let path = self.directory.join(REVOKED);
        let mut revoked_certs = Vec::new();
        for one in clients.iter().filter(|one| one.good_until >= seconds(now)) {
            let Some(revoked_at) = one.revoked_at else { continue };
            let serial = u128::from_str_radix(&one.serial, 16).map_err(|_| damaged(&self.record(one)))?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial.to_be_bytes()),
                revocation_time: (SystemTime::UNIX_EPOCH + Duration::from_secs(revoked_at)).into(),
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            // There is no next one until somebody else is shut out.
            next_update: self.good.1.max(now + DAY).into(),
            crl_number: seconds(now).into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).and_then(|list| list.pem());
        written(&path, &signed.map_err(|error| unmade(&path, error))?)
    }

    /// Where a certificate is kept in mind.
    fn record(&self, certified: &Certified) -> PathBuf {
        self.directory.join(CLIENTS).join(format!("{}.json", certified.serial))
    }

    fn keep(&self, certified: &Certified) -> Result<()> {
        let path = self.record(certified);
        let text = serde_json::to_string(certified)
            .map_err(|error| Error::new(ErrorKind::Internal, "write", path.display()).with_source(error))?;
        written(&path, &format!("{text}\n"))
    }

    /// Keeps other processes from what is known of clients, for as long as this lives.
    fn alone(&self) -> Result<File> {
        let folder = self.directory.join(CLIENTS);
        let made = match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| folder::sync(&folder)),
        };
        let locked =
            made.and_then(|()| File::open(&folder)).and_then(|folder| folder.lock().map(|()| folder));
        locked.map_err(|error| io_error("lock", folder.display(), error))
    }

    /// Refuses a directory that others may write, and one of another authority's.
    fn check_directory(&self, name: &str, directory: &Path) -> Result<()> {
        let refused = |kind, reason| Err(Error::new(kind, "certify", name).because(reason));
        let mode = match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            about => about.map_err(|error| read_error("read", directory.display(), error))?.mode(),
        };
        if mode & 0o022 != 0 {
            let reason = format!(
                "others may write {}, and could put a key there that they know; `chmod go-w` it, or name another directory",
                directory.display()
            );
            return refused(ErrorKind::PermissionDenied, reason);
        }
        let authority = directory.join(AUTHORITY);
        match fs::read(&authority) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(read_error("read", authority.display(), error)),
            Ok(known) if known == self.pem.as_bytes() => Ok(()),
            Ok(_) => refused(
                ErrorKind::AlreadyExists,
                format!(
                    "{} is another authority's, which something may trust; name another directory, or take it away",
                    authority.display()
                ),
            ),
        }
    }
}

/// As OpenSSL prints it.
fn digits(serial: &SerialNumber) -> String {
    serial.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}
