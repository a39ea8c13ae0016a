//! Any text as a change id: what is accepted is kept to the letter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oma_core::ChangeId;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(id) = ChangeId::parse(text) else { return };
    assert_eq!(id.as_str(), text);
    assert_eq!(id.uuid().is_some(), id.sequence().is_some());
    assert_eq!(ChangeId::parse(id.as_str()), Ok(id));
});
