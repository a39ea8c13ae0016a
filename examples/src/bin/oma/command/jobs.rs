use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt};
use oma_api::JobRow;
use oma_core::Result;
use oma_core::record::JobFilter;
use oma_core::state::JobKind;
use oma_core::traits::{Inventory, JobStore};

use super::Context;
use crate::appliance;
use crate::args::JobsArgs;
use crate::table::{Align, Table};
use oma_examples::output;
use oma_store::SqlStore;

/// Lists jobs, also while another process replicates.
pub(super) async fn run(context: &Context, args: &JobsArgs) -> Result<()> {
    let store = appliance::open_records(&context.data).await?;
    let rows = rows(&store, args).await;
    store.close().await;
    print(rows?, context.json)
}

async fn rows(store: &SqlStore, args: &JobsArgs) -> Result<Vec<JobRow>> {
    let mut filter = JobFilter {
        live_only: args.live,
        statuses: args.status.iter().copied().collect(),
        order: args.order,
        ..JobFilter::default()
    };
    if let Some(path) = &args.vm_path {
        let Some(vm) = store.by_path(path).await? else { return Ok(Vec::new()) };
        filter.context = Some(vm.id);
    }
    let vms: HashMap<_, _> = store.contexts(None).map_ok(|vm| (vm.id.clone(), vm)).try_collect().await?;
    let jobs = store.list(filter).take(args.limit.unwrap_or(usize::MAX));
    jobs.map_ok(|job| JobRow::new(vms.get(&job.context), &job)).try_collect().await
}

/// Wherever they are from.
pub(crate) fn print(rows: Vec<JobRow>, json: bool) -> Result<()> {
    if json { output::json(&rows) } else { output::line(table(rows)) }
}

fn table(rows: Vec<JobRow>) -> Table {
    let mut table = Table::new(&[
        ("job", Align::Left),
        ("VM", Align::Left),
        ("type", Align::Left),
        ("status", Align::Left),
        ("epoch", Align::Right),
        ("began", Align::Left),
        ("ended", Align::Left),
        ("error", Align::Left),
    ]);
    for row in rows {
        let (what, epoch) = match row.kind {
            JobKind::Replicate => (row.replication_type.to_string(), row.epoch.to_string()),
            JobKind::Revert | JobKind::Operate => (row.kind.to_string(), String::new()),
        };
        table.row([
            row.job_id.to_string(),
            row.vm_path.map(String::from).unwrap_or_default(),
            what,
            row.status.to_string(),
            epoch,
            row.created_at,
            row.completed_at.unwrap_or_default(),
            row.error.unwrap_or_default(),
        ]);
    }
    table
}
