//! Measures our copies against `qemu-img convert`, `nbdcopy`, `cp` and a loop that waits for each request: same images, interleaved.

mod contender;
mod extents;
mod growth;
mod measure;
mod row;
mod server;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use oma_benches::oma;
use oma_core::ByteSize;
use oma_examples::SampleDisk;

use crate::row::Row;

/// Compares our copies with those of others on the same image
#[derive(Debug, Parser)]
#[command(name = "bench-copy")]
struct Cli {
    /// Which rows, by the beginning of their names, e.g. `file` or `changes-64k`; all when not given
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,
    /// Name the rows and end
    #[arg(long)]
    list: bool,
    /// Size of the image: half of it data, a quarter written zeroes, a quarter holes
    #[arg(long, default_value = "4GiB")]
    size: ByteSize,
    /// Size of the disk of which 5 % changed, behind servers that delay each request
    #[arg(long, default_value = "16GiB")]
    delayed_size: ByteSize,
    /// Copies per contender; medians are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where image and targets lie; needs twice the size
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The program `oma`; the one beside this program when not given
    #[arg(long)]
    oma: Option<PathBuf>,
}

/// What every row needs.
#[derive(Debug)]
struct Bench {
    oma: PathBuf,
    image: PathBuf,
    size: ByteSize,
    delayed_size: ByteSize,
    rounds: u32,
    folder: tempfile::TempDir,
}

impl Bench {
    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench-copy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<()> {
    let wanted =
        |name: &str| cli.row.is_empty() || cli.row.iter().any(|begin| name.starts_with(begin.as_str()));
    let rows: Vec<Row> = row::all().into_iter().filter(|row| wanted(row.name)).collect();
    let growth = wanted(growth::NAME);
    let mut out = io::stdout().lock();
    if cli.list {
        for name in rows.iter().map(|row| row.name).chain(growth.then_some(growth::NAME)) {
            writeln!(out, "{name}")?;
        }
        return Ok(());
    }
    let bench = bench(cli, rows.iter().any(Row::needs_image))?;
    for row in &rows {
        let measured = row.measure(&bench)?;
        writeln!(out, "{}", table::markdown(row, &bench, &measured))?;
    }
    if growth {
        writeln!(out, "{}", growth::measure(&bench)?)?;
    }
    Ok(())
}

fn bench(cli: &Cli, needs_image: bool) -> io::Result<Bench> {
    let oma = oma(cli.oma.as_deref())?;
    let folder = tempfile::Builder::new().prefix("oma-bench-").tempdir_in(&cli.dir)?;
    let image = folder.path().join("source.raw");
    if needs_image {
        SampleDisk::make(&image, cli.size, 1)?;
    }
    let Cli { size, delayed_size, rounds, .. } = *cli;
    Ok(Bench { oma, image, size, delayed_size, rounds, folder })
}
