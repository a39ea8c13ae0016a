//! What a crash or a stranger leaves of snapshots in the directory of a file backend.

use std::fs;
use std::path::PathBuf;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use oma_core::conformance::{self, Trial, sample};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Durability, Provisioning, SnapshotSpec, Volume, VolumeBackend, VolumeSpec};
use oma_core::{ErrorKind, JobId, SnapshotId, VolumeId};
use oma_volume::device::FileDevice;
use oma_volume::file::FileBackend;
use tempfile::TempDir;

use super::backend::{left, open, spec};

pub(crate) fn trials() -> Vec<Trial> {
    let name = |name: &str| format!("file_backend::{name}");
    vec![
        conformance::trial(
            &name("l15_a_snapshot_that_was_interrupted_is_unseen_and_finished_by_the_same_call"),
            &[],
            interrupted_snapshot,
        ),
        conformance::trial(
            &name("l15_a_snapshot_that_was_interrupted_is_deleted_without_a_trace"),
            &[],
            interrupted_and_deleted,
        ),
        conformance::trial(
            &name("l15_a_revert_that_was_interrupted_leaves_the_old_content_and_is_done_by_the_next"),
            &[],
            interrupted_revert,
        ),
        conformance::trial(
            &name("what_a_killed_revert_left_goes_when_the_volume_is_opened_for_writing"),
            &[],
            left_by_a_revert,
        ),
        conformance::trial(
            &name("what_a_killed_process_left_of_a_snapshot_goes_when_the_directory_is_opened"),
            &[],
            left_by_a_snapshot,
        ),
        conformance::trial(&name("a_snapshot_that_is_given_up_leaves_nothing_and_no_lock"), &[], given_up),
        conformance::trial(&name("l20_a_file_of_a_stranger_is_no_snapshot"), &[], strangers),
        conformance::trial(&name("a_snapshot_that_is_not_whole_is_reported_by_name"), &[], damaged),
    ]
}

/// A volume of one MiB that holds `sample(0)`, with a snapshot of that.
struct Place {
    _folder: TempDir,
    directory: PathBuf,
    backend: FileBackend,
    volume: Volume,
    tag: VolumeTag,
    snapshot: SnapshotSpec,
}

impl Place {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let directory = folder.path().join("volumes");
        let backend = open(&directory);
        let spec = VolumeSpec { provisioning: Provisioning::Thin, ..spec() };
        let tag = spec.tag.clone();
        let volume = backend.create(&spec).await.unwrap();
        let volume = backend.attach(&volume.id, &tag).await.unwrap();
        let job = JobId::parse("job-1").unwrap();
        let id = SnapshotId::mint(&job);
        let snapshot = SnapshotSpec { id, volume: volume.id.clone(), tag: tag.clone(), job };
        let place = Self { _folder: folder, directory, backend, volume, tag, snapshot };
        place.fill(0).await;
        place.backend.snapshot(&place.snapshot).await.unwrap();
        place
    }

    async fn fill(&self, seed: u64) {
        let device = self.backend.open(&self.volume.id, &self.tag, Access::ReadWrite).await.unwrap();
        device.write_at(0, sample(seed, 1 << 20), Durability::Durable).await.unwrap();
    }

    async fn holds(&self, seed: u64) -> bool {
        let device = self.backend.open(&self.volume.id, &self.tag, Access::ReadOnly).await.unwrap();
        device.read_at(0, BytesMut::zeroed(1 << 20)).await.unwrap() == sample(seed, 1 << 20)
    }

    async fn snapshot_holds(&self, seed: u64) -> bool {
        let device = self.backend.open_snapshot(&self.snapshot).await.unwrap();
        device.read_at(0, BytesMut::zeroed(1 << 20)).await.unwrap() == sample(seed, 1 << 20)
    }

    fn file(&self, end: &str) -> PathBuf {
        self.directory.join(format!("{}.{end}", self.snapshot.id))
    }

    /// Makes the record say what it says while the snapshot is made or deleted.
    fn make_partial(&self) {
        let text = fs::read_to_string(self.file("json")).unwrap();
        let partial = text.replace("\"whole\"", "\"partial\"");
        assert_ne!(text, partial);
        fs::write(self.file("json"), partial).unwrap();
    }

    async fn seen(&self) -> usize {
        self.backend.snapshots(&self.volume.id).try_collect::<Vec<_>>().await.unwrap().len()
    }

    async fn is_empty_once_deleted(&self) -> bool {
        self.backend.delete_snapshot(&self.snapshot).await.unwrap();
        self.backend.delete(&self.volume.id, &self.tag).await.unwrap();
        left(&self.directory).is_empty()
    }
}

/// After the intent; with a part of the content; with all of it.
async fn interrupted_snapshot() {
    for point in 0..3 {
        let place = Place::new().await;
        place.make_partial();
        match point {
            0 => fs::remove_file(place.file("raw")).unwrap(),
            1 => fs::write(place.file("raw"), b"left by a crash").unwrap(),
            _ => {}
        }
        assert_eq!(place.seen().await, 0);
        let opened = place.backend.open_snapshot(&place.snapshot).await.unwrap_err();
        assert_eq!(opened.kind(), ErrorKind::NotFound);
        place.fill(7).await;
        place.backend.snapshot(&place.snapshot).await.unwrap();
        assert!(place.snapshot_holds(7).await, "crash point {point}");
        assert!(place.is_empty_once_deleted().await);
    }
}

async fn interrupted_and_deleted() {
    for content_is_gone in [false, true] {
        let place = Place::new().await;
        place.make_partial();
        if content_is_gone {
            fs::remove_file(place.file("raw")).unwrap();
        }
        let other = SnapshotSpec { job: JobId::parse("job-2").unwrap(), ..place.snapshot.clone() };
        let refused = place.backend.delete_snapshot(&other).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert!(place.is_empty_once_deleted().await);
    }
}

async fn interrupted_revert() {
    for reverts_again in [true, false] {
        let place = Place::new().await;
        place.fill(7).await;
        let new = place.directory.join(format!(".{}.raw.new", place.volume.id));
        fs::write(&new, sample(9, 2 << 20)).unwrap();
        assert!(place.holds(7).await);
        if reverts_again {
            place.backend.revert(&place.volume.id, &place.tag, &place.snapshot).await.unwrap();
            assert!(place.holds(0).await);
            assert!(!new.exists());
        }
        assert!(place.is_empty_once_deleted().await);
    }
}

async fn left_by_a_revert() {
    let place = Place::new().await;
    let left = |id: &VolumeId| place.directory.join(format!(".{id}.raw.new"));
    let (new, other) = (left(&place.volume.id), left(&VolumeId::parse("vol-other").unwrap()));
    for path in [&new, &other] {
        fs::write(path, sample(9, 1 << 20)).unwrap();
    }
    // Who reads may read beside a revert.
    assert!(place.holds(0).await && new.exists());
    let refused = VolumeTag { generation: place.tag.generation.next(), ..place.tag.clone() };
    place.backend.open(&place.volume.id, &refused, Access::ReadWrite).await.unwrap_err();
    assert!(new.exists());
    place.fill(7).await;
    assert!(!new.exists() && other.exists());
    assert!(place.holds(7).await);
}

async fn left_by_a_snapshot() {
    for content_is_gone in [false, true] {
        let place = Place::new().await;
        drop(open(&place.directory));
        assert_eq!(place.seen().await, 1, "a whole one stays");
        place.make_partial();
        let maker = FileDevice::open(place.file("raw"), Access::ReadWrite).await.unwrap();
        drop(open(&place.directory));
        assert!(place.file("raw").exists() && place.file("json").exists(), "it is being made");
        drop(maker);
        if content_is_gone {
            fs::remove_file(place.file("raw")).unwrap();
        }
        drop(open(&place.directory));
        assert!(!place.file("raw").exists() && !place.file("json").exists());
        assert!(place.holds(0).await);
        place.backend.snapshot(&place.snapshot).await.unwrap();
        assert!(place.is_empty_once_deleted().await);
    }
}

/// Whatever it had done by then. By shared blocks it may be whole at once.
async fn given_up() {
    let place = Place::new().await;
    for _ in 0..20 {
        let id = SnapshotId::mint(&place.snapshot.job);
        let spec = SnapshotSpec { id, ..place.snapshot.clone() };
        assert!(futures_util::FutureExt::now_or_never(place.backend.snapshot(&spec)).is_none());
        // `Busy` until its thread has let go.
        while place.backend.delete_snapshot(&spec).await.is_err_and(|error| error.kind() == ErrorKind::Busy) {
        }
        while place.backend.open(&place.volume.id, &place.tag, Access::ReadWrite).await.is_err() {}
        place.backend.delete_snapshot(&spec).await.unwrap();
    }
    assert_eq!(place.seen().await, 1);
}

async fn strangers() {
    let place = Place::new().await;
    fs::remove_file(place.file("json")).unwrap();
    fs::write(place.file("raw"), b"somebody's data").unwrap();
    let error = place.backend.snapshot(&place.snapshot).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains(place.file("raw").to_str().unwrap()), "{}", error.chain());
    assert_eq!(place.seen().await, 0);
    place.backend.delete_snapshot(&place.snapshot).await.unwrap();
    assert_eq!(fs::read(place.file("raw")).unwrap(), b"somebody's data");
}

async fn damaged() {
    let place = Place::new().await;
    let short = fs::OpenOptions::new().write(true).open(place.file("raw")).unwrap();
    short.set_len(4096).unwrap();
    place.fill(7).await;
    let opened = place.backend.open_snapshot(&place.snapshot).await.unwrap_err();
    let reverted = place.backend.revert(&place.volume.id, &place.tag, &place.snapshot).await.unwrap_err();
    for error in [&opened, &reverted] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
        assert!(error.chain().contains(place.file("raw").to_str().unwrap()), "{}", error.chain());
    }
    assert!(place.holds(7).await);
    fs::write(place.file("json"), b"{").unwrap();
    let listed = place.backend.snapshots(&place.volume.id).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(listed.chain().contains(place.file("json").to_str().unwrap()), "{}", listed.chain());
}
