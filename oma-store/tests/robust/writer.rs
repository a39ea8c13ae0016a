//! A writer that goes on whatever happens, and everything that it was told is done.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures_util::TryStreamExt;
use oma_core::record::{DiskRecord, JobFilter, JobSpec, ReplicationJob, SourceDisk, SourceVm};
use oma_core::state::{JobEvent, JobStatus, ReplicationType};
use oma_core::traits::{Inventory, JobStore};
use oma_core::{ContextId, DiskKey, Error, ErrorKind, JobId, Retry};
use oma_store::SqlStore;
use tokio::sync::RwLock;

use crate::fixture::{source_vm, worker};

/// What a writer was told is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Recorded(ContextId),
    Inserted(JobId),
    Advanced(JobId),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded(vm) => write!(f, "recorded {vm}"),
            Self::Inserted(job) => write!(f, "inserted {job}"),
            Self::Advanced(job) => write!(f, "advanced {job}"),
        }
    }
}

impl FromStr for Told {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let told = match line.split_once(' ') {
            Some(("recorded", vm)) => vm.parse().ok().map(Self::Recorded),
            Some(("inserted", job)) => job.parse().ok().map(Self::Inserted),
            Some(("advanced", job)) => job.parse().ok().map(Self::Advanced),
            _ => None,
        };
        told.ok_or_else(|| line.to_owned())
    }
}

fn vm(name: &str) -> SourceVm {
    let vm = source_vm(name);
    let second = SourceDisk { key: DiskKey::parse("disk-2001").unwrap(), ..vm.disks[0].clone() };
    SourceVm { disks: vec![vm.disks[0].clone(), second], ..vm }
}

/// Records a VM, inserts its job, claims it and brings it forward. Each call is one transaction; whatever it is told, it
/// makes the same call again until that is done. No call is under way while the gate is closed.
pub(crate) async fn write(store: &SqlStore, gate: &RwLock<()>, name: &str, told: impl Fn(Told)) {
    let vm = vm(name);
    let context = again(gate, || Inventory::record(store, &vm)).await.id;
    told(Told::Recorded(context.clone()));
    let id: JobId = format!("job-{name}").parse().unwrap();
    let disks = vm.disks.iter().map(|disk| disk.key.clone()).collect();
    let spec = JobSpec::new(id.clone(), context, ReplicationType::Initial, disks);
    again(gate, || store.insert(spec.clone())).await;
    told(Told::Inserted(id.clone()));
    let name = worker();
    let lease = again(gate, || store.claim(&id, &name, Duration::from_secs(60))).await;
    again(gate, || async {
        match store.advance(&lease, JobStatus::Initializing, JobEvent::Provision).await {
            // It was done before the answer was lost.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            advanced => advanced.map(drop),
        }
    })
    .await;
    told(Told::Advanced(id));
}

/// A server that is away is all that a caller may be told of, and that it should come back.
async fn again<T, F: Future<Output = Result<T, Error>>>(gate: &RwLock<()>, call: impl Fn() -> F) -> T {
    loop {
        let answer = {
            let _open = gate.read().await;
            call().await
        };
        match answer {
            Ok(done) => return done,
            Err(error) => {
                let away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy);
                assert!(away && error.retry() == Retry::Later, "{error:?}: {}", error.chain());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// All that was told is there, and nothing is there by half.
pub(crate) async fn verify(store: &SqlStore, all: &[Told]) {
    for told in all {
        match told {
            Told::Recorded(vm) => assert!(store.context(vm).await.unwrap().is_some(), "{told}"),
            Told::Inserted(job) => assert!(store.get(job).await.unwrap().is_some(), "{told}"),
            Told::Advanced(job) => {
                let job = store.get(job).await.unwrap().unwrap();
                assert_eq!(job.status, JobStatus::Provisioning, "{told}");
            }
        }
    }
    let jobs: Vec<_> = store.list(JobFilter::default()).try_collect().await.unwrap();
    let vms: Vec<_> = store.contexts(None).try_collect().await.unwrap();
    for vm in vms {
        let disks = store.disks(&vm.id).await.unwrap();
        let job = jobs.iter().find(|job| job.context == vm.id);
        assert!(is_whole(&disks, job), "{vm:?} {disks:?} {job:?}");
        assert_eq!(vm.current_job.as_ref(), job.map(|job| &job.id));
    }
    assert_eq!(store.check().await.unwrap(), []);
}

fn is_whole(disks: &[DiskRecord], job: Option<&ReplicationJob>) -> bool {
    let id = job.map(|job| &job.id);
    disks.len() == 2
        && disks.iter().all(|disk| disk.job.as_ref() == id)
        && job.is_none_or(|job| job.disks.len() == 2)
}
