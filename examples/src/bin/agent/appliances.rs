//! The appliances that share a database: a job's exports are at the one that drives it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use oma_api::PushRow;
use oma_api::client::{Appliance, Token};
use oma_core::{Error, ErrorKind, JobId, Result, Retry};
use oma_examples::{private_file, trust};
use tokio::time::timeout;

use crate::args::Cli;

/// How long each is waited for that is only to tell something: one that hangs keeps nobody from the others.
const LOOK: Duration = Duration::from_secs(10);

/// Whoever of them answers is asked; who drives the job is found by asking each.
#[derive(Debug)]
pub(crate) struct Appliances {
    all: Vec<Arc<Appliance>>,
    asked: AtomicUsize,
    look: Duration,
}

impl Appliances {
    /// Those that were named. Nothing is asked of them yet.
    pub(crate) async fn new(cli: &Cli) -> Result<Self> {
        let token = cli.token_file.as_deref().map(token).transpose()?;
        let mut all = Vec::new();
        for address in &cli.api {
            let config = trust::reach(address, cli.ca.as_deref())?;
            all.push(Arc::new(Appliance::new(&config, token.clone()).await?));
        }
        Ok(Self { all, asked: AtomicUsize::new(0), look: LOOK })
    }

    /// The one that is asked.
    pub(crate) fn asked(&self) -> &Arc<Appliance> {
        &self.all[self.index()]
    }

    fn index(&self) -> usize {
        self.asked.load(Ordering::Relaxed) % self.all.len()
    }

    /// Asks the next one from now on: this one does not answer.
    pub(crate) fn pass(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// What is told soon, or nobody is there: another one may be asked then.
    pub(crate) async fn soon<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.look, asked).await.unwrap_or_else(|_| {
            let reason =
                format!("it has not answered within {} s; see whether it hangs", self.look.as_secs());
            let late = Error::new(ErrorKind::Unavailable, "ask", "the appliance");
            Err(late.because(reason).with_retry(Retry::Later))
        })
    }

    /// What the agent of a job has to know, of the one that drives it if any does: that one is asked from now on. All are asked at once,
    /// and one that fails does not drive it; why is told when nobody answers otherwise.
    pub(crate) async fn push(&self, job: &JobId) -> Result<PushRow> {
        let first = self.index();
        let mut asked: FuturesUnordered<_> = (first..first + self.all.len())
            .map(|index| index % self.all.len())
            .map(async |index| (index, self.soon(self.all[index].push(job)).await))
            .collect();
        let mut told: Option<(usize, PushRow)> = None;
        let mut failed: Option<(usize, Error)> = None;
        let is_better =
            |index: usize, than: Option<usize>| than.is_none_or(|than| than != first && index == first);
        while let Some((index, answer)) = asked.next().await {
            match answer {
                Ok(row) if row.ready || row.status.is_terminal() => {
                    self.asked.store(index, Ordering::Relaxed);
                    return Ok(row);
                }
                Ok(row) if is_better(index, told.as_ref().map(|(of, _)| *of)) => told = Some((index, row)),
                Err(error) if is_better(index, failed.as_ref().map(|(of, _)| *of)) => {
                    failed = Some((index, error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        match (told, failed) {
            (Some((index, row)), _) => {
                self.asked.store(index, Ordering::Relaxed);
                Ok(row)
            }
            (None, Some((_, error))) => Err(error),
            (None, None) => {
                Err(Error::new(ErrorKind::Invalid, "ask about", job).because("name an appliance with --api"))
            }
        }
    }
}

fn token(path: &Path) -> Result<Token> {
    Token::new(&private_file::read(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_api::client::RemoteConfig;
    use oma_core::state::JobStatus;
    use oma_core::{Clock as _, Epoch, SystemClock};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// What an appliance does that is asked.
    #[derive(Clone)]
    enum Does {
        Hang,
        Answer(PushRow),
        Refuse(&'static str),
    }

    fn row(ready: bool) -> PushRow {
        PushRow {
            job_id: JobId::mint(SystemClock.now()),
            status: JobStatus::Replicating,
            epoch: Epoch(1),
            ready,
            fence: ready.then_some(1),
            quiet_seconds: None,
            error: None,
            disks: Vec::new(),
        }
    }

    /// Appliances as they are asked, for as long as the set lives.
    async fn appliances(all: &[Does]) -> (Appliances, JoinSet<()>) {
        let (mut serving, mut made) = (JoinSet::new(), Vec::new());
        for does in all {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = RemoteConfig::new(format!("http://{}", listener.local_addr().unwrap()));
            made.push(Arc::new(Appliance::new(&config, None).await.unwrap()));
            serving.spawn(serve(listener, does.clone()));
        }
        let look = Duration::from_millis(200);
        (Appliances { all: made, asked: AtomicUsize::new(0), look }, serving)
    }

    async fn serve(listener: TcpListener, does: Does) {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (status, body) = match &does {
                Does::Hang => {
                    open.push(stream);
                    continue;
                }
                Does::Answer(row) => ("200 OK", serde_json::to_string(row).unwrap()),
                Does::Refuse(status) => (*status, String::new()),
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let head = "content-type: application/json\r\nconnection: close";
            let answer =
                format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_never_answers_keeps_nobody_from_who_drives_the_job() {
        let (waits, ready) = (row(false), row(true));
        let answer = |row: &PushRow| Does::Answer(row.clone());
        for (all, wanted, asked) in [
            (vec![Does::Hang, answer(&ready)], &ready, 1),
            (vec![answer(&waits), Does::Hang, answer(&ready)], &ready, 2),
            (vec![Does::Refuse("502 Bad Gateway"), answer(&waits), Does::Hang], &waits, 1),
            (vec![answer(&waits), answer(&row(false))], &waits, 0),
        ] {
            let (appliances, _serving) = appliances(&all).await;
            let found = appliances.push(&wanted.job_id).await.unwrap();
            assert_eq!((&found, appliances.index()), (wanted, asked));
        }
    }

    #[tokio::test]
    async fn that_nobody_answers_is_told_of_the_first_and_is_no_end() {
        let job = row(true).job_id;
        let (all, _serving) = appliances(&[Does::Hang, Does::Hang]).await;
        let error = all.push(&job).await.unwrap_err();
        assert!(error.retry() == Retry::Later && error.chain().contains("see whether it hangs"), "{error:?}");
        let (all, _serving) = appliances(&[Does::Refuse("404 Not Found"), Does::Hang]).await;
        let error = all.push(&job).await.unwrap_err();
        assert!(error.chain().contains("is no daemon of OMA"), "{}", error.chain());
    }
}
