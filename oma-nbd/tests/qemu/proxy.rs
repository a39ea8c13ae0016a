//! A monitor that goes away, or waits, at a chosen command: how a process that is killed there looks to QEMU.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What the proxy does with a command.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// Passes this many on, all connections together; then cuts everything, before the next or after its answer was lost.
    CutAfter(usize),
    /// Holds back the first command of this name until it is told to go on.
    HoldBack(&'static str),
}

/// A socket that leads to a monitor.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) socket: PathBuf,
    /// Told when a command is held back.
    pub(crate) held: Arc<Notify>,
    /// Lets it go on.
    pub(crate) go_on: Arc<Notify>,
    pub(crate) passed: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Proxy {
    pub(crate) fn start(socket: PathBuf, monitor: &Path, trouble: &Trouble) -> Self {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let (held, go_on, passed) = <(Arc<Notify>, Arc<Notify>, Arc<AtomicUsize>)>::default();
        let mut serving = JoinSet::new();
        let relay = Relay {
            monitor: monitor.to_owned(),
            trouble: trouble.clone(),
            held: Arc::clone(&held),
            go_on: Arc::clone(&go_on),
            passed: Arc::clone(&passed),
        };
        serving.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                relay.serve(client).await;
            }
        });
        Self { socket, held, go_on, passed, _serving: serving }
    }
}

struct Relay {
    monitor: PathBuf,
    trouble: Trouble,
    held: Arc<Notify>,
    go_on: Arc<Notify>,
    passed: Arc<AtomicUsize>,
}

impl Relay {
    async fn serve(&self, client: UnixStream) {
        let monitor = UnixStream::connect(&self.monitor).await.unwrap();
        let (client_reader, mut client_writer) = client.into_split();
        let (mut monitor_reader, mut monitor_writer) = monitor.into_split();
        let back = tokio::io::copy(&mut monitor_reader, &mut client_writer);
        let forth = async {
            let mut lines = BufReader::new(client_reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if self.is_the_end(&line).await {
                    return;
                }
                monitor_writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
                if matches!(self.trouble, Trouble::CutAfter(limit) if self.passed.load(Ordering::SeqCst) == limit)
                {
                    // The command is done, its answer lost.
                    return;
                }
            }
        };
        tokio::select! {
            _ = back => {}
            () = forth => {}
        }
    }

    async fn is_the_end(&self, line: &str) -> bool {
        let command: Value = serde_json::from_str(line).unwrap();
        match self.trouble {
            Trouble::CutAfter(limit) => self.passed.fetch_add(1, Ordering::SeqCst) >= limit,
            Trouble::HoldBack(name) => {
                if command["execute"] == name && self.passed.fetch_add(1, Ordering::SeqCst) == 0 {
                    self.held.notify_one();
                    self.go_on.notified().await;
                }
                false
            }
        }
    }
}
