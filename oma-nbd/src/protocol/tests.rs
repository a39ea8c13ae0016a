use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace())
        .map(|b| u8::try_from(char::from(b).to_digit(16).unwrap()).unwrap())
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

#[test]
fn handshake_headers_are_the_bytes_of_the_document() {
    let greeting = Greeting { flags: NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES };
    let golden = hex("4e42444d41474943 49484156454f5054 0003");
    assert_eq!(greeting.encode().as_slice(), golden);
    assert_eq!(Greeting::decode(&array(&golden)), Ok(greeting));

    let option = OptionHeader { option: NBD_OPT_GO, length: 0x0102 };
    let golden = hex("49484156454f5054 00000007 00000102");
    assert_eq!(option.encode().as_slice(), golden);
    assert_eq!(OptionHeader::decode(&array(&golden)), Ok(option));

    let reply = OptionReplyHeader { option: NBD_OPT_LIST, reply: NBD_REP_ERR_UNSUP, length: 5 };
    let golden = hex("0003e889045565a9 00000003 80000001 00000005");
    assert_eq!(reply.encode().as_slice(), golden);
    assert_eq!(OptionReplyHeader::decode(&array(&golden)), Ok(reply));

    let export = ExportNameReply { size: 1 << 40, flags: 0x0103 };
    let golden = hex("0000010000000000 0103");
    assert_eq!(export.encode().as_slice(), golden);
    assert_eq!(ExportNameReply::decode(&array(&golden)), Ok(export));
}

#[test]
fn transmission_headers_are_the_bytes_of_the_document() {
    let request = Request {
        flags: NBD_CMD_FLAG_FUA,
        command: NBD_CMD_WRITE,
        cookie: 0x0102_0304_0506_0708,
        offset: 1 << 32,
        length: 4096,
    };
    let golden = hex("25609513 0001 0001 0102030405060708 0000000100000000 00001000");
    assert_eq!(request.encode().as_slice(), golden);
    assert_eq!(Request::decode(&array(&golden)), Ok(request));

    let simple = SimpleReply { error: NBD_ENOSPC, cookie: 9 };
    let golden = hex("67446698 0000001c 0000000000000009");
    assert_eq!(simple.encode().as_slice(), golden);
    assert_eq!(SimpleReply::decode(&array(&golden)), Ok(simple));

    let chunk = ChunkHeader { flags: 1, kind: NBD_REPLY_TYPE_ERROR_OFFSET, cookie: 9, length: 16 };
    let golden = hex("668e33ef 0001 8002 0000000000000009 00000010");
    assert_eq!(chunk.encode().as_slice(), golden);
    assert_eq!(ChunkHeader::decode(&array(&golden)), Ok(chunk));
}

#[test]
fn extended_headers_are_the_bytes_of_the_document() {
    let request = ExtendedRequest {
        flags: NBD_CMD_FLAG_PAYLOAD_LEN,
        command: NBD_CMD_WRITE,
        cookie: 0x0102_0304_0506_0708,
        offset: 1 << 32,
        length: 1 << 33,
    };
    let golden = hex("21e41c71 0020 0001 0102030405060708 0000000100000000 0000000200000000");
    assert_eq!(request.encode().as_slice(), golden);
    assert_eq!(ExtendedRequest::decode(&array(&golden)), Ok(request));
    assert!(request.has_payload());
    let compact = Request { flags: 1, command: NBD_CMD_TRIM, cookie: 9, offset: 512, length: 1024 };
    let wide = ExtendedRequest { flags: 1, command: NBD_CMD_TRIM, cookie: 9, offset: 512, length: 1024 };
    assert_eq!(ExtendedRequest::from(compact), wide);
    assert!(!wide.has_payload());
    assert_eq!(wide.try_into(), Ok(compact));
    assert!(Request::try_from(request).is_err(), "2^33 bytes are more than 32 bits tell");

    let kind = NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    let chunk = ExtendedChunkHeader { flags: 1, kind, cookie: 9, offset: 1 << 32, length: 24 };
    let golden = hex("6e8a278c 0001 0006 0000000000000009 0000000100000000 0000000000000018");
    assert_eq!(chunk.encode().as_slice(), golden);
    assert_eq!(ExtendedChunkHeader::decode(&array(&golden)), Ok(chunk));
}

/// What a payload is decoded to, for tables.
#[derive(Debug, PartialEq)]
enum Payload<'a> {
    InfoRequest(InfoRequest<'a>),
    Info(InfoReply<'a>),
    List(ListReply<'a>),
    ContextRequest(MetaContextRequest<'a>),
    Context(MetaContextReply<'a>),
    Status(StatusPayload),
    Chunk(Chunk<'a>),
}

impl Payload<'_> {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::InfoRequest(value) => value.encode(&mut out),
            Self::Info(value) => value.encode(&mut out),
            Self::List(value) => value.encode(&mut out),
            Self::ContextRequest(value) => value.encode(&mut out),
            Self::Context(value) => value.encode(&mut out),
            Self::Status(value) => value.encode(&mut out),
            Self::Chunk(value) => {
                let mut extended = Vec::new();
                value.encode_extended(NBD_REPLY_FLAG_DONE, 7, 512, &mut extended);
                let (head, payload) = extended.split_at(ExtendedChunkHeader::SIZE);
                let header = ExtendedChunkHeader::decode(&array(head)).unwrap();
                let length = payload.len().try_into().unwrap();
                let (flags, kind) = (NBD_REPLY_FLAG_DONE, value.kind());
                assert_eq!(header, ExtendedChunkHeader { flags, kind, cookie: 7, offset: 512, length });
                value.encode(NBD_REPLY_FLAG_DONE, 7, &mut out);
                let header = ChunkHeader::decode(&array(&out[..ChunkHeader::SIZE])).unwrap();
                let length = u32::try_from(out.len() - ChunkHeader::SIZE).unwrap();
                assert_eq!(
                    header,
                    ChunkHeader { flags: NBD_REPLY_FLAG_DONE, kind: value.kind(), cookie: 7, length }
                );
                out.drain(..ChunkHeader::SIZE);
                assert_eq!(out, payload);
            }
        }
        out
    }

    /// Decodes other bytes as the same kind.
    fn decode<'b>(&self, bytes: &'b [u8]) -> Result<Payload<'b>, Malformed> {
        Ok(match self {
            Self::InfoRequest(_) => Payload::InfoRequest(InfoRequest::decode(bytes)?),
            Self::Info(_) => Payload::Info(InfoReply::decode(bytes)?),
            Self::List(_) => Payload::List(ListReply::decode(bytes)?),
            Self::ContextRequest(_) => Payload::ContextRequest(MetaContextRequest::decode(bytes)?),
            Self::Context(_) => Payload::Context(MetaContextReply::decode(bytes)?),
            Self::Status(_) => Payload::Status(StatusPayload::decode(bytes)?),
            Self::Chunk(chunk) => Payload::Chunk(Chunk::decode(chunk.kind(), bytes)?),
        })
    }

    /// Whether its last field is as long as the payload, so that a shorter one is a payload too.
    fn is_open_ended(&self) -> bool {
        match self {
            Self::Info(info) => {
                matches!(info, InfoReply::Name(_) | InfoReply::Description(_) | InfoReply::Unknown(_))
            }
            Self::List(_) | Self::Context(_) | Self::Status(_) => true,
            Self::Chunk(chunk) => matches!(chunk, Chunk::OffsetData { .. } | Chunk::BlockStatus { .. }),
            Self::InfoRequest(_) | Self::ContextRequest(_) => false,
        }
    }
}

fn golden_payloads() -> Vec<(Payload<'static>, &'static str)> {
    let message = Cow::Borrowed("no");
    let queries = vec!["base:allocation"];
    let descriptors = vec![Descriptor { length: 4096, flags: 3 }, Descriptor { length: 512, flags: 0 }];
    let wide = vec![
        ExtendedDescriptor { length: 1 << 33, flags: (1 << 32) + 3 },
        Descriptor { length: 512, flags: 0 }.into(),
    ];
    vec![
        (
            Payload::InfoRequest(InfoRequest {
                name: "ab",
                wanted: vec![NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE],
            }),
            "00000002 6162 0002 0000 0003",
        ),
        (Payload::InfoRequest(InfoRequest { name: "", wanted: vec![] }), "00000000 0000"),
        (Payload::Info(InfoReply::Export { size: 65536, flags: 0x0102 }), "0000 0000000000010000 0102"),
        (Payload::Info(InfoReply::Name("ab")), "0001 6162"),
        (Payload::Info(InfoReply::Description("c")), "0002 63"),
        (
            Payload::Info(InfoReply::BlockSize { minimum: 1, preferred: 4096, maximum: 1 << 25 }),
            "0003 00000001 00001000 02000000",
        ),
        (Payload::List(ListReply { name: "ab", description: "" }), "00000002 6162"),
        (Payload::List(ListReply { name: "ab", description: "xyz" }), "00000002 6162 78797a"),
        (
            Payload::ContextRequest(MetaContextRequest { name: "ab", queries }),
            "00000002 6162 00000001 0000000f 626173653a616c6c6f636174696f6e",
        ),
        (
            Payload::Context(MetaContextReply { id: 1, name: BASE_ALLOCATION }),
            "00000001 626173653a616c6c6f636174696f6e",
        ),
        (Payload::Chunk(Chunk::None), ""),
        (Payload::Chunk(Chunk::OffsetData { offset: 512, data: b"xyz" }), "0000000000000200 78797a"),
        (Payload::Chunk(Chunk::OffsetHole { offset: 512, length: 1024 }), "0000000000000200 00000400"),
        (
            Payload::Chunk(Chunk::BlockStatus { context: 1, descriptors }),
            "00000001 00001000 00000003 00000200 00000000",
        ),
        (
            Payload::Chunk(Chunk::BlockStatusExt { context: 1, descriptors: wide }),
            "00000001 00000002 0000000200000000 0000000100000003 0000000000000200 0000000000000000",
        ),
        (
            Payload::Status(StatusPayload { length: 1 << 33, contexts: vec![7, 1] }),
            "0000000200000000 00000007 00000001",
        ),
        (Payload::Chunk(Chunk::Error { error: NBD_EIO, message: message.clone() }), "00000005 0002 6e6f"),
        (
            Payload::Chunk(Chunk::ErrorOffset { error: NBD_EIO, message, offset: 512 }),
            "00000005 0002 6e6f 0000000000000200",
        ),
    ]
}

#[test]
fn payloads_are_the_bytes_of_the_document() {
    for (value, golden) in golden_payloads() {
        let golden = hex(golden);
        assert_eq!(value.encode(), golden, "{value:?}");
        assert_eq!(value.decode(&golden).as_ref(), Ok(&value));
    }
}

#[test]
fn payloads_cut_at_any_byte_are_refused_or_another_value() {
    for (value, _) in golden_payloads() {
        let whole = value.encode();
        for length in 0..whole.len() {
            match value.decode(&whole[..length]) {
                Err(Malformed::Truncated { .. }) => {}
                Ok(shorter) => {
                    assert!(value.is_open_ended() && shorter != value, "{value:?} from {length} bytes");
                }
                Err(error) => panic!("{value:?} from {length} bytes: {error}"),
            }
        }
    }
}

#[test]
fn payloads_with_a_byte_behind_their_end_are_refused() {
    for (value, _) in golden_payloads().into_iter().filter(|(value, _)| !value.is_open_ended()) {
        let mut longer = value.encode();
        longer.push(0);
        assert!(matches!(value.decode(&longer), Err(Malformed::Trailing { extra: 1, .. })), "{value:?}");
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let huge = [0xff; 8];
    assert!(matches!(InfoRequest::decode(&huge), Err(Malformed::Truncated { .. })));
    assert!(matches!(ListReply::decode(&huge), Err(Malformed::Truncated { .. })));
    assert!(matches!(MetaContextRequest::decode(&huge), Err(Malformed::Truncated { .. })));
    let many_queries = hex("00000000 ffffffff 00000000 00000000");
    assert!(matches!(MetaContextRequest::decode(&many_queries), Err(Malformed::Truncated { .. })));
    let many_infos = hex("00000000 ffff 0000");
    assert!(matches!(InfoRequest::decode(&many_infos), Err(Malformed::Truncated { .. })));
    let long_message = hex("00000005 ffff 00");
    assert!(matches!(Chunk::decode(NBD_REPLY_TYPE_ERROR, &long_message), Err(Malformed::Truncated { .. })));
    let no_extents = hex("00000001");
    assert!(matches!(
        Chunk::decode(NBD_REPLY_TYPE_BLOCK_STATUS, &no_extents),
        Err(Malformed::Truncated { .. })
    ));
    assert!(matches!(StatusPayload::decode(&[0; 8]), Err(Malformed::Truncated { .. })), "of no context");
}

#[test]
fn extents_that_are_not_as_many_as_told_are_refused() {
    let one = "0000000000000200 0000000000000000";
    let decode = |told: &str| Chunk::decode(6, &hex(&format!("00000001 {told} {one}"))).map(|_| ());
    assert_eq!(decode("00000001"), Ok(()));
    assert!(matches!(decode("00000000"), Err(Malformed::Value { value: 0, .. })));
    for more in ["00000002", "00100001", "ffffffff"] {
        assert!(matches!(decode(more), Err(Malformed::Truncated { .. })), "{more}");
    }
    let two = hex(&format!("00000001 00000001 {one} {one}"));
    assert!(matches!(Chunk::decode(6, &two), Err(Malformed::Trailing { extra: 16, .. })));
    let many = vec![0; 8 + 16 * (MAX_DESCRIPTORS + 1)];
    let counted = [&hex("00000001 00100001")[..], &many[8..]].concat();
    assert!(matches!(Chunk::decode(6, &counted), Err(Malformed::TooLong { .. })));
}

#[test]
fn texts_longer_than_4096_bytes_or_not_utf8_are_refused() {
    let long = "x".repeat(MAX_STRING + 1);
    let request = Payload::InfoRequest(InfoRequest { name: &long, wanted: vec![] });
    assert!(matches!(request.decode(&request.encode()), Err(Malformed::TooLong { length: 4097, .. })));
    assert!(matches!(InfoRequest::decode(&hex("00000002 fffe 0000")), Err(Malformed::Text { .. })));
    let message = hex("00000005 0002 fffe");
    let error = Chunk::Error { error: NBD_EIO, message: "\u{fffd}\u{fffd}".into() };
    assert_eq!(Chunk::decode(NBD_REPLY_TYPE_ERROR, &message), Ok(error), "a message is only for readers");
}

#[test]
fn chunks_of_unknown_type_are_refused_unless_they_are_errors() {
    let unknown = Chunk::decode(99, &[]);
    assert_eq!(unknown, Err(Malformed::Value { what: "the type of a reply chunk", value: 99 }));
    let payload = hex("00000005 0002 6e6f 0102");
    let error = Chunk::Error { error: NBD_EIO, message: "no".into() };
    assert_eq!(Chunk::decode(NBD_REPLY_TYPE_ERROR_BIT + 99, &payload), Ok(error));
    let no_error = hex("00000000 0000");
    assert!(matches!(Chunk::decode(NBD_REPLY_TYPE_ERROR, &no_error), Err(Malformed::Value { value: 0, .. })));
}

#[test]
fn a_reply_header_waits_for_its_last_byte() {
    let simple = SimpleReply { error: 0, cookie: 3 };
    let chunk = ChunkHeader { flags: 1, kind: 0, cookie: 3, length: 0 };
    let extended = ExtendedChunkHeader { flags: 1, kind: 0, cookie: 3, offset: 9, length: 0 };
    let replies: [(ReplyHeader, Vec<u8>); 3] = [
        (ReplyHeader::Simple(simple), simple.encode().into()),
        (ReplyHeader::Extended(extended), extended.encode().into()),
        (ReplyHeader::Chunk(chunk), chunk.encode().into()),
    ];
    for (header, mut bytes) in replies {
        for length in 0..bytes.len() {
            assert_eq!(ReplyHeader::decode(&bytes[..length]), Ok(None));
        }
        let size = bytes.len();
        bytes.extend_from_slice(b"more");
        assert_eq!(ReplyHeader::decode(&bytes), Ok(Some((header, size))));
    }
    assert!(matches!(ReplyHeader::decode(b"HTTP/1.1"), Err(Malformed::Magic { .. })));
}

#[test]
fn other_magic_numbers_are_refused() {
    assert!(matches!(Greeting::decode(&[0; 18]), Err(Malformed::Magic { .. })));
    let mut oldstyle = Greeting { flags: 0 }.encode();
    oldstyle[8..16].copy_from_slice(&NBD_CLISERV_MAGIC.to_be_bytes());
    assert!(matches!(Greeting::decode(&oldstyle), Err(Malformed::Magic { found: NBD_CLISERV_MAGIC, .. })));
    assert!(matches!(OptionHeader::decode(b"GET / HTTP/1.1\r\n"), Err(Malformed::Magic { .. })));
    assert!(matches!(OptionReplyHeader::decode(&[0; 20]), Err(Malformed::Magic { .. })));
    assert!(matches!(Request::decode(&[0; 28]), Err(Malformed::Magic { .. })));
    assert!(matches!(ExtendedRequest::decode(&[0; 32]), Err(Malformed::Magic { .. })));
    assert!(matches!(ExtendedChunkHeader::decode(&[0; 32]), Err(Malformed::Magic { .. })));
}

proptest! {
    #[test]
    fn requests_survive_the_wire(
        flags: u16, command: u16, cookie: u64, offset: u64, length: u32
    ) {
        let request = Request { flags, command, cookie, offset, length };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn extended_headers_survive_the_wire(
        flags: u16, kind: u16, cookie: u64, offset: u64, length: u64, contexts in prop::collection::vec(0u32.., 1..20)
    ) {
        let request = ExtendedRequest { flags, command: kind, cookie, offset, length };
        prop_assert_eq!(ExtendedRequest::decode(&request.encode()), Ok(request));
        let chunk = ExtendedChunkHeader { flags, kind, cookie, offset, length };
        prop_assert_eq!(ExtendedChunkHeader::decode(&chunk.encode()), Ok(chunk));
        let value = Payload::Status(StatusPayload { length, contexts });
        let bytes = value.encode();
        let decoded = value.decode(&bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&value));
    }

    #[test]
    fn option_payloads_survive_the_wire(
        name in "\\PC{0,80}", queries in prop::collection::vec("\\PC{0,40}", 0..5), wanted: Vec<u16>, id: u32
    ) {
        let queries = queries.iter().map(String::as_str).collect();
        for value in [
            Payload::InfoRequest(InfoRequest { name: &name, wanted }),
            Payload::ContextRequest(MetaContextRequest { name: &name, queries }),
            Payload::Context(MetaContextReply { id, name: &name }),
            Payload::List(ListReply { name: &name, description: &name }),
        ] {
            let bytes = value.encode();
            let decoded = value.decode(&bytes);
            prop_assert_eq!(decoded.as_ref(), Ok(&value));
        }
    }

    #[test]
    fn chunks_survive_the_wire(
        offset: u64, length: u32, data: Vec<u8>, error in 1u32.., message in "\\PC{0,80}",
        extents in prop::collection::vec((0u32.., 0u32..), 1..20),
        wide in prop::collection::vec((0u64.., 0u64..), 1..20)
    ) {
        let message = Cow::Borrowed(message.as_str());
        let descriptors = extents.into_iter().map(|(length, flags)| Descriptor { length, flags }).collect();
        let wide = wide.into_iter().map(|(length, flags)| ExtendedDescriptor { length, flags }).collect();
        for value in [
            Payload::Chunk(Chunk::OffsetData { offset, data: &data }),
            Payload::Chunk(Chunk::OffsetHole { offset, length }),
            Payload::Chunk(Chunk::BlockStatus { context: length, descriptors }),
            Payload::Chunk(Chunk::BlockStatusExt { context: length, descriptors: wide }),
            Payload::Chunk(Chunk::Error { error, message: message.clone() }),
            Payload::Chunk(Chunk::ErrorOffset { error, message, offset }),
        ] {
            let bytes = value.encode();
            let decoded = value.decode(&bytes);
            prop_assert_eq!(decoded.as_ref(), Ok(&value));
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, kind: u16) {
        let _ = InfoRequest::decode(&bytes);
        let _ = InfoReply::decode(&bytes);
        let _ = ListReply::decode(&bytes);
        let _ = MetaContextRequest::decode(&bytes);
        let _ = MetaContextReply::decode(&bytes);
        let _ = ReplyHeader::decode(&bytes);
        let _ = StatusPayload::decode(&bytes);
        if let Ok(chunk) = Chunk::decode(kind, &bytes) {
            let copy = Payload::Chunk(chunk).encode();
            prop_assert!(copy.len() <= bytes.len() * 3);
        }
    }
}
