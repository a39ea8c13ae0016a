//! A copy that was stopped begins no read and no write, whatever was asked for before.

use super::super::mover::Mover;
use super::super::pieces::Piece;
use super::*;

fn extent() -> Extent {
    Extent::new(1 << 20, 64 << 10).unwrap()
}

#[tokio::test]
async fn l16_a_read_that_is_answered_after_the_stop_is_not_written() {
    for way in WAYS {
        let world = World::new(blank_target(), true).by(way);
        world.fill(&[(0, CAPACITY)]).await;
        world.faults.stall_reads_in(extent());
        let stops = async {
            world.faults.until_stalled_in(extent()).await;
            world.stop.cancel();
            world.faults.clear();
        };
        let ((result, _), ()) = tokio::join!(world.run(), stops);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
        world.faults.until_unused().await;
        let at = usize::try_from(extent().offset()).unwrap();
        assert_eq!(world.target.bytes()[at], 0, "it was written after the stop");
    }
}

#[tokio::test]
async fn l16_a_piece_that_was_cut_before_the_stop_is_neither_read_nor_written() {
    for (way, reads_zero) in WAYS.map(|way| (way, false)).into_iter().chain([(Way::Relayed, true)]) {
        let world = World::new(used_target().await, false).by(way);
        world.fill(&[(0, CAPACITY)]).await;
        let before = (world.source.calls(), world.target.calls());
        world.stop.cancel();
        let piece = Piece { extent: extent(), parts: vec![extent()], reads_zero };
        let moved = world.with_copier(async |copier| Mover::new(copier).carry(piece).await).await;
        assert_eq!(moved.unwrap_err().kind(), ErrorKind::Cancelled);
        let after = world.target.calls();
        assert_eq!(world.source.calls(), before.0);
        assert_eq!((after.writes, after.zeroes), (before.1.writes, before.1.zeroes));
    }
}
