//! nbdkit's filters as servers that are broken, slow or strange in a way that is known.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use oma_core::conformance::{Trial, trial};
use oma_core::traits::{BlockDevice, BlockStatusKind, Durability, Zeroing};
use oma_core::{ErrorKind, Extent};
use oma_nbd::{Client, ClientConfig};

use crate::fixture::{NBDKIT, Peer, config, text};

const MIB: u64 = 1 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let need = [NBDKIT];
    vec![
        trial("cve_2022_0485_a_read_that_failed_gives_no_bytes_and_others_give_theirs", &need, failing_reads),
        trial("writes_that_fail_now_and_then_are_told_one_by_one", &need, failing_writes),
        trial("a_copy_without_storage_is_checked_by_its_target", &need, copy_without_storage),
        trial("a_target_that_takes_only_the_right_bytes_takes_them", &need, checked_writes),
        trial("a_slow_server_is_waited_for", &need, slow),
        trial("a_server_that_vouches_for_one_connection_gets_one", &need, one_connection),
        trial("durable_writes_end_with_a_flush_where_there_is_no_fua", &need, without_fua),
        trial("protected_ranges_refuse_and_their_neighbours_do_not", &need, protected),
    ]
}

/// What nbdkit's pattern plugin holds: each 8 bytes are their own offset.
fn pattern(offset: u64, length: u64) -> BytesMut {
    (offset..offset + length).step_by(8).flat_map(u64::to_be_bytes).collect::<Vec<_>>().as_slice().into()
}

fn buffer(length: u64) -> BytesMut {
    BytesMut::zeroed(length.try_into().unwrap())
}

async fn failing_reads() {
    for extra in [&["--filter=delay", "pattern", "16M", "delay-read=1ms"][..], &["--no-sr", "pattern", "16M"]]
    {
        let errors = ["error-pread-rate=30%", "error=EIO"];
        let peer = Peer::nbdkit(&[&["--filter=error"], extra, &errors].concat()).await;
        let client = peer.connect().await;
        let reads = (0..256).map(|number| {
            let offset = number * 65536;
            let client = &client;
            async move {
                match client.read_at(offset, buffer(65536)).await {
                    Ok(read) => {
                        assert!(read == pattern(offset, 65536), "other bytes at {offset}");
                        true
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
                        false
                    }
                }
            }
        });
        let well = join_all(reads).await.into_iter().filter(|well| *well).count();
        assert!((1..256).contains(&well), "{well} of 256 reads were well");
        // A read in several requests fails when any of them does.
        let whole = client.read_at(0, buffer(16 * MIB)).await;
        assert!(whole.is_err() || whole.unwrap() == pattern(0, 16 * MIB));
    }
}

async fn failing_writes() {
    let peer =
        Peer::nbdkit(&["--filter=error", "memory", "16M", "error-pwrite-rate=30%", "error=ENOSPC"]).await;
    let client = peer.connect().await;
    let writes = (0..128).map(|number| {
        let data = pattern(number * 65536, 65536).freeze();
        client.write_at(number * 65536, data, Durability::Cached)
    });
    let mut failed = 0;
    for (number, written) in (0..).zip(join_all(writes).await) {
        let read = client.read_at(number * 65536, buffer(65536)).await.unwrap();
        match written {
            Ok(()) => assert!(read == pattern(number * 65536, 65536), "write {number} is not there"),
            Err(error) => {
                failed += 1;
                assert_eq!(error.kind(), ErrorKind::NoSpace);
                assert!(read == buffer(65536), "write {number} is there and was told to have failed");
            }
        }
    }
    assert!((1..128).contains(&failed), "{failed} of 128 writes failed");
}

/// Copies all that is no hole.
async fn copy(from: &Client, to: &Client) -> u64 {
    let mut copied = 0;
    let mut rest = Extent::new(0, from.info().capacity.bytes()).ok();
    while let Some(asked) = rest {
        let found = from.block_status(asked).await.unwrap();
        rest = Extent::between(found.last().unwrap().extent.end(), asked.end());
        for part in found.iter().filter(|status| status.kind == BlockStatusKind::Data) {
            for piece in part.extent.pieces(MIB) {
                let data = from.read_at(piece.offset(), buffer(piece.length())).await.unwrap();
                copied += piece.length();
                to.write_at(piece.offset(), data.freeze(), Durability::Cached).await.unwrap();
            }
        }
    }
    to.flush().await.unwrap();
    copied
}

async fn copy_without_storage() {
    let disk = ["sparse-random", "256M", "seed=1", "percent=10"];
    let (one, two) = (Peer::nbdkit(&disk).await, Peer::nbdkit(&disk).await);
    let (from, to) = (one.connect().await, two.connect().await);
    let copied = copy(&from, &to).await;
    assert!((MIB..200 * MIB).contains(&copied), "{copied} bytes were copied");
    let other = Bytes::from(vec![0x5a; 65536]);
    let mut refused = 0;
    for number in 0..64 {
        refused += u32::from(to.write_at(number * 4 * MIB, other.clone(), Durability::Cached).await.is_err());
    }
    assert!(refused > 0, "the target takes anything, so it proves nothing");
}

async fn checked_writes() {
    let source = Peer::new();
    let image = source.path("image");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(16 * MIB).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &pattern(0, 3 * MIB), MIB).unwrap();
    let checked = Peer::nbdkit(&["--filter=checkwrite", "file", text(&image)]).await;
    let plain = Peer::nbdkit(&["--filter=cacheextents", "file", text(&image)]).await;
    let (from, to) = (plain.connect().await, checked.connect().await);
    assert_eq!(copy(&from, &to).await, 3 * MIB);
    let hole = Extent::new(8 * MIB, MIB).unwrap();
    to.write_zeroes(hole, Zeroing::Punch, Durability::Durable).await.unwrap();
    let wrong = to.write_at(MIB, Bytes::from(vec![0xff; 512]), Durability::Cached).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Unavailable, "{}", wrong.chain());
    to.write_zeroes(Extent::new(MIB, MIB).unwrap(), Zeroing::Punch, Durability::Cached).await.unwrap_err();
}

async fn slow() {
    let peer = Peer::nbdkit(&["--filter=rate", "pattern", "16M", "rate=64M"]).await;
    let client = Arc::new(peer.connect().await);
    let read = client.read_at(MIB, buffer(4 * MIB)).await.unwrap();
    assert!(read == pattern(MIB, 4 * MIB));
    let peer =
        Peer::nbdkit(&["--filter=delay", "--filter=noparallel", "pattern", "1M", "delay-read=20ms"]).await;
    let client = Arc::new(peer.connect().await);
    let reads = (0..32).map(|number| client.read_at(number * 4096, buffer(4096)));
    for (number, read) in (0..).zip(join_all(reads).await) {
        assert!(read.unwrap() == pattern(number * 4096, 4096));
    }
}

/// How many connections nbdkit's log tells of.
async fn connections(mode: &str) -> usize {
    let folder = Peer::new();
    let log = folder.path("log");
    let logfile = format!("logfile={}", text(&log));
    let arguments =
        ["--filter=log", "--filter=delay", "--filter=multi-conn", "memory", "16M", mode, &logfile];
    let peer = Peer::nbdkit(&[&arguments[..], &["delay-read=20ms"]].concat()).await;
    let four = ClientConfig { connections: 4, ..config() };
    let client = Client::connect(&peer.uri(""), four).await.unwrap();
    join_all((0..32).map(|number| client.read_at(number * 4096, buffer(4096)))).await;
    client.close().await;
    // The log is written before the answer to what it tells of.
    std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains(" Connect ")).count()
}

async fn one_connection() {
    assert_eq!(connections("multi-conn-mode=disable").await, 1);
    assert!(connections("multi-conn-mode=unsafe").await > 1);
}

async fn without_fua() {
    let folder = Peer::new();
    // Without a mode the filter hides that there is FUA.
    for (mode, expected) in [(None, "Flush"), (Some("fuamode=native"), "fua=1")] {
        let log = folder.path(expected);
        let logfile = format!("logfile={}", text(&log));
        let mut arguments = vec!["--filter=log", "--filter=fua", "memory", "1M", &logfile];
        arguments.extend(mode);
        let peer = Peer::nbdkit(&arguments).await;
        let client = peer.connect().await;
        client.write_at(0, Bytes::from_static(&[1; 512]), Durability::Durable).await.unwrap();
        client.write_zeroes(Extent::new(0, 512).unwrap(), Zeroing::Punch, Durability::Durable).await.unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.matches(expected).count() >= 2, "{expected}: {said}");
    }
}

async fn protected() {
    let peer = Peer::nbdkit(&["--filter=protect", "memory", "1M", "protect=4096-8191"]).await;
    let client = peer.connect().await;
    let write = |offset, length| client.write_at(offset, Bytes::from(vec![1; length]), Durability::Cached);
    write(0, 4096).await.unwrap();
    write(8192, 4096).await.unwrap();
    for (offset, length) in [(4096, 512), (0, 8192), (8191, 2)] {
        write(offset, length).await.unwrap_err();
    }
    let read = client.read_at(4096, buffer(4096)).await.unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
}
