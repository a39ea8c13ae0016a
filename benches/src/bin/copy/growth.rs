//! How the cost of a copy grows with disks, size and extents.

use std::fs::File;
use std::io;
use std::process::Command;

use oma_benches::{Cell, Table, median};
use oma_core::ByteSize;

use crate::Bench;
use crate::measure::{self, Sample};

pub(crate) const NAME: &str = "growth";

/// Data on each disk that is copied with others.
const EACH: ByteSize = ByteSize::mib(512);

pub(crate) fn measure(bench: &Bench) -> io::Result<String> {
    let columns = ["work", "seconds", "CPU s", "MiB at most"];
    let mut table = Table::new(format!("### growth: `oma`, median of {}", bench.rounds), &columns);
    for disks in [1, 4, 16] {
        let name = format!("replicate {disks} disks of {EACH}, half data, at once");
        add(&mut table, name, &several(bench, disks)?);
    }
    for gibibytes in [1, 16, 256] {
        let name = format!("copy a sparse file of {gibibytes} GiB with 1 MiB of data in each GiB");
        add(&mut table, name, &sparse(bench, gibibytes)?);
    }
    for extents in [10_000, 100_000, 1_000_000, 10_000_000] {
        add(
            &mut table,
            format!("copy {extents} extents of 512 bytes, 4 KiB from each other"),
            &many(bench, extents)?,
        );
    }
    Ok(table.to_string())
}

fn add(table: &mut Table, name: String, samples: &[Sample]) {
    let middle = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
    table.row(vec![
        name.into(),
        Cell::Number(middle(|one| one.seconds), 2),
        Cell::Number(middle(|one| one.cpu), 2),
        Cell::Number(middle(|one| one.memory), 0),
    ]);
}

fn several(bench: &Bench, disks: u32) -> io::Result<Vec<Sample>> {
    let data = bench.folder().join("oma-data");
    let mut arguments = vec!["replicate".to_owned(), "--vm-path".to_owned(), "/bench".to_owned()];
    for disk in 0..disks {
        let path = bench.folder().join(format!("disk-{disk}.raw"));
        if !path.exists() {
            oma_examples::SampleDisk::make(&path, EACH, u64::from(disk))?;
        }
        arguments.extend(["--disk".to_owned(), format!("disk-{disk}={}", path.display())]);
    }
    repeat(bench, || {
        let mut command = Command::new(&bench.oma);
        command.arg("--data-dir").arg(&data).arg("--json").args(&arguments);
        let sample = measure::run(&mut command);
        std::fs::remove_dir_all(&data)?;
        sample
    })
}

fn sparse(bench: &Bench, gibibytes: u64) -> io::Result<Vec<Sample>> {
    let (source, target) = (bench.folder().join("sparse.raw"), bench.folder().join("target.raw"));
    let file = File::create(&source)?;
    file.set_len(gibibytes << 30)?;
    for gibibyte in 0..gibibytes {
        oma_benches::data(&file, gibibyte << 30, 1 << 20)?;
    }
    let samples = repeat(bench, || {
        let sample = measure::run(Command::new(&bench.oma).arg("copy").arg(&source).arg(&target));
        std::fs::remove_file(&target)?;
        sample
    });
    std::fs::remove_file(source)?;
    samples
}

/// Extents that do not touch, on a disk without data: what is left is the cost of the extents themselves.
fn many(bench: &Bench, extents: u64) -> io::Result<Vec<Sample>> {
    let [source, target, list] =
        ["sparse.raw", "target.raw", "extents"].map(|name| bench.folder().join(name));
    File::create(&source)?.set_len(extents * 4096)?;
    let mut text = io::BufWriter::new(File::create(&list)?);
    for extent in 0..extents {
        io::Write::write_all(&mut text, format!("{} 512\n", extent * 4096).as_bytes())?;
    }
    io::Write::flush(&mut text)?;
    let samples = repeat(bench, || {
        let mut command = Command::new(&bench.oma);
        command.arg("copy").arg("--extents").arg(&list).arg(&source).arg(&target);
        let sample = measure::run(&mut command);
        std::fs::remove_file(&target)?;
        sample
    });
    std::fs::remove_file(source)?;
    samples
}

fn repeat(bench: &Bench, mut run: impl FnMut() -> io::Result<Sample>) -> io::Result<Vec<Sample>> {
    (0..bench.rounds).map(|_| run()).collect()
}
