//! Which database a program works with.

use std::env;

use oma_core::{Error, ErrorKind, Result};
use oma_store::{SqlStore, StoreConfig};

use crate::data_dir::{DataDir, Lock};
use crate::placement;

/// Where a URL may stand that holds a password.
pub const VARIABLE: &str = "OMA_DATABASE";

/// The database that a command is about.
#[derive(Debug)]
pub struct Database {
    /// How it is reached.
    pub config: StoreConfig,
    /// The data directory that it lies in.
    pub data: Option<DataDir>,
}

impl Database {
    /// The argument, else the variable, else the data directory's.
    ///
    /// # Errors
    /// `Invalid` for an argument that holds a password; `Conflict` where the daemon of the data directory has its records elsewhere.
    pub fn choose(
        data: &DataDir,
        argument: Option<&str>,
        variable: Result<String, env::VarError>,
    ) -> Result<Self> {
        let refused = |what: &'static str, why: &'static str| {
            Err(Error::new(ErrorKind::Invalid, "read", what).because(why))
        };
        let url = match (argument, variable) {
            (Some(url), _) if public(url) != url => {
                return refused(
                    "--database",
                    "it holds a password, which every user of this machine could see; name it in the environment: OMA_DATABASE",
                );
            }
            (Some(url), _) => url.to_owned(),
            (None, Ok(url)) if !url.is_empty() => url,
            (None, Err(env::VarError::NotUnicode(_))) => return refused(VARIABLE, "it is not valid UTF-8"),
            (None, _) => {
                placement::check_records(data)?;
                return Self::of(data);
            }
        };
        Ok(Self { config: StoreConfig { url, ..StoreConfig::default() }, data: None })
    }

    /// The one in a data directory.
    ///
    /// # Errors
    /// `Invalid` when the path is none that a URL can name.
    pub fn of(data: &DataDir) -> Result<Self> {
        let config = StoreConfig { url: data.database_url()?, ..StoreConfig::default() };
        Ok(Self { config, data: Some(data.clone()) })
    }

    /// Its URL as it may be shown.
    #[must_use]
    pub fn url(&self) -> String {
        self.config.public_url()
    }

    /// Opens it for writing, alone in its data directory.
    ///
    /// # Errors
    /// `Busy` when somebody else works there; what the store answers.
    pub async fn open(&self) -> Result<(SqlStore, Option<Lock>)> {
        let lock = self.data.as_ref().map(DataDir::lock).transpose()?;
        Ok((SqlStore::open(&self.config).await?, lock))
    }
}

/// A URL as it may be shown.
fn public(url: &str) -> String {
    StoreConfig { url: url.to_owned(), ..StoreConfig::default() }.public_url()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_a_password_is_taken_from_the_environment_only_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path()).unwrap();
        let secret = "mysql://oma:hunter2@db/oma";
        for url in [secret, "postgres:///oma?password=hunter2", "mysql:oma:hunter2@db/oma", "hunter2"] {
            let error = Database::choose(&data, Some(url), Ok(String::new())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = format!("{} {error:?}", error.chain());
            assert!(text.contains("OMA_DATABASE") && !text.contains("hunter2"), "{text}");
        }
        let database = Database::choose(&data, None, Ok(secret.to_owned())).unwrap();
        assert_eq!((database.config.url.as_str(), database.url().as_str()), (secret, "mysql://oma@db/oma"));
        assert!(!format!("{database:?}").contains("hunter2"));
    }

    #[test]
    fn the_argument_comes_before_the_environment_and_that_before_the_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path()).unwrap();
        let url = |argument: Option<&str>, variable: Result<&str, env::VarError>| {
            Database::choose(&data, argument, variable.map(str::to_owned)).unwrap().url()
        };
        assert_eq!(url(Some("sqlite:a.db"), Ok("sqlite:b.db")), "sqlite:a.db");
        assert_eq!(url(None, Ok("sqlite:b.db")), "sqlite:b.db");
        for unset in [Ok(""), Err(env::VarError::NotPresent)] {
            assert_eq!(url(None, unset), format!("sqlite://{}/oma.db", folder.path().display()));
        }
    }
}
