//! What an agent's word is believed for, and what of another one is left alone.

use std::sync::atomic::AtomicBool;

use super::super::shaky::refusing;
use super::*;

#[tokio::test]
async fn l16_a_word_of_an_earlier_attempt_is_none_of_the_one_after() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await;
    let fence = first.state().fence;
    first.kill().await;
    let second = world.push(&[DISK], "b@1", None).await;
    let (pushes, job, whole) = (&second.pushes, &second.job, extents(&[(0, CAPACITY.bytes())]));
    let report = PushReport { key: key(DISK), change_id: id("b@1"), previous: None };
    let failure = PushFailure { reason: "tired".to_owned(), mixed: true };
    for answer in [
        pushes.report(job, fence, report).await,
        pushes.finished(job, fence, key(DISK), whole.clone()).await,
        pushes.fail(job, fence, failure).await,
    ] {
        let refused = answer.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.chain().contains("look again"), "{refused}");
    }
    let disk = second.state().disks.remove(0);
    assert_eq!((disk.reported, disk.work), (false, whole));
    second.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l08_what_one_agent_has_finished_no_other_overwrites() {
    let world = World::new(&[DISK]).await;
    let first = world.push(&[DISK], "b@1", None).await;
    let half = Extent::new(0, 2 << 20).unwrap();
    first.write(&world, DISK, &[half].into_iter().collect()).await;
    first.finished(DISK, [half].into_iter().collect()).await.unwrap();
    let zeroed = async |pushing: &Pushing| {
        let to = pushing.connect(DISK);
        to.write_zeroes(half, crate::traits::Zeroing::Punch, Durability::Cached).await
    };
    assert_eq!(zeroed(&first).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    first.kill().await;
    let second = world.push(&[DISK], "b@1", None).await;
    assert_eq!(zeroed(&second).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(second.state().disks[0].work, extents(&[(2 << 20, 2 << 20)]));
    second.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l08_what_is_equal_in_a_cache_after_a_failed_flush_is_not_believed() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    assert!(pushing.state().disks[0].compare);
    let work = pushing.state().disks[0].work.clone();
    pushing.write(&world, DISK, &work).await;
    world.backend.faults(&key(DISK)).fail_nth(DeviceCall::Flush, 1);
    pushing.report(DISK, "b@1").await.unwrap_err();
    assert!(matches!(pushing.run.await.unwrap().unwrap().outcome, Outcome::Failed(_)));
    let again = world.push(&[DISK], "b@1", None).await;
    assert!(!again.state().disks[0].compare);
    again.complete(&world, "b@1").await;
    let next = world.push(&[DISK], "b@2", None).await;
    assert!(next.state().disks[0].compare, "it was left in good order");
    next.complete(&world, "b@2").await;
    world.assert_replicated(2).await;
}

#[tokio::test(start_paused = true)]
async fn l08_an_epoch_of_a_volume_in_doubt_is_not_committed() {
    let world = World::new(&[DISK, "disk-2001"]).await;
    let pushing = world.push(&[DISK, "disk-2001"], "b@1", None).await;
    for disk in pushing.state().disks {
        pushing.write(&world, disk.key.as_str(), &disk.work).await;
    }
    pushing.report(DISK, "b@1").await.unwrap();
    world.backend.faults(&key(DISK)).fail_nth(DeviceCall::Flush, 1);
    pushing.connect(DISK).flush().await.unwrap_err();
    pushing.report("disk-2001", "b@1").await.unwrap();
    let report = pushing.run.await.unwrap().unwrap();
    assert!(failure_text(&report).contains("may be lost"), "{report:?}");
    assert_eq!(world.change_ids().await, [None, None]);
    assert_eq!(world.volume(DISK).await.stamp, None);
}

/// What an agent tells to be different from the last epoch leaves out what changed there and back.
#[tokio::test]
async fn l09_what_changed_there_and_back_is_copied_back() {
    let world = World::new(&[DISK]).await;
    world.push(&[DISK], "b@1", None).await.complete(&world, "b@1").await;
    let source = world.source.disk(&world.vm, &key(DISK)).unwrap();
    let before = source.bytes()[65_536..69_632].to_vec();
    world.write(DISK, 65_536, 4096, 9).await;
    assert!(before != source.bytes()[65_536..69_632]);
    let block = extents(&[(65_536, 4096)]);
    let second = world.push(&[DISK], "b@2", Some(("b@1", vec![(65_536, 4096)]))).await;
    second.write(&world, DISK, &block).await;
    second.finished(DISK, block.clone()).await.unwrap();
    let failure = PushFailure { reason: "its snapshot is gone".to_owned(), mixed: false };
    second.fail(failure).await.unwrap();
    second.run.await.unwrap().unwrap();

    source.write_at(65_536, before.into(), Durability::Cached).await.unwrap();
    let third = world.push(&[DISK], "b@3", Some(("b@1", Vec::new()))).await;
    assert_eq!(third.state().disks[0].work, block);
    third.complete(&world, "b@3").await;
    world.assert_equal(&[DISK]).await;
}

#[tokio::test(start_paused = true)]
async fn l08_a_job_does_not_end_before_what_is_of_no_one_moment_is_disowned() {
    let world = World::new(&[DISK]).await;
    let refuses = Arc::new(AtomicBool::new(false));
    let pushing = world.push_by(refusing(&world, &refuses), &[DISK], "b@1", None).await;
    let whole = extents(&[(0, CAPACITY.bytes())]);
    pushing.write(&world, DISK, &whole).await;
    pushing.finished(DISK, whole.clone()).await.unwrap();
    refuses.store(true, Ordering::SeqCst);
    let failure = PushFailure { reason: "the file was written".to_owned(), mixed: true };
    let answer = pushing.fail(failure).await.unwrap_err();
    assert_eq!((answer.kind(), answer.retry()), (ErrorKind::Unavailable, Retry::Later), "{answer}");
    // Nothing else is believed meanwhile, and it does not pass by waiting.
    assert_eq!(pushing.report(DISK, "b@1").await.unwrap_err().kind(), ErrorKind::Conflict);
    tokio::time::sleep(world.config.agent_patience * 2).await;
    assert!(!pushing.run.is_finished());
    refuses.store(false, Ordering::SeqCst);
    let report = pushing.run.await.unwrap().unwrap();
    assert!(failure_text(&report).contains("the file was written"), "{report:?}");
    assert_eq!(world.jobs().await[0].status, JobStatus::Failed);
    let second = world.push(&[DISK], "b@1", None).await;
    assert_eq!(second.state().disks[0].work, whole);
    second.complete(&world, "b@1").await;
    world.assert_equal(&[DISK]).await;
}

#[tokio::test(start_paused = true)]
async fn l15_who_only_watches_a_job_is_no_sign_of_life_of_its_agent() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let patience = world.config.agent_patience;
    let begun = tokio::time::Instant::now();
    tokio::time::sleep(patience * 2 / 3).await;
    assert!(pushing.pushes.state(&pushing.job).is_some());
    let report = pushing.run.await.unwrap().unwrap();
    assert!(failure_text(&report).contains("no sign of life"), "{report:?}");
    assert!(begun.elapsed() <= patience + Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// A second agent leaves a job alone whose agent is at work, and takes over from one that is gone.
#[tokio::test(start_paused = true)]
async fn l09_an_agent_at_work_is_told_from_one_that_only_waits() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let moment = Duration::from_secs(40);
    let first = extents(&[(0, 4096)]);
    let quiet = async || {
        tokio::time::sleep(moment).await;
        pushing.pushes.look(&pushing.job).unwrap().quiet
    };
    assert!(quiet().await >= moment && quiet().await >= moment * 2, "to look is not to work");
    pushing.write(&world, DISK, &first).await;
    assert!(pushing.state().quiet < moment);
    assert!(quiet().await >= moment);
    pushing.finished(DISK, first).await.unwrap();
    assert!(pushing.state().quiet < moment);
    assert!(quiet().await >= moment);
    pushing.complete(&world, "b@1").await;
    world.assert_replicated(1).await;
}

#[tokio::test]
async fn l30_nothing_is_believed_of_what_went_through_an_export_that_is_revoked() {
    let world = World::new(&[DISK]).await;
    let pushing = world.push(&[DISK], "b@1", None).await;
    let whole = extents(&[(0, CAPACITY.bytes())]);
    pushing.write(&world, DISK, &whole).await;
    pushing.finished(DISK, whole.clone()).await.unwrap();
    let client = pushing.connect(DISK);
    // Of another name nothing is known, and of another job neither.
    pushing.pushes.revoke(&pushing.job, &ExportName::parse("another").unwrap()).await.unwrap();
    assert!(!pushing.run.is_finished());
    let (pushes, job, name) = (pushing.pushes.clone(), pushing.job.clone(), pushing.export(DISK));
    pushes.revoke(&job, &name).await.unwrap();
    let report = pushing.run.await.unwrap().unwrap();
    assert!(failure_text(&report).contains("was revoked"), "{report:?}");
    assert_eq!(world.jobs().await[0].status, JobStatus::Failed);
    client.write_at(0, vec![1; 512].into(), Durability::Cached).await.unwrap_err();
    drop(client);
    pushes.revoke(&job, &name).await.unwrap();
    let second = world.push(&[DISK], "b@1", None).await;
    assert_eq!(second.state().disks[0].work, whole, "it is looked at as a whole");
    assert_ne!(second.export(DISK), name);
    second.complete(&world, "b@1").await;
    world.assert_equal(&[DISK]).await;
}
