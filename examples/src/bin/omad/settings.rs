//! What the daemon is told: a file, the environment, flags; each goes before the one in front of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builder::DefaultState;
use config::{Config, ConfigBuilder, Environment, File, FileFormat};
use oma_core::audit::KEPT;
use oma_core::engine::{ReplicateConfig, UpkeepConfig, WorkerConfig};
use oma_core::record::{ClaimLimits, RetryPolicy};
use oma_core::{ByteSize, Error, ErrorKind, Result};
use oma_examples::age::age;
use oma_examples::authority;
use oma_examples::daemon::log::Log;
use oma_examples::daemon::{Backend, BackendArgs, DoorArgs, Listen, NbdArgs};
use oma_examples::failure::read_error;
use serde::{Deserialize, Deserializer, de};

use crate::args::Cli;

/// The environment's variables begin so: `OMAD_WORK__JOBS=8` is `jobs` of `[work]`.
const PREFIX: &str = "OMAD";
/// Where all routes are served if nobody says more.
const API: &str = "127.0.0.1:8082";
/// Where exports are.
const NBD: &str = "127.0.0.1:10809";

/// Everything, as it is used.
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeepSettings {
    #[serde(deserialize_with = "as_age")]
    pub(crate) logs: Duration,
    pub(crate) log_lines: u64,
    #[serde(deserialize_with = "as_age")]
    pub(crate) tokens: Duration,
    #[serde(deserialize_with = "as_age")]
    pub(crate) cleanups: Duration,
    #[serde(deserialize_with = "as_optional_age")]
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
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VolumeSettings {
    pub(crate) backend: Backend,
    pub(crate) cloudstack: Option<PathBuf>,
    pub(crate) cloudstack_keys: Option<PathBuf>,
    pub(crate) remote: Option<PathBuf>,
    pub(crate) remote_token: Option<PathBuf>,
    pub(crate) remote_certificates: Option<PathBuf>,
    #[serde(deserialize_with = "as_age")]
    pub(crate) grace: Duration,
}

/// How jobs are driven.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WorkSettings {
    pub(crate) jobs: u32,
    pub(crate) per_source: Option<u32>,
    pub(crate) per_target: Option<u32>,
    pub(crate) per_agent: u32,
    pub(crate) attempts: u32,
    #[serde(deserialize_with = "as_size")]
    pub(crate) memory: ByteSize,
    #[serde(deserialize_with = "as_size")]
    pub(crate) journal_step: ByteSize,
    pub(crate) limits: Option<PathBuf>,
}

/// What of this machine requests may name as a source.
#[derive(Debug, Default, Deserialize)]
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

    fn check(&self) -> Result<()> {
        let wrong = |key: &'static str, reason: &'static str| {
            Err(Error::new(ErrorKind::Invalid, "read setting", key).because(reason))
        };
        if self.work.jobs == 0 {
            return wrong("work.jobs", "no job would ever be driven; name at least 1");
        }
        if self.work.attempts == 0 {
            return wrong("work.attempts", "each job has one attempt at least");
        }
        if self.work.memory < ByteSize::mib(1) {
            return wrong("work.memory", "a copy needs 1 MiB at least");
        }
        if self.work.per_source == Some(0) || self.work.per_target == Some(0) {
            return wrong(
                "work.per_source and work.per_target",
                "no job would ever be driven; name at least 1, or leave it out",
            );
        }
        if self.work.per_agent == 0 {
            return wrong("work.per_agent", "no agent could push; name at least 1");
        }
        let (api, nbd, volumes) = (&self.api, &self.nbd, &self.volumes);
        if api.tls_certificate.is_some() != api.tls_key.is_some() {
            return wrong("api.tls_certificate and api.tls_key", "one is nothing without the other");
        }
        if api.no_auth && api.tls_certificate.is_some() {
            return wrong("api.no_auth", "it is for an address of this machine, without a certificate");
        }
        if api.tls && (api.no_auth || api.tls_certificate.is_some()) {
            return wrong(
                "api.tls",
                "it is for a certificate of the appliance's own: neither with another one nor with api.no_auth",
            );
        }
        api.tls_names.iter().try_for_each(|name| authority::check_name(name))?;
        if nbd.address().is_none() && (nbd.nbd_tls_certificates.is_some() || nbd.nbd_host.is_some()) {
            return wrong("nbd.listen", "the other settings of [nbd] are nothing without it");
        }
        let cloud = volumes.backend == Backend::Cloudstack;
        if cloud != volumes.cloudstack.is_some() || cloud != volumes.cloudstack_keys.is_some() {
            return wrong(
                "volumes.cloudstack and volumes.cloudstack_keys",
                "both go with volumes.backend = \"cloudstack\", and only with it",
            );
        }
        let remote = volumes.remote.is_some();
        let beside = volumes.remote_token.is_some() || volumes.remote_certificates.is_some();
        if (volumes.backend == Backend::Remote) != remote || (beside && !remote) {
            return wrong(
                "volumes.remote",
                "it goes with volumes.backend = \"remote\", and only with it; volumes.remote_token and volumes.remote_certificates go with it",
            );
        }
        if self.keep.audit.is_some_and(|kept| kept < KEPT) {
            return wrong("keep.audit", "the audit trail is kept for 365d at least");
        }
        for directory in &self.sources.directories {
            if !directory.is_absolute() {
                return wrong("sources.directories", "they begin with `/`");
            }
        }
        Ok(())
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

fn as_age<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    age(&String::deserialize(from)?).map_err(de::Error::custom)
}

fn as_optional_age<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    as_age(from).map(Some)
}

fn as_size<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn read(file: Option<&str>, flags: &[&str]) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("omad.toml");
        let mut line = vec!["omad"];
        if let Some(file) = file {
            fs::write(&path, file).unwrap();
            line.extend(["--config", path.to_str().unwrap()]);
        }
        line.extend(flags);
        Settings::read(&Cli::try_parse_from(line).unwrap())
    }

    #[test]
    fn nothing_needs_to_be_said() {
        let settings = read(None, &[]).unwrap();
        assert_eq!(settings.api.listen, Some("127.0.0.1:8082".parse().unwrap()));
        assert_eq!(settings.volume_api.listen, Listen::here(8090));
        assert_eq!(settings.nbd.nbd_listen, Some(Listen::here(10809)));
        assert_eq!((settings.work.jobs, settings.volumes.grace), (4, Duration::from_secs(604_800)));
        assert_eq!((settings.upkeep(), settings.keep.log_lines), (UpkeepConfig::default(), 10_000));
        assert!(settings.sources.directories.is_empty() && !settings.api.no_auth);
    }

    #[test]
    fn a_file_goes_before_the_defaults_and_flags_before_it() {
        let file = "data_dir = \"/var/lib/oma\"\nlog = \"json\"\n[api]\nlisten = \"127.0.0.1:1\"\n[volume_api]\nlisten = \"127.0.0.1:3\"\n[work]\njobs = 9\nmemory = \"64MiB\"\n\
                    [volumes]\nbackend = \"loop\"\ngrace = \"12h\"\n[sources]\ndirectories = [\"/srv\"]\n";
        let flags = ["--listen", "127.0.0.1:2", "--source-dir", "/mnt", "--volume-listen", "none"];
        let settings = read(Some(file), &flags).unwrap();
        assert_eq!(
            (settings.log, settings.work.jobs, settings.work.memory),
            (Log::Json, 9, ByteSize::mib(64))
        );
        assert_eq!(settings.api.listen, Some("127.0.0.1:2".parse().unwrap()));
        assert_eq!(settings.volume_api.listen, Listen::Nowhere);
        assert_eq!(read(Some(file), &[]).unwrap().volume_api.listen, Listen::here(3));
        assert_eq!(settings.sources.directories, [PathBuf::from("/mnt")]);
        assert_eq!(settings.volumes.grace, Duration::from_secs(43_200));
        assert_eq!(settings.data_dir, PathBuf::from("/var/lib/oma"));
    }

    #[test]
    fn what_is_said_of_a_port_leaves_it_where_it_is() {
        let file = "[api]\nconnections = 3\n[nbd]\nhost = \"oma.example\"\n";
        let settings =
            read(Some(file), &["--tls", "--tls-name", "oma.example", "--tls-name", "::2"]).unwrap();
        assert_eq!(settings.api.listen, Some("127.0.0.1:8082".parse().unwrap()));
        assert_eq!(settings.nbd.address(), Some("127.0.0.1:10809".parse().unwrap()));
        assert!(settings.api.tls && settings.api.tls_names == ["oma.example", "::2"]);
        let none = read(None, &["--nbd-listen", "none"]).unwrap();
        assert_eq!(none.nbd.address(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, named) in [
            ("[work]\njob = 3\n", "job"),
            ("[work]\njobs = \"many\"\n", "jobs"),
            ("[work]\njobs = 0\n", "work.jobs"),
            ("[volumes]\ngrace = \"7\"\n", "is no age"),
            ("[sources]\ndirectories = [\"srv\"]\n", "begin with `/`"),
            ("[work]\nper_source = 0\n", "work.per_source"),
            ("[work]\nper_agent = 0\n", "work.per_agent"),
            ("[api]\ntls_certificate = \"/c.pem\"\n", "api.tls_key"),
            ("[volume_api]\nlisten = \"8090\"\n", "nor `none`"),
            ("[nbd]\nlisten = \"none\"\nhost = \"oma.example\"\n", "nbd.listen"),
            ("[api]\ntls_names = [\"a b\"]\n", "neither a name of a host nor an address"),
            ("[api]\ntls = true\nno_auth = true\n", "api.tls"),
            ("[volumes]\nbackend = \"cloudstack\"\n", "volumes.cloudstack"),
            ("[volumes]\nbackend = \"remote\"\n", "volumes.remote"),
            ("[volumes]\nremote_token = \"/t\"\n", "volumes.remote"),
            ("[keep]\naudit = \"90d\"\n", "keep.audit"),
            ("[keep]\nlogs = \"long\"\n", "is no age"),
            ("[keep]\ncleanups = \"long\"\n", "is no age"),
            ("data_dir = \n", "omad.toml"),
        ] {
            let error = read(Some(file), &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains(named), "{file:?}: {}", error.chain());
        }
        let missing = Cli::try_parse_from(["omad", "--config", "/nowhere/omad.toml"]).unwrap();
        assert_eq!(Settings::read(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
