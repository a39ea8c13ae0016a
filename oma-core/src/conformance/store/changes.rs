use super::super::runner::table;
use super::*;
use crate::Epoch;
use crate::record::{CommittedChange, JobEnd};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        before_the_first_epoch_there_is_no_change_id,
        l09_a_change_id_is_bound_to_generation_and_endpoint,
        l08_a_failed_job_moves_no_change_id,
        the_history_has_attempts_and_successes_newest_first,
        a_success_leaves_the_attempts_that_failed_as_they_were,
        a_new_attempt_of_the_same_job_replaces_the_last,
        an_attempt_of_a_later_job_leaves_the_earlier_ones,
    ]
}

async fn before_the_first_epoch_there_is_no_change_id(store: StoreSubject) {
    let vm = store.vm().await;
    let disk = store.disk(&vm, KEYS[0]);
    let current = store.change_ids.current(&disk, Generation::FIRST, &vm.identity.endpoint).await;
    assert_eq!(current.unwrap(), None);
    assert_eq!(store.change_ids.history(&disk).try_collect::<Vec<_>>().await.unwrap(), []);
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
        capacity: Some(ByteSize::mib(7)),
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
    let history = store.world(&vm).await.histories.remove(0);
    let seen: Vec<_> = history.iter().map(|row| (row.change_id.as_str(), row.success)).collect();
    assert_eq!(seen, [("second/disk-2000", false), ("first/disk-2000", true)]);
    assert_eq!((history[0].extents, history[0].bytes_transferred), (0, ByteSize::ZERO));
}

async fn a_success_leaves_the_attempts_that_failed_as_they_were(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    store.ready_to_commit(&vm, &lease, "first").await;
    store.jobs.end(&lease, JobEnd::Failed("why".to_owned())).await.unwrap();
    let failed = store.world(&vm).await.histories;
    let lease = store.second_job(&vm).await;
    let commit = store.ready_to_commit(&vm, &lease, "second").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    for (now, failed) in store.world(&vm).await.histories.iter().zip(&failed) {
        assert_eq!((now[0].success, now[0].job.clone()), (true, lease.job.clone()));
        assert_eq!((failed[0].success, &now[1..]), (false, &failed[..]));
    }
}

async fn a_new_attempt_of_the_same_job_replaces_the_last(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    for text in ["try-1", "try-2"] {
        let attempt = DiskAttempt { previous: Some(change_id("before")), ..attempt(KEYS[0], text) };
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
    assert_kind(store.change_ids.begin(&lease, &attempt("disk-9", "x")).await, ErrorKind::NotFound);
}

async fn an_attempt_of_a_later_job_leaves_the_earlier_ones(store: StoreSubject) {
    let vm = store.replicated().await;
    let before = store.world(&vm).await.histories.remove(0);
    let lease = store.second_job(&vm).await;
    store.change_ids.begin(&lease, &attempt(KEYS[0], "second")).await.unwrap();
    let history = store.world(&vm).await.histories.remove(0);
    assert_eq!((history.len(), &history[1..]), (2, &before[..]));
    assert_eq!((&history[0].job, history[0].created_at), (&lease.job, store.clock.now()));
}
