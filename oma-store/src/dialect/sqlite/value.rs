//! Values in and rows out.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite, TypeInfo, ValueRef};

use crate::db::Val;
use crate::dialect::pools::Outcome;

/// A statement with its values.
pub(super) fn bind(text: &'static str, values: Vec<Val>) -> Query<'static, Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(text), |query, value| match value {
        Val::Int(number) => query.bind(number),
        Val::Text(text) => query.bind(text),
        Val::Time(time) => query.bind(time.map(oma_core::Timestamp::as_millis)),
    })
}

/// One value, by what SQLite says it is.
pub(super) fn read(row: &SqliteRow, at: usize) -> Outcome<Val> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Val::Text(None));
    }
    let integer = raw.type_info().name() == "INTEGER";
    Ok(if integer { Val::Int(row.try_get(at)?) } else { Val::Text(row.try_get(at)?) })
}
