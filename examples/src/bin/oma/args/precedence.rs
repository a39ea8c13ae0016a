//! What is typed goes before what stands in the environment.
//!
//! ```text
//!  typed --api        with --embedded or --database: refused; else that appliance
//!  typed --embedded, --database, --data-dir, and commands that ask no appliance: OMA_API is passed over
//!  OMA_API            else that appliance
//!  the data directory else, and whoever serves it
//! ```

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::{AuditArgs, CertificateArgs, Cli, Command, DbArgs, UsersArgs};

impl Cli {
    /// Reads a command line and the environment.
    ///
    /// # Errors
    /// What is to be printed, help as well; `ArgumentConflict` when what was typed means an appliance and none.
    pub(crate) fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(line)?;
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))?;
        cli.settled(&matches)
    }

    fn settled(mut self, matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        let alone = match &self.command {
            _ if self.remote.embedded => Some("--embedded"),
            Command::Users(UsersArgs { database: Some(_), .. })
            | Command::Audit(AuditArgs { database: Some(_), .. })
            | Command::Db(DbArgs { database: Some(_), .. })
            | Command::Certificate(CertificateArgs { database: Some(_), .. }) => Some("--database"),
            _ => None,
        };
        let asks_nobody = matches!(
            self.command,
            Command::Completions(_)
                | Command::Copy(_)
                | Command::Serve(_)
                | Command::Demo(_)
                | Command::Db(_)
        );
        match alone {
            Some(flag) if is_typed("api") => {
                let why = format!(
                    "the argument '--api' names an appliance to be asked, and '{flag}' has none asked; give one of them"
                );
                return Err(Self::command().error(ErrorKind::ArgumentConflict, why));
            }
            None if is_typed("api") || matches!(self.command, Command::Trust(_)) => {}
            None if !is_typed("data_dir") && !asks_nobody => {}
            _ => self.remote.api = None,
        }
        Ok(self)
    }
}
