//! The statements that the original system's documents show, to the letter, on MariaDB: each runs and gives the right rows.
//!
//! What a document leaves out (`...`) is filled in where the statement is run, and what it puts a variable or an example's id
//! for becomes the test's. A statement of which a later document says that it is gone is tried too, to see that it is.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod automation;
mod cleanup;
#[path = "../sqlite/fixture.rs"]
#[allow(dead_code, reason = "the tests of SQLite need more of it")]
mod fixture;
mod flow;
mod session;

use std::process::ExitCode;

use futures_util::future::BoxFuture;
use oma_core::conformance::{self, Trial};
use oma_store::servers::{Server, ServerEngine};
use oma_store::{SqlStore, StoreConfig};

use session::Session;

fn main() -> ExitCode {
    conformance::run(
        [flow::trials(), cleanup::trials(), automation::trials()].into_iter().flatten().collect(),
    )
}

/// A test with a database of its own: the store in it, and another program's connection.
pub(crate) fn trial(name: &str, run: fn(SqlStore, Session) -> BoxFuture<'static, ()>) -> Trial {
    conformance::trial(name, &[ServerEngine::MariaDb.required()], move || async move {
        let server = Server::shared(ServerEngine::MariaDb).await.unwrap();
        let database = server.create_database().await.unwrap();
        let config = StoreConfig { url: database.url(), ..StoreConfig::default() };
        let store = SqlStore::open(&config).await.unwrap();
        run(store, Session::connect(&config.url).await).await;
    })
}
