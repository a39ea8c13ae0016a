use std::fmt;
use std::io::{Error, Result};
use std::path::Path;

use oma_core::conformance::Requirement;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};

use super::{Plan, Server, ServerOptions, mariadb, postgres};

/// The database servers that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEngine {
    /// MariaDB; with `OMA_TEST_MYSQL_URL` also MySQL.
    MariaDb,
    /// PostgreSQL.
    Postgres,
}

impl ServerEngine {
    /// Both.
    pub const ALL: &[Self] = &[Self::MariaDb, Self::Postgres];

    /// Its name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
        }
    }

    /// What a test needs that uses a server, whoever started it.
    #[must_use]
    pub fn required(self) -> Requirement {
        Requirement::Feature(self.name(), self.existing().is_some() || self.is_installed())
    }

    /// What a test needs that kills the server: one of its own.
    #[must_use]
    pub fn private_required(self) -> Requirement {
        match (self.existing(), self) {
            (None, _) => self.required(),
            (Some(_), Self::MariaDb) => {
                Requirement::Feature("a private server (OMA_TEST_MYSQL_URL names one)", false)
            }
            (Some(_), Self::Postgres) => {
                Requirement::Feature("a private server (OMA_TEST_POSTGRES_URL names one)", false)
            }
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::MariaDb => mariadb::program().is_some(),
            Self::Postgres => postgres::program().is_some(),
        }
    }

    /// The URL of a server that is there already.
    pub(super) fn existing(self) -> Option<String> {
        let name = match self {
            Self::MariaDb => "OMA_TEST_MYSQL_URL",
            Self::Postgres => "OMA_TEST_POSTGRES_URL",
        };
        std::env::var(name).ok().filter(|url| !url.is_empty())
    }

    pub(super) fn plan(self, folder: &Path, options: &ServerOptions) -> Result<Plan> {
        match self {
            Self::MariaDb => mariadb::plan(folder, options),
            Self::Postgres => postgres::plan(folder, options),
        }
    }

    pub(super) fn url(self, folder: &Path, database: &str) -> String {
        match self {
            Self::MariaDb => mariadb::url(folder, database),
            Self::Postgres => postgres::url(folder, database),
        }
    }

    /// A database that is always there.
    pub(super) const fn maintenance(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            Self::Postgres => "postgres",
        }
    }

    /// The signal that ends it as fast as can be without leaving traces outside of its folder.
    pub(super) const fn farewell(self) -> &'static str {
        match self {
            Self::MariaDb => "KILL",
            Self::Postgres => "QUIT",
        }
    }

    /// The signal that ends it without waiting for its clients.
    pub(super) const fn stop_signal(self) -> &'static str {
        match self {
            Self::MariaDb => "TERM",
            Self::Postgres => "INT",
        }
    }
}

impl fmt::Display for ServerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Server {
    /// Has statements run in a database, as the server's superuser.
    ///
    /// # Errors
    /// What the server said.
    pub async fn execute(&self, database: &str, statements: &str) -> Result<()> {
        let url = self.url(database);
        let text = sqlx::raw_sql(AssertSqlSafe(statements));
        let done = match self.engine() {
            ServerEngine::MariaDb => {
                let mut connection = MySqlConnection::connect(&url).await.map_err(Error::other)?;
                let done = text.execute(&mut connection).await.map(|_| ());
                done.and(connection.close().await)
            }
            ServerEngine::Postgres => {
                let mut connection = PgConnection::connect(&url).await.map_err(Error::other)?;
                let done = text.execute(&mut connection).await.map(|_| ());
                done.and(connection.close().await)
            }
        };
        done.map_err(Error::other)
    }
}
