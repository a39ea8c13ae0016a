//! Device discovery over block devices, and what the kernel itself tells.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use oma_core::conformance::{self, DEVICE_CAPACITY, Trial};
use oma_core::traits::{Access, BlockDevice};
use oma_core::{ErrorKind, Retry};
use oma_volume::discovery::{DeviceTree, FoundDevice, Serial};
use tempfile::TempDir;

use super::block::Loop;

const VOLUME: &str = "38400000-8cf0-11bd-b24e-10b96e4ef00d";
const SERIAL: &str = "384000008cf011bdb24e";

pub(crate) fn trials() -> Vec<Trial> {
    let needs = super::block::needs();
    vec![
        conformance::trial(
            "discovery::a_block_device_is_proven_by_its_number_and_opened_alone",
            &needs,
            opened,
        ),
        conformance::trial("discovery::l05_a_node_with_another_number_is_refused", &needs, other_number),
        conformance::trial("discovery::a_uevent_of_the_kernel_wakes_who_waits", &needs, woken),
        conformance::trial("discovery::this_machine_has_no_disk_of_a_volume_that_is_not_there", &[], absent),
    ]
}

/// A tree whose `vdb` is a loop device under another name.
struct Tree {
    folder: TempDir,
    device: Loop,
}

impl Tree {
    fn new() -> Self {
        let device = Loop::new(TempDir::new().unwrap()).expect("a loop device was there before");
        let tree = Self { folder: TempDir::new().unwrap(), device };
        for name in ["sys/block/vdb/device", "dev", "proc/self"] {
            fs::create_dir_all(tree.at(name)).unwrap();
        }
        symlink(&tree.device.path, tree.at("dev/vdb")).unwrap();
        let number = fs::metadata(&tree.device.path).unwrap().rdev();
        let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
        fs::write(tree.at("sys/block/vdb/dev"), format!("{major}:{minor}\n")).unwrap();
        fs::write(tree.at("sys/block/vdb/size"), (DEVICE_CAPACITY.bytes() / 512).to_string()).unwrap();
        fs::write(tree.at("sys/block/vdb/serial"), SERIAL).unwrap();
        fs::write(tree.at("proc/self/mountinfo"), "").unwrap();
        tree
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn devices(&self) -> DeviceTree {
        DeviceTree::new(self.folder.path())
    }

    async fn found(&self) -> FoundDevice {
        self.devices().find(&serial()).await.unwrap().expect("it is there")
    }
}

fn serial() -> Serial {
    Serial::of_volume(VOLUME).unwrap()
}

async fn opened() {
    let tree = Tree::new();
    let found = tree.found().await;
    let device = tree.devices().open(&found, DEVICE_CAPACITY, Access::ReadWrite).await.unwrap();
    assert!(device.info().identity.0.starts_with("block:"), "{:?}", device.info());
    // As mount asks for it.
    let alone = || File::options().read(true).custom_flags(libc::O_EXCL).open(&tree.device.path);
    alone().unwrap_err();
    drop(device);
    let mounted = alone().unwrap();
    let refused = tree.devices().open(&found, DEVICE_CAPACITY, Access::ReadWrite).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{}", refused.chain());
    drop(mounted);
    tree.devices().open(&found, DEVICE_CAPACITY, Access::ReadWrite).await.unwrap();
}

async fn other_number() {
    let tree = Tree::new();
    let found = tree.found().await;
    fs::write(tree.at("sys/block/vdb/dev"), "254:16\n").unwrap();
    for refused in [
        tree.devices().find(&serial()).await.unwrap_err(),
        tree.devices().check(&found, DEVICE_CAPACITY).await.unwrap_err(),
        tree.devices().open(&found, DEVICE_CAPACITY, Access::ReadOnly).await.unwrap_err(),
    ] {
        assert_eq!((refused.kind(), refused.retry()), (ErrorKind::Conflict, Retry::Never));
        assert!(refused.chain().contains("254:16"), "{}", refused.chain());
    }
}

/// The size comes right in a way that nobody hears of: nothing but a uevent makes it look again.
async fn woken() {
    let tree = Tree::new();
    for (name, text) in [("subsystem", ""), ("rescan", ".")] {
        fs::write(tree.at("sys/block/vdb/device").join(name), text).unwrap();
    }
    fs::remove_file(tree.at("sys/block/vdb/device/subsystem")).unwrap();
    symlink("../../../../bus/scsi", tree.at("sys/block/vdb/device/subsystem")).unwrap();
    let mut size = File::options().write(true).open(tree.at("sys/block/vdb/size")).unwrap();
    size.write_all_at(b"0008", 0).unwrap();
    let devices = tree.devices().with_rescan();
    let waits =
        tokio::spawn(
            async move { devices.appears(&serial(), DEVICE_CAPACITY, Duration::from_secs(60)).await },
        );
    // Told to look again, it has been looked at.
    while fs::read_to_string(tree.at("sys/block/vdb/device/rescan")).unwrap() != "1" {
        tokio::task::yield_now().await;
    }
    size.write_all((DEVICE_CAPACITY.bytes() / 512).to_string().as_bytes()).unwrap();
    let _uevent = Loop::new(TempDir::new().unwrap()).unwrap();
    assert_eq!(waits.await.unwrap().unwrap().size, DEVICE_CAPACITY);
}

async fn absent() {
    let machine = DeviceTree::new("/");
    assert_eq!(machine.find(&serial()).await.unwrap(), None);
    machine.vanishes(&serial(), Duration::ZERO).await.unwrap();
    let waited = machine.appears(&serial(), DEVICE_CAPACITY, Duration::ZERO).await.unwrap_err();
    assert_eq!((waited.kind(), waited.retry()), (ErrorKind::Unavailable, Retry::Later), "{}", waited.chain());
    assert!(waited.chain().contains("seen: "), "{}", waited.chain());
}
