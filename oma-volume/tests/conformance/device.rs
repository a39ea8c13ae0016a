//! `FileDevice` over a regular file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{self, DEVICE_CAPACITY, DeviceSubject, Trial, sample};
use oma_core::traits::{Access, BlockDevice, BlockStatusKind, Durability};
use oma_core::{ByteSize, ErrorKind, Extent};
use oma_volume::device::FileDevice;
use tempfile::TempDir;

pub(crate) fn trials() -> Vec<Trial> {
    let cases = conformance::block_device_cases();
    let mut trials = conformance::cases("file_device", &cases, || async {
        subject(TempDir::new().unwrap(), Access::ReadWrite).await
    });
    let cases = conformance::read_only_device_cases();
    trials.extend(conformance::cases("file_device", &cases, || async {
        let folder = TempDir::new().unwrap();
        let all = sample(0, usize::try_from(DEVICE_CAPACITY.bytes()).unwrap());
        File::create(path(&folder)).unwrap().write_all_at(&all, 0).unwrap();
        subject(folder, Access::ReadOnly).await
    }));
    let cases = conformance::short_device_cases();
    trials.extend(conformance::cases("file_device", &cases, || async {
        let folder = TempDir::new().unwrap();
        let path = path(&folder);
        let subject = subject(folder, Access::ReadOnly).await;
        cut(&path);
        subject
    }));
    let one = |name: &str, body: fn() -> futures_util::future::BoxFuture<'static, ()>| {
        conformance::trial(&format!("file_device::{name}"), &[], body)
    };
    trials.push(one("nothing_is_written_to_a_file_that_was_truncated", || Box::pin(truncated())));
    trials.push(one("what_is_no_disk_is_invalid_and_says_so", || Box::pin(no_disks())));
    trials.push(one("l06_a_writer_is_alone", || Box::pin(writer_is_alone())));
    trials.push(one("a_new_file_is_made_once_however_many_make_it", || Box::pin(made_once())));
    trials.push(one("what_is_there_is_not_made_anew", || Box::pin(not_made_anew())));
    trials
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("disk.raw")
}

/// A file as large as a subject has to be.
pub(crate) fn file() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = path(&folder);
    File::create(&path).unwrap().set_len(DEVICE_CAPACITY.bytes()).unwrap();
    (folder, path)
}

fn cut(path: &PathBuf) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(DEVICE_CAPACITY.bytes() / 2).unwrap();
}

/// A device over the file in a folder, which is made or made longer as needed.
pub(crate) async fn subject(folder: TempDir, access: Access) -> DeviceSubject {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(&folder)).unwrap();
    file.set_len(DEVICE_CAPACITY.bytes()).unwrap();
    let device = FileDevice::open(path(&folder), access).await.unwrap();
    DeviceSubject { device: Arc::new(device), guard: Box::new(folder) }
}

async fn truncated() {
    let (_folder, path) = file();
    let device = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    cut(&path);
    let write = device.write_at(0, Bytes::from_static(b"x"), Durability::Cached).await;
    assert_eq!(write.unwrap_err().kind(), ErrorKind::Corrupt);
    let error = device.flush().await.unwrap_err();
    assert!(error.chain().contains("was it truncated?"), "{}", error.chain());
    assert_eq!(path.metadata().unwrap().len(), DEVICE_CAPACITY.bytes() / 2);
    let tail = Extent::between(DEVICE_CAPACITY.bytes() / 2, DEVICE_CAPACITY.bytes()).unwrap();
    let status = device.block_status(tail).await.unwrap();
    assert!(status.iter().all(|found| found.kind == BlockStatusKind::Data), "{status:?}");
}

async fn no_disks() {
    let folder = TempDir::new().unwrap();
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap();
    let cases = [
        (folder.path().to_owned(), ErrorKind::Invalid, "name the disk itself"),
        (empty, ErrorKind::Invalid, "at least one byte"),
        (PathBuf::from("/dev/null"), ErrorKind::Invalid, "character device"),
        (folder.path().join("missing"), ErrorKind::NotFound, "check the path"),
        (PathBuf::from("/dev/null/x"), ErrorKind::NotFound, "check the path"),
    ];
    for (path, kind, text) in cases {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let error = FileDevice::open(&path, access).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{}", error.chain());
            assert!(error.chain().contains(text), "{}", error.chain());
        }
    }
}

async fn writer_is_alone() {
    let (_folder, path) = file();
    let reader = FileDevice::open(&path, Access::ReadOnly).await.unwrap();
    let second = FileDevice::open(&path, Access::ReadOnly).await.unwrap();
    let refused = FileDevice::open(&path, Access::ReadWrite).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    drop((reader, second));
    let writer = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    let refused = FileDevice::open(&path, Access::ReadOnly).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    writer.read_at(0, BytesMut::zeroed(512)).await.unwrap();
}

async fn made_once() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let made = (1..=8).map(|size| FileDevice::make(path(&folder), ByteSize::mib(size)));
        let mut devices = Vec::new();
        for made in futures_util::future::join_all(made).await {
            match made {
                Ok(made) => devices.extend(made),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain()),
            }
        }
        assert_eq!(devices.len(), 1);
        assert_eq!(path(&folder).metadata().unwrap().len(), devices[0].info().capacity.bytes());
    }
}

async fn not_made_anew() {
    let (folder, path) = file();
    let size = ByteSize::mib(1);
    for there in [path.clone(), folder.path().to_owned(), PathBuf::from("/dev/null")] {
        assert!(FileDevice::make(&there, size).await.unwrap().is_none(), "{}", there.display());
    }
    assert_eq!(path.metadata().unwrap().len(), DEVICE_CAPACITY.bytes());
    let error = FileDevice::make(folder.path().join("missing/disk.raw"), size).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap();
    let device = FileDevice::make(&empty, size).await.unwrap().unwrap();
    assert_eq!((device.info().capacity, empty.metadata().unwrap().len()), (size, size.bytes()));
    let (new, found) = (folder.path().join("new"), folder.path().join("found"));
    File::create(&found).unwrap();
    for path in [&new, &found] {
        let error = FileDevice::make(path, ByteSize::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        // No file system has files so large.
        FileDevice::make(path, ByteSize::new(u64::MAX)).await.unwrap_err();
    }
    assert!(!new.exists() && found.metadata().unwrap().len() == 0);
}
