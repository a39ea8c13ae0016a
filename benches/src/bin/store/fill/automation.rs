//! Users, servers, playbooks, their runs, what these wrote, and who changed what.

use super::{Rows, Write};

/// Tables whose numbers are given here.
pub(super) const NUMBERED: &[(&str, &str)] =
    &[("users", "id"), ("servers", "id"), ("playbooks", "id"), ("jobs", "id")];

/// Seed 004 expects fewer than 500 playbooks, however much else there is.
const PLAYBOOKS: i64 = 400;

/// In an order that foreign keys allow.
pub(super) fn all(write: Write) -> Vec<Rows> {
    vec![users(write), servers(write), playbooks(write), runs(write), lines(write), audit(write)]
}

fn since(write: Write) -> Vec<(&'static str, String)> {
    let begin = write.time(&write.shape.begin.as_millis().to_string());
    vec![("created_at", begin.clone()), ("updated_at", begin)]
}

fn users(write: Write) -> Rows {
    let mut columns = since(write);
    columns.extend([
        ("id", "i + 1".to_owned()),
        ("email", "'user-' || i || '@oma.example'".to_owned()),
        ("password_hash", "'$2b$12$' || i".to_owned()),
        ("role", "'operator'".to_owned()),
    ]);
    Rows::new("users", write.shape.users(), columns)
}

fn servers(write: Write) -> Rows {
    let mut columns = since(write);
    columns.extend([
        ("id", "i + 1".to_owned()),
        ("hostname", "'web-' || i || '.example'".to_owned()),
        ("ip_address", format!("'10.0.' || {} || '.' || (i % 250 + 1)", write.div("i", 250))),
    ]);
    Rows::new("servers", write.shape.vms, columns)
}

fn playbooks(write: Write) -> Rows {
    let mut columns = since(write);
    columns.extend([
        ("id", "i + 1".to_owned()),
        ("name", "'playbook-' || i".to_owned()),
        ("file_path", "'/srv/playbooks/' || i || '.yml'".to_owned()),
    ]);
    Rows::new("playbooks", PLAYBOOKS, columns)
}

/// The newest few are not over; of the others one of ten has failed.
fn runs(write: Write) -> Rows {
    let shape = write.shape;
    let count = shape.jobs();
    let status = format!(
        "CASE WHEN i >= {} THEN 'pending' WHEN i >= {} THEN 'running' WHEN i % 10 = 9 THEN 'failed' \
         WHEN i % 50 = 8 THEN 'cancelled' ELSE 'completed' END",
        count - count / 500,
        count - count / 200,
    );
    let columns = vec![
        ("id", "i + 1".to_owned()),
        ("job_id", write.run("i")),
        ("user_id", format!("i % {} + 1", shape.users())),
        ("server_id", format!("i % {} + 1", shape.vms)),
        ("playbook_id", format!("i % {PLAYBOOKS} + 1")),
        ("status", status),
        ("created_at", write.moment("i", count, 0)),
        ("updated_at", write.moment("i", count, 600_000)),
    ];
    Rows::new("jobs", count, columns)
}

/// Ten of each run; fifty runs write by turns.
fn lines(write: Write) -> Rows {
    let shape = write.shape;
    let columns = vec![
        ("job_id", format!("{} * 50 + i % 50 + 1", write.div("i", 500))),
        ("line_number", format!("{} + 1", write.div("i % 500", 50))),
        (
            "content",
            "'TASK [web : install package ' || i || '] ok: changed=0 unreachable=0 failed=0'".to_owned(),
        ),
        ("ts", write.moment("i", shape.lines(), 0)),
    ];
    Rows::new("job_logs", shape.lines(), columns)
}

/// Ten of each thing, scattered over the time.
fn audit(write: Write) -> Rows {
    let shape = write.shape;
    let count = shape.jobs();
    let columns = vec![
        ("user_id", format!("i % {} + 1", shape.users())),
        ("action", "'update'".to_owned()),
        ("resource_type", "CASE i % 2 WHEN 0 THEN 'job' ELSE 'server' END".to_owned()),
        ("resource_id", format!("'' || (i % {})", count / 10)),
        ("details", r#"'{"field":"status"}'"#.to_owned()),
        ("ts", write.moment("i", count, 0)),
    ];
    Rows::new("audit_logs", count, columns)
}
