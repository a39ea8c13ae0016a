//! How long lookups and dashboards take, and how that grows with the tables.

pub(crate) mod plot;
mod probes;

use std::time::{Duration, Instant};

use oma_benches::{Cell, Table, quantile};
use oma_core::traits::JobStore;
use oma_core::{Clock, SystemClock};
use oma_store::SqlStore;

use self::probes::{Found, PROBES, Probe, Way};
use crate::bare::{Bare, Statement};
use crate::engine::{Engine, Host};
use crate::fill::{self, Shape};
use crate::{Result, say};

/// VMs at one time; a hundred jobs each.
const VMS: i64 = 100;
const ROUNDS: i64 = 100;

/// How long a query took on tables of a size.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    engine: Engine,
    query: &'static str,
    scale: u32,
    p50: Duration,
    p99: Duration,
}

/// Everything measured of one engine.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) points: Vec<Point>,
    scales: Vec<u32>,
    keys: u32,
}

/// Tables of one size, and what asks.
struct World {
    store: SqlStore,
    bare: Bare,
    shape: Shape,
}

pub(crate) async fn measure(host: &Host, scales: &[u32], keys: u32) -> Result<Growth> {
    let mut points = Vec::new();
    for scale in scales {
        let base = host.database().await?;
        let shape = Shape::new(VMS * i64::from(*scale), ROUNDS, SystemClock.now());
        let begun = Instant::now();
        fill::everything(&base, shape).await?;
        let (seconds, size) = (begun.elapsed().as_secs_f64(), base.size().await?);
        say(&format!("{} at {scale}×: {size} MiB, filled in {seconds:.0} s", host.engine));
        let mut world = World { store: base.store.clone(), bare: base.bare().await?, shape };
        for probe in PROBES {
            let times = ask(&mut world, host.engine, probe, keys).await?;
            let [p50, p99] = [50, 99].map(|percent| quantile(&times, percent));
            say(&format!("  {}: {p50:.2?}, {p99:.2?}", probe.name));
            points.push(Point { engine: host.engine, query: probe.name, scale: *scale, p50, p99 });
        }
        drop(world);
        base.end().await?;
    }
    Ok(Growth { points, scales: scales.to_vec(), keys })
}

/// Asks with so many keys; the first question, for which statements are prepared, is not counted.
async fn ask(world: &mut World, engine: Engine, probe: &Probe, keys: u32) -> Result<Vec<Duration>> {
    // The same keys on every engine.
    let mut random = Random(1);
    let statement = match probe.way {
        Way::Sql(text, _) => Statement::new(engine, text),
        Way::Store(_) => Statement::new(engine, ""),
    };
    let mut times = Vec::new();
    for turn in 0..=keys {
        let key = random.next();
        let begun = Instant::now();
        let found = match probe.way {
            Way::Sql(_, values) => {
                let values = values(&world.shape, key);
                Found { rows: world.bare.fetch(statement, &values).await?, lease: None }
            }
            Way::Store(call) => call(&world.store, world.shape, key).await?,
        };
        let took = begun.elapsed();
        if found.rows == 0 {
            return Err(format!("{}: nothing was found for key {key}", probe.name).into());
        }
        if let Some(lease) = found.lease {
            world.store.release(&lease).await?;
        }
        if turn > 0 {
            times.push(took);
        }
    }
    Ok(times)
}

/// splitmix64: keys that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        i64::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap_or(0)
    }
}

impl Growth {
    /// A table with both quantiles at each size.
    pub(crate) fn tables(&self, engine: Engine) -> Vec<Table> {
        let mut columns = vec!["query".to_owned()];
        for percentile in ["p50", "p99"] {
            columns.extend(self.scales.iter().map(|scale| format!("{percentile} {scale}×, ms")));
        }
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let title =
            format!("### {engine}: time of a query as the tables grow, {} random keys each", self.keys);
        let mut table = Table::new(title, &columns);
        for probe in PROBES {
            let points = || self.points.iter().filter(|point| point.query == probe.name);
            let cell = |time: Duration| Cell::Number(time.as_secs_f64() * 1000.0, 2);
            let mut cells = vec![Cell::from(probe.name)];
            cells.extend(points().map(|point| cell(point.p50)));
            cells.extend(points().map(|point| cell(point.p99)));
            table.row(cells);
        }
        vec![table]
    }
}
