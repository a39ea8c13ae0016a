//! Disks come and go, and change their names, while somebody waits for them or is about to open them.

use std::time::Duration;

use futures_util::future::join;
use oma_core::traits::Access;
use tokio::time::timeout;

use super::*;

/// Nothing here takes this long.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_happens_after_a_look_is_heard() {
    let machine = Machine::new();
    let watch = Watch::new(machine.folder.path()).unwrap();
    let steps: [&dyn Fn(); 4] = [
        &|| machine.plug("vdb", 1, None),
        &|| machine.write("sys/block/vdb/serial", SERIAL),
        &|| machine.link(&format!("virtio-{SERIAL}"), "vdb"),
        &|| machine.unplug("vdb"),
    ];
    for (number, step) in steps.into_iter().enumerate() {
        watch.arm().unwrap();
        step();
        timeout(LONG, watch.changed()).await.unwrap_or_else(|_| panic!("step {number} is heard")).unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_is_plugged_in_while_somebody_waits_is_found() {
    let machine = Machine::new();
    let tree = machine.tree();
    let serial = serial();
    let waits = tree.appears(&serial, SIZE, LONG);
    let plugs = async {
        tokio::task::yield_now().await;
        machine.plug("vdb", 1, Some(SERIAL));
    };
    let (found, ()) = join(waits, plugs).await;
    assert_eq!(found.unwrap().name, "vdb");
}

#[tokio::test]
async fn a_disk_that_grows_or_gets_its_node_while_somebody_waits_is_found() {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some(SERIAL));
    machine.write("sys/block/vdb/size", "1024");
    fs::remove_file(machine.at("dev/vdb")).unwrap();
    let (tree, serial) = (machine.tree(), serial());
    let grows = async {
        tokio::task::yield_now().await;
        machine.write("dev/vdb", vec![0; 1 << 20]);
        tokio::task::yield_now().await;
        machine.write("sys/block/vdb/size", "2048");
    };
    let (found, ()) = join(tree.appears(&serial, SIZE, LONG), grows).await;
    assert_eq!(found.unwrap().size, SIZE);
}

#[tokio::test]
async fn a_wait_in_vain_says_what_was_seen() {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some("ffffffffffffffffffff"));
    let waited = machine.tree().appears(&serial(), SIZE, Duration::ZERO).await.unwrap_err();
    let parts = ["0.0 s", "vdb (\"ffffffffffffffffffff\", 1048576 bytes)", "1 without", "attached"];
    is(&waited, ErrorKind::Unavailable, Retry::Later, &parts);
    machine.plug("vdc", 2, Some(SERIAL));
    machine.write("sys/block/vdc/size", "2056");
    let waited = machine.tree().appears(&serial(), SIZE, Duration::ZERO).await.unwrap_err();
    is(&waited, ErrorKind::Conflict, Retry::Never, &["dev/vdc", "1052672", "1048576"]);
}

#[tokio::test]
async fn a_disk_is_gone_when_no_disk_bears_its_serial_any_more() {
    let machine = Machine::new();
    let (tree, serial) = (machine.tree(), serial());
    tree.vanishes(&serial, Duration::ZERO).await.unwrap();
    machine.plug("vdb", 1, Some(SERIAL));
    machine.link(&format!("virtio-{SERIAL}"), "vdb");
    let waited = tree.vanishes(&serial, Duration::ZERO).await.unwrap_err();
    is(&waited, ErrorKind::Unavailable, Retry::Later, &["dev/vdb", "open"]);
    let unplugs = async {
        tokio::task::yield_now().await;
        machine.unplug("vdb");
    };
    join(tree.vanishes(&serial, LONG), unplugs).await.0.unwrap();
}

/// What happens to a machine whose volume is `vdb`.
type Change = (&'static str, fn(&Machine));

#[tokio::test]
async fn l05_a_disk_that_is_another_one_by_now_is_not_opened() {
    let changes: [Change; 5] = [
        ("gone", |machine| machine.unplug("vdb")),
        ("swapped letters", |machine| {
            machine.unplug("vdb");
            machine.plug("vdb", 1, Some("ffffffffffffffffffff"));
            machine.plug("vdc", 2, Some(SERIAL));
        }),
        ("another node", |machine| {
            let old = machine.at("dev/vdb");
            fs::rename(&old, machine.at("dev/old")).unwrap();
            fs::write(old, vec![0; 1 << 20]).unwrap();
        }),
        ("a recycled name", |machine| machine.write("sys/block/vdb/diskseq", "77")),
        ("another serial", |machine| machine.write("sys/block/vdb/serial", "ffffffffffffffffffff")),
    ];
    for (what, change) in changes {
        let machine = Machine::new();
        machine.plug("vdb", 1, Some(SERIAL));
        let found = machine.found().await;
        change(&machine);
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let refused = machine.tree().open(&found, SIZE, access).await.expect_err(what);
            assert_eq!(refused.kind(), ErrorKind::Conflict, "{what}: {}", refused.chain());
            assert_eq!(machine.tree().check(&found, SIZE).await.expect_err(what).kind(), ErrorKind::Conflict);
        }
    }
}

/// The moment between the last look and the open.
#[tokio::test]
async fn l05_what_was_opened_under_a_name_that_led_elsewhere_is_told_by_its_own_number() {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some(SERIAL));
    machine.plug("vdc", 2, None);
    let found = machine.found().await;
    let other = FileDevice::open(machine.at("dev/vdc"), Access::ReadWrite).await.unwrap();
    let refused = machine.tree().prove_open(&other, &found, SIZE).unwrap_err().about("open device", &"vdb");
    is(&refused, ErrorKind::Conflict, Retry::Later, &["when it was found", "find it again"]);
    let right = FileDevice::open(machine.at("dev/vdb"), Access::ReadWrite).await.unwrap();
    machine.tree().prove_open(&right, &found, SIZE).unwrap();
    // Its node has another size than the kernel says.
    let shorter = ByteSize::new(SIZE.bytes() - 512);
    machine.write("sys/block/vdb/size", "2047");
    let refused =
        machine.tree().prove_open(&right, &found, shorter).unwrap_err().about("open device", &"vdb");
    is(&refused, ErrorKind::Conflict, Retry::Never, &["1048576"]);
}

#[tokio::test]
async fn hosts_and_disks_are_told_to_look_again_where_that_is_asked_for() {
    let machine = Machine::new();
    machine.plug("sda", 1, None);
    machine.page("sda", SERIAL);
    machine.subsystem("sda", "scsi");
    machine.write("sys/block/sda/size", "1");
    for name in
        ["sys/class/scsi_host/host0/scan", "sys/class/scsi_host/host1/scan", "sys/block/sda/device/rescan"]
    {
        machine.write(name, "");
    }
    let told = || {
        ["sys/class/scsi_host/host0/scan", "sys/class/scsi_host/host1/scan", "sys/block/sda/device/rescan"]
            .map(|name| fs::read_to_string(machine.at(name)).unwrap())
    };
    machine.tree().appears(&serial(), SIZE, Duration::ZERO).await.unwrap_err();
    assert_eq!(told(), ["", "", ""]);
    machine.tree().with_rescan().appears(&serial(), SIZE, Duration::ZERO).await.unwrap_err();
    assert_eq!(told(), ["- - -", "- - -", "1"]);
}
