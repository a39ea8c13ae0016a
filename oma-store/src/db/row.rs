//! Rows that were read, and their fields by name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oma_core::{ByteSize, Timestamp};

use super::Val;
use crate::error::StoreError;

/// One row, free of its driver.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    columns: Arc<[String]>,
    values: Vec<Val>,
}

impl Row {
    pub(crate) fn new(columns: Arc<[String]>, values: Vec<Val>) -> Self {
        Self { columns, values }
    }

    /// Its fields, as a row of `table` whose key stands in the column `key`; both stand in every error.
    pub(crate) fn fields(&self, table: &'static str, key: &str) -> Fields<'_> {
        let key = match self.find(key) {
            Some(Val::Int(Some(number))) => number.to_string(),
            Some(Val::Text(Some(text))) => text.clone(),
            _ => "without a key".to_owned(),
        };
        Fields { row: self, table, key }
    }

    /// A value for readers.
    pub(crate) fn shown(&self, column: &str) -> String {
        match self.find(column) {
            Some(Val::Int(Some(number))) => number.to_string(),
            Some(Val::Text(Some(text))) => text.clone(),
            Some(Val::Time(Some(time))) => time.to_string(),
            _ => "(none)".to_owned(),
        }
    }

    fn find(&self, column: &str) -> Option<&Val> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.values.get(at)
    }
}

/// The fields of a row: what is not as the schema says it is damage, and told as such.
#[derive(Debug)]
pub(crate) struct Fields<'r> {
    row: &'r Row,
    table: &'static str,
    key: String,
}

impl Fields<'_> {
    pub(crate) fn opt_int(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        match self.find(column)? {
            Val::Int(number) => Ok(*number),
            Val::Text(None) | Val::Time(None) => Ok(None),
            Val::Text(Some(_)) | Val::Time(Some(_)) => {
                Err(self.damaged(column, "something else stands where a number belongs"))
            }
        }
    }

    pub(crate) fn opt_text(&self, column: &'static str) -> Result<Option<&str>, StoreError> {
        match self.find(column)? {
            Val::Text(text) => Ok(text.as_deref()),
            Val::Int(None) | Val::Time(None) => Ok(None),
            Val::Int(Some(_)) | Val::Time(Some(_)) => {
                Err(self.damaged(column, "something else stands where a text belongs"))
            }
        }
    }

    pub(crate) fn opt_time(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        match self.find(column)? {
            Val::Time(time) => Ok(*time),
            Val::Int(number) => Ok(number.map(Timestamp::from_millis)),
            Val::Text(None) => Ok(None),
            Val::Text(Some(_)) => Err(self.damaged(column, "a text stands where a time belongs")),
        }
    }

    fn find(&self, column: &'static str) -> Result<&Val, StoreError> {
        self.row.find(column).ok_or_else(|| self.damaged(column, "it is missing"))
    }

    pub(crate) fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or_else(|| self.damaged(column, "it is empty"))
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<&str, StoreError> {
        self.opt_text(column)?.ok_or_else(|| self.damaged(column, "it is empty"))
    }

    /// A number that is never negative.
    pub(crate) fn count(&self, column: &'static str) -> Result<u64, StoreError> {
        let number = self.int(column)?;
        u64::try_from(number).map_err(|_| self.damaged(column, format!("{number} is negative")))
    }

    pub(crate) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    pub(crate) fn size(&self, column: &'static str) -> Result<ByteSize, StoreError> {
        self.count(column).map(ByteSize::new)
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        self.opt_time(column)?.ok_or_else(|| self.damaged(column, "it is empty"))
    }

    /// An id or a label.
    pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(&self, column: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        text.parse().map_err(|error: T::Err| self.damaged(column, error))
    }

    pub(crate) fn opt_parse<T: FromStr<Err: fmt::Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        match self.opt_text(column)? {
            None => Ok(None),
            Some(_) => self.parse(column).map(Some),
        }
    }

    /// A column of JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.text(column)?).map_err(|error| self.damaged(column, error))
    }

    pub(crate) fn opt_json<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let parsed = self.opt_text(column)?.map(serde_json::from_str).transpose();
        parsed.map_err(|error| self.damaged(column, error))
    }

    /// What is wrong with this row.
    pub(crate) fn damaged(&self, column: &'static str, reason: impl fmt::Display) -> StoreError {
        StoreError::Row { table: self.table, key: self.key.clone(), column, reason: reason.to_string() }
    }
}
