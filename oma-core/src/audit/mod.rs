//! The audit trail's entries, and the chain of hashes that tells whether they are as they were recorded.
//!
//! ```text
//! hash of entry n = BLAKE3(hash of entry n-1, n, time, who, what, on what, old and new, from where)
//! ```
//!
//! Ids have no gaps. The first entry follows [`AuditHash::GENESIS`]. The head, kept beside the trail, names the last entry, so that
//! removed last ones are missed as well. Entries are pruned from the beginning only; the entry that says so has the id and hash of
//! the last one pruned.

mod chain;
mod hash;
mod head;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::record::Order;
use crate::{AuditId, Timestamp, UserId};

pub use chain::{AuditBreak, ChainState, ChainWalk, Tampering, Verified};
pub use hash::{AuditHash, AuditHashError};
pub use head::{AuditHead, AuditHeadError};

/// Entries are kept for so long at least: one year (seed 004).
pub const KEPT: Duration = Duration::from_hours(365 * 24);

/// The longest text of an entry, in characters: what a database key holds. What is longer is cut.
const LONGEST: usize = 191;

/// A change to be recorded. No secret belongs into it (L29).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditEntry {
    /// Who changed it: a name that means something to readers also when the account is gone.
    pub actor: String,
    /// The account of whoever changed it, if it was one.
    pub user: Option<UserId>,
    /// What was done, for instance `user.change`.
    pub action: String,
    /// What kind of thing it was done to, for instance `user`.
    pub resource_type: String,
    /// Which one.
    pub resource_id: String,
    /// What it was before.
    pub old: Option<Value>,
    /// What it is to be.
    pub new: Option<Value>,
    /// From where it was asked for.
    pub address: Option<IpAddr>,
}

impl AuditEntry {
    /// What says that entries were pruned.
    pub const PRUNED: &str = "audit.prune";
    /// The kind of thing that the trail itself is.
    pub const TRAIL: &str = "audit";

    /// The entry for pruning everything up to `through`, the last entry older than a time.
    #[must_use]
    pub fn pruned(through: AuditId, hash: Option<AuditHash>, older_than: Timestamp) -> Self {
        let hash = hash.map(|hash| hash.to_string());
        Self {
            actor: "oma".to_owned(),
            action: Self::PRUNED.to_owned(),
            resource_type: Self::TRAIL.to_owned(),
            new: Some(json!({ "through": through, "hash": hash, "older_than": older_than.to_string() })),
            ..Self::default()
        }
    }

    fn details(&self) -> Option<String> {
        let details = match (&self.old, &self.new) {
            (None, None) => return None,
            (Some(old), None) => json!({ "old": old }),
            (None, Some(new)) => json!({ "new": new }),
            (Some(old), Some(new)) => json!({ "old": old, "new": new }),
        };
        Some(details.to_string())
    }
}

/// An entry as it is kept (`audit_logs`). Texts are to the letter what was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its place.
    pub id: AuditId,
    /// When it was recorded.
    pub at: Timestamp,
    /// Who changed it; `None` in a row that this program did not write.
    pub actor: Option<String>,
    /// The account of whoever changed it, as long as there is one. Not part of the hash.
    pub user: Option<UserId>,
    /// What was done.
    pub action: String,
    /// What kind of thing it was done to.
    pub resource_type: String,
    /// Which one.
    pub resource_id: String,
    /// JSON with `old` and `new`.
    pub details: Option<String>,
    /// From where it was asked for.
    pub address: Option<String>,
    /// The hash of the entry before; `None` in a row that this program did not write.
    pub previous: Option<AuditHash>,
    /// The hash of this one; `None` in a row that this program did not write.
    pub hash: Option<AuditHash>,
}

impl AuditRecord {
    /// The record of an entry behind the last one of a chain.
    #[must_use]
    pub fn behind(chain: &ChainState, entry: &AuditEntry, now: Timestamp) -> Self {
        let mut record = Self {
            id: chain.head.id.next(),
            at: now.max(chain.at),
            actor: Some(fit(&entry.actor)),
            user: entry.user,
            action: fit(&entry.action),
            resource_type: fit(&entry.resource_type),
            resource_id: fit(&entry.resource_id),
            details: entry.details(),
            address: entry.address.map(|address| address.to_canonical().to_string()),
            previous: Some(chain.head.hash),
            hash: None,
        };
        record.hash = Some(record.computed(chain.head.hash));
        record
    }

    /// Where the chain stands behind this record.
    #[must_use]
    pub fn chained(&self, chain: &ChainState) -> ChainState {
        let hash = self.hash.unwrap_or(chain.head.hash);
        ChainState { head: AuditHead { id: self.id, hash }, at: self.at, pruned: chain.pruned }
    }

    /// The hash that it must have behind an entry of this hash.
    fn computed(&self, previous: AuditHash) -> AuditHash {
        let texts = [
            self.actor.as_deref(),
            Some(&self.action),
            Some(&self.resource_type),
            Some(&self.resource_id),
            self.details.as_deref(),
            self.address.as_deref(),
        ];
        hash::of(previous, self.id, self.at, &texts)
    }

    /// Up to where entries were pruned, when this entry says so, and the hash of the last of them.
    fn prunes(&self) -> Option<(AuditId, Option<AuditHash>)> {
        if self.action != AuditEntry::PRUNED || self.resource_type != AuditEntry::TRAIL {
            return None;
        }
        let details: Value = serde_json::from_str(self.details.as_deref()?).ok()?;
        let new = &details["new"];
        let hash = new["hash"].as_str().and_then(|hash| hash.parse().ok());
        Some((AuditId(new["through"].as_u64()?), hash))
    }
}

/// From where on a trail is read, and which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditFrom {
    /// Which way.
    pub order: Order,
    /// Only entries behind this one in that order, which need not be there any more.
    pub behind: Option<AuditId>,
}

impl AuditFrom {
    /// The newest before an entry, or of all.
    #[must_use]
    pub const fn before(behind: Option<AuditId>) -> Self {
        Self { order: Order::Newest, behind }
    }
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditFilter {
    /// All.
    #[default]
    All,
    /// Those of somebody, by name.
    Actor(String),
    /// Those about a thing.
    Resource {
        /// Which kind of thing.
        kind: String,
        /// Which one.
        id: String,
    },
}

/// A text as every database holds it.
fn fit(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}
