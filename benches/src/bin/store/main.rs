//! Measures the store on SQLite, MariaDB and PostgreSQL: against the bare driver, as a queue, as a log, in lists, and as it grows.

mod bare;
mod claims;
mod engine;
mod fill;
mod growth;
mod lists;
mod logs;
mod rate;
mod transactions;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use oma_benches::Table;

use crate::engine::{Engine, Host};

/// Whatever went wrong, for a reader.
type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Measures the store on each engine
#[derive(Debug, Parser)]
#[command(name = "bench-store")]
struct Cli {
    /// Which engines
    #[arg(long, value_delimiter = ',', default_value = "sqlite,mariadb,postgres")]
    engine: Vec<Engine>,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "transactions,claims,logs,lists,growth")]
    part: Vec<Part>,
    /// How often each rate is measured, all of them by turns; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds for each measurement of a rate
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// Growth: how many times 10,000 replication and automation jobs with 100,000 log lines each
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    scale: Vec<u32>,
    /// Growth: how often each query is asked, with another random key each time
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Growth: a file for the curves, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Where the databases lie; needs 20 GiB at 100 times
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// Write JSON in place of tables
    #[arg(long)]
    json: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Durable transactions of the store against the same through the bare driver
    Transactions,
    /// Claims of waiting jobs
    Claims,
    /// Log lines
    Logs,
    /// Pages of jobs by their state
    Lists,
    /// Lookups and dashboards on tables that grow
    Growth,
}

/// How long and how often a rate is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: u32,
    window: Duration,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(&cli)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-store: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let effort = Effort { rounds: cli.rounds, window: Duration::try_from_secs_f64(cli.seconds)? };
    let (mut tables, mut points) = (Vec::new(), Vec::new());
    for engine in &cli.engine {
        let host = Host::start(*engine, &cli.dir).await?;
        say(&format!("{engine}: {}", host.version().await?));
        for part in &cli.part {
            say(&format!("{engine}: {part:?}"));
            let found = match part {
                Part::Transactions => transactions::measure(&host, effort).await?,
                Part::Claims => claims::measure(&host, effort).await?,
                Part::Logs => logs::measure(&host, effort).await?,
                Part::Lists => lists::measure(&host, effort).await?,
                Part::Growth => {
                    let growth = growth::measure(&host, &cli.scale, cli.keys).await?;
                    let found = growth.tables(*engine);
                    points.extend(growth.points);
                    found
                }
            };
            // At once: the whole takes long.
            for table in found.iter().filter(|_| !cli.json) {
                writeln!(io::stdout(), "{table}")?;
            }
            tables.extend(found);
        }
    }
    if cli.json {
        let all = tables.iter().map(Table::json).collect();
        writeln!(io::stdout(), "{:#}", serde_json::Value::Array(all))?;
    }
    if let Some(file) = &cli.plot {
        std::fs::write(file, growth::plot::svg(&points))?;
    }
    Ok(())
}

/// Says where we are, beside the report.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
