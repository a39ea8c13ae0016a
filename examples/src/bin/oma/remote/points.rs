use std::time::Duration;

use oma_api::PointRow;
use oma_core::{Clock as _, Error, ErrorKind, JobId, RecoveryPointId, Result, SystemClock};
use oma_examples::output;
use oma_examples::signals::Signals;

use super::Remote;
use super::patience::{PACE, patiently};
use crate::args::{PointArgs, PointsArgs, PointsCommand};
use crate::command::points;

const STOPPING: &str = "stopped following; the revert goes on, and `oma cancel` ends it";
/// How long one request waits.
const WAIT: Duration = Duration::from_secs(10);

/// Has recovery points listed, one deleted, or volumes go back to one.
pub(super) async fn run(remote: &Remote, args: &PointsArgs) -> Result<()> {
    match &args.command {
        PointsCommand::List(args) => {
            let listed = remote.appliance.points(args.vm_path.as_ref()).await;
            points::tell_list(
                listed.map_err(|error| known(error, args.vm_path.as_ref(), points::unknown_vm))?,
                remote.json,
            )
        }
        PointsCommand::Delete(args) => {
            let row = found(remote, &args.point).await?;
            delete(remote, &args.point).await?;
            points::tell_deleted(&row, remote.json)
        }
        PointsCommand::Revert(args) => revert(remote, args).await,
    }
}

/// What is told of something that is not there, as where there is no appliance.
fn known<T>(error: Error, of: Option<&T>, unknown: impl FnOnce(&T) -> Error) -> Error {
    match (error.kind(), of) {
        (ErrorKind::NotFound, Some(of)) => unknown(of),
        _ => error,
    }
}

async fn found(remote: &Remote, id: &RecoveryPointId) -> Result<PointRow> {
    remote.appliance.point(id).await.map_err(|error| known(error, Some(id), points::unknown_point))
}

/// Until it is gone. What the first of several requests was not told is that a later one finds nothing.
async fn delete(remote: &Remote, id: &RecoveryPointId) -> Result<()> {
    let mut asked = 0;
    loop {
        let ask = async || {
            asked += 1;
            remote.appliance.delete_point(id, WAIT).await
        };
        match patiently(ask).await {
            Ok(true) => return Ok(()),
            Ok(false) => tokio::time::sleep(PACE).await,
            Err(error) if error.kind() == ErrorKind::NotFound && asked > 1 => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

async fn revert(remote: &Remote, args: &PointArgs) -> Result<()> {
    let signals = Signals::listen(STOPPING)?;
    let row = found(remote, &args.point).await?;
    let job = JobId::mint(SystemClock.now());
    tokio::select! {
        ended = gone_back(remote, &args.point, &job) => ended?,
        () = signals.stop().cancelled() => return Err(Error::new(ErrorKind::Cancelled, "follow", &job)),
    }
    if !remote.json {
        output::note(format_args!("{job} went back"));
    }
    points::tell_reverted(&row, remote.json)
}

/// Until the volumes hold it. An appliance that is begun anew meanwhile goes on with it.
async fn gone_back(remote: &Remote, id: &RecoveryPointId, job: &JobId) -> Result<()> {
    while !patiently(async || remote.appliance.revert_to_point(id, job, WAIT).await)
        .await?
        .status
        .is_terminal()
    {
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}
