//! A disk that is somebody's, or is not as it should be, is refused, with advice.

use super::*;
use oma_core::traits::Access;

/// What was done to a machine whose volume is `vdb` with the partition `vdb1`, and what it is refused as.
type Refusal<'a> = (&'a str, fn(&Machine), ErrorKind, &'a [&'a str]);

const REFUSALS: [Refusal<'_>; 18] = [
    (
        "smaller",
        |m| m.write("sys/block/vdb/size", "2047"),
        ErrorKind::Conflict,
        &["1048064", "1048576", "rescan"],
    ),
    ("larger", |m| m.write("sys/block/vdb/size", "2049"), ErrorKind::Conflict, &["1049088"]),
    ("read-only", |m| m.write("sys/block/vdb/ro", "1\n"), ErrorKind::PermissionDenied, &["read-only"]),
    ("mounted", |m| mount(m, "254:16", "/data", "/dev/vdb"), ErrorKind::Busy, &["vdb", "/data", "unmount"]),
    ("a part mounted", |m| mount(m, "254:17", "/data", "/dev/x"), ErrorKind::Busy, &["vdb1", "/data"]),
    ("btrfs", |m| mount(m, "0:44", "/data", "/dev/vdb1"), ErrorKind::Busy, &["vdb1", "/data"]),
    ("swap", |m| m.add("proc/swaps", "/dev/vdb partition 9 0 -2"), ErrorKind::Busy, &["vdb", "swapoff"]),
    ("a part swap", |m| m.add("proc/swaps", "/dev/vdb1 partition 9 0 -2"), ErrorKind::Busy, &["vdb1"]),
    ("root", |m| root(m, "254:16"), ErrorKind::PermissionDenied, &["runs from vdb"]),
    ("root on a part", |m| root(m, "254:17"), ErrorKind::PermissionDenied, &["runs from vdb"]),
    (
        "root above",
        |m| {
            above(m, "vdb/vdb1");
            root(m, "253:0");
        },
        ErrorKind::PermissionDenied,
        &["runs from vdb"],
    ),
    (
        "root high above",
        |m| {
            high(m);
            root(m, "9:0");
        },
        ErrorKind::PermissionDenied,
        &["runs from vdb"],
    ),
    ("held", |m| above(m, "vdb"), ErrorKind::Busy, &["vdb", "dm-0", "vgchange"]),
    ("a part held", |m| above(m, "vdb/vdb1"), ErrorKind::Busy, &["dm-0"]),
    ("held, told by the holder", below, ErrorKind::Busy, &["md0"]),
    (
        "held and mounted",
        |m| {
            above(m, "vdb");
            mount(m, "253:0", "/srv", "x");
        },
        ErrorKind::Busy,
        &["dm-0", "/srv"],
    ),
    ("a loop device on a part", looped, ErrorKind::Busy, &["loop0", "losetup"]),
    ("no node", |m| fs::remove_file(m.at("dev/vdb")).unwrap(), ErrorKind::Unavailable, &["dev/vdb", "udev"]),
];

fn mount(machine: &Machine, number: &str, place: &str, source: &str) {
    machine.add("proc/self/mountinfo", &format!("40 27 {number} / {place} rw shared:1 - ext4 {source} rw"));
}

fn root(machine: &Machine, number: &str) {
    machine.write("proc/self/mountinfo", format!("27 1 {number} / / rw - ext4 /dev/root rw\n"));
}

/// `dm-0` on a disk or partition.
fn above(machine: &Machine, lower: &str) {
    machine.plug("dm-0", 9, None);
    machine.write("sys/block/dm-0/dev", "253:0");
    machine.write(&format!("sys/block/{lower}/holders/dm-0"), "");
}

/// `md0` on `dm-0` on a partition.
fn high(machine: &Machine) {
    above(machine, "vdb/vdb1");
    machine.plug("md0", 8, None);
    machine.write("sys/block/md0/dev", "9:0");
    machine.write("sys/block/md0/slaves/dm-0", "");
}

fn below(machine: &Machine) {
    machine.plug("md0", 8, None);
    machine.write("sys/block/md0/slaves/vdb1", "");
}

fn looped(machine: &Machine) {
    machine.plug("loop0", 8, None);
    machine.write("sys/block/loop0/loop/backing_file", "/dev/vdb1\n");
    machine.plug("loop1", 9, None);
    machine.write("sys/block/loop1/loop/backing_file", "/srv/dev/vdb1\n");
}

fn machine() -> Machine {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some(SERIAL));
    machine.partition("vdb", "vdb1", "254:17");
    machine
}

#[tokio::test]
async fn l05_a_disk_that_is_somebodys_or_not_as_it_should_be_is_refused_with_advice() {
    for (what, change, kind, parts) in REFUSALS {
        let machine = machine();
        let found = machine.found().await;
        machine.tree().check(&found, SIZE).await.unwrap();
        change(&machine);
        let retry = if kind == ErrorKind::Unavailable { Retry::Later } else { Retry::Never };
        let refused = machine.tree().check(&found, SIZE).await.expect_err(what);
        is(&refused, kind, retry, parts);
        assert_eq!(machine.tree().open(&found, SIZE, Access::ReadWrite).await.unwrap_err().kind(), kind);
        // Found only now, it is refused as well.
        let appeared = machine.tree().appears(&serial(), SIZE, Duration::ZERO).await.expect_err(what);
        is(&appeared, kind, retry, parts);
    }
}

#[tokio::test]
async fn what_others_use_keeps_no_volume_from_being_used() {
    let machine = machine();
    machine.plug("vdc", 2, None);
    above(&machine, "vdc");
    mount(&machine, "253:0", "/srv", "/dev/mapper/x");
    mount(&machine, "0:21", "/proc", "proc");
    let place = machine.at("proc/self/mountinfo");
    let odd = [&fs::read(&place).unwrap()[..], b"41 27 0:50 / /mnt/\xff rw - tmpfs none rw\n"].concat();
    fs::write(place, odd).unwrap();
    machine.add("proc/swaps", "/dev/vdc partition 9 0 -2");
    machine.tree().check(&machine.found().await, SIZE).await.unwrap();
    fs::remove_file(machine.at("proc/swaps")).unwrap();
    machine.tree().check(&machine.found().await, SIZE).await.unwrap();
}

#[tokio::test]
async fn l21_when_mounts_cannot_be_asked_no_disk_is_free() {
    let machine = machine();
    let found = machine.found().await;
    fs::remove_file(machine.at("proc/self/mountinfo")).unwrap();
    let refused = machine.tree().check(&found, SIZE).await.unwrap_err();
    is(&refused, ErrorKind::Unavailable, Retry::Never, &["mountinfo"]);
}

#[tokio::test]
async fn a_read_only_disk_may_be_read() {
    let machine = machine();
    machine.write("sys/block/vdb/ro", "1");
    let found = machine.found().await;
    machine.tree().open(&found, SIZE, Access::ReadOnly).await.unwrap();
}

#[tokio::test]
async fn l06_a_disk_that_is_open_is_busy() {
    let machine = machine();
    let found = machine.found().await;
    let device = machine.tree().open(&found, SIZE, Access::ReadWrite).await.unwrap();
    assert_eq!(device.info().capacity, SIZE);
    let second = machine.tree().open(&found, SIZE, Access::ReadWrite).await.unwrap_err();
    is(&second, ErrorKind::Busy, Retry::Later, &["dev/vdb"]);
}
