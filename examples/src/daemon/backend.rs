//! Where volumes live.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::NbdOpener;
use crate::data_dir::DataDir;
use crate::failure::read_error;
use crate::private_file;
use oma_api::client::{RemoteBackend, RemoteConfig, Token};
use oma_core::traits::VolumeBackend;
use oma_core::{Error, ErrorKind, Result};
use oma_volume::cloudstack::{CloudStackBackend, CloudStackConfig, Keys};
use oma_volume::file::{FileBackend, FileConfig};
use oma_volume::loopdev::{LoopBackend, LoopConfig};
use serde::de::DeserializeOwned;

use super::{Backend, BackendArgs};

/// A backend, and the cloud's id of the machine that this runs in.
pub type Opened = (Arc<dyn VolumeBackend>, Option<String>);

/// The backend that is asked for.
///
/// # Errors
/// What its place, its zone, its daemon or its keys answer.
pub async fn open(args: &BackendArgs, data: &DataDir) -> Result<Opened> {
    let (directory, identity) = (data.volumes(), Some(data.volumes_identity()));
    Ok(match args.backend {
        Backend::File => (Arc::new(FileBackend::open(&FileConfig { directory, identity })?), None),
        Backend::Loop => (Arc::new(LoopBackend::open(&LoopConfig { directory, identity })?), None),
        Backend::Cloudstack => {
            let config = cloudstack_config(args)?;
            let machine = config.appliance_vm_id.clone();
            (Arc::new(CloudStackBackend::new(config, cloudstack_keys(args)?)?), Some(machine))
        }
        Backend::Remote => (Arc::new(remote(args).await?), None),
    })
}

/// Whether the files are good that say where volumes live, and with which keys. Nobody is asked.
///
/// # Errors
/// What is wrong with them.
pub fn check(args: &BackendArgs) -> Result<()> {
    match args.backend {
        Backend::File | Backend::Loop => Ok(()),
        Backend::Cloudstack => cloudstack(args).map(drop),
        Backend::Remote => remote_config(args).map(drop),
    }
}

/// The zone and its keys.
pub fn cloudstack(args: &BackendArgs) -> Result<CloudStackBackend> {
    CloudStackBackend::new(cloudstack_config(args)?, cloudstack_keys(args)?)
}

fn cloudstack_config(args: &BackendArgs) -> Result<CloudStackConfig> {
    let path = named(args.cloudstack.as_deref(), "--cloudstack")?;
    described(path, "it is no description of a zone", "docs/cloudstack.md")
}

/// The daemon on whose machine the volumes are.
async fn remote(args: &BackendArgs) -> Result<RemoteBackend> {
    let (config, token) = remote_config(args)?;
    let opener =
        args.remote_certificates.as_ref().map_or_else(NbdOpener::default, NbdOpener::with_certificates);
    RemoteBackend::connect(&config, token, Arc::new(opener)).await
}

fn remote_config(args: &BackendArgs) -> Result<(RemoteConfig, Option<Token>)> {
    let path = named(args.remote.as_deref(), "--remote")?;
    let config = described(path, "it does not say where a volume daemon is", "docs/remote-volumes.md")?;
    let token = args.remote_token.as_deref().map(private_file::read).transpose()?;
    Ok((config, token.as_deref().map(Token::new).transpose()?))
}

/// A file in JSON.
fn described<T: DeserializeOwned>(path: &Path, refused: &'static str, docs: &'static str) -> Result<T> {
    let text = fs::read(path).map_err(|error| read_error("read", path.display(), error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(ErrorKind::Invalid, "read", path.display())
            .because(format!("{refused}: {error}; {docs} has one"))
    })
}

fn cloudstack_keys(args: &BackendArgs) -> Result<Keys> {
    let path = named(args.cloudstack_keys.as_deref(), "--cloudstack-keys")?;
    let text = private_file::read(path)?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(api), Some(secret), None) => Keys::new(api, secret),
        _ => Err(Error::new(ErrorKind::Invalid, "read", path.display())
            .because("it is to hold the API key on one line and the secret key on the next")),
    }
}

fn named<'a>(path: Option<&'a Path>, argument: &'static str) -> Result<&'a Path> {
    path.ok_or_else(|| Error::new(ErrorKind::Invalid, "find", argument).because("the backend needs it"))
}
