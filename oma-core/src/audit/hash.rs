use std::fmt;
use std::str::FromStr;

use crate::{AuditId, Timestamp};

/// Sets these hashes apart from all others of the same bytes.
const CONTEXT: &str = "OMA 2026-11-22 audit trail entry v1";

/// The hash of an entry of the audit trail.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditHash([u8; 32]);

/// Why a text is no such hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash has 64 hexadecimal digits")]
pub struct AuditHashError;

impl AuditHash {
    /// What the first entry follows.
    pub const GENESIS: Self = Self([0; 32]);
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditHash({self})")
    }
}

impl FromStr for AuditHash {
    type Err = AuditHashError;
    fn from_str(text: &str) -> Result<Self, AuditHashError> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| AuditHashError)
    }
}

/// Each text with its length before it, so that no two entries give the same bytes.
pub(super) fn of(previous: AuditHash, id: AuditId, at: Timestamp, texts: &[Option<&str>]) -> AuditHash {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&previous.0).update(&id.0.to_le_bytes()).update(&at.as_millis().to_le_bytes());
    for text in texts {
        match text {
            None => hasher.update(&[0]),
            Some(text) => {
                let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
                hasher.update(&[1]).update(&length.to_le_bytes()).update(text.as_bytes())
            }
        };
    }
    AuditHash(*hasher.finalize().as_bytes())
}
