//! Disks come and go, and change their names, while somebody waits for them or is about to open them.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join;
use oma_core::traits::Access;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
use tokio::time::timeout;

use super::super::asked::ANSWER;
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
    machine.plug("vdc", 2, Some(""));
    hang(&machine);
    machine
}

fn hang(machine: &Machine) {
    never_answers(machine, "serial");
}

fn never_answers(machine: &Machine, file: &str) {
    let pipe = machine.at(&format!("sys/block/vdc/{file}"));
    fs::remove_file(&pipe).unwrap();
    mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Who is asked, from when somebody asks: as long as it is kept no answer comes.
async fn asked(machine: &Machine, file: &str) -> File {
    let mut options = File::options();
    options.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    loop {
        match options.open(machine.at(&format!("sys/block/vdc/{file}"))) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {
                tokio::task::yield_now().await;
            }
            silent => return silent.unwrap(),
        }
    }
}

/// What is found of a serial while `vdc` does not answer, and the disk, as long as it shall not. No more time goes by than it takes.
async fn finds(machine: &Machine, tree: &DeviceTree, wanted: &Serial) -> (Result<Option<FoundDevice>>, File) {
    tokio::time::pause();
    let (at, serial) = (tree.clone(), wanted.clone());
    let find = tokio::spawn(async move { at.find(&serial).await });
    let silent = asked(machine, "serial").await;
    // The others shall not be late: they answer before time goes by.
    while tree.serials.open() > 1 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(ANSWER + Duration::from_secs(1)).await;
    let found = find.await.unwrap();
    tokio::time::resume();
    (found, silent)
}

fn other() -> Serial {
    Serial::of_volume("ffffffff-ffff-ffff-ffff-000000000000").unwrap()
}

#[tokio::test]
async fn a_disk_that_hangs_is_in_no_other_ones_way() {
    let machine = hung();
    let tree = machine.tree();
    let (found, _silent) = finds(&machine, &tree, &serial()).await;
    let found = found.unwrap().unwrap();
    assert_eq!(found.name, "vdb");
    // It hangs still, and is not waited for again.
    let begun = Instant::now();
    assert_eq!(tree.appears(&serial(), SIZE, LONG).await.unwrap(), found);
    tree.check(&found, SIZE).await.unwrap();
    let device = tree.open(&found, SIZE, Access::ReadWrite).await.unwrap();
    assert_eq!(device.info().capacity, SIZE);
    assert!(begun.elapsed() < ANSWER);
}

#[tokio::test]
async fn l21_a_disk_that_hangs_may_be_the_one_that_is_looked_for() {
    let (machine, now) = (hung(), Duration::ZERO);
    let tree = machine.tree();
    let (found, _silent) = finds(&machine, &tree, &other()).await;
    for error in [
        found.map(drop).unwrap_err(),
        tree.find(&other()).await.map(drop).unwrap_err(),
        tree.vanishes(&other(), now).await.unwrap_err(),
        tree.appears(&other(), SIZE, now).await.map(drop).unwrap_err(),
    ] {
        is(&error, ErrorKind::Unavailable, Retry::Later, &["dev/vdc", "hangs", "5 s", "kernel's log"]);
    }
}

/// It told its serial before.
#[tokio::test]
async fn of_a_disk_that_began_to_hang_it_is_known_which_one_it_is() {
    let (machine, now) = (Machine::new(), Duration::ZERO);
    machine.plug("vdc", 2, Some(SERIAL));
    let tree = machine.tree();
    let found = tree.find(&serial()).await.unwrap().unwrap();
    hang(&machine);
    let (none, _silent) = finds(&machine, &tree, &other()).await;
    assert_eq!(none.unwrap(), None, "it is another one");
    tree.vanishes(&other(), now).await.unwrap();
    for error in [
        tree.find(&serial()).await.map(drop).unwrap_err(),
        tree.vanishes(&serial(), now).await.unwrap_err(),
        tree.open(&found, SIZE, Access::ReadOnly).await.map(drop).unwrap_err(),
    ] {
        is(&error, ErrorKind::Unavailable, Retry::Later, &["dev/vdc", "hangs"]);
    }
}

/// Detached by hand while it hung and attached again, the volume has a second disk; the first one may write what it still holds.
#[tokio::test]
async fn l05_a_disk_beside_one_that_told_its_serial_before_it_hung_is_one_of_two() {
    let (machine, now) = (Machine::new(), Duration::ZERO);
    machine.plug("vdb", 1, Some(SERIAL));
    let next = machine.found().await;
    machine.write("sys/block/vdb/serial", other().as_str());
    machine.plug("vdc", 2, Some(SERIAL));
    let tree = machine.tree();
    assert_eq!(tree.find(&serial()).await.unwrap().unwrap().name, "vdc");
    hang(&machine);
    machine.write("sys/block/vdb/serial", SERIAL);
    let (found, _silent) = finds(&machine, &tree, &serial()).await;
    for error in [
        found.map(drop).unwrap_err(),
        tree.appears(&serial(), SIZE, now).await.map(drop).unwrap_err(),
        tree.check(&next, SIZE).await.unwrap_err(),
        tree.open(&next, SIZE, Access::ReadWrite).await.map(drop).unwrap_err(),
    ] {
        is(&error, ErrorKind::Conflict, Retry::Never, &["dev/vdb", "dev/vdc", "detach one"]);
    }
    tree.vanishes(&serial(), now).await.unwrap_err();
}

/// Before Linux 5.15.
fn uncounted() -> Machine {
    let machine = hung();
    for name in ["vda", "vdb", "vdc"] {
        fs::remove_file(machine.at(&format!("sys/block/{name}/diskseq"))).unwrap();
    }
    machine
}

/// How often this process has a file open.
fn open_files(path: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|file| fs::read_link(file.path()).is_ok_and(|file| file == path)).count()
}

#[tokio::test]
async fn a_disk_without_a_count_that_hangs_is_asked_by_one_thread() {
    let machine = uncounted();
    let tree = machine.tree();
    let (found, _silent) = finds(&machine, &tree, &other()).await;
    let begun = Instant::now();
    is(&found.map(drop).unwrap_err(), ErrorKind::Unavailable, Retry::Later, &["dev/vdc", "hangs"]);
    for _ in 0..3 {
        let error = tree.clone().find(&other()).await.unwrap_err();
        is(&error, ErrorKind::Unavailable, Retry::Later, &["dev/vdc", "hangs"]);
        assert_eq!(tree.find(&serial()).await.unwrap().unwrap().name, "vdb", "it is in no other one's way");
    }
    assert!(begun.elapsed() < ANSWER, "it is not waited for again");
    let pipe = fs::canonicalize(machine.at("sys/block/vdc/serial")).unwrap();
    assert_eq!(open_files(&pipe), 2, "who asks, and who is asked");
}

/// It may be an earlier disk's.
#[tokio::test(start_paused = true)]
async fn without_a_count_a_late_answer_is_not_believed_by_who_looked_later() {
    let machine = uncounted();
    let (tree, root) = (machine.tree(), machine.folder.path());
    let (mut first, mut second) = (Disks::look(root).unwrap(), Disks::look(root).unwrap());
    {
        let (mut one, mut two) =
            (Box::pin(tree.serials.ask(root, &mut first)), Box::pin(tree.serials.ask(root, &mut second)));
        assert!((&mut one).now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!((&mut two).now_or_never().is_none());
        let mut silent = asked(&machine, "serial").await;
        fs::remove_file(machine.at("sys/block/vdc/serial")).unwrap();
        machine.write("sys/block/vdc/serial", SERIAL);
        silent.write_all(other().as_str().as_bytes()).unwrap();
        drop(silent);
        join(one, two).await;
    }
    let told = |disks: &Disks| {
        let disk = disks.iter().find(|disk| disk.name == "vdc").unwrap();
        disk.serial.as_ref().unwrap().clone().unwrap()
    };
    assert_eq!((&told(&first)[..], &told(&second)[..]), (other().as_str(), SERIAL));
}

/// With another count it is another disk.
#[tokio::test]
async fn the_next_disk_of_its_name_is_asked_anew() {
    let machine = hung();
    let tree = machine.tree();
    let (found, _silent) = finds(&machine, &tree, &other()).await;
    found.unwrap_err();
    fs::remove_file(machine.at("sys/block/vdc/serial")).unwrap();
    machine.plug("vdc", 7, Some(other().as_str()));
    assert_eq!(tree.find(&other()).await.unwrap().unwrap().name, "vdc");
}

#[tokio::test]
async fn a_disk_that_answers_at_last_is_asked_again() {
    let machine = hung();
    let tree = machine.tree();
    let (found, silent) = finds(&machine, &tree, &other()).await;
    found.unwrap_err();
    fs::remove_file(machine.at("sys/block/vdc/serial")).unwrap();
    machine.write("sys/block/vdc/serial", other().as_str());
    assert!(tree.find(&other()).await.is_err(), "the first question is open");
    drop(silent);
    while tree.find(&other()).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tree.find(&other()).await.unwrap().unwrap().name, "vdc");
}

/// What the kernel tells by itself.
#[tokio::test]
async fn a_kernel_that_does_not_answer_holds_nobody_for_ever() {
    let machine = Machine::new();
    machine.plug("vdc", 2, Some(SERIAL));
    never_answers(&machine, "size");
    tokio::time::pause();
    let tree = machine.tree();
    let find = tokio::spawn(async move { tree.find(&serial()).await });
    let _silent = asked(&machine, "size").await;
    tokio::time::advance(LONG).await;
    let parts = ["10.0 s", "kernel does not answer", "log"];
    is(&find.await.unwrap().unwrap_err(), ErrorKind::Unavailable, Retry::Later, &parts);
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
    let disks = machine.tree().disks().await.unwrap();
    let other = FileDevice::open(machine.at("dev/vdc"), Access::ReadWrite).await.unwrap();
    let refused =
        machine.tree().prove_open(&disks, &other, &found, SIZE).unwrap_err().about("open device", &"vdb");
    is(&refused, ErrorKind::Conflict, Retry::Later, &["when it was found", "find it again"]);
    let right = FileDevice::open(machine.at("dev/vdb"), Access::ReadWrite).await.unwrap();
    machine.tree().prove_open(&disks, &right, &found, SIZE).unwrap();
    // Its node has another size than the kernel says.
    let shorter = ByteSize::new(SIZE.bytes() - 512);
    machine.write("sys/block/vdb/size", "2047");
    let disks = machine.tree().disks().await.unwrap();
    let refused =
        machine.tree().prove_open(&disks, &right, &found, shorter).unwrap_err().about("open device", &"vdb");
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
