//! A tree of devices, built in a folder.

mod changes;
mod refusals;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use oma_core::{ByteSize, Error, ErrorKind, Retry};
use tempfile::TempDir;

use super::*;

const VOLUME: &str = "38400000-8cf0-11bd-b24e-10b96e4ef00d";
const SERIAL: &str = "384000008cf011bdb24e";
const SIZE: ByteSize = ByteSize::mib(1);

/// A machine that runs from a partition of `vda`.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: TempDir::new().unwrap() };
        for name in ["sys/block", "dev/disk/by-id", "proc/self"] {
            fs::create_dir_all(machine.at(name)).unwrap();
        }
        machine.plug("vda", 0, None);
        machine.partition("vda", "vda1", "254:1");
        machine.write("proc/self/mountinfo", "27 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n");
        machine.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        machine
    }

    fn tree(&self) -> DeviceTree {
        DeviceTree::new(self.folder.path())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn add(&self, name: &str, line: &str) {
        let before = fs::read_to_string(self.at(name)).unwrap();
        self.write(name, format!("{before}{line}\n"));
    }

    /// A disk of one MiB, the `number`th.
    fn plug(&self, name: &str, number: u32, serial: Option<&str>) {
        self.write(&format!("dev/{name}"), vec![0; 1 << 20]);
        self.write(&format!("sys/block/{name}/size"), "2048\n");
        self.write(&format!("sys/block/{name}/ro"), "0\n");
        self.write(&format!("sys/block/{name}/diskseq"), format!("{}\n", number + 1));
        if let Some(serial) = serial {
            self.write(&format!("sys/block/{name}/serial"), serial);
        }
        self.write(&format!("sys/block/{name}/dev"), format!("254:{}\n", number * 16));
    }

    fn unplug(&self, name: &str) {
        fs::remove_dir_all(self.at(&format!("sys/block/{name}"))).unwrap();
        fs::remove_file(self.at(&format!("dev/{name}"))).unwrap();
    }

    fn partition(&self, disk: &str, name: &str, number: &str) {
        self.write(&format!("sys/block/{disk}/{name}/partition"), "1\n");
        self.write(&format!("sys/block/{disk}/{name}/dev"), number);
    }

    /// The page that a SCSI disk tells its serial in.
    fn page(&self, name: &str, serial: &str) {
        let mut page = vec![0, 0x80, 0, u8::try_from(serial.len()).unwrap()];
        page.extend(serial.as_bytes());
        self.write(&format!("sys/block/{name}/device/vpd_pg80"), page);
    }

    fn subsystem(&self, name: &str, subsystem: &str) {
        let folder = self.at(&format!("sys/block/{name}/device"));
        fs::create_dir_all(&folder).unwrap();
        symlink(format!("../../../bus/{subsystem}"), folder.join("subsystem")).unwrap();
    }

    fn link(&self, link: &str, disk: &str) {
        symlink(format!("../../{disk}"), self.at(&format!("dev/disk/by-id/{link}"))).unwrap();
    }

    async fn find(&self) -> Result<Option<FoundDevice>> {
        self.tree().find(&serial()).await
    }

    async fn found(&self) -> FoundDevice {
        self.find().await.unwrap().expect("the disk is there")
    }
}

fn serial() -> Serial {
    Serial::of_volume(VOLUME).unwrap()
}

#[track_caller]
fn is(error: &Error, kind: ErrorKind, retry: Retry, parts: &[&str]) {
    assert_eq!((error.kind(), error.retry()), (kind, retry), "{}", error.chain());
    for part in parts {
        assert!(error.chain().contains(part), "{part:?} is not in: {}", error.chain());
    }
}

#[tokio::test]
async fn a_virtio_disk_is_found_by_the_serial_that_it_tells() {
    let machine = Machine::new();
    assert_eq!(machine.find().await.unwrap(), None);
    machine.plug("vdb", 1, Some(SERIAL));
    machine.plug("vdc", 2, Some("ffffffffffffffffffff"));
    machine.subsystem("vdb", "virtio");
    let found = machine.found().await;
    assert_eq!(
        (&found.name[..], found.size, &found.serial, found.bus),
        ("vdb", SIZE, &serial(), Bus::Virtio)
    );
    assert_eq!(found.path, machine.at("dev/vdb"));
    machine.tree().check(&found, SIZE).await.unwrap();
}

#[tokio::test]
async fn a_scsi_disk_is_found_by_its_page_of_vital_product_data() {
    let machine = Machine::new();
    machine.plug("sda", 1, None);
    machine.subsystem("sda", "scsi");
    // As libata pads it, and as an operator may have typed it.
    for (vendor, serial, bus) in
        [("QEMU    ", SERIAL, Bus::Scsi), ("ATA     ", "384000008CF011BDB24E  ", Bus::Ata)]
    {
        machine.page("sda", serial);
        machine.write("sys/block/sda/device/vendor", vendor);
        assert_eq!((machine.found().await.bus, &machine.found().await.name[..]), (bus, "sda"));
    }
    machine.page("sda", &SERIAL[..19]);
    assert_eq!(machine.find().await.unwrap(), None, "not by a part of it");
}

#[tokio::test]
async fn a_disk_that_tells_no_serial_is_found_by_its_link() {
    for prefix in
        ["virtio-", "scsi-0QEMU_QEMU_HARDDISK_", "scsi-SQEMU_QEMU_HARDDISK_", "scsi-", "ata-QEMU_HARDDISK_"]
    {
        let machine = Machine::new();
        machine.plug("sda", 1, None);
        machine.link(&format!("{prefix}{SERIAL}-part1"), "sda");
        assert_eq!(machine.find().await.unwrap(), None, "a partition is no disk");
        machine.link(&format!("{prefix}{SERIAL}"), "sda");
        assert_eq!(machine.found().await.name, "sda");
    }
}

#[tokio::test]
async fn a_link_that_was_left_behind_proves_nothing() {
    let machine = Machine::new();
    machine.link(&format!("virtio-{SERIAL}"), "vdb");
    assert_eq!(machine.find().await.unwrap(), None, "it leads nowhere");
    machine.plug("vdb", 1, Some("ffffffffffffffffffff"));
    assert_eq!(machine.find().await.unwrap(), None, "the disk there tells another serial");
    machine.plug("vdc", 2, Some(SERIAL));
    assert_eq!(machine.found().await.name, "vdc");
}

#[tokio::test]
async fn two_disks_of_one_serial_are_a_conflict_that_names_both() {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some(SERIAL));
    machine.plug("sda", 2, None);
    machine.page("sda", SERIAL);
    let two = ["dev/vdb", "dev/sda", "detach one"];
    is(&machine.find().await.unwrap_err(), ErrorKind::Conflict, Retry::Never, &two);
    let wait = machine.tree().appears(&serial(), SIZE, Duration::from_secs(60)).await;
    is(&wait.unwrap_err(), ErrorKind::Conflict, Retry::Never, &two);
}

#[tokio::test]
async fn of_two_volumes_of_one_serial_only_who_knows_both_can_tell() {
    let (machine, twin) = (Machine::new(), "38400000-8cf0-11bd-b24e-ffffffffffff");
    machine.plug("vdb", 1, Some(Serial::of_volume(twin).unwrap().as_str()));
    assert_eq!(machine.found().await.name, "vdb", "there is no other disk to compare it with");
    let refused = Serial::of_volume_among(VOLUME, [VOLUME, twin]).unwrap_err();
    is(&refused, ErrorKind::Conflict, Retry::Never, &[twin, "cannot be told apart"]);
}

#[tokio::test]
async fn l21_a_disk_that_cannot_be_asked_may_be_the_one() {
    let machine = Machine::new();
    machine.plug("sda", 1, None);
    for page in [&[][..], &[0, 0x80, 0], &[0, 0x83, 0, 0]] {
        machine.write("sys/block/sda/device/vpd_pg80", page);
        let parts = ["dev/sda", "garbled"];
        is(&machine.find().await.unwrap_err(), ErrorKind::Unavailable, Retry::Later, &parts);
        let gone = machine.tree().vanishes(&serial(), Duration::ZERO).await;
        is(&gone.unwrap_err(), ErrorKind::Unavailable, Retry::Later, &parts);
    }
    machine.plug("vdb", 2, Some(SERIAL));
    assert_eq!(machine.found().await.name, "vdb");
}

/// Serials of ours are twenty digits.
#[tokio::test]
async fn a_disk_whose_serial_is_no_text_or_not_whole_is_another_one() {
    let machine = Machine::new();
    machine.plug("sda", 1, None);
    machine.link(&format!("scsi-{SERIAL}"), "sda");
    let cut = [&[0, 0x80, 0, 21][..], SERIAL.as_bytes()].concat();
    for page in [&[0, 0x80, 0, 1, 0xff][..], &[0, 0x80, 0, 9, b'1'], &[0, 0x80, 0xff, 0xff], &cut] {
        machine.write("sys/block/sda/device/vpd_pg80", page);
        assert_eq!(machine.find().await.unwrap(), None, "{page:?}");
        machine.tree().vanishes(&serial(), Duration::ZERO).await.unwrap();
    }
    machine.plug("vdb", 2, Some(SERIAL));
    assert_eq!(machine.found().await.name, "vdb");
}

#[tokio::test]
async fn l21_a_kernel_that_cannot_be_asked_does_not_say_that_there_is_no_disk() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.at("sys")).unwrap();
    is(&machine.find().await.unwrap_err(), ErrorKind::Unavailable, Retry::Never, &["sys/block", "mounted"]);
    machine.plug("vdb", 1, Some(SERIAL));
    machine.write("sys/block/vdb/size", "many");
    is(&machine.find().await.unwrap_err(), ErrorKind::Unavailable, Retry::Never, &["no size"]);
}

#[tokio::test]
async fn what_a_cloud_says_about_the_path_is_compared_with_the_disk() {
    let machine = Machine::new();
    machine.plug("vdb", 1, Some(SERIAL));
    let found = machine.found().await;
    for right in ["/dev/vdb", "vdb", " /dev/vdb\n", found.path.to_str().unwrap()] {
        assert_eq!(found.difference(right), None, "{right:?}");
    }
    for wrong in ["/dev/vde", "", "/dev/vdb1", "/dev"] {
        let difference = found.difference(wrong).unwrap().to_string();
        assert!(difference.contains(SERIAL) && difference.contains("dev/vdb"), "{difference}");
    }
}
