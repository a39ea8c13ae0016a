//! Writing a database to a file.

use std::collections::BTreeMap;

use oma_core::InstanceId;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Contents;
use super::line::{End, FORMAT, Fingerprint, Head, text, values};
use crate::db::{Row, Sql, ToVal, Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::migrate::INSTANCE;
use crate::sql::tables::{Kind, PAIRED, TABLES, Table};
use crate::sql::{meta, tables};
use crate::store::SqlStore;

/// Rows that are read at a time.
const PAGE: i64 = 500;

impl SqlStore {
    pub(super) async fn write_all(&self, writer: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<Contents> {
        let mut tx = self.db.snapshot().await?;
        let now = tx.now().await?;
        if let Some(driven) = tx.find(tables::LEASED, vals![now], leased).await? {
            return Err(driven);
        }
        let instance = instance(&mut tx).await?;
        let head =
            Head { oma: Head::OMA.to_owned(), format: FORMAT, schema: schema(&mut tx).await?, instance };
        let mut out = Out { writer, fingerprint: Fingerprint::new() };
        out.line(&serde_json::to_string(&head)?).await?;
        let mut rows = BTreeMap::new();
        for table in TABLES {
            rows.insert(table.name, write_table(&mut tx, table, &mut out).await?);
        }
        let fingerprint = out.fingerprint.text();
        let named = rows.iter().map(|(table, count)| ((*table).to_owned(), *count)).collect();
        let end = End { rows: named, fingerprint: fingerprint.clone() };
        out.line(&end.text()?).await?;
        out.writer.flush().await?;
        Ok(Contents { instance: head.instance, rows, fingerprint })
    }
}

/// Where the lines go.
struct Out<'w> {
    writer: &'w mut (dyn AsyncWrite + Unpin + Send),
    fingerprint: Fingerprint,
}

impl Out<'_> {
    async fn line(&mut self, line: &str) -> Result<()> {
        self.fingerprint.add(line.as_bytes());
        self.writer.write_all(line.as_bytes()).await?;
        Ok(self.writer.write_all(b"\n").await?)
    }
}

async fn write_table(tx: &mut Tx, table: &Table, out: &mut Out<'_>) -> Result<u64> {
    let (mut count, mut last) = (0, None);
    loop {
        let mut rows = page(tx, table, last.as_deref(), PAGE).await?;
        for row in &rows {
            out.line(&text(table, row)?).await?;
            count += 1;
        }
        last = rows.pop();
        if last.is_none() {
            return Ok(count);
        }
    }
}

/// A page of rows behind one, or the first page. The values are in the order of the columns; the key comes first.
pub(super) async fn page(
    tx: &mut Tx,
    table: &Table,
    behind: Option<&[Val]>,
    limit: i64,
) -> Result<Vec<Vec<Val>>> {
    let first = || match table.columns[0].kind {
        Kind::Text | Kind::LinkText => Val::Text(Some(String::new())),
        Kind::Int | Kind::LinkInt | Kind::Time => Val::Int(Some(i64::MIN)),
    };
    let key = behind.and_then(|row| row.first().cloned()).unwrap_or_else(first);
    let limit = limit.to_val()?;
    let Some(paired) = PAIRED.iter().find(|paired| paired.name == table.name) else {
        return read(tx, table, table.page, vec![key, limit]).await;
    };
    if let Some(second) = behind.and_then(|row| row.get(1)) {
        let bound = vec![key.clone(), second.clone(), limit.clone()];
        let rows = read(tx, table, paired.within, bound).await?;
        if !rows.is_empty() {
            return Ok(rows);
        }
    }
    read(tx, table, paired.behind, vec![key, limit]).await
}

async fn read(tx: &mut Tx, table: &Table, sql: Sql, bound: Vec<Val>) -> Result<Vec<Vec<Val>>> {
    let rows = tx.all(sql, Ok(bound), |row| Ok(row.clone())).await?;
    rows.iter().map(|row| values(table, row)).collect()
}

pub(super) async fn schema(tx: &mut Tx) -> Result<i64> {
    let version = |row: &Row| row.fields("oma_migrations", "version").int("version");
    tx.find(tables::SCHEMA, vals![], version).await?.ok_or(StoreError::NoDatabase)
}

async fn instance(tx: &mut Tx) -> Result<InstanceId> {
    let value = |row: &Row| row.fields("oma_meta", "name").parse("value");
    let found = tx.find(meta::GET, vals![INSTANCE], value).await?;
    found.ok_or_else(|| StoreError::missing("oma_meta row", INSTANCE))
}

fn leased(row: &Row) -> Result<StoreError> {
    let fields = row.fields("replication_jobs", "id");
    let (job, worker, until) = (fields.parse("id")?, fields.parse("owner")?, fields.time("due_at")?);
    Ok(StoreError::Driven { job, worker, until })
}
