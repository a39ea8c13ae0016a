//! Values in and rows out.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _, TypeInfo, ValueRef};

use crate::db::Val;
use crate::dialect::moment::{moment, timestamp};
use crate::dialect::pools::Outcome;

/// A statement with its values.
pub(super) fn bind(text: &'static str, values: Vec<Val>) -> Outcome<Query<'static, Postgres, PgArguments>> {
    values.into_iter().try_fold(sqlx::query(text), |query, value| {
        Ok(match value {
            Val::Int(number) => query.bind(number),
            Val::Text(text) => query.bind(text),
            Val::Time(time) => query.bind(time.map(moment).transpose()?),
        })
    })
}

/// One value, by the type of its column.
pub(super) fn read(row: &PgRow, at: usize) -> Outcome<Val> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Val::Text(None));
    }
    Ok(match raw.type_info().name() {
        "INT8" => Val::Int(row.try_get(at)?),
        "INT4" => Val::Int(Some(i64::from(row.try_get::<i32, _>(at)?))),
        "BOOL" => Val::Int(Some(i64::from(row.try_get::<bool, _>(at)?))),
        "TIMESTAMPTZ" => Val::Time(Some(timestamp(row.try_get(at)?)?)),
        _ => Val::Text(row.try_get(at)?),
    })
}
