//! Records that the kernel seals and opens itself (kTLS): what is sent from a file need not pass through this process.
//!
//! The handshake is rustls', and so are the keys; the kernel gets them once an export is open.

mod sys;

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{CipherSuite, ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion};

use self::sys::{Keys, Way, attach, receive_control, send_control, set_keys};
use crate::tls::TlsFailure;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const UNEXPECTED_MESSAGE: [u8; 2] = [2, 10];
const BAD_RECORD: [u8; 2] = [2, 20];
const KEY_UPDATE: u8 = 24;
/// Plain data of one record.
const RECORD: u64 = 16 << 10;
/// Records that AES-GCM may seal with one key (RFC 8446, 5.5), less some.
const RECORDS: u64 = 23_000_000;
/// Where keys cannot be renewed, no larger export is served by the kernel: reading it several times must not use them up.
const LARGEST: u64 = 64 << 30;

/// What the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ability {
    Nothing,
    /// Seal and open, with one key each.
    OneKey,
    /// Also take a new key (since Linux 6.14).
    NewKeys,
}

/// What this machine's kernel can do; tried once, on a connection to itself.
fn ability() -> Ability {
    static ABILITY: OnceLock<Ability> = OnceLock::new();
    *ABILITY.get_or_init(|| {
        let found = attempt().unwrap_or_else(|error| {
            tracing::debug!(%error, "there is no TLS in the kernel");
            Ability::Nothing
        });
        tracing::debug!(?found, "looked for TLS in the kernel");
        found
    })
}

fn attempt() -> io::Result<Ability> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let _far = listener.accept()?;
    attach(near.as_fd())?;
    let keys = || {
        let secrets =
            ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::from([7; 12]) };
        Keys::new(ProtocolVersion::TLSv1_3, &secrets, 0).ok_or(io::ErrorKind::Unsupported)
    };
    set_keys(near.as_fd(), Way::Out, &keys()?)?;
    set_keys(near.as_fd(), Way::In, &keys()?)?;
    let renewed = set_keys(near.as_fd(), Way::Out, &keys()?);
    Ok(if renewed.is_ok() { Ability::NewKeys } else { Ability::OneKey })
}

/// Whether there is TLS in the kernel.
pub(super) fn is_there() -> bool {
    ability() != Ability::Nothing
}

/// Whether sessions of exports of this size may be handed to the kernel.
pub(super) fn serves(capacity: u64) -> bool {
    match ability() {
        Ability::Nothing => false,
        Ability::OneKey => capacity <= LARGEST,
        Ability::NewKeys => true,
    }
}

/// Whether the kernel is given keys of this cipher.
pub(super) fn knows(suite: CipherSuite) -> bool {
    use CipherSuite as Suite;
    matches!(
        suite,
        Suite::TLS13_AES_128_GCM_SHA256
            | Suite::TLS13_AES_256_GCM_SHA384
            | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    )
}

/// A session in the kernel, and what is left of it here: how keys are renewed.
pub(crate) struct KernelSession {
    connection: KernelConnection<ServerConnectionData>,
    /// Records that may be sealed with the key in use.
    left: u64,
    /// The other side wants another key before more data.
    asked: bool,
    ended: bool,
    closed: bool,
}

impl KernelSession {
    /// Hands the keys of a session to the kernel, from the next byte of the socket on. Nothing may wait to be sent or taken.
    pub(super) fn begin(
        side: UnbufferedServerConnection,
        socket: BorrowedFd<'_>,
    ) -> Result<Self, TlsFailure> {
        let broken = |error: rustls::Error| TlsFailure::Broken(error.to_string());
        let (ExtractedSecrets { tx, rx }, connection) =
            side.dangerous_into_kernel_connection().map_err(broken)?;
        let session = Self { connection, left: RECORDS, asked: false, ended: false, closed: false };
        session.set(socket, Way::Out, tx)?;
        session.set(socket, Way::In, rx)?;
        Ok(session)
    }

    fn set(
        &self,
        socket: BorrowedFd<'_>,
        way: Way,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<(), TlsFailure> {
        let keys = Keys::new(self.connection.protocol_version(), &secrets, sequence);
        let keys = keys.ok_or_else(|| TlsFailure::Broken("a cipher that the kernel has not".to_owned()))?;
        set_keys(socket, way, &keys)
            .map_err(|error| TlsFailure::Broken(format!("the kernel does not take a key: {error}")))
    }

    /// Notes that so many bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        let records = u64::try_from(bytes).unwrap_or(u64::MAX) / RECORD + 1;
        self.left = self.left.saturating_sub(records);
    }

    /// Renews the key before more is sent, if it was used enough or the other side wants it. `WouldBlock` while the socket takes
    /// nothing.
    pub(crate) fn prepare(&mut self, socket: BorrowedFd<'_>) -> Result<(), TlsFailure> {
        if self.left > 0 && !self.asked {
            return Ok(());
        }
        if ability() != Ability::NewKeys || self.connection.protocol_version() != ProtocolVersion::TLSv1_3 {
            return Err(TlsFailure::Broken("its key was used as often as is safe; connect again".to_owned()));
        }
        send_control(socket, HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])?;
        let secrets = self.connection.update_tx_secret();
        self.set(socket, Way::Out, secrets.map_err(|error| TlsFailure::Broken(error.to_string()))?)?;
        (self.left, self.asked) = (RECORDS, false);
        Ok(())
    }

    /// Takes the message of TLS itself that kept data from being received. After a failure nothing more may be received.
    pub(crate) fn take_control(&mut self, socket: BorrowedFd<'_>) -> Result<(), TlsFailure> {
        let mut buffer = [0; 64];
        let control = receive_control(socket, &mut buffer)?;
        let message = &buffer[..control.length.min(buffer.len())];
        match (control.kind, message) {
            (ALERT, [_, 0]) => {
                self.ended = true;
                Ok(())
            }
            (ALERT, [_, alert]) => Err(TlsFailure::Broken(format!("the other side gave the alert {alert}"))),
            (HANDSHAKE, [KEY_UPDATE, 0, 0, 1, wanted @ (0 | 1)]) => {
                let secrets = self.connection.update_rx_secret();
                self.set(socket, Way::In, secrets.map_err(|error| TlsFailure::Broken(error.to_string()))?)?;
                self.asked |= *wanted == 1;
                Ok(())
            }
            _ => {
                self.end(socket, UNEXPECTED_MESSAGE);
                Err(TlsFailure::Broken("a message that has no place in a session".to_owned()))
            }
        }
    }

    /// What came was changed on its way, or is no TLS.
    pub(crate) fn refuse_record(&mut self, socket: BorrowedFd<'_>) -> TlsFailure {
        self.end(socket, BAD_RECORD);
        TlsFailure::Broken("a record that cannot be opened".to_owned())
    }

    /// Whether the other side said that no more comes.
    pub(crate) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Says that no more data comes.
    pub(crate) fn close(&mut self, socket: BorrowedFd<'_>) {
        self.end(socket, CLOSE_NOTIFY);
    }

    /// Says the last word, once. Whether the other side hears it does not matter.
    fn end(&mut self, socket: BorrowedFd<'_>, alert: [u8; 2]) {
        if !self.closed {
            self.closed = true;
            let _ = send_control(socket, ALERT, &alert);
        }
    }
}

/// Gives a socket to the kernel's TLS, if it takes it; without keys nothing changes.
pub(super) fn prepare(socket: BorrowedFd<'_>) -> bool {
    attach(socket).is_ok()
}

impl fmt::Debug for KernelSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSession").field("left", &self.left).finish_non_exhaustive()
    }
}
