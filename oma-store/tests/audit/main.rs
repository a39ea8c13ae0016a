//! The audit trail against whoever has the database in hand.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

#[path = "../place/mod.rs"]
mod place;

use std::process::ExitCode;

use futures_util::future::{BoxFuture, join_all};
use oma_core::ErrorKind;
use oma_core::audit::{AuditEntry, Tampering};
use oma_core::conformance::{self, Trial};
use oma_core::record::{Email, PasswordHash, UserSpec};
use oma_core::state::Role;
use oma_core::traits::{Accounts, AuditLog};
use oma_store::servers::{Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};
use place::{Kind, Place};

/// A test with a server of its own.
type OnServer = fn() -> BoxFuture<'static, ()>;

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = Kind::ALL.iter().flat_map(|kind| on(*kind)).collect();
    let needs = [ServerEngine::MariaDb.private_required()];
    let own: [(&str, OnServer); 2] = [
        ("mariadb::a_user_with_rights_on_its_database_only_has_a_guarded_trail", least),
        ("mariadb::with_a_binary_log_the_server_must_let_users_make_triggers", binary_log),
    ];
    for (name, run) in own {
        trials.push(conformance::trial(name, &needs, run));
    }
    conformance::run(trials)
}

fn on(kind: Kind) -> Vec<Trial> {
    let trial = |name: &str, run: fn(Place) -> BoxFuture<'static, ()>| {
        conformance::trial(&format!("{kind}::{name}"), &[kind.required()], move || async move {
            run(Place::migrated(kind).await).await;
        })
    };
    vec![
        trial("the_database_refuses_to_change_or_remove_an_entry", |place| Box::pin(refused(place))),
        trial("whoever_tampers_without_the_triggers_is_found_out", |place| Box::pin(tampered(place))),
        trial("entries_of_two_programs_at_once_are_one_chain", |place| Box::pin(at_once(place))),
    ]
}

/// A trail of five entries, by a user of the number 1.
async fn trail(place: &Place) -> SqlStore {
    let store = place.open().await.unwrap();
    let email = Email::parse("ada@example.com").unwrap();
    let (full_name, password_hash) = (String::new(), PasswordHash::none());
    let spec = UserSpec { email, full_name, role: Role::Viewer, password_hash };
    let user = store.add_user(&spec).await.unwrap();
    for number in 0..5 {
        store.audit(&AuditEntry { user: Some(user.id), ..entry(number) }).await.unwrap();
    }
    store
}

fn entry(number: u32) -> AuditEntry {
    AuditEntry {
        actor: "ada".to_owned(),
        action: "volume.delete".to_owned(),
        resource_type: "volume".to_owned(),
        resource_id: format!("vol-{number}"),
        ..AuditEntry::default()
    }
}

async fn assert_whole(store: &SqlStore, entries: u64) {
    let verified = store.verify_audit(None).await.unwrap();
    assert_eq!((verified.entries, verified.broken), (entries, None));
}

async fn refused(place: Place) {
    let store = trail(&place).await;
    let mut hand = place.hand().await;
    let mut refused = vec![
        "UPDATE audit_logs SET action = 'volume.list' WHERE id = 3",
        "UPDATE audit_logs SET details = '{}'",
        "UPDATE audit_logs SET hash = NULL, previous_hash = NULL",
        "UPDATE audit_logs SET id = 99 WHERE id = 5",
        "DELETE FROM audit_logs WHERE id = 3",
        "DELETE FROM audit_logs",
        "UPDATE audit_chain SET last_id = 3",
        "UPDATE audit_chain SET pruned_through = 9",
        "DELETE FROM audit_chain",
    ];
    refused.extend(match place.kind() {
        Kind::Sqlite => {
            vec!["INSERT OR REPLACE INTO audit_logs (id, action, resource_type, ts) VALUES (3, 'a', 'r', 1)"]
        }
        Kind::Server(ServerEngine::MariaDb) => {
            vec!["REPLACE INTO audit_logs (id, action, resource_type) VALUES (3, 'a', 'r')"]
        }
        Kind::Server(ServerEngine::Postgres) => vec!["TRUNCATE audit_logs", "TRUNCATE audit_chain"],
    });
    for text in refused {
        let error = hand.execute(text).await.expect_err(text).to_string();
        assert!(error.contains("the audit trail"), "{text}: {error}");
        assert_whole(&store, 5).await;
    }
    store.remove_user(oma_core::UserId(1)).await.unwrap();
    assert_whole(&store, 5).await;
    store.close().await;
}

async fn tampered(place: Place) {
    let store = trail(&place).await;
    let mut hand = place.hand().await;
    let unguarded = match place.kind() {
        Kind::Sqlite => {
            "DROP TRIGGER audit_logs_update; DROP TRIGGER audit_logs_delete; DROP TRIGGER audit_logs_insert; \
             DROP TRIGGER audit_chain_update; DROP TRIGGER audit_chain_delete"
        }
        Kind::Server(ServerEngine::MariaDb) => {
            "DROP TRIGGER audit_logs_update; DROP TRIGGER audit_logs_delete; DROP TRIGGER audit_chain_update; \
             DROP TRIGGER audit_chain_delete"
        }
        Kind::Server(ServerEngine::Postgres) => "SET session_replication_role = replica",
    };
    hand.execute(unguarded).await.unwrap();
    let now = if place.kind() == Kind::Sqlite { "1" } else { "CURRENT_TIMESTAMP(3)" };
    let inserted =
        format!("INSERT INTO audit_logs (id, action, resource_type, ts) VALUES (6, 'a', 'r', {now})");
    let columns = "action, resource_type, resource_id, details, ip_address, ts, actor, previous_hash, hash";
    let copied =
        format!("INSERT INTO audit_logs (id, {columns}) SELECT 6, {columns} FROM audit_logs WHERE id = 5");
    // Each with the statements that take it back.
    let cases = [
        ("UPDATE audit_logs SET resource_id = 'vol-9' WHERE id = 2".to_owned(), 2, Tampering::Altered),
        ("UPDATE audit_logs SET resource_id = 'vol-1' WHERE id = 2".to_owned(), 0, Tampering::Altered),
        (inserted, 6, Tampering::Inserted),
        ("DELETE FROM audit_logs WHERE id = 6".to_owned(), 0, Tampering::Removed),
        (copied, 6, Tampering::Inserted),
        ("DELETE FROM audit_logs WHERE id = 6".to_owned(), 0, Tampering::Removed),
        ("DELETE FROM audit_logs WHERE id = 5".to_owned(), 5, Tampering::Removed),
        ("DELETE FROM audit_logs WHERE id = 3".to_owned(), 3, Tampering::Removed),
        ("DELETE FROM audit_logs WHERE id = 1".to_owned(), 1, Tampering::Removed),
        ("UPDATE audit_chain SET pruned_through = 1".to_owned(), 3, Tampering::Removed),
        ("DELETE FROM audit_logs".to_owned(), 2, Tampering::Removed),
    ];
    for (text, id, what) in cases {
        hand.execute(&text).await.unwrap();
        let broken = store.verify_audit(None).await.unwrap().broken;
        let expected = (id > 0).then_some((id, what));
        assert_eq!(broken.map(|broken| (broken.id.0, broken.what)), expected, "{text}");
        let findings = store.check().await.unwrap();
        let rules: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        assert_eq!(rules, expected.map(|_| "audit-trail").into_iter().collect::<Vec<_>>(), "{text}");
    }
    store.close().await;
}

async fn at_once(place: Place) {
    let stores = [place.open().await.unwrap(), place.open().await.unwrap()];
    let tasks = (0..8).map(|task| {
        let store = stores[task % 2].clone();
        tokio::spawn(async move {
            for number in 0..10 {
                store.audit(&entry(number)).await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    for store in &stores {
        assert_whole(store, 80).await;
        store.close().await;
    }
}

/// A server with these arguments, and what a user sees of it who has the rights that docs/database.md names.
async fn served(arguments: &[&str]) -> (Server, Place, StoreConfig) {
    let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    let options = ServerOptions { arguments, ..ServerOptions::default() };
    let server = Server::start(ServerEngine::MariaDb, options).await.unwrap();
    let database = server.create_database().await.unwrap();
    let rights = format!(
        "CREATE USER oma@localhost IDENTIFIED BY 'pw'; GRANT ALL PRIVILEGES ON {}.* TO oma@localhost",
        database.name()
    );
    database.execute(&rights).await.unwrap();
    let url = database.url().replacen("root@", "oma:pw@", 1);
    (server, Place::Server(database), StoreConfig { url, ..StoreConfig::default() })
}

fn least() -> BoxFuture<'static, ()> {
    Box::pin(async {
        let (_server, place, config) = served(&[]).await;
        guarded(&place, &config).await;
    })
}

fn binary_log() -> BoxFuture<'static, ()> {
    Box::pin(async {
        let (server, place, config) = served(&["--log-bin=log", "--server-id=1"]).await;
        let error = SqlStore::open(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
        assert!(error.chain().contains("log_bin_trust_function_creators"), "{}", error.chain());
        server.execute("mysql", "SET GLOBAL log_bin_trust_function_creators = 1").await.unwrap();
        SqlStore::open(&config).await.unwrap().close().await;
        server.execute("mysql", "SET GLOBAL log_bin_trust_function_creators = 0").await.unwrap();
        guarded(&place, &config).await;
    })
}

/// The user records, and cannot take back.
async fn guarded(place: &Place, config: &StoreConfig) {
    let store = SqlStore::open(config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    for number in 0..3 {
        store.audit(&entry(number)).await.unwrap();
    }
    place.hand().await.execute("DELETE FROM audit_logs").await.unwrap_err();
    assert_whole(&store, 3).await;
    store.close().await;
}
