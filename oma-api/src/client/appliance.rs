//! The appliance, as an agent that pushes asks it.

use std::fmt;
use std::time::Duration;

use oma_core::{ChangeId, DiskKey, Error, ErrorKind, ExtentSet, JobId, Result, VmPath};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{RemoteConfig, Token};
use super::error::Failure;
use super::http::{Asked, Http, promptly};
use crate::{
    ChangeIdAnswer, FinishedExtents, Page, PushFailed, PushRow, RecordChangeId, ReplicationRequest,
    ReplicationRow,
};

/// So many rows at once.
pub(super) const ROWS: (&str, &str) = ("limit", "1000");
/// No page has more.
const MOST: usize = 1000;
/// What reads or changes all that an appliance has may take so long.
const LONG: Duration = Duration::from_hours(1);

/// Replications of an appliance, over HTTP. A call that was not answered may be repeated: each answers the same a second time.
#[derive(Debug)]
pub struct Appliance {
    http: Http,
}

impl Appliance {
    /// An appliance at this address. Nothing is asked of it yet.
    ///
    /// # Errors
    /// `Invalid` for a configuration that can never work; what the system answers of the file of authorities.
    pub async fn new(config: &RemoteConfig, token: Option<Token>) -> Result<Self> {
        let asked = config.clone();
        // It reads files.
        let made = tokio::task::spawn_blocking(move || Http::new(&asked, token)).await;
        let made = made.unwrap_or(Err(Failure::Tls));
        let shown = config.address.rsplit('@').next().unwrap_or_default();
        Ok(Self { http: made.map_err(|failure| failure.at("connect to appliance", shown))? })
    }

    /// Asks for a replication. The same key and request answer the same job.
    ///
    /// # Errors
    /// As the route answers; `Unavailable` when nobody answers, and nothing is known of the job then.
    pub async fn begin(&self, key: &str, request: &ReplicationRequest) -> Result<ReplicationRow> {
        let asked = Asked { key: Some(key), body: Some(request), ..Asked::default() };
        self.ask(Method::POST, &["replications"], asked, &request.vm_path).await
    }

    /// The live job of a VM, if there is one that the token sees.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn live(&self, vm: &VmPath) -> Result<Option<ReplicationRow>> {
        let mut after: Option<String> = None;
        loop {
            let mut query = vec![("live", "true"), ("limit", "1000")];
            query.extend(after.as_deref().map(|after| ("after", after)));
            let asked = Asked::<()> { query: &query, ..Asked::default() };
            let found: Page<ReplicationRow> = self.ask(Method::GET, &["replications"], asked, vm).await?;
            let of_vm = found.items.into_iter().find(|job| job.vm_path.as_ref() == Some(vm));
            match (of_vm, found.next) {
                (None, Some(next)) => after = Some(next),
                (of_vm, _) => return Ok(of_vm),
            }
        }
    }

    /// A job.
    ///
    /// # Errors
    /// `NotFound`, also for one that the token does not see; as [`Appliance::begin`].
    pub async fn job(&self, job: &JobId) -> Result<ReplicationRow> {
        self.ask(Method::GET, &["replications", job.as_str()], Asked::<()>::default(), job).await
    }

    /// What the agent of a job has to know.
    ///
    /// # Errors
    /// As [`Appliance::job`]; `Conflict` for a job that no agent pushes.
    pub async fn push(&self, job: &JobId) -> Result<PushRow> {
        self.ask(Method::GET, &["replications", job.as_str(), "push"], Asked::<()>::default(), job).await
    }

    /// Whether an export can be used from here, as [`Appliance::push`] told of it.
    ///
    /// # Errors
    /// `Unsupported` when it is on a socket or on the loopback of another machine, or without TLS where that was not allowed.
    pub fn check_export(&self, uri: &str) -> Result<()> {
        self.http.check_content(uri).map_err(|failure| failure.at("open export of", self.http.name()))
    }

    /// Tells that extents are copied.
    ///
    /// # Errors
    /// As the route answers; as [`Appliance::begin`].
    /// `Conflict` for another attempt than the one under way, told by its fence.
    pub async fn finished(&self, job: &JobId, disk: &DiskKey, fence: u64, extents: ExtentSet) -> Result<()> {
        let body = FinishedExtents { fence, extents };
        let path = ["replications", job.as_str(), "disks", disk.as_str(), "finished"];
        self.say(&path, &body, disk).await
    }

    /// Reports a disk to be complete.
    ///
    /// # Errors
    /// As the route answers; as [`Appliance::begin`].
    pub async fn report(&self, job: &JobId, report: &RecordChangeId) -> Result<ChangeIdAnswer> {
        let asked = Asked { body: Some(report), ..Asked::default() };
        self.ask(Method::POST, &["replications", job.as_str(), "changeid"], asked, job).await
    }

    /// Gives a job up.
    ///
    /// # Errors
    /// As the route answers; as [`Appliance::begin`].
    pub async fn give_up(&self, job: &JobId, why: &PushFailed) -> Result<ReplicationRow> {
        let asked = Asked { body: Some(why), ..Asked::default() };
        self.ask(Method::POST, &["replications", job.as_str(), "failed"], asked, job).await
    }

    /// Has a job cancelled, by whoever drives it.
    ///
    /// # Errors
    /// As the route answers; as [`Appliance::begin`].
    pub async fn cancel(&self, job: &JobId) -> Result<ReplicationRow> {
        self.ask(Method::POST, &["replications", job.as_str(), "cancel"], Asked::<()>::default(), job).await
    }

    /// The change id of a disk's last committed epoch; none of a disk that has none, or is not known yet.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn change_id(&self, vm: &VmPath, disk: &DiskKey) -> Result<Option<ChangeId>> {
        let query = [("vm_path", vm.as_str()), ("disk_id", disk.as_str())];
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        let found: Result<ChangeIdAnswer> =
            self.ask(Method::GET, &["replications", "changeid"], asked, disk).await;
        match found {
            Ok(found) => Ok(found.change_id),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn ask<T: DeserializeOwned, B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        asked: Asked<'_, B>,
        of: &impl fmt::Display,
    ) -> Result<T> {
        self.ask_within(self.http.answer_limit(), method, path, asked, of).await
    }

    /// Asks what the appliance is to wait for, no longer than so.
    pub(super) async fn ask_waiting<T: DeserializeOwned, B: Serialize>(
        &self,
        within: Duration,
        method: Method,
        path: &[&str],
        asked: Asked<'_, B>,
        of: &impl fmt::Display,
    ) -> Result<T> {
        self.ask_within(self.http.answer_limit() + within, method, path, asked, of).await
    }

    /// Asks what takes the appliance long.
    pub(super) async fn ask_long<T: DeserializeOwned, B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        asked: Asked<'_, B>,
        of: &impl fmt::Display,
    ) -> Result<T> {
        self.ask_within(LONG, method, path, asked, of).await
    }

    async fn ask_within<T: DeserializeOwned, B: Serialize>(
        &self,
        limit: Duration,
        method: Method,
        path: &[&str],
        asked: Asked<'_, B>,
        of: &impl fmt::Display,
    ) -> Result<T> {
        let answer = promptly(limit, async { self.http.ask(method, path, asked).await?.body().await });
        answer.await.map_err(|failure| failed(failure, of))
    }

    /// All of a list.
    pub(super) async fn all<T: DeserializeOwned>(
        &self,
        path: &[&str],
        wanted: &[(&str, &str)],
        of: impl fmt::Display,
    ) -> Result<Vec<T>> {
        self.first(usize::MAX, path, wanted, of).await
    }

    /// So many of a list, from its beginning.
    pub(super) async fn first<T: DeserializeOwned>(
        &self,
        limit: usize,
        path: &[&str],
        wanted: &[(&str, &str)],
        of: impl fmt::Display,
    ) -> Result<Vec<T>> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let left = limit - all.len();
            if left == 0 {
                return Ok(all);
            }
            let rows = left.min(MOST).to_string();
            let mut query = [&[("limit", rows.as_str())], wanted].concat();
            query.extend(after.as_deref().map(|after| ("after", after)));
            let asked = Asked::<()> { query: &query, ..Asked::default() };
            let found: Page<T> = self.ask(Method::GET, path, asked, &of).await?;
            all.extend(found.items.into_iter().take(left));
            match found.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Has something removed that is named by its path, which is answered with nothing.
    pub(super) async fn remove(&self, path: &[&str], of: &impl fmt::Display) -> Result<()> {
        let asked = Asked::<()>::default();
        let answer = async { self.http.ask(Method::DELETE, path, asked).await?.nothing().await };
        self.http.promptly(answer).await.map_err(|failure| failed(failure, of))
    }

    /// Asks for what may be answered with nothing.
    pub(super) async fn ask_maybe<T: DeserializeOwned, B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        asked: Asked<'_, B>,
        of: &impl fmt::Display,
    ) -> Result<Option<T>> {
        let answer = self.http.promptly(async { self.http.ask(method, path, asked).await?.maybe().await });
        answer.await.map_err(|failure| failed(failure, of))
    }

    /// Says what is answered with nothing.
    async fn say<B: Serialize>(&self, path: &[&str], body: &B, of: &impl fmt::Display) -> Result<()> {
        let asked = Asked { body: Some(body), ..Asked::default() };
        let answer = async { self.http.ask(Method::POST, path, asked).await?.nothing().await };
        self.http.promptly(answer).await.map_err(|failure| failed(failure, of))
    }
}

fn failed(failure: Failure, of: &impl fmt::Display) -> Error {
    failure.at("ask appliance for", of)
}
