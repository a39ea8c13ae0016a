//! The lines of a file.

use std::collections::BTreeMap;

use oma_core::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::db::{Row, ToVal, Val};
use crate::error::Result;
use crate::sql::tables::{Column, Kind, Table};

/// The form of the files that this program writes and reads.
pub(super) const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) oma: String,
    pub(super) format: u32,
    pub(super) schema: i64,
    pub(super) instance: InstanceId,
}

impl Head {
    /// What tells our files from others.
    pub(super) const OMA: &str = "database";
}

/// Every line behind the first: a row of a table, or the end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    #[serde(default)]
    pub(super) table: String,
    #[serde(default)]
    pub(super) row: Map<String, Value>,
    pub(super) end: Option<End>,
}

/// The last line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) fingerprint: String,
}

#[derive(Serialize)]
struct EndLine<'e> {
    end: &'e End,
}

impl End {
    pub(super) fn text(&self) -> Result<String> {
        Ok(serde_json::to_string(&EndLine { end: self })?)
    }
}

/// The values of a row that was read from a database, in the order of the columns.
pub(super) fn values(table: &Table, row: &Row) -> Result<Vec<Val>> {
    let fields = row.fields(table.name, table.key);
    let one = |column: &Column| {
        Ok(match column.kind {
            Kind::Int | Kind::LinkInt => Val::Int(fields.opt_int(column.name)?),
            Kind::Text | Kind::LinkText => Val::Text(fields.opt_text(column.name)?.map(str::to_owned)),
            Kind::Time => Val::Time(fields.opt_time(column.name)?),
        })
    };
    table.columns.iter().map(one).collect()
}

/// A row as a line, without its end.
pub(super) fn text(table: &Table, values: &[Val]) -> Result<String> {
    let mut line = format!("{{\"table\":\"{}\",\"row\":{{", table.name);
    for (at, (column, value)) in table.columns.iter().zip(values).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let value = match value {
            Val::Int(Some(number)) => number.to_string(),
            Val::Time(Some(time)) => time.as_millis().to_string(),
            Val::Text(Some(text)) => serde_json::to_string(text)?,
            Val::Int(None) | Val::Time(None) | Val::Text(None) => "null".to_owned(),
        };
        line.push_str(comma);
        line.push('"');
        line.push_str(column.name);
        line.push_str("\":");
        line.push_str(&value);
    }
    line.push_str("}}");
    Ok(line)
}

/// The values of a row of a file, in the order of the columns; `None` unless each is of its column's kind.
pub(super) fn parsed(table: &Table, mut row: Map<String, Value>) -> Option<Vec<Val>> {
    let mut values = Vec::with_capacity(table.columns.len());
    for column in table.columns {
        let value = row.remove(column.name)?;
        values.push(match (column.kind, value) {
            (Kind::Int | Kind::LinkInt, Value::Null) => Val::Int(None),
            (Kind::Int | Kind::LinkInt, Value::Number(number)) => Val::Int(Some(number.as_i64()?)),
            (Kind::Text | Kind::LinkText, Value::Null) => Val::Text(None),
            // PostgreSQL has no NUL; the store never writes one.
            (Kind::Text | Kind::LinkText, Value::String(text)) if !text.contains('\0') => {
                Val::Text(Some(text))
            }
            (Kind::Time, Value::Null) => Val::Time(None),
            (Kind::Time, Value::Number(number)) => Timestamp::from_millis(number.as_i64()?).to_val().ok()?,
            _ => return None,
        });
    }
    row.is_empty().then_some(values)
}

/// FNV-1a: tells an accident, not an attacker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// With a line and its end.
    pub(super) fn add(&mut self, line: &[u8]) {
        for byte in line.iter().chain(b"\n") {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}
