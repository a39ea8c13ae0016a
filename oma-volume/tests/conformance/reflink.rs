//! Copies between files of a file system that can share blocks.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{self, Trial, sample};
use oma_core::engine::{CopyReport, CopyRequest, ReplicateConfig, Silent, VerifyLevel, copy};
use oma_core::traits::{Access, BlockDevice, Durability, Zeroing};
use oma_core::{ByteSize, DiskKey, Extent, ExtentSet};
use oma_volume::device::FileDevice;
use tempfile::TempDir;

/// Not a multiple of any block.
const CAPACITY: usize = (32 << 20) + 700;
const MIB: usize = 1 << 20;

pub(crate) fn trials(place: &'static Path) -> Vec<Trial> {
    let whole = move || shares(place, Zeroing::Punch, true, CAPACITY - 4 * MIB);
    let never = move || shares(place, Zeroing::Punch, false, 0);
    let thick = move || shares(place, Zeroing::Allocate, true, 0);
    let parts = move || shares_whole_blocks(place);
    vec![
        conformance::trial("shared::a_copy_shares_all_data_and_is_equal", &[], whole),
        conformance::trial("shared::a_copy_that_shall_not_share_reads_and_writes", &[], never),
        conformance::trial("shared::a_copy_whose_space_is_its_own_shares_nothing", &[], thick),
        conformance::trial("shared::extents_that_are_no_whole_blocks_are_copied", &[], parts),
    ]
}

/// A source with data, a hole of 4 MiB at 8 MiB, and data to the end; and a target that held something else everywhere.
struct Pair {
    source: Arc<FileDevice>,
    target: Arc<FileDevice>,
    _folder: TempDir,
}

async fn pair(place: &Path) -> Pair {
    let folder = TempDir::new_in(place).unwrap();
    let open = async |name: &str| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(u64::try_from(CAPACITY).unwrap()).unwrap();
        Arc::new(FileDevice::open(path, Access::ReadWrite).await.unwrap())
    };
    let (source, target) = (open("source").await, open("target").await);
    let write = async |device: &FileDevice, at: usize, data: Bytes| {
        device.write_at(u64::try_from(at).unwrap(), data, Durability::Cached).await.unwrap();
    };
    write(&source, 0, sample(0, 8 * MIB)).await;
    write(&source, 12 * MIB, sample(12 << 20, CAPACITY - 12 * MIB)).await;
    write(&target, 0, Bytes::from(vec![0xee; CAPACITY])).await;
    Pair { source, target, _folder: folder }
}

impl Pair {
    fn request(&self, zeroing: Zeroing, extents: Option<ExtentSet>) -> CopyRequest {
        CopyRequest {
            key: DiskKey::parse("disk").unwrap(),
            source: self.source.clone(),
            target: self.target.clone(),
            extents,
            blank: false,
            zeroing,
            limit: None,
            resume: None,
            repair: false,
            verify: VerifyLevel::None,
            original: None,
        }
    }
}

async fn run(request: &CopyRequest, share_blocks: bool) -> CopyReport {
    let config = ReplicateConfig { share_blocks, ..ReplicateConfig::default() };
    copy(request, &config, &Silent, &Default::default()).await.unwrap()
}

async fn content(device: &FileDevice) -> BytesMut {
    device.read_at(0, BytesMut::zeroed(CAPACITY)).await.unwrap()
}

async fn shares(place: &Path, zeroing: Zeroing, share_blocks: bool, expected: usize) {
    let pair = pair(place).await;
    let report = run(&pair.request(zeroing, None), share_blocks).await;
    let data = u64::try_from(CAPACITY - 4 * MIB).unwrap();
    assert_eq!(report.bytes_shared, ByteSize::new(u64::try_from(expected).unwrap()));
    assert_eq!(report.bytes_shared + report.bytes_written, ByteSize::new(data));
    assert_eq!(report.bytes_shared + report.bytes_read, ByteSize::new(data), "what is shared is not read");
    assert_eq!(report.bytes_zero, ByteSize::mib(4));
    let copied = content(&pair.source).await;
    assert!(content(&pair.target).await == copied);
    // Each goes its own way from here.
    pair.source.write_at(5000, vec![1; 70_000].into(), Durability::Durable).await.unwrap();
    assert!(content(&pair.target).await == copied);
}

async fn shares_whole_blocks(place: &Path) {
    let pair = pair(place).await;
    // The first can be shared, the second cannot, the third reaches over the hole to the file's end.
    let (aligned, odd) =
        (Extent::new(64 << 10, 128 << 10).unwrap(), Extent::new((1 << 20) + 5, 70_000).unwrap());
    let last = Extent::between(7 << 20, u64::try_from(CAPACITY).unwrap()).unwrap();
    let extents: ExtentSet = [aligned, odd, last].into_iter().collect();
    let report = run(&pair.request(Zeroing::Punch, Some(extents.clone())), true).await;
    let shared = aligned.length() + last.length() - (4 << 20);
    assert_eq!((report.bytes_shared, report.bytes_read), (ByteSize::new(shared), ByteSize::new(70_000)));
    let mut expected = vec![0xee; CAPACITY];
    let source = content(&pair.source).await;
    for extent in extents.iter() {
        let range = usize::try_from(extent.offset()).unwrap()..usize::try_from(extent.end()).unwrap();
        expected[range.clone()].copy_from_slice(&source[range]);
    }
    assert!(content(&pair.target).await == expected);
}
