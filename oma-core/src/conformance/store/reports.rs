use super::super::runner::table;
use super::*;
use crate::record::{DiskVerification, JobEnd, SampleSize, VerificationReport, VerificationScope};
use crate::seal::{PublicKey, Seal, SealedReport, Signature};
use crate::traits::ReadManner;
use crate::tree::{LEAF, TreeRoot};
use crate::{Epoch, Timestamp};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        a_job_without_a_report_has_none,
        l14_a_report_comes_back_as_it_was_recorded,
        the_last_report_of_a_job_counts,
        a_report_outlives_its_job,
        l16_only_the_holder_of_the_newest_lease_records_a_report,
        a_report_of_another_job_is_invalid,
    ]
}

fn report(vm: &VmContext, job: &JobId, differences: ExtentSet) -> SealedReport {
    let time = Timestamp::from_millis(1_700_000_000_123);
    let disk = DiskVerification {
        key: key(KEYS[0]),
        volume: VolumeId::parse("vol-1").unwrap(),
        generation: Generation(3),
        change_id: change_id("52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446"),
        capacity: ByteSize::gib(8),
        compared: ByteSize::gib(5),
        promised_zero: Some(ByteSize::gib(3)),
        source_root: Some(TreeRoot([1; 32])),
        target_root: None,
        read_back: ReadManner::PastCache,
        differences,
        begun: time,
        ended: time,
    };
    SealedReport {
        report: VerificationReport {
            version: VerificationReport::VERSION,
            job: Some(job.clone()),
            context: vm.id.clone(),
            vm: vm.path.clone(),
            epoch: Some(Epoch(7)),
            scope: VerificationScope::Sample { size: SampleSize::Leaves(9), seed: (1 << 53) - 1 },
            leaf_bytes: LEAF,
            begun: time,
            ended: time,
            disks: vec![disk],
        },
        seal: Some(Seal { public_key: PublicKey([2; 32]), signature: Signature([0xfe; 64]) }),
    }
}

async fn a_job_without_a_report_has_none(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    assert_eq!(store.reports.report_of(&lease.job).await.unwrap(), None);
    let unknown = JobId::mint(Timestamp::from_millis(0));
    assert_eq!(store.reports.report_of(&unknown).await.unwrap(), None);
}

async fn l14_a_report_comes_back_as_it_was_recorded(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    // A shattered one: two hundred kilobytes of text.
    let differences = (0..12_000).map(|at| extent(at * 65_536, 4096)).collect();
    let report = report(&vm, &lease.job, differences);
    for _ in 0..2 {
        store.reports.put_report(&lease, &report).await.unwrap();
        assert_eq!(store.reports.report_of(&lease.job).await.unwrap().as_ref(), Some(&report));
    }
}

async fn the_last_report_of_a_job_counts(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    for differences in [ExtentSet::new(), [extent(0, 4096)].into_iter().collect()] {
        let report = report(&vm, &lease.job, differences);
        store.reports.put_report(&lease, &report).await.unwrap();
        assert_eq!(store.reports.report_of(&lease.job).await.unwrap(), Some(report));
    }
}

async fn a_report_outlives_its_job(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let report = report(&vm, &lease.job, ExtentSet::new());
    store.reports.put_report(&lease, &report).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let next = store.second_job(&vm).await;
    assert_eq!(store.reports.report_of(&lease.job).await.unwrap(), Some(report));
    assert_eq!(store.reports.report_of(&next.job).await.unwrap(), None);
}

async fn l16_only_the_holder_of_the_newest_lease_records_a_report(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let report = report(&vm, &lease.job, ExtentSet::new());
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    assert_kind(store.reports.put_report(&lease, &report).await, ErrorKind::Fenced);
    assert_eq!(store.reports.report_of(&lease.job).await.unwrap(), None);
}

async fn a_report_of_another_job_is_invalid(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let other = report(&vm, &JobId::mint(Timestamp::from_millis(0)), ExtentSet::new());
    assert_kind(store.reports.put_report(&lease, &other).await, ErrorKind::Invalid);
    let none = SealedReport { report: VerificationReport { job: None, ..other.report }, seal: None };
    assert_kind(store.reports.put_report(&lease, &none).await, ErrorKind::Invalid);
    assert_eq!(store.reports.report_of(&lease.job).await.unwrap(), None);
}
