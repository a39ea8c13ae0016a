//! Asynchronous jobs: one queue per machine, results that are kept for a while.
//!
//! ```text
//!  accepted ──▶ waits behind others of its machine ──▶ first: entity in transition ──▶ done: 1 or 2
//!                                                       asked often enough, time, step
//! ```

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use serde_json::{Value, json};

use super::clock;
use super::commands::{Body, Call, Command, Target};
use super::error::ApiError;
use super::faults::What;
use super::model::VolumeState;
use super::options::Pace;
use super::params::parse_custom;
use super::world::World;

/// `job.expire.minutes`
const EXPIRE: Duration = Duration::from_hours(24);
/// `job.cancel.threshold.minutes`
const CANCEL: Duration = Duration::from_hours(1);

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: Uuid,
    pub(crate) command: &'static Command,
    pub(crate) call: Call,
    /// What it is about: kind and id.
    pub(crate) instance: Option<(&'static str, Uuid)>,
    /// The machine in whose queue it stands.
    queue: Option<Uuid>,
    /// The volume whose state shows that it is at work.
    volume: Option<Uuid>,
    /// What the first look at the command's conditions found wrong.
    refused: Option<ApiError>,
    /// So many polls, if not as many as others.
    slow: Option<u32>,
    asked: u32,
    /// Since when it is its queue's first.
    begun: Option<OffsetDateTime>,
    /// The state of its volume before it was the queue's first.
    before: Option<VolumeState>,
    created: OffsetDateTime,
    /// When it ended, and with what; no result at all after a restart of the management server.
    ended: Option<(OffsetDateTime, Option<Result<Value, ApiError>>)>,
    /// The record expired.
    pub(crate) purged: bool,
}

impl Job {
    pub(crate) fn is_live(&self) -> bool {
        self.ended.is_none()
    }

    pub(crate) fn is_about(&self, id: Uuid) -> bool {
        self.instance.is_some_and(|(_, instance)| instance == id)
    }

    /// The object of queryAsyncJobResult and listAsyncJobs.
    pub(crate) fn view(&self, user: Uuid) -> Value {
        let mut view = json!({
            "jobid": self.id, "jobprocstatus": 0, "jobstatus": 0, "jobresultcode": 0, "cmd": self.command.java_class(),
            "accountid": self.call.caller.account, "userid": user, "created": clock::text(self.created),
            "jobinstancetype": self.instance.map(|(kind, _)| kind), "jobinstanceid": self.instance.map(|(_, id)| id),
        });
        let Some((moment, outcome)) = &self.ended else { return view };
        view["completed"] = json!(clock::text(*moment));
        view["jobresulttype"] = json!("object");
        let (status, code, result) = match outcome {
            Some(Ok(result)) => (1, 0, result.clone()),
            Some(Err(error)) => (2, error.code, error.job_result()),
            None => (2, 530, Value::Null),
        };
        view["jobstatus"] = json!(status);
        view["jobresultcode"] = json!(code);
        view["jobresult"] = result;
        view
    }
}

/// A job that is about to be recorded.
pub(crate) struct Submission {
    pub(crate) command: &'static Command,
    pub(crate) call: Call,
    /// What it is about; nothing, when that was refused.
    pub(crate) target: Option<Target>,
    pub(crate) refused: Option<ApiError>,
}

impl World {
    /// Records a job. A `customjobid` is checked here, which is after a create command has made its row.
    pub(crate) fn submit(&mut self, submission: Submission) -> Result<Uuid, ApiError> {
        let Submission { command, call, target, refused } = submission;
        let id = self.job_id(call.params.text("customjobid"))?;
        let slow = self.faults.take(command.name, |what| match what {
            What::Slow(polls) => Some(polls),
            _ => None,
        });
        let created = self.clock.now();
        self.jobs.push(Job {
            id,
            command,
            call,
            instance: target.map(|target| (target.kind, target.id)),
            queue: target.and_then(|target| target.queue),
            volume: target.and_then(|target| target.volume),
            refused,
            slow,
            asked: 0,
            begun: None,
            before: None,
            created,
            ended: None,
            purged: false,
        });
        self.begin_first();
        Ok(id)
    }

    fn job_id(&self, custom: Option<&str>) -> Result<Uuid, ApiError> {
        let Some(text) = custom.filter(|text| !text.is_empty()) else { return Ok(Uuid::new_v4()) };
        let id = parse_custom(text)
            .ok_or_else(|| ApiError::parameter(format!("UUID: {text} doesn't follow the UUID format")))?;
        match self.jobs.iter().find(|job| job.id == id && !job.purged) {
            None => Ok(id),
            Some(job) if job.is_live() => {
                let text = format!("UUID: {id} already exists so can't create/update with custom id");
                Err(ApiError::parameter(text))
            }
            Some(_) => Err(ApiError::internal(format!("Duplicate entry '{id}' for key 'async_job.uuid'"))),
        }
    }

    /// A queue's first job begins, and its volume shows it.
    fn begin_first(&mut self) {
        let now = self.clock.now();
        for index in 0..self.jobs.len() {
            let job = &self.jobs[index];
            if !job.is_live() || job.begun.is_some() || self.first_before(index) != index {
                continue;
            }
            if let (Some(id), Some(state)) = (job.volume, job.command.transition) {
                let before = std::mem::replace(&mut self.volume_mut(id).state, state);
                self.jobs[index].before = Some(before);
            }
            self.jobs[index].begun = Some(now);
        }
    }

    /// The first live job of the queue of this one.
    fn first_before(&self, index: usize) -> usize {
        let Some(queue) = self.jobs[index].queue else { return index };
        let first = self.jobs.iter().position(|job| job.is_live() && job.queue == Some(queue));
        first.unwrap_or(index)
    }

    /// Somebody asks about a job.
    pub(crate) fn ask(&mut self, id: Uuid) {
        let Some(index) = self.jobs.iter().position(|job| job.id == id && job.is_live()) else { return };
        let Pace::Polls(polls) = self.options.pace else { return };
        let first = self.first_before(index);
        self.jobs[first].asked += 1;
        if self.jobs[first].asked >= self.jobs[first].slow.unwrap_or(polls) {
            self.finish(first);
        }
    }

    /// Somebody looks at things that jobs may be about.
    pub(crate) fn ask_about(&mut self, ids: &[Uuid]) {
        if !self.options.lists_ask {
            return;
        }
        let live = self.jobs.iter().filter(|job| job.is_live() && ids.iter().any(|id| job.is_about(*id)));
        let jobs: Vec<_> = live.map(|job| job.id).collect();
        jobs.into_iter().for_each(|job| self.ask(job));
    }

    /// Records of jobs that ended long ago expire; jobs that are at work for too long are cancelled.
    pub(crate) fn clean_up(&mut self) {
        let now = self.clock.now();
        for index in 0..self.jobs.len() {
            let job = &mut self.jobs[index];
            job.purged |= job.ended.as_ref().is_some_and(|(moment, _)| *moment + EXPIRE < now);
            if job.is_live() && job.created + CANCEL < now {
                self.restore(index);
                let error = ApiError::runtime("Job is cancelled as it has been blocking others for too long");
                self.jobs[index].ended = Some((now, Some(Err(error))));
            }
        }
        self.begin_first();
    }

    /// Jobs whose time has come.
    pub(crate) fn finish_due(&mut self) {
        let Pace::Time(takes) = self.options.pace else { return };
        let now = self.clock.now();
        let due = |job: &Job| job.is_live() && job.begun.is_some_and(|begun| begun + takes <= now);
        while let Some(index) = self.jobs.iter().position(due) {
            self.finish(index);
        }
    }

    /// The oldest job that is its queue's first comes to its end; its id.
    pub(crate) fn step(&mut self) -> Option<Uuid> {
        let index = self.jobs.iter().position(|job| job.is_live() && job.begun.is_some())?;
        self.finish(index);
        Some(self.jobs[index].id)
    }

    pub(crate) fn finish(&mut self, index: usize) {
        self.restore(index);
        let job = self.jobs[index].clone();
        let outcome = match (job.refused, &job.command.body) {
            (Some(error), _) => Err(error),
            (None, Body::Async { run, .. }) => run(self, &job.call),
            (None, Body::Create { run, .. }) => run(self, &job.call, job.instance.expect("a row was made").1),
            (None, Body::Sync(_)) => unreachable!("it has no job"),
        };
        self.jobs[index].ended = Some((self.clock.now(), Some(outcome)));
        self.begin_first();
    }

    /// A job and those before it come to their ends; its result.
    pub(crate) fn complete(&mut self, id: Uuid) -> Result<Value, ApiError> {
        let index = self.jobs.iter().position(|job| job.id == id).expect("it was recorded");
        while self.jobs[index].is_live() {
            let first = self.first_before(index);
            self.finish(first);
        }
        self.jobs[index].ended.clone().and_then(|(_, outcome)| outcome).expect("it ended with a result")
    }

    fn restore(&mut self, index: usize) {
        if let (Some(before), Some(id)) = (self.jobs[index].before.take(), self.jobs[index].volume) {
            self.volume_mut(id).state = before;
        }
    }

    /// The management server restarts: every live job has failed without a result. `done` says whether what they were about
    /// happened all the same.
    pub(crate) fn restart(&mut self, done: bool) {
        while let Some(index) = self.jobs.iter().position(Job::is_live) {
            if done {
                self.finish(index);
            }
            self.restore(index);
            self.jobs[index].ended = Some((self.clock.now(), None));
        }
    }

    /// Records of jobs that ended expire.
    pub(crate) fn purge_jobs(&mut self) {
        self.jobs.iter_mut().filter(|job| !job.is_live()).for_each(|job| job.purged = true);
    }
}
