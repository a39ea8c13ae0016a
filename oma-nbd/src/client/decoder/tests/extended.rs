//! Replies with extended headers, and what attacks on other clients were made of.

use super::*;
use crate::protocol::NBD_REPLY_TYPE_ERROR;

fn wide(cookie: u64, last: bool, chunk: &Chunk<'_>) -> Vec<u8> {
    let offset = match cookie {
        READ => OFFSET,
        3 => ASKED,
        _ => 0,
    };
    let mut bytes = Vec::new();
    chunk.encode_extended(if last { NBD_REPLY_FLAG_DONE } else { 0 }, cookie, offset, &mut bytes);
    bytes
}

fn status(context: u32, extents: &[(u64, u64)], last: bool) -> Vec<u8> {
    let descriptors = extents.iter().map(|&(length, flags)| ExtendedDescriptor { length, flags }).collect();
    wide(3, last, &Chunk::BlockStatusExt { context, descriptors })
}

fn header(cookie: u64, kind: u16, offset: u64, length: u64) -> Vec<u8> {
    ExtendedChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind, cookie, offset, length }.encode().to_vec()
}

/// Chunks of a read, in the headers of each kind that has chunks.
fn both(chunks: &[(Chunk<'_>, bool)]) -> [(Headers, Vec<Vec<u8>>); 2] {
    let compact = chunks.iter().map(|(content, last)| chunk(READ, *last, content)).collect();
    let extended = chunks.iter().map(|(content, last)| wide(READ, *last, content)).collect();
    [(Structured, compact), (Extended, extended)]
}

#[test]
fn replies_of_every_kind_come_in_any_order() {
    let error = Chunk::Error { error: NBD_ENOSPC, message: Cow::Borrowed("full") };
    let bytes = [
        status(6, &[(1 << 40, 1 << 63), (512, 0)], false),
        wide(READ, false, &Chunk::OffsetData { offset: OFFSET + 512, data: &[2; 512] }),
        wide(1, true, &error),
        status(5, &[(u64::MAX, u64::MAX)], true),
        wide(READ, false, &Chunk::OffsetHole { offset: OFFSET, length: 512 }),
        wide(READ, true, &Chunk::None),
    ];
    let ended = feed(&mut decoder(Extended), &bytes.concat(), &[7, 500, 1]);
    let expected = [vec![0; 512], vec![2; 512]].concat();
    assert_eq!(ended, [(1, Err(NBD_ENOSPC)), (3, Ok(vec![])), (READ, Ok(expected))]);
}

#[test]
fn replies_behind_an_empty_chunk_are_not_left_waiting() {
    for (headers, none) in
        [(Extended, wide(1, true, &Chunk::None)), (Structured, chunk(1, true, &Chunk::None))]
    {
        let mut decoder = decoder(headers);
        decoder.begin(7, 0, Expected::Done, 7);
        let mut second = none.clone();
        second[8..16].copy_from_slice(&7u64.to_be_bytes());
        let both = [none, second].concat();
        assert_eq!(decoder.feed(&both), Ok(both.len()), "{headers:?}");
        assert_eq!(std::iter::from_fn(|| decoder.next_finished()).count(), 2);
    }
}

#[test]
fn an_error_with_a_part_of_the_data_fails_the_read() {
    let error = Chunk::ErrorOffset { error: NBD_EIO, message: Cow::Borrowed(""), offset: OFFSET + 512 };
    let data = Chunk::OffsetData { offset: OFFSET, data: &[1; 512] };
    for (headers, parts) in both(&[(data.clone(), false), (error.clone(), true)]) {
        assert_eq!(feed(&mut decoder(headers), &parts.concat(), &[]), [(READ, Err(NBD_EIO))]);
    }
    for (headers, parts) in both(&[(error, false), (data, false), (Chunk::None, true)]) {
        assert_eq!(feed(&mut decoder(headers), &parts.concat(), &[]), [(READ, Err(NBD_EIO))]);
    }
}

#[test]
fn errors_of_unknown_kinds_are_errors() {
    let error = Chunk::Error { error: NBD_EIO, message: Cow::Borrowed("?") };
    for (headers, parts) in both(&[(error, true)]) {
        let mut bytes = parts.concat();
        bytes[6..8].copy_from_slice(&(NBD_REPLY_TYPE_ERROR + 76).to_be_bytes());
        assert_eq!(feed(&mut decoder(headers), &bytes, &[]), [(READ, Err(NBD_EIO))]);
    }
}

#[test]
fn headers_that_were_not_agreed_are_violations() {
    for (headers, parts) in [
        (Extended, vec![simple(1, 0)]),
        (Extended, vec![chunk(1, true, &Chunk::None)]),
        (Extended, vec![chunk(READ, true, &Chunk::OffsetData { offset: OFFSET, data: &[1; LENGTH] })]),
        (Structured, vec![wide(1, true, &Chunk::None)]),
        (Simple, vec![wide(1, true, &Chunk::None)]),
        (Extended, vec![header(1, NBD_REPLY_TYPE_NONE, 512, 0)]),
        (Extended, vec![header(READ, NBD_REPLY_TYPE_OFFSET_DATA, 0, 9)]),
        (Extended, vec![header(3, NBD_REPLY_TYPE_BLOCK_STATUS, ASKED, 12)]),
        (Structured, vec![super::header(3, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 24)]),
        (Extended, vec![header(READ, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, OFFSET, 24)]),
    ] {
        assert!(matches!(refused(headers, &parts), Violation::Unfit(_)), "{headers:?} {parts:?}");
    }
    assert_eq!(refused(Extended, &[header(9, 0, 0, 0)]), Violation::UnknownCookie(9));
}

#[test]
fn lengths_of_64_bits_are_refused_before_room_is_made() {
    for (cookie, offset, kind) in [
        (READ, OFFSET, NBD_REPLY_TYPE_OFFSET_DATA),
        (READ, OFFSET, NBD_REPLY_TYPE_OFFSET_HOLE),
        (READ, OFFSET, NBD_REPLY_TYPE_NONE),
        (3, ASKED, NBD_REPLY_TYPE_BLOCK_STATUS_EXT),
        (1, 0, NBD_REPLY_TYPE_ERROR),
    ] {
        for length in [u64::MAX, 1 << 63, 1 << 32] {
            let violation = refused(Extended, &[header(cookie, kind, offset, length)]);
            assert!(matches!(violation, Violation::TooLong { .. }), "{kind} {length}: {violation:?}");
        }
    }
}

#[test]
fn cve_2019_14842_a_chunk_outside_its_read_is_refused() {
    let end = OFFSET + 1024;
    for (offset, length) in
        [(OFFSET - 1, 2), (end - 1, 2), (end, 1), (0, 1024), (u64::MAX, 2), (OFFSET + (1 << 32), 1)]
    {
        let misplaced = Violation::Misplaced { offset, length: u64::from(length) };
        let data = vec![1; usize::try_from(length).unwrap()];
        for content in [Chunk::OffsetData { offset, data: &data }, Chunk::OffsetHole { offset, length }] {
            for (headers, parts) in both(&[(content, true)]) {
                assert_eq!(refused(headers, &parts), misplaced, "{headers:?}");
            }
        }
    }
}

#[test]
fn cve_2023_5871_block_status_that_cannot_be_is_refused_and_odd_flags_are_not() {
    for parts in [
        vec![status(5, &[(0, 0)], false)],
        vec![status(5, &[(512, 0), (0, 0)], false)],
        vec![status(7, &[(512, 0)], false)],
        vec![status(5, &[(512, 0)], false), status(5, &[(512, 0)], true)],
        vec![status(5, &[(512, 0)], true)],
    ] {
        assert!(matches!(refused(Extended, &parts), Violation::Status(_)), "{parts:?}");
    }
    let none = [header(3, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, ASKED, 8), vec![0, 0, 0, 5, 0, 0, 0, 0]];
    assert!(matches!(refused(Extended, &none), Violation::Malformed(_)), "no extents");
    let many = header(3, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, ASKED, 8 + 16 * ((1 << 20) + 1));
    assert!(matches!(refused(Extended, &[many]), Violation::TooLong { .. }));
    let odd = [status(5, &[(u64::MAX, u64::MAX); 3], false), status(6, &[(1, 1 << 63)], true)];
    assert_eq!(feed(&mut decoder(Extended), &odd.concat(), &[]), [(3, Ok(vec![]))]);
    let compact = Descriptor { length: u32::MAX, flags: u32::MAX };
    let odd: Vec<_> = [(5, false), (6, true)]
        .map(|(context, last)| chunk(3, last, &Chunk::BlockStatus { context, descriptors: vec![compact; 3] }))
        .concat();
    assert_eq!(feed(&mut decoder(Structured), &odd, &[]), [(3, Ok(vec![]))]);
}
