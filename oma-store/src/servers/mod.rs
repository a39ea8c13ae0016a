//! Private MariaDB and PostgreSQL servers, and empty databases in them, for tests and benchmarks.
//!
//! A server lives in a folder of its own and listens on a unix socket only. It ends with the process that started it, however
//! that ends: a shell keeps the server as its child, waits for the end of a pipe that we hold, kills the server and removes the
//! folder.
//!
//! ```text
//! this process ──pipe──▶ sh ──child──▶ mariadbd / postgres
//!                         └─ end of pipe: kill -9, rm -rf
//! ```
//!
//! `OMA_TEST_MYSQL_URL` and `OMA_TEST_POSTGRES_URL` name servers that are there already, as users who may create databases:
//! they are used instead, and cannot be killed.

mod database;
mod engine;
mod mariadb;
mod postgres;
mod watcher;

use std::fmt;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

pub use database::Database;
pub use engine::ServerEngine;
use watcher::Watcher;

use crate::dialect::Dialect;
use crate::sql;

/// A server that does not answer by then never will.
const START: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
/// A unix socket's path has at most 107 bytes; its name and our folder's are the rest.
const LONGEST_BASE: usize = 60;

/// How a private server is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerOptions {
    /// A commit is on the disk when it is acknowledged. Without it a server is many times as fast, and its data lies in memory
    /// where the machine has such a folder.
    pub durable: bool,
    /// More arguments for the server's program, after ours.
    pub arguments: Vec<String>,
    /// Where its folder is made, if that matters. It must be open to other users, with a path of at most 60 bytes.
    pub base: Option<PathBuf>,
}

/// A database server. Clones are the same server; a private one ends with its last clone.
#[derive(Clone, Debug)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: ServerEngine,
    place: Place,
    made: AtomicU64,
    /// Names of databases that nobody uses any more.
    unused: Mutex<Vec<String>>,
}

enum Place {
    /// Ours: its folder, who keeps it, the command that starts it.
    Private { folder: PathBuf, watcher: Arc<Mutex<Watcher>>, command: Vec<String> },
    /// Somebody's: its URL, with whatever database.
    Existing(String),
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private { folder, .. } => f.debug_tuple("Private").field(folder).finish(),
            Self::Existing(_) => f.write_str("Existing"),
        }
    }
}

impl Server {
    /// The one fast server of this process, started by the first who asks.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn shared(engine: ServerEngine) -> Result<&'static Self> {
        static MARIADB: OnceCell<Server> = OnceCell::const_new();
        static POSTGRES: OnceCell<Server> = OnceCell::const_new();
        let cell = match engine {
            ServerEngine::MariaDb => &MARIADB,
            ServerEngine::Postgres => &POSTGRES,
        };
        cell.get_or_try_init(|| Self::start(engine, ServerOptions::default())).await
    }

    /// Makes a folder, starts a server in it and waits until it answers; or takes the server that the environment names.
    ///
    /// # Errors
    /// The engine's programs are missing, or what they said when they failed.
    pub async fn start(engine: ServerEngine, options: ServerOptions) -> Result<Self> {
        let place = match engine.existing() {
            Some(url) => Place::Existing(url),
            None => blocking(move || private(engine, &options)).await?,
        };
        let inner = Inner { engine, place, made: AtomicU64::new(0), unused: Mutex::default() };
        let server = Self(Arc::new(inner));
        if matches!(server.0.place, Place::Private { .. }) {
            server.restart().await?;
        }
        Ok(server)
    }

    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> ServerEngine {
        self.0.engine
    }

    /// The folder of a private server, with all that it has.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.0.place {
            Place::Private { folder, .. } => Some(folder),
            Place::Existing(_) => None,
        }
    }

    /// The URL of a database as the server's superuser, whether there is one of that name or not.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        match &self.0.place {
            Place::Private { folder, .. } => self.0.engine.url(folder, database),
            Place::Existing(url) => database::with_name(url, database),
        }
    }

    /// Kills a private server by SIGKILL, with all its processes, as a crash does.
    ///
    /// # Errors
    /// It is not ours.
    pub async fn kill(&self) -> Result<()> {
        self.tell("crash".to_owned()).await
    }

    /// Stops a private server cleanly and waits until it is gone.
    ///
    /// # Errors
    /// It is not ours.
    pub async fn stop(&self) -> Result<()> {
        self.tell(format!("stop {}", self.0.engine.stop_signal())).await
    }

    /// Starts a private server that was killed or stopped, on its data as they are, and waits until it answers.
    ///
    /// # Errors
    /// It is not ours, or what it said when it failed.
    pub async fn restart(&self) -> Result<()> {
        let Place::Private { folder, command, .. } = &self.0.place else { return Err(not_ours()) };
        self.tell(format!("start {}", watcher::quoted(command))).await?;
        let begun = Instant::now();
        while let Err(error) = self.execute(self.0.engine.maintenance(), "SELECT 1").await {
            let running = self.tell("running".to_owned()).await.is_ok();
            if !running || begun.elapsed() > START {
                let said = watcher::said(folder);
                return Err(Error::other(format!("{} did not start: {error}\n{said}", self.0.engine)));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn tell(&self, words: String) -> Result<()> {
        let Place::Private { watcher, .. } = &self.0.place else { return Err(not_ours()) };
        let watcher = watcher.clone();
        blocking(move || watcher.lock().unwrap_or_else(PoisonError::into_inner).tell(&words)).await
    }

    fn next_name(&self) -> String {
        let number = self.0.made.fetch_add(1, Ordering::Relaxed);
        match &self.0.place {
            Place::Private { .. } => format!("oma_{number}"),
            // Others may be testing there too.
            Place::Existing(_) => format!("oma_test_{}_{}_{number}", std::process::id(), database::moment()),
        }
    }
}

/// Every statement of the store with its name, as an engine gets it: to be prepared and explained.
#[must_use]
pub fn statements(engine: ServerEngine) -> Vec<(&'static str, &'static str)> {
    let dialect = match engine {
        ServerEngine::MariaDb => Dialect::MySql,
        ServerEngine::Postgres => Dialect::Postgres,
    };
    sql::all().map(|(name, sql)| (name, sql.text(dialect))).collect()
}

fn not_ours() -> Error {
    Error::other("a server that was there already is neither started nor stopped")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::other)?
}

fn private(engine: ServerEngine, options: &ServerOptions) -> Result<Place> {
    let folder = tempfile::Builder::new().prefix("oma-").tempdir_in(base(options))?;
    let plan = engine.plan(folder.path(), options)?;
    let mut watcher = Watcher::start(folder, plan.user, engine.farewell())?;
    watcher.tell(&format!("run {}", watcher::quoted(&plan.init)))?;
    let folder = watcher.folder().to_owned();
    Ok(Place::Private { folder, watcher: Arc::new(Mutex::new(watcher)), command: plan.server })
}

fn base(options: &ServerOptions) -> PathBuf {
    if let Some(base) = &options.base {
        return base.clone();
    }
    let memory = Path::new("/dev/shm");
    if !options.durable && tempfile::tempfile_in(memory).is_ok() {
        return memory.to_owned();
    }
    let base = std::env::temp_dir();
    if base.as_os_str().len() > LONGEST_BASE { PathBuf::from("/tmp") } else { base }
}

/// What a private server is made of.
struct Plan {
    /// The command that makes its data folder.
    init: Vec<String>,
    /// The command that is the server.
    server: Vec<String>,
    /// Whose processes they are; ours without.
    user: Option<u32>,
}

/// The first of these folders with such a program, else the first in `PATH`.
fn program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(folders.iter().cloned());
    all.map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn missing(name: &str) -> Error {
    Error::new(std::io::ErrorKind::NotFound, format!("{name} is not installed"))
}
