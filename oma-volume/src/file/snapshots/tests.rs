//! Callers who are gone at any of the moments at which they are looked for.

use std::io::{Read, Write};
use std::path::Path;

use oma_core::record::VolumeTag;
use oma_core::traits::{Provisioning, VolumeSpec};
use oma_core::{ByteSize, DiskRef, ErrorKind, Generation, JobId};
use tempfile::TempDir;

use super::*;
use crate::file::FileConfig;
use crate::file::directory::Directory;

/// A directory with a volume of 4096 bytes that holds ones, and a spec of a snapshot of it.
fn place() -> (TempDir, Images, SnapshotSpec) {
    let folder = TempDir::new().unwrap();
    let images = Images::new(Directory::open(&FileConfig::new(folder.path())).unwrap());
    let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
    let instance = "1f6f2ad4-6c5f-4a40-9d0c-3f0a5b6c7d8e".parse().unwrap();
    let tag = VolumeTag { instance, disk, generation: Generation::FIRST };
    let volume = images
        .create(&VolumeSpec {
            operation: "op-1".parse().unwrap(),
            tag: tag.clone(),
            name: "web".to_owned(),
            capacity: ByteSize::new(4096),
            provisioning: Provisioning::Thin,
        })
        .unwrap();
    let job = JobId::parse("job-1").unwrap();
    let spec = SnapshotSpec { id: SnapshotId::mint(&job), volume: volume.id, tag, job };
    let path = images.directory.image(&spec.volume);
    File::options().write(true).open(path).unwrap().write_all(&[1; 4096]).unwrap();
    (folder, images, spec)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn was_given_up(error: FileError) -> bool {
    error.about("snapshot volume", "it").kind() == ErrorKind::Cancelled
}

#[test]
fn l15_a_snapshot_that_nobody_waits_for_is_not_begun() {
    let (folder, images, spec) = place();
    let before = names(&folder);
    let image = File::open(images.directory.image(&spec.volume)).unwrap();
    // Whoever has it locked would be waited for, or stand in the way, only if it began.
    lock(&image, Access::ReadWrite).unwrap();
    assert!(was_given_up(images.snapshot(&spec, &Waiting::for_looks(0)).unwrap_err()));
    assert_eq!(names(&folder), before);
}

#[test]
fn l15_a_snapshot_that_is_given_up_at_any_moment_leaves_nothing_and_no_lock() {
    let (folder, images, spec) = place();
    let before = names(&folder);
    let mut looks = 0;
    while let Err(error) = images.snapshot(&spec, &Waiting::for_looks(looks)) {
        assert!(was_given_up(error));
        assert_eq!(names(&folder), before, "after {looks} looks");
        assert!(images.snapshots(&spec.volume).unwrap().is_empty());
        let image = File::open(images.directory.image(&spec.volume)).unwrap();
        lock(&image, Access::ReadWrite).unwrap();
        looks += 1;
    }
    // Before its intent and before it is there, and in between when it is copied.
    let least = if images.directory.shares_blocks() { 2 } else { 3 };
    assert!(looks >= least, "{looks}");
    assert_eq!(content(&images.directory.snapshot(&spec.id)), [1; 4096]);
}

#[test]
fn l27_a_revert_that_nobody_waits_for_leaves_the_old_image() {
    let (folder, images, spec) = place();
    images.snapshot(&spec, &Waiting::default()).unwrap();
    let path = images.directory.image(&spec.volume);
    File::options().write(true).open(&path).unwrap().write_all(&[2; 4096]).unwrap();
    let before = names(&folder);
    let mut looks = 0;
    while let Err(error) = images.revert(&spec.volume, &spec.tag, &spec, &Waiting::for_looks(looks)) {
        assert!(was_given_up(error));
        assert_eq!((names(&folder), content(&path)), (before.clone(), vec![2; 4096]), "after {looks} looks");
        let image = File::open(&path).unwrap();
        lock(&image, Access::ReadWrite).unwrap();
        looks += 1;
    }
    let least = if images.directory.shares_blocks() { 2 } else { 3 };
    assert!(looks >= least, "{looks}");
    assert_eq!((names(&folder), content(&path)), (before, vec![1; 4096]));
}
