//! Sizes that are no whole blocks, and file systems on the devices.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::BytesMut;
use oma_core::conformance::{self, Requirement, Trial, sample};
use oma_core::engine::{CopyRequest, ReplicateConfig, Silent, VerifyLevel, copy};
use oma_core::traits::{Access, Durability, VolumeBackend, VolumeSpec, Zeroing};
use oma_core::{ByteSize, DiskKey, OperationId};
use oma_volume::device::FileDevice;

use super::{Place, attached, device_of, snapshot, spec, thin};

/// No multiple of a GiB, nor of 4096, nor of 512.
pub(super) const ODD: [u64; 3] = [(64 << 20) + (1 << 20), (64 << 20) + 512, (64 << 20) + 513];

pub(super) fn trials(needs: &[Requirement]) -> Vec<Trial> {
    let tools = [needs, &["mke2fs", "e2fsck", "losetup"].map(Requirement::Program)].concat();
    vec![
        conformance::trial("loop_backend::l13_a_device_has_every_byte_that_was_asked_for", needs, every_byte),
        conformance::trial(
            "loop_backend::l13_an_image_of_an_odd_size_grows_when_it_is_attached",
            needs,
            grows,
        ),
        conformance::trial("loop_backend::an_open_device_has_the_new_size_after_a_resize", needs, resized),
        conformance::trial(
            "loop_backend::l15_an_interrupted_resize_leaves_nothing_beyond_the_size",
            &tools,
            cut,
        ),
        conformance::trial("loop_backend::a_revert_leaves_the_device_where_it_is", needs, reverted),
        conformance::trial(
            "loop_backend::a_disk_of_any_size_is_replicated_onto_a_device_and_is_whole",
            &tools,
            copied,
        ),
        conformance::trial("loop_backend::a_file_system_is_made_on_a_device", &tools, formatted),
    ]
}

fn sized(bytes: u64) -> VolumeSpec {
    VolumeSpec { operation: OperationId::mint(), capacity: ByteSize::new(bytes), ..thin() }
}

async fn every_byte() {
    let place = Place::new();
    let (backend, files) = (place.open(), place.files());
    for bytes in [1, 511, 512, 513, 4095, 4096, 4097, (1 << 30) + 1] {
        let spec = sized(bytes);
        let volume = backend.create(&spec).await.unwrap();
        assert_eq!(volume.capacity.bytes(), bytes.next_multiple_of(4096));
        backend.attach(&volume.id, &spec.tag).await.unwrap();
        let device = backend.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap();
        assert_eq!(device.info().capacity, volume.capacity);
        device.write_at(bytes - 1, sample(bytes, 1), Durability::Durable).await.unwrap();
        drop(device);
        backend.detach(&volume.id, &spec.tag).await.unwrap();
        files.attach(&volume.id, &spec.tag).await.unwrap();
        let image = files.open(&volume.id, &spec.tag, Access::ReadOnly).await.unwrap();
        assert_eq!(image.read_at(bytes - 1, BytesMut::zeroed(1)).await.unwrap(), sample(bytes, 1), "{bytes}");
    }
}

async fn grows() {
    let place = Place::new();
    let (backend, files) = (place.open(), place.files());
    for bytes in [1, 513, (1 << 20) + 513] {
        let spec = sized(bytes);
        let volume = files.create(&spec).await.unwrap();
        assert_eq!(volume.capacity.bytes(), bytes);
        files.attach(&volume.id, &spec.tag).await.unwrap();
        let image = files.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap();
        image.write_at(bytes - 1, vec![7].into(), Durability::Durable).await.unwrap();
        drop(image);
        let attached = backend.attach(&volume.id, &spec.tag).await.unwrap();
        assert_eq!(attached.capacity.bytes(), bytes.next_multiple_of(4096));
        assert_eq!(files.get(&volume.id).await.unwrap().unwrap().capacity, attached.capacity);
        let device = backend.open(&volume.id, &spec.tag, Access::ReadOnly).await.unwrap();
        let rest = usize::try_from(attached.capacity.bytes() - bytes).unwrap();
        let tail = device.read_at(bytes - 1, BytesMut::zeroed(rest + 1)).await.unwrap();
        assert!(tail[0] == 7 && tail[1..].iter().all(|byte| *byte == 0), "{tail:?}");
    }
}

async fn resized() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    let grown = backend.resize(&volume.id, &tag, ByteSize::new((2 << 20) + 1)).await.unwrap();
    assert_eq!((grown.capacity.bytes(), &grown.device_path), ((2 << 20) + 4096, &volume.device_path));
    assert_eq!(sectors(&device_of(&grown)), (2 << 11) + 8);
    let device = backend.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(device.info().capacity, grown.capacity);
}

/// The image was made larger, the device too, or is yet to be made smaller again; others may have written there.
async fn cut() {
    for moment in ["image", "device", "taken back"] {
        let place = Place::new();
        let backend = place.open();
        let (volume, tag) = attached(&backend).await;
        let (path, device) = (place.volumes().join(format!("{}.raw", volume.id)), device_of(&volume));
        let image = File::options().write(true).open(path).unwrap();
        image.set_len(2 << 20).unwrap();
        if moment != "image" {
            run("losetup", &["--set-capacity"], &device);
            let beyond = File::options().write(true).open(&device).unwrap();
            beyond.write_all_at(&[7; 4096], 1 << 20).unwrap();
            beyond.sync_all().unwrap();
        }
        if moment == "taken back" {
            image.set_len(1 << 20).unwrap();
        }
        assert_eq!(place.open().attach(&volume.id, &tag).await.unwrap(), volume, "{moment}");
        assert_eq!(sectors(&device), 1 << 11, "{moment}");
        assert_eq!(image.metadata().unwrap().len(), 1 << 20, "{moment}");
        backend.resize(&volume.id, &tag, ByteSize::mib(2)).await.unwrap();
        let opened = backend.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
        let new = opened.read_at(1 << 20, BytesMut::zeroed(1 << 20)).await.unwrap();
        assert!(new.iter().all(|byte| *byte == 0), "{moment}");
    }
}

fn sectors(device: &Path) -> u64 {
    let path = Path::new("/sys/block").join(device.file_name().unwrap()).join("size");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

async fn reverted() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    let fill = async |seed| {
        let device = backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
        device.write_at(0, sample(seed, 1 << 20), Durability::Durable).await.unwrap();
    };
    fill(0).await;
    backend.snapshot(&snapshot(&spec(), 1)).await.unwrap();
    fill(7).await;
    assert_eq!(backend.revert(&volume.id, &tag, &snapshot(&spec(), 1)).await.unwrap(), volume);
    let mut content = vec![0; 1 << 20];
    File::open(device_of(&volume)).unwrap().read_exact_at(&mut content, 0).unwrap();
    assert!(content == sample(0, 1 << 20));
    assert_eq!(place.devices(), [device_of(&volume)]);
}

/// What a tool says of a device.
pub(super) fn run(program: &str, args: &[&str], path: &Path) {
    let done = Command::new(program).args(args).arg(path).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&said));
}

async fn copied() {
    let place = Place::new();
    let backend = place.open();
    for bytes in ODD {
        let disk = place.path("disk");
        File::create(&disk).unwrap().set_len(bytes).unwrap();
        run("mke2fs", &["-q", "-t", "ext4", "-d", env!("CARGO_MANIFEST_DIR")], &disk);
        let last = File::options().write(true).open(&disk).unwrap();
        // Beyond the last whole block of the file system, to the last byte of the disk.
        last.write_all_at(&[7; 1], bytes - 1).unwrap();
        let spec = sized(bytes);
        let volume = backend.create(&spec).await.unwrap();
        let volume = backend.attach(&volume.id, &spec.tag).await.unwrap();
        let target = backend.open(&volume.id, &spec.tag, Access::ReadWrite).await.unwrap();
        assert!(target.info().identity.0.starts_with("block:"));
        let request = CopyRequest {
            key: DiskKey::parse("disk").unwrap(),
            source: Arc::new(FileDevice::open(&disk, Access::ReadOnly).await.unwrap()),
            target,
            extents: None,
            blank: true,
            zeroing: Zeroing::Punch,
            limit: None,
            resume: None,
            repair: false,
            verify: VerifyLevel::Full,
            original: None,
        };
        let report = copy(&request, &ReplicateConfig::default(), &Silent, &Default::default()).await.unwrap();
        assert_eq!(report.bytes_verified, ByteSize::new(bytes));
        drop(request);
        run("e2fsck", &["-f", "-n"], &device_of(&volume));
        let mut end = [0];
        File::open(device_of(&volume)).unwrap().read_exact_at(&mut end, bytes - 1).unwrap();
        assert_eq!(end, [7]);
    }
}

async fn formatted() {
    let place = Place::new();
    let backend = place.open();
    let spec = sized(ODD[2]);
    let volume = backend.create(&spec).await.unwrap();
    let volume = backend.attach(&volume.id, &spec.tag).await.unwrap();
    let before = backend.content_stamp(&volume.id).await.unwrap();
    run("mke2fs", &["-q", "-t", "ext4"], &device_of(&volume));
    run("e2fsck", &["-f", "-n"], &device_of(&volume));
    assert_ne!(backend.content_stamp(&volume.id).await.unwrap(), before, "somebody wrote to it");
    backend.detach(&volume.id, &spec.tag).await.unwrap();
    run("e2fsck", &["-f", "-n"], &place.volumes().join(format!("{}.raw", volume.id)));
}
