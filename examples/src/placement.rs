//! Where a daemon has the volumes and the records of its data directory: whoever works there without it must not take others for them.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use oma_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::data_dir::DataDir;
use crate::failure::{io_error, read_error};
use crate::folder;

/// Volumes in files of the data directory.
const FILES: &str = "file";

/// As the daemon was told at its last start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The backend of volumes.
    pub volumes: String,
    /// The database, without its password; none for the data directory's own.
    pub records: Option<String>,
}

impl Placement {
    /// Keeps it in mind for whoever comes later. The data directory is locked.
    ///
    /// # Errors
    /// What the system answers.
    pub fn keep(&self, data: &DataDir) -> Result<()> {
        let path = data.placement();
        let failed = |error| io_error("write", path.display(), error);
        if matches!(Self::load(&path), Ok(Some(kept)) if kept == *self) {
            return Ok(());
        }
        let text = serde_json::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Internal, "write", path.display()).with_source(error))?;
        let mut file = folder::draft(&path).map_err(failed)?;
        writeln!(file, "{text}").and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        folder::sync(&path).map_err(failed)
    }

    fn load(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            // Whoever opens a data directory that is none tells so.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(read_error("read", path.display(), error)),
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                Error::new(ErrorKind::Corrupt, "read", path.display()).because(format!(
                    "{error}; the daemon writes it anew when it starts, or take it away where no daemon works any more"
                ))
            }),
        }
    }
}

/// Refuses a data directory whose volumes are somewhere else than in its files.
///
/// # Errors
/// `Conflict`, naming the backend; what the system answers.
pub fn check_volumes(data: &DataDir) -> Result<()> {
    let path = data.placement();
    match Placement::load(&path)? {
        Some(kept) if kept.volumes != FILES => Err(Error::new(ErrorKind::Conflict, "open", data.volumes().display())
            .because(format!(
                "its daemon has the volumes in the backend `{}`: start the daemon, which does it then, or name it with --api; if it is over \
                 with that daemon, take {} away",
                kept.volumes,
                path.display()
            ))),
        _ => Ok(()),
    }
}

/// Refuses a data directory whose records are in another database than its own.
///
/// # Errors
/// `Conflict`, naming the database; what the system answers.
pub fn check_records(data: &DataDir) -> Result<()> {
    let path = data.placement();
    match Placement::load(&path)? {
        Some(Placement { records: Some(url), .. }) => {
            Err(Error::new(ErrorKind::Conflict, "open", data.database().display()).because(format!(
                "its daemon has the records in {url}: name that in the environment, OMA_DATABASE, or with --database where there is such \
                 a flag, else start the daemon, or name it with --api; if it is over with that database, take {} away",
                path.display()
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l21_what_a_daemon_has_elsewhere_is_not_looked_for_in_its_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path()).unwrap();
        let checked = || [check_volumes(&data), check_records(&data)];
        assert!(checked().iter().all(Result::is_ok), "no daemon was there");
        let own = Placement { volumes: FILES.to_owned(), records: None };
        own.keep(&data).unwrap();
        assert!(checked().iter().all(Result::is_ok));
        let elsewhere =
            Placement { volumes: "cloudstack".to_owned(), records: Some("mysql://db/oma".to_owned()) };
        for _ in 0..2 {
            elsewhere.keep(&data).unwrap();
        }
        for (error, told) in checked().map(Result::unwrap_err).iter().zip(["`cloudstack`", "mysql://db/oma"])
        {
            let chain = error.chain();
            assert!(error.kind() == ErrorKind::Conflict && chain.contains(told), "{chain}");
            assert!(chain.contains("--api") && chain.contains("daemon.json"), "{chain}");
        }
        fs::write(data.placement(), "{").unwrap();
        assert!(checked().into_iter().all(|checked| checked.unwrap_err().kind() == ErrorKind::Corrupt));
        own.keep(&data).unwrap();
        assert!(checked().iter().all(Result::is_ok), "a damaged one is written anew");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
