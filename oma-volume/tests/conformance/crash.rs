//! What a crash, an operator or a stranger leaves in the directory of a file backend.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use oma_core::conformance::{self, Trial, sample};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Durability, Provisioning, Volume, VolumeBackend, VolumeSpec};
use oma_core::{ByteSize, ContextId, DiskKey, DiskRef, ErrorKind, Generation, InstanceId, OperationId};
use oma_volume::file::FileBackend;
use tempfile::TempDir;

use super::backend::{left, open};

pub(crate) fn trials() -> Vec<Trial> {
    let one = |name: &str, body: fn(Place) -> BoxFuture<'static, ()>| {
        conformance::trial(&format!("file_backend::{name}"), &[], move || body(Place::new()))
    };
    vec![
        one("l15_a_create_that_was_interrupted_is_unseen_and_finished_by_the_same_create", |place| {
            Box::pin(interrupted_create(place))
        }),
        one("l15_a_delete_that_was_interrupted_is_unseen_and_finished_by_the_same_delete", |place| {
            Box::pin(interrupted_delete(place))
        }),
        one("l15_a_resize_that_was_interrupted_leaves_the_old_size", |place| {
            Box::pin(interrupted_resize(place))
        }),
        one("an_image_without_a_record_is_never_overwritten", |place| Box::pin(foreign_image(place))),
        one("foreign_files_are_ignored", |place| Box::pin(foreign_files(place))),
        one("a_record_that_cannot_be_read_is_reported_by_name", |place| Box::pin(bad_records(place))),
        one("a_truncated_or_missing_image_is_reported_by_name", |place| Box::pin(bad_images(place))),
        one("a_symbolic_link_is_not_an_image", |place| Box::pin(links(place))),
    ]
}

struct Place {
    _folder: TempDir,
    directory: PathBuf,
    backend: FileBackend,
    spec: VolumeSpec,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let directory = folder.path().join("volumes");
        let disk = DiskRef {
            context: ContextId::parse("ctx-1").unwrap(),
            key: DiskKey::parse("disk-2000").unwrap(),
        };
        let spec = VolumeSpec {
            operation: OperationId::mint(),
            tag: VolumeTag { instance: InstanceId::mint(), disk, generation: Generation::FIRST },
            name: "web".to_owned(),
            capacity: ByteSize::mib(1),
            provisioning: Provisioning::Thin,
        };
        Self { backend: open(&directory), _folder: folder, directory, spec }
    }

    async fn attached(&self) -> Volume {
        let volume = self.backend.create(&self.spec).await.unwrap();
        self.backend.attach(&volume.id, &self.spec.tag).await.unwrap()
    }

    fn image(&self, volume: &Volume) -> PathBuf {
        self.directory.join(format!("{}.raw", volume.id))
    }

    fn record(&self, volume: &Volume) -> PathBuf {
        self.directory.join(format!("{}.json", volume.id))
    }

    /// Makes the record say what it says while a volume is made or deleted.
    fn make_partial(&self, volume: &Volume) {
        let text = fs::read_to_string(self.record(volume)).unwrap();
        let partial = text.replace("\"attached\"", "\"partial\"").replace("\"detached\"", "\"partial\"");
        assert_ne!(text, partial);
        fs::write(self.record(volume), partial).unwrap();
    }

    async fn is_unseen(&self, volume: &Volume) {
        assert_eq!(self.backend.get(&volume.id).await.unwrap(), None);
        let listed: Vec<_> = self.backend.list(&self.spec.tag.instance).try_collect().await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
        let opened = self.backend.open(&volume.id, &self.spec.tag, Access::ReadOnly).await;
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotFound);
    }

    fn is_empty(&self) -> bool {
        left(&self.directory).is_empty()
    }
}

/// After the intent; with a part of the image; with the whole image; with a part of the next record.
async fn interrupted_create(place: Place) {
    for point in 0..4 {
        let volume = place.backend.create(&place.spec).await.unwrap();
        place.make_partial(&volume);
        match point {
            0 => fs::remove_file(place.image(&volume)).unwrap(),
            1 => fs::write(place.image(&volume), b"left by a crash").unwrap(),
            2 => {}
            _ => fs::write(place.directory.join(format!(".{}.json.new", volume.id)), b"{\"id\"").unwrap(),
        }
        place.is_unseen(&volume).await;
        assert_eq!(place.backend.create(&place.spec).await.unwrap(), volume);
        place.backend.attach(&volume.id, &place.spec.tag).await.unwrap();
        let device = place.backend.open(&volume.id, &place.spec.tag, Access::ReadOnly).await.unwrap();
        let content = device.read_at(0, BytesMut::zeroed(1 << 20)).await.unwrap();
        assert!(content.iter().all(|byte| *byte == 0), "crash point {point}");
        drop(device);
        place.backend.delete(&volume.id, &place.spec.tag).await.unwrap();
    }
    assert!(place.is_empty(), "nothing is left behind");
}

async fn interrupted_delete(place: Place) {
    for image_is_gone in [false, true] {
        let volume = place.attached().await;
        place.make_partial(&volume);
        if image_is_gone {
            fs::remove_file(place.image(&volume)).unwrap();
        }
        place.is_unseen(&volume).await;
        let wrong = VolumeTag { generation: Generation(9), ..place.spec.tag.clone() };
        let refused = place.backend.delete(&volume.id, &wrong).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        place.backend.delete(&volume.id, &place.spec.tag).await.unwrap();
        assert!(place.is_empty(), "nothing is left behind");
    }
}

async fn interrupted_resize(place: Place) {
    let volume = place.attached().await;
    let image = fs::OpenOptions::new().write(true).open(place.image(&volume)).unwrap();
    image.set_len(3 << 20).unwrap();
    assert_eq!(place.backend.get(&volume.id).await.unwrap(), Some(volume.clone()));
    let device = place.backend.open(&volume.id, &place.spec.tag, Access::ReadWrite).await.unwrap();
    assert_eq!(device.info().capacity, ByteSize::mib(1));
    drop(device);
    let grown = place.backend.resize(&volume.id, &place.spec.tag, ByteSize::mib(2)).await.unwrap();
    assert_eq!(grown.capacity, ByteSize::mib(2));
}

async fn foreign_image(place: Place) {
    let volume = place.backend.create(&place.spec).await.unwrap();
    fs::remove_file(place.record(&volume)).unwrap();
    fs::write(place.image(&volume), b"somebody's data").unwrap();
    let error = place.backend.create(&place.spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains(place.image(&volume).to_str().unwrap()), "{}", error.chain());
    assert_eq!(fs::read(place.image(&volume)).unwrap(), b"somebody's data");
    assert_eq!(place.backend.get(&volume.id).await.unwrap(), None);
    place.backend.delete(&volume.id, &place.spec.tag).await.unwrap();
    assert_eq!(fs::read(place.image(&volume)).unwrap(), b"somebody's data");
}

async fn foreign_files(place: Place) {
    let volume = place.backend.create(&place.spec).await.unwrap();
    fs::write(place.directory.join("notes.json"), b"not ours").unwrap();
    fs::write(place.directory.join("backup.raw"), b"not ours").unwrap();
    fs::create_dir(place.directory.join("lost+found")).unwrap();
    let listed: Vec<_> = place.backend.list(&place.spec.tag.instance).try_collect().await.unwrap();
    assert_eq!(listed, [volume]);
    let notes = oma_core::VolumeId::parse("notes").unwrap();
    assert_eq!(place.backend.get(&notes).await.unwrap(), None);
}

async fn bad_records(place: Place) {
    let volume = place.backend.create(&place.spec).await.unwrap();
    let good = fs::read_to_string(place.record(&volume)).unwrap();
    let name = place.record(&volume).display().to_string();
    let other = good.replace(volume.id.as_str(), "vol-of-another-name");
    for bad in ["", "{", "[]", &good[..good.len() / 2], &good.replace("\"capacity\"", "\"size\""), &other] {
        fs::write(place.record(&volume), bad).unwrap();
        let listed: Vec<_> = place.backend.list(&place.spec.tag.instance).collect().await;
        let got = place.backend.get(&volume.id).await.unwrap_err();
        let created = place.backend.create(&place.spec).await.unwrap_err();
        let deleted = place.backend.delete(&volume.id, &place.spec.tag).await.unwrap_err();
        assert_eq!(listed.len(), 1);
        for error in [listed[0].as_ref().unwrap_err(), &got, &created, &deleted] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
            assert!(error.chain().contains(&name), "{}", error.chain());
        }
    }
    assert!(place.image(&volume).exists());
}

async fn bad_images(place: Place) {
    let volume = place.attached().await;
    let device = place.backend.open(&volume.id, &place.spec.tag, Access::ReadWrite).await.unwrap();
    device.write_at(0, sample(0, 4096), Durability::Cached).await.unwrap();
    drop(device);
    let image = place.image(&volume);
    let name = image.display().to_string();
    for gone in [false, true] {
        if gone {
            fs::remove_file(&image).unwrap();
        } else {
            fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(4096).unwrap();
        }
        let got = place.backend.get(&volume.id).await.unwrap_err();
        let opened = place.backend.open(&volume.id, &place.spec.tag, Access::ReadOnly).await.unwrap_err();
        let attached = place.backend.attach(&volume.id, &place.spec.tag).await.unwrap_err();
        for error in [&got, &opened, &attached] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
            assert!(error.chain().contains(&name), "{}", error.chain());
        }
    }
    place.backend.delete(&volume.id, &place.spec.tag).await.unwrap();
    assert!(place.is_empty());
}

async fn links(place: Place) {
    let volume = place.attached().await;
    let elsewhere = place.directory.join("production.raw");
    fs::rename(place.image(&volume), &elsewhere).unwrap();
    symlink(&elsewhere, place.image(&volume)).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = place.backend.open(&volume.id, &place.spec.tag, access).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
    }
}
