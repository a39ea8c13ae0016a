//! The process dies at any moment of a volume's life, and another one goes on (L15).

use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use oma_core::conformance::{self, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Durability, VolumeBackend, VolumeSpec};
use oma_core::{Generation, Result, VolumeId};
use oma_volume::cloudstack::{Account, CloudStackBackend};

use super::{ACCOUNTS, Bench, insist};

pub(crate) fn trials() -> Vec<Trial> {
    let of = |account: &str, rest: &str| format!("cloudstack_{account}::l15_killed_{rest}");
    let [root, user] =
        ["root", "user"].map(|account| of(account, "after_any_request_nothing_is_lost_or_left"));
    let lossy = of("user", "while_answers_are_lost_nothing_is_lost_or_left");
    vec![
        conformance::trial(&root, &[], || after_each(Account::RootAdmin)),
        conformance::trial(&user, &[], || after_each(Account::Ordinary)),
        conformance::trial(&lossy, &[], || async {
            for (seed, account) in (1..=24).zip(ACCOUNTS.into_iter().cycle()) {
                killed(account, seed + 1, Some(seed)).await;
            }
        }),
    ]
}

async fn after_each(account: Account) {
    let requests = killed(account, u64::MAX, None).await;
    assert!(requests > 20, "{requests}");
    for after in 1..=requests {
        killed(account, after, None).await;
    }
}

/// Lives until so many requests arrived, is dropped wherever it is, and is lived to its end by the other handle. How many
/// requests there were.
async fn killed(account: Account, after: u64, losses: Option<u64>) -> u64 {
    let bench = Bench::new(account).await;
    let (foreign, theirs) = bench.created().await;
    bench.fake.take_calls();
    if let Some(seed) = losses {
        bench.fake.lose_per_mille(80, seed);
    }
    let (spec, record) = (bench.spec(), Mutex::default());
    tokio::select! {
        biased;
        () = arrived(&bench, after) => {}
        () = live(&bench.backend, &spec, &record) => {}
    }
    live(&bench.second, &spec, &record).await;
    bench.fake.lose_per_mille(0, 0);
    let left = bench.fake.data_volumes();
    assert_eq!(left.len(), 1, "killed after {after} requests: {left:?}");
    assert_eq!(bench.backend.get(&foreign.id).await.unwrap().unwrap().tag, Some(theirs));
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1, "killed after {after} requests");
    bench.fake.take_calls()
}

async fn arrived(bench: &Bench, count: u64) {
    while bench.fake.all_calls() < count {
        tokio::task::yield_now().await;
    }
}

/// What a process leaves behind: the steps that are done, and the volume's id.
#[derive(Debug, Default)]
struct Record {
    done: usize,
    id: Option<VolumeId>,
}

/// Each step is recorded when it is done; the one that was cut is done again.
async fn live(backend: &CloudStackBackend, spec: &VolumeSpec, record: &Mutex<Record>) {
    let (mut step, id) = {
        let record = record.lock().unwrap();
        (record.done, record.id.clone())
    };
    let id = match id {
        Some(id) => id,
        None => insist(|| backend.create(spec)).await.id,
    };
    record.lock().unwrap().id = Some(id.clone());
    while step < 7 {
        once(backend, spec, &id, step).await;
        step += 1;
        record.lock().unwrap().done = step;
    }
}

async fn once(backend: &CloudStackBackend, spec: &VolumeSpec, id: &VolumeId, step: usize) {
    let generation = if step > 3 { Generation(2) } else { Generation::FIRST };
    let tag = &VolumeTag { generation, ..spec.tag.clone() };
    match step {
        0 | 4 => drop(insist(|| backend.attach(id, tag)).await),
        1 => insist(|| write(backend, id, tag)).await,
        2 => drop(insist(|| backend.detach(id, tag)).await),
        3 => {
            let next = VolumeTag { generation: Generation(2), ..tag.clone() };
            insist(|| backend.retag(id, &next)).await;
        }
        5 => assert!(insist(|| is_kept(backend, id, tag)).await, "what was written is there"),
        _ => insist(|| backend.delete(id, tag)).await,
    }
}

async fn write(backend: &CloudStackBackend, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
    let device = backend.open(id, tag, Access::ReadWrite).await?;
    device.write_at(4096, Bytes::from_static(b"content"), Durability::Durable).await
}

async fn is_kept(backend: &CloudStackBackend, id: &VolumeId, tag: &VolumeTag) -> Result<bool> {
    let device = backend.open(id, tag, Access::ReadOnly).await?;
    Ok(device.read_at(4096, BytesMut::zeroed(7)).await? == "content")
}
