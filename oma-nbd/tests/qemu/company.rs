//! Others on the same machine.

use std::sync::Arc;
use std::time::Duration;

use oma_core::ErrorKind;
use oma_core::conformance::{Trial, trial};
use oma_core::traits::DiskSource;
use oma_nbd::qemu::QemuConfig;
use oma_nbd::{QemuSource, Uri};
use serde_json::json;

use crate::machine::{Machine, NEEDS, freeze, job, read, vm};
use crate::proxy::{Proxy, Trouble};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        &NEEDS;
        two_at_once_take_turns,
        a_machine_that_another_process_works_on_is_busy,
        a_monitor_that_somebody_else_uses_is_busy,
        an_nbd_server_of_somebody_else_is_left_alone,
        an_nbd_server_of_somebody_else_without_exports_is_not_stopped,
        an_nbd_server_of_somebody_else_can_be_used,
    ]
}

/// The same machine by another monitor.
fn beside(machine: &Machine) -> QemuConfig {
    QemuConfig { qmp: machine.socket("second"), ..machine.config() }
}

async fn two_at_once_take_turns() {
    let machine = Machine::start().await;
    machine.write("disk1", 5, 0, 512).await;
    let (one, other) = (machine.source(), QemuSource::new(beside(&machine)));
    let (first, second) = tokio::join!(freeze(&one, 1), freeze(&other, 2));
    machine.write("disk1", 6, 0, 512).await;
    assert_eq!(read(&one, &first.id, "disk1", 0).await, 5);
    assert_eq!(read(&other, &second.id, "disk1", 0).await, 5);
    let (first, second) = tokio::join!(one.release(&first.id), other.release(&second.id));
    first.and(second).unwrap();
    assert_eq!(machine.leavings().await, [""; 0]);
}

async fn a_machine_that_another_process_works_on_is_busy() {
    let machine = Machine::start().await;
    let held = Trouble::HoldBack("blockdev-reopen");
    let proxy = Proxy::start(machine.socket("proxy"), &machine.socket("second"), &held);
    let slow = QemuSource::new(QemuConfig { qmp: proxy.socket.clone(), ..machine.config() });
    let slow = Arc::new(slow);
    let freezing = tokio::spawn({
        let slow = Arc::clone(&slow);
        async move { freeze(&*slow, 1).await }
    });
    proxy.held.notified().await;
    let hasty = QemuConfig { busy_timeout: Duration::from_millis(300), ..machine.config() };
    let error = QemuSource::new(hasty).freeze(&vm(), &job(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    assert!(error.chain().contains("another process"), "{}", error.chain());
    proxy.go_on.notify_one();
    let point = freezing.await.unwrap();
    assert_eq!(read(&*slow, &point.id, "disk0", 0).await, 0);
}

async fn a_monitor_that_somebody_else_uses_is_busy() {
    let machine = Machine::start().await;
    let _other = tokio::net::UnixStream::connect(machine.socket("qmp")).await.unwrap();
    let hasty = QemuConfig { busy_timeout: Duration::from_millis(300), ..machine.config() };
    let error = QemuSource::new(hasty).discover(&vm()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    assert!(error.chain().contains("one client"), "{}", error.chain());
}

async fn serve_theirs(machine: &Machine) {
    let address = json!({ "type": "unix", "data": { "path": machine.socket("theirs") } });
    machine.ask("nbd-server-start", json!({ "addr": address })).await;
}

pub(crate) async fn start_theirs(machine: &Machine) {
    serve_theirs(machine).await;
    let export = json!({ "type": "nbd", "id": "theirs", "node-name": "n0", "writable": false });
    machine.ask("block-export-add", export).await;
}

async fn an_nbd_server_of_somebody_else_is_left_alone() {
    let machine = Machine::start().await;
    start_theirs(&machine).await;
    let error = machine.source().freeze(&vm(), &job(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    assert_eq!(machine.leavings().await, [""; 0]);
    let exports = machine.ask("query-block-exports", json!({})).await;
    assert_eq!(exports.as_array().unwrap().len(), 1);
}

async fn an_nbd_server_of_somebody_else_without_exports_is_not_stopped() {
    let machine = Machine::start().await;
    let source = machine.source();
    let lost = freeze(&source, 1).await;
    // Its socket's file stays.
    machine.kill().await;
    machine.boot(&[]).await;
    serve_theirs(&machine).await;
    let error = source.freeze(&vm(), &job(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    source.release(&lost.id).await.unwrap();
    tokio::net::UnixStream::connect(machine.socket("theirs")).await.unwrap();
    assert_eq!(machine.leavings().await, [""; 0]);
    machine.ask("nbd-server-stop", json!({})).await;
    let point = freeze(&source, 3).await;
    source.release(&point.id).await.unwrap();
    // Ours was stopped: there can be only one.
    serve_theirs(&machine).await;
}

async fn an_nbd_server_of_somebody_else_can_be_used() {
    let machine = Machine::start().await;
    start_theirs(&machine).await;
    let theirs = Uri::unix(machine.socket("theirs"), "").unwrap();
    let source = QemuSource::new(QemuConfig { nbd_server: Some(theirs), ..machine.config() });
    let point = freeze(&source, 1).await;
    assert_eq!(read(&source, &point.id, "disk0", 0).await, 0);
    source.release(&point.id).await.unwrap();
    assert_eq!(machine.ask("query-block-exports", json!({})).await.as_array().unwrap().len(), 1);
}
