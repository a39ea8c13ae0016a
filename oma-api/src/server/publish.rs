//! Open volumes under names of their own, each until somebody lets go of it.
//!
//! ```text
//!  open volume ──► keeper: publish ── until let go of, not renewed, or the daemon ends ──► withdraw (drain) ──► close
//!                    │ told: URI
//!                  Published  (a session of the backend routes, or an export of an operator)
//! ```
//!
//! What is asked for under a name is served by an [`ExportServer`]; nothing of it outlives this process (L24).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use oma_core::engine::CancellationToken;
use oma_core::traits::{Access, BlockDevice, ExportServer, ExportSpec, ExportStatistics};
use oma_core::{
    ByteSize, Clock as _, Error, ErrorKind, ExportName, Fence, InstanceId, Result, Retry, SystemClock,
    Timestamp, VolumeId,
};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::access::Principal;
use super::origin::Origin;
use super::turns::Turns;

/// How long clients of an export may finish what they asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a server that cannot be asked to withdraw is left in peace.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a session lasts that is not renewed: as long as the lease of a job, unless it was configured otherwise.
const LEASE: Duration = Duration::from_secs(30);
/// How long a volume that is busy is waited for, when it may be one of ours that is being closed just now.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tells clients where exports are.
pub trait ExportAddress: fmt::Debug + Send + Sync + 'static {
    /// The URI of an export of this name, for whoever asks from there.
    ///
    /// # Errors
    /// `Invalid` when there can be none of this name.
    fn uri(&self, name: &ExportName, asker: Origin) -> Result<String>;
}

/// Publishes open volumes and closes them again. A clone is another handle on the same.
///
/// Names are random, so that nobody meets another one's export; who may open them is the export server's to say.
#[derive(Clone, Debug)]
pub struct Publisher {
    inner: Arc<Inner>,
    lease: Duration,
}

#[derive(Debug)]
struct Inner {
    operators: Arc<dyn ExportServer>,
    sessions: Arc<dyn ExportServer>,
    address: Arc<dyn ExportAddress>,
    table: Mutex<BTreeMap<ExportName, Arc<Published>>>,
    shutdown: CancellationToken,
    /// Of requests with the same key.
    turns: Turns,
}

/// Whose an export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Of whoever opened a volume over the backend routes, for as long as it has it open.
    Session(Opener),
    /// Of operators, until they withdraw it; with the key of the request for it.
    Operator(Option<String>),
}

/// Who opened a volume over the backend routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opener {
    /// An id for operators: the export's name is the client's.
    pub(super) session: String,
    /// Whose token it was.
    pub(super) principal: String,
    /// Whose the volume is.
    pub(super) deployment: InstanceId,
    /// Since when it is open.
    pub(super) since: Timestamp,
}

impl Opener {
    /// A session that begins now.
    pub(super) fn new(principal: &Principal, deployment: InstanceId) -> Self {
        let session = Uuid::new_v4().simple().to_string();
        Self { session, principal: principal.name.clone(), deployment, since: SystemClock.now() }
    }
}

/// A volume that is open and served.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) name: ExportName,
    pub(super) volume: VolumeId,
    pub(super) capacity: ByteSize,
    pub(super) access: Access,
    purpose: Purpose,
    lease: Duration,
    renewals: watch::Sender<Timestamp>,
    let_go: CancellationToken,
    closed: CancellationToken,
}

impl Published {
    /// Whoever opened it is alive.
    pub(super) fn renew(&self) {
        self.renewals.send_replace(SystemClock.now());
    }

    /// When whoever opened it was heard last.
    pub(super) fn renewed_at(&self) -> Timestamp {
        *self.renewals.borrow()
    }

    /// How long it lasts that is not renewed.
    pub(super) const fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether the request that it was served for bore this key.
    pub(super) fn is_of_key(&self, key: &str) -> bool {
        matches!(&self.purpose, Purpose::Operator(Some(own)) if own == key)
    }

    /// Has it withdrawn and closed.
    pub(super) fn let_go(&self) {
        self.let_go.cancel();
    }

    /// Whether it is about to be withdrawn.
    pub(super) fn is_let_go(&self) -> bool {
        self.let_go.is_cancelled()
    }

    /// Returns once it is withdrawn and its volume closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Returns once it is to be closed. Only a lease that has ended ends a session whose client says nothing (L17): one that is stopped,
    /// or cut off, keeps nobody from the volume, and finds its export gone when it comes back (L16).
    async fn is_let_go_of(&self) {
        let mut renewals = self.renewals.subscribe();
        let silent = async {
            if matches!(self.purpose, Purpose::Operator(_)) {
                return std::future::pending().await;
            }
            while timeout(self.lease, renewals.changed()).await.is_ok() {}
        };
        tokio::select! {
            () = self.let_go.cancelled() => {}
            () = silent => {
                let (volume, lease) = (&self.volume, self.lease.as_secs_f64());
                tracing::warn!(%volume, "its client was not heard for {lease} s: the session is ended");
            }
        }
    }
}

impl Publisher {
    /// Publishes through this server, whose exports are at these addresses.
    #[must_use]
    pub fn new(server: Arc<dyn ExportServer>, address: Arc<dyn ExportAddress>) -> Self {
        Self::apart(server.clone(), server, address)
    }

    /// The same; what other deployments have open goes through another server, such as one that lists it to nobody.
    #[must_use]
    pub fn apart(
        operators: Arc<dyn ExportServer>,
        sessions: Arc<dyn ExportServer>,
        address: Arc<dyn ExportAddress>,
    ) -> Self {
        let (table, shutdown, turns) = (Mutex::default(), CancellationToken::new(), Turns::default());
        let inner = Arc::new(Inner { operators, sessions, address, table, shutdown, turns });
        Self { inner, lease: LEASE }
    }

    /// The same; a session that is not renewed lasts so long. Clients renew three times as often.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// Withdraws and closes everything, and lets nothing new be opened: before the sockets of the routes are closed, because the
    /// answers to opens last until then.
    pub async fn close(&self) {
        self.inner.shutdown.cancel();
        let all: Vec<_> = self.inner.table().values().cloned().collect();
        join_all(all.iter().map(|one| one.closed())).await;
    }

    /// Serves an open volume until it is let go of. A caller that is given up meanwhile leaves nothing behind.
    pub(super) async fn publish(
        &self,
        volume: VolumeId,
        device: Arc<dyn BlockDevice>,
        purpose: Purpose,
    ) -> Result<Arc<Published>> {
        let name = ExportName::parse(format!("oma-{}", Uuid::new_v4().simple()))
            .map_err(|error| Error::new(ErrorKind::Internal, "name export", &volume).with_source(error))?;
        let info = device.info();
        let published = Arc::new(Published {
            name: name.clone(),
            volume,
            capacity: info.capacity,
            access: info.access,
            purpose,
            lease: self.lease,
            renewals: watch::Sender::new(SystemClock.now()),
            let_go: self.inner.shutdown.child_token(),
            closed: CancellationToken::new(),
        });
        let keeper = Keeper { inner: self.inner.clone(), published: published.clone() };
        {
            let mut table = self.inner.table();
            if self.inner.shutdown.is_cancelled() {
                return Err(ending(&published.volume));
            }
            table.insert(name, published.clone());
        }
        let (tell, told) = oneshot::channel();
        // It ends soon after the volume is let go of; `close` waits for it.
        tokio::spawn(keeper.keep(device, tell));
        // Given up before or after the news came, it is let go of.
        let guard = published.let_go.clone().drop_guard();
        match told.await {
            Ok(done) => done.map(|()| {
                guard.disarm();
                published
            }),
            Err(_) => Err(ending(&published.volume)),
        }
    }

    /// Where whoever asks from there finds an export.
    pub(super) fn uri(&self, name: &ExportName, asker: Origin) -> Result<String> {
        self.inner.address.uri(name, asker)
    }

    /// Requests with one key come one after the other.
    pub(super) async fn turn(&self, key: &str) -> OwnedMutexGuard<()> {
        self.inner.turns.take(key).await
    }

    /// The exports of operators, by name.
    pub(super) fn of_operators(&self) -> Vec<Arc<Published>> {
        let table = self.inner.table();
        table.values().filter(|one| matches!(one.purpose, Purpose::Operator(_))).cloned().collect()
    }

    /// The sessions, the oldest first.
    pub(super) fn of_sessions(&self) -> Vec<(Opener, Arc<Published>)> {
        let session = |one: &Arc<Published>| match &one.purpose {
            Purpose::Session(opener) => Some((opener.clone(), one.clone())),
            Purpose::Operator(_) => None,
        };
        let mut found: Vec<_> = self.inner.table().values().filter_map(session).collect();
        found.sort_by_key(|(opener, _)| opener.since);
        found
    }

    /// What went through an export; nothing when it is being withdrawn.
    pub(super) async fn statistics(&self, published: &Published) -> Result<ExportStatistics> {
        let server = self.inner.server(&published.purpose);
        Ok(server.statistics(&published.name).await?.unwrap_or_default())
    }

    /// Asks a backend for something of a volume. When that is busy, and open here, it may be that whoever has it open has let go of it
    /// and only the news is on the way: then it is asked again as soon as one of those who have it open is gone, for a moment.
    pub(super) async fn patiently<T, F, Fut>(&self, volume: &VolumeId, ask: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let open = self.sessions(volume);
            let answer = ask().await;
            let is_busy = answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy);
            if !is_busy || open.is_empty() {
                return answer;
            }
            let one_is_gone = select_all(open.iter().map(|one| Box::pin(one.closed())));
            if timeout_at(deadline, one_is_gone).await.is_err() {
                return answer;
            }
        }
    }

    fn sessions(&self, volume: &VolumeId) -> Vec<Arc<Published>> {
        let table = self.inner.table();
        let ours =
            |one: &&Arc<Published>| matches!(one.purpose, Purpose::Session(_)) && one.volume == *volume;
        table.values().filter(ours).cloned().collect()
    }
}

impl Inner {
    fn server(&self, purpose: &Purpose) -> &Arc<dyn ExportServer> {
        match purpose {
            Purpose::Session(_) => &self.sessions,
            Purpose::Operator(_) => &self.operators,
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ExportName, Arc<Published>>> {
        // Each change of the table is one call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ending(volume: &VolumeId) -> Error {
    Error::new(ErrorKind::Unavailable, "open volume", volume)
        .because("the volume daemon is shutting down; try again when it is back")
        .with_retry(Retry::Later)
}

/// Keeps one export. However it ends, the export leaves the table and is closed.
struct Keeper {
    inner: Arc<Inner>,
    published: Arc<Published>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.inner.table().remove(&self.published.name);
        self.published.closed.cancel();
    }
}

impl Keeper {
    async fn keep(self, device: Arc<dyn BlockDevice>, tell: oneshot::Sender<Result<()>>) {
        let Published { name, volume, access, .. } = &*self.published;
        let spec = ExportSpec {
            name: name.clone(),
            description: format!("volume {volume}"),
            access: *access,
            // Nobody else takes the name, so nothing newer ever takes its place.
            fence: Fence::FIRST,
            device,
        };
        let served = self.inner.server(&self.published.purpose).publish(spec).await;
        let is_served = served.is_ok();
        let is_heard = tell.send(served.map(drop)).is_ok();
        if is_served {
            if is_heard {
                self.published.is_let_go_of().await;
            }
            self.withdraw().await;
        }
    }

    /// Comes back only when no request through the export can land any more: before that the volume must not be closed (L23).
    async fn withdraw(&self) {
        let Published { name, volume, purpose, .. } = &*self.published;
        while let Err(error) = self.inner.server(purpose).withdraw(name, DRAIN).await {
            tracing::warn!(export = %name, %volume, error = error.chain(), "not withdrawn yet");
            if error.kind() != ErrorKind::Busy {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
