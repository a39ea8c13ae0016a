//! A listener that serves a number of connections at once. Who comes then waits in the queue of the system, which is bounded as well,
//! so that nobody takes memory or descriptors of ours without a place.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum_server::{AddrListener, Address};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listen::ListenConfig;

/// Accepts nobody while all places are taken.
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
    /// Whether operators were told that all places are taken.
    is_told: AtomicBool,
}

/// The address of such a listener.
#[derive(Clone, Debug)]
pub(super) struct At<A>(pub(super) A);

/// A connection and its place, which is free again when the connection ends, before or after anybody was let in.
#[derive(Debug)]
pub(super) struct Placed<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L, config: ListenConfig) -> Self {
        let places = Arc::new(Semaphore::new(usize::from(config.connections.get())));
        Self { listener, places, is_told: AtomicBool::new(false) }
    }

    async fn place(&self) -> io::Result<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.is_told.store(false, Ordering::Relaxed);
            return Ok(place);
        }
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "as many connections as may be are served: who comes now waits until one of them ends"
            );
        }
        Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)
    }
}

impl<A> Address for At<A>
where
    A: Address + Send + Sync,
    A::Listener: Send + Sync,
    A::Stream: Send,
{
    type Stream = Placed<A::Stream>;
    type Listener = Bounded<A::Listener>;
}

impl<A> AddrListener<Placed<A::Stream>, At<A>> for Bounded<A::Listener>
where
    A: Address + Send + Sync,
    A::Listener: Send + Sync,
    A::Stream: Send,
{
    async fn bind_to(address: At<A>) -> io::Result<Self> {
        Ok(Self::new(A::Listener::bind_to(address.0).await?, ListenConfig::default()))
    }

    async fn accept_stream(&self) -> io::Result<(Placed<A::Stream>, At<A>)> {
        let place = self.place().await?;
        let (stream, address) = self.listener.accept_stream().await?;
        Ok((Placed { stream, _place: place }, At(address)))
    }

    fn get_local_addr(&self) -> io::Result<At<A>> {
        self.listener.get_local_addr().map(At)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
