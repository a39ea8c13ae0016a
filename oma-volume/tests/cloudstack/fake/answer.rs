//! Envelopes of answers: JSON, and XML for those who do not ask for JSON.

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// What a command answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// One page of a list, and how many rows there are on all pages.
    List {
        key: &'static str,
        total: usize,
        rows: Vec<Value>,
    },
    /// One object under its key.
    Object(&'static str, Value),
    /// What stands below the response's key as it is.
    Bare(Value),
    Success,
    /// An asynchronous command was accepted.
    Job(Uuid),
    /// An entity has its row and a job goes on with it.
    Created {
        id: Uuid,
        job: Uuid,
    },
}

impl Reply {
    /// What stands below the response's key. An empty list has neither a count nor an array; a page past the end has the count.
    pub(crate) fn body(self) -> Value {
        match self {
            Self::List { total: 0, .. } => json!({}),
            Self::List { total, rows, .. } if rows.is_empty() => json!({"count": total}),
            Self::List { key, total, rows } => json!({"count": total, key: rows}),
            Self::Object(key, value) => json!({key: value}),
            Self::Bare(value) => value,
            Self::Success => json!({"success": true}),
            Self::Job(job) => json!({"jobid": job}),
            Self::Created { id, job } => json!({"id": id, "jobid": job}),
        }
    }
}

/// The whole answer under its key; never a null: fields that are not set are left out.
pub(crate) fn envelope(key: &str, body: Value) -> Value {
    json!({key: without_nulls(body)})
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(name, value)| (name, without_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(rows) => Value::Array(rows.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// The same answer as XML, which is what the server sends unless `response=json` is asked for.
pub(crate) fn xml(answer: &Value) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    for (name, value) in answer.as_object().into_iter().flatten() {
        element(&mut text, name, value);
    }
    text
}

fn element(text: &mut String, name: &str, value: &Value) {
    if let Value::Array(rows) = value {
        rows.iter().for_each(|row| element(text, name, row));
        return;
    }
    text.push_str(&format!("<{name}>"));
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| element(text, name, value)),
        Value::String(content) => {
            text.push_str(&content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
        }
        other => text.push_str(&other.to_string()),
    }
    text.push_str(&format!("</{name}>"));
}
