use std::collections::BTreeMap;

use async_trait::async_trait;

use super::error::Refusal;
use super::{MemoryStore, State};
use crate::audit::{
    AuditEntry, AuditFilter, AuditFrom, AuditHead, AuditRecord, ChainState, ChainWalk, KEPT, Verified,
};
use crate::traits::AuditLog;
use crate::{AuditId, Result, Timestamp};

/// No page has more.
const LARGEST: u32 = 1000;

#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    chain: Option<ChainState>,
    rows: BTreeMap<AuditId, AuditRecord>,
}

impl Trail {
    fn push(&mut self, entry: &AuditEntry, now: Timestamp) -> AuditRecord {
        let chain = self.chain.unwrap_or(ChainState::new(AuditId::FIRST));
        let row = AuditRecord::behind(&chain, entry, now);
        self.chain = Some(row.chained(&chain));
        self.rows.insert(row.id, row.clone());
        row
    }

    fn prune(&mut self, older_than: Timestamp, now: Timestamp) -> u64 {
        let Some(last) = self.rows.values().rev().find(|row| row.at < older_than).cloned() else {
            return 0;
        };
        self.push(&AuditEntry::pruned(last.id, last.hash, older_than), now);
        if let Some(chain) = &mut self.chain {
            chain.pruned = last.id;
        }
        let before = self.rows.len();
        self.rows.retain(|id, _| *id > last.id);
        u64::try_from(before - self.rows.len()).unwrap_or(u64::MAX)
    }
}

impl State {
    /// Whose entries are only for joins forget an account that is gone.
    pub(super) fn forget_actor(&mut self, user: crate::UserId) {
        for row in self.trail.rows.values_mut().filter(|row| row.user == Some(user)) {
            row.user = None;
        }
    }
}

#[async_trait]
impl AuditLog for MemoryStore {
    async fn audit(&self, entry: &AuditEntry) -> Result<AuditRecord> {
        self.change("record", &"an audit entry", |state, now| Ok(state.trail.push(entry, now)))
    }

    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        from: AuditFrom,
        limit: u32,
    ) -> Result<Vec<AuditRecord>> {
        let state = self.state();
        let wanted = |row: &&AuditRecord| match filter {
            AuditFilter::All => true,
            AuditFilter::Actor(name) => row.actor.as_ref() == Some(name),
            AuditFilter::Resource { kind, id } => (&row.resource_type, &row.resource_id) == (kind, id),
        };
        let limit = usize::try_from(limit.min(LARGEST)).unwrap_or(usize::MAX);
        let is_behind =
            |row: &&AuditRecord| from.behind.is_none_or(|last| from.order.is_behind(&row.id, &last));
        let mut found: Vec<_> = state.trail.rows.values().filter(is_behind).filter(wanted).collect();
        found.sort_by(|one, other| from.order.compare(&one.id, &other.id));
        Ok(found.into_iter().take(limit).cloned().collect())
    }

    async fn verify_audit(&self, known: Option<&AuditHead>) -> Result<Verified> {
        let state = self.state();
        let mut walk = ChainWalk::new(state.trail.chain, known);
        let broken = state.trail.rows.values().find_map(|row| walk.step(row).err());
        Ok(walk.end(broken))
    }

    async fn prune_audit(&self, older_than: Timestamp) -> Result<u64> {
        self.change("prune", &"the audit trail", |state, now| {
            if older_than.after(KEPT) > now {
                return Err(Refusal::Input("entries are kept for a year at least"));
            }
            Ok(state.trail.prune(older_than, now))
        })
    }
}
