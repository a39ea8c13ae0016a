//! The devices that an appliance sees.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use oma_core::ByteSize;
use oma_core::conformance::{self, Requirement, Trial};
use oma_core::traits::{Access, BlockDevice, Durability};
use oma_volume::discovery::{self, DeviceTree, Serial};
use uuid::Uuid;

use super::caller::Caller;
use super::fake::{Backing, Bus, Fake, Options, What, Wrong, serial};

pub(crate) fn trials() -> Vec<Trial> {
    let free = Command::new("losetup").arg("--find").output().is_ok_and(|done| done.status.success());
    let loops = [Requirement::Program("losetup"), Requirement::Feature("a loop device", free)];
    vec![
        conformance::trial("devices::a_serial_is_the_first_20_digits_of_the_uuid", &[], serials),
        conformance::trial("devices::an_attach_makes_a_device_and_a_detach_takes_it", &[], appears),
        conformance::trial(
            "devices::a_letter_follows_from_what_is_free_and_not_from_the_number",
            &[],
            letters,
        ),
        conformance::trial("devices::each_appliance_sees_its_own", &[], own),
        conformance::trial("devices::a_device_is_wrong_when_it_is_to_be", &[], wrong),
        conformance::trial("devices::discovery_proves_a_file_to_be_the_volume", &[], || {
            found(Backing::File, Bus::Virtio)
        }),
        conformance::trial("devices::discovery_proves_a_scsi_disk_to_be_the_volume", &[], || {
            found(Backing::File, Bus::Scsi)
        }),
        conformance::trial("devices::discovery_proves_a_loop_device_to_be_the_volume", &loops, || {
            found(Backing::Loop, Bus::Virtio)
        }),
        conformance::trial("devices::they_are_loop_devices_where_that_is_asked_for", &loops, looped),
    ]
}

/// The vector of CloudStack's own test.
async fn serials() {
    let volume = Uuid::parse_str("38400000-8cf0-11bd-b24e-10b96e4ef00d").unwrap();
    assert_eq!(serial(volume), "384000008cf011bdb24e");
}

async fn subject(backing: Backing) -> (Fake, Caller) {
    let fake = Fake::start(Options { backing, ..Options::default() }).await;
    let user = Caller::user(&fake);
    (fake, user)
}

/// A file of `/sys/block/NAME`.
fn fact(root: &Path, name: &str, file: &str) -> String {
    fs::read_to_string(root.join("sys/block").join(name).join(file)).unwrap().trim().to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn appears() {
    let (fake, user) = subject(Backing::File).await;
    let volume = user.create(&fake, "v", "2").await;
    let root = &fake.devices;
    assert_eq!(names(&root.join("sys/block")), ["vda"], "the system's");
    user.attach(&fake, volume).await.unwrap();
    assert_eq!(fake.device(volume).as_deref(), Some("vdb"));
    for (file, wanted) in [
        ("serial", serial(volume)),
        ("size", (4 << 20).to_string()),
        ("ro", "0".to_owned()),
        ("dev", "253:16".to_owned()),
    ] {
        assert_eq!(fact(root, "vdb", file), wanted);
    }
    let link = root.join("dev/disk/by-id").join(format!("virtio-{}", serial(volume)));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../vdb"));
    assert_eq!(link.metadata().unwrap().len(), 2 << 30);
    fs::write(root.join("dev/vdb"), "content").unwrap();
    user.detach(volume).await.unwrap();
    assert_eq!(names(&root.join("sys/block")), ["vda"]);
    assert_eq!(names(&root.join("dev")), ["disk", "vda"]);
    assert!(fs::symlink_metadata(&link).is_err());
    assert_eq!(fs::read(fake.content(volume)).unwrap(), b"content", "it is the volume's");
}

async fn letters() {
    let (fake, user) = subject(Backing::File).await;
    let mut volumes = Vec::new();
    for name in ["a", "b", "c"] {
        let volume = user.create(&fake, name, "1").await;
        user.attach(&fake, volume).await.unwrap();
        volumes.push(volume);
    }
    assert_eq!(fake.attached(fake.appliance).last(), Some(&(volumes[2], 4)));
    assert_eq!(fake.device(volumes[2]).as_deref(), Some("vdd"), "number 4 would be vde");
    user.detach(volumes[0]).await.unwrap();
    let fourth = user.create(&fake, "d", "1").await;
    let pairs = [
        ("id", fourth.to_string()),
        ("virtualmachineid", fake.appliance.to_string()),
        ("deviceid", "9".to_owned()),
    ];
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    user.job("attachVolume", &pairs).await.unwrap();
    assert_eq!(fake.device(fourth).as_deref(), Some("vdb"), "the letter of one that went");
}

async fn own() {
    let (fake, user) = subject(Backing::File).await;
    let (second, root) = fake.add_appliance("second");
    let volume = user.create(&fake, "v", "1").await;
    let (id, machine) = (volume.to_string(), second.to_string());
    user.job("attachVolume", &[("id", &id), ("virtualmachineid", &machine)]).await.unwrap();
    assert_eq!(fake.device(volume), None);
    assert_eq!(fact(&root, "vdb", "serial"), serial(volume));
}

async fn wrong() {
    let (fake, user) = subject(Backing::File).await;
    for wrong in [Wrong::Serial, Wrong::Size, Wrong::ReadOnly, Wrong::Empty, Wrong::Missing] {
        fake.fault("attachVolume", 0, 1, What::Device(wrong));
        let volume = user.create(&fake, "v", "2").await;
        user.attach(&fake, volume).await.unwrap();
        let root = &fake.devices;
        let seen = |file| fact(root, "vdb", file);
        match wrong {
            Wrong::Serial => assert_ne!(seen("serial"), serial(volume)),
            Wrong::Size => assert_eq!(seen("size"), (2 << 20).to_string()),
            Wrong::ReadOnly => assert_eq!(seen("ro"), "1"),
            Wrong::Empty => {
                assert_eq!(seen("size"), "0");
                assert_eq!(fs::metadata(root.join("dev/vdb")).unwrap().len(), 0);
            }
            Wrong::Missing => assert_eq!(names(&root.join("sys/block")), ["vda"]),
        }
        user.detach(volume).await.unwrap();
    }
    fake.fault("attachVolume", 0, 1, What::DeviceId);
    let volume = user.create(&fake, "v", "1").await;
    assert_eq!(user.attach(&fake, volume).await.unwrap()["volume"]["deviceid"], 2);
    assert_eq!(fake.attached(fake.appliance).last(), Some(&(volume, 1)), "the answer was wrong");
}

/// Our own look at devices, which was written without this fake.
async fn found(backing: Backing, bus: Bus) {
    let fake = Fake::start(Options { backing, bus, ..Options::default() }).await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    let tree = DeviceTree::new(&fake.devices);
    let wanted = Serial::of_volume(&volume.to_string()).unwrap();
    assert_eq!(tree.find(&wanted).await.unwrap(), None);
    let (appears, attached) = tokio::join!(
        tree.appears(&wanted, ByteSize::gib(1), Duration::from_secs(60)),
        user.attach(&fake, volume)
    );
    attached.unwrap();
    let device = appears.unwrap();
    let (name, found) = match bus {
        Bus::Virtio => ("vdb", discovery::Bus::Virtio),
        Bus::Scsi => ("sdb", discovery::Bus::Scsi),
    };
    assert_eq!((device.name.as_str(), device.bus), (name, found));
    let opened = tree.open(&device, ByteSize::gib(1), Access::ReadWrite).await.unwrap();
    opened.write_at(0, Bytes::from_static(&[7; 512]), Durability::Durable).await.unwrap();
    drop(opened);
    assert!(tree.check(&device, ByteSize::gib(2)).await.is_err());
    let gone = tree.vanishes(&wanted, Duration::from_secs(60));
    let (gone, detached) = tokio::join!(gone, user.detach(volume));
    detached.unwrap();
    gone.unwrap();
    let mut content = [0; 512];
    fs::File::open(fake.content(volume)).unwrap().read_exact(&mut content).unwrap();
    assert_eq!(content, [7; 512]);
}

async fn looped() {
    let (fake, user) = subject(Backing::Loop).await;
    let volume = user.create(&fake, "v", "1").await;
    user.attach(&fake, volume).await.unwrap();
    let device = fs::canonicalize(fake.devices.join("dev/vdb")).unwrap();
    assert!(device.metadata().unwrap().file_type().is_block_device());
    let name = device.file_name().unwrap().to_str().unwrap().to_owned();
    let at = |file: &str| fs::read_to_string(Path::new("/sys/block").join(&name).join(file)).unwrap();
    assert_eq!(at("size").trim(), (2 << 20).to_string());
    assert_eq!(fact(&fake.devices, "vdb", "dev"), at("dev").trim());
    let id = volume.to_string();
    user.job("resizeVolume", &[("id", &id), ("size", "2")]).await.unwrap();
    assert_eq!(at("size").trim(), (4 << 20).to_string());
    let path = at("loop/backing_file");
    user.detach(volume).await.unwrap();
    let gone = Path::new("/sys/block").join(&name).join("loop/backing_file");
    assert_ne!(fs::read_to_string(gone).unwrap_or_default(), path);
}
