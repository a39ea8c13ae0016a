//! Commands that a running appliance carries out.

mod advised;
mod audit;
mod cleanup;
mod disks;
mod jobs;
mod logs;
mod patience;
mod points;
mod replicate;
mod steer;
mod told;
mod users;
mod volumes;

use std::env;
use std::io;

use oma_api::client::{Appliance, RemoteConfig, Steer, Token};
use oma_core::{Error, ErrorKind, Result};
use oma_examples::data_dir::DataDir;
use oma_examples::database::VARIABLE;
use oma_examples::failure::{Failed, io_error};
use oma_examples::{private_file, trust};
use tokio::net::UnixStream;

use crate::args::{Command, RemoteArgs};

/// A running appliance, and how its answers are printed.
#[derive(Debug)]
pub(crate) struct Remote {
    appliance: Appliance,
    json: bool,
    /// It reads the files of this machine.
    is_here: bool,
}

impl Remote {
    /// The one that is named, else the one that serves the data directory.
    ///
    /// # Errors
    /// `Invalid` for an address or a token that can be none; what the system answers of their files.
    pub(crate) async fn choose(args: &RemoteArgs, data: &DataDir, json: bool) -> Result<Option<Self>> {
        let config = match &args.api {
            Some(address) => trust::reach(address, args.ca.as_deref())?,
            None if args.embedded => return Ok(None),
            None => {
                let socket = data.socket("omad");
                match UnixStream::connect(&socket).await {
                    Ok(_) => {}
                    Err(error) if is_nobody(&error) => return Ok(None),
                    Err(error) => return Err(io_error("connect to", socket.display(), error)),
                }
                RemoteConfig::new(format!("unix:{}", socket.display()))
            }
        };
        let token = args.token_file.as_deref().map(private_file::read).transpose()?;
        let token = token.as_deref().map(Token::new).transpose()?;
        let is_here = config.address.starts_with("unix:");
        Ok(Some(Self { appliance: Appliance::new(&config, token).await?, json, is_here }))
    }

    /// Carries a command out.
    pub(crate) async fn run(&self, command: &Command) -> Result<(), Failed> {
        match command {
            Command::Jobs(args) => Ok(jobs::run(self, args).await?),
            Command::Replicate(args) => replicate::run(self, args).await,
            Command::Cancel(args) => Ok(steer::cancel(self, args).await?),
            Command::Pause(args) => Ok(steer::run(self, &args.job, Steer::Pause).await?),
            Command::Resume(args) => Ok(steer::run(self, &args.job, Steer::Resume).await?),
            Command::Retry(args) => Ok(steer::run(self, &args.job, Steer::Retry).await?),
            Command::Cleanup(args) => Ok(cleanup::run(self, args).await?),
            Command::Logs(args) => Ok(logs::run(self, args).await?),
            Command::Disks => Ok(disks::run(self).await?),
            Command::ChangeId(args) => Ok(disks::change_id(self, args).await?),
            Command::Volumes(args) => volumes::run(self, args).await,
            Command::Users(args) => Ok(users::run(self, args).await?),
            Command::Audit(args) => audit::run(self, args).await,
            Command::Points(args) => Ok(points::run(self, args).await?),
            Command::Report(args) => Ok(told::report(self, args).await?),
            Command::Forecast(args) => Ok(told::forecast(self, args).await?),
            Command::Verify(_) => Err(told::verify().into()),
            _ => Err(Error::new(ErrorKind::Unsupported, "ask the appliance for", "this command")
                .because(
                    "it works on a data directory itself; run it on the appliance's machine, without --api",
                )
                .into()),
        }
    }
}

/// Whether nobody is behind a socket: it is not there, cannot be, or was left by a process that is gone. Any other error tells nothing of
/// that.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidInput | ConnectionRefused)
}

/// Whether an appliance carries a command out where one serves the data directory; the others only look, or have no route.
pub(crate) fn is_for_appliance(command: &Command) -> bool {
    match command {
        Command::Jobs(_)
        | Command::Replicate(_)
        | Command::Cancel(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Retry(_)
        | Command::Logs(_)
        | Command::Cleanup(_)
        | Command::Disks
        | Command::ChangeId(_)
        | Command::Volumes(_)
        | Command::Points(_)
        | Command::Report(_)
        | Command::Forecast(_) => true,
        // The data directory may be of another database than the one that is named.
        Command::Users(_) | Command::Audit(_) => env::var_os(VARIABLE).is_none_or(|url| url.is_empty()),
        _ => false,
    }
}

/// Whether a command is for nobody but this process, whatever appliance is named.
pub(crate) const fn is_local(command: &Command) -> bool {
    match command {
        Command::Trust(_) => true,
        Command::Users(args) => args.database.is_some(),
        Command::Audit(args) => args.database.is_some(),
        _ => false,
    }
}

/// What only an appliance does.
pub(crate) fn needed(operation: &'static str, resource: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, operation, resource)
        .because("only an appliance does it, and none is asked: begin `omad` on the data directory, or name one with --api, without --embedded")
}
