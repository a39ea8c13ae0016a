//! The job of a VM and the point in time that it is of: found again, or begun.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use oma_api::client::Appliance;
use oma_api::{
    ChangedSince, NamedDisk, PushRequest, PushRow, PushedDisk, ReplicationRequest, ReplicationRow,
    SourceRequest,
};
use oma_core::engine::CancellationToken;
use oma_core::traits::{Changes, DiskSource, PointInTime, Provisioning};
use oma_core::{
    ChangeId, Clock as _, DiskKey, Error, ErrorKind, JobId, PointId, Result, Retry, SystemClock, VmPath,
};
use oma_examples::output;
use oma_examples::source::is_nbd;

use crate::appliances::Appliances;
use crate::args::Cli;
use crate::changes::{Changed, MOST, joined};

/// How often an appliance is asked that is not ready.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// An agent whose exports nobody has read or written for so long, nor said a word, is gone: one that copies tells twice as often what is
/// finished.
const QUIET: Duration = Duration::from_secs(30);

/// A job and its point in time.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) point: PointInTime,
    /// What changed, of those disks of which the source could tell.
    pub(crate) changed: BTreeMap<DiskKey, Changed>,
}

/// Who is asked, and what is read.
#[derive(Debug)]
pub(crate) struct Sides<'a> {
    pub(crate) appliances: Appliances,
    pub(crate) source: Arc<dyn DiskSource>,
    pub(crate) cli: &'a Cli,
    pub(crate) stop: &'a CancellationToken,
    /// Something was finished since this was looked at.
    pub(crate) moved: Arc<AtomicBool>,
}

impl Sides<'_> {
    fn vm(&self) -> &VmPath {
        &self.cli.disks.vm_path
    }

    /// Whoever of them is asked now.
    pub(crate) fn api(&self) -> &Arc<Appliance> {
        self.appliances.asked()
    }

    /// Asks again as long as nobody answers, the next one if there is one, but not for ever: what is asked answers the same a second time.
    pub(crate) async fn patiently<T, F: Future<Output = Result<T>>>(&self, ask: impl Fn() -> F) -> Result<T> {
        let begun = tokio::time::Instant::now();
        let mut told = false;
        loop {
            match ask().await {
                Err(error) if is_unanswered(&error) && begun.elapsed() < self.cli.patience => {
                    if !std::mem::replace(&mut told, true) {
                        output::note(format!("waiting: {}", error.chain()));
                    }
                    self.appliances.pass();
                }
                answered => return answered,
            }
            self.rest().await?;
        }
    }

    /// As [`Sides::patiently`] for what is only told: who does not soon is passed over.
    pub(crate) async fn look<T, F: Future<Output = Result<T>>>(&self, ask: impl Fn() -> F) -> Result<T> {
        self.patiently(|| self.appliances.soon(ask())).await
    }

    /// Waits a moment, unless this run is to end.
    pub(crate) async fn rest(&self) -> Result<()> {
        tokio::select! {
            () = self.stop.cancelled() => Err(self.stopped()),
            () = tokio::time::sleep(PAUSE) => Ok(()),
        }
    }

    pub(crate) fn stopped(&self) -> Error {
        Error::new(ErrorKind::Cancelled, "push", self.vm())
            .because("it was stopped; the same command goes on")
    }

    /// The job that is to be driven on, or a new one.
    pub(crate) async fn job(&self) -> Result<Job> {
        match self.found_or_begun().await {
            // A live job that the token did not see is seen once it was asked for.
            Err(error) if error.kind() == ErrorKind::Conflict && self.live().await?.is_some() => {
                self.found_or_begun().await
            }
            found => found,
        }
    }

    async fn live(&self) -> Result<Option<ReplicationRow>> {
        self.look(|| self.api().live(self.vm())).await
    }

    async fn found_or_begun(&self) -> Result<Job> {
        if let Some(live) = self.live().await? {
            if self.cli.disks.machine.qmp.is_some() {
                // To freeze the machine for the same job takes its point in time from who holds it.
                self.until_left_alone(&live.job_id).await?;
            }
            let row = self.patiently(|| self.appliances.push(&live.job_id)).await?;
            let point = self.freeze(&live.job_id).await?;
            if is_of(&row, &point) {
                output::note(format!("{} continues, epoch {}", row.job_id, row.epoch));
                let changed = self.changed(&point).await?;
                return Ok(Job { id: live.job_id, point, changed });
            }
            self.source.release(&point.id).await?;
            self.until_left_alone(&live.job_id).await?;
            output::note(format!("{} is of a point in time that is gone; it is cancelled", row.job_id));
            self.end(&live.job_id).await?;
        }
        self.begin().await
    }

    /// Waits until no other agent is at work on a job, or it has ended: what that one copies is not thrown away.
    async fn until_left_alone(&self, job: &JobId) -> Result<()> {
        let begun = tokio::time::Instant::now();
        let mut told = false;
        loop {
            let row = self.patiently(|| self.appliances.push(job)).await?;
            if row.status.is_terminal() || is_left_alone(&row) {
                return Ok(());
            }
            if begun.elapsed() >= self.cli.patience {
                let reason = format!(
                    "another agent is at work on {job}, or waits until it is ready; let it end, or cancel the job"
                );
                return Err(Error::new(ErrorKind::Busy, "push", self.vm()).because(reason));
            }
            if !std::mem::replace(&mut told, true) {
                output::note(format!("{job} is of another point in time; waiting until its agent is gone"));
            }
            self.rest().await?;
        }
    }

    async fn freeze(&self, job: &JobId) -> Result<PointInTime> {
        let point = self.source.freeze(self.vm(), job).await?;
        of_this_freeze(point, &self.cli.disks.list())
    }

    async fn end(&self, job: &JobId) -> Result<()> {
        match self.patiently(|| self.api().cancel(job)).await {
            // It has ended meanwhile.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            cancelled => drop(cancelled?),
        }
        while !self.look(|| self.api().job(job)).await?.status.is_terminal() {
            self.rest().await?;
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Job> {
        let id = JobId::mint(SystemClock.now());
        let point = self.freeze(&id).await?;
        let begun = async {
            let changed = self.changed(&point).await?;
            let request = self.request(&point, &changed);
            let row = self.patiently(|| self.api().begin(id.as_str(), &request)).await?;
            output::note(format!("{} begins, epoch {}", row.job_id, row.epoch));
            Ok((row, changed))
        };
        match begun.await {
            Ok((ReplicationRow { job_id: id, .. }, changed)) => Ok(Job { id, point, changed }),
            Err(error) => {
                self.source.release(&point.id).await?;
                Err(error)
            }
        }
    }

    /// What changed since the epochs that the appliance has.
    async fn changed(&self, point: &PointInTime) -> Result<BTreeMap<DiskKey, Changed>> {
        let mut found = BTreeMap::new();
        for disk in &point.disks {
            let known = self.look(|| self.api().change_id(self.vm(), &disk.key)).await?;
            let Some(since) = known.filter(|since| disk.change_id.continues(since)) else { continue };
            match self.source.changed(&point.id, &disk.key, &since).await? {
                Changes::Since(extents) => {
                    self.committed(point, &disk.key, &since).await;
                    found.insert(disk.key.clone(), Changed { since, extents });
                }
                Changes::Unknown(reason) => output::note(format!("{}: {reason}", disk.key)),
            }
        }
        Ok(found)
    }

    /// A hint: the source may keep more than it needs to.
    async fn committed(&self, point: &PointInTime, key: &DiskKey, since: &ChangeId) {
        if let Err(error) = self.source.committed(&point.id, key, since).await {
            output::note(format!("{key}: the source was not told of the committed epoch: {}", error.chain()));
        }
    }

    fn request(&self, point: &PointInTime, changed: &BTreeMap<DiskKey, Changed>) -> ReplicationRequest {
        let most = MOST / changed.len().max(1);
        let disks = point.disks.iter().map(|disk| PushedDisk {
            key: disk.key.clone(),
            capacity_bytes: disk.capacity,
            change_id: disk.change_id.clone(),
            content: Some(disk.content.clone()),
            label: None,
            changed: changed
                .get(&disk.key)
                .map(|Changed { since, extents }| ChangedSince {
                    since: since.clone(),
                    extents: joined(extents, most),
                })
                .into_iter()
                .collect(),
        });
        ReplicationRequest {
            vm_path: self.vm().clone(),
            source: SourceRequest::default(),
            push: Some(PushRequest { instance_uuid: None, endpoint: None, disks: disks.collect() }),
            rename: self.cli.rename,
            verify: oma_api::VerifyWanted::default(),
            trust_changes: oma_api::TrustWanted::default(),
            provisioning: Provisioning::Thin,
            keep_points: self.cli.keep_points,
            keep_points_seconds: None,
            priority: 0,
            target: None,
        }
    }
}

/// What an NBD export serves has no name of its own: without a change id nobody knows whether it is what another freeze saw, and nothing
/// that was finished then is believed (L08).
fn of_this_freeze(mut point: PointInTime, named: &[NamedDisk]) -> Result<PointInTime> {
    let is_nameless =
        |key: &DiskKey| named.iter().any(|disk| disk.key == *key && disk.change_id.is_none() && is_nbd(disk));
    for disk in point.disks.iter_mut().filter(|disk| is_nameless(&disk.key)) {
        disk.content = PointId::parse(format!("nbd {}", ChangeId::mint())).map_err(|error| {
            Error::new(ErrorKind::Internal, "name the content of", &disk.key).with_source(error)
        })?;
    }
    Ok(point)
}

/// Whether another one may answer, or the same later: also one that was waited for long enough.
fn is_unanswered(error: &Error) -> bool {
    error.retry() == Retry::Later
        || (error.kind() == ErrorKind::Unavailable && error.retry() == Retry::Exhausted)
}

/// Whether its agent is gone. One that is not ready may be waited for.
fn is_left_alone(job: &PushRow) -> bool {
    job.ready && job.quiet_seconds.is_none_or(|quiet| quiet >= QUIET.as_secs())
}

/// Whether a job is of this point in time: of the same content, whatever it was marked with.
fn is_of(job: &PushRow, point: &PointInTime) -> bool {
    job.disks.len() == point.disks.len()
        && point.disks.iter().all(|disk| {
            let same = |row: &oma_api::PushDiskRow| {
                row.disk_id == disk.key && row.content == disk.content && row.capacity_bytes == disk.capacity
            };
            job.disks.iter().any(same)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::ByteSize;
    use oma_core::traits::PointDisk;

    #[test]
    fn l09_a_job_whose_agent_is_at_work_or_waits_is_left_alone() {
        let row = |ready: bool, quiet: Option<u64>| PushRow {
            job_id: JobId::mint(SystemClock.now()),
            status: oma_core::state::JobStatus::Replicating,
            epoch: oma_core::Epoch(1),
            ready,
            fence: ready.then_some(1),
            quiet_seconds: quiet,
            error: None,
            disks: Vec::new(),
        };
        let gone = [(false, None), (true, Some(0)), (true, Some(29)), (true, Some(30)), (true, Some(900))]
            .map(|(ready, quiet)| is_left_alone(&row(ready, quiet)));
        assert_eq!(gone, [false, false, false, true, true]);
    }

    #[test]
    fn one_that_was_waited_for_long_enough_is_passed_over() {
        let error = |kind, retry| Error::new(kind, "ask", "the appliance").with_retry(retry);
        assert!(is_unanswered(&error(ErrorKind::Unavailable, Retry::Exhausted)));
        assert!(is_unanswered(&error(ErrorKind::Busy, Retry::Later)));
        assert!(!is_unanswered(&error(ErrorKind::Unavailable, Retry::Never)));
        assert!(!is_unanswered(&error(ErrorKind::Conflict, Retry::Never)));
    }

    #[test]
    fn l08_an_nbd_export_without_a_change_id_is_of_its_freeze_only() {
        let disk = |key: &str| PointDisk {
            key: DiskKey::parse(key).unwrap(),
            capacity: ByteSize::mib(1),
            change_id: ChangeId::mint(),
            content: PointId::parse("as it was described").unwrap(),
        };
        let keys = ["disk-2000", "disk-2001", "disk-2002", "disk-2003"];
        let point = PointInTime { id: PointId::parse("p").unwrap(), disks: keys.map(disk).into() };
        let named: Vec<NamedDisk> = [
            "disk-2000=nbd://h/web",
            "disk-2001=nbd+unix:///web?socket=/s,bitmap=b0",
            "disk-2002=nbd://h/web,change-id=b0@7",
            "disk-2003=/dev/vg0/web",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        let (one, other) = [(), ()].map(|()| of_this_freeze(point.clone(), &named).unwrap().disks).into();
        let is_kept = |at: usize| (one[at].content == other[at].content, one[at] == point.disks[at]);
        assert_eq!([0, 1, 2, 3].map(is_kept), [(false, false), (false, false), (true, true), (true, true)]);
    }
}
