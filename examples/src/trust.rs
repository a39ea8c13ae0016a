//! Authorities of appliances that somebody has decided to trust: a file for each appliance, in the directory of the user's settings.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oma_api::client::{RemoteConfig, Stranger};
use oma_core::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::authority::Fingerprint;
use crate::failure::{io_error, read_error};
use crate::folder;

/// Characters on a line of PEM.
const LINE: usize = 64;

/// How an appliance is reached: by the authorities in `given`, else by the one that was trusted for its address, else by those of this
/// machine.
///
/// # Errors
/// `Invalid` for what is no address of an appliance; what the system answers when it cannot be told whom somebody trusts.
pub fn reach(address: &str, given: Option<&Path>) -> Result<RemoteConfig> {
    let config = RemoteConfig::new(address);
    if let Some(path) = given {
        return Ok(RemoteConfig { ca_file: Some(path.to_owned()), ..config });
    }
    let kept = Stranger::at(&config)?.and_then(|stranger| file(&stranger));
    found(config, kept)
}

/// By the authority in a file, if there is one: a link that leads nowhere is one too, and is not passed over.
fn found(config: RemoteConfig, kept: Option<PathBuf>) -> Result<RemoteConfig> {
    let Some(path) = kept else { return Ok(config) };
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(RemoteConfig { ca_file: Some(path), ..config }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(RemoteConfig { sought: Some(path), ..config })
        }
        Err(error) => Err(read_error("read", path.display(), error)),
    }
}

/// Where the authority of an appliance is kept; `None` for a user without a home.
#[must_use]
pub fn file(stranger: &Stranger) -> Option<PathBuf> {
    let is_whole = |path: &PathBuf| path.is_absolute();
    let settings = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(is_whole);
    let home = || env::var_os("HOME").map(PathBuf::from).filter(is_whole).map(|home| home.join(".config"));
    Some(settings.or_else(home)?.join("oma/trusted").join(format!("{}.pem", stranger.place())))
}

/// Who is trusted by a file; `None` when there is no such file.
///
/// # Errors
/// `Invalid` for a file that has no certificate; what the system answers.
pub fn trusted(path: &Path) -> Result<Option<Fingerprint>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| read_error("read", path.display(), error))?,
    };
    let der = CertificateDer::from_pem_slice(&text).map_err(|_| {
        Error::new(ErrorKind::Invalid, "read", path.display())
            .because("it has no certificate; take it away, or name another file")
    })?;
    Ok(Some(Fingerprint::of(&der)))
}

/// Trusts an authority from now on: the file is there whole or not at all.
///
/// # Errors
/// What the system answers.
pub fn keep(path: &Path, authority: &[u8]) -> Result<()> {
    let failed = |error| io_error("write", path.display(), error);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder::of(path));
    made.map_err(failed)?;
    let mut file = folder::draft(path).map_err(failed)?;
    file.write_all(pem(authority).as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    folder::sync(path).map_err(failed)
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = &*text;
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(LINE));
        lines.push_str(line);
        lines.push('\n');
        rest = behind;
    }
    lines + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_what_cannot_be_read_is_not_taken_for_nobody_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let config = || RemoteConfig::new("https://oma.example:8082");
        let path = folder.path().join("oma.example:8082.pem");
        let none = found(config(), Some(path.clone())).unwrap();
        assert_eq!((none.ca_file, none.sought), (None, Some(path.clone())));
        // A link that leads nowhere, and one that leads to itself on the way.
        std::os::unix::fs::symlink(folder.path().join("gone"), &path).unwrap();
        assert_eq!(found(config(), Some(path.clone())).unwrap().ca_file, Some(path));
        let around = folder.path().join("around");
        std::os::unix::fs::symlink(&around, &around).unwrap();
        found(config(), Some(around.join("oma.example:8082.pem"))).unwrap_err();
        assert_eq!(found(config(), None).unwrap(), config());
    }

    #[test]
    fn what_is_kept_is_what_was_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oma/trusted/oma.example:8082.pem");
        assert_eq!(trusted(&path).unwrap(), None);
        let own = crate::authority::Authority::load_or_make(
            &folder.path().join("tls"),
            std::time::SystemTime::now(),
        );
        let original = fs::read_to_string(folder.path().join("tls/ca-cert.pem")).unwrap();
        keep(&path, &CertificateDer::from_pem_slice(original.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(),
            original.lines().collect::<Vec<_>>()
        );
        assert_eq!(trusted(&path).unwrap(), Some(own.unwrap().fingerprint()));
        fs::write(&path, "nothing").unwrap();
        assert_eq!(trusted(&path).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
