//! A daemon as a process of its own.

use std::io::{self, Error};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use oma_benches::{Times, program};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::clients::Target;

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    address: String,
    token: String,
    started: Duration,
}

impl Daemon {
    /// An appliance with its defaults, whose sources may lie in `images`.
    pub(crate) async fn omad(named: Option<&Path>, folder: &Path) -> io::Result<Self> {
        let omad = program(named, "omad")?;
        let images = folder.join("images");
        std::fs::create_dir(&images)?;
        let data = folder.join("data");
        let flags = ["token", "add", "bench", "--role", "operator", "--data-dir"];
        let made = Command::new(&omad).args(flags).arg(&data).output().await?;
        let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let mut command = Command::new(&omad);
        command.arg("--data-dir").arg(&data).arg("--source-dir").arg(&images);
        command.args(["--listen", "127.0.0.1:0", "--volume-listen", "none", "--nbd-listen", "none"]);
        command.env("OMA_LOG", "warn");
        Self::start(command, 2, token).await
    }

    /// One that has nothing to do.
    pub(crate) async fn bare() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare");
        Self::start(command, 1, String::new()).await
    }

    /// Its address stands on this line of what it prints.
    async fn start(mut command: Command, line: usize, token: String) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let begun = Instant::now();
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| Error::other("no pipe"))?).lines();
        let mut address = None;
        for _ in 0..line {
            address = lines.next_line().await?;
        }
        let address = address.ok_or_else(|| Error::other("the daemon ended before it served"))?;
        Ok(Self { child, address, token, started: begun.elapsed() })
    }

    /// How long it took until it served.
    pub(crate) const fn started(&self) -> Duration {
        self.started
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn target(&self) -> Target {
        Target::appliance(&self.address, &self.token)
    }

    fn process(&self) -> io::Result<String> {
        let id = self.child.id().ok_or_else(|| Error::other("the daemon has ended"))?;
        Ok(id.to_string())
    }

    /// Its processor seconds.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        Ok(Times::of(&self.process()?)?.own)
    }

    /// MiB that it holds: `VmRSS` of proc_pid_status(5).
    pub(crate) fn memory(&self) -> io::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process()?))?;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u32>().ok());
        found
            .map(|kib| f64::from(kib) / 1024.0)
            .ok_or_else(|| Error::other("the kernel does not tell its memory"))
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}
