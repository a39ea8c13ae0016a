//! Fills tables inside of the engine, far quicker than the store would: every row is made from its number.

mod automation;
mod replication;

use oma_core::Timestamp;

use crate::bare::Bare;
use crate::engine::{Base, Engine};
use crate::{Result, say};

/// The numbers that rows are made from: 2^17 of them, used again with another offset for each chunk.
const NUMBERS: i64 = 1 << 17;
/// The history that the rows tell.
const DAYS: i64 = 100;
const DAY: i64 = 86_400_000;
/// Numbers of VMs are scattered, as their ids are: multiplied by an odd number, modulo 2^32.
const SCATTER: i64 = 2_654_435_761;
/// Every tenth value of ids has as many digits.
const DIGITS: i64 = 10_000_000_000;

/// How much there is. Of each VM a job ran once a day; the oldest VMs' jobs have the lowest numbers of each day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) vms: i64,
    /// Jobs of each VM, one behind the other.
    pub(crate) rounds: i64,
    /// The newest job of every so manieth VM is still to be driven.
    pub(crate) live_each: i64,
    /// The newest job of every so manieth VM is being driven; a multiple of `live_each`, or 0 for none.
    pub(crate) held_each: i64,
    /// When the first job began.
    pub(crate) begin: Timestamp,
}

impl Shape {
    pub(crate) fn new(vms: i64, rounds: i64, now: Timestamp) -> Self {
        let begin = Timestamp::from_millis(now.as_millis() - DAYS * DAY);
        Self { vms, rounds, live_each: 2, held_each: 100, begin }
    }

    pub(crate) const fn jobs(&self) -> i64 {
        self.vms * self.rounds
    }

    /// Ten for each job.
    pub(crate) const fn lines(&self) -> i64 {
        self.jobs() * 10
    }

    pub(crate) const fn users(&self) -> i64 {
        self.vms / 10 + 1
    }

    /// The number of the newest job of a VM.
    pub(crate) const fn newest_job(&self, vm: i64) -> i64 {
        (self.rounds - 1) * self.vms + vm
    }

    pub(crate) const fn job(number: i64) -> Id {
        Id("job-", DIGITS + number)
    }

    pub(crate) const fn vm(number: i64) -> Id {
        Id("ctx-", DIGITS + number * SCATTER % (1 << 32))
    }

    pub(crate) const fn run(number: i64) -> Id {
        Id("run-", DIGITS + number * SCATTER % (1 << 32))
    }
}

/// An id of a row that was filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(&'static str, i64);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.0, self.1)
    }
}

/// Expressions of an engine. Numbers are 64-bit throughout.
#[derive(Clone, Copy, Debug)]
struct Write {
    engine: Engine,
    shape: Shape,
}

impl Write {
    /// Whole-numbered division.
    fn div(self, number: &str, by: i64) -> String {
        let sign = self.engine.pick("/", "DIV", "/");
        format!("(({number}) {sign} {by})")
    }

    /// A time, from milliseconds.
    fn time(self, millis: &str) -> String {
        self.engine.pick(
            format!("({millis})"),
            format!("TIMESTAMPADD(MICROSECOND, ({millis}) * 1000, '1970-01-01 00:00:00')"),
            format!("to_timestamp(({millis}) / 1000.0)"),
        )
    }

    /// The time of one of so many things that happened evenly, plus some milliseconds.
    fn moment(self, number: &str, of: i64, plus: i64) -> String {
        let since = self.div(&format!("({number}) * {}", DAYS * DAY), of);
        self.time(&format!("{} + {since}", self.shape.begin.as_millis() + plus))
    }

    fn job(self, number: &str) -> String {
        format!("'job-' || ({DIGITS} + {number})")
    }

    fn vm(self, number: &str) -> String {
        format!("'ctx-' || ({DIGITS} + ({number}) * {SCATTER} % 4294967296)")
    }

    fn run(self, number: &str) -> String {
        format!("'run-' || ({DIGITS} + ({number}) * {SCATTER} % 4294967296)")
    }
}

/// Rows of one table, made from their numbers `i`, from 0 on.
struct Rows {
    table: &'static str,
    count: i64,
    columns: Vec<(&'static str, String)>,
}

impl Rows {
    fn new(table: &'static str, count: i64, columns: Vec<(&'static str, String)>) -> Self {
        Self { table, count, columns }
    }

    async fn write(&self, bare: &mut Bare) -> Result<()> {
        let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        let values: Vec<_> = self.columns.iter().map(|(_, value)| value.as_str()).collect();
        let (table, names, values) = (self.table, names.join(", "), values.join(", "));
        let mut done = 0;
        while done < self.count {
            let chunk = NUMBERS.min(self.count - done);
            bare.script(&format!(
                "INSERT INTO {table} ({names}) SELECT {values} FROM \
                 (SELECT n + {done} AS i FROM bench_numbers WHERE n < {chunk}) AS numbered"
            ))
            .await?;
            done += chunk;
        }
        Ok(())
    }
}

/// VMs and their jobs, and nothing else.
pub(crate) async fn queue(base: &Base, shape: Shape) -> Result<()> {
    let write = Write { engine: base.engine, shape };
    let mut bare = prepared(base).await?;
    write_all(&mut bare, vec![replication::vms(write), replication::jobs(write)]).await?;
    bare.script(&replication::current_jobs()).await?;
    finished(base, &mut bare, &["vm_replication_contexts", "replication_jobs"]).await
}

/// All that grows.
pub(crate) async fn everything(base: &Base, shape: Shape) -> Result<()> {
    let write = Write { engine: base.engine, shape };
    let mut bare = prepared(base).await?;
    months(base, &mut bare, shape).await?;
    let first = replication::all(write);
    let tables: Vec<_> = first.iter().map(|rows| rows.table).collect();
    write_all(&mut bare, first).await?;
    bare.script(&replication::current_jobs()).await?;
    bare.script("UPDATE vm_disks SET ossea_volume_id = id").await?;
    let second = automation::all(write);
    let tables: Vec<_> = tables.into_iter().chain(second.iter().map(|rows| rows.table)).collect();
    write_all(&mut bare, second).await?;
    finished(base, &mut bare, &tables).await
}

async fn prepared(base: &Base) -> Result<Bare> {
    let mut bare = base.bare().await?;
    if base.engine == Engine::Sqlite {
        bare.script("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144").await?;
    }
    let table = "CREATE TABLE bench_numbers (n BIGINT NOT NULL PRIMARY KEY)";
    bare.script(table).await?;
    bare.script("INSERT INTO bench_numbers VALUES (0)").await?;
    let mut count = 1;
    while count < NUMBERS {
        bare.script(&format!("INSERT INTO bench_numbers SELECT n + {count} FROM bench_numbers")).await?;
        count *= 2;
    }
    Ok(bare)
}

/// The partitions that an appliance would have made in the course of time.
async fn months(base: &Base, bare: &mut Bare, shape: Shape) -> Result<()> {
    if base.engine == Engine::Postgres {
        for table in ["log_events", "job_logs", "audit_logs"] {
            let first = shape.begin.as_millis();
            bare.script(&format!("SELECT oma_add_months('{table}', to_timestamp({first} / 1000.0))")).await?;
        }
    }
    Ok(())
}

async fn write_all(bare: &mut Bare, all: Vec<Rows>) -> Result<()> {
    for rows in all {
        let begun = std::time::Instant::now();
        rows.write(bare).await?;
        let seconds = begun.elapsed().as_secs_f64();
        say(&format!("  {} rows of {} in {seconds:.1} s", rows.count, rows.table));
    }
    Ok(())
}

/// Tells the planner what there is, as the engine does by itself in the course of time.
async fn finished(base: &Base, bare: &mut Bare, tables: &[&str]) -> Result<()> {
    bare.script("DROP TABLE bench_numbers").await?;
    match base.engine {
        Engine::Sqlite => bare.script("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)").await,
        Engine::Mariadb => bare.script(&format!("ANALYZE TABLE {}", tables.join(", "))).await,
        Engine::Postgres => {
            // Ids were given, so the sequences have not moved.
            for (table, column) in replication::NUMBERED.iter().chain(automation::NUMBERED) {
                let last = format!("(SELECT COALESCE(MAX({column}), 0) + 1 FROM {table})");
                let sequence = format!("pg_get_serial_sequence('{table}', '{column}')");
                bare.script(&format!("SELECT setval({sequence}, {last}, false)")).await?;
            }
            bare.script("VACUUM ANALYZE").await
        }
    }
}
