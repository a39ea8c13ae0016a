//! Volumes that a VM may run from stay as they are, though their VM does not say so yet (L07).

use super::super::runner::table;
use super::*;
use crate::record::{CleanupPlan, CleanupSpec, JobEnd, KeepVolumes};
use crate::state::{FailoverKind, FailoverStatus, OperationStatus};
use crate::{CleanupId, FailoverJobId, InstanceId};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        l07_no_job_begins_while_a_failover_has_or_may_have_made_a_vm,
        l07_a_failover_that_was_taken_back_or_a_test_that_made_no_vm_keeps_nobody,
        l07_the_cleanup_that_names_a_failed_failover_works_at_the_volumes,
        l07_what_is_executing_is_recovered_whatever_fails_over,
        l07_a_volume_is_neither_condemned_nor_deleted_once_a_failover_began,
        l07_a_deletion_that_is_due_does_not_begin_once_a_failover_began,
    ]
}

const GRACE: Duration = Duration::from_secs(3600);

fn failover(vm: &VmContext, kind: FailoverKind, status: FailoverStatus) -> FailoverRecord {
    FailoverRecord {
        id: FailoverJobId::parse("failover-1").unwrap(),
        context: vm.id.clone(),
        replication_job: None,
        kind,
        status,
        destination_vm: None,
    }
}

fn live(vm: &VmContext, status: FailoverStatus) -> FailoverRecord {
    failover(vm, FailoverKind::Live, status)
}

/// It is refused, and the failover job is named.
fn assert_protected<T: fmt::Debug>(result: Result<T>) {
    match result {
        Err(error) if error.kind() == ErrorKind::Conflict && error.chain().contains("failover-1") => {}
        other => panic!("{other:?} while a failover protects the volumes"),
    }
}

fn naming(vm: &VmContext) -> CleanupSpec {
    let plan = CleanupPlan {
        instance: InstanceId::mint(),
        job: JobId::parse("job-gone").unwrap(),
        job_status: None,
        context: vm.id.clone(),
        vm: vm.path.clone(),
        failover_job: Some(FailoverJobId::parse("failover-1").unwrap()),
        volumes: KeepVolumes::Keep,
        first: Vec::new(),
        items: Vec::new(),
        steps: Vec::new(),
    };
    CleanupSpec { id: CleanupId::mint(), worker: worker("one"), plan }
}

impl StoreSubject {
    async fn fails_over(&self, record: FailoverRecord) {
        (self.failover)(record).await;
    }

    /// A VM whose first disk has a detached volume, blank or with an epoch, and the lease of a job that operates on it.
    async fn unused(&self, is_blank: bool) -> (VmContext, Lease, DiskRef, VolumeRecord) {
        let vm = if is_blank {
            let (vm, lease) = self.claimed().await;
            self.provision(&lease, &self.disk(&vm, KEYS[0]), "vol-1").await;
            self.jobs.end(&lease, JobEnd::Cancelled("why".to_owned())).await.unwrap();
            vm
        } else {
            self.replicated().await
        };
        let lease = self.job_of(self.operate_spec(&vm)).await;
        let disk = self.disk(&vm, KEYS[0]);
        let volume = self.volumes.volume_of(&disk).await.unwrap().unwrap();
        let detach = self.operation(&lease, &disk, OperationKind::Detach, Some(&volume.id));
        let answer = self.backend_volume(volume.id.as_str(), None);
        let volume = self.carry_out(&lease, &detach, &answer).await.unwrap();
        (vm, lease, disk, volume)
    }
}

async fn l07_no_job_begins_while_a_failover_has_or_may_have_made_a_vm(store: StoreSubject) {
    let vm = store.replicated().await;
    let tests = FailoverRecord {
        destination_vm: Some("vm-7".to_owned()),
        ..failover(&vm, FailoverKind::Test, FailoverStatus::Failed)
    };
    for record in [
        live(&vm, FailoverStatus::Pending),
        live(&vm, FailoverStatus::SwitchingVolume),
        live(&vm, FailoverStatus::Completed),
        // Whoever made its VM may never have heard of it.
        live(&vm, FailoverStatus::Failed),
        failover(&vm, FailoverKind::Test, FailoverStatus::CreatingVm),
        tests,
    ] {
        store.fails_over(record).await;
        for spec in [store.spec(&vm), store.revert_spec(&vm), store.operate_spec(&vm)] {
            let id = spec.id.clone();
            assert_protected(store.jobs.insert(spec).await);
            assert_eq!(store.jobs.get(&id).await.unwrap(), None);
        }
        assert_eq!(store.inventory.context(&vm.id).await.unwrap().unwrap(), vm);
    }
}

async fn l07_a_failover_that_was_taken_back_or_a_test_that_made_no_vm_keeps_nobody(store: StoreSubject) {
    let vm = store.replicated().await;
    for record in
        [live(&vm, FailoverStatus::Reverted), failover(&vm, FailoverKind::Test, FailoverStatus::Failed)]
    {
        store.fails_over(record).await;
        for spec in [store.spec(&vm), store.operate_spec(&vm)] {
            let lease = store.job_of(spec).await;
            store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
        }
    }
    // Another VM's is none of this one's.
    store.fails_over(live(&vm, FailoverStatus::Failed)).await;
    let other = store.inventory.record(&source_vm("uuid-2")).await.unwrap();
    store.jobs.insert(store.spec(&other)).await.unwrap();
}

async fn l07_the_cleanup_that_names_a_failed_failover_works_at_the_volumes(store: StoreSubject) {
    let (vm, lease, disk, volume) = store.unused(true).await;
    store.jobs.end(&lease, JobEnd::Done).await.unwrap();
    store.fails_over(live(&vm, FailoverStatus::Failed)).await;
    let cleanup = store.cleanups.insert_cleanup(&naming(&vm)).await.unwrap();
    assert_protected(store.jobs.insert(store.operate_spec(&vm)).await);
    store.cleanups.begin_cleanup(&cleanup.spec.id).await.unwrap();
    assert_protected(store.jobs.insert(store.spec(&vm)).await);
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    // One that goes on again may run, whoever looked before.
    store.fails_over(live(&vm, FailoverStatus::Completed)).await;
    assert_protected(store.volumes.begin(&lease, &delete).await);
    store.fails_over(live(&vm, FailoverStatus::Failed)).await;
    store.volumes.begin(&lease, &delete).await.unwrap();
}

async fn l07_what_is_executing_is_recovered_whatever_fails_over(store: StoreSubject) {
    let (vm, lease, disk, volume) = store.unused(true).await;
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    let begun = store.volumes.begin(&lease, &delete).await.unwrap();
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    store.fails_over(live(&vm, FailoverStatus::Pending)).await;
    assert_protected(store.jobs.insert(store.spec(&vm)).await);
    let lease = store.job_of(store.operate_spec(&vm)).await;
    store.volumes.fail(&lease, &begun.spec.id, "it was not done").await.unwrap();
    store.jobs.end(&lease, JobEnd::Done).await.unwrap();
    assert_protected(store.jobs.insert(store.operate_spec(&vm)).await);
}

async fn l07_a_volume_is_neither_condemned_nor_deleted_once_a_failover_began(store: StoreSubject) {
    let (vm, lease, disk, volume) = store.unused(true).await;
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    store.fails_over(live(&vm, FailoverStatus::Validating)).await;
    assert_protected(store.volumes.begin(&lease, &delete).await);
    assert_protected(store.volumes.condemn(&lease, &delete, GRACE).await);
    assert_eq!(store.volumes.volume(&volume.id).await.unwrap(), Some(volume));
    assert_eq!(store.volumes.operation(&delete.id).await.unwrap(), None);
    store.fails_over(live(&vm, FailoverStatus::Reverted)).await;
    let begun = store.volumes.begin(&lease, &delete).await.unwrap();
    // What was begun is answered as it was, whatever began since.
    store.fails_over(live(&vm, FailoverStatus::Validating)).await;
    assert_eq!(store.volumes.begin(&lease, &delete).await.unwrap(), begun);
}

async fn l07_a_deletion_that_is_due_does_not_begin_once_a_failover_began(store: StoreSubject) {
    let (vm, lease, disk, volume) = store.unused(false).await;
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    let condemned = store.volumes.condemn(&lease, &delete, GRACE).await.unwrap();
    store.clock.advance(GRACE);
    store.fails_over(live(&vm, FailoverStatus::SwitchingVolume)).await;
    assert_protected(store.volumes.execute(&lease, &delete.id).await);
    assert_eq!(store.volumes.operation(&delete.id).await.unwrap(), Some(condemned));
    store.fails_over(live(&vm, FailoverStatus::Reverted)).await;
    let begun = store.volumes.execute(&lease, &delete.id).await.unwrap();
    assert_eq!(begun.status, OperationStatus::Executing);
}
