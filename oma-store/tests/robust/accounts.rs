//! Users who may not: wrong passwords, no right to write, servers that take no writes.

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use oma_core::conformance::{self, Trial};
use oma_core::traits::{Inventory, JobStore};
use oma_core::{Error, ErrorKind, Retry};
use oma_store::servers::{Database, Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};

use crate::fixture::{begun, job_of, source_vm};

const SECRET: &str = "s3cr#t%7";
const RIGHT: &str = "s3cr%23t%257";
const WRONG: &str = "wr0ng-s3cr%23t";

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for engine in ServerEngine::ALL {
        let mut add = |name: &str, run: fn(ServerEngine) -> BoxFuture<'static, ()>| {
            let needs = [engine.private_required()];
            trials.push(conformance::trial(&format!("{engine}::{name}"), &needs, move || run(*engine)));
        };
        add("l29_a_wrong_password_is_permission_denied_and_never_shown", |engine| Box::pin(password(engine)));
        add("a_user_who_may_only_read_reads", |engine| Box::pin(reader(engine)));
        add("a_server_that_takes_no_writes_is_permission_denied", |engine| Box::pin(read_only(engine)));
    }
    let needs = [ServerEngine::Postgres.private_required()];
    let name = "postgres::a_frozen_database_is_permission_denied";
    trials.push(conformance::trial(name, &needs, frozen));
    trials
}

/// A server of its own: users, and whether it takes writes, are the whole server's.
async fn own(engine: ServerEngine) -> (Server, Database) {
    let server = Server::start(engine, ServerOptions::default()).await.unwrap();
    let database = server.create_database().await.unwrap();
    let store = open(&database.url()).await.unwrap();
    begun(&store, "web").await;
    store.close().await;
    if engine == ServerEngine::Postgres {
        // Everybody else must show a password.
        let file = server.folder().unwrap().join("data/pg_hba.conf");
        let rules = "local all postgres trust\nlocal all all scram-sha-256\n";
        std::fs::write(file, rules).unwrap();
        server.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
    }
    (server, database)
}

async fn open(url: &str) -> Result<SqlStore, Error> {
    SqlStore::open(&StoreConfig { url: url.to_owned(), ..StoreConfig::default() }).await
}

/// The URL of a database as `oma`, with this password.
fn url(database: &Database, password: &str) -> String {
    let url = database.url();
    let (scheme, rest) = url.split_once("://").unwrap();
    format!("{scheme}://oma:{password}@{}", rest.split_once('@').unwrap().1)
}

/// Makes the user `oma`, with these rights.
async fn user(database: &Database, rights: &str) {
    let name = database.name();
    let text = match database.server().engine() {
        ServerEngine::MariaDb => {
            format!(
                "CREATE USER oma@localhost IDENTIFIED BY '{SECRET}'; GRANT {rights} ON {name}.* TO oma@localhost"
            )
        }
        ServerEngine::Postgres => {
            format!(
                "CREATE ROLE oma LOGIN PASSWORD '{SECRET}'; GRANT {rights} ON ALL TABLES IN SCHEMA public TO oma"
            )
        }
    };
    database.execute(&text).await.unwrap();
}

async fn password(engine: ServerEngine) {
    let (_server, database) = own(engine).await;
    user(&database, "ALL").await;
    let configs =
        [(url(&database, WRONG), "oma"), (url(&database, RIGHT).replace("oma:", "nobody:"), "nobody")];
    for (url, who) in configs {
        let config = StoreConfig { url, ..StoreConfig::default() };
        for error in [
            SqlStore::open(&config).await.unwrap_err(),
            SqlStore::open_read_only(&config).await.unwrap_err(),
            SqlStore::schema(&config).await.unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.retry()),
                (ErrorKind::PermissionDenied, Retry::Never),
                "{}",
                error.chain()
            );
            for shown in [error.chain(), format!("{error}"), format!("{error:?}"), format!("{config:?}")] {
                assert!(!shown.contains("s3cr"), "{shown}");
            }
            assert!(error.chain().contains(who), "{}", error.chain());
        }
    }
    let store = open(&url(&database, RIGHT)).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(!format!("{store:?}").contains("s3cr"));
    assert_eq!(vms(&store).await, 1);
}

async fn vms(store: &SqlStore) -> usize {
    store.contexts(None).try_collect::<Vec<_>>().await.unwrap().len()
}

fn assert_denied(error: &Error) {
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::PermissionDenied, Retry::Never),
        "{}",
        error.chain()
    );
}

async fn reader(engine: ServerEngine) {
    let (_server, database) = own(engine).await;
    user(&database, "SELECT").await;
    let config = StoreConfig { url: url(&database, RIGHT), ..StoreConfig::default() };
    assert_denied(&SqlStore::open(&config).await.unwrap_err());
    let store = SqlStore::open_read_only(&config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(vms(&store).await, 1);
    assert_denied(&Inventory::record(&store, &source_vm("db")).await.unwrap_err());
}

/// A server becomes one that only reads while a store is open: MariaDB by a setting, PostgreSQL as a standby.
async fn read_only(engine: ServerEngine) {
    let (server, database) = own(engine).await;
    user(&database, "ALL").await;
    let config = StoreConfig { url: url(&database, RIGHT), ..StoreConfig::default() };
    if engine == ServerEngine::Postgres {
        database.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO oma").await.unwrap();
    }
    let store = SqlStore::open(&config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    let vm = Inventory::record(&store, &source_vm("db")).await.unwrap();
    match engine {
        ServerEngine::MariaDb => server.execute("mysql", "SET GLOBAL read_only = 1").await.unwrap(),
        ServerEngine::Postgres => {
            server.stop().await.unwrap();
            std::fs::write(server.folder().unwrap().join("data/standby.signal"), "").unwrap();
            server.restart().await.unwrap();
        }
    }
    // The connections that the server closed are noticed, one call each at the most.
    let mut refused = store.insert(job_of(&vm)).await.unwrap_err();
    while refused.kind() == ErrorKind::Unavailable {
        refused = store.insert(job_of(&vm)).await.unwrap_err();
    }
    assert_denied(&refused);
    assert_denied(&SqlStore::open(&config).await.unwrap_err());
    assert_eq!(vms(&store).await, 2);
    let reader = SqlStore::open_read_only(&config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(vms(&reader).await, 2);
    match engine {
        ServerEngine::MariaDb => server.execute("mysql", "SET GLOBAL read_only = 0").await.unwrap(),
        ServerEngine::Postgres => server.execute("postgres", "SELECT pg_promote()").await.unwrap(),
    }
    store.insert(job_of(&vm)).await.unwrap_or_else(|error| panic!("{}", error.chain()));
}

/// An operator has a database take no writes for a while.
async fn frozen() {
    let (server, database) = own(ServerEngine::Postgres).await;
    let set = async |value: &str| {
        let text = format!("ALTER DATABASE {} SET default_transaction_read_only = {value}", database.name());
        server.execute("postgres", &text).await.unwrap();
    };
    set("on").await;
    let config = StoreConfig { url: database.url(), ..StoreConfig::default() };
    assert_denied(&SqlStore::open(&config).await.unwrap_err());
    let reader = SqlStore::open_read_only(&config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(vms(&reader).await, 1);
    set("off").await;
    let store = SqlStore::open(&config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    Inventory::record(&store, &source_vm("db")).await.unwrap();
}
