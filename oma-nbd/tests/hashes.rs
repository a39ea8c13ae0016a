//! Hashes that the server makes and the client uses.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod raw;

use std::sync::Arc;

use oma_core::conformance::sample;
use oma_core::memory::{DeviceCall, Faults, FaultyDevice, HeldDevice, Hold, MemoryDevice};
use oma_core::traits::{BlockDevice, Drained, Durability, ExportServer, ReadFrom, ReadManner};
use oma_core::tree::{AT_ONCE, LEAF, LeafHash, LeafRun, leaf_hashes};
use oma_core::{ByteSize, ErrorKind, Extent, Retry};
use oma_nbd::protocol::*;
use oma_nbd::{Client, ClientConfig, ServerConfig, Uri};
use raw::{Raw, Sockets, name};

const TIB: u64 = 1 << 40;

fn extent(offset: u64, length: u64) -> Extent {
    Extent::new(offset, length).unwrap()
}

fn fresh() -> MemoryDevice {
    MemoryDevice::new("m", ByteSize::new(TIB))
}

async fn serve(device: Arc<dyn BlockDevice>) -> (Sockets, Client) {
    let sockets = Sockets::new(&raw::server(ServerConfig::default(), device).await).await;
    let uri = Uri::unix(sockets.path(), "disk").unwrap();
    let client = Client::connect(&uri, ClientConfig::default()).await.unwrap();
    (sockets, client)
}

async fn fill(device: &MemoryDevice, offset: u64, length: u64) {
    let data = sample(offset, length.try_into().unwrap());
    device.write_at(offset, data, Durability::Cached).await.unwrap();
}

/// Length and flags of each extent that `x-oma:blake3` tells.
async fn told(raw: &mut Raw, offset: u64, length: u64) -> Vec<(u64, u64)> {
    let asked = ExtendedRequest { flags: 0, command: NBD_CMD_BLOCK_STATUS, cookie: 3, offset, length };
    let chunks = raw.ask_extended(asked, &[]).await;
    match Chunk::decode(chunks[0].0, &chunks[0].1).unwrap() {
        Chunk::BlockStatusExt { descriptors, .. } => {
            descriptors.iter().map(|d| (d.length, d.flags)).collect()
        }
        other => panic!("{other:?} is no status"),
    }
}

#[tokio::test]
async fn only_hashes_cross_the_link() {
    let device = fresh();
    fill(&device, 5 * LEAF, 3 * LEAF).await;
    let (sockets, client) = serve(Arc::new(device.clone())).await;
    let mut found: Vec<LeafRun> = Vec::new();
    let mut rest = Some(extent(0, TIB));
    while let Some(asked) = rest {
        let answer = leaf_hashes(&client, asked, ReadFrom::Device).await.unwrap();
        assert_eq!(answer.manner, ReadManner::ThroughCache, "the other end does not say");
        rest = Extent::between(answer.runs.last().unwrap().extent.end(), TIB);
        found.extend(answer.runs);
    }
    let hash = |leaf: u64| LeafHash::of(&sample(leaf * LEAF, LEAF.try_into().unwrap()));
    assert_eq!(found.iter().map(LeafRun::leaves).collect::<Vec<_>>(), [5, 1, 1, 1, TIB / LEAF - 8]);
    assert_eq!([1, 2, 3].map(|at: usize| found[at].hash), [5, 6, 7].map(hash));
    assert_eq!(found[0].hash, LeafHash::of_zeroes(LEAF));
    let statistics = sockets.server.statistics(&name("disk")).await.unwrap();
    assert_eq!(statistics.unwrap().bytes_read, 0);
    drop(client);
    sockets.close().await;
}

#[tokio::test]
async fn a_leaf_is_told_in_four_quarters_and_zeroes_in_one() {
    let device = fresh();
    fill(&device, LEAF, LEAF).await;
    let server = raw::server(ServerConfig::default(), Arc::new(device)).await;
    let mut raw = Raw::greeted(&server).await.with_extended("disk", &[OMA_BLAKE3]).await.0;
    let hash = LeafHash::of(&sample(LEAF, LEAF.try_into().unwrap())).0;
    let quarter = |at: usize| (LEAF / 4, u64::from_be_bytes(hash[8 * at..8 * at + 8].try_into().unwrap()));
    let all = [(LEAF, 0), quarter(0), quarter(1), quarter(2), quarter(3), (TIB - 2 * LEAF, 0)];
    assert_eq!(told(&mut raw, 0, TIB).await, all);
    assert_eq!(told(&mut raw, LEAF, LEAF).await, all[1..5]);
}

#[tokio::test]
async fn equal_leaves_in_a_row_are_told_each() {
    let device = fresh();
    let leaf = sample(0, LEAF.try_into().unwrap());
    for at in [1, 2, 3] {
        device.write_at(at * LEAF, leaf.clone(), Durability::Cached).await.unwrap();
    }
    fill(&device, 4 * LEAF, LEAF).await;
    let (_sockets, client) = serve(Arc::new(device)).await;
    let found = leaf_hashes(&client, extent(0, 5 * LEAF), ReadFrom::Anywhere).await.unwrap().runs;
    let run = |at: u64, leaves: u64, hash| LeafRun { extent: extent(at * LEAF, leaves * LEAF), hash };
    let other = LeafHash::of(&sample(4 * LEAF, LEAF.try_into().unwrap()));
    let all = [run(0, 1, LeafHash::of_zeroes(LEAF)), run(1, 3, LeafHash::of(&leaf)), run(4, 1, other)];
    assert_eq!(found, all);
}

#[tokio::test]
async fn no_request_hashes_more_than_its_share() {
    let device = fresh();
    fill(&device, 0, 2 * AT_ONCE).await;
    let server = raw::server(ServerConfig::default(), Arc::new(device.clone())).await;
    let mut raw = Raw::greeted(&server).await.with_extended("disk", &[OMA_BLAKE3]).await.0;
    let first = told(&mut raw, 0, TIB).await;
    assert_eq!(first.iter().map(|(length, _)| length).sum::<u64>(), AT_ONCE);
    assert_eq!(device.calls().bytes_read, AT_ONCE);
}

#[tokio::test]
async fn without_headers_of_64_bits_hashes_are_not_offered() {
    let server = raw::server(ServerConfig::default(), Arc::new(fresh())).await;
    let mut raw = Raw::greeted(&server).await;
    let mut payload = Vec::new();
    MetaContextRequest { name: "disk", queries: vec![OMA_BLAKE3] }.encode(&mut payload);
    assert_eq!(raw.option(NBD_OPT_STRUCTURED_REPLY, &[]).await[0].0, NBD_REP_ACK);
    for option in [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT] {
        assert_eq!(raw.option(option, &payload).await, [(NBD_REP_ACK, vec![])]);
    }
    let uri_of = async |blocks: u32| {
        let device = fresh().with_info(|info| {
            (info.block_sizes.minimum, info.block_sizes.preferred) = (blocks, blocks);
        });
        let (sockets, client) = serve(Arc::new(device)).await;
        (client.leaf_hasher().is_some(), client.has_context(OMA_BLAKE3), sockets.port > 0)
    };
    assert_eq!(uri_of(4096).await, (true, true, true));
    assert_eq!(uri_of(64 << 10).await, (false, false, true), "a leaf has no four quarters");
}

#[tokio::test]
async fn a_leaf_of_less_than_four_blocks_is_read() {
    let device =
        MemoryDevice::new("m", ByteSize::new(LEAF + 1536)).with_info(|info| info.block_sizes.minimum = 512);
    fill(&device, 0, LEAF + 1536).await;
    let (_sockets, client) = serve(Arc::new(device)).await;
    let whole = leaf_hashes(&client, extent(0, LEAF + 1536), ReadFrom::Anywhere).await.unwrap().runs;
    assert_eq!(whole.len(), 1, "it ends before the last leaf");
    let last = leaf_hashes(&client, extent(LEAF, 1536), ReadFrom::Anywhere).await.unwrap().runs;
    assert_eq!(last[0].hash, LeafHash::of(&sample(LEAF, 1536)));
}

#[tokio::test]
async fn l11_a_device_that_fails_under_the_server_has_no_hashes() {
    let faults = Faults::new(ErrorKind::Unavailable, Retry::Later);
    let device = fresh();
    fill(&device, 0, LEAF).await;
    let (_sockets, client) = serve(Arc::new(FaultyDevice::new(Arc::new(device), faults.clone()))).await;
    faults.fail_nth(DeviceCall::Read, 1);
    let failed = leaf_hashes(&client, extent(0, LEAF), ReadFrom::Anywhere).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(leaf_hashes(&client, extent(0, LEAF), ReadFrom::Anywhere).await.is_ok());
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_running() {
    let (device, hold) = (fresh(), Hold::default());
    fill(&device, 0, LEAF).await;
    let server = raw::server(
        ServerConfig::default(),
        Arc::new(HeldDevice::new(Arc::new(device.clone()), hold.clone())),
    )
    .await;
    let mut raw = Raw::greeted(&server).await.with_extended("disk", &[OMA_BLAKE3]).await.0;
    hold.hold();
    let asked =
        ExtendedRequest { flags: 0, command: NBD_CMD_BLOCK_STATUS, cookie: 3, offset: 0, length: TIB };
    for _ in 0..8 {
        raw.say(&asked.encode()).await;
    }
    hold.reached(1).await;
    drop(raw);
    hold.release();
    raw::left(&server, "disk").await;
    assert!(device.calls().bytes_read <= 8 * AT_ONCE);
    assert_eq!(server.withdraw(&name("disk"), raw::SOON).await.unwrap(), Drained::Graceful);
}

/// Asks for many hashes of a few leaves over a device that holds all reads, until as many run as there are processors.
async fn queue(server: &oma_nbd::Server, hold: &Hold, requests: usize) -> Raw {
    let mut raw = Raw::greeted(server).await.with_extended("disk", &[OMA_BLAKE3]).await.0;
    hold.hold();
    let asked =
        ExtendedRequest { flags: 0, command: NBD_CMD_BLOCK_STATUS, cookie: 3, offset: 0, length: 4 * LEAF };
    for _ in 0..requests {
        raw.say(&asked.encode()).await;
    }
    hold.reached(processors()).await;
    raw
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[tokio::test]
async fn hashes_that_wait_for_their_turn_end_with_their_client() {
    for leaves in [true, false] {
        let (device, hold) = (fresh(), Hold::default());
        fill(&device, 0, 4 * LEAF).await;
        let held = HeldDevice::new(Arc::new(device.clone()), hold.clone());
        let config = ServerConfig { max_requests: 16 * processors(), ..ServerConfig::default() };
        let server = raw::server(config, Arc::new(held)).await;
        let raw = queue(&server, &hold, 16 * processors()).await;
        if leaves {
            drop(raw);
            // Until the server has seen it.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            hold.release();
        } else {
            let cut = server.withdraw(&name("disk"), std::time::Duration::ZERO).await;
            assert_eq!(cut.unwrap_err().kind(), ErrorKind::Busy, "reads are in the device");
            hold.release();
        }
        assert!(server.withdraw(&name("disk"), raw::SOON).await.is_ok());
        let hashed = usize::try_from(device.calls().bytes_read / (4 * LEAF)).unwrap();
        assert_eq!(hashed, processors(), "those that run end, of {}", 16 * processors());
    }
}
