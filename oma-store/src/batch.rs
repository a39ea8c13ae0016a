//! Inserts of many rows: few statements, each complete at compile time.

use crate::db::{Sql, Tx, Val};
use crate::error::Result;

/// An insert of one row, of ten and of a hundred.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insert {
    pub(crate) one: Sql,
    pub(crate) ten: Sql,
    pub(crate) hundred: Sql,
}

/// No statement has more text than this and one row: servers refuse packets of 16 MiB and more, or of less.
const TEXT: usize = 1 << 20;

impl Insert {
    /// Inserts all rows in their order.
    pub(crate) async fn all(
        self,
        tx: &mut Tx,
        rows: impl Iterator<Item = Result<Vec<Val>>> + Send,
    ) -> Result<()> {
        let (mut batch, mut text) = (Vec::with_capacity(100), 0);
        for row in rows {
            let row = row?;
            text += row.iter().map(length).sum::<usize>();
            batch.push(row);
            if batch.len() == 100 || text >= TEXT {
                self.some(tx, std::mem::take(&mut batch)).await?;
                text = 0;
            }
        }
        self.some(tx, batch).await
    }

    /// Inserts up to a hundred rows, in as few statements as can be.
    async fn some(self, tx: &mut Tx, rows: Vec<Vec<Val>>) -> Result<()> {
        let (mut left, mut rows) = (rows.len(), rows.into_iter());
        while left > 0 {
            let (sql, count) = match left {
                100.. => (self.hundred, 100),
                10.. => (self.ten, 10),
                _ => (self.one, 1),
            };
            tx.execute(sql, Ok(rows.by_ref().take(count).flatten().collect())).await?;
            left -= count;
        }
        Ok(())
    }
}

fn length(value: &Val) -> usize {
    match value {
        Val::Text(Some(text)) => text.len(),
        _ => 0,
    }
}
