//! What only some servers have: headers with 64 bits of length, caching, quick zeroes, more than one context.

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{Trial, trial};
use oma_core::traits::{BlockDevice, BlockStatusKind, Durability, Zeroing};
use oma_core::{ErrorKind, Extent};
use oma_nbd::protocol::{BASE_ALLOCATION, NBD_STATE_DIRTY, NBD_STATE_HOLE, QEMU_ALLOCATION_DEPTH};
use oma_nbd::{Client, ClientConfig};

use crate::fixture::{NBDKIT, Peer, QEMU_IMG, QEMU_IO, QEMU_NBD, config, run, text};

/// More than 32 bits tell.
const TIB: u64 = 1 << 40;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_server_without_extended_headers_is_used_without", &[NBDKIT], without_extended_headers),
        trial("extended_headers_are_left_out_on_request", &[QEMU_NBD], extended_headers_are_left_out),
        trial("a_disk_of_a_tebibyte_is_changed_and_told_of_at_once", &[QEMU_NBD], a_tebibyte_at_once),
        trial("each_context_is_told_of_alone", &[QEMU_NBD, QEMU_IMG, QEMU_IO], each_context_alone),
        trial("caching_reaches_the_server_in_bounded_requests", &[NBDKIT], caching_reaches_the_server),
        trial("zeroes_that_are_not_fast_are_unsupported", &[NBDKIT], zeroes_that_are_not_fast),
        trial("a_spinning_disk_is_told", &[NBDKIT], a_spinning_disk),
    ]
}

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

async fn without_extended_headers() {
    let peer = Peer::nbdkit(&["memory", "1M"]).await;
    let client = peer.connect().await;
    assert!(!client.has_extended_headers() && client.has_context(BASE_ALLOCATION));
    client.read_at(0, BytesMut::zeroed(512)).await.unwrap();
}

/// A raw file of one tebibyte, all hole, behind qemu-nbd.
async fn tebibyte() -> Peer {
    let mut peer = Peer::new();
    let image = peer.path("image");
    std::fs::File::create(&image).unwrap().set_len(TIB).unwrap();
    peer.start_qemu_nbd(&["--format=raw", "--discard=unmap", text(&image)]).await;
    peer
}

async fn extended_headers_are_left_out() {
    let peer = tebibyte().await;
    let without = ClientConfig { extended_headers: false, ..config() };
    let client = Client::connect(&peer.uri(""), without).await.unwrap();
    assert!(!client.has_extended_headers());
    let found = client.block_status(extent(0, TIB)).await.unwrap();
    assert!(found.iter().map(|status| status.extent.length()).sum::<u64>() < 1 << 32, "{found:?}");
    client.trim(extent(0, TIB)).await.unwrap();
    client.close().await;
}

async fn a_tebibyte_at_once() {
    let peer = tebibyte().await;
    let client = peer.connect().await;
    assert!(client.has_extended_headers());
    assert!(client.leaf_hasher().is_none(), "it makes no hashes");
    let whole = extent(0, TIB);
    let status = async || {
        let found = client.block_status(whole).await.unwrap();
        found.into_iter().map(|status| (status.extent, status.kind)).collect::<Vec<_>>()
    };
    assert_eq!(status().await, [(whole, BlockStatusKind::Hole)]);
    let place = TIB / 2;
    for change in 0..3 {
        client.write_at(place, Bytes::from(vec![7; 65536]), Durability::Durable).await.unwrap();
        let data = (extent(place, 65536), BlockStatusKind::Data);
        assert!(status().await.contains(&data), "{change}");
        match change {
            0 => client.trim(whole).await.unwrap(),
            1 => client.write_zeroes(whole, Zeroing::Punch, Durability::Cached).await.unwrap(),
            _ => client.zero_fast(whole, Zeroing::Punch, Durability::Durable).await.unwrap(),
        }
        assert_eq!(client.read_at(place, BytesMut::zeroed(65536)).await.unwrap(), BytesMut::zeroed(65536));
    }
    client.cache(extent(place, 1 << 26)).await.unwrap();
    assert_eq!(status().await, [(whole, BlockStatusKind::Hole)]);
    client.close().await;
}

async fn each_context_alone() {
    let mut peer = Peer::new();
    let (base, top) = (peer.path("base"), peer.path("top"));
    run("qemu-img", &["create", "-f", "qcow2", text(&base), "64M"]).await;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 1 0 2M", text(&base)]).await;
    run("qemu-img", &["create", "-f", "qcow2", "-b", text(&base), "-F", "qcow2", text(&top)]).await;
    run("qemu-img", &["bitmap", "--add", text(&top), "b0"]).await;
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 2 1M 1M", text(&top)]).await;
    peer.start_qemu_nbd(&["--format=qcow2", "-A", "-B", "b0", text(&top)]).await;
    let contexts = vec![QEMU_ALLOCATION_DEPTH.to_owned(), "qemu:dirty-bitmap:b0".to_owned()];
    for extended_headers in [true, false] {
        let config = ClientConfig { contexts: contexts.clone(), extended_headers, ..config() };
        let client = Client::connect(&peer.uri(""), config).await.unwrap();
        assert_eq!((client.contexts().count(), client.has_extended_headers()), (3, extended_headers));
        let all = extent(0, 64 << 20);
        let depth = client.meta_status(QEMU_ALLOCATION_DEPTH, all).await.unwrap();
        let found: Vec<_> = depth.iter().map(|part| (part.extent.length() >> 20, part.flags)).collect();
        assert_eq!(found, [(1, 2), (1, 1), (62, 0)]);
        let dirty = client.dirty_extents("b0", all).await.unwrap();
        assert_eq!(dirty.iter().collect::<Vec<_>>(), [extent(1 << 20, 1 << 20)]);
        let context = "qemu:dirty-bitmap:b0";
        assert_eq!(client.marked_extents(context, NBD_STATE_DIRTY.into(), all).await.unwrap(), dirty);
        let holes = client.marked_extents(BASE_ALLOCATION, NBD_STATE_HOLE.into(), all).await.unwrap();
        assert_eq!(holes.iter().collect::<Vec<_>>(), [extent(2 << 20, 62 << 20)]);
    }
}

async fn caching_reaches_the_server() {
    let mut peer = Peer::new();
    let noted = peer.path("cached");
    let note = format!("cache=echo $3 $4 >>{}", noted.display());
    peer.start_nbdkit(&["eval", "get_size=echo 100M", "pread=exit 1", "can_cache=echo native", &note]).await;
    let client = peer.connect().await;
    assert!(client.info().can_cache);
    client.cache(extent(1 << 20, 40 << 20)).await.unwrap();
    let maximum = u64::from(client.info().block_sizes.maximum);
    let (mut end, mut pieces) = (1 << 20, 0);
    for line in std::fs::read_to_string(&noted).unwrap().lines() {
        let (count, offset) = line.split_once(' ').unwrap();
        let (count, offset): (u64, u64) = (count.parse().unwrap(), offset.parse().unwrap());
        assert!(offset == end && count <= maximum, "{line}");
        (end, pieces) = (offset + count, pieces + 1);
    }
    assert!(end == 41 << 20 && pieces > 0, "{pieces} up to {end}");
    let without = Peer::nbdkit(&["eval", "get_size=echo 1M", "pread=exit 1", "can_cache=echo none"]).await;
    let client = without.connect().await;
    assert!(!client.info().can_cache);
    client.cache(extent(0, 1 << 20)).await.unwrap();
}

async fn zeroes_that_are_not_fast() {
    let script = [
        "get_size=echo 4M",
        "pread=exit 1",
        "pwrite=exit 1",
        "can_zero=exit 0",
        "can_fast_zero=exit 0",
        "zero=case $5 in *fast*) echo ENOTSUP slow >&2; exit 1 ;; *) exit 0 ;; esac",
    ];
    let peer = Peer::nbdkit(&[&["eval"][..], &script].concat()).await;
    let client = peer.connect().await;
    assert!(client.info().can_zero_fast);
    let fast = client.zero_fast(extent(0, 4096), Zeroing::Punch, Durability::Cached).await;
    assert_eq!(fast.unwrap_err().kind(), ErrorKind::Unsupported);
    client.write_zeroes(extent(0, 4096), Zeroing::Punch, Durability::Cached).await.unwrap();
}

async fn a_spinning_disk() {
    for (answer, spins) in [("is_rotational=exit 0", true), ("is_rotational=exit 3", false)] {
        let peer = Peer::nbdkit(&["eval", "get_size=echo 1M", "pread=exit 1", answer]).await;
        assert_eq!(peer.connect().await.info().is_rotational, spins);
    }
}
