//! Data through TLS of the kernel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use oma_core::ExportName;
use oma_core::conformance::{DEVICE_CAPACITY, DeviceSubject, block_device_cases};
use oma_core::traits::{Access, BlockDevice, Durability};
use oma_nbd::protocol::{NBD_CMD_READ, Request, SimpleReply};
use oma_nbd::{Client, ClientConfig};
use oma_volume::device::FileDevice;
use tempfile::NamedTempFile;

use super::{BY_KERNEL, VERSIONS, open, served};
use crate::fixture::{Fixture, config, connect};
use crate::inside::{Case, blocking, cases, suite};
use crate::talk::go;

pub(crate) fn cases() -> Vec<Case> {
    let own = cases![
        a_file_is_read_through_the_kernels_tls_at_any_offset,
        many_requests_of_many_connections_meet_their_own_data,
        a_file_that_is_cut_while_it_is_sent_ends_the_connection_only,
        no_nonce_of_tls_1_2_is_used_twice,
    ];
    let suite = suite("over_the_kernels_tls", block_device_cases(), device);
    own.into_iter().chain(suite).collect()
}

/// Bytes that repeat after a prime number.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = (1..=251).collect::<Vec<u8>>().repeat(length / 251 + 1);
    bytes.truncate(length);
    bytes
}

/// Serves a file of this content as `file`.
async fn publish(fixture: &Fixture, content: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let device = FileDevice::open(file.path(), Access::ReadWrite).await.unwrap();
    fixture.publish_device("file", Arc::new(device)).await;
    file
}

async fn device() -> DeviceSubject {
    let (fixture, pki) = served().await;
    let file = publish(&fixture, &vec![0; usize::try_from(DEVICE_CAPACITY.bytes()).unwrap()]).await;
    let client = connect(&fixture.tcp("file"), pki.nobody()).await.unwrap();
    assert!(fixture.served("file").await.client.ends_with(BY_KERNEL));
    DeviceSubject { device: Arc::new(client), guard: Box::new((fixture, pki, file)) }
}

async fn a_file_is_read_through_the_kernels_tls_at_any_offset() {
    let (fixture, pki) = served().await;
    let mut content = content(1_536_000);
    let file = publish(&fixture, &content).await;
    let client = connect(&fixture.tcp("file"), pki.nobody()).await.unwrap();
    let lengths = [1, 511, 8193, 16_384, 16_385, 65_536, 131_073, 700_001, 1 << 20];
    let read = async |offset: usize, length: usize, content: &[u8]| {
        let found = client.read_at(offset.try_into().unwrap(), BytesMut::zeroed(length)).await.unwrap();
        assert!(found == content[offset..offset + length], "{length} bytes at {offset}");
    };
    for (at, length) in [(5, 3), (4096, 16_384), (70_001, 100_000), (300_000, 1 << 20)] {
        content[at..at + length].fill(7);
        let data = Bytes::copy_from_slice(&content[at..at + length]);
        client.write_at(at.try_into().unwrap(), data, Durability::Durable).await.unwrap();
        assert!(std::fs::read(file.path()).unwrap() == content, "{length} bytes at {at}");
    }
    let all = lengths.into_iter().flat_map(|length| [0, 1, 4095, 300_007].map(|offset| (offset, length)));
    join_all(all.map(|(offset, length)| read(offset, length, &content))).await;
    assert!(fixture.served("file").await.client.ends_with(BY_KERNEL));
    client.close().await;
}

async fn many_requests_of_many_connections_meet_their_own_data() {
    const PART: usize = 100_003;
    let (fixture, pki) = served().await;
    let file = publish(&fixture, &vec![0; 24 * PART]).await;
    let config = ClientConfig { connections: 3, ..config(pki.nobody()) };
    let client = Client::connect(&fixture.tcp("file"), config).await.unwrap();
    let one = async |number: u8| {
        let offset = u64::from(number) * u64::try_from(PART).unwrap();
        for round in 0..4u8 {
            let length = PART >> (3 * usize::from(round));
            let data = vec![number.wrapping_mul(31).wrapping_add(round + 1); length];
            client.write_at(offset, data.clone().into(), Durability::Cached).await.unwrap();
            let found = client.read_at(offset, BytesMut::zeroed(length)).await.unwrap();
            assert!(found == data, "{number} {round}");
        }
    };
    join_all((0..24).map(one)).await;
    let report = fixture.server.report(&ExportName::parse("file").unwrap()).unwrap();
    assert_eq!(report.connections.len(), 3);
    assert!(report.connections.iter().all(|found| found.client.ends_with(BY_KERNEL)), "{report:?}");
    client.close().await;
    drop(file);
}

fn read(offset: u64, length: u32) -> [u8; Request::SIZE] {
    Request { flags: 0, command: NBD_CMD_READ, cookie: 9, offset, length }.encode()
}

async fn a_file_that_is_cut_while_it_is_sent_ends_the_connection_only() {
    // More than the sockets hold.
    const WHOLE: u32 = 32 << 20;
    const LEFT: u32 = 1 << 20;
    let expected = content(WHOLE.try_into().unwrap());
    for version in VERSIONS {
        // One that was cut once is not sent from any more, but read.
        let (fixture, pki) = served().await;
        let file = publish(&fixture, &expected).await;
        let (port, pki, path, expected) =
            (fixture.port, pki.clone(), file.path().to_owned(), expected.clone());
        blocking(move || {
            let mut client = open(port, &pki, version);
            assert_eq!(go(&mut client, "file"), u64::from(WHOLE));
            client.write_all(&read(0, WHOLE)).unwrap();
            let mut begin = [0; SimpleReply::SIZE + 4096];
            client.read_exact(&mut begin).unwrap();
            assert!(begin[SimpleReply::SIZE..] == expected[..4096]);
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(LEFT.into()).unwrap();
            let mut rest = Vec::new();
            // The word that nothing more comes, or none: the reply is not whole in any case.
            let _ = client.read_to_end(&mut rest);
            assert!(rest.len() < expected.len() - 4096, "a file of {LEFT} bytes gave {WHOLE}");
            assert!(rest[..] == expected[4096..4096 + rest.len()], "other bytes than were ever there");
            let mut client = open(port, &pki, version);
            go(&mut client, "file");
            client.write_all(&read(4, LEFT / 2)).unwrap();
            let mut reply = vec![0; SimpleReply::SIZE + usize::try_from(LEFT / 2).unwrap()];
            client.read_exact(&mut reply).unwrap();
            assert!(reply[SimpleReply::SIZE..] == expected[4..][..reply.len() - SimpleReply::SIZE]);
        })
        .await;
        fixture.left("file").await;
    }
}

async fn no_nonce_of_tls_1_2_is_used_twice() {
    let (fixture, pki) = served().await;
    let expected = content(1 << 20);
    let _file = publish(&fixture, &expected).await;
    // Where the kernel begins depends on how many records came before it, and on chance.
    for options in 0..4 {
        let (port, pki, expected) = (fixture.port, pki.clone(), expected.clone());
        let client = blocking(move || {
            let mut client = open(port, &pki, &rustls::version::TLS12);
            for _ in 0..options {
                crate::talk::ask(&mut client, oma_nbd::protocol::NBD_OPT_LIST, &[]);
            }
            go(&mut client, "file");
            for _ in 0..4 {
                client.write_all(&read(0, 300_000)).unwrap();
                let mut reply = vec![0; SimpleReply::SIZE + 300_000];
                client.read_exact(&mut reply).unwrap();
                assert!(reply[SimpleReply::SIZE..] == expected[..300_000]);
            }
            client
        })
        .await;
        assert!(fixture.served("file").await.client.ends_with(BY_KERNEL));
        let different: BTreeSet<_> = client.nonces.iter().collect();
        assert_eq!(different.len(), client.nonces.len(), "{options}: {:x?}", &client.nonces[..12]);
        drop(client);
        fixture.left("file").await;
    }
}
