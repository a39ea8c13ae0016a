//! What every source promises, on machines with a qcow2 and a raw disk.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oma_core::DiskKey;
use oma_core::conformance::{
    SourceSubject, SourceWorld, Trial, cases_needing, disk_source_cases, snapshot_source_cases,
    tracking_source_cases,
};
use serde_json::json;

use crate::machine::{Machine, NEEDS, vm};

pub(crate) fn trials() -> Vec<Trial> {
    let cases = disk_source_cases().into_iter().chain(snapshot_source_cases()).chain(tracking_source_cases());
    cases_needing("qemu", &NEEDS, &cases.collect::<Vec<_>>(), subject)
}

#[derive(Debug)]
struct Guest(Arc<Machine>);

#[async_trait]
impl SourceWorld for Guest {
    async fn write(&self, key: &DiskKey, offset: u64, data: Bytes) {
        std::fs::write(self.0.socket("data"), &data).unwrap();
        let said = self.0.guest(key.as_str(), &format!("write -s data {offset} {}", data.len())).await;
        assert!(said.contains("wrote"), "{said}");
    }

    async fn reset_tracking(&self, key: &DiskKey) {
        let node = key.as_str().replace("disk", "n");
        for name in self.0.bitmaps(&node).await {
            self.0.ask("block-dirty-bitmap-remove", json!({ "node": node, "name": name })).await;
        }
    }
}

async fn subject() -> SourceSubject {
    let machine = Arc::new(Machine::start().await);
    SourceSubject {
        source: Arc::new(machine.source()),
        vm: vm(),
        world: Arc::new(Guest(Arc::clone(&machine))),
        guard: Box::new(machine),
    }
}
