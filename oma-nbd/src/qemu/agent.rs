//! The guest agent: file systems frozen for a moment, and thawed whatever happens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::error::Failure;
use super::lines::{Lines, within};

const STATUS: &str = "guest-fsfreeze-status";
const FREEZE: &str = "guest-fsfreeze-freeze";
const THAW: &str = "guest-fsfreeze-thaw";

/// How often thawing is tried while somebody waits for it, and how often afterwards.
const ATTEMPTS: u32 = 3;
const LATER_ATTEMPTS: u32 = 30;

/// A guest whose file systems are frozen, or may be. Dropping it thaws them in the background.
#[derive(Debug)]
pub(super) struct Frozen {
    socket: PathBuf,
    timeout: Duration,
    armed: bool,
}

impl Frozen {
    /// Freezes. A failure leaves the guest thawed, or says that it may not be.
    pub(super) async fn begin(socket: &Path, timeout: Duration) -> Result<Self, Failure> {
        let mut agent = Agent::connect(socket, timeout).await?;
        if agent.is_frozen().await? {
            return Err(Failure::FrozenByOther);
        }
        // From here on nobody knows: an answer that is late may still be a freeze.
        let mut frozen = Self { socket: socket.to_owned(), timeout, armed: true };
        let answer = agent.ask(FREEZE).await;
        drop(agent);
        match answer {
            Ok(_) => Ok(frozen),
            Err(failure) => {
                frozen.thaw().await?;
                Err(failure)
            }
        }
    }

    /// Thaws.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        self.thaw().await
    }

    async fn thaw(&mut self) -> Result<(), Failure> {
        let thawed = thaw(&self.socket, self.timeout, ATTEMPTS).await;
        self.armed = thawed.is_err();
        thawed.map_err(|failure| Failure::NotThawed(Box::new(failure)))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        tracing::error!(agent = %self.socket.display(), "the guest's file systems may still be frozen; thawing them");
        let (socket, timeout) = (self.socket.clone(), self.timeout);
        // A thread of its own: the runtime may be what is going away.
        let begun = std::thread::Builder::new().name("oma-thaw".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thawed = runtime.block_on(thaw(&socket, timeout, LATER_ATTEMPTS));
            if let Err(failure) = thawed {
                tracing::error!(agent = %socket.display(), %failure, "the guest's file systems stay frozen");
            }
            std::io::Result::Ok(())
        });
        if let Err(error) = begun {
            tracing::error!(%error, "no thread to thaw the guest's file systems");
        }
    }
}

/// Thaws what a freeze that was interrupted may have left. Any failure is that the guest may still be frozen.
pub(super) async fn thaw_left_over(socket: &Path, timeout: Duration) -> Result<(), Failure> {
    let thawed = async {
        if Agent::connect(socket, timeout).await?.is_frozen().await? {
            tracing::warn!(agent = %socket.display(), "an interrupted run left the guest's file systems frozen");
            thaw(socket, timeout, ATTEMPTS).await?;
        }
        Ok(())
    };
    thawed.await.map_err(|failure| Failure::NotThawed(Box::new(failure)))
}

async fn thaw(socket: &Path, timeout: Duration, attempts: u32) -> Result<(), Failure> {
    let mut attempt = 1;
    loop {
        let thawed = async { Agent::connect(socket, timeout).await?.ask(THAW).await }.await;
        match thawed {
            Ok(_) => return Ok(()),
            Err(failure) if attempt >= attempts => return Err(failure),
            Err(failure) => tracing::debug!(attempt, %failure, "thaw once more"),
        }
        tokio::time::sleep(Duration::from_millis(100).min(timeout) * attempt).await;
        attempt += 1;
    }
}

/// A session with the agent, in step with it.
#[derive(Debug)]
struct Agent {
    lines: Lines,
    timeout: Duration,
}

impl Agent {
    async fn connect(socket: &Path, timeout: Duration) -> Result<Self, Failure> {
        within("the guest agent", timeout, async {
            let mut lines = Lines::connect(socket).await?;
            // Whoever asked before may have left half a question or an answer behind.
            let id = json!(Uuid::new_v4().as_fields().0 >> 1);
            let ask = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
            lines.send(&[b"\xff", ask.to_string().as_bytes()].concat()).await?;
            loop {
                match lines.receive().await {
                    Ok(message) if message.answer.as_ref() == Some(&id) => {
                        return Ok(Self { lines, timeout });
                    }
                    Ok(_) | Err(Failure::Garbage(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
        })
        .await
    }

    async fn is_frozen(&mut self) -> Result<bool, Failure> {
        let status = self.ask(STATUS).await?;
        Ok(status.as_str() == Some("frozen"))
    }

    async fn ask(&mut self, command: &'static str) -> Result<Value, Failure> {
        let line = json!({ "execute": command }).to_string();
        let lines = &mut self.lines;
        within(command, self.timeout, async {
            lines.send(line.as_bytes()).await?;
            let message = lines.receive().await?;
            match (message.answer, message.error) {
                (Some(answer), None) => Ok(answer),
                (_, Some(refusal)) => Err(Failure::Agent(refusal.desc.escape_debug().to_string())),
                (None, None) => Err(Failure::Agent(format!("nothing to {command}"))),
            }
        })
        .await
    }
}
