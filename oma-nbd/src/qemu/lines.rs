//! Lines of JSON over a unix socket: what the monitor and the guest agent speak.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::error::Failure;

/// No honest answer is longer: a node takes about a KiB.
pub(super) const MAX_LINE: usize = 16 << 20;

/// What a line can say.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    #[serde(rename = "QMP")]
    pub(super) greeting: Option<Greeting>,
    #[serde(rename = "return")]
    pub(super) answer: Option<Value>,
    pub(super) error: Option<Refusal>,
    pub(super) event: Option<String>,
    pub(super) data: Option<Value>,
    pub(super) id: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Greeting {
    pub(super) version: Versions,
}

#[derive(Debug, Deserialize)]
pub(super) struct Versions {
    pub(super) qemu: Version,
}

/// The version of QEMU.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) micro: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) desc: String,
}

/// A connection that is read and written line by line, each step bounded in time and size.
#[derive(Debug)]
pub(super) struct Lines {
    stream: BufReader<UnixStream>,
}

impl Lines {
    pub(super) async fn connect(path: &Path) -> Result<Self, Failure> {
        let stream =
            UnixStream::connect(path).await.map_err(|error| Failure::Connect(path.to_owned(), error))?;
        Ok(Self::over(stream))
    }

    pub(super) fn over(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The process that listens, where the system tells.
    pub(super) fn peer(&self) -> Option<i32> {
        self.stream.get_ref().peer_cred().ok()?.pid()
    }

    pub(super) async fn send(&mut self, line: &[u8]) -> Result<(), Failure> {
        let stream = self.stream.get_mut();
        stream.write_all(line).await.map_err(Failure::Lost)?;
        stream.write_all(b"\n").await.map_err(Failure::Lost)
    }

    /// The next line that says something.
    pub(super) async fn receive(&mut self) -> Result<Message, Failure> {
        loop {
            let line = self.line().await?;
            // The guest agent marks the answer to a synchronisation with a byte that no text has.
            let text = line.strip_prefix(b"\xff").unwrap_or(&line).trim_ascii();
            if text.is_empty() {
                continue;
            }
            return serde_json::from_slice(text).map_err(|error| {
                let shown: String = String::from_utf8_lossy(text).chars().take(80).collect();
                Failure::Garbage(format!("{} ({error})", shown.escape_debug()))
            });
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, Failure> {
        let mut line = Vec::new();
        loop {
            let room = self.stream.fill_buf().await.map_err(Failure::Lost)?;
            if room.is_empty() {
                return Err(Failure::Closed);
            }
            let end = room.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(room.len());
            if line.len() + taken > MAX_LINE {
                return Err(Failure::TooLong(MAX_LINE));
            }
            line.extend_from_slice(&room[..taken]);
            self.stream.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(line);
            }
        }
    }
}

/// Bounds a step in time.
pub(super) async fn within<T>(
    what: &'static str,
    limit: Duration,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, step).await.unwrap_or(Err(Failure::Timeout { what, limit }))
}
