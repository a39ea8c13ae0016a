//! Compares our full copy with `qemu-img convert` and `nbdcopy`: same image, same target folder, interleaved.

mod contender;
mod image;
mod measure;
mod server;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use oma_core::ByteSize;

use crate::contender::{Contender, Path};
use crate::image::Image;
use crate::measure::Sample;
use crate::server::QemuNbd;

/// Compares our full copy with `qemu-img convert` and `nbdcopy` on the same image
#[derive(Debug, Parser)]
#[command(name = "bench-copy")]
struct Cli {
    /// Size of the image: half of it data, a quarter written zeroes, a quarter holes
    #[arg(long, default_value = "4GiB")]
    size: ByteSize,
    /// Copies per contender; medians are reported
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: u32,
    /// Where image and targets lie; needs twice the size
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The program `oma`; the one beside this program when not given
    #[arg(long)]
    oma: Option<PathBuf>,
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
    let oma = match &cli.oma {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("oma"),
    };
    if !oma.is_file() {
        return Err(io::Error::other(format!(
            "{} is missing; build it first: cargo build --release",
            oma.display()
        )));
    }
    let folder = tempfile::Builder::new().prefix("oma-bench-").tempdir_in(&cli.dir)?;
    let image = Image::make(&folder.path().join("source.raw"), cli.size)?;
    let server = QemuNbd::start(image.path(), &folder.path().join("source.sock"))?;
    let sources = [(Path::File, image.path().display().to_string()), (Path::Nbd, server.uri())];

    let mut out = io::stdout().lock();
    for (path, source) in sources {
        let contenders = contender::all(&source, &oma, folder.path());
        let samples = interleaved(&contenders, &image, cli.rounds)?;
        writeln!(out, "{}", table::markdown(path, &contenders, &samples, &image))?;
    }
    Ok(())
}

/// Runs every contender once a round; who begins changes with each round, so that no place in the order is an advantage.
fn interleaved(contenders: &[Contender], image: &Image, rounds: u32) -> io::Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); contenders.len()];
    let first = contenders.len();
    for round in 0..rounds {
        for step in 0..first {
            let index = (usize::try_from(round).unwrap_or(0) + step) % first;
            let contender = &contenders[index];
            contender.prepare(image.size())?;
            let sample = measure::run(&mut contender.command())?;
            if round == 0 {
                contender.check(image.path())?;
            }
            contender.clean()?;
            samples[index].push(sample);
        }
        let _ = writeln!(io::stderr(), "round {} of {rounds}", round + 1);
    }
    Ok(samples)
}
