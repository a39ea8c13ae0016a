//! The appliance, as an operator's program asks it.

use oma_core::record::Order;
use oma_core::state::{JobStatus, LogLevel};
use oma_core::{JobId, Result, VmPath};
use reqwest::Method;

use super::appliance::{Appliance, ROWS};
use super::http::Asked;
use crate::{JobLineRow, JobStepRow, Page, ProgressRow, ReplicationRow};

/// What may be wanted of a replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// It ends without its epoch.
    Cancel,
    /// It rests until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It is attempted at once; of one that has ended, another one is begun.
    Retry,
}

impl Steer {
    const fn route(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }
}

/// Which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// Those that stand in one of these ways; of none: however they stand.
    pub statuses: Vec<JobStatus>,
    /// Those that have not ended.
    pub live: bool,
    /// Those of the VM that has this path.
    pub vm_path: Option<VmPath>,
    /// Which way the list goes.
    pub order: Order,
    /// No more than so many, from its beginning.
    pub limit: Option<usize>,
}

/// Which lines of a job's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Those of this step.
    pub step: Option<u32>,
    /// Those that matter at least so much.
    pub least: Option<LogLevel>,
    /// Those behind this line.
    pub after: Option<u64>,
}

impl Appliance {
    /// Jobs, in the order in which they were recorded. It is asked for page by page: what is recorded meanwhile is told at an end that is
    /// not read yet, or not at all.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn jobs(&self, wanted: &Jobs) -> Result<Vec<ReplicationRow>> {
        let labels: Vec<_> = wanted.statuses.iter().map(|status| status.as_str()).collect();
        let (statuses, path) = (labels.join(","), wanted.vm_path.clone().map(String::from));
        let mut query = Vec::new();
        query.extend((!statuses.is_empty()).then_some(("status", statuses.as_str())));
        query.extend(wanted.live.then_some(("live", "true")));
        query.extend(path.as_deref().map(|path| ("vm_path", path)));
        query.extend((wanted.order != Order::default()).then_some(("order", wanted.order.as_str())));
        self.first(wanted.limit.unwrap_or(usize::MAX), &["replications"], &query, "the list of jobs").await
    }

    /// How far a job is.
    ///
    /// # Errors
    /// As [`Appliance::job`].
    pub async fn progress(&self, job: &JobId) -> Result<ProgressRow> {
        self.ask(Method::GET, &["replications", job.as_str(), "progress"], Asked::<()>::default(), job).await
    }

    /// Has something else done with a job: answered before it is so.
    ///
    /// # Errors
    /// As [`Appliance::job`]; `Conflict` when it has ended, or stands otherwise in the way of it.
    pub async fn steer(&self, job: &JobId, steer: Steer) -> Result<ReplicationRow> {
        let path = ["replications", job.as_str(), steer.route()];
        self.ask(Method::POST, &path, Asked::<()>::default(), job).await
    }

    /// The steps of a job, in order.
    ///
    /// # Errors
    /// As [`Appliance::job`].
    pub async fn steps(&self, job: &JobId) -> Result<Vec<JobStepRow>> {
        self.all(&["replications", job.as_str(), "steps"], &[], job).await
    }

    /// Some lines of a job's log, in order; none where there are no more yet.
    ///
    /// # Errors
    /// As [`Appliance::job`].
    pub async fn lines(&self, job: &JobId, wanted: &Lines) -> Result<Vec<JobLineRow>> {
        let step = wanted.step.map(|step| step.to_string());
        let level = wanted.least.map(|level| level.to_string());
        let mut query = vec![ROWS];
        let after = wanted.after.map(|line| line.to_string());
        let told = [("step", &step), ("level", &level), ("after", &after)];
        query.extend(told.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        let found: Page<JobLineRow> =
            self.ask(Method::GET, &["replications", job.as_str(), "logs"], asked, job).await?;
        Ok(found.items)
    }
}
