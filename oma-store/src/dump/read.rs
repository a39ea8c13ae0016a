//! Reading a file into a database.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::Contents;
use super::line::{End, FORMAT, Fingerprint, Head, Line, parsed, text};
use super::write::{page, schema};
use crate::db::{Sql, Tx, Val, vals};
use crate::dialect::Fault;
use crate::error::{Result, StoreError};
use crate::migrate::INSTANCE;
use crate::months;
use crate::sql::tables::{self, Column, Kind, TABLES, Table};
use crate::store::SqlStore;

/// Rows that are inserted and read back at a time, and how much text they have.
const BATCH: usize = 100;
const TEXT: usize = 1 << 20;
/// No row is longer: the plan of a disk is the longest thing in one.
const LINE: u64 = 1 << 30;

impl SqlStore {
    pub(super) async fn read_all(&self, reader: &mut (dyn AsyncBufRead + Unpin + Send)) -> Result<Contents> {
        let mut input = Input { reader, number: 0, fingerprint: Fingerprint::new() };
        let head = input.head().await?;
        let mut tx = self.begin().await?;
        let known = schema(&mut tx).await?;
        if head.schema != known {
            return Err(StoreError::OtherFile { what: "schema", found: head.schema, known });
        }
        // Its row stays locked: of two imports at once, the second finds the records of the first.
        tx.execute(tables::BECOME, vals![head.instance, INSTANCE]).await?;
        empty(&mut tx).await?;
        let dialect = self.db.dialect();
        let mut import = Import::new(tx, dialect.months().map(|months| months.add));
        let end = import.rows(&mut input).await?;
        import.links().await?;
        for sql in TABLES.iter().filter_map(|table| table.advance).filter(|_| !dialect.counts_on()) {
            import.tx.find(sql, vals![], |_| Ok(())).await?;
        }
        import.tx.commit().await?;
        Ok(Contents { instance: head.instance, rows: import.rows, fingerprint: end.fingerprint })
    }
}

async fn empty(tx: &mut Tx) -> Result<()> {
    for table in TABLES {
        if !page(tx, table, None, 1).await?.is_empty() {
            let reason = format!("it holds records ({}); import into a new database", table.name);
            return Err(StoreError::Conflict(reason));
        }
    }
    Ok(())
}

/// Where the lines come from.
struct Input<'r> {
    reader: &'r mut (dyn AsyncBufRead + Unpin + Send),
    /// Of the last line that was read.
    number: u64,
    fingerprint: Fingerprint,
}

impl Input<'_> {
    /// The next line, without its end; it does not count for the fingerprint yet.
    async fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut *self.reader).take(LINE).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        match line.pop() {
            Some(b'\n') => Ok(Some(line)),
            _ => Err(self.damaged("it is cut")),
        }
    }

    async fn head(&mut self) -> Result<Head> {
        let foreign = || StoreError::Invalid("the file is no export of an OMA database".to_owned());
        let line = match self.line().await {
            Ok(Some(line)) => line,
            Ok(None) | Err(StoreError::Line { .. }) => return Err(foreign()),
            Err(error) => return Err(error),
        };
        // Another format may have more in it.
        let loose: serde_json::Value = serde_json::from_slice(&line).map_err(|_| foreign())?;
        if loose.get("oma").and_then(serde_json::Value::as_str) != Some(Head::OMA) {
            return Err(foreign());
        }
        if let Some(found) = loose.get("format").and_then(serde_json::Value::as_i64)
            && found != i64::from(FORMAT)
        {
            return Err(StoreError::OtherFile { what: "format", found, known: FORMAT.into() });
        }
        self.fingerprint.add(&line);
        serde_json::from_slice(&line).map_err(|error| self.damaged(&error))
    }

    /// What the last line says of the file is so.
    async fn end(&mut self, bytes: &[u8], end: &End, rows: &BTreeMap<&'static str, u64>) -> Result<()> {
        let counted: BTreeMap<String, u64> =
            rows.iter().map(|(table, count)| ((*table).to_owned(), *count)).collect();
        if end.fingerprint != self.fingerprint.text() {
            return Err(self.damaged("the lines before it were changed: their fingerprint is another"));
        }
        if end.rows != counted || end.text()?.as_bytes() != bytes {
            return Err(self.damaged("it does not count the rows before it"));
        }
        match self.line().await? {
            None => Ok(()),
            Some(_) => Err(self.damaged("nothing belongs behind the last line")),
        }
    }

    fn damaged(&self, reason: &(impl ToString + ?Sized)) -> StoreError {
        StoreError::Line { number: self.number, reason: reason.to_string(), source: None }
    }
}

struct Import {
    tx: Tx,
    months: Option<Sql>,
    rows: BTreeMap<&'static str, u64>,
    /// The last row that was inserted, and of which table.
    last: Option<(&'static str, Vec<Val>)>,
    /// All rows of tables with links, as they are to be in the end.
    linked: Vec<(&'static Table, Vec<Val>)>,
    /// Months that have been seen to, with their tables.
    seen: BTreeSet<(&'static str, String)>,
}

impl Import {
    fn new(tx: Tx, months: Option<Sql>) -> Self {
        let rows = TABLES.iter().map(|table| (table.name, 0)).collect();
        Self { tx, months, rows, last: None, linked: Vec::new(), seen: BTreeSet::new() }
    }

    /// Inserts all rows, without their links, and answers the last line.
    async fn rows(&mut self, input: &mut Input<'_>) -> Result<End> {
        let mut batch = Batch::default();
        loop {
            let Some(bytes) = input.line().await? else {
                return Err(input.damaged("the file is cut behind it"));
            };
            let line: Line = serde_json::from_slice(&bytes).map_err(|error| input.damaged(&error))?;
            if let Some(end) = line.end {
                self.insert(input.number, &mut batch).await?;
                input.end(&bytes, &end, &self.rows).await?;
                return Ok(end);
            }
            let next =
                TABLES.iter().position(|table| table.name == line.table).filter(|next| *next >= batch.table);
            let next = next
                .ok_or_else(|| input.damaged(&format!("a row of {:?} does not belong there", line.table)))?;
            let table = &TABLES[next];
            let row = parsed(table, line.row)
                .filter(|row| text(table, row).is_ok_and(|text| text.as_bytes() == bytes));
            let row = row.ok_or_else(|| {
                input.damaged(&format!("it is no row of {} as it was exported", table.name))
            })?;
            if next != batch.table || batch.is_full() {
                self.insert(input.number, &mut batch).await?;
            }
            let last = batch.rows.last().or_else(|| self.last_of(table));
            if last.is_some_and(|last| !is_behind(&row, last)) {
                return Err(input.damaged("it is not in the order of the keys"));
            }
            input.fingerprint.add(&bytes);
            batch.add(next, row, bytes.len());
        }
    }

    fn last_of(&self, table: &Table) -> Option<&Vec<Val>> {
        self.last.as_ref().filter(|(name, _)| *name == table.name).map(|(_, row)| row)
    }

    /// Inserts the rows, without their links, and reads them back.
    async fn insert(&mut self, line: u64, batch: &mut Batch) -> Result<()> {
        let (table, rows) = (&TABLES[batch.table], batch.take());
        if table.link.is_some() {
            self.linked.extend(rows.iter().map(|row| (table, row.clone())));
        }
        let rows: Vec<_> = rows.into_iter().map(|row| unlinked(table, row)).collect();
        self.add_months(table, &rows).await?;
        let inserted = table.insert.all(&mut self.tx, rows.iter().cloned().map(Ok)).await;
        inserted.map_err(|error| match error {
            StoreError::Database { fault: Fault::Constraint | Fault::Duplicate | Fault::Value, .. } => {
                let reason =
                    format!("it, or one of the {} before it, is refused by the database", rows.len());
                StoreError::Line { number: line.saturating_sub(1), reason, source: Some(Box::new(error)) }
            }
            error => error,
        })?;
        let behind = self.last_of(table).cloned();
        self.compare(table, behind, &rows).await?;
        if let Some(count) = self.rows.get_mut(table.name) {
            *count += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        }
        if let Some(last) = rows.into_iter().next_back() {
            self.last = Some((table.name, last));
        }
        Ok(())
    }

    /// The rows behind one are exactly these.
    async fn compare(
        &mut self,
        table: &Table,
        mut behind: Option<Vec<Val>>,
        rows: &[Vec<Val>],
    ) -> Result<()> {
        let mut left = rows;
        while !left.is_empty() {
            let limit = i64::try_from(left.len()).unwrap_or(i64::MAX);
            let found = page(&mut self.tx, table, behind.as_deref(), limit).await?;
            if let Some(wanted) =
                left.iter().enumerate().find(|(at, row)| found.get(*at).is_some_and(|f| f != *row))
            {
                return Err(StoreError::Changed { table: table.name, key: key(wanted.1) });
            }
            let Some(last) = found.last() else {
                return Err(StoreError::Changed { table: table.name, key: key(&left[0]) });
            };
            behind = Some(last.clone());
            left = left.get(found.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sets the links and reads them back.
    async fn links(&mut self) -> Result<()> {
        let linked = std::mem::take(&mut self.linked);
        for (table, row) in &linked {
            let links = || table.columns.iter().zip(row).filter(|(column, _)| column.kind.is_link());
            let Some(sql) = table.link.filter(|_| links().any(|(_, link)| !link.is_null())) else {
                continue;
            };
            let values = links().map(|(_, link)| link).chain(row.first()).cloned().collect();
            self.tx.execute(sql, Ok(values)).await?;
        }
        for rows in linked.chunk_by(|one, next| one.0.name == next.0.name) {
            let wanted: Vec<_> = rows.iter().map(|(_, row)| row.clone()).collect();
            self.compare(rows[0].0, None, &wanted).await?;
        }
        Ok(())
    }

    /// Makes the partitions that the rows belong in, where the engine has them.
    async fn add_months(&mut self, table: &'static Table, rows: &[Vec<Val>]) -> Result<()> {
        let Some(add) = self.months.filter(|_| months::TABLES.contains(&table.name)) else {
            return Ok(());
        };
        for value in rows.iter().flatten() {
            if let Val::Time(Some(time)) = value
                && self.seen.insert((table.name, time.compact().chars().take(6).collect()))
            {
                self.tx.find(add, vals![table.name, time], |_| Ok(())).await?;
            }
        }
        Ok(())
    }
}

/// Rows that are inserted together.
#[derive(Default)]
struct Batch {
    /// Which one of [`TABLES`].
    table: usize,
    rows: Vec<Vec<Val>>,
    text: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH || self.text >= TEXT
    }

    fn add(&mut self, table: usize, row: Vec<Val>, text: usize) {
        self.table = table;
        self.rows.push(row);
        self.text += text;
    }

    fn take(&mut self) -> Vec<Vec<Val>> {
        self.text = 0;
        std::mem::take(&mut self.rows)
    }
}

fn unlinked(table: &Table, row: Vec<Val>) -> Vec<Val> {
    let one = |(column, value): (&Column, Val)| match column.kind {
        Kind::LinkInt => Val::Int(None),
        Kind::LinkText => Val::Text(None),
        Kind::Int | Kind::Text | Kind::Time => value,
    };
    table.columns.iter().zip(row).map(one).collect()
}

/// Whether a row comes after another one of its table.
fn is_behind(row: &[Val], last: &[Val]) -> bool {
    for pair in row.iter().zip(last) {
        match pair {
            (Val::Int(one), Val::Int(other)) if one != other => return one > other,
            (Val::Text(one), Val::Text(other)) if one != other => return one > other,
            // The second column of a key.
            (Val::Int(_), Val::Int(_)) => {}
            _ => return false,
        }
    }
    false
}

fn key(row: &[Val]) -> String {
    match row.first() {
        Some(Val::Int(Some(number))) => number.to_string(),
        Some(Val::Text(Some(text))) => text.clone(),
        _ => "without a key".to_owned(),
    }
}
