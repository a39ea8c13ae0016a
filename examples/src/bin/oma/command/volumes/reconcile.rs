use std::fs;
use std::path::Path;

use oma_core::engine::{
    Finding, ReconcilePlan, ReconcileServices, Reconciled, Reconciler, Reconciliation, VolumesConfig,
};
use oma_core::{Error, ErrorKind, Result};

use crate::appliance::Appliance;
use crate::command::Context;
use crate::table::{Align, Table};
use oma_examples::failure::Failed;
use oma_examples::output;
use oma_examples::source::Source;
use oma_examples::trail;
use serde_json::json;

/// Compares records and volumes; keeps the plan of what can be repaired when that is asked for.
pub(super) async fn compare(context: &Context, plan: Option<&Path>) -> Result<(), Failed> {
    let (appliance, reconciler) = open(context).await?;
    let found = reconciler.compare(None).await;
    appliance.close().await;
    let found = found?;
    if let Some(path) = plan {
        keep(path, &found.plan())?;
    }
    tell(&found, context.json)
}

/// Does what a plan says, step by step, and compares again.
pub(super) async fn repair(context: &Context, path: &Path) -> Result<(), Failed> {
    let plan = read(path)?;
    let (appliance, reconciler) = open(context).await?;
    let entry = trail::entry("volumes.repair", "plan", &path.display(), json!({ "steps": plan.steps.len() }));
    let done = appliance.recorded(entry, reconciler.execute(&plan)).await;
    appliance.close().await;
    tell_repaired(&done?, context.json)
}

/// What was found, wherever it was compared.
pub(crate) fn tell(found: &Reconciliation, json: bool) -> Result<(), Failed> {
    if json {
        output::json(&found)?;
    } else {
        print(found)?;
    }
    whole(found)
}

/// What was done, wherever it was.
pub(crate) fn tell_repaired(done: &Reconciled, json: bool) -> Result<(), Failed> {
    let Reconciled { steps, left } = done;
    if json {
        output::json(done)?;
    } else {
        for (step, outcome) in steps {
            output::line(format_args!("{}: {:?}: {outcome:?}", step.disk, step.repair))?;
        }
        print(left)?;
    }
    whole(left)
}

async fn open(context: &Context) -> Result<(Appliance, Reconciler)> {
    let appliance = Appliance::open(&context.data, Source::nothing()?).await?;
    let services = &appliance.services;
    let beside = ReconcileServices { inventory: services.inventory.clone(), points: services.points.clone() };
    let reconciler = Reconciler::new(appliance.volumes(VolumesConfig::default()), beside);
    Ok((appliance, reconciler))
}

/// Writes a plan, to be read and given to `repair`.
pub(crate) fn keep(path: &Path, plan: &ReconcilePlan) -> Result<()> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Unavailable, "write plan", path.display()).with_source(error)
    };
    let text = serde_json::to_vec_pretty(plan).map_err(|error| failed(error.into()))?;
    fs::write(path, text).map_err(|error| failed(error.into()))
}

/// Reads what [`keep`] wrote.
pub(crate) fn read(path: &Path) -> Result<ReconcilePlan> {
    let text = fs::read(path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, "read plan", path.display()).with_source(error)
    })?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(ErrorKind::Invalid, "read plan", path.display())
            .because(format!("it is none that `oma volumes compare --plan` wrote: {error}"))
    })
}

fn print(found: &Reconciliation) -> Result<()> {
    let mut table = Table::new(&[
        ("class", Align::Left),
        ("volume", Align::Left),
        ("disk", Align::Left),
        ("found", Align::Left),
        ("what to do", Align::Left),
    ]);
    for finding in &found.findings {
        table.row([
            finding.class.to_string(),
            finding.volume.as_ref().map(ToString::to_string).unwrap_or_default(),
            finding.disk.as_ref().map(ToString::to_string).unwrap_or_default(),
            finding.detail.clone(),
            what_to_do(finding),
        ]);
    }
    if !found.findings.is_empty() {
        output::line(table)?;
    }
    output::line(format_args!(
        "{} in order, {} not, {} changing, {} of others",
        found.in_order,
        found.findings.len(),
        found.moving,
        found.foreign
    ))
}

fn what_to_do(finding: &Finding) -> String {
    match (&finding.repair, &finding.withheld) {
        (Some(_), _) => "a plan repairs it".to_owned(),
        (None, Some(why)) => format!("withheld: {why}"),
        (None, None) => finding.class.advice().to_owned(),
    }
}

/// What is not in order is no success.
fn whole(found: &Reconciliation) -> Result<(), Failed> {
    if found.is_whole() {
        return Ok(());
    }
    let what = Error::new(ErrorKind::Mismatch, "compare", "records and volumes");
    Err(Failed::reported(what.because("not all is in order")))
}
