//! Our client in plain loops: as many workers as requests may be under way, each with one buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use oma_benches::gib;
use oma_core::page_aligned;
use oma_core::traits::{BlockDevice, Durability};
use oma_nbd::{Client, ClientConfig, Uri};

use crate::Result;
use crate::load::Work;

/// What our client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lean {
    pub(crate) action: Action,
    pub(crate) connections: u32,
    /// Requests under way on each connection.
    pub(crate) depth: u32,
    /// Bytes of a request.
    pub(crate) block: u32,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The whole export once, from its beginning.
    Read,
    /// The same, writing.
    Write,
    /// At random, until the time is up.
    RandomRead,
}

impl Lean {
    pub(crate) async fn run(&self, uri: &str, window: Duration) -> Result<Work> {
        let (connections, depth) = (usize::try_from(self.connections)?, usize::try_from(self.depth)?);
        let config = ClientConfig { connections, requests_in_flight: depth, ..ClientConfig::default() };
        let begun = Instant::now();
        let client = Arc::new(Client::connect(&Uri::parse(uri)?, config).await?);
        let next = Arc::new(AtomicU64::new(0));
        let workers = (0..self.connections * self.depth).map(|number| {
            let (client, next, lean) = (client.clone(), next.clone(), *self);
            tokio::spawn(async move {
                match lean.action {
                    Action::Read => lean.read(&client, &next).await,
                    Action::Write => lean.write(&client, &next).await,
                    Action::RandomRead => lean.random(&client, number, window).await,
                }
            })
        });
        let mut amount = 0.0;
        for done in try_join_all(workers).await? {
            amount += done?;
        }
        Ok(Work { amount, seconds: begun.elapsed().as_secs_f64() })
    }

    /// The next piece of the export that nobody has taken yet, and its length.
    fn take(&self, client: &Client, next: &AtomicU64) -> Option<(u64, usize)> {
        let block = u64::from(self.block);
        let offset = next.fetch_add(block, Ordering::Relaxed);
        let left = client.info().capacity.bytes().checked_sub(offset).filter(|left| *left > 0)?;
        Some((offset, usize::try_from(left.min(block)).ok()?))
    }

    async fn read(&self, client: &Client, next: &AtomicU64) -> Result<f64> {
        let (mut done, mut buffer) = (0, self.buffer()?);
        while let Some((offset, length)) = self.take(client, next) {
            buffer.resize(length, 0);
            buffer = client.read_at(offset, buffer).await?;
            done += u64::try_from(length)?;
        }
        Ok(gib(done))
    }

    async fn write(&self, client: &Client, next: &AtomicU64) -> Result<f64> {
        let (mut done, data) = (0, self.data()?);
        while let Some((offset, length)) = self.take(client, next) {
            client.write_at(offset, data.slice(..length), Durability::Cached).await?;
            done += u64::try_from(length)?;
        }
        Ok(gib(done))
    }

    /// Reads blocks at random until the time is up; how many it read.
    pub(crate) async fn random(&self, client: &Client, number: u32, window: Duration) -> Result<f64> {
        let (mut buffer, mut done, begun) = (self.buffer()?, 0_u32, Instant::now());
        let blocks = client.info().capacity.bytes() / u64::from(self.block);
        // Marsaglia's xorshift: never zero.
        let mut state = u64::from(number + 1) << 17 | 1;
        while begun.elapsed() < window {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            buffer = client.read_at(state % blocks * u64::from(self.block), buffer).await?;
            done += 1;
        }
        Ok(f64::from(done))
    }

    fn data(&self) -> Result<Bytes> {
        let mut data = self.buffer()?;
        data.fill(0x5a);
        Ok(data.freeze())
    }

    fn buffer(&self) -> Result<BytesMut> {
        Ok(page_aligned(usize::try_from(self.block)?))
    }
}
