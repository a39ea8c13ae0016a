//! Machines and processes that end in the middle.

use std::sync::atomic::Ordering;

use oma_core::conformance::{Trial, trial};
use oma_core::traits::{Changes, DiskSource};
use oma_core::{ErrorKind, Retry};
use oma_nbd::QemuSource;
use oma_nbd::qemu::{OtherPoints, QemuConfig};
use rustix::process::{Resource, Rlimit, prlimit};

use crate::machine::{Machine, NEEDS, freeze, key, mark, point, read};
use crate::proxy::{Proxy, Trouble};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        &NEEDS;
        l09_after_the_machine_was_killed_changes_are_unknown_until_the_next_epoch,
        l15_a_freeze_cut_off_after_any_command_is_taken_down_by_the_next,
        l15_a_release_cut_off_after_any_command_is_finished_by_the_next,
        l15_a_question_for_changes_cut_off_after_any_command_leaves_nothing_that_stays,
        what_a_question_for_changes_left_goes_with_the_point_that_is_taken_down,
        a_point_in_time_breaks_before_a_write_of_the_guest_fails,
        a_freeze_that_fails_leaves_nothing,
    ]
}

async fn l09_after_the_machine_was_killed_changes_are_unknown_until_the_next_epoch() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = freeze(&source, 1).await;
    source.release(&first.id).await.unwrap();
    // Stored in the image, so that the next run of QEMU knows it.
    machine.quit().await;
    machine.boot(&[]).await;
    let second = freeze(&source, 2).await;
    machine.write("disk0", 1, 0, 512).await;
    machine.kill().await;
    assert!(source.open(&second.id, &key("disk0")).await.is_err());
    machine.boot(&[]).await;
    let third = freeze(&source, 3).await;
    for point in [&first, &second] {
        for disk in ["disk0", "disk1"] {
            let changes = source.changed(&third.id, &key(disk), &mark(point, disk)).await.unwrap();
            assert!(matches!(&changes, Changes::Unknown(_)), "{changes:?}");
            assert!(!mark(&third, disk).continues(&mark(point, disk)));
        }
    }
    source.release(&third.id).await.unwrap();
    source.release(&second.id).await.unwrap();
    assert_eq!(machine.bitmaps("n0").await.len(), 1, "what the crash spoiled is removed");
    let fourth = freeze(&source, 4).await;
    let changes = source.changed(&fourth.id, &key("disk0"), &mark(&third, "disk0")).await.unwrap();
    assert!(matches!(&changes, Changes::Since(extents) if extents.is_empty()), "{changes:?}");
}

/// A source whose process ends after so many commands.
fn cut_off(machine: &Machine, after: usize) -> (QemuSource, Proxy) {
    let proxy = Proxy::start(machine.socket("proxy"), &machine.socket("second"), &Trouble::CutAfter(after));
    (QemuSource::new(QemuConfig { qmp: proxy.socket.clone(), ..machine.config() }), proxy)
}

async fn l15_a_freeze_cut_off_after_any_command_is_taken_down_by_the_next() {
    let machine = Machine::start().await;
    let source = machine.source();
    let mut cuts = 0;
    for after in 0.. {
        let byte = u8::try_from(after + 1).unwrap();
        let (interrupted, proxy) = cut_off(&machine, after);
        let whole = interrupted.freeze(&crate::machine::vm(), &crate::machine::job(1)).await.is_ok();
        machine.write("disk0", byte, 0, 512).await;
        machine.write("disk1", byte, 0, 512).await;
        // Every second time another job comes first.
        let number = if after % 2 == 0 { 1 } else { 2 };
        if !whole {
            let point = freeze(&source, number).await;
            for disk in ["disk0", "disk1"] {
                let seen = read(&source, &point.id, disk, 0).await;
                // The last command may have been done: then the point in time is the interrupted one.
                assert!(seen == byte || (number == 1 && seen == byte - 1), "{after}: {seen}");
            }
        }
        for number in [1, 2] {
            source.release(&point(number)).await.unwrap();
        }
        assert_eq!(machine.leavings().await.iter().filter(|name| *name != "proxy").count(), 0, "{after}");
        cuts = proxy.passed.load(Ordering::SeqCst);
        if whole {
            break;
        }
    }
    assert!(cuts > 30, "{cuts} commands");
}

async fn l15_a_release_cut_off_after_any_command_is_finished_by_the_next() {
    let machine = Machine::start().await;
    let source = machine.source();
    for after in 0.. {
        let point = freeze(&source, 1).await;
        let (interrupted, _proxy) = cut_off(&machine, after);
        let whole = interrupted.release(&point.id).await.is_ok();
        machine.write("disk0", 7, 0, 512).await;
        if after % 2 == 0 {
            source.release(&point.id).await.unwrap();
        } else {
            let next = freeze(&source, 2).await;
            assert_eq!(read(&source, &next.id, "disk0", 0).await, 7);
            source.release(&next.id).await.unwrap();
            source.release(&point.id).await.unwrap();
        }
        assert_eq!(machine.leavings().await, [""; 0], "{after}");
        if whole {
            break;
        }
    }
}

async fn l15_a_question_for_changes_cut_off_after_any_command_leaves_nothing_that_stays() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = freeze(&source, 1).await;
    source.release(&first.id).await.unwrap();
    machine.write("disk0", 1, 1 << 16, 512).await;
    let point = freeze(&source, 2).await;
    let since = mark(&first, "disk0");
    for after in 0.. {
        let (interrupted, _proxy) = cut_off(&machine, after);
        let whole = interrupted.changed(&point.id, &key("disk0"), &since).await.is_ok();
        let changes = source.changed(&point.id, &key("disk0"), &since).await.unwrap();
        let Changes::Since(extents) = &changes else { panic!("{changes:?}") };
        assert_eq!(extents.bytes().bytes(), 1 << 16, "{after}");
        assert_eq!(machine.bitmaps("n0").await.len(), 2, "{after}");
        if whole {
            break;
        }
    }
}

async fn what_a_question_for_changes_left_goes_with_the_point_that_is_taken_down() {
    let machine = Machine::start().await;
    let first = freeze(&machine.source(), 1).await;
    machine.source().release(&first.id).await.unwrap();
    let asked = freeze(&machine.source(), 2).await;
    let held = Trouble::HoldBack("block-export-del");
    let proxy = Proxy::start(machine.socket("proxy"), &machine.socket("second"), &held);
    let interrupted = QemuSource::new(QemuConfig { qmp: proxy.socket.clone(), ..machine.config() });
    let (disk, since) = (key("disk0"), mark(&first, "disk0"));
    {
        let asking = interrupted.changed(&asked.id, &disk, &since);
        tokio::select! {
            answer = asking => panic!("{answer:?}"),
            () = proxy.held.notified() => {}
        }
    }
    drop(proxy);
    let left = |names: &[String]| names.iter().filter(|name| name.starts_with("oma-changes/")).count();
    assert_eq!(left(&machine.bitmaps("n0").await), 1);
    let others = QemuConfig { other_points: OtherPoints::Release, ..machine.config() };
    freeze(&QemuSource::new(others), 3).await;
    assert_eq!(left(&machine.bitmaps("n0").await), 0);
}

async fn a_point_in_time_breaks_before_a_write_of_the_guest_fails() {
    let machine = Machine::start().await;
    let source = machine.source();
    machine.write("disk0", 1, 2 << 20, 512).await;
    let first = freeze(&source, 1).await;
    let opened = source.open(&first.id, &key("disk0")).await.unwrap();
    let limit = |bytes| Rlimit { current: bytes, maximum: None };
    let pid = machine.pid();
    // No room in the file that takes what is overwritten, and room enough in the image.
    prlimit(Some(pid), Resource::Fsize, limit(Some(1 << 20))).unwrap();
    machine.write("disk0", 2, 2 << 20, 512).await;
    for offset in [0, 2 << 20] {
        let error = opened.read_at(offset, bytes::BytesMut::zeroed(512)).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Never), "{offset}");
        assert!(error.chain().contains("the point in time is lost"), "{}", error.chain());
    }
    prlimit(Some(pid), Resource::Fsize, limit(None)).unwrap();
    assert!(machine.sees("disk0", 2, 2 << 20, 512).await);
    assert_eq!(read(&source, &first.id, "disk1", 0).await, 0, "the other disk's view is whole");
    source.release(&first.id).await.unwrap();
    let second = freeze(&source, 2).await;
    assert_eq!(read(&source, &second.id, "disk0", 2 << 20).await, 2);
}

async fn a_freeze_that_fails_leaves_nothing() {
    let machine = Machine::start().await;
    let before = freeze(&machine.source(), 1).await;
    machine.source().release(&before.id).await.unwrap();
    let nowhere = QemuConfig { directory: Some("/nonexistent/folder".into()), ..machine.config() };
    let error =
        QemuSource::new(nowhere).freeze(&crate::machine::vm(), &crate::machine::job(2)).await.unwrap_err();
    assert!(error.chain().contains("blockdev-create"), "{}", error.chain());
    assert_eq!(machine.leavings().await, [""; 0]);
    assert_eq!(machine.bitmaps("n0").await.len(), 1);
}
