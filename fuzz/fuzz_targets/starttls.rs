//! Any bytes behind `STARTTLS`: nothing but TLS is answered, and the server never panics or waits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_nbd::protocol::{Greeting, NBD_OPT_STARTTLS, NBD_REP_ACK, OptionHeader, OptionReplyHeader};

fuzz_target!(|bytes: &[u8]| {
    let begin = OptionHeader { option: NBD_OPT_STARTTLS, length: 0 };
    let whole = [&3u32.to_be_bytes()[..], &begin.encode(), bytes].concat();
    let (answers, outcome) = oma_fuzz::converse_through_tls(&whole);
    let (_, answers) = answers.split_first_chunk::<{ Greeting::SIZE }>().expect("the server speaks first");
    let (reply, mut records) = answers.split_first_chunk().expect("the option is answered");
    let reply = OptionReplyHeader::decode(reply).expect("it is a reply");
    assert_eq!((reply.option, reply.reply, reply.length), (NBD_OPT_STARTTLS, NBD_REP_ACK, 0));
    // No client without the server's answers gets through a handshake, so the connection never ends in peace.
    assert!(outcome.is_err());
    while !records.is_empty() {
        let (header, rest) = records.split_first_chunk::<5>().expect("a record has a header");
        assert!((20..=23).contains(&header[0]) && header[1] == 3, "{header:?}");
        records = &rest[usize::from(u16::from_be_bytes([header[3], header[4]]))..];
    }
});
