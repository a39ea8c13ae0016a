//! An export while it is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use oma_core::traits::{Access, BlockDevice, Drained, Export, ExportSpec};
use oma_core::{Error, ErrorKind, Result, Retry};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::context::Allocation;
use super::hashes::Hashes;
use super::limits::{ExportLimits, Pace};
use super::meter::{Meter, Meters};
use super::stop::Stop;
use super::{ExportOptions, Listing, MetaContext};
use crate::protocol::{
    Headers, NBD_FLAG_BLOCK_STAT_PAYLOAD, NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_HAS_FLAGS, NBD_FLAG_READ_ONLY,
    NBD_FLAG_ROTATIONAL, NBD_FLAG_SEND_CACHE, NBD_FLAG_SEND_DF, NBD_FLAG_SEND_FAST_ZERO, NBD_FLAG_SEND_FLUSH,
    NBD_FLAG_SEND_FUA, NBD_FLAG_SEND_TRIM, NBD_FLAG_SEND_WRITE_ZEROES,
};

use crate::tls::Clients;

/// How long connections get to notice that they were cut.
const CUT_GRACE: Duration = Duration::from_millis(500);

/// An export and its connections.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) export: Export,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) contexts: Vec<Arc<dyn MetaContext>>,
    pub(super) clients: Clients,
    pub(super) listing: Listing,
    pub(super) stop: Stop,
    pub(super) meters: Meters,
    /// Turns of what is computed from the data: as many at once as there are processors. The others wait.
    pub(super) turns: Semaphore,
    limits: ExportLimits,
    pace: Pace,
    connections: TaskTracker,
    /// Sending from the device's file failed once.
    never_lend: AtomicBool,
}

/// A connection's use of an export. While one is there, a request may be in the device.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) served: Arc<Served>,
    pub(super) meter: Arc<Meter>,
    _connection: TaskTrackerToken,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.served.meters.end(&self.meter);
    }
}

impl Served {
    pub(super) fn new(spec: &ExportSpec, options: &ExportOptions) -> Self {
        let allocation: Arc<dyn MetaContext> = Arc::new(Allocation(spec.device.clone()));
        Self {
            export: spec.export(),
            device: spec.device.clone(),
            contexts: std::iter::once(allocation)
                .chain(options.contexts.iter().cloned())
                .chain(Hashes::of(&spec.device))
                .collect(),
            clients: options.clients.clone(),
            listing: options.listing,
            stop: Stop::default(),
            meters: Meters::default(),
            turns: Semaphore::new(available_parallelism().map_or(1, usize::from)),
            limits: options.limits,
            pace: Pace::default(),
            connections: TaskTracker::new(),
            never_lend: AtomicBool::new(false),
        }
    }

    /// Attaches a connection, if the export takes one more. The caller holds the table, so nobody waits for the last
    /// connection meanwhile.
    pub(super) fn attach(self: &Arc<Self>) -> Option<Attachment> {
        (self.meters.connections() < self.limits.connections).then(|| Attachment {
            served: self.clone(),
            meter: self.meters.start(),
            _connection: self.connections.token(),
        })
    }

    /// Until when whoever moves so many bytes now must wait before it moves more.
    pub(super) fn pace(&self, bytes: u64) -> Option<Instant> {
        self.limits.bytes_per_second.and_then(|rate| self.pace.spend(bytes, rate))
    }

    pub(super) fn is_open(&self) -> bool {
        !self.stop.drain.is_cancelled()
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.export.access == Access::ReadOnly
    }

    /// Whether replies may be sent from the device's file.
    pub(super) fn lends(&self) -> bool {
        !self.never_lend.load(Ordering::Relaxed)
    }

    /// Has every reply read from now on.
    pub(super) fn never_lend(&self) {
        self.never_lend.store(true, Ordering::Relaxed);
    }

    /// Lets connections finish; cuts those that have not after `deadline`.
    pub(super) async fn drain(&self, deadline: Duration) -> Result<Drained> {
        self.stop.drain.cancel();
        self.connections.close();
        if timeout(deadline, self.connections.wait()).await.is_ok() {
            return Ok(Drained::Graceful);
        }
        self.stop.cut.cancel();
        match timeout(CUT_GRACE, self.connections.wait()).await {
            Ok(()) => Ok(Drained::Cut),
            Err(_) => Err(Error::new(ErrorKind::Busy, "withdraw export", &self.export.name)
                .because("its device has not answered all requests; nobody can send more, ask again")
                .with_retry(Retry::Later)),
        }
    }

    /// Cuts all connections and waits until none of their requests is in the device.
    pub(super) async fn cut(&self) {
        self.stop.drain.cancel();
        self.stop.cut.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    /// What clients may count on; `contexts`: whether this one has chosen some. Several connections are always possible: a device's flush covers the writes that came
    /// through any handle.
    pub(super) fn transmission_flags(&self, headers: Headers, contexts: bool) -> u16 {
        let mut flags =
            NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN;
        let info = self.device.info();
        let mut set = |wanted: bool, flag: u16| flags |= if wanted { flag } else { 0 };
        set(headers != Headers::Simple, NBD_FLAG_SEND_DF);
        set(headers == Headers::Extended && contexts, NBD_FLAG_BLOCK_STAT_PAYLOAD);
        set(info.is_rotational, NBD_FLAG_ROTATIONAL);
        set(info.can_cache, NBD_FLAG_SEND_CACHE);
        set(info.can_trim && !self.is_read_only(), NBD_FLAG_SEND_TRIM);
        set(info.can_zero_fast && !self.is_read_only(), NBD_FLAG_SEND_FAST_ZERO);
        set(!self.is_read_only(), NBD_FLAG_SEND_WRITE_ZEROES);
        set(self.is_read_only(), NBD_FLAG_READ_ONLY);
        flags
    }
}
