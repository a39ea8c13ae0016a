use std::fmt;
use std::str::FromStr;

use super::AuditHash;
use crate::AuditId;

/// The last entry of a trail. As text it reads `ID:HASH`.
///
/// ```
/// use oma_core::audit::AuditHead;
///
/// let text = format!("4711:{}", "9b".repeat(32));
/// let head: AuditHead = text.parse()?;
/// assert_eq!((head.id.0, head.to_string()), (4711, text));
/// # Ok::<(), oma_core::audit::AuditHeadError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Its place.
    pub id: AuditId,
    /// Its hash.
    pub hash: AuditHash,
}

/// Why a text names no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it reads ID:HASH, the number of an entry and its hash of 64 hexadecimal digits, as a verification tells them"
)]
pub struct AuditHeadError;

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.hash)
    }
}

impl FromStr for AuditHead {
    type Err = AuditHeadError;
    fn from_str(text: &str) -> Result<Self, AuditHeadError> {
        let (id, hash) = text.split_once(':').ok_or(AuditHeadError)?;
        let id = Some(id).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
        let id = id.and_then(|id| id.parse().ok()).map(AuditId).ok_or(AuditHeadError)?;
        Ok(Self { id, hash: hash.parse().map_err(|_| AuditHeadError)? })
    }
}
