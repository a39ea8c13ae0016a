//! Any bytes as what a server says: they are decoded or refused, what was decoded survives another trip, and a client with
//! requests under way keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_nbd::protocol::{
    Chunk, ChunkHeader, Greeting, InfoReply, ListReply, MetaContextReply, OptionReplyHeader, ReplyHeader,
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
        let ReplyHeader::Chunk(header) = header else { continue };
        let length = usize::try_from(header.length).expect("32 bits fit");
        let (payload, rest) = bytes.split_at(length.min(bytes.len()));
        if let Ok(chunk) = Chunk::decode(header.kind, payload) {
            let mut copy = Vec::new();
            chunk.encode(header.flags, header.cookie, &mut copy);
            assert_eq!(Chunk::decode(chunk.kind(), &copy[ChunkHeader::SIZE..]).as_ref(), Ok(&chunk));
        }
        bytes = rest;
    }
}
