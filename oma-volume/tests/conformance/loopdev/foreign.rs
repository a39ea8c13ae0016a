//! Others who have the image or the device.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::BytesMut;
use oma_core::conformance::{self, Requirement, Trial, sample};
use oma_core::traits::{Access, Durability, SnapshotSpec, Volume, VolumeBackend, VolumeSpec};
use oma_core::{ByteSize, ErrorKind, OperationId, Retry};
use oma_volume::loopdev::LoopBackend;

use super::{Place, attached, device_of, snapshot, spec};

pub(super) fn trials(needs: &[Requirement]) -> Vec<Trial> {
    let losetup = [needs, &[Requirement::Program("losetup")]].concat();
    vec![
        conformance::trial(
            "loop_backend::l06_the_file_backend_never_writes_an_attached_image",
            needs,
            one_writer,
        ),
        conformance::trial("loop_backend::l06_an_image_that_is_open_is_not_attached", needs, open_image),
        conformance::trial(
            "loop_backend::a_device_that_somebody_else_made_is_not_touched",
            &losetup,
            not_ours,
        ),
        conformance::trial(
            "loop_backend::l06_an_image_that_somebody_else_made_a_second_device_of_is_not_written",
            &losetup,
            second_device,
        ),
        conformance::trial("loop_backend::l06_what_somebody_has_mounted_is_not_read", needs, mounted),
        conformance::trial("loop_backend::a_device_that_somebody_has_open_stays_whole", needs, in_use),
        conformance::trial(
            "loop_backend::a_device_that_a_killed_detach_left_to_go_stays_once_it_is_attached",
            &losetup,
            left_to_go,
        ),
        conformance::trial(
            "loop_backend::a_device_that_somebody_looks_at_goes_when_they_have",
            needs,
            looked_at,
        ),
        conformance::trial(
            "loop_backend::a_volume_whose_image_is_gone_is_deleted_with_its_device",
            needs,
            image_gone,
        ),
        conformance::trial("loop_backend::it_goes_around_the_page_cache_where_it_can", needs, direct),
    ]
}

async fn one_writer() {
    let place = Place::new();
    let (backend, files) = (place.open(), place.files());
    let (volume, tag) = attached(&backend).await;
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = files.open(&volume.id, &tag, access).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    }
    for refused in [
        files.detach(&volume.id, &tag).await.map(|_| ()),
        files.delete(&volume.id, &tag).await,
        files.resize(&volume.id, &tag, ByteSize::mib(2)).await.map(|_| ()),
        files.snapshot(&snapshot(&spec(), 1)).await.map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
    }
    let device = backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    device.write_at(4096, sample(4096, 8192), Durability::Cached).await.unwrap();
    drop(device);
    // Without a device it is the same volume behind both.
    backend.detach(&volume.id, &tag).await.unwrap();
    files.attach(&volume.id, &tag).await.unwrap();
    let image = files.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(image.read_at(4096, BytesMut::zeroed(8192)).await.unwrap(), sample(4096, 8192));
}

async fn open_image() {
    let place = Place::new();
    let (backend, files) = (place.open(), place.files());
    let volume = files.create(&spec()).await.unwrap();
    files.attach(&volume.id, &spec().tag).await.unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let image = files.open(&volume.id, &spec().tag, access).await.unwrap();
        let error = backend.attach(&volume.id, &spec().tag).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
        assert!(place.devices().is_empty());
        drop(image);
    }
    backend.attach(&volume.id, &spec().tag).await.unwrap();
}

async fn not_ours() {
    let place = Place::new();
    let (backend, tag) = (place.open(), spec().tag);
    let volume = backend.create(&spec()).await.unwrap();
    let image = place.volumes().join(format!("{}.raw", volume.id));
    assert!(Command::new("losetup").arg("--find").arg(&image).status().unwrap().success());
    let theirs = place.devices();
    for refused in [
        backend.attach(&volume.id, &tag).await.map(|_| ()),
        backend.detach(&volume.id, &tag).await.map(|_| ()),
        backend.resize(&volume.id, &tag, ByteSize::mib(2)).await.map(|_| ()),
        backend.delete(&volume.id, &tag).await,
        backend.snapshot(&snapshot(&spec(), 1)).await.map(|_| ()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Conflict, Retry::Never), "{}", error.chain());
        let advice = format!("losetup --detach {}", theirs[0].display());
        assert!(error.chain().contains(&advice), "{}", error.chain());
    }
    assert_eq!((place.devices(), theirs.len()), (theirs, 1));
    assert_eq!(backend.get(&volume.id).await.unwrap(), Some(volume));
}

/// It knows no locks. The kernel lists devices in no order, so of one image ours is listed first, of another one theirs.
async fn second_device() {
    let place = Place::new();
    let backend = place.open();
    let mut volumes = Vec::new();
    for _ in 0..3 {
        let spec = VolumeSpec { operation: OperationId::mint(), ..spec() };
        let volume = backend.create(&spec).await.unwrap();
        volumes.push(backend.attach(&volume.id, &spec.tag).await.unwrap());
    }
    let ours = place.devices();
    for volume in &volumes {
        let image = place.volumes().join(format!("{}.raw", volume.id));
        assert!(Command::new("losetup").arg("--find").arg(&image).status().unwrap().success());
    }
    let all = place.devices();
    let theirs: Vec<_> = all.iter().filter(|device| !ours.contains(device)).collect();
    for volume in &volumes {
        refused_as_foreign(&backend, volume, &theirs).await;
    }
    assert_eq!((place.devices(), all.len()), (all.clone(), 6));
    for device in theirs {
        place.take_away(device);
    }
    for volume in &volumes {
        backend.delete(&volume.id, &spec().tag).await.unwrap();
    }
    assert!(place.devices().is_empty());
}

async fn refused_as_foreign(backend: &LoopBackend, volume: &Volume, theirs: &[&PathBuf]) {
    let (id, tag) = (&volume.id, &spec().tag);
    for refused in [
        backend.open(id, tag, Access::ReadWrite).await.map(|_| ()),
        backend.open(id, tag, Access::ReadOnly).await.map(|_| ()),
        backend.snapshot(&SnapshotSpec { volume: id.clone(), ..snapshot(&spec(), 1) }).await.map(|_| ()),
        backend.resize(id, tag, ByteSize::mib(2)).await.map(|_| ()),
        backend.attach(id, tag).await.map(|_| ()),
        backend.detach(id, tag).await.map(|_| ()),
        backend.delete(id, tag).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Conflict, Retry::Never), "{}", error.chain());
        let names = |device: &&PathBuf| error.chain().contains(&format!("--detach {}`", device.display()));
        assert!(theirs.iter().any(names), "{}", error.chain());
    }
}

/// A mount holds no lock: it is known by having the device for itself.
async fn mounted() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    let path = device_of(&volume);
    let mount = File::options().read(true).write(true).custom_flags(libc::O_EXCL).open(&path).unwrap();
    for refused in [
        backend.open(&volume.id, &tag, Access::ReadOnly).await.map(|_| ()),
        backend.snapshot(&snapshot(&spec(), 1)).await.map(|_| ()),
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    }
    assert_eq!(backend.attach(&volume.id, &tag).await.unwrap(), volume, "it is attached all the same");
    drop(mount);
    let readers = [(); 2].map(|()| backend.open(&volume.id, &tag, Access::ReadOnly));
    let readers = futures_util::future::try_join_all(readers).await.unwrap();
    backend.snapshot(&snapshot(&spec(), 1)).await.unwrap();
    drop(readers);
}

/// Told to go while somebody has it open, by a process that was killed before it could wait or take that back.
async fn left_to_go() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    let path = device_of(&volume);
    let other = File::open(&path).unwrap();
    assert!(Command::new("losetup").arg("--detach").arg(&path).status().unwrap().success());
    let flag = Path::new("/sys/block").join(path.file_name().unwrap()).join("loop/autoclear");
    assert_eq!(fs::read_to_string(&flag).unwrap().trim(), "1", "it goes with its last user");
    assert_eq!(place.open().attach(&volume.id, &tag).await.unwrap(), volume);
    drop(other);
    assert_eq!(place.devices(), [path], "it is still there");
    backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    backend.detach(&volume.id, &tag).await.unwrap();
    assert!(place.devices().is_empty());
}

async fn in_use() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    let path = device_of(&volume);
    // A program that knows no locks, and one that wants it alone, as mount does.
    for flags in [0, libc::O_EXCL] {
        let other = File::options().read(true).write(true).custom_flags(flags).open(&path).unwrap();
        for refused in
            [backend.detach(&volume.id, &tag).await.map(|_| ()), backend.delete(&volume.id, &tag).await]
        {
            let error = refused.unwrap_err();
            assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
        }
        other.write_all_at(&[7; 4096], 0).unwrap();
        other.sync_all().unwrap();
        drop(other);
        assert_eq!(place.devices(), std::slice::from_ref(&path), "it does not go when they close it");
    }
    assert_eq!(backend.get(&volume.id).await.unwrap(), Some(volume.clone()));
    let device = backend.open(&volume.id, &tag, Access::ReadOnly).await.unwrap();
    assert_eq!(device.read_at(0, BytesMut::zeroed(4096)).await.unwrap()[..], [7; 4096]);
    drop(device);
    backend.detach(&volume.id, &tag).await.unwrap();
    assert!(place.devices().is_empty());
}

/// udev looks at each device that was written, and does not take long.
async fn looked_at() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    let path = device_of(&volume);
    let other = File::open(&path).unwrap();
    let autoclear = Path::new("/sys/block").join(path.file_name().unwrap()).join("loop/autoclear");
    let looks = std::thread::spawn(move || {
        // It is told to go as soon as nobody has it open.
        while fs::read_to_string(&autoclear).is_ok_and(|told| told.trim() == "0") {
            std::thread::yield_now();
        }
        drop(other);
    });
    backend.detach(&volume.id, &tag).await.unwrap();
    looks.join().unwrap();
    assert!(place.devices().is_empty());
}

async fn image_gone() {
    let place = Place::new();
    let backend = place.open();
    let (volume, tag) = attached(&backend).await;
    fs::remove_file(place.volumes().join(format!("{}.raw", volume.id))).unwrap();
    assert_eq!(place.devices().len(), 1);
    backend.delete(&volume.id, &tag).await.unwrap();
    assert!(place.devices().is_empty());
}

async fn direct() {
    let place = Place::new();
    let (volume, _) = attached(&place.open()).await;
    let image = place.volumes().join(format!("{}.raw", volume.id));
    let can = File::options().read(true).custom_flags(libc::O_DIRECT).open(image).is_ok();
    let path = Path::new("/sys/block").join(device_of(&volume).file_name().unwrap()).join("loop/dio");
    assert_eq!(fs::read_to_string(path).unwrap().trim(), if can { "1" } else { "0" });
}
