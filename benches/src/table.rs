use std::fmt;

use serde_json::{Map, Value};

/// A table, for readers as Markdown and for programs as JSON.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// What stands in a table.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number and how many digits behind the point a reader is shown. What is no number is shown as a dash.
    Number(f64, usize),
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new() }
    }

    /// Adds a row, with one cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a row of {}", self.title);
        self.rows.push(cells);
    }

    /// The table with its rows as objects.
    #[must_use]
    pub fn json(&self) -> Value {
        let row = |cells: &Vec<Cell>| {
            let fields = self.columns.iter().cloned().zip(cells.iter().map(Cell::json));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        let rows = self.rows.iter().map(row).collect();
        Value::Object(Map::from_iter([
            ("title".to_owned(), Value::String(self.title.clone())),
            ("rows".to_owned(), Value::Array(rows)),
        ]))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.columns.len()))?;
        for row in &self.rows {
            let cells: Vec<_> = row.iter().map(ToString::to_string).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Number(number, _) => {
                serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number)
            }
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(f64::from(number), 0)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number, _) if !number.is_finite() => f.write_str("–"),
            Self::Number(number, digits) => write!(f, "{number:.digits$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_and_json() {
        let mut table = Table::new("Copies:", &["copy", "seconds"]);
        table.row(vec!["oma".into(), Cell::Number(1.234, 2)]);
        table.row(vec!["none".into(), Cell::Number(f64::NAN, 2)]);
        let expected = "Copies:\n\n| copy | seconds |\n|---|---|\n| oma | 1.23 |\n| none | – |\n";
        assert_eq!(table.to_string(), expected);
        let rows = serde_json::json!([{"copy": "oma", "seconds": 1.234}, {"copy": "none", "seconds": null}]);
        assert_eq!(table.json()["rows"], rows);
    }
}
