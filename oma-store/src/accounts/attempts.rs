use oma_core::Timestamp;
use oma_core::record::{Attempt, AttemptLimits, AttemptSubject};

use crate::db::{Row, vals};
use crate::error::Result;
use crate::sql::accounts;
use crate::store::SqlStore;

impl SqlStore {
    /// Counts under the lock of the subject's row, so that programs on one database share the count.
    pub(super) async fn count_attempt(
        &self,
        subject: &AttemptSubject,
        limits: &AttemptLimits,
    ) -> Result<Attempt> {
        let mut tx = self.begin().await?;
        let known = tx.find(accounts::ATTEMPTS, vals![subject], counted).await?;
        // Asked only now: the wait for the others may have been long.
        let now = tx.now().await?;
        let (count, until) = match known {
            Some((count, until)) if until > now => (count, until),
            _ => (0, now.after(limits.window)),
        };
        if count >= limits.attempts {
            return Ok(Attempt::Locked { until });
        }
        let count = count.saturating_add(1);
        let until = if count >= limits.attempts { now.after(limits.lock) } else { until };
        match known {
            Some(_) => tx.execute(accounts::NEXT_ATTEMPT, vals![count, until, subject]).await?,
            // Of several that are the first, one writes it, and the others are undone and come again.
            None => tx.execute(accounts::FIRST_ATTEMPT, vals![subject, count, until]).await?,
        };
        tx.commit().await?;
        Ok(Attempt::Allowed)
    }
}

fn counted(row: &Row) -> Result<(u32, Timestamp)> {
    let fields = row.fields("login_attempts", "subject");
    let count = u32::try_from(fields.count("attempts")?).unwrap_or(u32::MAX);
    Ok((count, fields.time("until_at")?))
}
