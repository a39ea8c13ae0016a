//! Measures verification against hashing both files, and repair over a slow link against a full copy over the same link.

#[path = "../copy/measure.rs"]
mod measure;
mod relay;
mod repair;
mod whole;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use oma_benches::{Cell, Table, gib, median, oma, spread};
use oma_core::ByteSize;

use crate::measure::Sample;

/// Measures verification and repair
#[derive(Debug, Parser)]
#[command(name = "bench-verify")]
struct Cli {
    /// Size of the disk that is verified: half of it data, a quarter written zeroes, a quarter holes
    #[arg(long, default_value = "8GiB")]
    size: ByteSize,
    /// Size of the disk that is repaired
    #[arg(long, default_value = "16GiB")]
    repair_size: ByteSize,
    /// How much of that is data; the rest is a hole
    #[arg(long, default_value = "4GiB")]
    repair_data: ByteSize,
    /// Bytes a second that the link carries, each way
    #[arg(long, default_value_t = 100_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How often each is measured, by turns; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where images and volumes lie; needs twice the data
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The program `oma`; the one beside this program when not given
    #[arg(long)]
    oma: Option<PathBuf>,
    /// The program `b3sum`
    #[arg(long, default_value = "b3sum")]
    b3sum: PathBuf,
    /// Write JSON in place of tables
    #[arg(long)]
    json: bool,
}

/// What every row needs.
#[derive(Debug)]
struct Bench<'a> {
    cli: &'a Cli,
    oma: PathBuf,
    folder: tempfile::TempDir,
}

impl Bench<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The runs of one contender, the first is ours.
type Runs = Vec<(&'static str, Vec<Sample>)>;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench-verify: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    let oma = oma(cli.oma.as_deref())?;
    let folder = tempfile::Builder::new().prefix("bench-verify-").tempdir_in(&cli.dir)?;
    let bench = Bench { cli, oma, folder };
    let tables = [
        table("Whole disk, both sides", cli.size, &whole::measure(&bench)?),
        table("Repair of 0.1 % over the link", cli.repair_size, &repair::measure(&bench)?),
    ];
    let mut out = io::stdout().lock();
    if cli.json {
        let all = tables.iter().map(Table::json).collect();
        return writeln!(out, "{:#}", serde_json::Value::Array(all));
    }
    tables.iter().try_for_each(|table| writeln!(out, "{table}"))
}

/// Medians of each; GiB are those of the disk, holes included.
fn table(title: &str, size: ByteSize, runs: &Runs) -> Table {
    const COLUMNS: [&str; 7] =
        ["what", "seconds", "fastest–slowest", "GiB/s", "CPU s/GiB", "MiB at most", "time against ours"];
    let mut table = Table::new(format!("{title}, {size}:"), &COLUMNS);
    let middle = |samples: &[Sample], of: fn(&Sample) -> f64| median(samples.iter().map(of));
    let ours = runs.first().map_or(f64::NAN, |(_, samples)| middle(samples, |one| one.seconds));
    let gib = gib(size.bytes());
    for (name, samples) in runs {
        let seconds = middle(samples, |one| one.seconds);
        let (fastest, slowest) = spread(samples.iter().map(|one| one.seconds));
        table.row(vec![
            (*name).into(),
            Cell::Number(seconds, 2),
            format!("{fastest:.2}–{slowest:.2}").into(),
            Cell::Number(gib / seconds, 2),
            Cell::Number(middle(samples, |one| one.cpu) / gib, 2),
            Cell::Number(middle(samples, |one| one.memory), 0),
            Cell::Number(seconds / ours, 2),
        ]);
    }
    table
}

/// The volume of a data directory that has one.
fn volume(data: &Path) -> io::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(data.join("volumes"))? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.into_iter().max().map(|(_, path)| path).ok_or_else(|| io::Error::other("there is no volume"))
}
