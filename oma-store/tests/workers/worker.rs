//! A worker: a process that this program starts from itself, and that is killed without a warning.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime};

use oma_core::record::{ClaimLimits, ClaimRequest, JobEnd, Lease};
use oma_core::state::{JobEvent, JobStatus};
use oma_core::traits::JobStore;
use oma_core::{ErrorKind, Result, Retry, WorkerId};
use oma_store::{SqlStore, StoreConfig};

use crate::witness::Word;

/// The URL of the database that a worker works on.
pub(crate) const CHILD: &str = "OMA_TEST_WORKER";
const NAME: &str = "OMA_TEST_WORKER_NAME";
/// As long as a killed worker's job waits.
const TTL: Duration = Duration::from_secs(2);

pub(crate) struct Worker {
    /// `faketime`, which ends with the worker and then clears what it keeps outside of it.
    around: Child,
    process: String,
}

impl Worker {
    /// Starts a process whose clock is off by so many seconds, and waits until it has found the database.
    pub(crate) fn start(url: &str, slot: usize, skew: i32, heard: &Sender<Word>) -> Self {
        let mut command = Command::new("faketime");
        // Only the time of day is off: waits are as long as they are.
        command
            .args(["--exclude-monotonic", "-f", &format!("{skew:+}s")])
            .arg(std::env::current_exe().unwrap());
        command.env(CHILD, url).env(NAME, format!("appliance-{slot}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut around = command.spawn().unwrap();
        let complaints = BufReader::new(around.stderr.take().unwrap()).lines();
        std::thread::spawn(|| {
            // What `faketime` says of each kill.
            let mut others =
                complaints.map_while(std::result::Result::ok).filter(|line| line != "Caught Killed");
            others.try_for_each(|line| writeln!(std::io::stderr(), "{line}"))
        });
        let mut lines = BufReader::new(around.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a worker says who it is").unwrap();
        let (process, clock) = first.split_once(' ').unwrap();
        let off = clock.parse::<f64>().unwrap() - seconds();
        assert!((off - f64::from(skew)).abs() < 30.0, "the clock is off by {off} s and not by {skew} s");
        let heard = heard.clone();
        std::thread::spawn(move || {
            // A last line that is not whole was never said.
            lines
                .map_while(std::result::Result::ok)
                .filter_map(|line| Word::parse(&line))
                .try_for_each(|word| heard.send(word))
        });
        Self { process: process.to_owned(), around }
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_there(&mut self) -> bool {
        self.around.try_wait().unwrap().is_none()
    }

    /// Kills it as a crash does.
    pub(crate) fn kill(&mut self) {
        let killed =
            Command::new("sh").args(["-c", "kill -KILL \"$1\"", "sh", &self.process]).status().unwrap();
        assert!(killed.success());
        self.around.wait().unwrap();
    }
}

fn seconds() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// What a worker does until it is killed, or until nobody listens any more.
pub(crate) fn work(url: &str) {
    say(&format!("{} {}", std::process::id(), seconds()));
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        std::process::exit(0);
    });
    let config = StoreConfig { url: url.to_owned(), connections: 1, ..StoreConfig::default() };
    let worker: WorkerId = std::env::var(NAME).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqlStore::open(&config).await.unwrap();
        let request = ClaimRequest { worker, ttl: TTL, limits: ClaimLimits::default(), attempts: u32::MAX };
        loop {
            match store.claim_next(&request).await {
                Ok(Some(lease)) => drive(&store, &lease).await,
                Ok(None) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => assert_eq!(error.retry(), Retry::Later, "{}", error.chain()),
            }
        }
    });
}

async fn drive(store: &SqlStore, lease: &Lease) {
    say(&format!("claimed {} {} {}", lease.job, lease.fence, lease.worker));
    match done(store, lease).await {
        Ok(()) => say(&format!("done {} {} {}", lease.job, lease.fence, lease.worker)),
        // Nothing but the loss of the lease, and what passes, keeps a worker from its work.
        Err(error) => {
            let expected = error.kind() == ErrorKind::Fenced || error.retry() == Retry::Later;
            assert!(expected, "{}: {}", lease.job, error.chain());
        }
    }
}

async fn done(store: &SqlStore, lease: &Lease) -> Result<()> {
    match store.advance(lease, JobStatus::Initializing, JobEvent::Provision).await {
        // Whoever had it before came so far.
        Err(error) if error.kind() == ErrorKind::Conflict => {}
        advanced => drop(advanced?),
    }
    store.renew(lease, TTL).await?;
    let end = JobEnd::Cancelled(format!("{} {}", lease.fence, lease.worker));
    store.end(lease, end).await.map(drop)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}
