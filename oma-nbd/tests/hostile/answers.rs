//! Lies in transmission.

use bytes::BytesMut;
use oma_core::traits::{BlockDevice, Durability};
use oma_core::{ErrorKind, Extent};
use oma_nbd::protocol::*;

use crate::liar::{ALLOCATION, Liar};

const ASKED: u64 = 64 << 10;
const LENGTH: usize = 8192;

fn chunk(cookie: u64, last: bool, chunk: &Chunk<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    chunk.encode(if last { NBD_REPLY_FLAG_DONE } else { 0 }, cookie, &mut bytes);
    bytes
}

fn data(cookie: u64, last: bool, offset: u64, data: &[u8]) -> Vec<u8> {
    chunk(cookie, last, &Chunk::OffsetData { offset, data })
}

fn hole(cookie: u64, last: bool, offset: u64, length: u32) -> Vec<u8> {
    chunk(cookie, last, &Chunk::OffsetHole { offset, length })
}

/// The bytes of a block status chunk with any content.
fn status(cookie: u64, context: u32, descriptors: &[(u32, u32)]) -> Vec<u8> {
    let length = u32::try_from(4 + descriptors.len() * 8).unwrap();
    let (flags, kind) = (NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS);
    let mut bytes = ChunkHeader { flags, kind, cookie, length }.encode().to_vec();
    bytes.extend(context.to_be_bytes());
    for (length, flags) in descriptors {
        bytes.extend(length.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
    }
    bytes
}

/// The answer to a read, by its cookie.
type Lie = fn(u64) -> Vec<u8>;

/// Every one of these answers fails the read that it is given for.
async fn assert_refused(lies: &[(&str, Lie)]) {
    for (what, lie) in lies {
        let lie = *lie;
        let liar = Liar::answering(move |request| lie(request.cookie));
        let client = liar.connect().await.unwrap();
        let error = client.read_at(ASKED, BytesMut::zeroed(LENGTH)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {}", error.chain());
    }
}

#[tokio::test]
async fn cve_2019_14842_chunks_outside_their_request_are_refused() {
    let lies: [(&str, Lie); 9] = [
        ("before", |c| data(c, true, ASKED - 512, &[1; LENGTH])),
        ("beyond", |c| data(c, true, ASKED + 1, &[1; LENGTH])),
        ("at the end of 64 bits", |c| data(c, true, u64::MAX - 100, &[1; 512])),
        ("longer", |c| data(c, true, ASKED, &[1; LENGTH + 1])),
        ("a hole before", |c| hole(c, true, 0, 512)),
        ("a hole beyond", |c| hole(c, true, ASKED, 8193)),
        ("a hole without end", |c| hole(c, true, ASKED, u32::MAX)),
        ("a hole without length", |c| hole(c, true, ASKED, 0)),
        ("twice", |c| [data(c, false, ASKED, &[1; LENGTH]), data(c, true, ASKED, &[2; 512])].concat()),
    ];
    assert_refused(&lies).await;
}

#[tokio::test]
async fn l11_reads_that_end_short_are_refused() {
    let lies: [(&str, Lie); 6] = [
        ("nothing", |c| chunk(c, true, &Chunk::None)),
        ("half", |c| data(c, true, ASKED, &[1; LENGTH / 2])),
        ("all but a byte in the middle", |c| {
            [data(c, false, ASKED, &[1; 100]), data(c, true, ASKED + 101, &[1; LENGTH - 101])].concat()
        }),
        ("a simple reply", |cookie| SimpleReply { error: 0, cookie }.encode().to_vec()),
        ("block status", |c| status(c, ALLOCATION, &[(8192, 0)])),
        ("an empty chunk", |c| data(c, true, ASKED, &[])),
    ];
    assert_refused(&lies).await;
}

#[tokio::test]
async fn cve_2022_0485_a_read_of_which_any_chunk_failed_has_failed() {
    let broken =
        |cookie, last| chunk(cookie, last, &Chunk::Error { error: NBD_EIO, message: "sector".into() });
    let broken_at = |cookie, last| {
        let offset = ASKED + 512;
        chunk(cookie, last, &Chunk::ErrorOffset { error: NBD_EIO, message: "sector".into(), offset })
    };
    for order in 0..4 {
        let liar = Liar::answering(move |request| {
            let cookie = request.cookie;
            let whole = |last| data(cookie, last, ASKED, &[1; LENGTH]);
            match order {
                0 => [whole(false), broken(cookie, true)].concat(),
                1 => [broken(cookie, false), whole(true)].concat(),
                2 => [whole(false), broken_at(cookie, false), chunk(cookie, true, &Chunk::None)].concat(),
                _ => [broken_at(cookie, false), broken(cookie, false), whole(true)].concat(),
            }
        });
        let client = liar.connect().await.unwrap();
        let error = client.read_at(ASKED, BytesMut::zeroed(LENGTH)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "order {order}: {}", error.chain());
        assert!(error.chain().contains("sector"), "order {order}: {}", error.chain());
    }
}

#[tokio::test]
async fn cve_2023_5871_block_status_that_cannot_be_is_refused() {
    let lies: [(&str, Lie); 7] = [
        ("no extent", |c| status(c, ALLOCATION, &[])),
        ("an extent of nothing", |c| status(c, ALLOCATION, &[(0, 0)])),
        ("nothing in the middle", |c| status(c, ALLOCATION, &[(512, 0), (0, 1), (512, 0)])),
        ("another context", |c| status(c, ALLOCATION + 1, &[(8192, 0)])),
        ("no context at all", |c| chunk(c, true, &Chunk::None)),
        ("more extents than the protocol has", |c| status(c, ALLOCATION, &vec![(1, 0); (1 << 20) + 1])),
        ("half an extent", |cookie| {
            let (flags, kind) = (NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS);
            let mut bytes = ChunkHeader { flags, kind, cookie, length: 8 }.encode().to_vec();
            bytes.extend(ALLOCATION.to_be_bytes());
            bytes.extend([0; 4]);
            bytes
        }),
    ];
    for (what, lie) in lies {
        let liar = Liar::answering(move |request| lie(request.cookie));
        let client = liar.connect().await.unwrap();
        let error = client.block_status(Extent::new(ASKED, 8192).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {}", error.chain());
    }
}

#[tokio::test]
async fn cve_2023_5871_block_status_longer_than_asked_is_cut_to_the_request() {
    for told in
        [vec![(u32::MAX, 3)], vec![(4096, 3), (u32::MAX, 3)], vec![(8192, 3), (u32::MAX, 3), (512, 3)]]
    {
        let liar = Liar::answering(move |request| status(request.cookie, ALLOCATION, &told));
        let client = liar.connect().await.unwrap();
        let asked = Extent::new(ASKED, 8192).unwrap();
        match client.block_status(asked).await {
            Ok(found) => assert!(found.len() == 1 && found[0].extent == asked, "{found:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain()),
        }
    }
}

#[tokio::test]
async fn replies_that_nobody_asked_for_end_the_connection() {
    let lies: [(&str, Lie); 6] = [
        ("another cookie", |c| data(c + 1, true, ASKED, &[1; LENGTH])),
        ("another magic", |_| vec![0x55; 64]),
        ("an error number 0", |c| chunk(c, true, &Chunk::Error { error: 0, message: "".into() })),
        ("an unknown chunk", |cookie| {
            ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind: 99, cookie, length: 0 }.encode().to_vec()
        }),
        ("a chunk of 4 GiB", |cookie| {
            let kind = NBD_REPLY_TYPE_OFFSET_DATA;
            ChunkHeader { flags: 0, kind, cookie, length: u32::MAX }.encode().to_vec()
        }),
        ("an error text of 4 GiB", |cookie| {
            let kind = NBD_REPLY_TYPE_ERROR;
            ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind, cookie, length: u32::MAX }.encode().to_vec()
        }),
    ];
    assert_refused(&lies).await;
}

#[tokio::test]
async fn a_write_is_acknowledged_only_by_its_own_success() {
    let lies: [(&str, Lie); 4] = [
        ("data", |c| data(c, true, ASKED, &[1; 4])),
        ("block status", |c| status(c, ALLOCATION, &[(4, 0)])),
        ("an error", |cookie| SimpleReply { error: NBD_ENOSPC, cookie }.encode().to_vec()),
        ("another cookie", |c| SimpleReply { error: 0, cookie: !c }.encode().to_vec()),
    ];
    for (what, lie) in lies {
        let liar = Liar::answering(move |request| lie(request.cookie));
        let client = liar.connect().await.unwrap();
        let written = client.write_at(ASKED, bytes::Bytes::from_static(b"abcd"), Durability::Cached).await;
        let error = written.expect_err(what);
        assert!(
            [ErrorKind::Corrupt, ErrorKind::NoSpace].contains(&error.kind()),
            "{what}: {}",
            error.chain()
        );
    }
}
