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

use super::{
    AUTHORITY, Authority, CERTIFICATE_LASTS, CLIENT, CLIENT_KEY, DAY, files, seconds, serial, subject,
    unmade, written,
};
use crate::failure::{io_error, read_error};

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

/// Whom a certificate is to be made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClient {
    name: String,
    serial: [u8; 16],
}

impl NewClient {
    /// One with this common name, and a number of its own.
    ///
    /// # Errors
    /// `Invalid` for a name that is none.
    pub fn named(name: &str) -> Result<Self> {
        ClientName::parse(&format!("cn:{name}"))?;
        if name.chars().count() > LONGEST_NAME {
            return Err(Error::new(ErrorKind::Invalid, "certify", name)
                .because(format!("the name has more than {LONGEST_NAME} characters")));
        }
        Ok(Self { name: name.to_owned(), serial: serial()? })
    }

    /// The number, in hexadecimal digits as OpenSSL prints it.
    #[must_use]
    pub fn serial(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

impl Authority {
    /// Certifies a client, in a directory of its own with all that it needs.
    ///
    /// # Errors
    /// `Invalid` when the authority is not good itself; `AlreadyExists` when a client has the directory, or
    /// another authority; `PermissionDenied` when others may write it; what the system answers.
    pub fn certify_client(&self, client: &NewClient, directory: &Path, now: SystemTime) -> Result<Certified> {
        let name = &client.name;
        let _alone = self.alone()?;
        let (certificate, key) = (directory.join(CLIENT), directory.join(CLIENT_KEY));
        if certificate.exists() || key.exists() {
            return Err(Error::new(ErrorKind::AlreadyExists, "certify", name).because(format!(
                "{} has a client's certificate or key already; name another directory, or take them away",
                directory.display()
            )));
        }
        self.check(now)?;
        self.check_directory(name, directory)?;
        let failed = |error| unmade(&certificate, error);
        let pair = KeyPair::generate().map_err(failed)?;
        let (purpose, params) = (ExtendedKeyUsagePurpose::ClientAuth, CertificateParams::default());
        let mut params = subject(name, purpose, params, now, self.good.1)?;
        params.serial_number = Some(SerialNumber::from_slice(&client.serial));
        let certified = Certified {
            serial: client.serial(),
            name: name.clone(),
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

    /// Whom it has certified, the last ones first, and the files of those that cannot be read.
    ///
    /// # Errors
    /// What the system answers.
    pub fn clients(&self) -> Result<(Vec<Certified>, Vec<PathBuf>)> {
        let folder = self.directory.join(CLIENTS);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            entries => entries.map_err(|error| read_error("read", folder.display(), error))?,
        };
        let (mut clients, mut unreadable) = (Vec::<Certified>::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(|error| read_error("read", folder.display(), error))?.path();
            // Drafts of a killed process stay.
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let certified = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            match certified {
                Some(certified) if self.record(&certified) == path && number(&certified.serial).is_some() => {
                    clients.push(certified);
                }
                _ => unreadable.push(path),
            }
        }
        clients.sort_by(|one, other| (other.created_at, &other.serial).cmp(&(one.created_at, &one.serial)));
        Ok((clients, unreadable))
    }

    /// The certificates with this common name, or the one with this number, whether it is known or not.
    ///
    /// # Errors
    /// `NotFound` when there is none; as [`Authority::clients`].
    pub fn of_client(&self, client: &str, now: SystemTime) -> Result<Vec<Certified>> {
        let serial = client.to_ascii_uppercase();
        let (mut found, _) = self.clients()?;
        found.retain(|one| one.name == client || one.serial == serial);
        if found.is_empty() && number(&serial).is_some() {
            let good_until = seconds(now + DAY * CERTIFICATE_LASTS);
            let name = String::new();
            found.push(Certified { serial, name, created_at: seconds(now), good_until, revoked_at: None });
        }
        if found.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "find certificates of", client.escape_debug())
                .because("this authority has made none for such a client; `oma certificate list` lists those that it made"));
        }
        Ok(found)
    }

    /// Shuts clients out that have these certificates. Servers refuse them once they have read `ca-crl.pem`. Idempotent. Answers the
    /// certificates as they are now.
    ///
    /// # Errors
    /// As [`Authority::clients`]; what the system answers.
    pub fn revoke(&self, certificates: &[Certified], now: SystemTime) -> Result<Vec<Certified>> {
        let _alone = self.alone()?;
        let (known, _) = self.clients()?;
        let mut revoked = Vec::new();
        for one in certificates {
            let mut one = known.iter().find(|known| known.serial == one.serial).unwrap_or(one).clone();
            if one.revoked_at.is_none() {
                one.revoked_at = Some(seconds(now));
                self.keep(&one)?;
            }
            revoked.push(one);
        }
        self.publish_revoked(now)?;
        Ok(revoked)
    }

    /// What a process that was killed has left is taken away, or done: what is known to be revoked is on the list.
    pub(super) fn mend(&self, now: SystemTime) -> Result<()> {
        let failed = |error| io_error("tidy", self.directory.display(), error);
        if !self.directory.join(CLIENTS).exists() {
            // Nobody else writes there.
            return files::tidy(&self.directory).map_err(failed);
        }
        let _alone = self.alone()?;
        files::tidy(&self.directory).map_err(failed)?;
        let (clients, unreadable) = self.clients()?;
        match unreadable.is_empty() && clients.iter().all(|one| one.revoked_at.is_none()) {
            true => Ok(()),
            false => self.publish_revoked(now),
        }
    }

    /// Writes the list of what was revoked. What is out of date stays on it, as a clock may be wrong; and of whose record cannot be read
    /// nobody knows that it was not.
    fn publish_revoked(&self, now: SystemTime) -> Result<()> {
        let path = self.directory.join(REVOKED);
        let (clients, unreadable) = self.clients()?;
        let known = clients.iter().filter_map(|one| Some((number(&one.serial)?, one.revoked_at?)));
        let named = |path: &PathBuf| number(path.file_stem()?.to_str()?);
        let doubted = unreadable.iter().filter_map(named).map(|number| (number, seconds(now)));
        let revoked = known.chain(doubted).map(|(number, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&number.to_be_bytes()),
            revocation_time: (SystemTime::UNIX_EPOCH + Duration::from_secs(at)).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            // There is no next one until somebody else is shut out.
            next_update: self.good.1.max(now + DAY).into(),
            crl_number: seconds(now).into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
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
        let made = files::make_folder(&folder).and_then(|()| File::open(&folder));
        let locked = made.and_then(|folder| folder.lock().map(|()| folder));
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

/// A serial number of this authority's: 16 bytes.
fn number(digits: &str) -> Option<u128> {
    (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}
