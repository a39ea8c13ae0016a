//! Values in and rows out.

use oma_core::Timestamp;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, Row as _, TypeInfo, ValueRef};
use time::PrimitiveDateTime;

use crate::db::Val;
use crate::dialect::moment::{moment, timestamp};
use crate::dialect::pools::Outcome;

/// A statement with its values.
pub(super) fn bind(text: &'static str, values: Vec<Val>) -> Outcome<Query<'static, MySql, MySqlArguments>> {
    values.into_iter().try_fold(sqlx::query(text), |query, value| {
        Ok(match value {
            Val::Int(number) => query.bind(number),
            Val::Text(text) => query.bind(text),
            Val::Time(time) => query.bind(time.map(datetime).transpose()?),
        })
    })
}

/// In UTC and as a DATETIME: what is bound as a TIMESTAMP ends in 2038, and is silently NULL behind that.
fn datetime(time: Timestamp) -> Outcome<PrimitiveDateTime> {
    moment(time).map(|moment| PrimitiveDateTime::new(moment.date(), moment.time()))
}

/// One value, by the type of its column.
pub(super) fn read(row: &MySqlRow, at: usize) -> Outcome<Val> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Val::Text(None));
    }
    Ok(match raw.type_info().name() {
        "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" => Val::Int(row.try_get(at)?),
        "DATETIME" | "TIMESTAMP" => Val::Time(Some(timestamp(row.try_get(at)?)?)),
        _ => Val::Text(row.try_get(at)?),
    })
}
