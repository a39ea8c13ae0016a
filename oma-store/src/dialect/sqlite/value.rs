//! Values in and rows out.

use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Column, Row as _, Sqlite, TypeInfo, ValueRef};

use crate::db::{Row, Val};

/// A statement with its values.
pub(super) fn bind(text: &'static str, values: Vec<Val>) -> Query<'static, Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(text), |query, value| match value {
        Val::Int(number) => query.bind(number),
        Val::Text(text) => query.bind(text),
    })
}

/// Rows as the store reads them; the names of the columns are shared.
pub(super) fn rows(found: &[SqliteRow]) -> Result<Vec<Row>, sqlx::Error> {
    let Some(first) = found.first() else {
        return Ok(Vec::new());
    };
    let names: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let one = |row: &SqliteRow| {
        let values: Result<_, sqlx::Error> = (0..names.len()).map(|at| value(row, at)).collect();
        Ok(Row::new(names.clone(), values?))
    };
    found.iter().map(one).collect()
}

fn value(row: &SqliteRow, at: usize) -> Result<Val, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Val::Text(None));
    }
    let integer = raw.type_info().name() == "INTEGER";
    Ok(if integer { Val::Int(row.try_get(at)?) } else { Val::Text(row.try_get(at)?) })
}
