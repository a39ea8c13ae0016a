//! Withdrawing.

use super::super::runner::table;
use super::{Case, ExportSubject, LONG, SHORT, device, held, name, read, spec, with_fence, write};
use crate::ErrorKind;
use crate::traits::Drained;

pub(super) fn cases() -> Vec<Case<ExportSubject>> {
    table![
        an_unknown_export_is_absent,
        withdrawing_twice_is_absent_the_second_time,
        l22_withdrawing_touches_no_other_connection,
        l23_a_withdrawn_export_disconnects_its_clients_and_takes_no_new_ones,
        l23_requests_in_flight_finish,
        l23_a_device_that_does_not_answer_keeps_its_export_listed_and_closed,
        a_withdrawal_that_was_dropped_can_be_asked_for_again,
        a_withdrawn_name_and_device_are_free_again,
    ]
}

async fn an_unknown_export_is_absent(subject: ExportSubject) {
    assert_eq!(subject.withdraw("a").await, Drained::Absent);
}

async fn withdrawing_twice_is_absent_the_second_time(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    assert_eq!(subject.withdraw("a").await, Drained::Graceful);
    assert_eq!(subject.withdraw("a").await, Drained::Absent);
    assert!(subject.names().await.is_empty());
}

async fn l22_withdrawing_touches_no_other_connection(subject: ExportSubject) {
    subject.publish(spec("a", &device("d"))).await;
    subject.publish(spec("b", &device("e"))).await;
    let (_gone, other) = (subject.client("a").await, subject.client("b").await);
    assert_eq!(subject.withdraw("a").await, Drained::Graceful);
    write(&*other, "still here").await.unwrap();
    assert_eq!(read(&*other, 10).await.unwrap(), "still here");
}

async fn l23_a_withdrawn_export_disconnects_its_clients_and_takes_no_new_ones(subject: ExportSubject) {
    let d = device("d");
    subject.publish(spec("a", &d)).await;
    let client = subject.client("a").await;
    subject.withdraw("a").await;
    assert_eq!(write(&*client, "late").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(read(&*client, 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(subject.is_refused("a").await);
    assert_eq!(d.calls().writes, 0);
}

async fn l23_requests_in_flight_finish(subject: ExportSubject) {
    let d = device("d");
    let (slow, hold) = held(spec("a", &d));
    subject.publish(slow).await;
    let client = subject.client("a").await;
    hold.hold();
    let writing = tokio::spawn(async move { write(&*client, "in time").await });
    hold.reached(1).await;
    let server = subject.server.clone();
    let withdrawing = tokio::spawn(async move { server.withdraw(&name("a"), LONG).await });
    while !subject.is_refused("a").await {}
    assert!(!withdrawing.is_finished());
    hold.release();
    writing.await.unwrap().unwrap();
    assert_eq!(withdrawing.await.unwrap().unwrap(), Drained::Graceful);
    assert_eq!(&d.bytes()[..7], b"in time");
}

async fn l23_a_device_that_does_not_answer_keeps_its_export_listed_and_closed(subject: ExportSubject) {
    let d = device("d");
    let (slow, hold) = held(spec("a", &d));
    subject.publish(slow).await;
    let client = subject.client("a").await;
    hold.hold();
    let writing = tokio::spawn(async move { write(&*client, "stuck").await });
    hold.reached(1).await;
    let busy = subject.server.withdraw(&name("a"), SHORT).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert_eq!(subject.names().await, ["a"], "its write may land yet");
    let taken = subject.server.publish(spec("b", &d)).await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(subject.is_refused("a").await);
    hold.release();
    assert_ne!(subject.withdraw("a").await, Drained::Absent);
    let _ = writing.await.unwrap();
    assert!(subject.names().await.is_empty());
}

async fn a_withdrawal_that_was_dropped_can_be_asked_for_again(subject: ExportSubject) {
    let (slow, hold) = held(spec("a", &device("d")));
    subject.publish(slow).await;
    let client = subject.client("a").await;
    hold.hold();
    let writing = tokio::spawn(async move { write(&*client, "x").await });
    hold.reached(1).await;
    let dropped = name("a");
    assert!(tokio::time::timeout(SHORT, subject.server.withdraw(&dropped, LONG)).await.is_err());
    hold.release();
    writing.await.unwrap().unwrap();
    subject.withdraw("a").await;
    assert!(subject.names().await.is_empty());
}

async fn a_withdrawn_name_and_device_are_free_again(subject: ExportSubject) {
    let d = device("d");
    subject.publish(spec("a", &d)).await;
    write(&*subject.client("a").await, "kept").await.unwrap();
    subject.withdraw("a").await;
    subject.publish(spec("b", &d)).await;
    subject.publish(with_fence(1, spec("a", &device("e")))).await;
    assert_eq!(read(&*subject.client("b").await, 4).await.unwrap(), "kept");
    assert_eq!(read(&*subject.client("a").await, 4).await.unwrap(), "\0\0\0\0");
}
