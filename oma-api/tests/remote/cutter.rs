//! A way to the daemon that is cut in the middle of a call.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where the next call is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before the daemon hears of it.
    Before,
    /// After it was done, before the answer.
    After,
}

/// Stands between client and daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cutter {
    next: Arc<Mutex<Option<Cut>>>,
    /// Tells all connections that are there to end.
    now: watch::Sender<()>,
}

impl Cutter {
    /// Listens on a port of its own; answers its address.
    pub(crate) async fn before(address: &str) -> (Self, String) {
        let daemon = address.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        let cutter = Self::default();
        let plan = cutter.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (plan, daemon) = (plan.clone(), daemon.clone());
                connections.spawn(async move { plan.pass(client, &daemon).await });
            }
        });
        (cutter, here)
    }

    pub(crate) fn cut(&self, cut: Cut) {
        *self.next.lock().unwrap() = Some(cut);
    }

    /// Cuts all that is there.
    pub(crate) fn cut_now(&self) {
        self.now.send_replace(());
    }

    /// Whether the cut was made.
    pub(crate) fn has_cut(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }

    /// Passes bytes on until the cut that is asked for.
    async fn pass(&self, mut client: TcpStream, daemon: &str) -> Option<()> {
        let mut server = TcpStream::connect(daemon).await.ok()?;
        let mut now = self.now.subscribe();
        let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                _ = now.changed() => return None,
                read = client.read(&mut asked) => {
                    let read = read.ok().filter(|read| *read > 0)?;
                    self.passes(Cut::Before)?;
                    server.write_all(&asked[..read]).await.ok()?;
                }
                read = server.read(&mut answered) => {
                    let read = read.ok().filter(|read| *read > 0)?;
                    self.passes(Cut::After)?;
                    client.write_all(&answered[..read]).await.ok()?;
                }
            }
        }
    }

    fn passes(&self, here: Cut) -> Option<()> {
        let mut plan = self.next.lock().unwrap();
        if *plan == Some(here) {
            *plan = None;
            return None;
        }
        Some(())
    }
}
