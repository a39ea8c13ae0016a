//! Measures the appliance's API under many clients while jobs run, against a route that does nothing.

mod clients;
mod daemon;
mod jobs;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use oma_benches::{Cell, Table, median, quantile, spread};

use crate::clients::{Answers, Target};
use crate::daemon::Daemon;

/// Measures the appliance's API under many clients
#[derive(Debug, Parser)]
#[command(name = "bench-api")]
struct Cli {
    /// Clients at once, each with a connection of its own
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How long they ask, in each round
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How often each is measured, by turns; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// VMs that are replicated all the time meanwhile
    #[arg(long, default_value_t = 8)]
    vms: u32,
    /// Where images and the data directory lie
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The program `omad`; the one beside this program when not given
    #[arg(long)]
    omad: Option<PathBuf>,
    /// Write JSON in place of a table
    #[arg(long)]
    json: bool,
    /// Serve the route that does nothing, until the end of standard input
    #[arg(long, hide = true)]
    bare: bool,
}

/// What one round found.
#[derive(Debug)]
struct Round {
    answers: Answers,
    cpu: f64,
    /// MiB that the process holds: after a quarter of the round, at its end.
    memory: (f64, f64),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The clients take the process's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench-api: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> io::Result<()> {
    if cli.bare {
        return bare().await;
    }
    let folder = tempfile::Builder::new().prefix("bench-api-").tempdir_in(&cli.dir)?;
    let starts = starts(cli).await?;
    let omad = Daemon::omad(cli.omad.as_deref(), folder.path()).await?;
    let nothing = Daemon::bare().await?;
    let work = jobs::Jobs::start(&omad, folder.path(), cli.vms).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..cli.rounds {
        ours.push(round(cli, &omad, &omad.target()).await?);
        theirs.push(round(cli, &nothing, &Target::bare(nothing.address())).await?);
    }
    let completed = work.stop().await?;
    let mut table = Table::new(
        format!("{} clients for {} s, while {completed} replications were driven:", cli.clients, cli.seconds),
        &[
            "what",
            "requests/s",
            "fewest–most",
            "p50 ms",
            "p99 ms",
            "longest ms",
            "errors",
            "CPU s",
            "MiB",
            "MiB at the end",
            "requests/s against ours",
        ],
    );
    let per_second = |rounds: &[Round]| median(rounds.iter().map(|one| one.answers.per_second()));
    for (name, rounds) in [("omad", &ours), ("nothing", &theirs)] {
        row(&mut table, name, rounds, per_second(&ours));
    }
    omad.stop().await?;
    nothing.stop().await?;
    let mut out = io::stdout().lock();
    for table in [starts, table] {
        if cli.json { writeln!(out, "{:#}", table.json())? } else { writeln!(out, "{table}")? }
    }
    Ok(())
}

/// How long a daemon takes until it serves, with nothing there yet: it makes its database first.
async fn starts(cli: &Cli) -> io::Result<Table> {
    let mut millis = Vec::new();
    for _ in 0..cli.rounds {
        let folder = tempfile::Builder::new().prefix("bench-api-").tempdir_in(&cli.dir)?;
        let omad = Daemon::omad(cli.omad.as_deref(), folder.path()).await?;
        millis.push(omad.started().as_secs_f64() * 1000.0);
        omad.stop().await?;
    }
    let mut table =
        Table::new("the first start of a daemon, until it serves:", &["what", "ms", "fewest–most"]);
    let (fewest, most) = spread(millis.iter().copied());
    let range = format!("{fewest:.0}–{most:.0}");
    table.row(vec!["omad".into(), Cell::Number(median(millis.iter().copied()), 0), range.into()]);
    Ok(table)
}

async fn round(cli: &Cli, daemon: &Daemon, target: &Target) -> io::Result<Round> {
    let before = daemon.cpu()?;
    let length = Duration::from_secs(cli.seconds);
    let asking = clients::ask(target, cli.clients, length);
    let early = async {
        tokio::time::sleep(length / 4).await;
        daemon.memory()
    };
    let (answers, early) = tokio::join!(asking, early);
    Ok(Round { answers: answers?, cpu: daemon.cpu()? - before, memory: (early?, daemon.memory()?) })
}

fn row(table: &mut Table, name: &str, rounds: &[Round], ours: f64) {
    let middle = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
    let at = |percent: usize| {
        let of = |round: &Round| quantile(&round.answers.times, percent).as_secs_f64() * 1000.0;
        median(rounds.iter().map(of))
    };
    let errors: usize = rounds.iter().map(|round| round.answers.errors).sum();
    let speed = middle(|round| round.answers.per_second());
    let (fewest, most) = spread(rounds.iter().map(|round| round.answers.per_second()));
    table.row(vec![
        name.into(),
        Cell::Number(speed, 0),
        format!("{fewest:.0}–{most:.0}").into(),
        Cell::Number(at(50), 1),
        Cell::Number(at(99), 1),
        Cell::Number(at(100), 1),
        u32::try_from(errors).unwrap_or(u32::MAX).into(),
        Cell::Number(middle(|round| round.cpu), 1),
        Cell::Number(middle(|round| round.memory.0), 0),
        Cell::Number(middle(|round| round.memory.1), 0),
        Cell::Number(speed / ours, 1),
    ]);
}

/// The same library and the same clients, and nothing to do.
async fn bare() -> io::Result<()> {
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "{}" }));
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    writeln!(io::stdout(), "http://{}", listener.local_addr()?)?;
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served,
        _ = ended => Ok(()),
    }
}
