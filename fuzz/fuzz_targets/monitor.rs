//! Any bytes as what QEMU's monitor says: they are read or refused, and what is made of a machine that is told so holds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| oma_fuzz::look_at_machine(bytes));
