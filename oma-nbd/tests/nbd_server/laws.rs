//! Laws of exports, with a server that knows nothing of them.

use std::time::Duration;

use bytes::Bytes;
use oma_core::conformance::{Trial, trial};
use oma_core::traits::{Access, BlockDevice, Drained, Durability, ExportServer, ExportSpec};
use oma_core::{ErrorKind, Fence, Result};
use oma_nbd::Client;
use oma_nbd::nbd_server::{NbdServerConfig, Overdue};

use crate::fixture::NBD_SERVER;
use crate::site::{Site, name, spec};

/// A deadline that is not reached.
const LONG: Duration = Duration::from_secs(60);
/// A deadline that is.
const SHORT: Duration = Duration::from_millis(50);

macro_rules! each {
    ($($case:ident),+ $(,)?) => { vec![$(trial(stringify!($case), &[NBD_SERVER], $case)),+] };
}
pub(crate) use each;

pub(crate) fn trials() -> Vec<Trial> {
    each![
        a_published_export_is_served_as_asked,
        another_handle_knows_what_was_published,
        l22_adding_and_removing_leaves_every_other_connection_alone,
        l23_a_withdrawal_waits_for_clients_that_leave,
        l23_clients_that_stay_are_cut_off_and_write_nothing_more,
        l23_clients_that_must_not_be_cut_keep_the_export_listed_and_closed,
        l16_an_older_token_is_refused_and_a_newer_one_cuts_it_off,
        l06_a_device_that_the_site_serves_itself_is_refused,
        a_name_is_not_served_for_reading_after_it_was_for_writing,
        names_that_are_not_ours_are_refused,
        connections_are_counted,
    ]
}

async fn write(client: &Client, text: &'static str) -> Result<()> {
    client.write_at(0, Bytes::from_static(text.as_bytes()), Durability::Cached).await
}

async fn a_published_export_is_served_as_asked() {
    let site = Site::new().await;
    let before = site.text();
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    let locked = ExportSpec { access: Access::ReadOnly, ..spec("b", "e") };
    server.publish(locked).await.unwrap();
    let (a, b) = (site.connect("a").await.unwrap(), site.connect("b").await.unwrap());
    assert_eq!((a.info().access, b.info().access), (Access::ReadWrite, Access::ReadOnly));
    write(&a, "hello").await.unwrap();
    a.flush().await.unwrap();
    assert_eq!(&site.bytes("d")[..5], b"hello");
    drop((a, b));
    for export in ["a", "b"] {
        server.withdraw(&name(export), LONG).await.unwrap();
        assert!(site.connect(export).await.is_err());
    }
    assert_eq!(site.text(), format!("{before}\n"));
    site.connect("theirs").await.unwrap();
}

async fn another_handle_knows_what_was_published() {
    let site = Site::new().await;
    let export = site.server().publish(spec("a", "d")).await.unwrap();
    let other = site.server();
    let listed: Vec<_> = futures_util::TryStreamExt::try_collect(other.list()).await.unwrap();
    assert_eq!(listed, [export]);
    assert_eq!(other.withdraw(&name("a"), LONG).await.unwrap(), Drained::Graceful);
}

async fn l22_adding_and_removing_leaves_every_other_connection_alone() {
    let site = Site::new().await;
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    let pid = std::fs::read_to_string(site.pid_file()).unwrap();
    let clients = [site.connect("theirs").await.unwrap(), site.connect("a").await.unwrap()];
    for client in &clients {
        write(client, "before").await.unwrap();
    }
    server.publish(spec("b", "e")).await.unwrap();
    server.withdraw(&name("b"), LONG).await.unwrap();
    for client in &clients {
        // It would fail on another connection than the one that wrote.
        client.flush().await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(site.pid_file()).unwrap(), pid);
}

async fn l23_a_withdrawal_waits_for_clients_that_leave() {
    let site = Site::new().await;
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    let client = site.connect("a").await.unwrap();
    let mut withdrawing = tokio::spawn(async move { server.withdraw(&name("a"), LONG).await });
    while site.connect("a").await.is_ok() {}
    write(&client, "in time").await.unwrap();
    assert!(tokio::time::timeout(10 * SHORT, &mut withdrawing).await.is_err(), "a client is there");
    client.close().await;
    assert_eq!(withdrawing.await.unwrap().unwrap(), Drained::Graceful);
    assert_eq!(&site.bytes("d")[..7], b"in time");
}

async fn l23_clients_that_stay_are_cut_off_and_write_nothing_more() {
    let site = Site::new().await;
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    let client = site.connect("a").await.unwrap();
    write(&client, "old").await.unwrap();
    assert_eq!(server.withdraw(&name("a"), SHORT).await.unwrap(), Drained::Cut);
    for _ in 0..3 {
        write(&client, "late").await.unwrap_err();
    }
    assert_eq!(&site.bytes("d")[..4], b"old\0");
    assert_eq!(server.withdraw(&name("a"), SHORT).await.unwrap(), Drained::Absent);
}

async fn l23_clients_that_must_not_be_cut_keep_the_export_listed_and_closed() {
    let site = Site::new().await;
    let server = site.server_with(NbdServerConfig { overdue: Overdue::Wait, ..site.config() });
    server.publish(spec("a", "d")).await.unwrap();
    let client = site.connect("a").await.unwrap();
    let busy = server.withdraw(&name("a"), SHORT).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(site.text().contains("[a]"), "a write may land yet");
    assert!(site.connect("a").await.is_err());
    let taken = server.publish(spec("b", "d")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    write(&client, "still here").await.unwrap();
    client.close().await;
    assert_eq!(server.withdraw(&name("a"), LONG).await.unwrap(), Drained::Graceful);
}

async fn l16_an_older_token_is_refused_and_a_newer_one_cuts_it_off() {
    let site = Site::new().await;
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    let stale = site.connect("a").await.unwrap();
    write(&stale, "old").await.unwrap();
    let older = ExportSpec { fence: Fence(4), ..spec("a", "d") };
    assert_eq!(site.server().publish(older).await.unwrap_err().kind(), ErrorKind::Fenced);
    let newer = ExportSpec { fence: Fence(6), ..spec("a", "e") };
    assert_eq!(site.server().publish(newer).await.unwrap().fence, Fence(6));
    // Whether it fails or comes back through the new export: nothing reaches the old device.
    let _ = write(&stale, "late").await;
    assert_eq!(&site.bytes("d")[..4], b"old\0");
    write(&site.connect("a").await.unwrap(), "new").await.unwrap();
    assert_eq!(&site.bytes("e")[..3], b"new");
}

async fn l06_a_device_that_the_site_serves_itself_is_refused() {
    let site = Site::new().await;
    let before = site.text();
    std::os::unix::fs::symlink(site.peer.path("theirs.raw"), site.peer.path("other-name")).unwrap();
    for device in ["theirs.raw", "other-name"] {
        let refused = site.server().publish(spec("a", device)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.chain().contains("[theirs]"), "{}", refused.chain());
    }
    assert_eq!(site.text(), before);
}

async fn a_name_is_not_served_for_reading_after_it_was_for_writing() {
    let site = Site::new().await;
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    server.withdraw(&name("a"), LONG).await.unwrap();
    let locked = ExportSpec { access: Access::ReadOnly, ..spec("a", "d") };
    let refused = server.publish(locked).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.chain().contains("restarted"), "{}", refused.chain());
    assert!(!site.text().contains("[a]"), "what is not served as asked is not listed");
    assert!(site.connect("a").await.is_err());
}

async fn names_that_are_not_ours_are_refused() {
    let site = Site::new().await;
    let before = site.text();
    for (export, kind) in
        [("theirs", ErrorKind::AlreadyExists), ("generic", ErrorKind::Invalid), ("a]", ErrorKind::Invalid)]
    {
        assert_eq!(site.server().publish(spec(export, "d")).await.unwrap_err().kind(), kind, "{export}");
    }
    assert_eq!(site.server().withdraw(&name("theirs"), SHORT).await.unwrap(), Drained::Absent);
    assert_eq!(site.text(), before);
}

async fn connections_are_counted() {
    let site = Site::new().await;
    let server = site.server();
    server.publish(spec("a", "d")).await.unwrap();
    let client = site.connect("a").await.unwrap();
    let counted = server.statistics(&name("a")).await.unwrap().unwrap();
    assert!(counted.connections >= 1);
    client.close().await;
    while server.statistics(&name("a")).await.unwrap().unwrap().connections > 0 {
        tokio::task::yield_now().await;
    }
}
