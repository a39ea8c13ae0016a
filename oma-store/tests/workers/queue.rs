//! The queue: VMs with one live job each, and what became of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use futures_util::TryStreamExt;
use oma_core::JobId;
use oma_core::record::{JobFilter, ReplicationJob};
use oma_core::traits::JobStore;
use oma_store::SqlStore;

use crate::place::{Kind, Place};

/// Rows of one statement.
const AT_ONCE: usize = 500;

pub(crate) fn job(number: usize) -> String {
    format!("job-20250821-{number:06}")
}

/// Many VMs and jobs at once, as the store records them one by one. They are due since long, by whatever clock.
pub(crate) async fn fill(place: &Place, jobs: usize) {
    let past = match place.kind() {
        Kind::Sqlite => "1755770000000",
        Kind::Server(_) => "'2025-08-21 09:53:20.000'",
    };
    let mut hand = place.hand().await;
    for first in (0..jobs).step_by(AT_ONCE) {
        let numbers = first..jobs.min(first + AT_ONCE);
        let rows = |row: &dyn Fn(usize) -> String| {
            numbers.clone().map(|number| format!("({})", row(number))).collect::<Vec<_>>().join(", ")
        };
        let mut text = String::new();
        let vms = rows(&|n| {
            format!(
                "'ctx-{n}', 'uuid-{n}', 'vcenter-{}', 'vm {n}', '/DC/vm/{n}', 'replicating', 1, {past}, {past}, {past}",
                n % 5
            )
        });
        let begun = rows(&|n| {
            format!(
                "'{}', 'ctx-{n}', 'uuid-{n}', 'vm {n}', '/DC/vm/{n}', 'vcenter-{}', 'initial', 1, '[\"disk-2000\"]', {}, \
                 {past}, {past}, {past}, 'anybody''s'",
                job(n),
                n % 5,
                n % 3
            )
        });
        let disks =
            rows(&|n| format!("'ctx-{n}', '{}', 'disk-2000', '[ds] {n}', 1048576, {past}, {past}", job(n)));
        write!(
            text,
            "INSERT INTO vm_replication_contexts (context_id, vmware_vm_id, vcenter_host, vm_name, vm_path, \
             current_status, total_jobs_run, created_at, updated_at, last_status_change) VALUES {vms};
             INSERT INTO replication_jobs (id, vm_context_id, source_vm_id, source_vm_name, source_vm_path, vcenter_host, \
             replication_type, epoch, disk_ids, priority, due_at, created_at, updated_at, request) VALUES {begun};
             INSERT INTO vm_disks (vm_context_id, job_id, disk_id, vm_dk_path, capacity_bytes, created_at, updated_at) \
             VALUES {disks};"
        )
        .unwrap();
        hand.execute(&text).await.unwrap();
    }
    let current =
        "(SELECT j.id FROM replication_jobs j WHERE j.vm_context_id = vm_replication_contexts.context_id)";
    hand.execute(&format!("UPDATE vm_replication_contexts SET current_job_id = {current}")).await.unwrap();
}

pub(crate) async fn is_done(store: &SqlStore) -> bool {
    let live = JobFilter { live_only: true, ..JobFilter::default() };
    store.list(live).try_next().await.unwrap().is_none()
}

pub(crate) async fn ended(store: &SqlStore) -> BTreeMap<JobId, ReplicationJob> {
    store.list(JobFilter::default()).map_ok(|job| (job.id.clone(), job)).try_collect().await.unwrap()
}
