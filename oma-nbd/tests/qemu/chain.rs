//! Epochs: what changed between them, what stays, what is removed.

use oma_core::conformance::{Trial, trial};
use oma_core::traits::{Changes, DiskSource, PointInTime};
use oma_core::{ChangeId, ErrorKind, Extent, ExtentSet};
use oma_nbd::QemuSource;
use oma_nbd::qemu::{OtherPoints, QemuConfig};
use serde_json::json;

use crate::machine::{CAPACITY, Machine, NEEDS, freeze, job, key, mark, read, vm};
use crate::proxy::{Proxy, Trouble};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        &NEEDS;
        a_look_leaves_no_bitmap_and_no_gap_in_the_chain,
        what_a_killed_look_left_goes_with_the_next_freeze_of_its_owner,
        l20_what_a_job_left_is_released_by_its_name_and_nothing_of_others,
        uncommitted_epochs_are_in_the_union,
        older_bitmaps_go_only_when_a_later_one_is_committed,
        a_bitmap_stays_as_long_as_its_point_in_time,
        l10_what_the_guest_writes_while_the_point_in_time_is_made_is_told,
        l09_a_freeze_that_failed_after_its_point_in_time_keeps_the_chain,
        a_clean_end_keeps_the_chain_of_qcow2_and_loses_that_of_raw,
        l09_a_bitmap_that_an_operator_stopped_begins_a_new_chain,
        l09_a_bitmap_that_is_busy_or_gone_makes_changes_unknown,
        a_disk_that_grew_has_changed_where_it_grew,
        a_disk_that_grows_while_the_point_in_time_is_made_fails_the_freeze,
        a_point_in_time_of_a_disk_that_was_unplugged_is_made_anew,
        l20_two_owners_do_not_touch_each_others_bitmaps,
        points_left_over_by_other_jobs_of_the_owner_are_released_when_asked_for,
        a_released_machine_is_as_it_was,
        discover_tells_what_is_skipped,
        the_machine_is_known_by_its_uuid,
        a_device_without_an_id_is_known_by_its_drive,
        l04_a_writable_disk_without_a_name_that_lasts_is_refused,
    ]
}

async fn epoch(source: &QemuSource, number: u32) -> PointInTime {
    let point = freeze(source, number).await;
    source.release(&point.id).await.unwrap();
    point
}

/// What changed on a disk, in clusters of 64 KiB.
async fn clusters(source: &QemuSource, point: &PointInTime, disk: &str, since: &ChangeId) -> Vec<u64> {
    let changes = source.changed(&point.id, &key(disk), since).await.unwrap();
    let Changes::Since(extents) = changes else { panic!("{changes:?}") };
    let cluster = |extent: Extent| (extent.offset() >> 16)..(extent.end() >> 16);
    extents.iter().flat_map(cluster).collect()
}

async fn unknown(source: &QemuSource, point: &PointInTime, disk: &str, since: &ChangeId) -> String {
    match source.changed(&point.id, &key(disk), since).await.unwrap() {
        Changes::Unknown(reason) => reason,
        Changes::Since(extents) => panic!("{extents:?}"),
    }
}

async fn uncommitted_epochs_are_in_the_union() {
    let machine = Machine::start().await;
    let source = machine.source();
    let base = epoch(&source, 1).await;
    for number in 2..6u8 {
        for disk in ["disk0", "disk1"] {
            machine.write(disk, number, u64::from(number) << 16, 512).await;
        }
        epoch(&source, number.into()).await;
    }
    let last = freeze(&source, 9).await;
    machine.write("disk0", 9, 0, 512).await;
    for disk in ["disk0", "disk1"] {
        assert_eq!(clusters(&source, &last, disk, &mark(&base, disk)).await, [2, 3, 4, 5], "{disk}");
        let again = clusters(&source, &last, disk, &mark(&base, disk)).await;
        assert_eq!(again, [2, 3, 4, 5], "{disk}: what the guest writes later does not show");
        assert!(clusters(&source, &last, disk, &mark(&last, disk)).await.is_empty());
    }
}

async fn older_bitmaps_go_only_when_a_later_one_is_committed() {
    let machine = Machine::start().await;
    let source = machine.source();
    machine.ask("block-dirty-bitmap-add", json!({ "node": "n0", "name": "backup" })).await;
    let first = epoch(&source, 1).await;
    epoch(&source, 2).await;
    let third = epoch(&source, 3).await;
    let last = freeze(&source, 4).await;
    for asked in [&first, &third] {
        clusters(&source, &last, "disk0", &mark(asked, "disk0")).await;
    }
    assert_eq!(machine.bitmaps("n0").await.len(), 5, "whoever asks has not committed");
    source.committed(&last.id, &key("disk0"), &mark(&third, "disk0")).await.unwrap();
    let left = machine.bitmaps("n0").await;
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.contains(&"backup".to_owned()), "{left:?}");
    assert_eq!(machine.bitmaps("n1").await.len(), 4, "nobody asked for the other disk");
    assert!(unknown(&source, &last, "disk0", &mark(&first, "disk0")).await.contains("missing"));
}

async fn a_bitmap_stays_as_long_as_its_point_in_time() {
    let machine = Machine::start().await;
    let source = machine.source();
    epoch(&source, 1).await;
    let kept = freeze(&source, 2).await;
    let last = freeze(&source, 3).await;
    source.committed(&last.id, &key("disk0"), &mark(&last, "disk0")).await.unwrap();
    assert_eq!(machine.bitmaps("n0").await.len(), 2, "only that of the point that is gone goes");
    assert!(clusters(&source, &kept, "disk0", &mark(&kept, "disk0")).await.is_empty());
}

/// A freeze that waits at the first command of this name until something was done to the machine.
async fn freeze_while(
    machine: &Machine,
    command: &'static str,
    act: impl AsyncFnOnce(),
) -> oma_core::Result<PointInTime> {
    let held = Trouble::HoldBack(command);
    let proxy = Proxy::start(machine.socket("proxy"), &machine.socket("second"), &held);
    let slow = QemuSource::new(QemuConfig { qmp: proxy.socket.clone(), ..machine.config() });
    let (vm, job) = (vm(), job(7));
    let mut freeze = slow.freeze(&vm, &job);
    tokio::select! {
        ended = &mut freeze => panic!("it ended without {command}: {ended:?}"),
        () = proxy.held.notified() => {}
    }
    let acts = async {
        act().await;
        proxy.go_on.notify_one();
    };
    tokio::join!(freeze, acts).0
}

async fn l10_what_the_guest_writes_while_the_point_in_time_is_made_is_told() {
    let machine = Machine::start().await;
    let source = machine.source();
    let base = epoch(&source, 1).await;
    let write = async || machine.write("disk0", 3, 3 << 16, 512).await;
    let point = freeze_while(&machine, "blockdev-reopen", write).await.unwrap();
    assert_eq!(read(&source, &point.id, "disk0", 3 << 16).await, 3);
    assert_eq!(clusters(&source, &point, "disk0", &mark(&base, "disk0")).await, [3]);
    source.release(&point.id).await.unwrap();
    // Whoever has the point in time copies it once more.
    let next = freeze(&source, 8).await;
    assert_eq!(clusters(&source, &next, "disk0", &mark(&point, "disk0")).await, [3]);
}

async fn l09_a_freeze_that_failed_after_its_point_in_time_keeps_the_chain() {
    let machine = Machine::start().await;
    let source = machine.source();
    let base = epoch(&source, 1).await;
    // The views cannot be exported by the server of somebody else.
    crate::company::start_theirs(&machine).await;
    source.freeze(&vm(), &job(2)).await.unwrap_err();
    machine.ask("block-export-del", json!({ "id": "theirs", "mode": "hard" })).await;
    machine.ask("nbd-server-stop", json!({})).await;
    machine.write("disk0", 3, 3 << 16, 512).await;
    let point = freeze(&source, 3).await;
    assert_eq!(clusters(&source, &point, "disk0", &mark(&base, "disk0")).await, [3]);
}

async fn a_clean_end_keeps_the_chain_of_qcow2_and_loses_that_of_raw() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = epoch(&source, 1).await;
    machine.write("disk0", 1, 1 << 16, 512).await;
    machine.quit().await;
    machine.boot(&[]).await;
    machine.write("disk0", 2, 2 << 16, 512).await;
    let second = freeze(&source, 2).await;
    assert_eq!(clusters(&source, &second, "disk0", &mark(&first, "disk0")).await, [1, 2]);
    let reason = unknown(&source, &second, "disk1", &mark(&first, "disk1")).await;
    assert!(reason.contains("a new one has begun"), "{reason}");
    assert!(!mark(&second, "disk1").continues(&mark(&first, "disk1")));
}

async fn l09_a_bitmap_that_an_operator_stopped_begins_a_new_chain() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = epoch(&source, 1).await;
    let name = machine.bitmaps("n0").await.remove(0);
    machine.ask("block-dirty-bitmap-disable", json!({ "node": "n0", "name": name })).await;
    machine.write("disk0", 1, 0, 512).await;
    let second = freeze(&source, 2).await;
    unknown(&source, &second, "disk0", &mark(&first, "disk0")).await;
    assert_eq!(machine.bitmaps("n0").await.len(), 1, "the lost chain is removed");
}

async fn l09_a_bitmap_that_is_busy_or_gone_makes_changes_unknown() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = epoch(&source, 1).await;
    let name = machine.bitmaps("n0").await.remove(0);
    let second = freeze(&source, 2).await;
    let export = json!({
        "type": "nbd", "id": "theirs", "node-name": "n0", "writable": false, "bitmaps": [name.clone()],
    });
    machine.ask("block-export-add", export).await;
    let reason = unknown(&source, &second, "disk0", &mark(&first, "disk0")).await;
    assert!(reason.contains("in use"), "{reason}");
    machine.ask("block-export-del", json!({ "id": "theirs" })).await;
    while machine.leavings().await.is_empty()
        || machine.try_ask("block-dirty-bitmap-remove", json!({ "node": "n0", "name": name })).await.is_err()
    {
    }
    let reason = unknown(&source, &second, "disk0", &mark(&first, "disk0")).await;
    assert!(reason.contains("missing"), "{reason}");
}

async fn a_disk_that_grew_has_changed_where_it_grew() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = epoch(&source, 1).await;
    let grown = CAPACITY + (128 << 10);
    machine.ask("block_resize", json!({ "node-name": "n0", "size": grown })).await;
    let second = freeze(&source, 2).await;
    assert_eq!(second.disks[0].capacity.bytes(), grown);
    let clusters = clusters(&source, &second, "disk0", &mark(&first, "disk0")).await;
    assert_eq!(clusters, [CAPACITY >> 16, (CAPACITY >> 16) + 1]);
    let resized = machine.try_ask("block_resize", json!({ "node-name": "n0", "size": grown * 2 })).await;
    assert!(resized.is_err(), "no disk changes its size at a point in time");
}

async fn a_disk_that_grows_while_the_point_in_time_is_made_fails_the_freeze() {
    let machine = Machine::start().await;
    let grow = async || {
        let larger = json!({ "node-name": "n0", "size": CAPACITY * 2 });
        machine.ask("block_resize", larger).await;
    };
    let error = freeze_while(&machine, "blockdev-create", grow).await.unwrap_err();
    assert!(error.chain().contains("disk0"), "{}", error.chain());
    assert_eq!(machine.leavings().await.iter().filter(|name| *name != "proxy").count(), 0);
    assert_eq!(freeze(&machine.source(), 8).await.disks[0].capacity.bytes(), CAPACITY * 2);
}

async fn a_point_in_time_of_a_disk_that_was_unplugged_is_made_anew() {
    let machine = Machine::start().await;
    let source = machine.source();
    freeze(&source, 1).await;
    machine.ask("device_del", json!({ "id": "disk1" })).await;
    while machine.ask("query-block", json!({})).await.as_array().unwrap().len() > 1 {}
    machine.write("disk0", 9, 0, 512).await;
    let point = freeze(&source, 1).await;
    assert_eq!(point.disks.iter().map(|disk| disk.key.as_str()).collect::<Vec<_>>(), ["disk0"]);
    assert_eq!(read(&source, &point.id, "disk0", 0).await, 9, "it is a point in time of its own");
    source.release(&point.id).await.unwrap();
    assert_eq!(machine.leavings().await, [""; 0]);
}

async fn l20_two_owners_do_not_touch_each_others_bitmaps() {
    let machine = Machine::start().await;
    let ours = machine.source();
    let owner = oma_core::WorkerId::parse("oma-other").unwrap();
    let theirs = QemuSource::new(QemuConfig { owner, ..machine.config() });
    let (first, other) = (epoch(&ours, 1).await, epoch(&theirs, 2).await);
    machine.write("disk0", 1, 3 << 16, 512).await;
    for (source, since, number) in [(&ours, &first, 3), (&theirs, &other, 4)] {
        let point = freeze(source, number).await;
        assert_eq!(clusters(source, &point, "disk0", &mark(since, "disk0")).await, [3]);
        assert_eq!(clusters(source, &point, "disk0", &mark(&point, "disk0")).await, [0u64; 0]);
        source.committed(&point.id, &key("disk0"), &mark(&point, "disk0")).await.unwrap();
        source.release(&point.id).await.unwrap();
    }
    assert_eq!(machine.bitmaps("n0").await.len(), 2);
    let stranger = unknown(&theirs, &freeze(&theirs, 5).await, "disk0", &mark(&first, "disk0")).await;
    assert!(stranger.contains("a new one has begun"), "{stranger}");
}

async fn points_left_over_by_other_jobs_of_the_owner_are_released_when_asked_for() {
    let machine = Machine::start().await;
    let left = freeze(&machine.source(), 1).await;
    let owner = oma_core::WorkerId::parse("oma-other").unwrap();
    let release = |config| QemuSource::new(QemuConfig { other_points: OtherPoints::Release, ..config });
    let theirs = release(QemuConfig { owner, ..machine.config() });
    freeze(&theirs, 2).await;
    assert_eq!(read(&theirs, &left.id, "disk0", 0).await, 0, "the point of another owner is left alone");
    let ours = release(machine.config());
    let point = freeze(&ours, 3).await;
    assert!(ours.open(&left.id, &key("disk0")).await.is_err());
    assert_eq!(read(&ours, &point.id, "disk0", 0).await, 0);
}

async fn a_released_machine_is_as_it_was() {
    let machine = Machine::start().await;
    let source = machine.source();
    let before = machine.ask("query-block", json!({})).await;
    let points = [freeze(&source, 1).await, freeze(&source, 2).await, freeze(&source, 3).await];
    assert!(!machine.leavings().await.is_empty());
    for point in [&points[1], &points[0], &points[2]] {
        machine.write("disk0", 7, 0, 512).await;
        source.release(&point.id).await.unwrap();
    }
    assert_eq!(machine.leavings().await, [""; 0]);
    let after = machine.ask("query-block", json!({})).await;
    for (before, after) in before.as_array().unwrap().iter().zip(after.as_array().unwrap()) {
        assert_eq!(before["inserted"]["node-name"], after["inserted"]["node-name"]);
        assert_eq!(before["qdev"], after["qdev"]);
    }
    assert!(machine.sees("disk0", 7, 0, 512).await);
}

async fn discover_tells_what_is_skipped() {
    let machine = Machine::start().await;
    machine.quit().await;
    machine.img(&["create", "-q", "-f", "raw", "cd", "1M"]).await;
    let cd = [
        "-drive",
        "if=none,id=cd0,file=cd,format=raw,readonly=on",
        "-device",
        "scsi-cd,bus=scsi.0,drive=cd0,id=cd",
    ];
    machine.boot(&cd).await;
    let notes = machine.source().notes().await.unwrap();
    assert!(notes.iter().any(|note| note.contains("not replicated: cd: it is read-only")), "{notes:?}");
    assert!(notes.iter().any(|note| note.starts_with("disk1: raw stores no dirty bitmaps")), "{notes:?}");
    let found = machine.source().discover(&vm()).await.unwrap();
    let keys: Vec<_> = found.disks.iter().map(|disk| disk.key.as_str()).collect();
    assert_eq!(keys, ["disk0", "disk1"]);
    let whole: ExtentSet = Extent::between(0, CAPACITY).into_iter().collect();
    assert_eq!(found.disks[0].capacity, whole.bytes());
}

async fn the_machine_is_known_by_its_uuid() {
    let machine = Machine::start().await;
    let found = machine.source().discover(&vm()).await.unwrap();
    assert_eq!(found.identity.instance_uuid.as_str(), "7f2ac9a4-21a4-4b32-9c04-3a1d3b3c9d10");
    assert_eq!(found.identity.endpoint.as_str(), "qemu");
    let elsewhere = QemuSource::new(QemuConfig { qmp: machine.socket("second"), ..machine.config() });
    assert_eq!(elsewhere.discover(&vm()).await.unwrap().identity, found.identity);
}

async fn a_device_without_an_id_is_known_by_its_drive() {
    let machine = Machine::start().await;
    machine.quit().await;
    machine.img(&["create", "-q", "-f", "qcow2", "legacy", "1M"]).await;
    machine
        .boot(&["-drive", "if=none,id=drive2,file=legacy,format=qcow2", "-device", "ide-hd,drive=drive2"])
        .await;
    let source = machine.source();
    let first = epoch(&source, 1).await;
    machine.write("device[", 3, 0, 512).await;
    let second = freeze(&source, 2).await;
    assert_eq!(read(&source, &second.id, "drive2", 0).await, 3);
    assert_eq!(clusters(&source, &second, "drive2", &mark(&first, "drive2")).await, [0]);
    source.release(&second.id).await.unwrap();
    assert_eq!(machine.leavings().await, [""; 0]);
    assert!(machine.sees("device[", 3, 0, 512).await);
}

async fn l04_a_writable_disk_without_a_name_that_lasts_is_refused() {
    let machine = Machine::start().await;
    machine.quit().await;
    machine.img(&["create", "-q", "-f", "qcow2", "nameless", "1M"]).await;
    let blockdev = "qcow2,node-name=n2,file.driver=file,file.filename=nameless";
    machine.boot(&["-blockdev", blockdev, "-device", "ide-hd,drive=n2"]).await;
    let found = machine.source().discover(&vm()).await.unwrap();
    assert_eq!(found.disks[2].key, key("n2"), "the name of its node lasts");
    machine.quit().await;
    machine.boot(&["-drive", "if=virtio,file=nameless,format=qcow2"]).await;
    // QEMU names it `virtio0`, by its place on the command line.
    let error = machine.source().discover(&vm()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    assert!(error.chain().contains("give its device an id"), "{}", error.chain());
}

fn looking(machine: &Machine) -> QemuSource {
    QemuSource::new(QemuConfig { tracks: false, ..machine.config() })
}

async fn a_look_leaves_no_bitmap_and_no_gap_in_the_chain() {
    let machine = Machine::start().await;
    let source = machine.source();
    let first = freeze(&source, 1).await;
    source.release(&first.id).await.unwrap();
    machine.write("disk0", 1, 0, 1 << 16).await;
    for number in 10..13 {
        let look = freeze(&looking(&machine), number).await;
        machine.write("disk0", 2, u64::from(number) << 16, 1 << 16).await;
        assert_eq!(read(&looking(&machine), &look.id, "disk0", 0).await, 1);
        looking(&machine).release(&look.id).await.unwrap();
        assert_eq!((machine.leavings().await, machine.bitmaps("n0").await.len()), (vec![], 1));
    }
    let second = freeze(&source, 2).await;
    let changes = source.changed(&second.id, &key("disk0"), &mark(&first, "disk0")).await.unwrap();
    assert!(matches!(&changes, Changes::Since(extents) if extents.bytes().bytes() == 4 << 16), "{changes:?}");
}

async fn what_a_killed_look_left_goes_with_the_next_freeze_of_its_owner() {
    let machine = Machine::start().await;
    freeze(&looking(&machine), 10).await;
    let jobs = QemuConfig { other_points: OtherPoints::Release, ..machine.config() };
    let point = freeze(&QemuSource::new(jobs), 1).await;
    assert_eq!(machine.bitmaps("n0").await.len(), 1, "that of the job");
    machine.source().release(&point.id).await.unwrap();
    assert_eq!(machine.leavings().await, [""; 0]);
}

async fn l20_what_a_job_left_is_released_by_its_name_and_nothing_of_others() {
    let machine = Machine::start().await;
    let source = machine.source();
    let (left, other) = (freeze(&source, 1).await, freeze(&source, 2).await);
    machine.write("disk0", 5, 0, 512).await;
    for _ in 0..2 {
        source.release_job(&job(1)).await.unwrap();
    }
    assert!(source.open(&left.id, &key("disk0")).await.is_err());
    assert_eq!(read(&source, &other.id, "disk0", 0).await, 0, "the point of another job stays");
    let changes = source.changed(&other.id, &key("disk0"), &mark(&left, "disk0")).await.unwrap();
    assert!(matches!(&changes, Changes::Since(_)), "what tells changes stays: {changes:?}");
    source.release_job(&job(2)).await.unwrap();
    assert_eq!(machine.leavings().await, [""; 0]);
}
