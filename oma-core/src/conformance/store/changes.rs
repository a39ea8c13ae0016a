use super::super::runner::table;
use super::*;
use crate::Epoch;
use crate::record::{CommittedChange, JobEnd, VolumeContent};
use crate::state::{ContextStatus, DiskStatus, JobStatus};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        before_the_first_epoch_there_is_no_change_id,
        l08_a_commit_moves_everything_at_once,
        l08_the_same_commit_again_answers_ok_and_changes_nothing,
        l08_another_commit_after_one_that_worked_is_fenced,
        l08_a_commit_without_one_of_the_disks_moves_nothing,
        l08_a_commit_with_a_disk_too_many_moves_nothing,
        l08_a_commit_before_finalizing_moves_nothing,
        l08_a_commit_of_another_epoch_or_vm_moves_nothing,
        l08_a_commit_of_another_change_id_than_the_attempts_moves_nothing,
        l09_a_commit_of_another_generation_or_volume_moves_nothing,
        l09_a_change_id_is_bound_to_generation_and_endpoint,
        l08_a_failed_job_moves_no_change_id,
        the_history_has_attempts_and_successes_newest_first,
        a_new_attempt_of_the_same_job_replaces_the_last,
        epochs_grow_by_one,
    ]
}

async fn before_the_first_epoch_there_is_no_change_id(store: StoreSubject) {
    let vm = store.vm().await;
    let disk = store.disk(&vm, KEYS[0]);
    let current = store.change_ids.current(&disk, Generation::FIRST, &vm.identity.endpoint).await;
    assert_eq!(current.unwrap(), None);
    assert_eq!(store.change_ids.history(&disk).try_collect::<Vec<_>>().await.unwrap(), []);
}

async fn l08_a_commit_moves_everything_at_once(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let after = store.committed(&vm).await;
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
    let before = store.committed(&vm).await;
    store.clock.advance(Duration::from_secs(1));
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_eq!(store.committed(&vm).await, before);
}

async fn l08_another_commit_after_one_that_worked_is_fenced(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let mut commit = store.ready_to_commit(&vm, &lease, "first").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let before = store.committed(&vm).await;
    commit.disks[0].change_id = change_id("other");
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Fenced);
    assert_eq!(store.committed(&vm).await, before);
}

/// A commit with one thing wrong is a conflict, and the second epoch's change ids stay those of the first.
async fn refused(store: &StoreSubject, spoil: impl FnOnce(&mut EpochCommit)) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "second").await;
    let right = commit.clone();
    spoil(&mut commit);
    let before = store.committed(&vm).await;
    let journal = store.journal.load(&store.disk(&vm, KEYS[0])).await.unwrap();
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.committed(&vm).await, before);
    assert_eq!(store.journal.load(&store.disk(&vm, KEYS[0])).await.unwrap(), journal);
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

async fn l08_a_commit_before_finalizing_moves_nothing(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let volume = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await;
    let part = DiskCommit {
        key: key(KEYS[0]),
        volume: volume.id,
        generation: volume.generation,
        change_id: change_id("early"),
        stamp: None,
        extents: 0,
        bytes_transferred: ByteSize::ZERO,
        duration: Duration::ZERO,
    };
    let before = store.committed(&vm).await;
    let commit = EpochCommit { context: vm.id.clone(), epoch: Epoch(1), disks: vec![part] };
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.committed(&vm).await, before);
}

async fn l08_a_commit_of_another_epoch_or_vm_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.epoch = commit.epoch.next()).await;
    let other = store.inventory.record(&source_vm("uuid-2")).await.unwrap();
    let vm = store.vm().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "third").await;
    commit.context = other.id;
    let before = store.committed(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.committed(&vm).await, before);
}

async fn l08_a_commit_of_another_change_id_than_the_attempts_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.disks[1].change_id = change_id("never-attempted")).await;
}

async fn l09_a_commit_of_another_generation_or_volume_moves_nothing(store: StoreSubject) {
    refused(&store, |commit| commit.disks[1].generation = commit.disks[1].generation.next()).await;
    let vm = store.vm().await;
    let lease = store.second_job(&vm).await;
    let mut commit = store.ready_to_commit(&vm, &lease, "third").await;
    commit.disks[1].volume = commit.disks[0].volume.clone();
    let before = store.committed(&vm).await;
    assert_kind(store.change_ids.commit_epoch(&lease, &commit).await, ErrorKind::Conflict);
    assert_eq!(store.committed(&vm).await, before);
}

async fn l09_a_change_id_is_bound_to_generation_and_endpoint(store: StoreSubject) {
    let vm = store.replicated().await;
    let disk = store.disk(&vm, KEYS[0]);
    let endpoint = vm.identity.endpoint.clone();
    let expected = CommittedChange {
        disk: disk.clone(),
        change_id: change_id("first/disk-2000"),
        generation: Generation::FIRST,
        endpoint: endpoint.clone(),
        epoch: Epoch(1),
    };
    let current = |generation, endpoint| {
        let (change_ids, disk) = (store.change_ids.clone(), disk.clone());
        async move { change_ids.current(&disk, generation, &endpoint).await.unwrap() }
    };
    assert_eq!(current(Generation::FIRST, endpoint.clone()).await, Some(expected));
    assert_eq!(current(Generation(2), endpoint).await, None);
    assert_eq!(current(Generation::FIRST, Endpoint::parse("other.example").unwrap()).await, None);
}

async fn l08_a_failed_job_moves_no_change_id(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.inventory.disks(&vm.id).await.unwrap();
    let lease = store.second_job(&vm).await;
    store.ready_to_commit(&vm, &lease, "second").await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    for (now, before) in store.inventory.disks(&vm.id).await.unwrap().iter().zip(&before) {
        assert_eq!((&now.change_id, now.epoch), (&before.change_id, before.epoch));
        assert_eq!(now.volume, before.volume);
    }
}

async fn the_history_has_attempts_and_successes_newest_first(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    store.ready_to_commit(&vm, &lease, "second").await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let history = store.committed(&vm).await.histories.remove(0);
    let seen: Vec<_> = history.iter().map(|row| (row.change_id.as_str(), row.success)).collect();
    assert_eq!(seen, [("second/disk-2000", false), ("first/disk-2000", true)]);
    assert_eq!((history[0].extents, history[0].bytes_transferred), (0, ByteSize::ZERO));
}

async fn a_new_attempt_of_the_same_job_replaces_the_last(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    for text in ["try-1", "try-2"] {
        let attempt = DiskAttempt {
            key: key(KEYS[0]),
            change_id: change_id(text),
            previous: Some(change_id("before")),
            sync_type: ReplicationType::Incremental,
        };
        store.change_ids.begin(&lease, &attempt).await.unwrap();
    }
    let disk = store.disk(&vm, KEYS[0]);
    let history: Vec<_> = store.change_ids.history(&disk).try_collect().await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(
        (history[0].change_id.as_str(), history[0].sync_type),
        ("try-2", ReplicationType::Incremental)
    );
    assert_eq!((history[0].previous.clone(), &history[0].job), (Some(change_id("before")), &lease.job));
    let unknown = DiskAttempt {
        key: key("disk-9"),
        change_id: change_id("x"),
        previous: None,
        sync_type: ReplicationType::Initial,
    };
    assert_kind(store.change_ids.begin(&lease, &unknown).await, ErrorKind::NotFound);
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
