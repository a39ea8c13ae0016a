use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use oma_core::{Endpoint, InstanceUuid, WorkerId};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bitmaps::look_of;
use super::config::QemuConfig;
use super::error::Failure;
use super::lock::MachineLock;
use super::qmp::Qmp;
use crate::uri::Uri;

/// A conversation with the machine.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) qmp: Qmp,
    pub(super) config: &'a QemuConfig,
    /// The monitor, wherever this program was started.
    monitor: PathBuf,
    /// The machine's own id, when it has one (`-uuid`).
    uuid: Option<Uuid>,
    directory: PathBuf,
    _lock: Option<MachineLock>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "UUID")]
    uuid: String,
}

#[derive(Deserialize)]
struct Status {
    running: bool,
}

impl<'a> Session<'a> {
    /// To look.
    pub(super) async fn open(config: &'a QemuConfig) -> Result<Self, Failure> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| Failure::Path(path.to_owned(), error));
        let monitor = absolute(&config.qmp)?;
        let directory = match &config.directory {
            Some(directory) => absolute(directory)?,
            None => monitor.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let mut qmp = Qmp::connect(&config.qmp, config.command_timeout, config.busy_timeout).await?;
        let named: Named = qmp.ask("query-uuid", json!({})).await?;
        let uuid = Uuid::try_parse(&named.uuid).ok().filter(|uuid| !uuid.is_nil());
        Ok(Self { qmp, config, monitor, uuid, directory, _lock: None })
    }

    /// To change: nobody else of ours does meanwhile.
    pub(super) async fn open_locked(config: &'a QemuConfig) -> Result<Self, Failure> {
        let mut session = Self::open(config).await?;
        let file = lock_file(&session)?;
        let machine = match (session.uuid, session.qmp.peer()) {
            (Some(uuid), _) => uuid.to_string(),
            (None, Some(pid)) => pid.to_string(),
            (None, None) => session.monitor.to_string_lossy().into_owned(),
        };
        session._lock = Some(MachineLock::acquire(&machine, &file, config.busy_timeout).await?);
        Ok(session)
    }

    /// Who the machine is: its own id wherever it runs, else the VM's path at this monitor.
    pub(super) fn identity(&self) -> (InstanceUuid, Endpoint) {
        let endpoint = |text: &str| Endpoint::parse(text);
        let (instance, place) = match self.uuid {
            Some(uuid) => (InstanceUuid::parse(uuid.to_string()).ok(), endpoint("qemu")),
            None => (None, endpoint(&format!("qemu:{}", self.monitor.display()))),
        };
        let instance = instance.unwrap_or_else(|| InstanceUuid::from_path(&self.config.vm));
        (instance, place.unwrap_or_else(|_| Endpoint::parse("qemu").expect("a short word is an endpoint")))
    }

    /// Whose points in time are made.
    pub(super) fn owner(&self) -> WorkerId {
        match self.config.tracks {
            true => self.config.owner.clone(),
            false => look_of(&self.config.owner),
        }
    }

    /// Whether the guest runs: only then its agent can answer, and only then it must.
    pub(super) async fn is_running(&mut self) -> Result<bool, Failure> {
        Ok(self.qmp.ask::<Status>("query-status", json!({})).await?.running)
    }

    /// The socket of the NBD server that this source starts.
    pub(super) fn nbd_socket(&self) -> PathBuf {
        let (instance, _) = self.identity();
        // All of it: the ids of two machines in one folder may begin alike.
        let id: String = instance.as_str().chars().filter(char::is_ascii_alphanumeric).collect();
        self.directory.join(format!("oma-{id}.nbd"))
    }

    /// An export of the machine's NBD server.
    pub(super) fn uri(&self, export: &str) -> Result<Uri, Failure> {
        Ok(match &self.config.nbd_server {
            Some(uri) => uri.with_export(export)?,
            None => Uri::unix(self.nbd_socket(), export)?,
        })
    }

    /// Where what the guest overwrites is kept while QEMU opens it; the name goes at once.
    pub(super) fn scratch(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.scratch"))
    }

    /// All or nothing.
    pub(super) async fn transaction(&mut self, actions: Vec<Value>) -> Result<(), Failure> {
        if actions.is_empty() {
            return Ok(());
        }
        self.qmp.tell("transaction", json!({ "actions": actions })).await
    }

    /// Lets what has no user be gone; it may be gone already.
    pub(super) async fn forget(&mut self, command: &'static str, arguments: Value) {
        if let Err(failure) = self.qmp.tell(command, arguments).await {
            tracing::warn!(command, %failure, "left over in the machine");
        }
    }
}

/// Where the lock of a machine is: beside its monitor, where everybody who works on it is.
fn lock_file(session: &Session<'_>) -> Result<PathBuf, Failure> {
    let monitor = &session.monitor;
    let id = match session.uuid {
        Some(uuid) => uuid.simple().to_string(),
        // A process has another number in each namespace.
        None => {
            let about = monitor.metadata().map_err(Failure::Lock)?;
            format!("{:x}-{:x}", about.dev(), about.ino())
        }
    };
    let folder = monitor.parent().map(Path::to_owned).unwrap_or_default();
    Ok(folder.join(format!("oma-{id}.lock")))
}
