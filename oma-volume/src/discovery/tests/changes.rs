//! Disks come and go, and change their names, while somebody waits for them or is about to open them.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use futures_util::future::join;
use oma_core::traits::Access;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
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

/// A machine whose volume is `vdb`, beside a disk that does not answer who asks for its serial.
fn hung() -> Machine {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some(SERIAL));
    machine.plug("vdc", 2, None);
    let pipe = machine.at("sys/block/vdc/serial");
    mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    machine
}

/// Who is asked, from when somebody asks: as long as it is kept no answer comes.
async fn asked(machine: &Machine) -> File {
    let mut options = File::options();
    options.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    loop {
        match options.open(machine.at("sys/block/vdc/serial")) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {
                tokio::task::yield_now().await;
            }
            silent => return silent.unwrap(),
        }
    }
}

async fn is_given_up(what: &str, machine: &Machine, call: impl Future<Output = Result<()>> + Send + 'static) {
    let asks = tokio::spawn(call);
    let silent = asked(machine).await;
    tokio::time::advance(LONG).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(asks.is_finished(), "{what} waits for a disk that does not answer");
    let parts = ["10.0 s", "hangs", "kernel's log"];
    is(&asks.await.unwrap().unwrap_err(), ErrorKind::Unavailable, Retry::Later, &parts);
    drop(silent);
}

#[tokio::test]
async fn a_disk_that_hangs_holds_nobody_for_ever() {
    let (before, serial, within) = (Machine::new(), serial(), Duration::from_secs(1));
    before.plug("vdb", 1, Some(SERIAL));
    let found = before.found().await;
    tokio::time::pause();
    let [first, second, third, fourth, fifth] = [(); 5].map(|()| hung());
    let (tree, wanted) = (first.tree(), serial.clone());
    let call = async move { tree.appears(&wanted, SIZE, within).await.map(|_| ()) };
    is_given_up("attaching", &first, call).await;
    let (tree, wanted) = (second.tree(), serial.clone());
    let call = async move { tree.vanishes(&wanted, within).await };
    is_given_up("detaching", &second, call).await;
    let (tree, wanted) = (third.tree(), serial.clone());
    is_given_up("finding", &third, async move { tree.find(&wanted).await.map(|_| ()) }).await;
    let (tree, wanted) = (fourth.tree(), found.clone());
    is_given_up("checking", &fourth, async move { tree.check(&wanted, SIZE).await }).await;
    let tree = fifth.tree();
    let call = async move { tree.open(&found, SIZE, Access::ReadOnly).await.map(|_| ()) };
    is_given_up("opening", &fifth, call).await;
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
