//! Any sequence of calls leaves what the same calls on a vector leave.

use std::io;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use oma_core::traits::{
    Access, BlockDevice, BlockStatusKind, Durability, LeafHasher, ReadFrom, ReadManner, Zeroing,
};
use oma_core::{ErrorKind, Extent, Retry};
use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::FileDevice;
use super::medium::Home;

/// No multiple of anything.
const CAPACITY: usize = (200 << 10) + 77;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8, Durability),
    Zero(usize, usize, Zeroing, Durability),
    Trim(usize, usize),
    Read(usize, usize),
    Status(usize, usize),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..CAPACITY).prop_flat_map(|at| (Just(at), 1..=(CAPACITY - at).min(90 << 10)));
    let durability = || prop_oneof![4 => Just(Durability::Cached), 1 => Just(Durability::Durable)];
    let zeroing = prop_oneof![Just(Zeroing::Punch), Just(Zeroing::Allocate)];
    let step = prop_oneof![
        4 => (place(), 1..=255u8, durability()).prop_map(|((at, len), byte, d)| Step::Write(at, len, byte, d)),
        2 => (place(), zeroing, durability()).prop_map(|((at, len), z, d)| Step::Zero(at, len, z, d)),
        1 => place().prop_map(|(at, len)| Step::Trim(at, len)),
        3 => place().prop_map(|(at, len)| Step::Read(at, len)),
        2 => place().prop_map(|(at, len)| Step::Status(at, len)),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..30)
}

fn extent(at: usize, length: usize) -> Extent {
    Extent::new(u64::try_from(at).unwrap(), u64::try_from(length).unwrap()).unwrap()
}

async fn read(device: &FileDevice, at: usize, length: usize) -> BytesMut {
    device.read_at(extent(at, length).offset(), BytesMut::zeroed(length)).await.unwrap()
}

async fn apply(device: &FileDevice, model: &mut [u8], step: &Step) {
    match *step {
        Step::Write(at, length, byte, durability) => {
            let data = Bytes::from(vec![byte; length]);
            device.write_at(extent(at, length).offset(), data, durability).await.unwrap();
            model[at..at + length].fill(byte);
        }
        Step::Zero(at, length, zeroing, durability) => {
            device.write_zeroes(extent(at, length), zeroing, durability).await.unwrap();
            model[at..at + length].fill(0);
        }
        Step::Trim(at, length) => {
            device.trim(extent(at, length)).await.unwrap();
            // It reads as anything afterwards.
            let left = read(device, at, length).await;
            model[at..at + length].copy_from_slice(&left);
        }
        Step::Read(at, length) => assert_eq!(read(device, at, length).await, model[at..at + length]),
        Step::Status(at, length) => {
            let mut end = extent(at, length).offset();
            for found in device.block_status(extent(at, length)).await.unwrap() {
                assert_eq!(found.extent.offset(), end);
                end = found.extent.end();
                let range = usize::try_from(found.extent.offset()).unwrap()..usize::try_from(end).unwrap();
                assert!(!found.kind.reads_zero() || model[range].iter().all(|byte| *byte == 0), "{found:?}");
            }
        }
        Step::Flush => device.flush().await.unwrap(),
    }
}

/// The kernel's clock may stand still between two writes, and be behind ours.
#[tokio::test]
async fn a_flush_after_a_write_moves_the_modification_time_on() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    for _ in 0..2 {
        device.write_at(0, Bytes::from_static(b"x"), Durability::Cached).await.unwrap();
        file.as_file().set_modified(ahead).unwrap();
        device.flush().await.unwrap();
        assert!(file.as_file().metadata().unwrap().modified().unwrap() > ahead);
    }
    file.as_file().set_modified(ahead).unwrap();
    device.flush().await.unwrap();
    assert_eq!(file.as_file().metadata().unwrap().modified().unwrap(), ahead, "nobody wrote");
}

#[tokio::test]
async fn after_a_failed_flush_no_later_one_succeeds() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
    device.flush().await.unwrap();
    let first = device.medium.lose(io::Error::from_raw_os_error(5));
    assert_eq!(first.judgement(), (ErrorKind::Unavailable, Retry::Never));
    for _ in 0..2 {
        let error = device.flush().await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Never));
        assert!(error.chain().contains("an earlier flush failed"), "{}", error.chain());
    }
    let full = device.medium.lose(io::Error::from_raw_os_error(28));
    assert_eq!(full.judgement(), (ErrorKind::NoSpace, Retry::Never));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_file_holds_what_the_calls_say(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let file = NamedTempFile::new().unwrap();
            file.as_file().set_len(extent(0, CAPACITY).length()).unwrap();
            let mut model = vec![0; CAPACITY];
            let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
            for step in &steps {
                apply(&device, &mut model, step).await;
            }
            drop(device);
            assert!(std::fs::read(file.path()).unwrap() == model, "the file differs");
        });
    }
}

#[tokio::test]
async fn l06_a_lock_ends_with_the_device_though_a_copy_of_its_file_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, [0; 4096]).unwrap();
    let device = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    // What a child process has between fork and exec.
    let copy = device.file().try_clone().unwrap();
    assert!(FileDevice::open(&path, Access::ReadWrite).await.is_err());
    drop(device);
    FileDevice::open(&path, Access::ReadWrite).await.unwrap();
    drop(copy);
}

#[tokio::test]
async fn l11_a_file_that_was_cut_off_promises_no_zeroes_beyond_its_end() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadOnly).await.unwrap();
    let end = extent(512 << 10, 512 << 10);
    assert_eq!(device.block_status(end).await.unwrap()[0].kind, BlockStatusKind::Hole);
    file.as_file().set_len(600 << 10).unwrap();
    for asked in [end, extent(600 << 10, 1), extent(700 << 10, 1000)] {
        let found = device.block_status(asked).await.unwrap();
        let beyond = found.iter().filter(|status| status.extent.end() > 600 << 10);
        assert!(beyond.clone().all(|status| !status.kind.reads_zero()), "{found:?}");
    }
}

#[tokio::test]
async fn durable_writes_at_once_share_a_flush_and_are_read_back() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
    let flush = || device.medium.flushes.begun();
    let write = async |at: usize, durability| {
        let data = Bytes::from(vec![7; 4096]);
        device.write_at(extent(at, 4096).offset(), data, durability).await.unwrap();
        assert!(read(&device, at, 4096).await.iter().all(|byte| *byte == 7));
    };
    write(0, Durability::Durable).await;
    assert_eq!(flush(), 0, "a single one needs no flush of everything");
    let other = device.medium.durable.begin();
    write(4096, Durability::Durable).await;
    assert_eq!(flush(), 1);
    write(8192, Durability::Cached).await;
    write(12288, Durability::Durable).await;
    assert_eq!(flush(), 1, "what need not be durable is not waited for");
    device.flush().await.unwrap();
    write(16384, Durability::Durable).await;
    assert_eq!(flush(), 3);
    drop(other);
    write(20480, Durability::Durable).await;
    assert_eq!(flush(), 3);
}

#[tokio::test]
async fn l14_what_is_read_back_says_how() {
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        let file = NamedTempFile::new_in(folder).unwrap();
        file.as_file().set_len(5 << 20).unwrap();
        let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
        let data = Bytes::from(vec![7; (1 << 20) + 13]);
        device.write_at(99, data, Durability::Cached).await.unwrap();
        let whole = Extent::new(0, 5 << 20).unwrap();
        let found = [ReadFrom::Anywhere, ReadFrom::Device].map(|from| device.leaf_hashes(whole, from));
        let [cached, back] = futures_util::future::join_all(found).await.try_into().unwrap();
        let (cached, back) = (cached.unwrap(), back.unwrap());
        assert_eq!(cached.runs, back.runs);
        let possible = match device.medium.home {
            Home::Local => [ReadManner::ThroughCache, ReadManner::PastCache],
            Home::Memory => [ReadManner::InMemory; 2],
            Home::Elsewhere => [ReadManner::ThroughCache; 2],
        };
        assert_eq!([cached.manner, back.manner], possible, "{:?}", device.medium.home);
    }
}

#[tokio::test]
async fn what_was_let_go_is_on_the_medium_alone_and_reads_the_same() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
    let data = Bytes::from(vec![7; 8 << 20]);
    let whole = extent(0, 8 << 20);
    device.write_at(0, data.clone(), Durability::Cached).await.unwrap();
    let in_place = device.in_place().unwrap();
    // What is not on the medium yet stays.
    in_place.let_go(whole);
    device.flush().await.unwrap();
    let was_cached = device.medium.is_cached(whole);
    in_place.let_go(whole);
    if device.medium.home == Home::Local && was_cached {
        assert!(!device.medium.is_cached(extent(1 << 20, 4 << 20)), "it is in the page cache still");
    }
    assert!(read(&device, 0, 8 << 20).await == data);
}
