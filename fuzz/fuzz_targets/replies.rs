//! Any bytes as what a server says: they are decoded or refused, what was decoded survives another trip, and a client with
//! requests under way keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_nbd::protocol::{
    Chunk, ChunkHeader, ExtendedChunkHeader, Greeting, InfoReply, ListReply, MetaContextReply,
    OptionReplyHeader, ReplyHeader,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = bytes.first_chunk().map(Greeting::decode);
    let _ = bytes.first_chunk().map(OptionReplyHeader::decode);
    options(bytes);
    transmission(bytes);
    oma_nbd::client::fuzz_replies(bytes);
});

fn options(bytes: &[u8]) {
    let mut copy = Vec::new();
    if let Ok(info) = InfoReply::decode(bytes) {
        info.encode(&mut copy);
        assert_eq!(InfoReply::decode(&copy), Ok(info));
    }
    copy.clear();
    if let Ok(export) = ListReply::decode(bytes) {
        export.encode(&mut copy);
        assert_eq!(copy, bytes);
    }
    copy.clear();
    if let Ok(context) = MetaContextReply::decode(bytes) {
        context.encode(&mut copy);
        assert_eq!(copy, bytes);
    }
}

fn transmission(mut bytes: &[u8]) {
    while let Ok(Some((header, size))) = ReplyHeader::decode(bytes) {
        bytes = &bytes[size..];
        let (kind, length) = match header {
            ReplyHeader::Simple(_) => continue,
            ReplyHeader::Chunk(header) => (header.kind, header.length.into()),
            ReplyHeader::Extended(header) => (header.kind, header.length),
        };
        let length = usize::try_from(length).expect("64 bits fit");
        let (payload, rest) = bytes.split_at(length.min(bytes.len()));
        if let Ok(chunk) = Chunk::decode(kind, payload) {
            let (mut copy, mut wide) = (Vec::new(), Vec::new());
            chunk.encode(0, 1, &mut copy);
            chunk.encode_extended(0, 1, 2, &mut wide);
            assert_eq!(copy[ChunkHeader::SIZE..], wide[ExtendedChunkHeader::SIZE..]);
            assert_eq!(Chunk::decode(chunk.kind(), &copy[ChunkHeader::SIZE..]).as_ref(), Ok(&chunk));
        }
        bytes = rest;
    }
}
