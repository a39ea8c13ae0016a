//! Change ids: the source's marker of what a disk was at a point in time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{IdError, check};

/// A change id as the source wrote it.
///
/// VMware's form, 16 bytes in hexadecimal and a sequence number
/// (`52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446`,
/// *Virtual Disk Programming Guide*, "Changed Block Tracking"), is taken apart; every other form stays opaque.
/// The text is kept to the letter in both cases: the source gets back what it gave.
///
/// ```
/// use oma_core::ChangeId;
///
/// let id: ChangeId = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446".parse()?;
/// assert_eq!(id.sequence(), Some(446));
/// assert_eq!(id.uuid().unwrap().to_string(), "523cec11-9e2c-4c3d-874a-c34e85f2ea95");
/// assert_eq!("b0@17".parse::<ChangeId>()?.uuid(), None);
/// # Ok::<(), oma_core::IdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChangeId {
    text: String,
    parts: Option<(Uuid, u64)>,
}

impl ChangeId {
    /// Takes the text of a change id.
    ///
    /// # Errors
    /// An empty text, one of more than 255 bytes (`cbt_history.change_id`), blanks at its ends, control
    /// characters, and `*`, which asks vSphere for all allocated areas and marks no point in time.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        check("change id", &text, 255, |_| false)?;
        if text == "*" {
            let expected = "a change id as the source reported it for a snapshot";
            return Err(IdError::Form { what: "change id", text, expected });
        }
        let parts = parts(&text);
        Ok(Self { text, parts })
    }

    /// A new opaque marker for a source that has none of its own.
    #[must_use]
    pub fn mint() -> Self {
        Self { text: format!("oma-{}", Uuid::now_v7()), parts: None }
    }

    /// The text, as the source wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The UUID part, when the form is VMware's. It changes when tracking was reset.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        self.parts.map(|(uuid, _)| uuid)
    }

    /// The sequence part, when the form is VMware's.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.parts.map(|(_, sequence)| sequence)
    }

    /// Whether changes from `previous` up to this id can be trusted, as far as the texts can tell.
    ///
    /// `false` when both have a UUID and it differs (tracking was reset) or the sequence went back.
    #[must_use]
    pub fn continues(&self, previous: &Self) -> bool {
        match (self.parts, previous.parts) {
            (Some((uuid, sequence)), Some((old_uuid, old_sequence))) => {
                uuid == old_uuid && sequence >= old_sequence
            }
            _ => true,
        }
    }
}

/// `hh hh hh hh hh hh hh hh-hh hh hh hh hh hh hh hh/N`, nothing else.
fn parts(text: &str) -> Option<(Uuid, u64)> {
    let (hex, sequence) = text.split_once('/')?;
    let canonical = !sequence.is_empty()
        && sequence.bytes().all(|b| b.is_ascii_digit())
        && (sequence == "0" || !sequence.starts_with('0'));
    if hex.len() != 47 || !canonical {
        return None;
    }
    let mut bytes = [0u8; 16];
    for (index, slot) in bytes.iter_mut().enumerate() {
        let at = index * 3;
        let digits = hex.get(at..at + 2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *slot = u8::from_str_radix(digits, 16).ok()?;
        let separator = hex.as_bytes().get(at + 2);
        let expected = match index {
            7 => Some(&b'-'),
            15 => None,
            _ => Some(&b' '),
        };
        if separator != expected {
            return None;
        }
    }
    Some((Uuid::from_bytes(bytes), sequence.parse().ok()?))
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ChangeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ChangeId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl From<ChangeId> for String {
    fn from(id: ChangeId) -> Self {
        id.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &str = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446";

    fn id(text: &str) -> ChangeId {
        text.parse().unwrap()
    }

    #[test]
    fn unknown_forms_stay_opaque() {
        for text in [
            "b0",
            "52 3c/1",
            &REAL.replace('-', " "),
            &format!("{REAL}x"),
            &REAL.replace("446", "0446"),
            "é/1",
        ] {
            let id = id(text);
            assert_eq!((id.uuid(), id.as_str()), (None, text));
        }
    }

    #[test]
    fn what_marks_no_point_in_time_is_refused() {
        for bad in ["", "*", " a", "a\n", "a\0b", &"x".repeat(256)] {
            assert!(ChangeId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reset_or_a_step_back_does_not_continue() {
        let old = id(REAL);
        assert!(id(&REAL.replace("446", "447")).continues(&old));
        assert!(!id(&REAL.replace("446", "445")).continues(&old));
        assert!(!id(&REAL.replace("52 3c", "53 3c")).continues(&old));
        assert!(id("b0").continues(&old));
    }

    proptest! {
        #[test]
        fn vmware_ids_round_trip(bytes: [u8; 16], sequence: u64) {
            let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let text = format!("{}-{}/{sequence}", hex[..8].join(" "), hex[8..].join(" "));
            let id = ChangeId::parse(text.clone()).unwrap();
            prop_assert_eq!(id.uuid(), Some(Uuid::from_bytes(bytes)));
            prop_assert_eq!(id.sequence(), Some(sequence));
            prop_assert_eq!(String::from(id), text);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = ChangeId::parse(text);
        }
    }
}
