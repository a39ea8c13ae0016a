//! Automation jobs, which no trait makes yet.

use std::sync::Arc;

use oma_core::conformance::AddAutomationJob;
use sqlx::{AssertSqlSafe, Connection};

/// Makes automation jobs in the database that a URL names.
pub(crate) fn automation(url: String) -> AddAutomationJob {
    Arc::new(move |id| {
        let url = url.clone();
        Box::pin(async move { add(&url, id.as_str()).await })
    })
}

async fn add(url: &str, id: &str) {
    let now = if url.starts_with("sqlite:") { "0" } else { "CURRENT_TIMESTAMP(3)" };
    let statements = format!(
        "INSERT INTO users (email, password_hash, created_at, updated_at) VALUES ('{id}', '$', {now}, {now}); \
         INSERT INTO servers (hostname, ip_address, created_at, updated_at) VALUES ('{id}', '{id}', {now}, {now}); \
         INSERT INTO playbooks (name, file_path, created_at, updated_at) VALUES ('{id}', '', {now}, {now}); \
         INSERT INTO jobs (job_id, user_id, server_id, playbook_id, created_at, updated_at) \
         SELECT '{id}', u.id, s.id, p.id, {now}, {now} FROM users u, servers s, playbooks p \
         WHERE u.email = '{id}' AND s.hostname = '{id}' AND p.name = '{id}'"
    );
    execute(url, &statements).await;
}

/// Runs statements in the database that a URL names.
pub(crate) async fn execute(url: &str, statements: &str) {
    let text = sqlx::raw_sql(AssertSqlSafe(statements));
    match url.split(':').next() {
        #[cfg(feature = "mysql")]
        Some("mysql") => {
            let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
            text.execute(&mut connection).await.unwrap();
        }
        #[cfg(feature = "postgres")]
        Some("postgres") => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            text.execute(&mut connection).await.unwrap();
        }
        _ => {
            let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
            text.execute(&mut connection).await.unwrap();
        }
    }
}
