//! Disks of QEMU, found and waited for in the machine itself.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use oma_core::traits::{Access, BlockDevice, Durability};
use oma_core::{ByteSize, Error, ErrorKind};
use oma_volume::discovery::{Bus, DeviceTree, Serial};

use crate::inside::{Case, blocking, cases, well};

/// The size of every disk.
pub(crate) const SIZE: ByteSize = ByteSize::mib(16);
/// The size of those that grew.
pub(crate) const GROWN: ByteSize = ByteSize::mib(24);
/// Volumes whose disks are there from the start.
pub(crate) const VIRTIO: &str = "38400000-8cf0-11bd-b24e-10b96e4ef00d";
pub(crate) const GROWS: &str = "5d1e6a07-93b2-4c1f-8a55-0c9f2f6f9a01";
/// Two disks bear its serial.
pub(crate) const TWIN: &str = "c0ffee00-1234-4321-9abc-0123456789ab";
/// Disks that are plugged in later, and their volumes.
pub(crate) const HOT: [(&str, &str); 2] = [
    ("virtio-hot", "0f0e0d0c-0b0a-4908-8706-050403020100"),
    ("scsi-hot", "aabbccdd-eeff-4011-8022-334455667788"),
];
/// An emulated machine on a busy host takes its time.
const LONG: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    cases![
        disks_on_virtio_and_scsi_are_found_by_their_serials,
        l05_a_disk_that_is_mounted_or_swapped_to_is_refused,
        two_disks_of_one_serial_are_a_conflict,
        a_disk_that_is_plugged_in_is_heard_of_and_so_is_its_end,
        a_virtio_disk_that_grows_is_heard_of,
        a_scsi_disk_that_grew_is_told_to_look_again,
    ]
}

fn machine() -> DeviceTree {
    DeviceTree::new("/")
}

fn serial(volume: &str) -> Serial {
    Serial::of_volume(volume).unwrap()
}

/// Has the host do something, and waits until it did.
async fn ask(errand: String) {
    blocking(move || {
        println!("ask {errand}");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    })
    .await;
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", error.chain());
    for part in parts {
        assert!(error.chain().contains(part), "{part:?} is not in: {}", error.chain());
    }
}

async fn disks_on_virtio_and_scsi_are_found_by_their_serials() {
    for (volume, bus) in [(VIRTIO, Bus::Virtio), (GROWS, Bus::Scsi)] {
        let found = machine().find(&serial(volume)).await.unwrap().expect("it is there");
        assert_eq!((found.bus, found.size), (bus, SIZE), "{found:?}");
        machine().check(&found, SIZE).await.unwrap();
        refused(machine().check(&found, GROWN).await, ErrorKind::Conflict, &["16777216", "25165824"]);
        let device = machine().open(&found, SIZE, Access::ReadWrite).await.unwrap();
        device.write_at(4096, Bytes::from(volume), Durability::Durable).await.unwrap();
        drop(device);
        let device = machine().open(&found, SIZE, Access::ReadOnly).await.unwrap();
        assert_eq!(device.read_at(4096, BytesMut::zeroed(volume.len())).await.unwrap(), volume);
    }
    assert_eq!(machine().find(&serial(HOT[0].1)).await.unwrap(), None);
}

async fn l05_a_disk_that_is_mounted_or_swapped_to_is_refused() {
    let found = machine().find(&serial(VIRTIO)).await.unwrap().expect("it is there");
    let path = found.path.display();
    well(&format!("mke2fs {path} && mkdir -p /mnt && mount -t ext4 {path} /mnt")).await;
    refused(machine().check(&found, SIZE).await, ErrorKind::Busy, &["mounted at /mnt"]);
    refused(machine().open(&found, SIZE, Access::ReadWrite).await, ErrorKind::Busy, &["/mnt"]);
    refused(machine().appears(&found.serial, SIZE, LONG).await, ErrorKind::Busy, &["/mnt"]);
    well(&format!("umount /mnt && mkswap {path} && swapon {path}")).await;
    refused(machine().check(&found, SIZE).await, ErrorKind::Busy, &["swapoff"]);
    well(&format!("swapoff {path}")).await;
    machine().open(&found, SIZE, Access::ReadWrite).await.unwrap();
}

async fn two_disks_of_one_serial_are_a_conflict() {
    refused(machine().find(&serial(TWIN)).await, ErrorKind::Conflict, &["/dev/vd", "/dev/sd"]);
    refused(machine().appears(&serial(TWIN), SIZE, LONG).await, ErrorKind::Conflict, &["/dev/vd", "/dev/sd"]);
}

async fn a_disk_that_is_plugged_in_is_heard_of_and_so_is_its_end() {
    for (node, volume) in HOT {
        let (tree, serial) = (machine(), serial(volume));
        let (found, ()) = join(tree.appears(&serial, SIZE, LONG), ask(format!("plug {node}"))).await;
        let found = found.unwrap();
        drop(tree.open(&found, SIZE, Access::ReadWrite).await.unwrap());
        let (gone, ()) = join(tree.vanishes(&serial, LONG), ask(format!("unplug {node}"))).await;
        gone.unwrap();
        assert_eq!(tree.find(&serial).await.unwrap(), None);
        refused(
            tree.open(&found, SIZE, Access::ReadWrite).await,
            ErrorKind::Conflict,
            &["attach the volume"],
        );
    }
}

async fn a_virtio_disk_that_grows_is_heard_of() {
    let (tree, serial) = (machine(), serial(VIRTIO));
    let (found, ()) = join(tree.appears(&serial, GROWN, LONG), ask("grow first".to_owned())).await;
    assert_eq!(found.unwrap().size, GROWN);
}

async fn a_scsi_disk_that_grew_is_told_to_look_again() {
    let serial = serial(GROWS);
    ask("grow grows".to_owned()).await;
    let found = machine().with_rescan().appears(&serial, GROWN, LONG).await.unwrap();
    assert_eq!(found.size, GROWN);
}
