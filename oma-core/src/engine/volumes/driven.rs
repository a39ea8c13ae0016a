use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;

use super::service::VolumeService;
use crate::{ContextId, JobId, OperationId};

/// The jobs that this process drives.
#[derive(Debug, Default)]
pub(in crate::engine) struct Driven {
    jobs: Mutex<HashMap<JobId, DrivenJob>>,
    ended: Notify,
}

#[derive(Debug)]
struct DrivenJob {
    context: ContextId,
    /// What it carries out.
    operation: Option<OperationId>,
    /// Has it let go.
    stop: CancellationToken,
}

impl Driven {
    /// Whether this operation is carried out.
    pub(in crate::engine) fn has(&self, id: &OperationId) -> bool {
        self.jobs().values().any(|driven| driven.operation.as_ref() == Some(id))
    }

    pub(in crate::engine) fn has_job(&self, job: &JobId) -> bool {
        self.jobs().contains_key(job)
    }

    /// The operation that is carried out for this VM.
    pub(super) fn of(&self, context: &ContextId) -> Option<OperationId> {
        self.jobs()
            .values()
            .find(|driven| driven.context == *context)
            .and_then(|driven| driven.operation.clone())
    }

    /// Has who carries this operation out let go of it, and waits until that is done.
    pub(super) async fn let_go(&self, id: &OperationId) {
        loop {
            let ended = self.one_ends();
            match self.jobs().values().find(|driven| driven.operation.as_ref() == Some(id)) {
                None => return,
                Some(driven) => driven.stop.cancel(),
            }
            ended.await;
        }
    }

    /// Ends when a job is driven no more, from the moment of this call on.
    pub(super) fn one_ends(&self) -> Notified<'_> {
        self.ended.notified()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, DrivenJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job is driven until this is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Driving {
    service: VolumeService,
    job: JobId,
    /// Ends when this process is to go on with it no more.
    pub(super) stop: CancellationToken,
}

impl Driving {
    pub(super) fn begin(
        service: &VolumeService,
        job: &JobId,
        context: &ContextId,
        operation: Option<&OperationId>,
    ) -> Self {
        let stop = service.stop().child_token();
        let driven =
            DrivenJob { context: context.clone(), operation: operation.cloned(), stop: stop.clone() };
        service.driven().jobs().insert(job.clone(), driven);
        Self { service: service.clone(), job: job.clone(), stop }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.service.driven().jobs().remove(&self.job);
        self.service.driven().ended.notify_waiters();
    }
}
