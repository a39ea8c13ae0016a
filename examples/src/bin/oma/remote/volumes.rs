use std::path::Path;
use std::time::Duration;

use oma_api::client::VolumeWanted;
use oma_api::{CallOff, OperationRow, VolumeRow, WhenAttached};
use oma_core::state::OperationStatus;
use oma_core::{Error, ErrorKind, OperationId, Result, VolumeId};

use super::Remote;
use super::advised::advised;
use super::patience::{PACE, patiently};
use crate::args::{AbandonArgs, ChangeArgs, DeleteArgs, ListArgs, VolumesArgs, VolumesCommand};
use crate::command::volumes::{
    Deleter, keep_plan, no_vm, no_volume, not_condemned, print_operations, print_volumes, read_plan,
    tell_abandoned, tell_change, tell_comparison, tell_pardon, tell_repaired,
};
use oma_examples::failure::Failed;
use oma_examples::output;
use oma_examples::signals::Signals;

const STOPPING: &str =
    "stopped waiting; if it was asked for, it goes on, and `oma volumes operations` lists it";
/// How long one request waits.
const WAIT: Duration = Duration::from_secs(10);

/// Lists volumes and operations, or has a single volume changed.
pub(super) async fn run(remote: &Remote, args: &VolumesArgs) -> Result<(), Failed> {
    let done = match &args.command {
        VolumesCommand::Compare(args) => return compare(remote, args.plan.as_deref()).await,
        VolumesCommand::Repair(args) => return repair(remote, &args.plan).await,
        VolumesCommand::List(args) => list(remote, args).await,
        VolumesCommand::Operations(args) => {
            let rows = remote.appliance.operations(args.volume.as_ref()).await;
            rows.and_then(|rows| print_operations(&rows, remote.json))
        }
        VolumesCommand::Attach(args) => change(remote, args, VolumeWanted::Attached).await,
        VolumesCommand::Detach(args) => change(remote, args, VolumeWanted::Detached).await,
        VolumesCommand::Resize(args) => change(remote, &args.change, VolumeWanted::Resized(args.size)).await,
        VolumesCommand::Delete(args) => delete(remote, args).await,
        VolumesCommand::Pardon(args) => pardon(remote, &args.volume).await,
        VolumesCommand::Recover => Err(needless()),
        VolumesCommand::Abandon(args) => abandon(remote, args).await,
    };
    Ok(done?)
}

async fn list(remote: &Remote, args: &ListArgs) -> Result<()> {
    let mut rows = remote.appliance.volumes().await?;
    if let Some(path) = &args.vm_path {
        rows.retain(|row| row.vm_path.as_ref() == Some(path));
        if rows.is_empty() && !remote.appliance.vms().await?.iter().any(|vm| vm.path == *path) {
            return Err(no_vm(path));
        }
    }
    print_volumes(&rows, remote.json)
}

async fn known(remote: &Remote, id: &VolumeId) -> Result<VolumeRow> {
    match remote.appliance.volume(id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(no_volume(id)),
        found => found,
    }
}

/// Asks for a change and waits until it is known what became of it.
async fn change(remote: &Remote, args: &ChangeArgs, wanted: VolumeWanted) -> Result<()> {
    // An appliance that was not there to begin with is not waited for.
    match known(remote, &args.volume).await {
        // What was asked for by a key is told when its volume is gone, too.
        Err(error) if error.kind() == ErrorKind::NotFound && args.id.is_some() => {}
        found => drop(found?),
    }
    let key = args.id.clone().unwrap_or_else(OperationId::mint);
    let signals = Signals::listen(STOPPING)?;
    let row = tokio::select! {
        row = ended(remote, &key, &args.volume, wanted) => row?,
        () = signals.stop().cancelled() => {
            return Err(Error::new(ErrorKind::Cancelled, "wait for", &key).because(again(&key)));
        }
    };
    tell_change(&row, Deleter::Appliance, remote.json)
}

/// What to do when it is not known what became of an operation.
fn again(key: &OperationId) -> String {
    format!("`--id {key}` asks for the same again")
}

async fn ended(
    remote: &Remote,
    key: &OperationId,
    volume: &VolumeId,
    wanted: VolumeWanted,
) -> Result<OperationRow> {
    let mut row = asked_for(remote, key, volume, wanted).await?;
    let mut doubt = None;
    while row.status == OperationStatus::Executing {
        if row.error != doubt {
            doubt.clone_from(&row.error);
            let why = doubt.as_deref().unwrap_or_default();
            output::note(format_args!(
                "{key}: the appliance asks the volumes again what became of it: {why}"
            ));
        }
        tokio::time::sleep(PACE).await;
        row = patiently(async || remote.appliance.operation(key, WAIT).await)
            .await
            .map_err(|error| advised(&error, again(key)))?;
    }
    Ok(row)
}

async fn asked_for(
    remote: &Remote,
    key: &OperationId,
    volume: &VolumeId,
    wanted: VolumeWanted,
) -> Result<OperationRow> {
    let mut asked = 0;
    let ask = async || {
        asked += 1;
        remote.appliance.change_volume(key, volume, wanted, WAIT).await
    };
    match patiently(ask).await {
        // Refused at once: nothing was begun.
        Err(error) if asked == 1 && error.kind() == ErrorKind::NotFound => Err(no_volume(volume)),
        Err(error) if asked == 1 && error.kind() != ErrorKind::Unavailable => Err(error),
        answered => answered.map_err(|error| advised(&error, again(key))),
    }
}

/// As on a data directory, what is attached is not deleted.
async fn delete(remote: &Remote, args: &DeleteArgs) -> Result<()> {
    if args.grace.is_some() {
        return Err(Error::new(ErrorKind::Invalid, "read", "--grace").because(
            "it is for a run on a data directory; the appliance has a setting for it, `volumes.grace` (docs/omad.md)",
        ));
    }
    change(remote, &args.change, VolumeWanted::Deleted(WhenAttached::Refuse)).await
}

async fn pardon(remote: &Remote, volume: &VolumeId) -> Result<()> {
    known(remote, volume).await?;
    let has_ended =
        |row: &OperationRow| !matches!(row.status, OperationStatus::Pending | OperationStatus::Executing);
    let operations = remote.appliance.operations(Some(volume)).await?;
    let delete = operations.into_iter().find(|row| !has_ended(row)).ok_or_else(|| not_condemned(volume))?;
    let why = CallOff::default();
    let row = patiently(async || remote.appliance.pardon(&delete.operation_id, &why).await).await?;
    tell_pardon(&row, remote.json)
}

fn needless() -> Error {
    Error::new(ErrorKind::Unsupported, "ask the appliance for", "oma volumes recover").because(
        "it finishes what was left and deletes what is due by itself; `oma volumes operations` lists what has not ended",
    )
}

async fn abandon(remote: &Remote, args: &AbandonArgs) -> Result<()> {
    let why = CallOff { reason: Some(args.reason.clone()) };
    tell_abandoned(&remote.appliance.abandon(&args.operation, &why).await?, remote.json)
}

async fn compare(remote: &Remote, plan: Option<&Path>) -> Result<(), Failed> {
    let compared = remote.appliance.compare().await?;
    if let Some(path) = plan {
        keep_plan(path, &compared.plan)?;
    }
    tell_comparison(&compared.found, remote.json)
}

async fn repair(remote: &Remote, path: &Path) -> Result<(), Failed> {
    let plan = read_plan(path)?;
    tell_repaired(&remote.appliance.repair(&plan).await?, remote.json)
}
