//! The client of QEMU's monitor (QMP): one command at a time, each answered or refused.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::Failure;
use super::lines::{Lines, Message, Version, within};

/// The first with a filter that breaks the point in time instead of the guest's write.
const FIRST: (u32, u32) = (7, 1);

/// A session with a monitor. It ends with the first failure that is no refusal: nothing is known then of what was asked.
#[derive(Debug)]
pub(super) struct Qmp {
    lines: Lines,
    next: u64,
    timeout: Duration,
}

impl Qmp {
    /// Connects, and waits for the greeting: QEMU serves one client, others wait.
    pub(super) async fn connect(path: &Path, timeout: Duration, patience: Duration) -> Result<Self, Failure> {
        let silent = || Failure::Silent(path.to_owned(), patience);
        let greeted = async {
            let mut lines = Lines::connect(path).await?;
            let version = greeting(&mut lines).await?;
            Ok((lines, version))
        };
        let (lines, version) =
            tokio::time::timeout(patience, greeted).await.unwrap_or_else(|_| Err(silent()))?;
        Self::begin(lines, version, timeout).await
    }

    /// Begins a session with a monitor that has greeted.
    pub(super) async fn begin(lines: Lines, version: Version, timeout: Duration) -> Result<Self, Failure> {
        check(version)?;
        let mut session = Self { lines, next: 0, timeout };
        session.tell("qmp_capabilities", json!({})).await?;
        Ok(session)
    }

    /// The process that listens, where the system tells.
    pub(super) fn peer(&self) -> Option<i32> {
        self.lines.peer()
    }

    /// Runs a command; its answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &mut self,
        command: &'static str,
        arguments: Value,
    ) -> Result<T, Failure> {
        let answer = within(command, self.timeout, self.exchange(command, arguments)).await?;
        serde_json::from_value(answer).map_err(|error| Failure::Answer(command, error))
    }

    /// Runs a command whose answer says nothing.
    pub(super) async fn tell(&mut self, command: &'static str, arguments: Value) -> Result<(), Failure> {
        self.ask::<Value>(command, arguments).await.map(drop)
    }

    async fn exchange(&mut self, command: &'static str, arguments: Value) -> Result<Value, Failure> {
        self.next += 1;
        let id = json!(format!("oma-{}", self.next));
        let line = json!({ "execute": command, "arguments": arguments, "id": id });
        tracing::trace!(%line, "QMP");
        self.lines.send(line.to_string().as_bytes()).await?;
        loop {
            let message = self.lines.receive().await?;
            if let Some(event) = &message.event {
                tracing::trace!(event, data = ?message.data, "QMP");
                continue;
            }
            return answer(command, &id, message);
        }
    }
}

/// What version a monitor greets with.
pub(super) async fn greeting(lines: &mut Lines) -> Result<Version, Failure> {
    let greeting = lines.receive().await?.greeting;
    let greeting = greeting.ok_or_else(|| Failure::Garbage("it does not greet as QEMU does".to_owned()))?;
    Ok(greeting.version.qemu)
}

fn answer(command: &'static str, id: &Value, message: Message) -> Result<Value, Failure> {
    let refused = message.error.map(|refusal| Failure::Refused {
        command,
        class: refusal.class,
        text: refusal.desc.escape_debug().to_string(),
    });
    match (message.answer, refused) {
        // A command that QEMU could not even read is refused without an id.
        (None, Some(refused)) if message.id.as_ref().is_none_or(|other| other == id) => Err(refused),
        (Some(answer), None) if message.id.as_ref() == Some(id) => Ok(answer),
        _ => Err(Failure::Garbage(format!("an answer that is not one to {command}"))),
    }
}

fn check(version: Version) -> Result<(), Failure> {
    let Version { major, minor, micro } = version;
    if (major, minor) < FIRST {
        return Err(Failure::TooOld(format!("{major}.{minor}.{micro}")));
    }
    Ok(())
}
