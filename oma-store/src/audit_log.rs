//! The audit trail. Whoever adds to it locks the row that says where it ends, so that entries of any number of processes come
//! one after the other.

use async_trait::async_trait;
use oma_core::audit::{
    AuditEntry, AuditFilter, AuditFrom, AuditHead, AuditRecord, ChainState, ChainWalk, KEPT, Verified,
};
use oma_core::record::Order;
use oma_core::traits::AuditLog;
use oma_core::{AuditId, Timestamp};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::sql::audit;
use crate::store::SqlStore;

/// No page has more.
const LARGEST: u32 = 1000;
/// Rows that are read or deleted at a time.
const STEP: i64 = 1000;

impl SqlStore {
    async fn add_entry(&self, entry: &AuditEntry) -> Result<AuditRecord> {
        let mut tx = self.begin().await?;
        let chain = locked(&mut tx).await?;
        let record = push(&mut tx, &chain, entry).await?;
        tx.commit().await?;
        Ok(record)
    }

    async fn entry_page(
        &self,
        filter: &AuditFilter,
        from: AuditFrom,
        limit: u32,
    ) -> Result<Vec<AuditRecord>> {
        let place = |id: AuditId| i64::try_from(id.0).unwrap_or(i64::MAX);
        let limit = limit.min(LARGEST);
        let (newest, oldest) = match filter {
            AuditFilter::All => (audit::BEFORE, audit::AFTER),
            AuditFilter::Actor(_) => (audit::OF_ACTOR, audit::OF_ACTOR_AFTER),
            AuditFilter::Resource { .. } => (audit::OF_RESOURCE, audit::OF_RESOURCE_AFTER),
        };
        let (sql, none) = match from.order {
            Order::Newest => (newest, i64::MAX),
            Order::Oldest => (oldest, 0),
        };
        let behind = from.behind.map_or(none, place);
        let values = match filter {
            AuditFilter::All => vals![behind, limit],
            AuditFilter::Actor(name) => vals![name, behind, limit],
            AuditFilter::Resource { kind, id } => vals![kind, id, behind, limit],
        };
        self.db.all(sql, values, entry).await
    }

    async fn walk(&self, known: Option<&AuditHead>) -> Result<Verified> {
        walk(&mut self.db.snapshot().await?, known).await
    }

    async fn prune_entries(&self, older_than: Timestamp) -> Result<u64> {
        let through = self.settled(|| self.promise_pruning(older_than)).await?;
        let mut gone = 0;
        loop {
            let (deleted, more) = self.settled(|| self.delete_step(through)).await?;
            gone += deleted;
            if !more {
                return Ok(gone);
            }
        }
    }

    /// Adds the entry that says up to where entries may go from now on, and answers that. An earlier pruning that was interrupted
    /// is gone on with.
    async fn promise_pruning(&self, older_than: Timestamp) -> Result<i64> {
        let mut tx = self.begin().await?;
        let chain = locked(&mut tx).await?;
        if older_than.after(KEPT) > tx.now().await? {
            return Err(StoreError::Invalid("entries are kept for a year at least".to_owned()));
        }
        let last = tx.find(audit::LAST_BEFORE, vals![older_than], entry).await?;
        let pruned = match last.filter(|last| last.id > chain.pruned) {
            None => chain.pruned,
            Some(last) => {
                let allowed = ChainState { pruned: last.id, ..chain };
                push(&mut tx, &allowed, &AuditEntry::pruned(last.id, last.hash, older_than)).await?;
                last.id
            }
        };
        tx.commit().await?;
        Ok(i64::try_from(pruned.0).unwrap_or(i64::MAX))
    }

    /// Deletes the first entries up to `through`, and tells whether there may be more.
    async fn delete_step(&self, through: i64) -> Result<(u64, bool)> {
        let mut tx = self.begin().await?;
        let id = |row: &Row| row.fields("audit_logs", "id").int("id");
        let nth = tx.find(audit::NTH_OLDEST, vals![through, STEP - 1], id).await?;
        let deleted = tx.execute(audit::DELETE_UP_TO, vals![nth.unwrap_or(through)]).await?;
        tx.commit().await?;
        Ok((deleted, nth.is_some_and(|nth| nth < through)))
    }
}

/// Where the trail ends; nobody else adds to it for the rest of the transaction.
async fn locked(tx: &mut Tx) -> Result<ChainState> {
    if let Some(chain) = tx.find(audit::LOCK_CHAIN, vals![], chain).await? {
        return Ok(chain);
    }
    // Rows of before are in no chain. Of several that are the first, one writes, and the others are undone and come again.
    let last =
        tx.find(audit::BEFORE, vals![i64::MAX, 1], entry).await?.map_or(AuditId::FIRST, |last| last.id);
    let chain = ChainState::new(last);
    let AuditHead { id, hash } = chain.head;
    tx.execute(audit::BEGIN_CHAIN, vals![id, hash, chain.at, chain.pruned]).await?;
    Ok(chain)
}

async fn push(tx: &mut Tx, chain: &ChainState, entry: &AuditEntry) -> Result<AuditRecord> {
    let now = tx.now().await?;
    let record = AuditRecord::behind(chain, entry, now);
    let values = vals![
        record.id,
        record.user,
        record.actor,
        record.action,
        record.resource_type,
        record.resource_id,
        record.details,
        record.address,
        record.at,
        record.previous,
        record.hash,
    ];
    tx.execute(audit::INSERT, values).await?;
    let ChainState { head, at, pruned } = record.chained(chain);
    tx.execute(audit::MOVE_CHAIN, vals![head.id, head.hash, at, pruned]).await?;
    Ok(record)
}

/// Reads the whole trail as the transaction sees it.
pub(crate) async fn walk(tx: &mut Tx, known: Option<&AuditHead>) -> Result<Verified> {
    let chain = tx.find(audit::CHAIN, vals![], chain).await?;
    let mut walk = ChainWalk::new(chain, known);
    let mut behind = i64::MIN;
    loop {
        let mut rows = tx.all(audit::AFTER, vals![behind, STEP], |row| Ok(row.clone())).await?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == STEP);
        // Of two rows with one id both are to be seen: the last one is read again with the next page.
        if is_full {
            rows.pop();
        }
        for row in &rows {
            behind = row.fields("audit_logs", "id").int("id")?;
            let broken = match entry(row) {
                Ok(record) => walk.step(&record).err(),
                Err(StoreError::Row { .. }) => Some(unreadable(behind)),
                Err(error) => return Err(error),
            };
            if broken.is_some() {
                return Ok(walk.end(broken));
            }
        }
        if !is_full {
            return Ok(walk.end(None));
        }
    }
}

/// No row of ours: a hash that is none, or an id below 1.
fn unreadable(id: i64) -> oma_core::audit::AuditBreak {
    use oma_core::audit::{AuditBreak, Tampering};
    match u64::try_from(id) {
        Ok(id) => AuditBreak { id: AuditId(id), what: Tampering::Altered },
        Err(_) => AuditBreak { id: AuditId::FIRST, what: Tampering::Inserted },
    }
}

fn chain(row: &Row) -> Result<ChainState> {
    let fields = row.fields("audit_chain", "name");
    let head = AuditHead { id: AuditId(fields.count("last_id")?), hash: fields.parse("last_hash")? };
    Ok(ChainState { head, at: fields.time("last_ts")?, pruned: AuditId(fields.count("pruned_through")?) })
}

fn entry(row: &Row) -> Result<AuditRecord> {
    let fields = row.fields("audit_logs", "id");
    let text = |column| fields.opt_text(column).map(|text| text.map(str::to_owned));
    let user = fields.opt_int("user_id")?.and_then(|id| u64::try_from(id).ok());
    Ok(AuditRecord {
        id: AuditId(fields.count("id")?),
        at: fields.time("ts")?,
        actor: text("actor")?,
        user: user.map(oma_core::UserId),
        action: fields.text("action")?.to_owned(),
        resource_type: fields.text("resource_type")?.to_owned(),
        resource_id: fields.text("resource_id")?.to_owned(),
        details: text("details")?,
        address: text("ip_address")?,
        previous: fields.opt_parse("previous_hash")?,
        hash: fields.opt_parse("hash")?,
    })
}

#[async_trait]
impl AuditLog for SqlStore {
    async fn audit(&self, entry: &AuditEntry) -> oma_core::Result<AuditRecord> {
        let recorded = self.settled(|| self.add_entry(entry)).await;
        recorded.map_err(|error| error.at("record", "an audit entry"))
    }

    async fn audit_entries(
        &self,
        filter: &AuditFilter,
        from: AuditFrom,
        limit: u32,
    ) -> oma_core::Result<Vec<AuditRecord>> {
        let found = self.entry_page(filter, from, limit).await;
        found.map_err(|error| error.at("read", "the audit trail"))
    }

    async fn verify_audit(&self, known: Option<&AuditHead>) -> oma_core::Result<Verified> {
        self.walk(known).await.map_err(|error| error.at("verify", "the audit trail"))
    }

    async fn prune_audit(&self, older_than: Timestamp) -> oma_core::Result<u64> {
        self.prune_entries(older_than).await.map_err(|error| error.at("prune", "the audit trail"))
    }
}
