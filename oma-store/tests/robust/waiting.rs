//! Others who are in the way: locks, deadlocks, connections that are all in use.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all, poll_immediate};
use oma_core::state::JobKind;
use oma_core::traits::JobStore;
use oma_core::{ErrorKind, Retry};
use oma_store::servers::ServerEngine;
use oma_store::{SqlStore, StoreConfig};

use crate::place::{Hand, Kind, Place};
use crate::{Test, opening, recorded, told, worker};

pub(crate) const ON_SERVERS: &[Test] = &[
    ("a_deadlock_is_decided_anew", |kind| Box::pin(deadlock(kind))),
    ("a_lock_that_is_not_given_back_is_busy_in_time", |kind| Box::pin(locked(kind))),
    ("a_schema_step_that_a_reader_keeps_from_its_table_ends_in_time", |kind| Box::pin(kept_from(kind))),
    ("a_pool_that_is_used_up_is_busy_in_time", |kind| Box::pin(used_up(kind))),
    ("a_connection_that_was_cut_is_replaced", |kind| Box::pin(cut(kind))),
];

const TTL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(1);

/// The store waits for us, then we for it. Whomever the server picks, the store's change is made in the end.
async fn deadlock(kind: Kind) {
    let place = Place::migrated(kind).await;
    let store = place.open().await.unwrap();
    let (context, spec) = recorded(&store, "web").await;
    let mut hand = place.hand().await;
    // Much work, so that MariaDB would rather undo the store's.
    let others = (0..50).map(|n| format!("UPDATE oma_meta SET value = '{n}' WHERE name = 'x{n}';"));
    let rows = (0..50).map(|n| format!("INSERT INTO oma_meta (name, value) VALUES ('x{n}', '');"));
    hand.execute(&rows.collect::<String>()).await.unwrap();
    hand.execute("BEGIN").await.unwrap();
    hand.execute(&others.collect::<String>()).await.unwrap();
    hand.execute("UPDATE vm_disks SET label = 'ours'").await.unwrap();
    let insert = tokio::spawn({
        let store = store.clone();
        async move { store.insert(spec).await }
    });
    blocked(&place, kind).await;
    let cross =
        format!("UPDATE vm_replication_contexts SET vm_name = 'ours' WHERE context_id = '{}'", context.id);
    let crossed = hand.execute(&cross).await;
    hand.execute(if crossed.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
    let job = insert.await.unwrap().unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(store.live(&context.id).await.unwrap(), Some(job));
    store.close().await;
}

/// Waits until somebody waits for a lock.
async fn blocked(place: &Place, kind: Kind) {
    let probe = match kind {
        Kind::Server(ServerEngine::Postgres) => "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted) \
            THEN RAISE 'nobody waits'; END IF; END $$"
            .to_owned(),
        _ => "BEGIN NOT ATOMIC IF NOT EXISTS (SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT') \
            THEN SIGNAL SQLSTATE '45000'; END IF; END"
            .to_owned(),
    };
    let (mut hand, begun) = (place.hand().await, Instant::now());
    while hand.execute(&probe).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits for a lock");
        // InnoDB looks anew when nobody looked for a tenth of a second.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// A store that waits a second, a job in it that it drives, and a connection that holds the job's row.
async fn held(place: &Place, connections: u32) -> (SqlStore, oma_core::record::Lease, Hand) {
    let config = StoreConfig { busy_timeout: PATIENCE, connections, ..place.config() };
    let store = SqlStore::open(&config).await.unwrap();
    let (_, spec) = recorded(&store, "web").await;
    let job = store.insert(spec).await.unwrap();
    let lease = store.claim(&job.id, &worker(), TTL).await.unwrap();
    let mut hand = place.hand().await;
    hand.execute("BEGIN").await.unwrap();
    hand.execute("UPDATE replication_jobs SET target_network = 'ours'").await.unwrap();
    (store, lease, hand)
}

async fn locked(kind: Kind) {
    let place = Place::migrated(kind).await;
    let (store, lease, mut hand) = held(&place, 4).await;
    let begun = Instant::now();
    let error = store.renew(&lease, TTL).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", told(&error));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    hand.execute("COMMIT").await.unwrap();
    store.renew(&lease, TTL).await.unwrap();
    store.close().await;
}

/// A reader's transaction keeps the table as it is, and whoever comes behind the schema step waits for both.
async fn kept_from(kind: Kind) {
    let place = Place::migrated(kind).await;
    let store = place.open().await.unwrap();
    let (_, spec) = recorded(&store, "web").await;
    let job = store.insert(spec).await.unwrap();
    let lease = store.claim(&job.id, &worker(), TTL).await.unwrap();
    let mut hand = place.hand().await;
    hand.execute(&opening::to_version(5, kind)).await.unwrap();
    hand.execute("BEGIN").await.unwrap();
    assert_eq!(hand.number("SELECT COUNT(*) FROM replication_jobs").await, 1);
    let begun = Instant::now();
    let config = StoreConfig { busy_timeout: PATIENCE, ..place.config() };
    let upgrade = tokio::spawn(async move { SqlStore::open(&config).await });
    let mut renewed = 0;
    while !upgrade.is_finished() {
        store.renew(&lease, TTL).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        renewed += 1;
    }
    let error = upgrade.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", told(&error));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(renewed > 0, "the job went on meanwhile");
    hand.execute("COMMIT").await.unwrap();
    place.open().await.unwrap().close().await;
    store.renew(&lease, TTL).await.unwrap();
    assert_eq!(store.get(&job.id).await.unwrap().unwrap().kind, JobKind::Replicate);
    store.close().await;
}

/// The only connection waits for the row, and so does whoever gets it next: there is none for the last in the line.
async fn used_up(kind: Kind) {
    let place = Place::migrated(kind).await;
    let (store, lease, mut hand) = held(&place, 1).await;
    let first = {
        let (store, lease) = (store.clone(), lease.clone());
        tokio::spawn(async move { store.renew(&lease, TTL).await })
    };
    blocked(&place, kind).await;
    let mut line: Vec<_> = (0..20).map(|_| Box::pin(store.renew(&lease, TTL))).collect();
    for waiting in &mut line {
        // Polled once, it stands in the line.
        assert!(poll_immediate(waiting).await.is_none());
    }
    let (last, line) = join(store.get(&lease.job), join_all(line)).await;
    let mut refused = vec![last.expect_err("no connection was free")];
    refused.push(first.await.unwrap().expect_err("the row was not free"));
    refused.extend(line.into_iter().map(|renewed| renewed.expect_err("the row was not free")));
    for error in refused {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", told(&error));
    }
    hand.execute("COMMIT").await.unwrap();
    store.renew(&lease, TTL).await.unwrap();
    store.close().await;
}

async fn cut(kind: Kind) {
    let place = Place::migrated(kind).await;
    let store = place.open().await.unwrap();
    let (_, spec) = recorded(&store, "web").await;
    let job = store.insert(spec).await.unwrap();
    let cut = match kind {
        Kind::Server(ServerEngine::Postgres) => {
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()"
        }
        _ => {
            "BEGIN NOT ATOMIC DECLARE victim BIGINT; \
             DECLARE all_others CURSOR FOR SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID(); \
             DECLARE EXIT HANDLER FOR NOT FOUND BEGIN END; OPEN all_others; \
             LOOP FETCH all_others INTO victim; EXECUTE IMMEDIATE CONCAT('KILL ', victim); END LOOP; END"
        }
    };
    place.hand().await.execute(cut).await.unwrap();
    // Within the second in which a connection is taken to be there, the caller may see it gone; not more often than there
    // are connections.
    let mut failed = 0;
    let found = loop {
        match store.get(&job.id).await {
            Ok(found) => break found,
            Err(error) => {
                let expected = (ErrorKind::Unavailable, Retry::Later);
                assert_eq!((error.kind(), error.retry()), expected, "{}", told(&error));
                failed += 1;
                assert!(failed <= StoreConfig::default().connections, "{}", told(&error));
            }
        }
    };
    assert_eq!(found, Some(job));
    store.close().await;
}
