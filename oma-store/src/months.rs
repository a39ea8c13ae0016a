//! Partitions by month, on the engine that has them.
//!
//! Rows of a month that has no partition lie in the one for the rest, and work there as well: they are only slower to delete.

use oma_core::Timestamp;

use crate::db::{Row, vals};
use crate::error::Result;
use crate::store::SqlStore;

/// Tables with partitions.
#[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "for the engine that has partitions"))]
pub(crate) const TABLES: [&str; 3] = ["log_events", "job_logs", "audit_logs"];

impl SqlStore {
    /// Makes the partitions of this month and the coming ones.
    pub(crate) async fn add_months(&self, table: &'static str) -> Result<()> {
        let Some(months) = self.db.dialect().months() else {
            return Ok(());
        };
        self.settled(|| async move {
            let mut tx = self.begin().await?;
            let now = tx.now().await?;
            tx.find(months.add, vals![table, now], count).await?;
            tx.commit().await
        })
        .await
    }

    /// Drops the partitions of months that ended before `oldest`; answers how many rows they had.
    pub(crate) async fn drop_months(&self, table: &'static str, oldest: Timestamp) -> Result<u64> {
        let Some(months) = self.db.dialect().months() else {
            return Ok(0);
        };
        self.settled(|| async move {
            let mut tx = self.begin().await?;
            let gone = tx.find(months.drop, vals![table, oldest], count).await?;
            tx.commit().await?;
            Ok(gone.unwrap_or_default())
        })
        .await
    }
}

fn count(row: &Row) -> Result<u64> {
    row.fields("months", "number").count("number")
}
