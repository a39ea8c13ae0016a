use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::protocol::Headers::{Extended, Simple, Structured};
use crate::protocol::{Descriptor, NBD_EIO, NBD_ENOSPC};

const READ: u64 = 2;
const OFFSET: u64 = 4096;
const LENGTH: usize = 1024;
/// Where block status is asked for.
const ASKED: u64 = 1 << 40;

/// A decoder that waits for a change (1), a read (2) and a block status (3).
fn decoder(headers: Headers) -> Decoder<u64> {
    let mut decoder = Decoder::new(headers);
    let buffer = BytesMut::from(&[0xee; LENGTH][..]);
    decoder.begin(1, 0, Expected::Done, 1);
    decoder.begin(READ, OFFSET, Expected::Data { offset: OFFSET, buffer }, READ);
    decoder.begin(3, ASKED, Expected::Status { contexts: vec![5, 6] }, 3);
    decoder
}

fn simple(cookie: u64, error: u32) -> Vec<u8> {
    SimpleReply { error, cookie }.encode().to_vec()
}

fn chunk(cookie: u64, last: bool, chunk: &Chunk<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    chunk.encode(if last { NBD_REPLY_FLAG_DONE } else { 0 }, cookie, &mut bytes);
    bytes
}

fn data(offset: u64, data: &[u8], last: bool) -> Vec<u8> {
    chunk(READ, last, &Chunk::OffsetData { offset, data })
}

fn hole(offset: u64, length: u32, last: bool) -> Vec<u8> {
    chunk(READ, last, &Chunk::OffsetHole { offset, length })
}

fn error(cookie: u64, last: bool) -> Vec<u8> {
    chunk(cookie, last, &Chunk::Error { error: NBD_EIO, message: Cow::Borrowed("bad sector") })
}

fn status(context: u32, lengths: &[u32], last: bool) -> Vec<u8> {
    let descriptors = lengths.iter().map(|&length| Descriptor { length, flags: 0 }).collect();
    chunk(3, last, &Chunk::BlockStatus { context, descriptors })
}

fn header(cookie: u64, kind: u16, length: u32) -> Vec<u8> {
    ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind, cookie, length }.encode().to_vec()
}

fn refused(headers: Headers, parts: &[Vec<u8>]) -> Violation {
    let mut decoder = decoder(headers);
    let bytes = parts.concat();
    decoder.feed(&bytes).expect_err("a violation")
}

/// Feeds all bytes, some of them straight into the buffer of a read, and answers what ended.
fn feed(decoder: &mut Decoder<u64>, bytes: &[u8], sizes: &[usize]) -> Vec<(u64, Result<Vec<u8>, u32>)> {
    let (mut input, mut rest, mut sizes) = (Vec::new(), bytes, sizes.iter().copied().cycle());
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (now, later) = rest.split_at(size);
        let space = decoder.space().unwrap_or_default();
        let direct = space.len().min(now.len());
        space[..direct].copy_from_slice(&now[..direct]);
        decoder.advance(direct).unwrap();
        input.extend_from_slice(&now[direct..]);
        let used = decoder.feed(&input).unwrap();
        input.drain(..used);
        rest = later;
    }
    assert!(input.is_empty());
    let mut ended = Vec::new();
    while let Some(finished) = decoder.next_finished() {
        let outcome = finished.outcome.map(|answer| match answer {
            Answer::Data(buffer) => buffer.to_vec(),
            Answer::Done | Answer::Status(_) => Vec::new(),
        });
        ended.push((finished.token, outcome.map_err(|error| error.errno)));
    }
    ended
}

#[test]
fn simple_replies_come_in_any_order() {
    let mut decoder = decoder(Simple);
    let bytes = [simple(READ, 0), vec![7; LENGTH], simple(1, NBD_ENOSPC)].concat();
    let ended = feed(&mut decoder, &bytes, &[]);
    assert_eq!(ended, [(READ, Ok(vec![7; LENGTH])), (1, Err(NBD_ENOSPC))]);
    assert_eq!(decoder.abandon().collect::<Vec<_>>(), [3]);
}

#[test]
fn fragments_come_in_any_order_between_other_replies() {
    let bytes = [
        status(6, &[512], false),
        data(OFFSET + 512, &[2; 512], false),
        simple(1, 0),
        status(5, &[512, 512], true),
        hole(OFFSET + 100, 412, false),
        data(OFFSET, &[1; 100], false),
        chunk(READ, true, &Chunk::None),
    ];
    let ended = feed(&mut decoder(Structured), &bytes.concat(), &[]);
    let expected = [vec![1; 100], vec![0; 412], vec![2; 512]].concat();
    assert_eq!(ended, [(1, Ok(vec![])), (3, Ok(vec![])), (READ, Ok(expected))]);
}

#[test]
fn l11_an_error_chunk_fails_the_whole_read() {
    for parts in [
        [data(OFFSET, &[1; 512], false), error(READ, false), data(OFFSET + 512, &[2; 512], true)],
        [data(OFFSET, &[1; LENGTH], false), error(READ, false), chunk(READ, true, &Chunk::None)],
        [error(READ, false), error(READ, false), error(READ, true)],
    ] {
        assert_eq!(feed(&mut decoder(Structured), &parts.concat(), &[]), [(READ, Err(NBD_EIO))]);
    }
}

#[test]
fn reads_that_lack_or_repeat_bytes_are_violations() {
    let end = OFFSET + 1024;
    assert_eq!(refused(Structured, &[data(OFFSET, &[1; 512], true)]), Violation::Short { missing: 512 });
    assert_eq!(refused(Structured, &[chunk(READ, true, &Chunk::None)]), Violation::Short { missing: 1024 });
    let misplaced = |offset, length| Violation::Misplaced { offset, length };
    for (parts, violation) in [
        (vec![data(OFFSET - 1, &[1; 2], true)], misplaced(OFFSET - 1, 2)),
        (vec![data(end - 1, &[1; 2], true)], misplaced(end - 1, 2)),
        (vec![data(u64::MAX, &[1; 2], true)], misplaced(u64::MAX, 2)),
        (vec![hole(OFFSET, 1025, true)], misplaced(OFFSET, 1025)),
        (vec![hole(OFFSET, 0, true)], misplaced(OFFSET, 0)),
        (vec![hole(OFFSET, u32::MAX, true)], misplaced(OFFSET, u32::MAX.into())),
        (vec![data(OFFSET, &[1; 8], false), data(OFFSET + 7, &[1; 8], true)], misplaced(OFFSET + 7, 8)),
        (vec![hole(OFFSET, 8, false), data(OFFSET, &[1; 8], true)], misplaced(OFFSET, 8)),
    ] {
        assert_eq!(refused(Structured, &parts), violation);
    }
}

#[test]
fn replies_that_belong_to_nothing_are_violations() {
    assert_eq!(refused(Simple, &[simple(9, 0)]), Violation::UnknownCookie(9));
    assert_eq!(refused(Structured, &[data_of(9)]), Violation::UnknownCookie(9));
    let twice = [simple(1, 0), simple(1, 0)];
    assert_eq!(refused(Structured, &twice), Violation::UnknownCookie(1), "a reply that comes twice");
    assert!(matches!(refused(Structured, &[b"HTTP/1.1 400 Bad".to_vec()]), Violation::Malformed(_)));
    for (headers, parts) in [
        (Structured, vec![simple(READ, 0)]),
        (Structured, vec![simple(3, 0)]),
        (Simple, vec![simple(3, 0)]),
        (Simple, vec![data(OFFSET, &[1; LENGTH], true)]),
        (Structured, vec![error(1, false), simple(1, 0)]),
        (Structured, vec![header(1, NBD_REPLY_TYPE_OFFSET_DATA, 9)]),
        (Structured, vec![header(1, NBD_REPLY_TYPE_BLOCK_STATUS, 12)]),
        (Structured, vec![header(READ, NBD_REPLY_TYPE_BLOCK_STATUS, 12)]),
        (Structured, vec![header(READ, NBD_REPLY_TYPE_OFFSET_DATA, 8)]),
        (Structured, vec![header(READ, 99, 0)]),
        (Structured, vec![chunk(READ, false, &Chunk::None)]),
    ] {
        assert!(matches!(refused(headers, &parts), Violation::Unfit(_)), "{headers:?} {parts:?}");
    }
}

fn data_of(cookie: u64) -> Vec<u8> {
    chunk(cookie, true, &Chunk::OffsetData { offset: OFFSET, data: &[1] })
}

#[test]
fn lengths_are_refused_before_room_is_made() {
    for (cookie, kind) in [
        (READ, NBD_REPLY_TYPE_OFFSET_DATA),
        (READ, NBD_REPLY_TYPE_OFFSET_HOLE),
        (READ, NBD_REPLY_TYPE_NONE),
        (3, NBD_REPLY_TYPE_BLOCK_STATUS),
        (1, NBD_REPLY_TYPE_ERROR_BIT + 1),
        (1, NBD_REPLY_TYPE_ERROR_BIT + 77),
    ] {
        let violation = refused(Structured, &[header(cookie, kind, u32::MAX)]);
        assert!(matches!(violation, Violation::TooLong { length: 0xffff_ffff, .. }), "{kind}: {violation:?}");
    }
}

#[test]
fn block_status_that_cannot_be_is_a_violation() {
    for parts in [
        vec![status(5, &[0], false)],
        vec![status(5, &[512, 0, 512], false)],
        vec![status(7, &[512], false)],
        vec![status(5, &[512], false), status(5, &[512], true)],
        vec![status(5, &[512], true)],
        vec![chunk(3, true, &Chunk::None)],
    ] {
        assert!(matches!(refused(Structured, &parts), Violation::Status(_)), "{parts:?}");
    }
    assert!(matches!(
        refused(Structured, &[header(3, NBD_REPLY_TYPE_BLOCK_STATUS, 4), vec![0; 4]]),
        Violation::Malformed(_)
    ));
}

#[test]
fn an_error_outside_its_read_is_a_violation() {
    let at = |offset| Chunk::ErrorOffset { error: NBD_EIO, message: Cow::Borrowed(""), offset };
    assert_eq!(
        feed(&mut decoder(Structured), &chunk(READ, true, &at(OFFSET + 1023)), &[]),
        [(READ, Err(NBD_EIO))]
    );
    for offset in [OFFSET - 1, OFFSET + 1024, u64::MAX] {
        assert_eq!(
            refused(Structured, &[chunk(READ, true, &at(offset))]),
            Violation::Misplaced { offset, length: 1 }
        );
    }
}

#[test]
fn requests_under_way_are_abandoned_in_every_state() {
    let whole = [simple(1, 0), data(OFFSET, &[1; LENGTH], false)].concat();
    for length in 0..whole.len() {
        let mut decoder = decoder(Structured);
        let ended = feed_some(&mut decoder, &whole[..length]);
        assert_eq!(ended + decoder.abandon().count(), 3, "after {length} bytes");
    }
}

fn feed_some(decoder: &mut Decoder<u64>, bytes: &[u8]) -> usize {
    let used = decoder.feed(bytes).unwrap();
    assert!(bytes.len() - used < decoder.needed());
    std::iter::from_fn(|| decoder.next_finished()).count()
}

mod extended;

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same(sizes in prop::collection::vec(1usize..600, 1..20), cut in 1usize..LENGTH) {
        let content: Vec<u8> = (0..=255).cycle().take(LENGTH).collect();
        let at = OFFSET + u64::try_from(cut).unwrap();
        let parts = [
            data(at, &content[cut..], false), status(5, &[9; 40], false), simple(1, 0),
            status(6, &[9], true), data(OFFSET, &content[..cut], true),
        ];
        let ended = feed(&mut decoder(Structured), &parts.concat(), &sizes);
        prop_assert_eq!(ended, [(1, Ok(vec![])), (3, Ok(vec![])), (READ, Ok(content))]);
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, cookie in 0u64..5, kind in prop_oneof![0u16..8, 0x8000u16..0x8004], length in 0u32..40) {
        fuzz(&bytes);
        let mut chunk = vec![0];
        chunk.extend(header(cookie, kind, length));
        chunk.extend(bytes);
        fuzz(&chunk);
    }
}

#[test]
fn pieces_of_a_read_without_number_take_no_memory_without_end() {
    let mut decoder = Decoder::new(Structured);
    let expected = Expected::Data { offset: 0, buffer: BytesMut::zeroed(1 << 20) };
    decoder.begin(READ, 0, expected, READ);
    let refused = (0..1 << 19).position(|number| decoder.feed(&hole(2 * number, 1, false)).is_err());
    assert_eq!(refused, Some(MOST_GAPS));
}
