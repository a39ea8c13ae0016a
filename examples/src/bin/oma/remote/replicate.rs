use std::collections::BTreeSet;
use std::path::Path;

use oma_api::{DiskProgressRow, NamedDisk, ProgressRow, ReplicationRequest, ReplicationRow, SourceRequest};
use oma_core::engine::{DiskProgress, Event, Progress};
use oma_core::state::{JobStatus, ReplicationType, Wanted};
use oma_core::{ByteSize, Clock as _, DiskKey, Error, ErrorKind, JobId, Result, Retry, SystemClock};

use super::Remote;
use super::patience::{Away, PACE};
use crate::args::{JOURNAL_STEP, MEMORY, ReflinkArg, ReplicateArgs};
use oma_examples::failure::{Failed, io_error};
use oma_examples::output;
use oma_examples::progress;
use oma_examples::signals::Signals;

const STOPPING: &str = "stopped following; the job goes on, and `oma cancel` ends it";

/// Asks for a replication, and follows it until it has ended.
pub(super) async fn run(remote: &Remote, args: &ReplicateArgs) -> Result<(), Failed> {
    let request = request(remote, args)?;
    let signals = Signals::listen(STOPPING)?;
    let key = JobId::mint(SystemClock.now());
    let job = remote.appliance.begin(key.as_str(), &request).await?;
    output::note(format_args!("{} begins, epoch {}", job.job_id, job.epoch));
    if args.detach {
        return Ok(tell(remote, &job)?);
    }
    let ended = tokio::select! {
        ended = follow(remote, &job) => ended?,
        () = signals.stop().cancelled() => {
            return Err(Error::new(ErrorKind::Cancelled, "follow", &job.job_id).into());
        }
    };
    tell(remote, &ended)?;
    let reported = |kind| {
        let why = ended.error.clone().unwrap_or_else(|| ended.status.to_string());
        Failed::reported(Error::new(kind, "replicate", &request.vm_path).because(why))
    };
    match ended.status {
        JobStatus::Completed => Ok(()),
        JobStatus::Cancelled => Err(reported(ErrorKind::Conflict)),
        _ => Err(reported(ErrorKind::Unavailable)),
    }
}

/// What is asked for.
///
/// # Errors
/// `Invalid` for what is a setting of the appliance.
fn request(remote: &Remote, args: &ReplicateArgs) -> Result<ReplicationRequest> {
    let settings = [
        ("--limits", args.limits.is_some()),
        ("--metrics", args.metrics.is_some()),
        ("--distrust-zeroes", args.distrust_zeroes),
        ("--reflink", args.reflink != ReflinkArg::Auto),
        ("--memory", args.memory != MEMORY),
        ("--journal-step", args.journal_step != JOURNAL_STEP),
    ];
    if let Some((name, _)) = settings.iter().find(|(_, is_given)| *is_given) {
        return Err(Error::new(ErrorKind::Invalid, "read", name).because(
            "it is for a run on a data directory; the appliance has settings of its own (docs/omad.md)",
        ));
    }
    let place = |path: &Path| if remote.is_here { absolute(path) } else { Ok(path.to_owned()) };
    let mut disks = args.disks.list();
    for disk in &mut disks {
        here(remote, disk)?;
    }
    let machine = &args.disks.machine;
    let source = SourceRequest {
        disks,
        qmp: machine.qmp.as_deref().map(place).transpose()?,
        guest_agent: machine.guest_agent.as_deref().map(place).transpose()?,
    };
    let points = args.points.keep().unwrap_or_default();
    Ok(ReplicationRequest {
        vm_path: args.disks.vm_path.clone(),
        source,
        push: None,
        rename: args.rename,
        verify: args.verify,
        trust_changes: args.trust_changes,
        provisioning: args.provisioning.into(),
        keep_points: points.last,
        keep_points_seconds: points.younger_than.map(|age| age.as_secs()),
        priority: 0,
        target: None,
    })
}

/// The path of a file means the same to an appliance of this machine, wherever it was begun.
fn here(remote: &Remote, disk: &mut NamedDisk) -> Result<()> {
    if !remote.is_here || disk.source.contains("://") {
        return Ok(());
    }
    let path = absolute(Path::new(&disk.source))?;
    disk.source = path.into_os_string().into_string().map_err(|path| {
        Error::new(ErrorKind::Invalid, "read", path.display()).because("the path is not valid UTF-8")
    })?;
    Ok(())
}

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).map_err(|error| io_error("find", path.display(), error))
}

/// Until it has ended. An appliance that is begun anew meanwhile goes on with it.
async fn follow(remote: &Remote, job: &ReplicationRow) -> Result<ReplicationRow> {
    let shown = progress::for_stderr();
    let (mut planned, mut step, mut away) = (BTreeSet::new(), None, Away::default());
    let mut waits_for = job.error.clone();
    loop {
        let looked = async {
            let progress = remote.appliance.progress(&job.job_id).await?;
            Ok::<_, Error>((progress, remote.appliance.job(&job.job_id).await?))
        };
        match looked.await {
            Ok((progress, now)) => {
                away.is_back();
                show(&*shown, &progress, now.replication_type, &mut planned, &mut step);
                if now.status.is_terminal() {
                    shown.event(Event::StepEnded("copy"));
                    return Ok(now);
                }
                if now.error != waits_for {
                    now.error
                        .iter()
                        .for_each(|error| output::note(format_args!("another attempt follows: {error}")));
                    waits_for = now.error.clone();
                }
                if now.wanted == Wanted::Pause && now.worker.is_none() {
                    let reason = format!("it rests; `oma resume {}` has it go on", now.job_id);
                    return Err(Error::new(ErrorKind::Conflict, "follow", &now.job_id).because(reason));
                }
            }
            Err(error) if error.retry() == Retry::Later && away.is_borne() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PACE).await;
    }
}

fn show(
    shown: &dyn Progress,
    row: &ProgressRow,
    mode: ReplicationType,
    planned: &mut BTreeSet<DiskKey>,
    step: &mut Option<String>,
) {
    if row.step != *step {
        let known = STEPS.iter().find(|name| row.step.as_deref() == Some(**name));
        known.into_iter().for_each(|name| shown.event(Event::StepBegins(name)));
        step.clone_from(&row.step);
    }
    for disk in &row.disks {
        let (key, progress) = (&disk.disk_key, counted(disk));
        if planned.insert(key.clone()) {
            // What of it was there before this attempt is not told.
            let begun = DiskProgress { done: ByteSize::ZERO, durable: ByteSize::ZERO, ..progress };
            shown.event(Event::Planned { disk: key, mode, note: None, progress: begun });
        }
        shown.event(Event::Copied { disk: key, progress });
    }
}

/// The steps that are told by name.
const STEPS: [&str; 9] =
    ["freeze", "provision", "publish", "plan", "copy", "verify", "withdraw", "snapshot", "commit"];

/// Durable bytes, as the routes and the metrics tell them (L25).
fn counted(row: &DiskProgressRow) -> DiskProgress {
    DiskProgress {
        total: row.total_bytes,
        done: row.durable_bytes,
        durable: row.durable_bytes,
        read: row.read_bytes,
        written: row.written_bytes,
        zero: row.zero_bytes,
        ..DiskProgress::default()
    }
}

fn tell(remote: &Remote, job: &ReplicationRow) -> Result<()> {
    if remote.json {
        return output::json(job);
    }
    let vm = job.vm_path.as_ref().map(ToString::to_string).unwrap_or_default();
    match (job.status, &job.error) {
        (JobStatus::Completed, _) => {
            output::line(format_args!("{}: epoch {} of {vm} is committed", job.job_id, job.epoch))
        }
        (status, Some(error)) => output::line(format_args!("{}: {status}: {error}", job.job_id)),
        (status, None) => output::line(format_args!("{}: {status}", job.job_id)),
    }
}
