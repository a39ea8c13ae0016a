//! What can go wrong with a database: told for what it is, never half done, tried again only where that helps.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod accounts;
mod crash;
mod damage;
#[path = "../sqlite/fixture.rs"]
#[allow(dead_code, reason = "the tests of SQLite need more of it")]
mod fixture;
mod limits;
mod opening;
#[path = "../place/mod.rs"]
mod place;
mod processes;
mod rows;
mod waiting;
mod writer;

use std::process::ExitCode;

use futures_util::future::BoxFuture;
use oma_core::conformance::{self, Trial};
use oma_core::record::{JobSpec, SourceDisk, SourceIdentity, SourceVm, VmContext};
use oma_core::state::ReplicationType;
use oma_core::traits::Inventory;
use oma_core::{
    ByteSize, Clock, DiskKey, Endpoint, Error, InstanceUuid, JobId, SystemClock, VmPath, WorkerId,
};
use oma_store::SqlStore;

use place::Kind;

/// A test on one engine.
type Test = (&'static str, fn(Kind) -> BoxFuture<'static, ()>);

fn main() -> ExitCode {
    if let Ok(url) = std::env::var(processes::CHILD) {
        processes::child(url);
        return ExitCode::SUCCESS;
    }
    if let Ok(url) = std::env::var(crash::CHILD) {
        crash::child(url);
        return ExitCode::SUCCESS;
    }
    let all: Vec<Test> = [opening::TESTS, rows::TESTS].concat();
    let everywhere = Kind::ALL.iter().flat_map(|kind| trials(*kind, &all));
    let servers = Kind::ALL.iter().filter(|kind| matches!(kind, Kind::Server(_)));
    let on_servers =
        servers.flat_map(|kind| trials(*kind, &[opening::ON_SERVERS, waiting::ON_SERVERS].concat()));
    let others =
        [accounts::trials(), crash::trials(), damage::trials(), limits::trials(), processes::trials()];
    conformance::run(everywhere.chain(on_servers).chain(others.into_iter().flatten()).collect())
}

fn trials(kind: Kind, tests: &[Test]) -> Vec<Trial> {
    let one = |(name, run): &Test| {
        let run = *run;
        conformance::trial(&format!("{kind}::{name}"), &[kind.required()], move || run(kind))
    };
    tests.iter().map(one).collect()
}

fn vm(name: &str, label: &str) -> SourceVm {
    let path = VmPath::parse(format!("/DC/vm/{name}")).unwrap();
    let identity = SourceIdentity {
        instance_uuid: InstanceUuid::from_path(&path),
        endpoint: Endpoint::parse("vcenter.example").unwrap(),
    };
    let disk = SourceDisk {
        key: key(),
        label: label.to_owned(),
        location: format!("[ds1] {name}.vmdk"),
        capacity: ByteSize::mib(64),
        unit_number: Some(0),
    };
    SourceVm { identity, name: name.to_owned(), path, disks: vec![disk] }
}

fn key() -> DiskKey {
    DiskKey::parse("disk-2000").unwrap()
}

fn worker() -> WorkerId {
    WorkerId::parse("appliance-1").unwrap()
}

async fn recorded(store: &SqlStore, name: &str) -> (VmContext, JobSpec) {
    let context = store.record(&vm(name, "")).await.unwrap();
    let id = JobId::mint(SystemClock.now());
    (context.clone(), JobSpec::new(id, context.id, ReplicationType::Initial, vec![key()]))
}

/// All that an error tells anybody.
fn told(error: &Error) -> String {
    format!("{error} {error:?} {}", error.chain())
}
