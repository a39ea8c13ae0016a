//! Messages of TLS itself, and where the kernel takes a session over.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use oma_nbd::protocol::{
    NBD_CMD_DISC, NBD_CMD_READ, NBD_CMD_WRITE, NBD_OPT_GO, NBD_REP_ACK, Request, SimpleReply,
};
use rustls::StreamOwned;
use rustls::version::TLS13;

use super::records::{ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, Records};
use super::{BY_KERNEL, VERSIONS, open, served};
use crate::fixture::Fixture;
use crate::inside::{Case, blocking, cases};
use crate::pki::Pki;
use crate::talk::{connection, go, header, info, replies};

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_WANTED: [u8; 5] = [24, 0, 0, 1, 1];
const UNEXPECTED_MESSAGE: [u8; 2] = [2, 10];
const BAD_RECORD: [u8; 2] = [2, 20];

pub(crate) fn cases() -> Vec<Case> {
    cases![
        requests_behind_the_end_of_the_handshake_are_answered_in_order,
        a_record_in_two_halves_is_taken_up_by_the_kernel,
        a_request_in_the_record_of_the_last_option_is_not_lost,
        both_sides_say_that_nothing_more_comes,
        records_without_data_change_nothing,
        messages_that_have_no_place_end_the_session_and_nothing_behind_them_lands,
        a_key_update_is_followed_or_ends_the_session,
        a_changed_record_ends_the_session_and_nothing_of_it_lands,
        plain_requests_inside_a_session_are_never_interpreted,
    ]
}

fn request(command: u16, offset: u64, length: u32) -> Vec<u8> {
    Request { flags: 0, command, cookie: offset, offset, length }.encode().to_vec()
}

fn write(offset: u64, data: &[u8]) -> Vec<u8> {
    [request(NBD_CMD_WRITE, offset, data.len().try_into().unwrap()), data.to_vec()].concat()
}

fn replied(client: &mut Records, cookie: u64) {
    let mut reply = [0; SimpleReply::SIZE];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply, SimpleReply { error: 0, cookie }.encode());
}

/// What `go` says, without waiting for its answer.
fn choose() -> Vec<u8> {
    header(NBD_OPT_GO, &info("disk"))
}

/// Takes the answer to [`choose`].
fn chosen(client: &mut Records) {
    assert_eq!(replies(client, NBD_OPT_GO).last().unwrap().0, NBD_REP_ACK);
}

/// A client that has opened `disk`, and whose session the kernel has.
async fn opened(
    fixture: &Arc<Fixture>,
    pki: &Arc<Pki>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Records {
    let (port, pki) = (fixture.port, pki.clone());
    let client = blocking(move || {
        let mut client = open(port, &pki, version);
        go(&mut client, "disk");
        client
    });
    let client = client.await;
    assert!(fixture.served("disk").await.client.ends_with(BY_KERNEL));
    client
}

/// Sends bytes in a session of its own; the alert that ends it. Nothing may have been written.
async fn ended(
    fixture: &Arc<Fixture>,
    pki: &Arc<Pki>,
    version: &'static rustls::SupportedProtocolVersion,
    bytes: impl FnOnce(&mut Records) -> Vec<u8> + Send + 'static,
) -> Option<Vec<u8>> {
    let mut client = opened(fixture, pki, version).await;
    let alert = blocking(move || {
        let bytes = bytes(&mut client);
        client.send(&bytes).unwrap();
        client.end()
    })
    .await;
    fixture.left("disk").await;
    assert_eq!(fixture.device.calls().writes, 0);
    alert
}

async fn requests_behind_the_end_of_the_handshake_are_answered_in_order() {
    let (fixture, pki) = served().await;
    for version in VERSIONS {
        let (port, pki) = (fixture.port, pki.clone());
        let client = blocking(move || {
            let mut client = open(port, &pki, version);
            let data: Vec<_> = (0..=255).cycle().take(40_000).collect();
            let mut behind = client.seal(DATA, &choose());
            for part in write(4096, &data).chunks(9000) {
                behind.extend(client.seal(DATA, part));
            }
            behind.extend(client.seal(DATA, &request(NBD_CMD_READ, 4097, 39_999)));
            behind.extend(client.seal(DATA, &write(0, b"last")));
            client.send(&behind).unwrap();
            chosen(&mut client);
            replied(&mut client, 4096);
            replied(&mut client, 4097);
            let mut read = vec![0; 39_999];
            client.read_exact(&mut read).unwrap();
            assert!(read == data[1..]);
            replied(&mut client, 0);
            client
        })
        .await;
        assert!(fixture.served("disk").await.client.ends_with(BY_KERNEL));
        assert_eq!(&fixture.device.bytes()[..4], b"last");
        drop(client);
        fixture.left("disk").await;
    }
}

async fn a_record_in_two_halves_is_taken_up_by_the_kernel() {
    let (fixture, pki) = served().await;
    // In its header, behind it, in its data, before its last byte.
    for (version, cut) in VERSIONS.into_iter().flat_map(|version| [1, 5, 100, 4100].map(|cut| (version, cut)))
    {
        let (port, other) = (fixture.port, pki.clone());
        let (mut client, rest) = blocking(move || {
            let mut client = open(port, &other, version);
            let option = client.seal(DATA, &choose());
            let record = client.seal(DATA, &write(cut.try_into().unwrap(), &[7; 4096]));
            let cut = cut.min(record.len() - 1);
            client.send(&[option, record[..cut].to_vec()].concat()).unwrap();
            chosen(&mut client);
            (client, record[cut..].to_vec())
        })
        .await;
        assert!(fixture.served("disk").await.client.ends_with(BY_KERNEL));
        blocking(move || {
            client.send(&rest).unwrap();
            replied(&mut client, cut.try_into().unwrap());
        })
        .await;
        assert_eq!(fixture.device.bytes()[cut..cut + 4096], [7; 4096]);
        fixture.left("disk").await;
    }
}

async fn a_request_in_the_record_of_the_last_option_is_not_lost() {
    let (fixture, pki) = served().await;
    for version in VERSIONS {
        let (port, pki) = (fixture.port, pki.clone());
        blocking(move || {
            let mut client = open(port, &pki, version);
            let both = client.seal(DATA, &[choose(), write(0, b"same")].concat());
            let next = client.seal(DATA, &request(NBD_CMD_READ, 2, 2));
            client.send(&[both, next].concat()).unwrap();
            chosen(&mut client);
            replied(&mut client, 0);
            replied(&mut client, 2);
            let mut read = [0; 2];
            client.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"me");
        })
        .await;
        fixture.left("disk").await;
    }
}

async fn both_sides_say_that_nothing_more_comes() {
    let (fixture, pki) = served().await;
    for version in VERSIONS {
        let said = ended(&fixture, &pki, version, |client| client.seal(DATA, &request(NBD_CMD_DISC, 0, 0)));
        assert_eq!(said.await.as_deref(), Some(CLOSE_NOTIFY));
        let said = ended(&fixture, &pki, version, |client| client.seal(ALERT, CLOSE_NOTIFY));
        assert_eq!(said.await.as_deref(), Some(CLOSE_NOTIFY));
        // What comes behind it is nobody's.
        ended(&fixture, &pki, version, |client| {
            [client.seal(ALERT, CLOSE_NOTIFY), client.seal(DATA, &write(0, b"late"))].concat()
        })
        .await;
        // A client that is only cut off.
        ended(&fixture, &pki, version, |client| {
            client.socket().shutdown(Shutdown::Write).unwrap();
            Vec::new()
        })
        .await;
    }
}

async fn records_without_data_change_nothing() {
    let (fixture, pki) = served().await;
    for version in VERSIONS {
        let mut client = opened(&fixture, &pki, version).await;
        blocking(move || {
            for offset in 0..4 {
                for _ in 0..offset * 10 {
                    client.say(DATA, &[]).unwrap();
                }
                let (begin, end) = (request(NBD_CMD_WRITE, offset, 2), [b'a', b'b']);
                let parts = [client.seal(DATA, &begin), client.seal(DATA, &[]), client.seal(DATA, &end)];
                client.send(&parts.concat()).unwrap();
                replied(&mut client, offset);
            }
        })
        .await;
        assert_eq!(&fixture.device.bytes()[..5], b"aaaab");
        fixture.left("disk").await;
    }
}

async fn messages_that_have_no_place_end_the_session_and_nothing_behind_them_lands() {
    let (fixture, pki) = served().await;
    let long = [0; 16 << 10];
    let messages: [(u8, &'static [u8]); 10] = [
        (ALERT, &[2, 40]),
        (ALERT, &[]),
        (ALERT, &[1]),
        (ALERT, &[1, 0, 0]),
        (HANDSHAKE, &[]),
        (HANDSHAKE, &[0, 0, 0, 0]),
        (HANDSHAKE, &[24, 0, 0, 1, 2]),
        (HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]),
        (20, &[1]),
        (77, b"what?"),
    ];
    for version in VERSIONS {
        for (kind, message) in messages {
            ended(&fixture, &pki, version, move |client| {
                [client.seal(kind, message), client.seal(DATA, &write(0, b"bad"))].concat()
            })
            .await;
        }
        // Whoever says no more hears why.
        let said = ended(&fixture, &pki, version, |client| client.seal(HANDSHAKE, &[0, 0, 0, 0])).await;
        assert_eq!(said.as_deref(), Some(&UNEXPECTED_MESSAGE[..]));
        ended(&fixture, &pki, version, move |client| client.seal(HANDSHAKE, &long)).await;
    }
}

async fn a_key_update_is_followed_or_ends_the_session() {
    let (fixture, pki) = served().await;
    // Behind it nothing that was sealed with the old key is taken.
    for (version, message) in VERSIONS
        .into_iter()
        .flat_map(|version| [KEY_UPDATE, KEY_UPDATE_WANTED].map(|message| (version, message)))
    {
        ended(&fixture, &pki, version, move |client| {
            [client.seal(HANDSHAKE, &message), client.seal(DATA, &write(0, b"bad"))].concat()
        })
        .await;
    }
    // Since Linux 6.14 the kernel takes another key.
    let (port, other) = (fixture.port, pki.clone());
    blocking(move || {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        crate::talk::greet(&mut socket);
        crate::talk::answer(&mut socket, oma_nbd::protocol::NBD_OPT_STARTTLS, &[]);
        let mut client = StreamOwned::new(connection(&other, &[&TLS13]), socket);
        go(&mut client, "disk");
        for offset in 1..4 {
            client.conn.refresh_traffic_keys().unwrap();
            let mut reply = [0; SimpleReply::SIZE];
            let answered =
                client.write_all(&write(offset, b"new")).and_then(|()| client.read_exact(&mut reply));
            match answered {
                Ok(()) => assert_eq!(reply, SimpleReply { error: 0, cookie: offset }.encode()),
                Err(error) => {
                    let slow =
                        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                    assert!(!slow, "the server does not end the session");
                    break;
                }
            }
        }
    })
    .await;
    fixture.left("disk").await;
    let bytes = fixture.device.bytes();
    assert!(bytes[..6] == *b"\0nnnew" || bytes[..6] == [0; 6], "{:?}", &bytes[..6]);
}

async fn a_changed_record_ends_the_session_and_nothing_of_it_lands() {
    let (fixture, pki) = served().await;
    for version in VERSIONS {
        // A bit of the data, of the version, of the length, of the kind. That of 1.3 says nothing, and the kernel does not look at it.
        let places: &[usize] = if version == &TLS13 { &[60, 2, 4] } else { &[60, 2, 4, 0] };
        for at in places.iter().copied() {
            let said = ended(&fixture, &pki, version, move |client| {
                let mut record = client.seal(DATA, &write(0, &[7; 4096]));
                record[at] ^= 1;
                // Enough for one that is longer now.
                [&record[..], &[0; 16]].concat()
            });
            let said = said.await;
            assert!(said.is_none() || said.as_deref() == Some(&BAD_RECORD[..]), "{said:?}");
        }
        // One that is left out. Whoever says no more hears why.
        let said = ended(&fixture, &pki, version, |client| {
            client.seal(DATA, &request(NBD_CMD_READ, 0, 1));
            client.seal(DATA, &write(0, b"bad"))
        });
        assert_eq!(said.await.as_deref(), Some(&BAD_RECORD[..]));
        // One that is said twice.
        ended(&fixture, &pki, version, |client| {
            let record = client.seal(DATA, &request(NBD_CMD_READ, 0, 1));
            [record.clone(), record, client.seal(DATA, &write(0, b"bad"))].concat()
        })
        .await;
    }
}

async fn plain_requests_inside_a_session_are_never_interpreted() {
    let (fixture, pki) = served().await;
    for version in VERSIONS {
        ended(&fixture, &pki, version, |_| write(0, b"plain").repeat(8)).await;
        // In a record that says that it is not sealed.
        for kind in [20, ALERT, HANDSHAKE, DATA] {
            ended(&fixture, &pki, version, move |_| {
                let plain = write(0, b"plain");
                [&[kind, 3, 3, 0, plain.len().try_into().unwrap()], &plain[..]].concat()
            })
            .await;
        }
    }
}
