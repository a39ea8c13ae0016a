//! Databases that cannot be opened, and many who open one at once.

use futures_util::future::try_join_all;
use oma_core::traits::{Inventory, JobStore, VolumeRegistry};
use oma_core::{ErrorKind, Retry};
use oma_store::servers::{Server, ServerEngine};
use oma_store::{Schema, SqlStore, StoreConfig};

use crate::fixture::replicated;
use crate::place::{Kind, Place};
use crate::{Test, recorded, told, vm};

pub(crate) const TESTS: &[Test] = &[
    ("many_first_starts_at_once_make_one_database", |kind| Box::pin(first_starts(kind))),
    ("a_database_of_a_newer_program_is_refused", |kind| Box::pin(newer(kind))),
    ("a_database_of_another_program_is_refused_and_left_alone", |kind| Box::pin(foreign(kind))),
    ("a_reader_makes_nothing", |kind| Box::pin(reader(kind))),
    ("an_upgrade_from_version_5_keeps_every_row", |kind| Box::pin(upgraded(kind))),
];

pub(crate) const ON_SERVERS: &[Test] = &[
    ("l29_a_refused_user_is_told_without_the_password", |kind| Box::pin(denied(kind))),
    ("a_database_that_is_not_there_is_not_found", |kind| Box::pin(absent(kind))),
    ("a_server_that_is_not_there_is_unavailable_at_once", |kind| Box::pin(away(kind))),
    ("a_user_who_may_only_read_writes_nothing", |kind| Box::pin(reading_user(kind))),
    ("a_start_that_a_crash_cut_off_is_finished_by_the_next", |kind| Box::pin(half_migrated(kind))),
];

/// Rounds of processes that all find nothing there.
const ROUNDS: usize = 30;

async fn first_starts(kind: Kind) {
    for round in 0..ROUNDS {
        let place = Place::empty(kind).await;
        let opened = try_join_all((0..4).map(|_| {
            let config = place.config();
            async move { tokio::spawn(async move { SqlStore::open(&config).await }).await.unwrap() }
        }));
        let opened = opened.await.unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
        let mut instances = Vec::new();
        for store in opened {
            instances.push(store.instance().await.unwrap());
            store.close().await;
        }
        instances.dedup();
        assert_eq!(instances.len(), 1, "round {round}: one deployment");
    }
}

async fn newer(kind: Kind) {
    let place = Place::migrated(kind).await;
    let mut hand = place.hand().await;
    hand.execute(
        "INSERT INTO oma_migrations (version, name, checksum, applied_at) VALUES (99, 'later', 'x', 0)",
    )
    .await
    .unwrap();
    for error in [
        place.open().await.unwrap_err(),
        SqlStore::open_read_only(&place.config()).await.unwrap_err(),
        SqlStore::schema(&place.config()).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unsupported, Retry::Never), "{}", told(&error));
        assert!(error.chain().contains("99"), "{}", error.chain());
    }
}

async fn foreign(kind: Kind) {
    let place = Place::empty(kind).await;
    let mut hand = place.hand().await;
    hand.execute("CREATE TABLE users (name VARCHAR(20))").await.unwrap();
    for error in [place.open().await.unwrap_err(), SqlStore::schema(&place.config()).await.unwrap_err()] {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Invalid, Retry::Never), "{}", told(&error));
    }
    // Ours is another table of that name.
    hand.execute("INSERT INTO users (name) VALUES ('theirs')").await.unwrap();
    hand.execute("DELETE FROM oma_meta").await.unwrap_err();
}

async fn reader(kind: Kind) {
    let place = Place::empty(kind).await;
    let error = SqlStore::open_read_only(&place.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", told(&error));
    assert_eq!(SqlStore::schema(&place.config()).await.unwrap(), Schema { found: None, needed: 12 });
    place.open().await.unwrap().close().await;
    let store = SqlStore::open_read_only(&place.config()).await.unwrap();
    let error = store.record(&vm("web", "")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", told(&error));
    store.close().await;
}

/// Takes step 12 back.
const fn twelve_to_11(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite | Kind::Server(ServerEngine::Postgres) => {
            "DROP INDEX ix_jobs_status; DROP INDEX ix_jobs_context_status; DROP INDEX ix_contexts_place; \
             DROP INDEX ix_volumes_status; DROP INDEX ix_volumes_context; DROP INDEX ix_operations_kind; \
             DROP INDEX ix_operations_context; DROP INDEX ix_operations_context_kind; DROP INDEX ix_operations_on; \
             DROP INDEX ix_operations_on_kind; DROP INDEX ix_operations_by; DROP INDEX ix_operations_by_kind; \
             DROP INDEX ix_cleanups_job_status; CREATE INDEX ix_operations_volume ON volume_operations (ossea_volume_id); \
             CREATE INDEX ix_operations_made ON volume_operations (made_volume_id); \
             DELETE FROM oma_migrations WHERE version = 12"
        }
        Kind::Server(ServerEngine::MariaDb) => {
            "ALTER TABLE replication_jobs DROP KEY ix_jobs_status, DROP KEY ix_jobs_context_status; \
             ALTER TABLE vm_replication_contexts DROP KEY ix_contexts_place; \
             ALTER TABLE ossea_volumes DROP KEY ix_volumes_status, DROP KEY ix_volumes_context; \
             ALTER TABLE volume_operations ADD KEY ix_operations_volume (ossea_volume_id), \
             ADD KEY ix_operations_made (made_volume_id), DROP KEY ix_operations_kind, DROP KEY ix_operations_context, \
             DROP KEY ix_operations_context_kind, DROP KEY ix_operations_on, DROP KEY ix_operations_on_kind, \
             DROP KEY ix_operations_by, DROP KEY ix_operations_by_kind; \
             ALTER TABLE cleanups DROP KEY ix_cleanups_job_status; DELETE FROM oma_migrations WHERE version = 12"
        }
    }
}
/// As a crash in the middle of step 12 leaves it where each definition is kept: some tables have their indexes, or all.
const HALF_WAY_TO_12: [&str; 3] = [
    "ALTER TABLE ossea_volumes DROP KEY ix_volumes_status, DROP KEY ix_volumes_context; \
     ALTER TABLE cleanups DROP KEY ix_cleanups_job_status; DELETE FROM oma_migrations WHERE version = 12",
    "ALTER TABLE cleanups DROP KEY ix_cleanups_job_status; DELETE FROM oma_migrations WHERE version = 12",
    "DELETE FROM oma_migrations WHERE version = 12",
];

/// Takes step 11 back.
const ELEVEN_TO_10: &str =
    "DROP TABLE cleanup_steps; DROP TABLE cleanups; DELETE FROM oma_migrations WHERE version = 11";
/// As a crash in the middle of step 11 leaves it where each definition is kept: one of its tables is there, or both.
const HALF_WAY_TO_11: [&str; 2] = [
    "DROP TABLE cleanup_steps; DELETE FROM oma_migrations WHERE version = 11",
    "DELETE FROM oma_migrations WHERE version = 11",
];

/// Takes step 10 back.
const TEN_TO_9: &str =
    "ALTER TABLE volume_operations DROP COLUMN worker; DELETE FROM oma_migrations WHERE version = 10";

/// Takes step 9 back.
const NINE_TO_8: &str = "ALTER TABLE replication_jobs DROP COLUMN request; ALTER TABLE replication_jobs DROP COLUMN wanted; \
     ALTER TABLE replication_jobs DROP COLUMN progress; DELETE FROM oma_migrations WHERE version = 9";

/// Takes step 8 back.
const fn eight_to_7(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => {
            "DROP TRIGGER audit_logs_update; DROP TRIGGER audit_logs_delete; DROP TRIGGER audit_logs_insert; \
             DROP TABLE audit_chain; DROP TABLE token_jobs; DROP TABLE access_tokens; DROP TABLE login_attempts; \
             DROP INDEX ix_audit_actor; ALTER TABLE audit_logs DROP COLUMN actor; \
             ALTER TABLE audit_logs DROP COLUMN previous_hash; ALTER TABLE audit_logs DROP COLUMN hash; \
             DELETE FROM oma_migrations WHERE version = 8"
        }
        Kind::Server(ServerEngine::MariaDb) => {
            "DROP TRIGGER audit_logs_update; DROP TRIGGER audit_logs_delete; \
             DROP TABLE audit_chain, token_jobs, access_tokens, login_attempts; ALTER TABLE audit_logs \
             DROP KEY ix_audit_actor, DROP COLUMN actor, DROP COLUMN previous_hash, DROP COLUMN hash; \
             DELETE FROM oma_migrations WHERE version = 8"
        }
        Kind::Server(ServerEngine::Postgres) => {
            "DROP TRIGGER audit_logs_keep ON audit_logs; DROP TRIGGER audit_logs_truncate ON audit_logs; \
             DROP TABLE audit_chain, token_jobs, access_tokens, login_attempts; DROP FUNCTION oma_keep_audit_logs(); \
             DROP FUNCTION oma_keep_audit_chain(); ALTER TABLE audit_logs DROP COLUMN actor, \
             DROP COLUMN previous_hash, DROP COLUMN hash; DELETE FROM oma_migrations WHERE version = 8"
        }
    }
}

/// Takes all steps behind a version back.
pub(crate) fn to_version(version: i64, kind: Kind) -> String {
    let steps = [
        (12, twelve_to_11(kind)),
        (11, ELEVEN_TO_10),
        (10, TEN_TO_9),
        (9, NINE_TO_8),
        (8, eight_to_7(kind)),
        (7, seven_to_6(kind)),
        (6, SIX_TO_5),
    ];
    let behind: Vec<_> = steps.iter().filter(|(step, _)| *step > version).map(|(_, back)| *back).collect();
    behind.join("; ")
}

/// Takes step 7 back.
const fn seven_to_6(kind: Kind) -> &'static str {
    match kind {
        // Its text makes the table anew, whatever columns that has.
        Kind::Sqlite => {
            "ALTER TABLE ossea_volumes DROP COLUMN held_epoch; DELETE FROM oma_migrations WHERE version = 7"
        }
        Kind::Server(ServerEngine::MariaDb) => {
            "ALTER TABLE ossea_volumes DROP COLUMN held_epoch; ALTER TABLE volume_operations \
             DROP FOREIGN KEY fk_volume_operations_volume, DROP FOREIGN KEY fk_volume_operations_made, \
             DROP FOREIGN KEY fk_volume_operations_disk, DROP COLUMN due_at; DELETE FROM oma_migrations WHERE version = 7"
        }
        Kind::Server(ServerEngine::Postgres) => {
            "ALTER TABLE ossea_volumes DROP COLUMN held_epoch; ALTER TABLE volume_operations DROP COLUMN unfinished, \
             DROP COLUMN due_at, DROP COLUMN snapshot_id, DROP COLUMN provisioning, DROP COLUMN volume_name; \
             DROP INDEX ix_operations_created; CREATE UNIQUE INDEX ux_operations_unfinished \
             ON volume_operations (vm_context_id, disk_id) WHERE status IN ('pending', 'executing'); \
             DELETE FROM oma_migrations WHERE version = 7"
        }
    }
}

/// Takes step 6 back.
const SIX_TO_5: &str = "ALTER TABLE replication_jobs DROP COLUMN kind; \
     ALTER TABLE vm_disks DROP COLUMN committed_bytes; ALTER TABLE vm_disks DROP COLUMN zeroes_broken; \
     DELETE FROM oma_migrations WHERE version = 6";
/// As a crash in the middle of step 6 leaves it where each definition is kept: some of its columns are there, or all.
const HALF_WAY_TO_6: [&str; 4] = [
    "ALTER TABLE replication_jobs DROP COLUMN kind; DELETE FROM oma_migrations WHERE version = 6",
    "ALTER TABLE vm_disks DROP COLUMN committed_bytes; ALTER TABLE vm_disks DROP COLUMN zeroes_broken; \
     DELETE FROM oma_migrations WHERE version = 6",
    "ALTER TABLE vm_disks DROP COLUMN zeroes_broken; DELETE FROM oma_migrations WHERE version = 6",
    "DELETE FROM oma_migrations WHERE version = 6",
];
/// As one in the middle of step 7 does: a new table half filled, or the old one not yet gone.
const HALF_WAY_TO_7: [&str; 3] = [
    "CREATE TABLE volume_operations_2 (id INT); ALTER TABLE volume_operations \
     DROP FOREIGN KEY fk_volume_operations_volume, DROP FOREIGN KEY fk_volume_operations_made, \
     DROP FOREIGN KEY fk_volume_operations_disk, DROP COLUMN due_at; DELETE FROM oma_migrations WHERE version = 7",
    "CREATE TABLE volume_operations_1 (id INT); DELETE FROM oma_migrations WHERE version = 7",
    "DELETE FROM oma_migrations WHERE version = 7",
];

/// As one in the middle of step 8 does: its columns are not there yet, its triggers are not, or all is.
const HALF_WAY_TO_8: [&str; 3] = [
    "ALTER TABLE audit_logs DROP KEY ix_audit_actor, DROP COLUMN actor, DROP COLUMN previous_hash, DROP COLUMN hash; \
     DROP TRIGGER audit_logs_update; DROP TRIGGER audit_logs_delete; DROP TRIGGER audit_chain_update; \
     DROP TRIGGER audit_chain_delete; DELETE FROM oma_migrations WHERE version = 8",
    "DROP TRIGGER audit_chain_update; DROP TRIGGER audit_chain_delete; DELETE FROM oma_migrations WHERE version = 8",
    "DELETE FROM oma_migrations WHERE version = 8",
];

/// As one in the middle of step 9 does: some of its columns are there, or all.
const HALF_WAY_TO_9: [&str; 3] = [
    "ALTER TABLE replication_jobs DROP COLUMN wanted; ALTER TABLE replication_jobs DROP COLUMN progress; \
     DELETE FROM oma_migrations WHERE version = 9",
    "ALTER TABLE replication_jobs DROP COLUMN progress; DELETE FROM oma_migrations WHERE version = 9",
    "DELETE FROM oma_migrations WHERE version = 9",
];

async fn upgraded(kind: Kind) {
    let place = Place::migrated(kind).await;
    let store = place.open().await.unwrap();
    replicated(&store, "web").await;
    let (_, spec) = recorded(&store, "db").await;
    store.insert(spec).await.unwrap();
    store.close().await;
    let mut hand = place.hand().await;
    // Version 5 knew neither.
    hand.execute("UPDATE vm_disks SET committed_bytes = NULL; UPDATE volume_operations SET worker = NULL")
        .await
        .unwrap();
    let before = exported(&place).await;
    let mut earlier: Vec<_> = (5..12).rev().map(|version| (version, to_version(version, kind))).collect();
    if let Kind::Server(ServerEngine::MariaDb) = kind {
        let half_ways: [(i64, &[&str]); 7] = [
            (6, &HALF_WAY_TO_6),
            (7, &HALF_WAY_TO_7),
            (8, &HALF_WAY_TO_8),
            (9, &HALF_WAY_TO_9),
            (10, &["DELETE FROM oma_migrations WHERE version = 10"]),
            (11, &HALF_WAY_TO_11),
            (12, &HALF_WAY_TO_12),
        ];
        for (step, half_ways) in half_ways {
            let to_step = to_version(step, kind);
            let before = if to_step.is_empty() { String::new() } else { format!("{to_step}; ") };
            earlier.extend(half_ways.iter().map(|half_way| (step - 1, format!("{before}{half_way}"))));
        }
    }
    for (version, earlier) in earlier {
        // A connection of SQLite learns only so that another one changed the schema.
        hand.number("SELECT COUNT(*) FROM oma_migrations").await;
        hand.execute(&earlier).await.unwrap();
        let found = SqlStore::schema(&place.config()).await.unwrap();
        assert_eq!(found, Schema { found: Some(version), needed: 12 });
        assert!(exported(&place).await == before, "{earlier}");
    }
}

/// All that is in a database once it was opened.
async fn exported(place: &Place) -> String {
    let (store, mut bytes) = (place.open().await.unwrap(), Vec::new());
    store.export_database(&mut bytes).await.unwrap();
    store.close().await;
    String::from_utf8(bytes).unwrap()
}

fn server(kind: Kind) -> ServerEngine {
    let Kind::Server(engine) = kind else { unreachable!("a test of servers") };
    engine
}

/// The URL as another user.
fn as_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, host) = rest.split_once('@').unwrap();
    format!("{scheme}://{user}@{host}")
}

async fn refused(url: String, kind: ErrorKind) {
    let config = StoreConfig { url, ..StoreConfig::default() };
    for error in [SqlStore::open(&config).await.unwrap_err(), SqlStore::schema(&config).await.unwrap_err()] {
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Never), "{}", told(&error));
        assert!(!told(&error).contains("s3cret"), "{}", told(&error));
    }
}

async fn denied(kind: Kind) {
    let place = Place::empty(kind).await;
    refused(as_user(&place.config().url, "nobody-of-ours:s3cret"), ErrorKind::PermissionDenied).await;
}

async fn absent(kind: Kind) {
    let server = Server::shared(server(kind)).await.unwrap();
    refused(server.url("never_made"), ErrorKind::NotFound).await;
}

async fn away(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    let url = match server(kind) {
        ServerEngine::MariaDb => format!("mysql://oma:s3cret@localhost/oma?socket={folder}/none"),
        ServerEngine::Postgres => format!("postgres://oma:s3cret@localhost/oma?host={folder}"),
    };
    let error = SqlStore::open(&StoreConfig { url, ..StoreConfig::default() }).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later), "{}", told(&error));
    assert!(!told(&error).contains("s3cret"), "{}", told(&error));
}

async fn reading_user(kind: Kind) {
    let place = Place::migrated(kind).await;
    let Place::Server(database) = &place else { unreachable!("a test of servers") };
    let name = database.name();
    let rights = match server(kind) {
        ServerEngine::MariaDb => format!(
            "CREATE OR REPLACE USER 'reader'@'%' IDENTIFIED BY 's3cret'; GRANT SELECT ON {name}.* TO 'reader'@'%'"
        ),
        ServerEngine::Postgres => {
            "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
            GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"
                .to_owned()
        }
    };
    place.hand().await.execute(&rights).await.unwrap();
    let config = StoreConfig { url: as_user(&place.config().url, "reader:s3cret"), ..StoreConfig::default() };
    let error = SqlStore::open(&config).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::PermissionDenied, Retry::Never),
        "{}",
        told(&error)
    );
    let store = SqlStore::open_read_only(&config).await.unwrap();
    store.instance().await.unwrap();
    store.close().await;
}

/// As a crash leaves it: MariaDB keeps each definition, PostgreSQL none.
async fn half_migrated(kind: Kind) {
    let place = Place::migrated(kind).await;
    let mut hand = place.hand().await;
    match server(kind) {
        ServerEngine::MariaDb => {
            hand.execute(
                "DELETE FROM oma_migrations WHERE version >= 2; DELETE FROM oma_meta; DROP TABLE tickets, disk_journal_parts, verification_reports, recovery_points",
            )
            .await
            .unwrap();
        }
        ServerEngine::Postgres => {
            hand.execute("BEGIN; DROP TABLE tickets; DELETE FROM oma_migrations").await.unwrap();
            drop(hand);
        }
    }
    let store = place.open().await.unwrap();
    store.instance().await.unwrap();
    place.hand().await.execute("DELETE FROM tickets").await.unwrap();
    assert_eq!(SqlStore::schema(&place.config()).await.unwrap(), Schema { found: Some(12), needed: 12 });
    store.close().await;
}
