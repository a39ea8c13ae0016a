//! Devices whose file system lets them share blocks.

use std::time::Duration;

use super::*;

/// Three runs of data with holes between, and a target that held something else.
async fn sharing() -> World {
    let world = World::new(used_target().await, false).by(Way::Shuttled);
    world.fill(&[(0, 256 << 10), (1 << 20, 512 << 10), (CAPACITY - (64 << 10), 64 << 10)]).await;
    world.faults.share_blocks_of(world.source.clone());
    world
}

const DATA: ByteSize = ByteSize::kib(832);

#[tokio::test]
async fn what_is_shared_is_not_read_and_the_rest_is_copied() {
    let world = sharing().await;
    let (result, counters) = world.run().await;
    result.unwrap();
    assert!(world.is_equal());
    assert_eq!((counters.shared, counters.progress.read), (DATA, ByteSize::ZERO));
    assert_eq!((counters.progress.done.bytes(), counters.progress.durable.bytes()), (CAPACITY, CAPACITY));
    assert_eq!(counters.zero + DATA, ByteSize::new(CAPACITY));
}

#[tokio::test]
async fn l11_what_could_not_be_shared_is_copied() {
    for nth in 1..=3 {
        let world = sharing().await;
        world.faults.fail_nth(DeviceCall::Write, nth);
        let (result, counters) = world.run().await;
        result.unwrap();
        assert!(world.is_equal(), "share {nth}");
        assert_eq!(counters.shared + counters.progress.written, DATA);
        assert!(counters.shared < DATA);
    }
}

#[tokio::test]
async fn nothing_is_shared_when_every_byte_shall_be_read_or_copied() {
    let change: [fn(&mut ReplicateConfig); 2] =
        [|config| config.share_blocks = false, |config| config.trust_zeroes = false];
    for change in change {
        let mut world = sharing().await;
        change(&mut world.config);
        let (result, counters) = world.run().await;
        result.unwrap();
        assert!(world.is_equal());
        assert_eq!((counters.shared, counters.progress.written), (ByteSize::ZERO, DATA));
    }
}

#[tokio::test]
async fn l11_a_copy_that_was_stopped_shares_nothing_more_and_is_no_success() {
    let world = sharing().await;
    world.stop.cancel();
    let (result, counters) = world.run().await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!((counters.shared, world.target.calls().writes), (ByteSize::ZERO, 1));
}

/// The second run of data.
fn hanging() -> Extent {
    Extent::new(1 << 20, 512 << 10).unwrap()
}

#[tokio::test]
async fn a_share_that_hangs_is_ended_and_nothing_is_copied_beside_it() {
    let mut world = sharing().await;
    world.config.read_limit = Duration::from_secs(1);
    world.faults.stall_reads_in(hanging());
    let (result, counters) = world.run().await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("did not answer within"), "{}", error.chain());
    assert_eq!((counters.shared, counters.progress.written), (ByteSize::kib(256), ByteSize::ZERO));
    world.is_completed().await;
}

#[tokio::test]
async fn l11_a_copy_that_is_stopped_while_a_share_hangs_ends() {
    let mut world = sharing().await;
    world.config.read_limit = Duration::from_secs(600);
    world.config.drain = Duration::from_millis(50);
    world.faults.stall_reads_in(hanging());
    let stops = async {
        world.faults.until_stalled_in(hanging()).await;
        world.stop.cancel();
    };
    let ((result, counters), ()) = tokio::join!(world.run(), stops);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(counters.shared, ByteSize::kib(256));
    world.stop = CancellationToken::new();
    world.is_completed().await;
}

impl World {
    /// What hangs goes on, and the next run completes the copy.
    async fn is_completed(&self) {
        self.faults.clear();
        self.faults.until_unused().await;
        self.run().await.0.unwrap();
        assert!(self.is_equal());
    }
}
