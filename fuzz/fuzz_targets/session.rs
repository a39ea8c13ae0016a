//! Sessions that follow the protocol, or nearly, with a real server: every answer is the right one, every read gives the
//! bytes that must be there, nobody who did nothing wrong is hung up on, and every session ends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: &[u8]| oma_fuzz::use_server(choices));
