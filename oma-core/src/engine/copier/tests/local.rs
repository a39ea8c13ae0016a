//! Devices that a thread moves pieces between: what fails, hangs, is stopped or dropped there.

use std::time::Duration;

use super::super::shuttle::STRIDE;
use super::*;

/// A piece with data.
fn bad() -> Extent {
    Extent::new(1 << 20, 512).unwrap()
}

/// A full disk that is copied to a blank one, a thread for each piece.
async fn local() -> World {
    let mut world = World::new(blank_target(), true).by(Way::Shuttled);
    world.config.read_limit = Duration::from_secs(1);
    world.config.drain = Duration::from_millis(300);
    world.config.journal_interval = Duration::from_millis(10);
    world.fill(&[(0, CAPACITY)]).await;
    world
}

impl World {
    /// What hangs goes on: nothing of it is written any more, and the next run copies the rest.
    async fn is_left_alone_and_completed(&self) {
        self.faults.clear();
        // Every thread has its own.
        self.faults.until_unused().await;
        let at = usize::try_from(bad().offset()).unwrap();
        assert_eq!(self.target.bytes()[at], 0, "it was written after the copy had ended");
        self.run().await.0.unwrap();
        assert!(self.is_equal());
    }
}

#[tokio::test]
async fn what_fails_on_a_thread_is_tried_in_the_other_way() {
    for call in [DeviceCall::Read, DeviceCall::Write] {
        let world = local().await;
        world.faults.fail_nth(call, 7);
        world.run().await.0.unwrap();
        assert_eq!(world.faults.count(), 1);
        assert!(world.is_equal());
    }
}

#[tokio::test]
async fn l11_a_sector_that_cannot_be_read_ends_the_copy_and_is_named() {
    let world = local().await;
    world.faults.fail_reads_in(bad());
    let error = world.run().await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(world.journal.finished.lock().unwrap().within(bad()).is_empty());
    world.is_left_alone_and_completed().await;
}

#[tokio::test]
async fn a_target_that_is_full_ends_the_copy_and_the_next_run_completes_it() {
    let world = local().await;
    world.faults.fail_as(ErrorKind::NoSpace, Retry::Never);
    world.faults.fail_from(DeviceCall::Write, 20);
    let (result, counters) = world.run().await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(counters.progress.durable.bytes() < CAPACITY);
    world.faults.clear();
    world.run().await.0.unwrap();
    assert!(world.is_equal());
}

#[tokio::test]
async fn a_read_that_hangs_is_ended_and_nothing_of_it_is_written_later() {
    let world = local().await;
    world.faults.stall_reads_in(bad());
    let error = world.run().await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("did not answer within"), "{}", error.chain());
    world.is_left_alone_and_completed().await;
}

/// Each read is let go after a while that is shorter than the limit; together they take longer.
#[tokio::test(start_paused = true)]
async fn a_source_that_is_slow_at_each_read_does_not_hang() {
    let mut world = local().await;
    world.config.piece = ByteSize::mib(1);
    world.config.read_limit = Duration::from_secs(100);
    let reads: Vec<Extent> = Extent::new(0, 1 << 20).unwrap().pieces(STRIDE).collect();
    assert!(reads.len() > 2);
    world.faults.stall_reads_in(reads[0]);
    let slow = async {
        for (at, read) in reads.iter().enumerate() {
            world.faults.until_stalled_in(*read).await;
            tokio::time::advance(Duration::from_secs(60)).await;
            match reads.get(at + 1) {
                Some(next) => world.faults.stall_reads_in(*next),
                None => world.faults.clear(),
            }
        }
    };
    let ((result, _), ()) = tokio::join!(world.run(), slow);
    result.unwrap();
    assert!(world.is_equal());
}

#[tokio::test]
async fn l11_a_copy_that_is_stopped_while_a_read_hangs_ends_and_writes_nothing_later() {
    let mut world = local().await;
    world.config.read_limit = Duration::from_secs(600);
    world.faults.stall_reads_in(bad());
    let stop = world.stop.clone();
    let stops = async {
        // All but what waits for the piece that hangs is durable.
        world.journal.holds(ByteSize::mib(1)).await;
        world.faults.until_stalled_in(bad()).await;
        stop.cancel();
    };
    let ((result, _), ()) = tokio::join!(world.run(), stops);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    world.stop = CancellationToken::new();
    world.is_left_alone_and_completed().await;
}

#[tokio::test]
async fn l15_a_copy_that_is_dropped_writes_nothing_of_what_it_still_reads() {
    let mut world = local().await;
    world.config.read_limit = Duration::from_secs(600);
    world.faults.stall_reads_in(bad());
    tokio::select! {
        _ = world.run() => panic!("it cannot end"),
        () = world.faults.until_stalled_in(bad()) => {}
    }
    world.is_left_alone_and_completed().await;
}

#[tokio::test]
async fn a_disk_whose_data_is_far_goes_on_in_the_other_way() {
    let world = local().await;
    world.faults.move_away(bad());
    let (result, counters) = world.run().await;
    result.unwrap();
    assert!(world.is_equal());
    assert_eq!((counters.progress.read.bytes(), counters.progress.written.bytes()), (CAPACITY, CAPACITY));
    assert_eq!(world.journal.finished.lock().unwrap().bytes().bytes(), CAPACITY);
}
