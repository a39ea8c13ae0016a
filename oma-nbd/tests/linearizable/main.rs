//! Many connections change one small export at once; every read is explained by some order of the calls.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod history;
#[path = "../raw/mod.rs"]
mod raw;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use oma_core::memory::MemoryDevice;
use oma_core::traits::{
    Access, BlockDevice, BlockStatus, DeviceInfo, Durability, InPlace, LeafHasher, Zeroing,
};
use oma_core::{ByteSize, Extent, Result};
use oma_nbd::{Client, ClientConfig, ServerConfig, Uri};
use oma_volume::device::FileDevice;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use history::History;
use raw::{Raw, Sockets};
use users::{BLOCK, BLOCKS, Plan, by_client, by_hand, read_all};

const SIZE: ByteSize = ByteSize::new(BLOCK * BLOCKS);

/// Calls of each user.
const CALLS: usize = 150;

async fn entered<S: AsyncRead + AsyncWrite + Unpin>(mut raw: Raw<S>, structured: bool) -> Raw<S> {
    raw.greet().await;
    match structured {
        true => raw.with_structured("disk", &[]).await,
        false => raw.with_simple("disk").await,
    }
}

/// Lets many users change the device at once through a server; what they saw.
async fn run(device: Arc<dyn BlockDevice>, seed: u64, trims: bool) -> History {
    let server = raw::server(ServerConfig::default(), device).await;
    let sockets = Sockets::new(&server).await;
    let plan = Arc::new(Plan::new(seed, CALLS, trims));
    let mut users = JoinSet::new();
    users.spawn(by_hand(plan.clone(), 1, entered(sockets.unix().await, false).await));
    users.spawn(by_hand(plan.clone(), 2, entered(sockets.unix().await, true).await));
    users.spawn(by_hand(plan.clone(), 3, entered(sockets.tcp().await, true).await));
    users.spawn(by_hand(plan.clone(), 4, Raw::simple(&server).await));
    let uri = Uri::unix(sockets.path(), "disk").unwrap();
    let client = Arc::new(Client::connect(&uri, ClientConfig::default()).await.unwrap());
    for user in 5..8 {
        users.spawn(by_client(plan.clone(), user, client.clone()));
    }
    let mut history = History::default();
    while let Some(seen) = users.join_next().await {
        history.merge(seen.unwrap());
    }
    history.merge(read_all(&plan, &client).await);
    Arc::into_inner(client).unwrap().close().await;
    sockets.close().await;
    history
}

fn memory() -> Arc<dyn BlockDevice> {
    Arc::new(MemoryDevice::new("m", SIZE))
}

async fn assert_linearizable(seed: u64, trims: bool, device: Arc<dyn BlockDevice>) {
    let history = run(device, seed, trims).await;
    assert!(history.len() > CALLS * 7, "the users did little: {}", history.len());
    if let Some((register, read)) = history.violation() {
        panic!("seed {seed}: no order explains {read:?} of register {register}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_read_of_memory_is_explained_by_some_order() {
    for seed in 1..=2 {
        assert_linearizable(seed, seed % 2 == 0, memory()).await;
    }
}

#[tokio::test]
async fn every_read_of_memory_is_explained_by_some_order_on_one_thread() {
    assert_linearizable(11, false, memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_read_of_a_file_is_explained_by_some_order() {
    for seed in 21..=22 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        std::fs::File::create(&path).unwrap().set_len(SIZE.bytes()).unwrap();
        let device = FileDevice::open(&path, Access::ReadWrite).await.unwrap();
        assert_linearizable(seed, seed % 2 == 0, Arc::new(device)).await;
    }
}

/// A device that now and then answers a read with what was there before, or forgets a write.
#[derive(Debug)]
struct Forgetful {
    inner: MemoryDevice,
    calls: AtomicU64,
    forgets_writes: bool,
}

#[async_trait]
impl BlockDevice for Forgetful {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    async fn read_at(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut> {
        let mut read = self.inner.read_at(offset, buffer).await?;
        if !self.forgets_writes && self.calls.fetch_add(1, Ordering::Relaxed) % 50 == 49 {
            read.fill(0);
        }
        Ok(read)
    }

    async fn write_at(&self, offset: u64, data: Bytes, durability: Durability) -> Result<()> {
        if self.forgets_writes && self.calls.fetch_add(1, Ordering::Relaxed) % 50 == 49 {
            return Ok(());
        }
        self.inner.write_at(offset, data, durability).await
    }

    async fn write_zeroes(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.inner.write_zeroes(extent, zeroing, durability).await
    }

    async fn zero_fast(&self, extent: Extent, zeroing: Zeroing, durability: Durability) -> Result<()> {
        self.inner.zero_fast(extent, zeroing, durability).await
    }

    async fn trim(&self, extent: Extent) -> Result<()> {
        self.inner.trim(extent).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn cache(&self, extent: Extent) -> Result<()> {
        self.inner.cache(extent).await
    }

    async fn block_status(&self, extent: Extent) -> Result<Vec<BlockStatus>> {
        self.inner.block_status(extent).await
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    fn leaf_hasher(&self) -> Option<&dyn LeafHasher> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_device_that_forgets_a_write_or_answers_a_stale_read_is_found_out() {
    for forgets_writes in [false, true] {
        let inner = MemoryDevice::new("m", SIZE);
        let device = Forgetful { inner, calls: AtomicU64::new(0), forgets_writes };
        assert!(run(Arc::new(device), 31, false).await.violation().is_some(), "writes: {forgets_writes}");
    }
}
