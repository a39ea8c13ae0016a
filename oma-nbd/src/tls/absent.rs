//! What stands in for TLS in a program that is built without: nothing of it can come to be.

use std::convert::Infallible;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::BorrowedFd;

use super::{ClientName, TlsFailure};

/// What a handshake needs next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    Send,
    Receive(usize),
    Nothing,
}

/// A session that cannot be.
#[derive(Debug)]
pub(crate) struct Session(Infallible);

impl Session {
    pub(crate) fn shake(&mut self) -> Result<Need, TlsFailure> {
        match self.0 {}
    }
    pub(crate) fn room(&mut self, _count: usize) -> &mut [u8] {
        match self.0 {}
    }
    pub(crate) fn received(&mut self, _count: usize) {
        match self.0 {}
    }
    pub(crate) fn outgoing(&self) -> &[u8] {
        match self.0 {}
    }
    pub(crate) fn sent(&mut self, _count: usize) {
        match self.0 {}
    }
    pub(crate) fn owes(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn holds(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn receive(&mut self, _: &mut impl Read, _: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.0 {}
    }
    pub(crate) fn send(&mut self, _: &mut impl Write, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0 {}
    }
    pub(crate) fn flush(&mut self, _: &mut impl Write) -> io::Result<()> {
        match self.0 {}
    }
    pub(crate) fn close(&mut self) {
        match self.0 {}
    }
    pub(crate) fn hurry(&mut self) {
        match self.0 {}
    }
    #[expect(clippy::boxed_local, reason = "it has the shape of what it stands in for")]
    pub(crate) fn into_kernel(
        self: Box<Self>,
        _socket: BorrowedFd<'_>,
        _capacity: u64,
    ) -> Result<Result<KernelSession, Box<Self>>, TlsFailure> {
        match self.0 {}
    }
    pub(crate) fn names(&self) -> Vec<ClientName> {
        match self.0 {}
    }
    pub(crate) fn agreed(&self) -> String {
        match self.0 {}
    }
}

/// A session in the kernel that cannot be.
#[derive(Debug)]
pub(crate) struct KernelSession(Infallible);

impl KernelSession {
    pub(crate) fn sent(&mut self, _bytes: usize) {
        match self.0 {}
    }
    pub(crate) fn prepare(&mut self, _socket: BorrowedFd<'_>) -> Result<(), TlsFailure> {
        match self.0 {}
    }
    pub(crate) fn refuse_record(&mut self, _socket: BorrowedFd<'_>) -> TlsFailure {
        match self.0 {}
    }
    pub(crate) fn take_control(&mut self, _socket: BorrowedFd<'_>) -> Result<(), TlsFailure> {
        match self.0 {}
    }
    pub(crate) const fn is_ended(&self) -> bool {
        match self.0 {}
    }
    pub(crate) fn close(&mut self, _socket: BorrowedFd<'_>) {
        match self.0 {}
    }
}

/// The maker of the server's side of sessions.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Acceptor(Infallible);

#[cfg(feature = "server")]
impl Acceptor {
    pub(crate) fn load(_files: &super::TlsFiles) -> Result<Self, TlsFailure> {
        Err(TlsFailure::NotBuilt)
    }
    pub(crate) fn reload(
        &self,
        _files: &super::TlsFiles,
    ) -> Result<(Self, Result<(), TlsFailure>), TlsFailure> {
        match self.0 {}
    }
    pub(crate) fn session(&self) -> Result<Session, TlsFailure> {
        match self.0 {}
    }
}

#[cfg(feature = "client")]
pub(crate) fn connector(_config: &super::TlsClientConfig, _host: &str) -> Result<Session, TlsFailure> {
    Err(TlsFailure::NotBuilt)
}
