//! `FileSource` as the disks of a `DirectSource`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use oma_core::conformance::{self, SourceSubject, SourceWorld, Trial};
use oma_core::direct::{DirectDisk, DirectEntry, DirectSource};
use oma_core::traits::Changes;
use oma_core::{ChangeId, DiskKey, ErrorKind, VmPath};
use oma_volume::source::FileSource;
use tempfile::TempDir;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials =
        conformance::cases("file_source", &conformance::disk_source_cases(), || async { subject() });
    trials.push(conformance::trial("file_source::it_tells_that_changes_are_not_tracked", &[], untracked));
    trials.push(conformance::trial("file_source::a_path_without_a_disk_says_what_to_do", &[], no_disks));
    trials
}

fn subject() -> SourceSubject {
    let folder = TempDir::new().unwrap();
    let place = Folder(folder.path().to_owned());
    let entry = |text: &str| {
        let key = DiskKey::parse(text).unwrap();
        let path = place.path(&key);
        File::create(&path).unwrap().set_len((1 << 20) + 513).unwrap();
        DirectEntry { key, change_id: None, disk: Arc::new(FileSource::new(path)) }
    };
    let source = DirectSource::new(vec![entry("disk-2000"), entry("disk-2001")]).unwrap();
    let vm = VmPath::parse("/DC/vm/web").unwrap();
    SourceSubject { source: Arc::new(source), vm, world: Arc::new(place), guard: Box::new(folder) }
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn path(&self, key: &DiskKey) -> PathBuf {
        self.0.join(format!("{key}.raw"))
    }
}

#[async_trait]
impl SourceWorld for Folder {
    async fn write(&self, key: &DiskKey, offset: u64, data: Bytes) {
        let file = OpenOptions::new().write(true).open(self.path(key)).unwrap();
        let last = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&data, offset).unwrap();
        // As if a tick of the file system's clock had passed since.
        file.set_modified(SystemTime::now().max(last + Duration::from_millis(10))).unwrap();
    }

    async fn reset_tracking(&self, _key: &DiskKey) {}
}

async fn untracked() {
    let subject = subject();
    let point = subject.source.freeze(&subject.vm, &"job-1".parse().unwrap()).await.unwrap();
    let disk = &point.disks[0];
    let changes = subject.source.changed(&point.id, &disk.key, &ChangeId::mint()).await.unwrap();
    assert_eq!(changes, Changes::Unknown("a plain file has no change tracking".to_owned()));
}

async fn no_disks() {
    let folder = TempDir::new().unwrap();
    let empty = folder.path().join("empty.raw");
    File::create(&empty).unwrap();
    let cases: [(&Path, ErrorKind, &str); 3] = [
        (folder.path(), ErrorKind::Invalid, "name the disk itself"),
        (&empty, ErrorKind::Invalid, "it is empty"),
        (&folder.path().join("missing.raw"), ErrorKind::NotFound, "check the path"),
    ];
    for (path, kind, text) in cases {
        let disk = FileSource::new(path.to_owned());
        for error in [disk.describe().await.unwrap_err(), disk.open().await.unwrap_err()] {
            assert_eq!(error.kind(), kind, "{}", error.chain());
            assert!(error.chain().contains(text) && error.chain().contains(path.to_str().unwrap()));
        }
    }
}
