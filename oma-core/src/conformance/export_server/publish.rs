//! Publishing.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::super::runner::table;
use super::{Case, ExportSubject, SIZE, device, held, name, read, read_only, spec, with_fence, write};
use crate::traits::{Access, Export, ExportSpec};
use crate::{ErrorKind, Fence};

pub(super) fn cases() -> Vec<Case<ExportSubject>> {
    table![
        a_published_export_is_listed_as_it_was_asked_for,
        exports_are_listed_by_name,
        l22_publishing_touches_no_other_connection,
        the_same_token_and_export_change_nothing,
        the_same_token_with_something_else_is_refused,
        l16_a_smaller_token_is_refused,
        l16_a_larger_token_cuts_off_the_old_clients,
        l16_no_write_of_the_old_token_lands_after_the_new_one_is_published,
        l06_a_device_is_not_written_through_two_exports,
        l06_a_device_is_not_written_while_it_is_exported_at_all,
        a_device_is_read_through_many_exports,
        a_read_only_device_is_not_published_for_writing,
    ]
}

async fn a_published_export_is_listed_as_it_was_asked_for(subject: ExportSubject) {
    let expected = Export {
        name: name("a"),
        description: "the export a".to_owned(),
        access: Access::ReadWrite,
        fence: Fence(5),
        capacity: SIZE,
        device: crate::traits::DeviceIdentity("d".to_owned()),
    };
    assert_eq!(subject.publish(spec("a", &device("d"))).await, expected);
    let listed: Vec<_> = subject.server.list().try_collect().await.unwrap();
    assert_eq!(listed, [expected]);
    let client = subject.client("a").await;
    assert_eq!((client.info().capacity, client.info().access), (SIZE, Access::ReadWrite));
}

async fn exports_are_listed_by_name(subject: ExportSubject) {
    assert!(subject.names().await.is_empty());
    for text in ["b", "a", "c"] {
        subject.publish(spec(text, &device(text))).await;
    }
    assert_eq!(subject.names().await, ["a", "b", "c"]);
}

async fn l22_publishing_touches_no_other_connection(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    let client = subject.client("a").await;
    subject.publish(spec("b", &device("e"))).await;
    subject.server.publish(spec("b", &device("d"))).await.unwrap_err();
    subject.publish(with_fence(6, spec("b", &device("e")))).await;
    write(&*client, "still here").await.unwrap();
}

async fn the_same_token_and_export_change_nothing(subject: ExportSubject) {
    let device = device("d");
    let first = subject.publish(spec("a", &device)).await;
    let client = subject.client("a").await;
    assert_eq!(subject.publish(spec("a", &device)).await, first);
    write(&*client, "still here").await.unwrap();
    assert_eq!(subject.statistics("a").await.unwrap().bytes_written, 10);
}

async fn the_same_token_with_something_else_is_refused(subject: ExportSubject) {
    let d = device("d");
    subject.publish(spec("a", &d)).await;
    let client = subject.client("a").await;
    let described = ExportSpec { description: "another".to_owned(), ..spec("a", &d) };
    for other in [spec("a", &device("e")), read_only(spec("a", &d)), described] {
        assert_eq!(subject.server.publish(other).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    write(&*client, "still here").await.unwrap();
}

async fn l16_a_smaller_token_is_refused(subject: ExportSubject) {
    let d = device("d");
    subject.publish(spec("a", &d)).await;
    let client = subject.client("a").await;
    for stale in [spec("a", &d), spec("a", &device("e"))] {
        let refused = subject.server.publish(with_fence(4, stale)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Fenced);
    }
    write(&*client, "still here").await.unwrap();
}

async fn l16_a_larger_token_cuts_off_the_old_clients(subject: ExportSubject) {
    let (old, new) = (device("d"), device("e"));
    subject.publish(spec("a", &old)).await;
    let stale = subject.client("a").await;
    write(&*stale, "old").await.unwrap();
    assert_eq!(subject.publish(with_fence(6, spec("a", &new))).await.fence, Fence(6));
    assert_eq!(write(&*stale, "late").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(&old.bytes()[..4], b"old\0");
    write(&*subject.client("a").await, "new").await.unwrap();
    assert_eq!(&new.bytes()[..4], b"new\0");
    assert_eq!(subject.names().await, ["a"]);
}

async fn l16_no_write_of_the_old_token_lands_after_the_new_one_is_published(subject: ExportSubject) {
    let d = device("d");
    let (slow, hold) = held(spec("a", &d));
    subject.publish(slow).await;
    let stale = subject.client("a").await;
    hold.hold();
    let writing = tokio::spawn(async move { write(&*stale, "old").await });
    hold.reached(1).await;
    let server = subject.server.clone();
    let newer = with_fence(6, spec("a", &d));
    let publishing = tokio::spawn(async move { server.publish(newer).await });
    hold.release();
    publishing.await.unwrap().unwrap();
    let (bytes, calls) = (d.bytes(), d.calls());
    // It may have failed or not; what counts is that nothing moves any more.
    let _ = writing.await.unwrap();
    assert!(bytes == d.bytes() && calls == d.calls());
}

async fn l06_a_device_is_not_written_through_two_exports(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    let second = subject.server.publish(with_fence(9, spec("b", &device("d")))).await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(subject.names().await, ["a"]);
    assert!(subject.is_refused("b").await);
}

async fn l06_a_device_is_not_written_while_it_is_exported_at_all(subject: ExportSubject) {
    let (d, e) = (device("d"), device("e"));
    subject.publish(spec("a", &d)).await;
    subject.publish(read_only(spec("b", &e))).await;
    for other in [read_only(spec("c", &d)), spec("c", &e)] {
        assert_eq!(subject.server.publish(other).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
}

async fn a_device_is_read_through_many_exports(subject: ExportSubject) {
    let d = device("d");
    write(&d, "both").await.unwrap();
    for text in ["a", "b"] {
        subject.publish(read_only(spec(text, &d))).await;
        assert_eq!(read(&*subject.client(text).await, 4).await.unwrap(), "both");
    }
}

async fn a_read_only_device_is_not_published_for_writing(subject: ExportSubject) {
    let locked = ExportSpec { device: Arc::new(device("d").read_only()), ..spec("a", &device("d")) };
    assert_eq!(subject.server.publish(locked.clone()).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(subject.names().await.is_empty());
    subject.publish(read_only(locked)).await;
}
