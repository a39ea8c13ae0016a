//! What clients get, and what is counted of them.

use super::super::runner::table;
use super::{Case, ExportSubject, SIZE, device, name, read, read_only, spec, write};
use crate::traits::Durability::{Cached, Durable};
use crate::traits::{Access, ExportStatistics, Zeroing};
use crate::{ErrorKind, Extent};

pub(super) fn cases() -> Vec<Case<ExportSubject>> {
    table![
        clients_share_one_content,
        a_flush_of_one_client_covers_the_writes_of_all,
        a_client_of_a_read_only_export_changes_nothing,
        an_export_that_is_not_served_is_not_opened,
        requests_and_bytes_are_counted,
        errors_are_counted,
        connections_are_counted_while_they_last,
        an_export_that_is_not_served_has_no_statistics,
    ]
}

async fn clients_share_one_content(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    let (one, other) = (subject.client("a").await, subject.client("a").await);
    write(&*one, "hello").await.unwrap();
    assert_eq!(read(&*other, 5).await.unwrap(), "hello");
}

async fn a_flush_of_one_client_covers_the_writes_of_all(subject: ExportSubject) {
    let d = device("d");
    subject.publish(spec("a", &d)).await;
    let (one, other) = (subject.client("a").await, subject.client("a").await);
    write(&*one, "hello").await.unwrap();
    assert!(!d.unflushed().is_empty());
    other.flush().await.unwrap();
    assert!(d.unflushed().is_empty());
}

async fn a_client_of_a_read_only_export_changes_nothing(subject: ExportSubject) {
    let d = device("d");
    subject.publish(read_only(spec("a", &d))).await;
    let client = subject.client("a").await;
    assert_eq!(client.info().access, Access::ReadOnly);
    let all = Extent::new(0, SIZE.bytes()).unwrap();
    let zeroed = client.write_zeroes(all, Zeroing::Punch, Durable).await;
    for refused in [write(&*client, "x").await, zeroed, client.trim(all).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    let calls = d.calls();
    assert_eq!((calls.writes, calls.zeroes, calls.trims), (0, 0, 0));
}

async fn an_export_that_is_not_served_is_not_opened(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    let refused = (subject.connect)(name("b")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

async fn requests_and_bytes_are_counted(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    assert_eq!(subject.statistics("a").await, Some(ExportStatistics::default()));
    let client = subject.client("a").await;
    write(&*client, "hello").await.unwrap();
    client.write_at(9, bytes::Bytes::from_static(b"x"), Cached).await.unwrap();
    read(&*client, 3).await.unwrap();
    client.flush().await.unwrap();
    let expected =
        ExportStatistics { connections: 1, requests: 4, errors: 0, bytes_read: 3, bytes_written: 6 };
    let found = subject.statistics("a").await.unwrap();
    assert_eq!(ExportStatistics { connections: found.connections.min(1), ..found }, expected);
}

async fn errors_are_counted(subject: ExportSubject) {
    let d = device("d");
    subject.publish(spec("a", &d)).await;
    let client = subject.client("a").await;
    d.cut(0);
    read(&*client, 3).await.unwrap_err();
    let found = subject.statistics("a").await.unwrap();
    assert_eq!((found.errors, found.bytes_read), (1, 0));
}

async fn connections_are_counted_while_they_last(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    let (one, other) = (subject.client("a").await, subject.client("a").await);
    let both = subject.statistics("a").await.unwrap().connections;
    assert!(both >= 2);
    drop(one);
    // A client that leaves does not wait for the server to notice.
    while subject.statistics("a").await.unwrap().connections >= both {
        tokio::task::yield_now().await;
    }
    drop(other);
    while subject.statistics("a").await.unwrap().connections > 0 {
        tokio::task::yield_now().await;
    }
}

async fn an_export_that_is_not_served_has_no_statistics(subject: ExportSubject) {
    assert_eq!(subject.statistics("a").await, None);
    subject.publish(spec("a", &device("d"))).await;
    subject.withdraw("a").await;
    assert_eq!(subject.statistics("a").await, None);
}
