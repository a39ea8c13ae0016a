//! A real client with a server that lies: every call comes to an end, with an error or with as many bytes as were asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: &[u8]| oma_fuzz::liar::use_client(choices));
