use super::super::runner::table;
use super::*;
use crate::Epoch;
use crate::record::{JobEnd, VolumeContent};
use crate::state::{ContextStatus, DiskStatus, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        l08_a_commit_moves_everything_at_once,
        l08_the_same_commit_again_answers_ok_and_changes_nothing,
        l08_a_commit_again_after_a_later_epoch_takes_nothing_back,
        l08_another_commit_after_one_that_worked_is_fenced,
        l16_the_commit_of_another_lease_is_fenced,
        l08_a_commit_names_its_disks_in_any_order,
        a_disk_with_nothing_left_to_copy_is_committed,
        l08_a_commit_without_one_of_the_disks_moves_nothing,
        l08_a_commit_with_a_disk_too_many_moves_nothing,
        l08_a_commit_with_a_disk_twice_moves_nothing,
        l08_a_commit_without_any_disk_moves_nothing,
        l08_a_commit_before_finalizing_moves_nothing,
        l08_a_commit_of_another_epoch_or_vm_moves_nothing,
        l08_a_commit_of_another_change_id_than_the_attempts_moves_nothing,
        l08_a_commit_of_a_disk_that_was_never_begun_moves_nothing,
        l09_a_commit_of_another_generation_or_volume_moves_nothing,
        epochs_grow_by_one,
        a_commit_without_a_stamp_forgets_the_last_one,
        l04_an_epoch_moves_only_the_disks_of_its_job,
        l09_an_advance_after_the_commit_was_prepared_refuses_it,
    ]
}

async fn l08_a_commit_moves_everything_at_once(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let after = store.world(&vm).await;
    let context = after.vm.unwrap();
    assert_eq!((context.status, context.epoch), (ContextStatus::ReadyForFailover, Epoch(1)));
    assert_eq!(context.current_job, None);
    for (disk, part) in after.disks.iter().zip(&commit.disks) {
        assert_eq!((disk.status, disk.epoch), (DiskStatus::Completed, Epoch(1)));
        assert_eq!(disk.change_id.as_ref(), Some(&part.change_id));
    }
    for volume in &after.volumes {
        assert_eq!(volume.content, VolumeContent::Epoch(Epoch(1)));
        assert_eq!(volume.stamp, Some(ContentStamp("stamp".to_owned())));
    }
    for history in &after.histories {
        assert_eq!((history[0].success, history[0].extents), (true, 3));
        assert_eq!(history[0].bytes_transferred, ByteSize::kib(12));
    }
    assert_eq!((after.jobs[0].status, &after.jobs[0].owner), (JobStatus::Completed, &None));
    assert_eq!(after.jobs[0].completed_at, Some(store.clock.now()));
}

async fn l08_the_same_commit_again_answers_ok_and_changes_nothing(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let before = store.world(&vm).await;
    store.clock.advance(Duration::from_secs(1));
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_eq!(store.world(&vm).await, before);
}

async fn l08_a_commit_again_after_a_later_epoch_takes_nothing_back(store: StoreSubject) {
    let (vm, first_lease) = store.claimed().await;
    let first = store.ready_to_commit(&vm, &first_lease, "first").await;
    store.change_ids.commit_epoch(&first_lease, &first).await.unwrap();
    let lease = store.second_job(&vm).await;
    let second = store.ready_to_commit(&vm, &lease, "second").await;
    for late in [true, false] {
        let before = store.world(&vm).await;
        store.change_ids.commit_epoch(&first_lease, &first).await.unwrap();
        assert_eq!(store.world(&vm).await, before);
        if late {
            store.change_ids.commit_epoch(&lease, &second).await.unwrap();
        }
    }
}

async fn l08_another_commit_after_one_that_worked_is_fenced(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let mut commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let before = store.world(&vm).await;
    let right = commit.clone();
    let spoils: [fn(&mut EpochCommit); 4] = [
        |commit| commit.disks[0].change_id = change_id("other"),
        |commit| commit.disks[0].volume = commit.disks[1].volume.clone(),
        |commit| drop(commit.disks.pop()),
        |commit| commit.epoch = commit.epoch.next(),
    ];
    for spoil in spoils {
        commit.clone_from(&right);
        spoil(&mut commit);
        assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Fenced);
    }
    assert_eq!(store.world(&vm).await, before);
}

async fn l16_the_commit_of_another_lease_is_fenced(store: StoreSubject) {
    let (vm, stale) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &stale, "first").await;
    let lease = store.take_over(&stale).await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_kind(store.change_ids.commit_epoch(&stale, &commit).await, ErrorKind::Fenced);
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
}

/// A disk's part of a commit that copied nothing.
fn part(volume: &VolumeRecord, attempt: DiskAttempt) -> DiskCommit {
    DiskCommit {
        key: attempt.key,
        volume: volume.id.clone(),
        generation: volume.generation,
        change_id: attempt.change_id,
        capacity: ByteSize::mib(1),
        stamp: None,
        extents: 0,
        bytes_transferred: ByteSize::ZERO,
        duration: Duration::ZERO,
    }
}

/// A commit with one thing wrong is a conflict, and the second epoch's change ids stay those of the first.
async fn refused(store: &StoreSubject, spoil: impl FnOnce(&mut EpochCommit)) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "second").await;
    let right = commit.clone();
    spoil(&mut commit);
    let before = store.world(&vm).await;
    store.clock.advance(Duration::from_secs(1));
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
    store.change_ids.commit_epoch(&lease, &right).await.unwrap();
}

async fn l08_a_commit_without_one_of_the_disks_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| drop(commit.disks.pop())).await;
}

async fn l08_a_commit_with_a_disk_too_many_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| {
        let mut other = commit.disks[0].clone();
        other.key = key("disk-9");
        commit.disks.push(other);
    })
    .await;
}

async fn l08_a_commit_with_a_disk_twice_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.disks[1] = commit.disks[0].clone()).await;
}

async fn l08_a_commit_without_any_disk_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.disks.clear()).await;
}

async fn l08_a_commit_names_its_disks_in_any_order(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let mut commit = store.ready_to_commit(&vm, &lease, "first").await;
    commit.disks.reverse();
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    for disk in store.world(&vm).await.disks {
        assert_eq!(disk.change_id, Some(change_id(&format!("first/{}", disk.disk.key))));
    }
}

async fn a_disk_with_nothing_left_to_copy_is_committed(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.ready_to_commit(&vm, &lease, "first").await;
    store.jobs.end(&lease, JobEnd::Failed("just before its commit".to_owned())).await.unwrap();
    let lease = store.second_job(&vm).await;
    let mut disks = Vec::new();
    for text in KEYS {
        let attempt = attempt(text, &format!("second/{text}"));
        store.change_ids.begin(&lease, &attempt).await.unwrap();
        let volume = store.volumes.volume_of(&store.disk(&vm, text)).await.unwrap().unwrap();
        disks.push(part(&volume, attempt));
    }
    use JobEvent::{Copied, Copy, Prepared, Provision};
    let epoch = store.advance(&lease, &[Provision, Prepared, Copy, Copied]).await.epoch;
    let commit = EpochCommit { context: vm.id.clone(), epoch, disks };
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    for disk in store.world(&vm).await.disks {
        assert_eq!((disk.status, disk.epoch), (DiskStatus::Completed, Epoch(1)));
    }
}

async fn l08_a_commit_before_finalizing_moves_nothing(store: StoreSubject) {
    use JobEvent::{Copied, Copy, Prepared, Provision};
    let (vm, lease) = store.claimed().await;
    let commit = store.copied(&vm, &lease, "early").await;
    for event in [Provision, Prepared, Copy, Copied] {
        let before = store.world(&vm).await;
        assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
        assert_eq!(store.world(&vm).await, before);
        store.advance(&lease, &[event]).await;
    }
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
}

async fn l08_a_commit_of_another_epoch_or_vm_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.epoch = commit.epoch.next()).await;
    let other = store.inventory.record(&source_vm("uuid-2")).await.unwrap();
    let vm = store.vm().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "third").await;
    commit.context = other.id;
    let before = store.world(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
}

async fn l08_a_commit_of_another_change_id_than_the_attempts_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.disks[1].change_id = change_id("never-attempted")).await;
}

async fn l08_a_commit_of_a_disk_that_was_never_begun_moves_nothing(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let mut disks = Vec::new();
    for text in KEYS {
        let volume = store.provision(&lease, &store.disk(&vm, text), &format!("vol-{text}")).await;
        disks.push(part(&volume, attempt(text, "first")));
    }
    store.change_ids.begin(&lease, &attempt(KEYS[0], "first")).await.unwrap();
    use JobEvent::{Copied, Copy, Prepared, Provision};
    let epoch = store.advance(&lease, &[Provision, Prepared, Copy, Copied]).await.epoch;
    let commit = EpochCommit { context: vm.id.clone(), epoch, disks };
    let before = store.world(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
}

async fn l09_a_commit_of_another_generation_or_volume_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.disks[1].generation = commit.disks[1].generation.next()).await;
    let vm = store.vm().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "third").await;
    commit.disks[1].volume = commit.disks[0].volume.clone();
    let before = store.world(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
}

async fn epochs_grow_by_one(store: StoreSubject) {
    let mut vm = store.replicated().await;
    for epoch in 2..5 {
        let lease = store.second_job(&vm).await;
        let commit = store.ready_to_commit(&vm, &lease, &format!("epoch-{epoch}")).await;
        store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
        vm = store.inventory.context(&vm.id).await.unwrap().unwrap();
        assert_eq!(vm.epoch, Epoch(epoch));
    }
}

async fn l04_an_epoch_moves_only_the_disks_of_its_job(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.world(&vm).await;
    let lease = store.job_of(JobSpec { disks: vec![key(KEYS[1])], ..store.spec(&vm) }).await;
    let commit = store.ready_to_commit(&vm, &lease, "second").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let after = store.world(&vm).await;
    assert_eq!((&after.disks[0], &after.more[0]), (&before.disks[0], &before.more[0]));
    assert_eq!((&after.volumes[0], &after.histories[0]), (&before.volumes[0], &before.histories[0]));
    assert_eq!((after.disks[1].epoch, after.vm.unwrap().epoch), (Epoch(2), Epoch(2)));
}

async fn l09_an_advance_after_the_commit_was_prepared_refuses_it(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let commit = store.ready_to_commit(&vm, &lease, "second").await;
    store.volumes.advance_generation(&lease, &commit.disks[1].volume).await.unwrap();
    let before = store.world(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
    store.volumes.forget(&lease, &commit.disks[0].volume).await.unwrap();
    let before = store.world(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.world(&vm).await, before);
}

async fn a_commit_without_a_stamp_forgets_the_last_one(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "second").await;
    commit.disks.iter_mut().for_each(|disk| disk.stamp = None);
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert!(store.world(&vm).await.volumes.iter().all(|volume| volume.stamp.is_none()));
}
