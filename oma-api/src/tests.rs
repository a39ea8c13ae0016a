//! Golden JSON: scripts depend on these names and forms.

use std::fmt::Debug;

use oma_core::record::{
    DiskRecord, ReplicationJob, SourceIdentity, VerificationReport, VerificationScope, VmContext,
    VolumeContent, VolumeRecord,
};
use oma_core::seal::PublicKey;
use oma_core::state::{
    ContextStatus, DiskStatus, JobKind, JobStatus, PointStatus, ReplicationType, VolumeStatus,
};
use oma_core::{
    ByteSize, ChangeId, ContextId, DiskKey, DiskRef, Endpoint, Epoch, Error, ErrorKind, Extent, Fence,
    Generation, InstanceId, InstanceUuid, JobId, RecoveryPointId, SnapshotId, Timestamp, VmPath, VolumeId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::*;

const TIME: Timestamp = Timestamp::from_millis(1_755_770_000_007);

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &Value) {
    assert_eq!(serde_json::to_value(value).unwrap(), *expected);
    assert_eq!(serde_json::from_value::<T>(expected.clone()).unwrap(), *value);
}

fn vm() -> VmContext {
    let identity = SourceIdentity {
        instance_uuid: InstanceUuid::parse("u1").unwrap(),
        endpoint: Endpoint::parse("direct").unwrap(),
    };
    VmContext {
        id: ContextId::parse("ctx-1").unwrap(),
        identity,
        name: "web01".to_owned(),
        path: VmPath::parse("/DC/vm/web01").unwrap(),
        status: ContextStatus::ReadyForFailover,
        epoch: Epoch(2),
        current_job: None,
        created_at: TIME,
        updated_at: TIME,
    }
}

fn disk_ref() -> DiskRef {
    DiskRef { context: ContextId::parse("ctx-1").unwrap(), key: DiskKey::parse("disk-2000").unwrap() }
}

fn disk() -> DiskRecord {
    DiskRecord {
        disk: disk_ref(),
        job: Some(JobId::parse("job-1").unwrap()),
        label: "disk-2000".to_owned(),
        location: "/srv/web01.raw".to_owned(),
        capacity: ByteSize::mib(1),
        unit_number: None,
        volume: Some(VolumeId::parse("vol-1").unwrap()),
        change_id: Some(ChangeId::parse("b1").unwrap()),
        epoch: Epoch(2),
        zeroes_broken: false,
        status: DiskStatus::Completed,
        bytes_synced: ByteSize::mib(1),
        updated_at: TIME,
    }
}

fn volume() -> VolumeRecord {
    VolumeRecord {
        id: VolumeId::parse("vol-1").unwrap(),
        name: "web01-disk-2000".to_owned(),
        disk: disk_ref(),
        capacity: ByteSize::mib(1),
        generation: Generation(1),
        content: VolumeContent::Epoch(Epoch(2)),
        held_epoch: true,
        stamp: None,
        status: VolumeStatus::Attached,
        device_path: Some("/data/volumes/vol-1.raw".to_owned()),
        attached_to: None,
        updated_at: TIME,
    }
}

#[test]
fn a_disk_row_has_the_columns_of_the_database() {
    let expected = json!({
        "vm_path": "/DC/vm/web01", "disk_key": "disk-2000", "source": "/srv/web01.raw",
        "capacity_bytes": 1_048_576, "volume_path": "/data/volumes/vol-1.raw", "volume_id": "vol-1",
        "consistent": true, "change_id": "b1", "epoch": 2, "generation": 1, "sync_status": "completed",
        "bytes_synced": 1_048_576, "job_id": "job-1", "updated_at": "2025-08-21T09:53:20.007Z",
    });
    golden(&DiskRow::new(&vm(), &disk(), Some(&volume())), &expected);
}

#[test]
fn what_is_not_known_of_a_disk_is_null() {
    let disk = DiskRecord { job: None, volume: None, change_id: None, ..disk() };
    let row = serde_json::to_value(DiskRow::new(&vm(), &disk, None)).unwrap();
    for name in ["volume_path", "volume_id", "change_id", "generation", "job_id"] {
        assert_eq!(row[name], Value::Null, "{name}");
    }
    assert_eq!(row["consistent"], json!(false));
}

#[test]
fn a_volume_in_mid_epoch_is_not_consistent() {
    let volume = VolumeRecord { content: VolumeContent::Inconsistent, ..volume() };
    assert!(!DiskRow::new(&vm(), &disk(), Some(&volume)).consistent);
}

#[test]
fn a_job_row_names_its_vm_and_its_disks() {
    let job = ReplicationJob {
        id: JobId::parse("job-1").unwrap(),
        context: ContextId::parse("ctx-1").unwrap(),
        kind: JobKind::Replicate,
        replication_type: ReplicationType::Initial,
        status: JobStatus::Failed,
        epoch: Epoch(1),
        disks: vec![DiskKey::parse("disk-2000").unwrap()],
        priority: 0,
        target: None,
        request: None,
        wanted: oma_core::state::Wanted::Run,
        error: Some("read disk: unavailable".to_owned()),
        attempts: 0,
        due_at: None,
        fence: Fence(3),
        owner: None,
        created_at: TIME,
        updated_at: TIME,
        completed_at: Some(TIME),
    };
    let expected = json!({
        "job_id": "job-1", "vm_path": "/DC/vm/web01", "kind": "replicate", "replication_type": "initial", "status": "failed",
        "epoch": 1, "disks": ["disk-2000"], "error": "read disk: unavailable",
        "created_at": "2025-08-21T09:53:20.007Z", "updated_at": "2025-08-21T09:53:20.007Z",
        "completed_at": "2025-08-21T09:53:20.007Z",
    });
    golden(&JobRow::new(Some(&vm()), &job), &expected);
    let mut older = expected;
    older.as_object_mut().unwrap().remove("kind");
    let row: JobRow = serde_json::from_value(older).unwrap();
    assert_eq!(row.kind, JobKind::Replicate);
}

#[test]
fn a_change_id_row_keeps_the_change_id_to_the_letter() {
    let id = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446";
    let disk = DiskRecord { change_id: Some(ChangeId::parse(id).unwrap()), ..disk() };
    let expected = json!({ "vm_path": "/DC/vm/web01", "disk_key": "disk-2000", "change_id": id, "epoch": 2 });
    golden(&ChangeIdRow::new(&vm(), &disk), &expected);
}

fn explanation() -> Explanation {
    let seconds = [("read", 1.5), ("write", 0.25)].map(|(stage, seconds)| (stage.to_owned(), seconds));
    Explanation { bottleneck: Some("read".to_owned()), stage_seconds: seconds.into() }
}

#[test]
fn a_copy_report_says_where_the_time_went() {
    let report = CopyReport {
        source: "/srv/a.raw".to_owned(),
        target: "nbd://host/a".to_owned(),
        bytes_total: ByteSize::mib(1),
        bytes_resumed: ByteSize::kib(4),
        bytes_recopied: ByteSize::kib(2),
        bytes_read: ByteSize::kib(512),
        bytes_written: ByteSize::kib(256),
        bytes_shared: ByteSize::ZERO,
        bytes_zero: ByteSize::kib(768),
        bytes_equal: ByteSize::kib(8),
        bytes_verified: ByteSize::mib(1),
        seconds: 0.5,
        explanation: explanation(),
    };
    let expected = json!({
        "source": "/srv/a.raw", "target": "nbd://host/a", "bytes_total": 1_048_576, "bytes_resumed": 4096, "bytes_recopied": 2048, "bytes_read": 524_288,
        "bytes_written": 262_144, "bytes_shared": 0, "bytes_zero": 786_432, "bytes_equal": 8192, "bytes_verified": 1_048_576, "seconds": 0.5,
        "explanation": { "bottleneck": "read", "stage_seconds": { "read": 1.5, "write": 0.25 } },
    });
    golden(&report, &expected);
}

#[test]
fn a_forecast_has_a_spread_for_each_number() {
    let seconds = Spread { p10: 0.5, p50: 1.0, p90: 2.5 };
    let report = ForecastReport {
        vm_path: VmPath::parse("/DC/vm/web01").unwrap(),
        epochs: 3,
        change_bytes_per_second: seconds,
        next_bytes: Spread { p10: ByteSize::kib(1), p50: ByteSize::kib(2), p90: ByteSize::kib(3) },
        next_seconds: seconds,
        cutover_seconds: seconds,
    };
    let seconds = json!({ "p10": 0.5, "p50": 1.0, "p90": 2.5 });
    let expected = json!({
        "vm_path": "/DC/vm/web01", "epochs": 3, "change_bytes_per_second": seconds,
        "next_bytes": { "p10": 1024, "p50": 2048, "p90": 3072 }, "next_seconds": seconds, "cutover_seconds": seconds,
    });
    golden(&report, &expected);
    let metrics = report.metrics();
    for line in [
        "oma_forecast_epochs{vm=\"/DC/vm/web01\"} 3",
        "oma_forecast_change_bytes_per_second{vm=\"/DC/vm/web01\",quantile=\"0.1\"} 0.5",
        "oma_forecast_next_bytes{vm=\"/DC/vm/web01\",quantile=\"0.5\"} 2048",
        "# TYPE oma_forecast_next_seconds gauge",
        "oma_forecast_next_seconds{vm=\"/DC/vm/web01\",quantile=\"0.9\"} 2.5",
        "oma_forecast_cutover_seconds{vm=\"/DC/vm/web01\",quantile=\"0.9\"} 2.5",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
}

#[test]
fn a_recovery_point_names_the_snapshot_of_each_disk() {
    let row = PointRow {
        point_id: RecoveryPointId::parse("point-1").unwrap(),
        vm_path: Some(VmPath::parse("/DC/vm/web01").unwrap()),
        job_id: JobId::parse("job-1").unwrap(),
        epoch: Epoch(2),
        status: PointStatus::Ready,
        reason: None,
        created_at: "2026-01-02T03:04:05.678Z".to_owned(),
        disks: vec![PointDisk {
            disk_key: DiskKey::parse("disk-2000").unwrap(),
            volume_id: VolumeId::parse("vol-1").unwrap(),
            snapshot_id: SnapshotId::parse("snap-job-1-0").unwrap(),
            change_id: ChangeId::parse("b1").unwrap(),
        }],
    };
    let expected = json!({
        "point_id": "point-1", "vm_path": "/DC/vm/web01", "job_id": "job-1", "epoch": 2, "status": "ready", "reason": null,
        "created_at": "2026-01-02T03:04:05.678Z",
        "disks": [{ "disk_key": "disk-2000", "volume_id": "vol-1", "snapshot_id": "snap-job-1-0", "change_id": "b1" }],
    });
    golden(&row, &expected);
}

#[test]
fn a_replication_report_has_one_entry_per_disk() {
    let disk = DiskReport {
        disk_key: DiskKey::parse("disk-2000").unwrap(),
        volume_id: Some(VolumeId::parse("vol-1").unwrap()),
        mode: ReplicationType::Incremental,
        capacity_bytes: ByteSize::mib(1),
        bytes_read: ByteSize::kib(128),
        bytes_written: ByteSize::kib(64),
        bytes_shared: ByteSize::ZERO,
        bytes_zero: ByteSize::kib(64),
        bytes_skipped: ByteSize::kib(896),
        bytes_unchanged: ByteSize::kib(512),
        bytes_resumed: ByteSize::kib(256),
        bytes_equal: ByteSize::kib(32),
        bytes_recopied: ByteSize::kib(64),
        bytes_hashed: ByteSize::kib(96),
        bytes_verified: Some(ByteSize::kib(128)),
        bytes_promised_zero: Some(ByteSize::kib(64)),
        change_id: Some(ChangeId::parse("b1").unwrap()),
        seconds: 0.25,
        explanation: explanation(),
        error: None,
    };
    let report = ReplicationReport {
        job_id: JobId::parse("job-1").unwrap(),
        vm_path: VmPath::parse("/DC/vm/web01").unwrap(),
        status: Outcome::Completed,
        epoch: Epoch(2),
        replication_type: ReplicationType::Incremental,
        seconds: 0.5,
        error: None,
        recovery_point: Some(RecoveryPointId::parse("point-1").unwrap()),
        warnings: Vec::new(),
        disks: vec![disk],
    };
    let expected = json!({
        "job_id": "job-1", "vm_path": "/DC/vm/web01", "status": "completed", "epoch": 2,
        "replication_type": "incremental", "seconds": 0.5, "error": null, "recovery_point": "point-1", "warnings": [],
        "disks": [{
            "disk_key": "disk-2000", "volume_id": "vol-1", "mode": "incremental", "capacity_bytes": 1_048_576,
            "bytes_read": 131_072, "bytes_written": 65_536, "bytes_shared": 0, "bytes_zero": 65_536, "bytes_skipped": 917_504, "bytes_unchanged": 524_288,
            "bytes_resumed": 262_144, "bytes_equal": 32_768, "bytes_recopied": 65_536, "bytes_hashed": 98_304, "bytes_verified": 131_072,
            "bytes_promised_zero": 65_536, "change_id": "b1", "seconds": 0.25,
            "explanation": { "bottleneck": "read", "stage_seconds": { "read": 1.5, "write": 0.25 } }, "error": null,
        }],
    });
    let metrics = report.metrics();
    for line in [
        "oma_replication_running{vm=\"/DC/vm/web01\"} 0",
        "oma_replication_committed{vm=\"/DC/vm/web01\"} 1",
        "oma_replication_disk_bytes{vm=\"/DC/vm/web01\",disk=\"disk-2000\",kind=\"read\"} 131072",
        "oma_replication_disk_bytes{vm=\"/DC/vm/web01\",disk=\"disk-2000\",kind=\"unchanged\"} 524288",
        "oma_replication_disk_bytes{vm=\"/DC/vm/web01\",disk=\"disk-2000\",kind=\"hashed\"} 98304",
        "oma_replication_disk_bytes{vm=\"/DC/vm/web01\",disk=\"disk-2000\",kind=\"promised_zero\"} 65536",
        "oma_replication_disk_stage_seconds{vm=\"/DC/vm/web01\",disk=\"disk-2000\",stage=\"read\"} 1.5",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    golden(&report, &expected);
}

#[test]
fn a_run_that_goes_on_tells_how_far_it_is_beside_what_the_last_one_told() {
    let disk = RunningDisk {
        bytes_total: ByteSize::kib(8),
        bytes_done: ByteSize::kib(4),
        bytes_durable: ByteSize::kib(2),
        bytes_read: ByteSize::kib(3),
        bytes_written: ByteSize::kib(1),
        bytes_to_compare: ByteSize::kib(16),
        bytes_compared: ByteSize::kib(5),
    };
    let report = RunningReport {
        vm_path: VmPath::parse("/DC/vm/web01").unwrap(),
        seconds: 1.5,
        disks: [(DiskKey::parse("disk-2000").unwrap(), disk)].into(),
    };
    let expected = json!({
        "vm_path": "/DC/vm/web01", "seconds": 1.5,
        "disks": { "disk-2000": {
            "bytes_total": 8192, "bytes_done": 4096, "bytes_durable": 2048, "bytes_read": 3072, "bytes_written": 1024,
            "bytes_to_compare": 16_384, "bytes_compared": 5120,
        } },
    });
    golden(&report, &expected);
    let last = "# HELP oma_replication_epoch The epoch\noma_replication_epoch{vm=\"/DC/vm/web01\"} 2\n";
    let first = report.metrics(last);
    assert!(first.ends_with(last), "{first}");
    for line in [
        "oma_replication_running{vm=\"/DC/vm/web01\"} 1",
        "oma_replication_progress_seconds{vm=\"/DC/vm/web01\"} 1.5",
        "oma_replication_progress_bytes{vm=\"/DC/vm/web01\",disk=\"disk-2000\",kind=\"done\"} 4096",
        "oma_replication_progress_bytes{vm=\"/DC/vm/web01\",disk=\"disk-2000\",kind=\"compared\"} 5120",
    ] {
        assert!(first.lines().any(|found| found == line), "{line} is not in {first}");
    }
    assert_eq!(report.metrics(&first), first, "what was told of this run is told once");
}

#[test]
fn a_run_that_ended_without_a_report_committed_nothing() {
    let report = RunningReport { vm_path: vm().path, seconds: 1.5, disks: [].into() };
    let last = "# HELP oma_replication_epoch The epoch\noma_replication_epoch{vm=\"/DC/vm/web01\"} 2\n";
    let committed = "oma_replication_committed{vm=\"/DC/vm/web01\"}";
    let before = format!("# HELP oma_replication_committed Whether\n{committed} 1\n{last}");
    let failed = report.failed_metrics(&report.metrics(&before));
    let lines = |of: &str| failed.lines().filter(|line| line.starts_with(of)).collect::<Vec<_>>();
    assert_eq!(lines("oma_replication_running{"), ["oma_replication_running{vm=\"/DC/vm/web01\"} 0"]);
    assert_eq!(lines(committed), [format!("{committed} 0")]);
    assert!(failed.ends_with(last) && !failed.contains("_progress_"), "{failed}");
    assert_eq!(failed.lines().count(), 8, "{failed}");
    assert!(report.failed_metrics("").starts_with("# HELP oma_"));
}

#[test]
fn a_verify_report_names_each_extent_that_differs() {
    let report = VerifyReport {
        vm_path: VmPath::parse("/DC/vm/web01").unwrap(),
        status: VerifyStatus::Differs,
        seconds: 0.5,
        error: Some("replicate again".to_owned()),
        disks: vec![DiskComparison {
            disk_key: DiskKey::parse("disk-2000").unwrap(),
            status: VerifyStatus::Differs,
            bytes_verified: ByteSize::mib(1),
            bytes_promised_zero: ByteSize::kib(64),
            bytes_different: ByteSize::kib(8),
            differences: vec![Extent::new(4096, 8192).unwrap()],
        }],
    };
    let expected = json!({
        "vm_path": "/DC/vm/web01", "status": "differs", "seconds": 0.5, "error": "replicate again",
        "disks": [{
            "disk_key": "disk-2000", "status": "differs", "bytes_verified": 1_048_576, "bytes_promised_zero": 65_536, "bytes_different": 8192,
            "differences": [[4096, 8192]],
        }],
    });
    golden(&report, &expected);
}

#[test]
fn a_key_is_told_as_hexadecimal_digits() {
    let public_key = PublicKey([0xa5; 32]);
    golden(&KeyRow { public_key }, &json!({ "public_key": "a5".repeat(32) }));
}

#[test]
fn a_checked_report_is_told_with_the_files_that_have_its_roots() {
    let report = VerificationReport {
        version: 1,
        job: None,
        context: ContextId::parse("ctx").unwrap(),
        vm: VmPath::parse("/DC/vm/web01").unwrap(),
        epoch: None,
        scope: VerificationScope::Changed,
        leaf_bytes: 65_536,
        begun: Timestamp::from_millis(1),
        ended: Timestamp::from_millis(2),
        disks: Vec::new(),
    };
    let check = ReportCheck {
        status: VerifyStatus::Identical,
        public_key: PublicKey([1; 32]),
        files: vec!["a.raw".into()],
        report,
    };
    let expected = json!({
        "status": "identical", "public_key": "01".repeat(32), "files": ["a.raw"],
        "report": {
            "version": 1, "job": null, "context": "ctx", "vm": "/DC/vm/web01", "epoch": null,
            "scope": { "level": "changed" }, "leaf_bytes": 65_536, "begun": 1, "ended": 2, "disks": [],
        },
    });
    golden(&check, &expected);
}

#[test]
fn a_database_is_named_without_a_password_and_its_rows_by_table() {
    let instance = InstanceId::parse("1b4e28ba-2fa1-11d2-883f-0016d3cca427").unwrap();
    let row =
        DatabaseRow { database: "mysql://oma@db/oma".to_owned(), schema: Some(1), needed: 2, instance: None };
    golden(&row, &json!({ "database": "mysql://oma@db/oma", "schema": 1, "needed": 2, "instance": null }));
    let finding = FindingRow {
        rule: "orphan".to_owned(),
        table: "vm_disks".to_owned(),
        key: "7".to_owned(),
        detail: "its job_id gone is not in replication_jobs".to_owned(),
    };
    let expected = json!({
        "rule": "orphan", "table": "vm_disks", "key": "7", "detail": "its job_id gone is not in replication_jobs",
    });
    golden(&finding, &expected);
    let report = MoveReport {
        database: "sqlite:oma.db".to_owned(),
        file: "-".to_owned(),
        instance: instance.clone(),
        rows: [("vm_disks".to_owned(), 2)].into(),
        fingerprint: "00ff".to_owned(),
    };
    let expected = json!({
        "database": "sqlite:oma.db", "file": "-", "instance": instance, "rows": { "vm_disks": 2 }, "fingerprint": "00ff",
    });
    golden(&report, &expected);
}

#[test]
fn a_failure_says_whether_the_same_command_continues() {
    let busy = Error::new(ErrorKind::Busy, "open volume", "vol-1").because("wait for the other process");
    let expected = json!({
        "status": "failed", "error": "open volume vol-1: busy: wait for the other process", "kind": "busy",
    });
    golden(&Failure::new(&busy), &expected);
    assert_eq!(Failure::new(&Error::new(ErrorKind::Cancelled, "copy", "x")).status, Outcome::Suspended);
}
