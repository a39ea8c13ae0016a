use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
use crate::engine::Silent;
use crate::record::JobStep;
use crate::{Error, Fence, JobId, Timestamp, WorkerId};

/// Keeps what is recorded; fails, hangs or refuses as it is told.
#[derive(Debug, Default)]
struct Log {
    recorded: Mutex<Vec<Vec<Told>>>,
    calls: AtomicU32,
    fails: Mutex<Option<ErrorKind>>,
    hangs: AtomicBool,
    trimmed: Mutex<Option<u64>>,
    told: Notify,
}

#[async_trait]
impl JobLog for Log {
    async fn record(&self, lease: &Lease, entries: &[JobEntry]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if let Some(kind) = *self.fails.lock().unwrap() {
            self.told.notify_one();
            return Err(Error::new(kind, "record", &lease.job));
        }
        self.recorded.lock().unwrap().push(entries.iter().map(|entry| entry.what.clone()).collect());
        self.told.notify_one();
        Ok(())
    }
    async fn steps(&self, _: &JobId, _: u32, _: u32) -> Result<Vec<JobStep>> {
        unreachable!("a recorder only records")
    }
    async fn trim(&self, _: &JobId, keep: u64) -> Result<u64> {
        *self.trimmed.lock().unwrap() = Some(keep);
        Ok(0)
    }
}

impl Log {
    fn all(&self) -> Vec<Told> {
        self.recorded.lock().unwrap().concat()
    }

    fn messages(&self) -> Vec<String> {
        let message = |told| match told {
            Told::Line { message, .. } => Some(message),
            Told::Begins(_) | Told::Ends(_) => None,
        };
        self.all().into_iter().filter_map(message).collect()
    }
}

fn begun(log: &Arc<Log>) -> Recorder {
    let lease = Lease {
        job: JobId::parse("job-1").unwrap(),
        worker: WorkerId::parse("w").unwrap(),
        fence: Fence(1),
        expires_at: Timestamp::MAX,
    };
    Recorder::begin(Some(log.clone()), &lease, 77)
}

fn report(outcome: Outcome, warnings: &[&str]) -> Result<Report> {
    Ok(Report {
        job: JobId::parse("job-1").unwrap(),
        outcome,
        epoch: crate::Epoch(3),
        replication_type: ReplicationType::Initial,
        duration: Duration::from_secs(2),
        disks: Vec::new(),
        verification: None,
        recovery_point: None,
        warnings: warnings.iter().map(|warning| (*warning).to_owned()).collect(),
    })
}

fn broken() -> Error {
    Error::new(ErrorKind::Unavailable, "read", "disk-2000").because("the source went away")
}

#[tokio::test(start_paused = true)]
async fn steps_and_warnings_are_recorded_in_their_order_and_a_warning_once() {
    let log = Arc::new(Log::default());
    let recorder = begun(&log);
    let told = recorder.beside(&Silent);
    told.event(Event::StepBegins("copy"));
    told.event(Event::Warning("slow"));
    told.event(Event::StepEnded("copy"));
    recorder.end(&report(Outcome::Completed, &["slow", "left over"])).await;
    assert_eq!(log.messages(), ["slow", "left over", "epoch 3 is committed"]);
    let steps: Vec<_> = log.all().into_iter().filter(|told| !matches!(told, Told::Line { .. })).collect();
    assert_eq!(steps, [Told::Begins("copy".to_owned()), Told::Ends(StepEnd::Completed)]);
    assert_eq!(*log.trimmed.lock().unwrap(), Some(77));
}

#[tokio::test(start_paused = true)]
async fn the_step_that_a_run_broke_off_in_says_why() {
    for (outcome, why) in [
        (Outcome::Failed(broken()), broken().chain()),
        (Outcome::Deferred(broken()), broken().chain()),
        (Outcome::Suspended, STOPPED.to_owned()),
    ] {
        let log = Arc::new(Log::default());
        let recorder = begun(&log);
        recorder.beside(&Silent).event(Event::StepBegins("copy"));
        recorder.end(&report(outcome, &[])).await;
        assert!(log.all().contains(&Told::Ends(StepEnd::Failed(why))), "{:?}", log.all());
    }
}

/// A thousand lines wait, the next ones do not, and how many that were is told.
#[tokio::test(start_paused = true)]
async fn what_comes_too_fast_is_dropped_and_counted() {
    let log = Arc::new(Log::default());
    let recorder = begun(&log);
    for number in 0..WAITING + 5 {
        recorder.line(LogLevel::Info, number.to_string(), None);
    }
    recorder.beside(&Silent).event(Event::StepBegins("copy"));
    recorder.end(&report(Outcome::Completed, &[])).await;
    let messages = log.messages();
    assert_eq!(messages[..2], ["0", "1"]);
    let dropped = "5 lines were dropped: they came faster than they could be recorded";
    assert_eq!(messages[WAITING..], ["epoch 3 is committed", dropped]);
    assert!(log.all().contains(&Told::Begins("copy".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn lines_are_recorded_while_the_run_goes_on() {
    let log = Arc::new(Log::default());
    let recorder = begun(&log);
    recorder.line(LogLevel::Info, "one", None);
    recorder.line(LogLevel::Info, "two", None);
    log.told.notified().await;
    assert_eq!((log.messages().len(), log.calls.load(Ordering::SeqCst)), (2, 1));
    recorder.line(LogLevel::Info, "three", None);
    log.told.notified().await;
    assert_eq!(log.messages(), ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_again_and_loses_nothing() {
    let log = Arc::new(Log::default());
    *log.fails.lock().unwrap() = Some(ErrorKind::Unavailable);
    let recorder = begun(&log);
    recorder.line(LogLevel::Info, "one", None);
    log.told.notified().await;
    recorder.line(LogLevel::Info, "two", None);
    *log.fails.lock().unwrap() = None;
    log.told.notified().await;
    assert_eq!(log.messages(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn l16_nothing_more_is_told_once_another_attempt_tells() {
    let log = Arc::new(Log::default());
    *log.fails.lock().unwrap() = Some(ErrorKind::Fenced);
    let recorder = begun(&log);
    recorder.line(LogLevel::Info, "one", None);
    log.told.notified().await;
    *log.fails.lock().unwrap() = None;
    recorder.line(LogLevel::Info, "two", None);
    recorder.end(&report(Outcome::Completed, &[])).await;
    assert_eq!((log.messages().len(), log.calls.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_no_run_from_its_end() {
    let log = Arc::new(Log::default());
    log.hangs.store(true, Ordering::SeqCst);
    let recorder = begun(&log);
    recorder.line(LogLevel::Info, "one", None);
    let begun = tokio::time::Instant::now();
    recorder.end(&report(Outcome::Completed, &[])).await;
    assert!(begun.elapsed() <= ENDING + Duration::from_millis(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn where_nobody_keeps_a_log_nothing_is_told() {
    let lease = begun(&Arc::new(Log::default()));
    drop(lease);
    let lease = Lease {
        job: JobId::parse("job-1").unwrap(),
        worker: WorkerId::parse("w").unwrap(),
        fence: Fence(1),
        expires_at: Timestamp::MAX,
    };
    let recorder = Recorder::begin(None, &lease, 1);
    recorder.line(LogLevel::Info, "one", None);
    assert!(recorder.shared.take().is_empty());
    recorder.end(&report(Outcome::Completed, &[])).await;
}
