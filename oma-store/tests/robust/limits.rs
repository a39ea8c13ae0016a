//! A server that gives out no more connections, and URLs that lead nowhere.

use std::time::Duration;

use oma_core::conformance::{self, Trial};
use oma_core::traits::Inventory;
use oma_core::{Error, ErrorKind, Retry};
use oma_store::servers::{Server, ServerEngine, ServerOptions};
use oma_store::{SqlStore, StoreConfig};

use crate::fixture::begun;
use crate::place::Place;

pub(crate) fn trials() -> Vec<Trial> {
    let one = |engine: &ServerEngine| {
        let engine = *engine;
        let name = format!("{engine}::a_server_without_a_free_connection_is_asked_again_later");
        conformance::trial(&name, &[engine.private_required()], move || full(engine))
    };
    let url = conformance::trial("url::one_without_a_database_is_invalid", &[], unnamed);
    ServerEngine::ALL.iter().map(one).chain([url]).collect()
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::Unavailable) && error.retry() == Retry::Later
}

async fn full(engine: ServerEngine) {
    let arguments = match engine {
        ServerEngine::MariaDb => vec!["--max-connections=10".to_owned()],
        ServerEngine::Postgres => ["-c", "max_connections=10"].map(str::to_owned).to_vec(),
    };
    let server =
        Server::start(engine, ServerOptions { arguments, ..ServerOptions::default() }).await.unwrap();
    let place = Place::Server(server.create_database().await.unwrap());
    let config = StoreConfig { busy_timeout: Duration::from_secs(1), ..place.config() };
    let store = SqlStore::open(&config).await.unwrap();
    let (vm, _) = begun(&store, "web").await;
    store.close().await;
    let store = SqlStore::open(&config).await.unwrap();
    let mut hands = Vec::new();
    while let Ok(hand) = place.try_hand().await {
        hands.push(hand);
    }
    // Of PostgreSQL's refusals the pool tells only that it got no connection.
    let error = store.context(&vm.id).await.unwrap_err();
    assert!(is_passing(&error), "{}", error.chain());
    let error = SqlStore::open(&config).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Busy, Retry::Later), "{}", error.chain());
    hands.clear();
    // A server needs a moment to see that they are gone.
    while let Err(error) = store.context(&vm.id).await {
        assert!(is_passing(&error), "{}", error.chain());
    }
}

async fn unnamed() {
    for url in [
        "mysql://oma@localhost",
        "mysql://oma@localhost/",
        "mysql://oma@localhost/?socket=/run/mysqld/mysqld.sock",
        "postgres://oma@localhost",
        "postgres://oma@localhost/",
        "postgres:///?host=/run/postgresql",
        "mysql:oma",
        "postgres:oma",
        "oracle://oma@localhost/oma",
        "oma",
        "",
    ] {
        let config = StoreConfig { url: url.to_owned(), ..StoreConfig::default() };
        let error = SqlStore::open(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {}", error.chain());
    }
}
