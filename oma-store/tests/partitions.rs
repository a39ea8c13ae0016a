//! Partitions by month, on the engine that has them.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

mod automation;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use automation::automation;
use futures_util::future::{BoxFuture, join_all};
use oma_core::conformance::{self, Trial};
use oma_core::memory::ManualClock;
use oma_core::record::{JobLine, LogEvent, LogFilter, Page, PageStart, Pruned, Retention};
use oma_core::state::{LineStream, LogLevel};
use oma_core::traits::LogStore;
use oma_core::{AutomationJobId, Clock, SystemClock, Timestamp};
use oma_store::servers::{Database, Server, ServerEngine};
use oma_store::{SqlStore, StoreConfig};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// More than any month and fewer than two.
const MONTH: Duration = Duration::from_secs(32 * 24 * 3600);

fn main() -> ExitCode {
    macro_rules! trials {
        ($($case:ident),+ $(,)?) => { vec![$(trial(stringify!($case), |world| Box::pin($case(world)))),+] };
    }
    conformance::run(trials![
        each_table_has_this_month_and_three_more,
        stores_that_open_at_once_make_each_month_once,
        rows_lie_in_the_month_of_their_time_or_with_the_rest,
        months_that_ended_are_dropped_whole_and_others_row_by_row,
        pruning_makes_the_coming_months,
        a_month_with_rows_in_the_rest_stays_there,
        a_line_has_one_number_in_all_months,
    ])
}

fn trial(name: &str, run: fn(World) -> BoxFuture<'static, ()>) -> Trial {
    let engine = ServerEngine::Postgres;
    conformance::trial(&format!("{engine}::{name}"), &[engine.required()], move || async move {
        run(World::new(Server::shared(engine).await.unwrap().create_database().await.unwrap()).await).await;
    })
}

struct World {
    store: SqlStore,
    clock: Arc<ManualClock>,
    database: Database,
}

impl World {
    async fn new(database: Database) -> Self {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let config = StoreConfig { url: database.url(), ..StoreConfig::default() };
        let store = SqlStore::open(&config).await.unwrap().with_clock(clock.clone());
        Self { store, clock, database }
    }

    /// The partitions of a table, by name.
    async fn partitions(&self, table: &str) -> Vec<String> {
        let of =
            format!("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass");
        let mut connection = PgConnection::connect(&self.database.url()).await.unwrap();
        let rows = sqlx::query(AssertSqlSafe(of)).fetch_all(&mut connection).await.unwrap();
        let mut names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        names.sort();
        names
    }

    /// In which partition each event lies, in the order of recording.
    async fn places(&self) -> Vec<String> {
        let mut connection = PgConnection::connect(&self.database.url()).await.unwrap();
        let rows = sqlx::query("SELECT tableoid::regclass::text FROM log_events ORDER BY id");
        rows.fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn append(&self, times: &[Timestamp]) {
        let event = |at: &Timestamp| LogEvent {
            job: None,
            step: None,
            level: LogLevel::Info,
            message: at.to_string(),
            attrs: None,
            at: *at,
        };
        let events: Vec<_> = times.iter().map(event).collect();
        self.store.append(&events).await.unwrap();
    }

    async fn times(&self) -> Vec<Timestamp> {
        let page = Page { start: PageStart::Oldest, limit: Page::LARGEST };
        let events = self.store.events(&LogFilter::default(), &page).await.unwrap();
        events.into_iter().map(|(_, event)| event.at).collect()
    }

    async fn prune(&self, oldest: Timestamp) -> Pruned {
        self.store.prune(&Retention { older_than: Some(oldest), keep: None }).await.unwrap()
    }
}

/// The name of the partition of a time.
fn month(table: &str, time: Timestamp) -> String {
    format!("{table}_{}", &time.compact()[..6])
}

/// In the middle of a month that comes so many months after that of `time`.
fn later(time: Timestamp, months: u32) -> Timestamp {
    (0..months).fold(middle(time), |time, _| middle(time.after(MONTH)))
}

fn middle(time: Timestamp) -> Timestamp {
    let day: u64 = time.compact()[6..8].parse().unwrap();
    let days = 24 * 3600 * 1000;
    Timestamp::from_millis(time.as_millis() + (15 - i64::try_from(day).unwrap()) * days)
}

async fn each_table_has_this_month_and_three_more(world: World) {
    let now = world.clock.now();
    for table in ["log_events", "job_logs", "audit_logs"] {
        let mut expected: Vec<_> = (0..4).map(|months| month(table, later(now, months))).collect();
        expected.push(format!("{table}_rest"));
        assert_eq!(world.partitions(table).await, expected);
    }
}

async fn stores_that_open_at_once_make_each_month_once(world: World) {
    let mut connection = PgConnection::connect(&world.database.url()).await.unwrap();
    let drop =
        "SELECT oma_drop_months('log_events', '9999-01-01'), oma_drop_months('job_logs', '9999-01-01')";
    sqlx::raw_sql(drop).execute(&mut connection).await.unwrap();
    assert_eq!(world.partitions("log_events").await, ["log_events_rest"]);
    let config = StoreConfig { url: world.database.url(), connections: 2, ..StoreConfig::default() };
    for opened in join_all((0..8).map(|_| SqlStore::open(&config))).await {
        opened.unwrap().close().await;
    }
    assert_eq!(world.partitions("log_events").await.len(), 5);
    assert_eq!(world.partitions("job_logs").await.len(), 5);
}

async fn rows_lie_in_the_month_of_their_time_or_with_the_rest(world: World) {
    let now = world.clock.now();
    let times = [later(now, 1), now, later(now, 9), Timestamp::from_millis(0)];
    world.append(&times).await;
    let expected =
        [&month("log_events", times[0]), &month("log_events", now), "log_events_rest", "log_events_rest"];
    assert_eq!(world.places().await, expected);
    assert_eq!(world.times().await, times);
}

async fn months_that_ended_are_dropped_whole_and_others_row_by_row(world: World) {
    let now = world.clock.now();
    let [first, second, third] = [0, 1, 2].map(|months| later(now, months));
    let before = Timestamp::from_millis(second.as_millis() - 1);
    world.append(&[first, second, first, before, third, Timestamp::from_millis(0)]).await;
    world.clock.advance(MONTH * 2);
    assert_eq!(world.prune(second).await, Pruned { events: 4, lines: 0 });
    assert_eq!(world.times().await, [second, third]);
    let left = world.partitions("log_events").await;
    assert!(!left.contains(&month("log_events", first)), "{left:?}");
    assert!(left.contains(&month("log_events", second)), "{left:?}");
}

async fn pruning_makes_the_coming_months(world: World) {
    let now = world.clock.now();
    world.clock.advance(MONTH * 3);
    world.store.prune(&Retention::default()).await.unwrap();
    for table in ["log_events", "job_logs"] {
        let partitions = world.partitions(table).await;
        assert!(partitions.contains(&month(table, later(world.clock.now(), 3))), "{partitions:?}");
        assert!(partitions.contains(&month(table, now)), "{partitions:?}");
    }
}

async fn a_month_with_rows_in_the_rest_stays_there(world: World) {
    world.clock.advance(MONTH * 12);
    let now = world.clock.now();
    world.append(&[now]).await;
    world.store.prune(&Retention::default()).await.unwrap();
    let partitions = world.partitions("log_events").await;
    assert!(!partitions.contains(&month("log_events", now)), "{partitions:?}");
    assert!(partitions.contains(&month("log_events", later(now, 1))), "{partitions:?}");
    world.append(&[now]).await;
    assert_eq!(world.times().await, [now, now]);
    assert_eq!(world.prune(later(now, 1)).await, Pruned { events: 2, lines: 0 });
}

async fn a_line_has_one_number_in_all_months(world: World) {
    let job = AutomationJobId::parse("run-1").unwrap();
    automation(world.database.url())(job.clone()).await;
    let now = world.clock.now();
    let line = |months, text: &str| JobLine {
        number: 1,
        stream: LineStream::Stdout,
        text: text.to_owned(),
        at: later(now, months),
    };
    for months in [0, 1, 9] {
        world.store.append_lines(&job, &[line(months, "line")]).await.unwrap();
        world.store.append_lines(&job, &[line(months, "other")]).await.unwrap_err();
    }
    assert_eq!(world.store.lines(&job, 0, 9).await.unwrap(), [line(0, "line")]);
}
