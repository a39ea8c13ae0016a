//! Seed 004: the database of automation, under the name that its queries have.

use futures_util::future::BoxFuture;
use oma_core::conformance::{self, Trial};
use oma_store::servers::{Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};
use tokio::sync::OnceCell;

use crate::session::Session;

const NAME: &str = "infra_automation";

const TABLES: &str = "SHOW TABLES;";
const KEYS: &str = "
SELECT TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME 
FROM information_schema.KEY_COLUMN_USAGE 
WHERE TABLE_SCHEMA = 'infra_automation' AND REFERENCED_TABLE_NAME IS NOT NULL;
";
const USERS: &str = "SELECT COUNT(*) FROM users;";
const SIZES: &str = "SELECT table_name, 
       ROUND(((data_length + index_length) / 1024 / 1024), 2) AS 'Size (MB)'
FROM information_schema.TABLES
WHERE table_schema = 'infra_automation'
ORDER BY (data_length + index_length) DESC;";
const INDEX_USAGE: &str = "SELECT object_name, index_name, count_star
FROM performance_schema.table_io_waits_summary_by_index_usage
WHERE object_schema = 'infra_automation'
ORDER BY count_star DESC;";
const SLOW: &str = "SELECT query_time, lock_time, rows_examined, sql_text
FROM mysql.slow_log
WHERE db = 'infra_automation'
ORDER BY query_time DESC
LIMIT 10;";

const AUTOMATION: [&str; 7] = ["audit_logs", "job_logs", "jobs", "playbooks", "servers", "tickets", "users"];

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn(Session) -> BoxFuture<'static, ()>| {
        // The queries read what the server as a whole counted, with settings that only its start can give.
        conformance::trial(name, &[ServerEngine::MariaDb.private_required()], move || async move {
            run(Session::connect(&database().await).await).await;
        })
    };
    vec![
        trial("seed_004::show_tables_lists_its_seven", |session| Box::pin(tables(session))),
        trial("seed_004::foreign_keys_are_those_of_its_map", |session| Box::pin(keys(session))),
        trial("seed_004::deletes_cascade_restrict_and_set_null_as_it_says", |session| {
            Box::pin(actions(session))
        }),
        crate::trial("seed_004::count_of_users", |_, session| Box::pin(users(session))),
        trial("seed_004::table_sizes_largest_first", |session| Box::pin(sizes(session))),
        trial("seed_004::index_usage_most_used_first", |session| Box::pin(index_usage(session))),
        trial("seed_004::slow_queries_slowest_first", |session| Box::pin(slow(session))),
        trial("seed_004::monthly_optimize_and_analyze", |session| Box::pin(maintenance(session))),
    ]
}

/// The URL of the one database of that name.
async fn database() -> String {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let server = SERVER.get_or_init(|| async {
        let arguments =
            ["--performance-schema=ON", "--slow-query-log=ON", "--log-output=TABLE", "--long-query-time=0"];
        let arguments = arguments.map(str::to_owned).to_vec();
        let options = ServerOptions { arguments, ..ServerOptions::default() };
        let server = Server::start(ServerEngine::MariaDb, options).await.unwrap();
        server.execute("mysql", &format!("CREATE DATABASE {NAME}")).await.unwrap();
        let config = StoreConfig { url: server.url(NAME), ..StoreConfig::default() };
        SqlStore::open(&config).await.unwrap().close().await;
        server
    });
    server.await.url(NAME)
}

async fn tables(mut hand: Session) {
    let found = hand.rows(TABLES).await.concat();
    assert!(AUTOMATION.iter().all(|table| found.iter().any(|found| found == table)), "{found:?}");
}

/// The document counts eleven keys and names seven; a ticket's two users and the log's are told in its text.
async fn keys(mut hand: Session) {
    let rows = hand.rows(KEYS).await;
    for (table, referenced, keys) in [
        ("jobs", "users", 1),
        ("jobs", "servers", 1),
        ("jobs", "playbooks", 1),
        ("job_logs", "jobs", 1),
        ("tickets", "jobs", 1),
        ("tickets", "users", 2),
        ("audit_logs", "users", 1),
    ] {
        let found = rows.iter().filter(|row| (row[0].as_str(), row[2].as_str()) == (table, referenced));
        assert_eq!(found.count(), keys, "{table} to {referenced}: {rows:?}");
    }
}

/// A user with a job, its lines and its ticket, and what was noted of another one.
async fn filled(hand: &mut Session, name: &str) {
    for text in [
        "INSERT INTO users (email, password_hash) VALUES ('#@example.com', '$2b$12$x'), ('#-2@example.com', '$2b$12$x')",
        "INSERT INTO servers (hostname, ip_address) VALUES ('#', '#')",
        "INSERT INTO playbooks (name, file_path) VALUES ('#', '/etc/playbooks/#.yml')",
        "INSERT INTO jobs (job_id, user_id, server_id, playbook_id) SELECT '#', u.id, s.id, p.id \
         FROM users u, servers s, playbooks p WHERE u.email = '#@example.com' AND s.hostname = '#' AND p.name = '#'",
        "INSERT INTO job_logs (job_id, line_number, content) SELECT id, 1, 'ok' FROM jobs WHERE job_id = '#'",
        "INSERT INTO tickets (ticket_id, job_id, user_id, title) SELECT '#', id, user_id, '#' FROM jobs WHERE job_id = '#'",
        "INSERT INTO audit_logs (user_id, action, resource_type) SELECT id, '#', 'job' FROM users WHERE email = '#-2@example.com'",
    ] {
        hand.write(&text.replace('#', name)).await;
    }
}

async fn actions(mut hand: Session) {
    filled(&mut hand, "actions").await;
    for (text, done) in [
        ("DELETE FROM users WHERE email = 'actions@example.com'", false),
        ("DELETE FROM servers WHERE hostname = 'actions'", false),
        ("DELETE FROM playbooks WHERE name = 'actions'", false),
        ("DELETE FROM jobs WHERE job_id = 'actions'", false),
        ("DELETE FROM tickets WHERE ticket_id = 'actions'", true),
        ("DELETE FROM jobs WHERE job_id = 'actions'", true),
        ("DELETE FROM users WHERE email = 'actions-2@example.com'", true),
    ] {
        assert_eq!(hand.try_write(text).await.is_ok(), done, "{text}");
    }
    assert_eq!(hand.count("job_logs l LEFT JOIN jobs j ON j.id = l.job_id WHERE j.id IS NULL").await, "0");
    assert_eq!(hand.count("audit_logs WHERE action = 'actions' AND user_id IS NULL").await, "1");
}

/// In a database of its own: others would be counted too.
async fn users(mut hand: Session) {
    assert_eq!(hand.value(USERS).await, "0");
    filled(&mut hand, "users").await;
    assert_eq!(hand.value(USERS).await, "2");
}

async fn sizes(mut hand: Session) {
    let rows = hand.rows(SIZES).await;
    let sizes: Vec<f64> = rows.iter().filter_map(|row| row[1].parse().ok()).collect();
    assert!(AUTOMATION.iter().all(|table| rows.iter().any(|row| row[0] == *table)), "{rows:?}");
    assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] > 0.0, "{rows:?}");
}

async fn index_usage(mut hand: Session) {
    filled(&mut hand, "usage").await;
    hand.rows("SELECT * FROM users WHERE email = 'usage@example.com'").await;
    let rows = hand.rows(INDEX_USAGE).await;
    let used = rows.iter().find(|row| row[..2] == ["users", "ux_users_email"]);
    assert!(used.is_some_and(|row| row[2].parse::<u64>().unwrap() > 0), "{rows:?}");
    let counts: Vec<u64> = rows.iter().map(|row| row[2].parse().unwrap()).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{rows:?}");
}

async fn slow(mut hand: Session) {
    hand.rows("SELECT 'slow', SLEEP(0.2) FROM users LIMIT 1").await;
    hand.rows("SELECT 'slow', SLEEP(0.5)").await;
    let rows = hand.rows(SLOW).await;
    assert!(rows.len() <= 10 && rows[0][3] == "SELECT 'slow', SLEEP(0.5)", "{rows:?}");
    assert!(rows.is_sorted_by(|a, b| a[0] >= b[0]), "{rows:?}");
}

async fn maintenance(mut hand: Session) {
    for table in AUTOMATION {
        for statement in ["OPTIMIZE TABLE", "ANALYZE TABLE"] {
            let rows = hand.rows(&format!("{statement} {table}")).await;
            assert!(rows.iter().any(|row| row[2..] == ["status", "OK"]), "{statement}: {rows:?}");
        }
    }
}
