//! Users of one export: each makes random calls and remembers what it saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use oma_core::Extent;
use oma_core::traits::{BlockDevice, Durability, Zeroing};
use oma_nbd::Client;
use oma_nbd::protocol::*;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::history::{Call, Clock, Effect, History};
use crate::raw::{Raw, Reply};

/// Bytes of a block; reads of several are large enough to be sent straight from a file. The first and the last word of a block
/// are registers, judged apart: a read that overlaps a write may find one part of a block old and the other new, on a file as
/// on any disk.
pub(crate) const BLOCK: u64 = 4096;
pub(crate) const BLOCKS: u64 = 96;
/// No call covers more blocks.
const MOST: u64 = 24;
/// Requests that one raw connection has under way.
const PIPELINE: usize = 4;
const WORD: usize = 8;

/// What all users of one run share.
#[derive(Debug)]
pub(crate) struct Plan {
    clock: Clock,
    values: AtomicU64,
    seed: u64,
    calls: usize,
    trims: bool,
}

/// What is asked of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Read,
    Write(u64),
    Zero,
    Trim,
    Flush,
}

/// A call on a range of blocks.
#[derive(Clone, Copy, Debug)]
struct Ask {
    sort: Sort,
    first: u64,
    count: u64,
    durable: bool,
    begun: u64,
}

impl Ask {
    fn offset(&self) -> u64 {
        self.first * BLOCK
    }

    fn length(&self) -> u64 {
        self.count * BLOCK
    }

    fn extent(&self) -> Extent {
        Extent::new(self.offset(), self.length()).unwrap()
    }

    fn data(&self) -> Bytes {
        let Sort::Write(value) = self.sort else { return Bytes::new() };
        value.to_le_bytes().repeat(usize::try_from(self.length()).unwrap() / WORD).into()
    }

    fn request(&self, cookie: u64) -> Request {
        let command = match self.sort {
            Sort::Read => NBD_CMD_READ,
            Sort::Write(_) => NBD_CMD_WRITE,
            Sort::Zero => NBD_CMD_WRITE_ZEROES,
            Sort::Trim => NBD_CMD_TRIM,
            Sort::Flush => NBD_CMD_FLUSH,
        };
        let flags = if self.durable { NBD_CMD_FLAG_FUA } else { 0 };
        let (offset, length) = match self.sort {
            Sort::Flush => (0, 0),
            _ => (self.offset(), u32::try_from(self.length()).unwrap()),
        };
        Request { flags, command, cookie, offset, length }
    }

    /// Notes the call that ended now; a read with what it found.
    fn note(&self, plan: &Plan, found: &[u8], history: &mut History) {
        let ended = Some(plan.clock.now());
        for index in 0..self.count {
            let block = self.first + index;
            let bytes = found.chunks_exact(BLOCK.try_into().unwrap()).nth(index.try_into().unwrap());
            for (register, last) in [(2 * block, false), (2 * block + 1, true)] {
                let effect = match self.sort {
                    Sort::Read => Effect::Read(word(bytes.unwrap(), last)),
                    Sort::Write(value) => Effect::Write(value),
                    Sort::Zero => Effect::Write(0),
                    Sort::Trim => Effect::Trim,
                    Sort::Flush => continue,
                };
                history.add(register, Call { begun: self.begun, ended, effect });
            }
        }
    }
}

fn word(block: &[u8], last: bool) -> u64 {
    let found = if last { block.last_chunk() } else { block.first_chunk() };
    u64::from_le_bytes(*found.unwrap())
}

impl Plan {
    pub(crate) fn new(seed: u64, calls: usize, trims: bool) -> Self {
        Self { clock: Clock::default(), values: AtomicU64::new(1), seed, calls, trims }
    }

    /// The calls of a user; the clock is asked when each begins.
    fn asks(&self, user: u64) -> impl Iterator<Item = Ask> {
        let mut state = (self.seed << 8 | user).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = move |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % limit
        };
        (0..self.calls).map(move |_| {
            let sort = match below(100) {
                0..45 => Sort::Read,
                45..80 => Sort::Write(self.values.fetch_add(1, Ordering::Relaxed)),
                80..90 => Sort::Zero,
                90..95 if self.trims => Sort::Trim,
                90..95 => Sort::Zero,
                _ => Sort::Flush,
            };
            let count = 1 + below(MOST);
            let changes = !matches!(sort, Sort::Read | Sort::Flush);
            let durable = changes && below(10) == 0;
            Ask { sort, first: below(BLOCKS - count + 1), count, durable, begun: 0 }
        })
    }
}

/// Calls by hand, several under way on one connection.
pub(crate) async fn by_hand<S>(plan: Arc<Plan>, user: u64, mut raw: Raw<S>) -> History
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut history = History::default();
    let mut under_way: HashMap<u64, Ask> = HashMap::new();
    for (cookie, mut ask) in (1..).zip(plan.asks(user)) {
        if under_way.len() == PIPELINE {
            receive(&plan, &mut raw, &mut under_way, &mut history).await;
        }
        ask.begun = plan.clock.now();
        raw.send(ask.request(cookie), &ask.data()).await;
        under_way.insert(cookie, ask);
    }
    while !under_way.is_empty() {
        receive(&plan, &mut raw, &mut under_way, &mut history).await;
    }
    history
}

async fn receive<S>(plan: &Plan, raw: &mut Raw<S>, under_way: &mut HashMap<u64, Ask>, history: &mut History)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length_of =
        |cookie| under_way.get(&cookie).filter(|ask| ask.sort == Sort::Read).map_or(0, Ask::length);
    let (cookie, reply) = raw.reply_to(|cookie| u32::try_from(length_of(cookie)).unwrap()).await;
    let ask = under_way.remove(&cookie).expect("a reply to a request under way");
    match reply {
        Reply::Done => ask.note(plan, &[], history),
        Reply::Data(found) => ask.note(plan, &found, history),
        other => panic!("{ask:?} was answered with {other:?}"),
    }
}

/// Calls through the client, one at a time.
pub(crate) async fn by_client(plan: Arc<Plan>, user: u64, client: Arc<Client>) -> History {
    let mut history = History::default();
    for mut ask in plan.asks(user) {
        ask.begun = plan.clock.now();
        let found = call(&client, &ask).await;
        ask.note(&plan, &found, &mut history);
    }
    history
}

async fn call(client: &Client, ask: &Ask) -> BytesMut {
    let durability = if ask.durable { Durability::Durable } else { Durability::Cached };
    match ask.sort {
        Sort::Read => {
            let buffer = BytesMut::zeroed(ask.length().try_into().unwrap());
            return client.read_at(ask.offset(), buffer).await.unwrap();
        }
        Sort::Write(_) => client.write_at(ask.offset(), ask.data(), durability).await.unwrap(),
        Sort::Zero => client.write_zeroes(ask.extent(), Zeroing::Punch, durability).await.unwrap(),
        Sort::Trim => client.trim(ask.extent()).await.unwrap(),
        Sort::Flush => client.flush().await.unwrap(),
    }
    BytesMut::new()
}

/// Reads everything when all others are done.
pub(crate) async fn read_all(plan: &Plan, client: &Client) -> History {
    let mut history = History::default();
    let ask = Ask { sort: Sort::Read, first: 0, count: BLOCKS, durable: false, begun: plan.clock.now() };
    let found = call(client, &ask).await;
    ask.note(plan, &found, &mut history);
    history
}
