use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::service::VolumeService;
use crate::{ContextId, JobId, OperationId};

/// The jobs that this process drives, each with its VM and the operation that it carries out.
#[derive(Debug, Default)]
pub(in crate::engine) struct Driven {
    jobs: Mutex<HashMap<JobId, (ContextId, Option<OperationId>)>>,
    ended: Notify,
}

impl Driven {
    /// Whether this operation is carried out.
    pub(in crate::engine) fn has(&self, id: &OperationId) -> bool {
        self.jobs().values().any(|(_, driven)| driven.as_ref() == Some(id))
    }

    pub(in crate::engine) fn has_job(&self, job: &JobId) -> bool {
        self.jobs().contains_key(job)
    }

    /// The operation that is carried out for this VM.
    pub(super) fn of(&self, context: &ContextId) -> Option<OperationId> {
        self.jobs().values().find(|(of, _)| of == context).and_then(|(_, id)| id.clone())
    }

    /// Ends when a job is driven no more, from the moment of this call on.
    pub(super) fn one_ends(&self) -> Notified<'_> {
        self.ended.notified()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, (ContextId, Option<OperationId>)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job is driven until this is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Driving {
    service: VolumeService,
    job: JobId,
}

impl Driving {
    pub(super) fn begin(
        service: &VolumeService,
        job: &JobId,
        context: &ContextId,
        operation: Option<&OperationId>,
    ) -> Self {
        service.driven().jobs().insert(job.clone(), (context.clone(), operation.cloned()));
        Self { service: service.clone(), job: job.clone() }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.service.driven().jobs().remove(&self.job);
        self.service.driven().ended.notify_waiters();
    }
}
