//! Measures what a device does that waits for the disk: on blocking threads as it is, and with io_uring; interleaved.

mod course;
mod load;
mod measure;
mod ring;
mod row;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use oma_benches::{Table, data, is_in_memory, made};
use oma_core::ByteSize;

use crate::course::BLOCK;
use crate::load::Disk;

/// Whatever went wrong, for a reader.
type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Measures a device's blocking threads against io_uring
#[derive(Debug, Parser)]
#[command(name = "bench-io")]
struct Cli {
    /// How often each row is measured in each way, all of them by turns; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds for each measurement; it ends sooner when every block was had once
    #[arg(long, default_value = "1")]
    seconds: f64,
    /// Size of the file, a power of two
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// Where the file lies: on a real file system
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Write JSON in place of tables
    #[arg(long)]
    json: bool,
}

/// How long and how often something is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: u32,
    window: Duration,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-io: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let size = cli.size.bytes();
    if !size.is_power_of_two() || size < 1 << 20 {
        return Err("--size must be a power of two and at least 1 MiB".into());
    }
    if is_in_memory(&cli.dir)? {
        return Err(format!("{} lies in memory; name another --dir", cli.dir.display()).into());
    }
    let effort = Effort { rounds: cli.rounds, window: Duration::try_from_secs_f64(cli.seconds)? };
    let folder = tempfile::Builder::new().prefix("bench-io-").tempdir_in(&cli.dir)?;
    let path = made(folder.path().join("disk.raw"), |file| data(file, 0, size))?;
    let disk = Disk { path, blocks: size / u64::from(BLOCK) };
    let mut tables = Vec::new();
    for row in row::ALL {
        say(row.name);
        let table = measure::row(row, &disk, effort)?;
        if !cli.json {
            // At once: the whole takes long.
            writeln!(io::stdout(), "{table}")?;
        }
        tables.push(table);
    }
    if cli.json {
        let all = tables.iter().map(Table::json).collect();
        writeln!(io::stdout(), "{:#}", serde_json::Value::Array(all))?;
    }
    Ok(())
}

/// Says where we are, beside the report.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
