//! Any bytes as what a client says from the start: the server answers or hangs up, and never panics or waits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_nbd::protocol::Greeting;

fuzz_target!(|bytes: &[u8]| {
    let (answers, _) = oma_fuzz::converse(bytes);
    let greeting = answers.first_chunk().expect("the server speaks first");
    assert!(Greeting::decode(greeting).is_ok());
});
