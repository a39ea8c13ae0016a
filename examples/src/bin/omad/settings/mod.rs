//! What the daemon is told: a file, the environment, flags; each goes before the one in front of it.

mod check;
mod forms;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, Environment, File, FileFormat};
use oma_core::engine::{ReplicateConfig, UpkeepConfig, WorkerConfig};
use oma_core::record::{ClaimLimits, RetryPolicy};
use oma_core::{ByteSize, Error, ErrorKind, Result};
use oma_examples::daemon::log::Log;
use oma_examples::daemon::{Backend, BackendArgs, DoorArgs, Listen, NbdArgs};
use oma_examples::failure::read_error;
use serde::{Deserialize, Serialize};

use crate::args::Cli;

/// The environment's variables begin so: `OMAD_WORK__JOBS=8` is `jobs` of `[work]`.
const PREFIX: &str = "OMAD";
/// Where all routes are served if nobody says more.
const API: &str = "127.0.0.1:8082";
/// Where exports are.
const NBD: &str = "127.0.0.1:10809";

/// Everything, as it is used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) log: Log,
    pub(crate) api: DoorArgs,
    pub(crate) volume_api: VolumeApiSettings,
    pub(crate) nbd: NbdArgs,
    pub(crate) volumes: VolumeSettings,
    pub(crate) work: WorkSettings,
    pub(crate) sources: SourceSettings,
    pub(crate) keep: KeepSettings,
}

/// The routes of volumes by themselves, on a port for programs that were made for the volume daemon. Who is let in there, and how, is as
/// at the port of all routes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VolumeApiSettings {
    pub(crate) listen: Listen,
}

impl Default for VolumeApiSettings {
    fn default() -> Self {
        Self { listen: Listen::here(8090) }
    }
}

/// How long things are kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeepSettings {
    #[serde(with = "forms::age")]
    pub(crate) logs: Duration,
    pub(crate) log_lines: u64,
    #[serde(with = "forms::age")]
    pub(crate) tokens: Duration,
    #[serde(with = "forms::age")]
    pub(crate) cleanups: Duration,
    #[serde(with = "forms::optional_age")]
    pub(crate) audit: Option<Duration>,
}

impl Default for KeepSettings {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(days * 24);
        let log_lines = ReplicateConfig::default().log_lines;
        Self { logs: days(90), log_lines, tokens: days(30), cleanups: days(90), audit: None }
    }
}

/// Where volumes live, and how they are changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VolumeSettings {
    pub(crate) backend: Backend,
    pub(crate) cloudstack: Option<PathBuf>,
    pub(crate) cloudstack_keys: Option<PathBuf>,
    pub(crate) remote: Option<PathBuf>,
    pub(crate) remote_token: Option<PathBuf>,
    pub(crate) remote_certificates: Option<PathBuf>,
    #[serde(with = "forms::age")]
    pub(crate) grace: Duration,
}

/// How jobs are driven.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkSettings {
    pub(crate) jobs: u32,
    pub(crate) per_source: Option<u32>,
    pub(crate) per_target: Option<u32>,
    pub(crate) per_agent: u32,
    pub(crate) attempts: u32,
    #[serde(with = "forms::size")]
    pub(crate) memory: ByteSize,
    #[serde(with = "forms::size")]
    pub(crate) journal_step: ByteSize,
    pub(crate) limits: Option<PathBuf>,
}

/// What of this machine requests may name as a source.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SourceSettings {
    /// Files, block devices and sockets must lie below one of these.
    pub(crate) directories: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./oma-data"),
            log: Log::default(),
            api: DoorArgs::default(),
            volume_api: VolumeApiSettings::default(),
            nbd: NbdArgs::default(),
            volumes: VolumeSettings::default(),
            work: WorkSettings::default(),
            sources: SourceSettings::default(),
            keep: KeepSettings::default(),
        }
    }
}

impl Default for VolumeSettings {
    fn default() -> Self {
        let grace = Duration::from_secs(7 * 86_400);
        Self {
            backend: Backend::File,
            cloudstack: None,
            cloudstack_keys: None,
            remote: None,
            remote_token: None,
            remote_certificates: None,
            grace,
        }
    }
}

impl VolumeSettings {
    /// Where volumes live.
    pub(crate) fn backend(&self) -> BackendArgs {
        BackendArgs {
            backend: self.backend,
            cloudstack: self.cloudstack.clone(),
            cloudstack_keys: self.cloudstack_keys.clone(),
            remote: self.remote.clone(),
            remote_token: self.remote_token.clone(),
            remote_certificates: self.remote_certificates.clone(),
        }
    }
}

impl Default for WorkSettings {
    fn default() -> Self {
        let engine = ReplicateConfig::default();
        Self {
            jobs: 4,
            per_source: None,
            per_target: None,
            per_agent: 100,
            attempts: RetryPolicy::default().attempts,
            memory: engine.memory,
            journal_step: engine.journal_step,
            limits: None,
        }
    }
}

impl Settings {
    /// Reads them all.
    ///
    /// # Errors
    /// `Invalid`, naming the place, for what is misspelt or no value of its key; `NotFound` for a file that was named and is not there.
    pub(crate) fn read(cli: &Cli) -> Result<Self> {
        let mut builder = Config::builder();
        if let Some(path) = &cli.config {
            builder = builder.add_source(File::from_str(&text(path)?, FileFormat::Toml));
        }
        let place = || {
            cli.config.as_ref().map_or_else(|| "the settings".to_owned(), |path| path.display().to_string())
        };
        let wrong = |error: config::ConfigError| {
            let reason = format!("{error}; `omad --help` and docs/omad.md list what there is");
            Error::new(ErrorKind::Invalid, "read", place()).because(reason)
        };
        let variables = Environment::with_prefix(PREFIX)
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .list_separator(":")
            .with_list_parse_key("sources.directories")
            .with_list_parse_key("api.tls_names");
        let told = builder
            .add_source(variables)
            .set_default("api.listen", API)
            .and_then(|builder| builder.set_default("nbd.listen", NBD))
            .and_then(|builder| flags(cli, builder))
            .and_then(|builder| builder.build())
            .map_err(wrong)?;
        let settings: Self = told.try_deserialize().map_err(wrong)?;
        settings.check()?;
        Ok(settings)
    }

    /// As a file that says the same.
    ///
    /// # Errors
    /// `Invalid` for a path that is no text.
    pub(crate) fn toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| {
            Error::new(ErrorKind::Invalid, "write", "the settings").because(error.to_string())
        })
    }

    /// How jobs are copied.
    pub(crate) fn engine(&self) -> ReplicateConfig {
        let WorkSettings { memory, journal_step, .. } = self.work;
        ReplicateConfig { memory, journal_step, log_lines: self.keep.log_lines, ..ReplicateConfig::default() }
    }

    /// What is deleted when it is too old.
    pub(crate) fn upkeep(&self) -> UpkeepConfig {
        let KeepSettings { logs, tokens, cleanups, audit, .. } = self.keep;
        let (logs, tokens, cleanups) = (Some(logs), Some(tokens), Some(cleanups));
        UpkeepConfig { logs, tokens, cleanups, audit, ..UpkeepConfig::default() }
    }

    /// How jobs are taken up.
    pub(crate) fn worker(&self) -> WorkerConfig {
        let WorkSettings { jobs, per_source, per_target, attempts, .. } = self.work;
        let limits = ClaimLimits { per_worker: Some(jobs), per_source, per_target };
        let attempts = RetryPolicy { attempts, ..RetryPolicy::default() };
        WorkerConfig { limits, attempts, ..WorkerConfig::default() }
    }
}

/// Flags go before all else.
fn flags(
    cli: &Cli,
    builder: ConfigBuilder<DefaultState>,
) -> std::result::Result<ConfigBuilder<DefaultState>, config::ConfigError> {
    let listen = |listen: Option<Listen>| listen.map(|listen| listen.to_string());
    let list = |all: Vec<String>| (!all.is_empty()).then_some(all);
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    builder
        .set_override_option("data_dir", cli.data_dir.as_ref().map(path))?
        .set_override_option("api.listen", cli.listen.map(|address| address.to_string()))?
        .set_override_option("api.tls", cli.tls.then_some(true))?
        .set_override_option("api.tls_names", list(cli.tls_name.clone()))?
        .set_override_option("api.no_auth", cli.no_auth.then_some(true))?
        .set_override_option("volume_api.listen", listen(cli.volume_listen))?
        .set_override_option("nbd.listen", listen(cli.nbd_listen))?
        .set_override_option("work.jobs", cli.jobs)?
        .set_override_option("sources.directories", list(cli.source_dir.iter().map(path).collect()))
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| read_error("read", path.display(), error))
}

#[cfg(test)]
mod tests;
