//! A client of TLS that says records of any kind, one by one, and keeps what it must not see twice. It blocks.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;
pub(crate) const CLOSE_NOTIFY: &[u8] = &[1, 0];

/// Bytes of a record's header.
const HEADER: usize = 5;
/// Of a record of TLS 1.2, so much of its nonce is told.
const NONCE: usize = 8;

/// A session whose handshake is done, as far as this side knows.
pub(crate) struct Records {
    socket: TcpStream,
    version: ProtocolVersion,
    encrypter: Box<dyn MessageEncrypter>,
    sealed: u64,
    decrypter: Box<dyn MessageDecrypter>,
    opened: u64,
    /// What ends the handshake, until something else is sent.
    unsent: Vec<u8>,
    /// Data that nobody took yet.
    data: Vec<u8>,
    /// Nonces of the other side, in TLS 1.2.
    pub(crate) nonces: Vec<[u8; NONCE]>,
}

impl Records {
    /// Makes the handshake, but holds its last message back until something is sent.
    pub(crate) fn shake(mut socket: TcpStream, mut connection: ClientConnection) -> Self {
        loop {
            let mut flight = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut flight).unwrap();
            }
            if !connection.is_handshaking() {
                return Self::new(socket, connection, flight);
            }
            socket.write_all(&flight).unwrap();
            connection.read_tls(&mut socket).unwrap();
            connection.process_new_packets().unwrap();
        }
    }

    fn new(socket: TcpStream, connection: ClientConnection, unsent: Vec<u8>) -> Self {
        let (version, suite) =
            (connection.protocol_version().unwrap(), connection.negotiated_cipher_suite().unwrap());
        let secrets = connection.dangerous_extract_secrets().unwrap();
        let ((sealed, ours), (opened, theirs)) = (secrets.tx, secrets.rx);
        let [(key, iv), (their_key, their_iv)] = [ours, theirs].map(|secrets| match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key, iv),
            _ => panic!("a cipher that the kernel is not given"),
        });
        // That of its last message of the handshake.
        let nonces = vec![their_iv.as_ref()[4..].try_into().unwrap()];
        let (encrypter, decrypter) = match suite {
            SupportedCipherSuite::Tls13(suite) => {
                (suite.aead_alg.encrypter(key, iv), suite.aead_alg.decrypter(their_key, their_iv))
            }
            SupportedCipherSuite::Tls12(suite) => {
                let (salt, explicit) = iv.as_ref().split_at(4);
                let encrypter = suite.aead_alg.encrypter(key, salt, explicit);
                (encrypter, suite.aead_alg.decrypter(their_key, &their_iv.as_ref()[..4]))
            }
        };
        Self { socket, version, encrypter, sealed, decrypter, opened, unsent, data: Vec::new(), nonces }
    }

    /// One record of a kind, sealed in its order but not sent.
    pub(crate) fn seal(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let (typ, payload) = (ContentType::from(kind), OutboundChunks::Single(payload));
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.sealed).unwrap();
        self.sealed += 1;
        record.encode()
    }

    /// Sends bytes as they are, behind what is held back, all at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let bytes = [std::mem::take(&mut self.unsent).as_slice(), bytes].concat();
        self.socket.write_all(&bytes)
    }

    /// Sends a record.
    pub(crate) fn say(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let record = self.seal(kind, payload);
        self.send(&record)
    }

    pub(crate) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The next record: its kind and what is in it.
    pub(crate) fn hear(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER];
        self.socket.read_exact(&mut header)?;
        let mut sealed = vec![0; u16::from_be_bytes([header[3], header[4]]).into()];
        self.socket.read_exact(&mut sealed)?;
        if self.version == ProtocolVersion::TLSv1_2 {
            self.nonces.push(sealed[..NONCE].try_into().unwrap());
        }
        let message =
            InboundOpaqueMessage::new(ContentType::from(header[0]), ProtocolVersion::TLSv1_2, &mut sealed);
        let opened = self.decrypter.decrypt(message, self.opened).map_err(io::Error::other)?;
        self.opened += 1;
        Ok((opened.typ.into(), opened.payload.to_vec()))
    }

    /// How the other side ends the session, whatever it still says before: its alert, if it gives one.
    pub(crate) fn end(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.hear() {
                Ok((DATA, _)) => {}
                Ok((ALERT, alert)) => return Some(alert),
                Ok((kind, _)) => panic!("a record of the kind {kind}"),
                Err(error) => {
                    let slow = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!slow, "the server does not end the session");
                    return None;
                }
            }
        }
    }
}

impl Read for Records {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.data.is_empty() {
            match self.hear()? {
                (DATA, data) => self.data = data,
                (ALERT, alert) if alert == CLOSE_NOTIFY => return Ok(0),
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        let count = buffer.len().min(self.data.len());
        buffer[..count].copy_from_slice(&self.data[..count]);
        self.data.drain(..count);
        Ok(count)
    }
}

impl Write for Records {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let part = &data[..data.len().min(16 << 10)];
        self.say(DATA, part)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
