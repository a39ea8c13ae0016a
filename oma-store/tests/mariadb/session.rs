//! A client's connection, which sees every value as text.

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row};

pub(crate) struct Session(MySqlConnection);

/// `NULL` as a client shows it.
pub(crate) const NULL: &str = "NULL";

impl Session {
    pub(crate) async fn connect(url: &str) -> Self {
        Self(MySqlConnection::connect(url).await.unwrap())
    }

    /// Runs a statement and answers how many rows it wrote.
    pub(crate) async fn write(&mut self, text: &str) -> u64 {
        self.try_write(text).await.unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs a statement and answers how many rows it wrote, or what the server said.
    pub(crate) async fn try_write(&mut self, text: &str) -> Result<u64, String> {
        let done = self.0.execute(sqlx::raw_sql(AssertSqlSafe(text))).await;
        done.map(|done| done.rows_affected()).map_err(|error| error.to_string())
    }

    /// The rows of a statement.
    pub(crate) async fn rows(&mut self, text: &str) -> Vec<Vec<String>> {
        let found = self.0.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await;
        let found = found.unwrap_or_else(|error| panic!("{error}: {text}"));
        found.iter().map(texts).collect()
    }

    /// The one value of a statement.
    pub(crate) async fn value(&mut self, text: &str) -> String {
        let rows = self.rows(text).await;
        assert_eq!((rows.len(), rows[0].len()), (1, 1), "{text}");
        rows[0][0].clone()
    }

    /// Runs a statement with a value for each `?`.
    pub(crate) async fn bound(&mut self, text: &str, values: &[&str]) -> Vec<MySqlRow> {
        let query = sqlx::query(AssertSqlSafe(text.to_owned()));
        let query = values.iter().fold(query, |query, value| query.bind((*value).to_owned()));
        query.fetch_all(&mut self.0).await.unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// How many rows a table has.
    pub(crate) async fn count(&mut self, table: &str) -> String {
        self.value(&format!("SELECT COUNT(*) FROM {table}")).await
    }
}

fn texts(row: &MySqlRow) -> Vec<String> {
    let text = |at| row.get_unchecked::<Option<String>, _>(at).unwrap_or_else(|| NULL.to_owned());
    (0..row.len()).map(text).collect()
}

/// A statement whose list of columns ends in `...)`, with the rest of the columns and the values of all.
pub(crate) fn completed(text: &str, columns: &str, values: &str) -> String {
    let (begin, end) = text.rsplit_once("...)").expect("the document leaves columns out");
    assert!(end.is_empty());
    format!("{begin}{columns}) VALUES ({values})")
}

/// A statement with the test's id in place of the document's.
pub(crate) fn with(text: &str, theirs: &str, ours: &str) -> String {
    assert!(text.contains(theirs), "{text}");
    text.replace(theirs, ours)
}
