//! Pieces from afar that a thread writes to a device of this machine: what fails, panics or is stopped there.

use super::super::landing::{Landed, Lander, Landing};
use super::super::pieces::Piece;
use super::*;

#[tokio::test]
async fn what_cannot_be_written_in_place_is_written_in_the_other_way() {
    let world = World::new(blank_target(), true).by(Way::Landed);
    world.fill(&[(0, CAPACITY)]).await;
    world.faults.fail_nth(DeviceCall::Write, 7);
    world.run().await.0.unwrap();
    assert_eq!(world.faults.count(), 1);
    assert!(world.is_equal());
}

#[tokio::test]
async fn a_target_that_is_full_ends_the_copy_and_the_next_run_completes_it() {
    let world = World::new(blank_target(), true).by(Way::Landed);
    world.fill(&[(0, CAPACITY)]).await;
    world.faults.fail_as(ErrorKind::NoSpace, Retry::Never);
    world.faults.fail_from(DeviceCall::Write, 20);
    let (result, counters) = world.run().await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(counters.progress.durable.bytes() < CAPACITY);
    world.faults.clear();
    world.run().await.0.unwrap();
    assert!(world.is_equal());
}

const SIZE: usize = 64 << 10;

/// The first piece of a disk, and the bytes that came for it.
fn landing(target: &MemoryDevice, bytes: usize) -> Landing {
    let extent = Extent::new(0, u64::try_from(SIZE).unwrap()).unwrap();
    Landing {
        target: Arc::new(target.clone()),
        piece: Piece { extent, parts: vec![extent], reads_zero: false },
        data: Bytes::from(vec![7; bytes]),
        granule: ByteSize::kib(4),
        stop: CancellationToken::new(),
        since: std::time::Instant::now(),
    }
}

#[tokio::test]
async fn a_panic_on_the_thread_is_left_to_the_other_way_and_ends_nothing_else() {
    let (lander, target) = (Lander::default(), blank_target());
    let [before, short, after] = [SIZE, 1, SIZE].map(|bytes| lander.land(landing(&target, bytes)));
    let (before, short, after) = tokio::join!(before, short, after);
    let written = |landed: Option<Landed>| landed.map(|landed| landed.written);
    let size = Some(u64::try_from(SIZE).unwrap());
    assert_eq!([before, short, after].map(written), [size, None, size]);
}

#[tokio::test]
async fn l16_what_was_read_before_the_stop_and_waits_for_its_thread_is_not_written() {
    let (lander, target) = (Lander::default(), blank_target());
    let landing = landing(&target, SIZE);
    landing.stop.cancel();
    assert!(lander.land(landing).await.is_none());
    assert_eq!(target.calls().writes, 0);
}
