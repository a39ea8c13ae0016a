//! The key that signs verification reports: a file of the data directory, for its owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process;

use oma_core::seal::{PublicKey, SigningKey};
use oma_core::{Error, ErrorKind, Result};

use crate::failure::io_error;
use crate::folder;

/// The key of a file; `None` when there is no such file.
pub fn load(path: &Path) -> Result<Option<SigningKey>> {
    let failed = |error: io::Error| io_error("read the signing key", path.display(), error);
    let refused = |kind, reason: &str| {
        Err(Error::new(kind, "read the signing key", path.display()).because(reason.to_owned()))
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        let reason = "others than its owner may read it; take it away from there, a new one is made";
        return refused(ErrorKind::PermissionDenied, reason);
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    // A seed has the form of a public key: 64 hexadecimal digits. What is wrong with it is not shown (L29).
    match text.trim().parse::<PublicKey>() {
        Ok(seed) => SigningKey::from_seed(&seed.0).map(Some),
        Err(_) => refused(ErrorKind::Corrupt, "it is no key; take it away, a new one is made"),
    }
}

/// The key of a file, which is made when it is not there.
pub fn load_or_make(path: &Path) -> Result<SigningKey> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let failed = |error: io::Error| io_error("make the signing key", path.display(), error);
    let seed = PublicKey(SigningKey::fresh_seed()?);
    // Whole or not at all, never over one that another process has made meanwhile, and never through what lies in the way.
    let draft = path.with_extension(format!("{}.tmp", process::id()));
    let write = || {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // A process of the same number, killed here.
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{seed}")?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Before anything is signed: a report must not outlive the only key that it can be checked with.
        folder::sync(path)
    };
    let written = write();
    // What is left of it after a failure has no use, and a secret in it.
    let removed = fs::remove_file(&draft);
    written.and(removed).map_err(failed)?;
    let missing = || io_error("make the signing key", path.display(), io::ErrorKind::NotFound.into());
    load(path)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::seal::Signer;

    #[test]
    fn l29_a_key_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.key");
        assert!(load(&path).unwrap().is_none());
        let key = load_or_make(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_make(&path).unwrap().public_key(), key.public_key());
        assert_eq!(load(&path).unwrap().unwrap().public_key(), key.public_key());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn l29_a_key_is_never_written_through_what_lies_in_its_way() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("report.key"), folder.path().join("victim"));
        let draft = path.with_extension(format!("{}.tmp", process::id()));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &draft).unwrap();
        load_or_make(&path).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!draft.exists() && path.metadata().unwrap().permissions().mode() & 0o777 == 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_damaged_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.key");
        load_or_make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(load(&path).unwrap_err().kind(), ErrorKind::PermissionDenied);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "5ec7e7").unwrap();
        let error = load_or_make(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(!error.chain().contains("5ec7e7"), "{}", error.chain());
    }
}
