//! Failover jobs, which no trait makes yet.

use std::sync::Arc;

use oma_core::conformance::AddFailover;
use oma_core::record::FailoverRecord;

use crate::automation::execute;

/// Makes failover jobs in the database that a URL names, or lets them stand otherwise.
pub(crate) fn failover(url: String) -> AddFailover {
    Arc::new(move |record| {
        let url = url.clone();
        Box::pin(async move { add(&url, &record).await })
    })
}

async fn add(url: &str, failover: &FailoverRecord) {
    let now = if url.starts_with("sqlite:") { "0" } else { "CURRENT_TIMESTAMP(3)" };
    let text = |text: Option<&str>| text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"));
    let FailoverRecord { id, context, replication_job, kind, status, destination_vm } = failover;
    let job = text(replication_job.as_ref().map(|job| job.as_str()));
    let made = text(destination_vm.as_deref());
    let statements = format!(
        "DELETE FROM failover_jobs WHERE job_id = '{id}'; \
         INSERT INTO failover_jobs (job_id, vm_context_id, vm_id, replication_job_id, job_type, status, source_vm_name, \
         destination_vm_id, created_at, updated_at) VALUES ('{id}', '{context}', 'u', {job}, '{kind}', '{status}', 'web', {made}, \
         {now}, {now})"
    );
    execute(url, &statements).await;
}
