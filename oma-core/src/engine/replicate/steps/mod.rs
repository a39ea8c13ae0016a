//! The steps of a job, in order. Each may run twice; a crash between any two loses nothing.

mod commit;
mod confirm;
mod copy;
mod freeze;
mod plan;
mod provision;
mod publish;
mod push;
mod repair;
mod snapshot;
mod stamp;
mod verify;
mod withdraw;

use futures_util::StreamExt as _;
use tracing::{Instrument as _, Span};

use super::Step;
use super::run::Run;
use crate::Result;
use crate::engine::config::{ReplicateRequest, VerifyLevel};
use crate::engine::progress::Event;
use crate::engine::spans;
use crate::state::JobEvent;
use crate::traits::Export;

/// The order is the proof: nothing is committed that was not copied, flushed and verified before (L08).
const STEPS: [Step; 9] = [
    Step { name: "freeze", asked: always, enter: None, run: |run| Box::pin(freeze::freeze(run)) },
    Step {
        name: "provision",
        asked: always,
        enter: Some(JobEvent::Provision),
        run: |run| Box::pin(provision::provision(run)),
    },
    Step { name: "publish", asked: always, enter: None, run: |run| Box::pin(publish::publish(run)) },
    Step {
        name: "plan",
        asked: always,
        enter: Some(JobEvent::Prepared),
        run: |run| Box::pin(plan::plan(run)),
    },
    Step { name: "copy", asked: always, enter: Some(JobEvent::Copy), run: |run| Box::pin(copy::copy(run)) },
    Step {
        name: "verify",
        asked: |request| request.verify != VerifyLevel::None,
        enter: Some(JobEvent::Copied),
        run: |run| Box::pin(verify::verify(run)),
    },
    Step { name: "withdraw", asked: always, enter: None, run: |run| Box::pin(leave(run)) },
    Step {
        name: "snapshot",
        asked: |request| request.points.is_some(),
        enter: None,
        run: |run| Box::pin(snapshot::snapshot(run)),
    },
    Step { name: "commit", asked: always, enter: None, run: |run| Box::pin(commit::commit(run)) },
];

/// Runs every step, then lets the source's point in time go, and recovery points that need not be kept.
pub(super) async fn drive(run: &mut Run<'_>) -> Result<()> {
    for step in &STEPS {
        run.check_stop()?;
        let told = (step.asked)(run.request);
        let span = if told { spans::step(step.name) } else { Span::none() };
        take(run, step, told)
            .instrument(span.clone())
            .await
            .inspect_err(|error| spans::failed(&span, error))?;
    }
    withdraw::release(run).await;
    snapshot::sweep(run, run.request.points).await;
    Ok(())
}

async fn take(run: &mut Run<'_>, step: &Step, told: bool) -> Result<()> {
    if told {
        run.progress.event(Event::StepBegins(step.name));
    }
    if let Some(event) = step.enter {
        run.enter(event).await?;
    }
    (step.run)(run).await?;
    if told {
        run.progress.event(Event::StepEnded(step.name));
    }
    Ok(())
}

const fn always(_: &ReplicateRequest) -> bool {
    true
}

/// Leaves source and volumes, once nothing can write to them any more.
async fn leave(run: &mut Run<'_>) -> Result<()> {
    withdraw::withdraw(run).await?;
    push::nothing_late(run)?;
    confirm::confirm(run).await?;
    close(run).await
}

/// Closes every volume that is not served any more, with its stamp.
async fn close(run: &mut Run<'_>) -> Result<()> {
    for disk in run.disks.iter_mut().filter(|disk| disk.export.is_none()) {
        if let Some(pushed) = disk.pushed.take() {
            disk.counters.flush_in_doubt |= pushed.is_in_doubt();
        }
    }
    stamp::leave(run).await
}

/// Takes back what a job that stopped short has published and frozen. What cannot be is reported and stays recorded.
pub(super) async fn clean(run: &mut Run<'_>) {
    if let Err(error) = withdraw::withdraw(run).await {
        run.warn(format!("an export is still published: {}", error.chain()));
    }
    if let Err(error) = close(run).await {
        let lost = "if somebody else writes to a volume before the next run, that will not be noticed";
        run.warn(format!("{lost}: {}", error.chain()));
    }
    withdraw::release(run).await;
}

/// Stops serving what this run has published; the records belong to whoever took the job over (L16).
pub(super) async fn abandon(run: &mut Run<'_>) {
    let (server, fence) = (&run.services.server, run.lease.fence);
    let ours = |export: &Result<Export>| export.as_ref().is_ok_and(|export| export.fence == fence);
    let served: Vec<_> = server.list().filter(|export| std::future::ready(ours(export))).collect().await;
    for name in run.disks.iter().filter_map(|disk| disk.export.as_ref()) {
        if served.iter().flatten().any(|export| export.name == *name)
            && let Err(error) = server.withdraw(name, run.config.drain).await
        {
            tracing::error!(export = %name, error = %error.chain(), "still served after the lease was lost");
        }
    }
}
