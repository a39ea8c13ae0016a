//! The connections of a client: opened when needed, replaced when lost, never retried.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::ClientConfig;
use super::connection::{Connection, Request};
use super::decoder::Answer;
use super::error::Failure;
use super::export::Export;
use super::handshake::Handshake;
use super::socket::Socket;
use crate::protocol::NBD_FLAG_CAN_MULTI_CONN;
use crate::tls::{Session, TlsClientConfig, connector};
use crate::uri::{Address, Uri, UriTls};

#[derive(Debug)]
pub(super) struct Pool {
    uri: Uri,
    config: ClientConfig,
    /// The export as the first connection found it; every later one must find the same.
    export: Export,
    slots: Vec<Slot>,
    doubt: Doubt,
}

/// The place of one connection.
#[derive(Debug)]
struct Slot {
    connection: Mutex<Option<Arc<Connection>>>,
    /// The right to open this connection: one request does, the others wait for it.
    opening: Semaphore,
    /// Given up as long as another connection lives: the server takes no more.
    resting: AtomicBool,
}

/// Which writes a flush can no longer vouch for.
///
/// A server that went away may have lost what it acknowledged; a flush of its successor says nothing of that.
#[derive(Debug, Default)]
struct Doubt {
    /// Connections lost with changes that no flush covers.
    losses: AtomicU64,
    /// How many of them a flush has told of.
    told: AtomicU64,
}

impl Pool {
    pub(super) async fn open(uri: &Uri, config: ClientConfig) -> Result<Self, Failure> {
        let first = connect(uri, &config).await?;
        let export = first.export.clone();
        let several = export.has(NBD_FLAG_CAN_MULTI_CONN);
        let count = if several { config.connections.max(1) } else { 1 };
        let slots: Vec<_> = (0..count).map(|_| Slot::new()).collect();
        slots[0].put(Arc::new(first));
        Ok(Self { uri: uri.clone(), config, export, slots, doubt: Doubt::default() })
    }

    pub(super) const fn export(&self) -> &Export {
        &self.export
    }

    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Sends a request over the connection with most room.
    pub(super) async fn request(&self, request: Request) -> Result<Answer, Failure> {
        self.connection().await?.request(request).await
    }

    /// As [`Pool::request`], for a change that only a flush makes durable.
    pub(super) async fn change(&self, request: Request) -> Result<Answer, Failure> {
        self.connection().await?.change(request).await
    }

    /// Sends a flush over each connection with changes, unless some may be lost that it could not vouch for.
    pub(super) async fn flush(&self) -> Result<(), Failure> {
        let told = self.doubt.told.load(Ordering::SeqCst);
        self.slots.iter().for_each(|slot| self.sweep(slot));
        let mut connections: Vec<_> =
            self.slots.iter().filter_map(Slot::get).filter(|one| one.changes.are_open()).collect();
        if connections.is_empty() {
            connections.push(self.connection().await?);
        }
        let losses = self.losses();
        if losses > told {
            self.doubt.told.fetch_max(losses, Ordering::SeqCst);
            return Err(Failure::WritesInDoubt);
        }
        try_join_all(connections.iter().map(|connection| connection.flush())).await?;
        Ok(())
    }

    /// How many connections were lost with changes in doubt.
    pub(super) fn losses(&self) -> u64 {
        self.doubt.losses.load(Ordering::SeqCst)
    }

    /// Closes all connections politely.
    pub(super) async fn close(self) {
        for slot in &self.slots {
            if let Some(connection) = slot.take().and_then(Arc::into_inner) {
                connection.close().await;
            }
        }
    }

    /// A connection that lives, as far as is known, with as much room as possible. Another one is opened only when all
    /// that live are busy, and only one request waits for it.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        self.slots.iter().for_each(|slot| self.sweep(slot));
        let Some(freest) = self.freest() else {
            let slot = &self.slots[0];
            let right = slot.opening.acquire().await.expect("the semaphore is never closed");
            return self.reopen(slot, &right).await;
        };
        if freest.is_idle() {
            return Ok(freest);
        }
        let vacant = |slot: &&Slot| slot.get().is_none() && !slot.resting.load(Ordering::Relaxed);
        let Some(slot) = self.slots.iter().find(vacant) else { return Ok(freest) };
        let Ok(right) = slot.opening.try_acquire() else { return Ok(freest) };
        match self.reopen(slot, &right).await {
            Err(failure @ Failure::Changed { .. }) => Err(failure),
            Err(failure) => {
                tracing::debug!(%failure, "no further NBD connection; those that live must do");
                slot.resting.store(true, Ordering::Relaxed);
                Ok(freest)
            }
            opened => opened,
        }
    }

    fn freest(&self) -> Option<Arc<Connection>> {
        let alive = self.slots.iter().filter_map(Slot::get).filter(|connection| connection.is_alive());
        alive.max_by_key(|connection| connection.free())
    }

    async fn reopen(&self, slot: &Slot, _right: &SemaphorePermit<'_>) -> Result<Arc<Connection>, Failure> {
        self.sweep(slot);
        if let Some(connection) = slot.get() {
            return Ok(connection);
        }
        let connection = Arc::new(connect(&self.uri, &self.config).await?);
        connection.export.same_as(&self.export)?;
        slot.put(Arc::clone(&connection));
        self.slots.iter().for_each(|slot| slot.resting.store(false, Ordering::Relaxed));
        Ok(connection)
    }

    /// Takes a dead connection out of its slot.
    fn sweep(&self, slot: &Slot) {
        if slot.take_dead().is_some_and(|connection| connection.changes.are_open()) {
            self.doubt.losses.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            connection: Mutex::new(None),
            opening: Semaphore::const_new(1),
            resting: AtomicBool::new(false),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Option<Arc<Connection>>) -> R) -> R {
        act(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self) -> Option<Arc<Connection>> {
        self.with(|place| place.clone())
    }

    fn put(&self, connection: Arc<Connection>) {
        self.with(|place| *place = Some(connection));
    }

    fn take(&self) -> Option<Arc<Connection>> {
        self.with(Option::take)
    }

    fn take_dead(&self) -> Option<Arc<Connection>> {
        self.with(|place| place.take_if(|connection| !connection.is_alive()))
    }
}

async fn connect(uri: &Uri, config: &ClientConfig) -> Result<Connection, Failure> {
    let (socket, export) = within(config, async {
        let handshake = begin(uri, config).await?;
        handshake.open(uri.export(), config).await
    })
    .await?;
    Ok(Connection::start(socket, export, config.requests_in_flight, config.request_timeout))
}

/// Connects, exchanges greetings, and makes the way safe if that is demanded.
pub(super) async fn begin(uri: &Uri, config: &ClientConfig) -> Result<Handshake, Failure> {
    let session = session(uri, config).await?;
    let handshake = Handshake::begin(Socket::connect(uri.address()).await?).await?;
    match session {
        Some(session) => handshake.secure(session).await,
        None => Ok(handshake),
    }
}

/// A session of TLS that has not begun, if the URI or the configuration demands one.
async fn session(uri: &Uri, config: &ClientConfig) -> Result<Option<Session>, Failure> {
    let demanded = match (uri.tls(), &config.tls) {
        (None, None) => return Ok(None),
        (Some(UriTls { certificates, hostname }), configured) => {
            let configured = configured.clone().unwrap_or_default();
            let files = certificates.as_ref().map(TlsClientConfig::in_directory);
            let server_name = hostname.clone().or(configured.server_name.clone());
            TlsClientConfig { server_name, ..files.unwrap_or(configured) }
        }
        (None, Some(configured)) => configured.clone(),
    };
    // A unix socket leads to this machine.
    let host = match uri.address() {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    // It reads files.
    let made = tokio::task::spawn_blocking(move || connector(&demanded, &host)).await;
    match made {
        Ok(session) => session.map(Some).map_err(Failure::Tls),
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Bounds a handshake in time.
pub(super) async fn within<R>(
    config: &ClientConfig,
    handshake: impl Future<Output = Result<R, Failure>>,
) -> Result<R, Failure> {
    let limit = config.connect_timeout;
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(Failure::HandshakeTimeout(limit)))
}

#[cfg(test)]
mod tests;
