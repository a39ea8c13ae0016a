//! Any requests after a correct handshake: every answer is well formed, and to a request that was sent.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use oma_nbd::protocol::{
    BASE_ALLOCATION, Chunk, ExtendedRequest, Greeting, Headers, InfoRequest, MetaContextRequest,
    NBD_CMD_READ, NBD_CMD_WRITE, NBD_EXTENDED_REQUEST_MAGIC, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO,
    NBD_OPT_SET_META_CONTEXT, NBD_OPT_STRUCTURED_REPLY, NBD_REQUEST_MAGIC, OptionHeader, OptionReplyHeader,
    ReplyHeader, Request,
};

/// Offsets by cookie: several requests may bear the same.
type Asked = BTreeMap<u64, BTreeSet<u64>>;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let headers = match first & 3 {
        0 => Headers::Simple,
        1 => Headers::Structured,
        _ => Headers::Extended,
    };
    let mut said = handshake(headers);
    let options = if headers == Headers::Simple { 1 } else { 3 };
    let mut asked = Asked::new();
    if headers == Headers::Extended {
        extended(rest, &mut said, &mut asked);
    } else {
        requests(rest, headers == Headers::Structured, &mut said, &mut asked);
    }
    let (answers, _) = oma_fuzz::converse(&said);
    check(after_handshake(&answers, options), headers, &asked);
});

fn handshake(headers: Headers) -> Vec<u8> {
    let mut said = 3u32.to_be_bytes().to_vec();
    let mut contexts = Vec::new();
    MetaContextRequest { name: "disk", queries: vec![BASE_ALLOCATION, "qemu:dirty-bitmap:b0"] }
        .encode(&mut contexts);
    let mut go = Vec::new();
    InfoRequest { name: "disk", wanted: vec![] }.encode(&mut go);
    match headers {
        Headers::Simple => {}
        Headers::Structured => option(&mut said, NBD_OPT_STRUCTURED_REPLY, &[]),
        Headers::Extended => option(&mut said, NBD_OPT_EXTENDED_HEADERS, &[]),
    }
    if headers != Headers::Simple {
        option(&mut said, NBD_OPT_SET_META_CONTEXT, &contexts);
    }
    option(&mut said, NBD_OPT_GO, &go);
    said
}

/// Makes extended requests of bytes: the magic is put right. The last one may be cut short or be none at all.
fn extended(mut bytes: &[u8], said: &mut Vec<u8>, asked: &mut Asked) {
    while let Some((header, rest)) = bytes.split_first_chunk::<{ ExtendedRequest::SIZE }>() {
        bytes = rest;
        let mut header = *header;
        header[..4].copy_from_slice(&NBD_EXTENDED_REQUEST_MAGIC.to_be_bytes());
        let mut request = ExtendedRequest::decode(&header).expect("the magic is right");
        request.cookie = u64::from(request.command == NBD_CMD_READ) << 63 | request.cookie >> 1;
        asked.entry(request.cookie).or_default().insert(request.offset);
        said.extend(request.encode());
        if request.command == NBD_CMD_WRITE || request.has_payload() {
            let length = usize::try_from(request.length).expect("64 bits fit");
            let Some((data, rest)) = bytes.split_at_checked(length) else { return said.extend(bytes) };
            said.extend(data);
            bytes = rest;
        }
    }
    said.extend(bytes);
}

fn option(said: &mut Vec<u8>, option: u32, payload: &[u8]) {
    let length = payload.len().try_into().expect("payloads are short");
    said.extend(OptionHeader { option, length }.encode());
    said.extend(payload);
}

/// Makes requests of bytes: the magic is put right. The last one may be cut short or be none at all.
fn requests(mut bytes: &[u8], structured: bool, said: &mut Vec<u8>, asked: &mut Asked) {
    while let Some((header, rest)) = bytes.split_first_chunk::<{ Request::SIZE }>() {
        bytes = rest;
        let mut header = *header;
        header[..4].copy_from_slice(&NBD_REQUEST_MAGIC.to_be_bytes());
        let mut request = Request::decode(&header).expect("the magic is right");
        // The length of a simple reply is known only from its request.
        request.length = if structured { request.length } else { request.length & 0x1fff };
        request.cookie = u64::from(request.command == NBD_CMD_READ) << 63 | u64::from(request.length);
        asked.entry(request.cookie).or_default().insert(request.offset);
        said.extend(request.encode());
        if request.command == NBD_CMD_WRITE {
            let length = usize::try_from(request.length).expect("32 bits fit");
            let Some((data, rest)) = bytes.split_at_checked(length) else { return said.extend(bytes) };
            said.extend(data);
            bytes = rest;
        }
    }
    said.extend(bytes);
}

/// What was answered behind the last option reply.
fn after_handshake(answers: &[u8], options: usize) -> &[u8] {
    let mut rest = &answers[Greeting::SIZE..];
    let mut done = 0;
    while done < options {
        let (header, behind) = rest.split_first_chunk().expect("the handshake is answered");
        let header = OptionReplyHeader::decode(header).expect("replies are well formed");
        rest = &behind[usize::try_from(header.length).expect("replies are short")..];
        done += usize::from(header.reply == 1);
    }
    rest
}

fn check(mut answers: &[u8], headers: Headers, asked: &Asked) {
    while let Some((header, size)) = ReplyHeader::decode(answers).expect("replies are well formed") {
        answers = &answers[size..];
        let (cookie, length, kind) = match header {
            ReplyHeader::Simple(reply) => {
                assert_ne!(headers, Headers::Extended, "everything is answered in chunks");
                assert!(
                    headers == Headers::Simple || reply.cookie >> 63 == 0,
                    "a read is answered in chunks"
                );
                let is_data = headers == Headers::Simple && reply.cookie >> 63 == 1 && reply.error == 0;
                (reply.cookie, if is_data { reply.cookie & 0x1fff } else { 0 }, None)
            }
            ReplyHeader::Chunk(chunk) => {
                assert_eq!(headers, Headers::Structured);
                (chunk.cookie, chunk.length.into(), Some(chunk.kind))
            }
            ReplyHeader::Extended(chunk) => {
                assert_eq!(headers, Headers::Extended);
                let offsets = asked.get(&chunk.cookie);
                assert!(offsets.is_some_and(|offsets| offsets.contains(&chunk.offset)), "{chunk:?}");
                (chunk.cookie, chunk.length, Some(chunk.kind))
            }
        };
        assert!(asked.contains_key(&cookie), "nobody asked for {cookie:#x}");
        let length = usize::try_from(length).expect("payloads fit memory");
        if length > answers.len() {
            return;
        }
        let (payload, rest) = answers.split_at(length);
        if let Some(kind) = kind {
            Chunk::decode(kind, payload).expect("chunks are well formed");
        }
        answers = rest;
    }
}
