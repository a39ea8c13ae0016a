//! Measures our NBD server and client against qemu-nbd, nbdkit and nbd-server: same files, same clients, interleaved.

mod clients;
mod disk;
mod fio;
mod lean;
mod load;
mod measure;
mod program;
mod resources;
mod row;
mod serve;
mod server;
mod verdict;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use oma_benches::Table;
use oma_core::ByteSize;

use crate::disk::Disks;
use crate::serve::ServeArgs;
use crate::server::Kind;
use crate::verdict::Verdict;

/// Whatever went wrong, for a reader.
type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Measures our NBD server and client against their peers
#[derive(Debug, Parser)]
#[command(name = "bench-nbd")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which rows, by the beginning of their names, e.g. `seq` or `rand-read-16`; all when not given
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,
    /// Name the rows and end
    #[arg(long)]
    list: bool,
    /// Which servers
    #[arg(long, value_enum, value_delimiter = ',', default_value = "oma,qemu-nbd,nbdkit,nbd-server")]
    server: Vec<Kind>,
    /// How often each row is measured with each server, all of them by turns; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds for each measurement of a rate of requests
    #[arg(long, default_value = "2")]
    seconds: f64,
    /// Size of the disk that is served; the sparse one is eight times as large and has half as much data
    #[arg(long, default_value = "2GiB")]
    size: ByteSize,
    /// Where the disks lie; needs three times the size
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Where the disk of the cold rows lies: on a real file system
    #[arg(long, default_value = "/var/tmp")]
    disk_dir: PathBuf,
    /// Write JSON in place of tables
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Our server, as this program starts it
    #[command(hide = true)]
    Serve(ServeArgs),
}

/// How long and how often something is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: u32,
    window: Duration,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            match &cli.command {
                Some(Command::Serve(args)) => serve::run(args).await,
                None => run(&cli).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-nbd: {}", reason(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let wanted =
        |name: &str| cli.row.is_empty() || cli.row.iter().any(|begin| name.starts_with(begin.as_str()));
    let rows: Vec<_> = row::all().into_iter().filter(|row| wanted(row.name)).collect();
    let extras: Vec<_> = Extra::value_variants().iter().filter(|extra| wanted(extra.name())).collect();
    let names = rows.iter().map(|row| row.name).chain(extras.iter().map(|extra| extra.name()));
    if cli.list {
        return Ok(writeln!(io::stdout(), "{}", names.collect::<Vec<_>>().join("\n"))?);
    }
    if names.count() == 0 {
        return Err("no row begins like that; --list names them".into());
    }
    resources::allow_many_files()?;
    let effort = Effort { rounds: cli.rounds, window: Duration::try_from_secs_f64(cli.seconds)? };
    let disks = Disks::new(cli.size, &cli.dir, &cli.disk_dir)?;
    let (mut tables, mut verdicts) = (Vec::new(), Vec::new());
    let mut report = |found: Vec<Table>| -> Result<()> {
        // At once: the whole takes long.
        for table in found.iter().filter(|_| !cli.json) {
            writeln!(io::stdout(), "{table}")?;
        }
        tables.extend(found);
        Ok(())
    };
    for row in &rows {
        say(row.name);
        let measured = measure::row(row, &cli.server, &disks, effort).await?;
        verdicts.push(Verdict::of(row, &measured));
        report(vec![measured.table(row)])?;
    }
    for extra in extras {
        say(extra.name());
        report(match extra {
            Extra::Clients => {
                let (found, more) = clients::measure(&cli.server, &disks, effort).await?;
                verdicts.extend(more);
                found
            }
            Extra::Connections => vec![resources::connections(&cli.server, &disks, effort).await?],
            Extra::Memory => vec![resources::memory(&disks).await?],
            Extra::Exports => vec![resources::exports(&disks).await?],
        })?;
    }
    report(vec![verdict::table(&verdicts)])?;
    if cli.json {
        let all = tables.iter().map(Table::json).collect();
        writeln!(io::stdout(), "{:#}", serde_json::Value::Array(all))?;
    }
    Ok(())
}

/// What is measured besides rows of one client and several servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Extra {
    Clients,
    Connections,
    Memory,
    Exports,
}

impl Extra {
    const fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Connections => "connections",
            Self::Memory => "memory",
            Self::Exports => "exports",
        }
    }
}

/// An error with what caused it.
fn reason(error: &Failure) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Says where we are, beside the report.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
