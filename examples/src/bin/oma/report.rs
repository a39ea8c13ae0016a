//! What a run did: as JSON, and as a table.

use oma_api::{DiskReport, Explanation, Outcome, ReplicationReport};
use oma_core::engine::{self, Report, Stage, StageTimes};
use oma_core::state::ReplicationType;
use oma_core::{ByteSize, Error, VmPath};

use crate::table::{Align, Table};

/// The wire type of a run.
pub(crate) fn replication(vm: &VmPath, report: &Report) -> ReplicationReport {
    let (status, error) = match &report.outcome {
        engine::Outcome::Completed => (Outcome::Completed, None),
        engine::Outcome::Failed(error) | engine::Outcome::Deferred(error) => {
            (Outcome::Failed, Some(error.chain()))
        }
        engine::Outcome::Suspended => (Outcome::Suspended, Some(SUSPENDED.to_owned())),
    };
    ReplicationReport {
        job_id: report.job.clone(),
        vm_path: vm.clone(),
        status,
        epoch: report.epoch,
        replication_type: report.replication_type,
        seconds: report.duration.as_secs_f64(),
        error,
        warnings: report.warnings.clone(),
        recovery_point: report.recovery_point.clone(),
        disks: report.disks.iter().map(disk).collect(),
    }
}

/// Why a suspended run has no epoch, and what to do.
pub(crate) const SUSPENDED: &str = "the run was stopped; the same command continues it";

fn disk(report: &engine::DiskReport) -> DiskReport {
    DiskReport {
        disk_key: report.key.clone(),
        volume_id: report.volume.clone(),
        mode: report.mode,
        capacity_bytes: report.capacity,
        bytes_read: report.bytes_read,
        bytes_written: report.bytes_written,
        bytes_shared: report.bytes_shared,
        bytes_zero: report.bytes_zero,
        bytes_skipped: report.bytes_skipped,
        bytes_unchanged: report.bytes_unchanged,
        bytes_resumed: report.bytes_resumed,
        bytes_recopied: report.bytes_recopied,
        bytes_equal: report.bytes_equal,
        bytes_hashed: report.bytes_hashed,
        bytes_verified: report.bytes_verified,
        bytes_promised_zero: report.bytes_promised_zero,
        change_id: report.change_id.clone(),
        seconds: report.duration.as_secs_f64(),
        explanation: explanation(&report.stages),
        error: report.error.clone(),
    }
}

/// Where the time of a run went.
pub(crate) fn explanation(stages: &StageTimes) -> Explanation {
    let seconds = |stage: Stage| (stage.to_string(), stages.of(stage).as_secs_f64());
    Explanation {
        bottleneck: stages.bottleneck().map(|stage| stage.to_string()),
        stage_seconds: Stage::ALL.into_iter().map(seconds).collect(),
    }
}

/// One row a disk and run. Of a run that failed, only disks of which something was done.
pub(crate) fn table<'a>(reports: impl IntoIterator<Item = &'a ReplicationReport>) -> Table {
    let mut table = Table::new(&[
        ("epoch", Align::Right),
        ("disk", Align::Left),
        ("copy", Align::Left),
        ("read", Align::Right),
        ("skipped", Align::Right),
        ("written", Align::Right),
        ("shared", Align::Right),
        ("zero", Align::Right),
        ("resumed", Align::Right),
        ("equal", Align::Right),
        ("hashed", Align::Right),
        ("verified", Align::Right),
        ("seconds", Align::Right),
        ("GiB/s", Align::Right),
        ("change id", Align::Left),
    ]);
    for report in reports {
        let all = report.status == Outcome::Completed;
        for disk in report.disks.iter().filter(|disk| all || has_moved(disk)) {
            table.row([
                report.epoch.to_string(),
                disk.disk_key.to_string(),
                mode(disk.mode).to_owned(),
                disk.bytes_read.to_string(),
                disk.bytes_skipped.to_string(),
                disk.bytes_written.to_string(),
                disk.bytes_shared.to_string(),
                disk.bytes_zero.to_string(),
                disk.bytes_resumed.to_string(),
                disk.bytes_equal.to_string(),
                disk.bytes_hashed.to_string(),
                disk.bytes_verified.map(|bytes| bytes.to_string()).unwrap_or_default(),
                format!("{:.2}", disk.seconds),
                rate(disk.bytes_read, disk.seconds),
                disk.change_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            ]);
        }
    }
    table
}

fn has_moved(disk: &DiskReport) -> bool {
    let moved = [disk.bytes_read, disk.bytes_written, disk.bytes_shared, disk.bytes_zero, disk.bytes_resumed];
    let compared = [disk.bytes_equal, disk.bytes_hashed];
    moved.iter().chain(&compared).any(|bytes| *bytes > ByteSize::ZERO) || disk.bytes_verified.is_some()
}

const fn mode(mode: ReplicationType) -> &'static str {
    match mode {
        ReplicationType::Initial => "full",
        ReplicationType::Incremental => "changes",
    }
}

/// GiB per second with two digits, of what was read.
fn rate(bytes: ByteSize, seconds: f64) -> String {
    // KiB fit 32 bits up to 4 TiB of one run; beyond, the rate is a lower bound.
    let kib = u32::try_from(bytes.bytes() >> 10).unwrap_or(u32::MAX);
    let rate = f64::from(kib) / 1_048_576.0 / seconds;
    if rate.is_finite() { format!("{rate:.2}") } else { String::new() }
}

/// The error of a run that has no epoch.
pub(crate) fn error(report: Report) -> Option<Error> {
    match report.outcome {
        engine::Outcome::Completed => None,
        engine::Outcome::Failed(error) | engine::Outcome::Deferred(error) => Some(error),
        engine::Outcome::Suspended => {
            Some(Error::new(oma_core::ErrorKind::Cancelled, "drive", report.job).because(SUSPENDED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::{DiskKey, Epoch, JobId};

    #[test]
    fn a_disk_of_a_failed_run_has_a_row_when_it_was_only_compared() {
        let disk = |bytes_hashed| DiskReport {
            disk_key: DiskKey::parse("disk-2000").unwrap(),
            volume_id: None,
            mode: ReplicationType::Initial,
            capacity_bytes: ByteSize::mib(1),
            bytes_read: ByteSize::ZERO,
            bytes_written: ByteSize::ZERO,
            bytes_shared: ByteSize::ZERO,
            bytes_zero: ByteSize::ZERO,
            bytes_skipped: ByteSize::ZERO,
            bytes_unchanged: ByteSize::ZERO,
            bytes_resumed: ByteSize::ZERO,
            bytes_recopied: ByteSize::ZERO,
            bytes_equal: ByteSize::ZERO,
            bytes_hashed,
            bytes_verified: None,
            bytes_promised_zero: None,
            change_id: None,
            seconds: 0.0,
            explanation: Explanation::default(),
            error: None,
        };
        let report = |disk| ReplicationReport {
            job_id: JobId::parse("job-1").unwrap(),
            vm_path: VmPath::parse("/DC/vm/web01").unwrap(),
            status: Outcome::Failed,
            epoch: Epoch(2),
            replication_type: ReplicationType::Initial,
            seconds: 0.0,
            error: None,
            warnings: Vec::new(),
            recovery_point: None,
            disks: vec![disk],
        };
        assert!(table([&report(disk(ByteSize::ZERO))]).is_empty());
        assert!(!table([&report(disk(ByteSize::kib(64)))]).is_empty());
    }
}
