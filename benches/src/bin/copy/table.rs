//! The report, as Markdown.

use std::fmt::Write;

use oma_benches::{Cell, Table, gib, median, spread};

use crate::contender::{Contender, Path};
use crate::image::Image;
use crate::measure::Sample;

/// A table of medians, with ratios against ours: above 1 they are slower, or spend more.
pub(crate) fn markdown(
    path: Path,
    contenders: &[Contender],
    samples: &[Vec<Sample>],
    image: &Image,
) -> String {
    const COLUMNS: [&str; 7] =
        ["copy", "seconds", "fastest–slowest", "GiB/s", "CPU s/GiB", "time against oma", "CPU against oma"];
    // Holes included.
    let gib = gib(image.size().bytes());
    let rounds = samples.first().map_or(0, Vec::len);
    let title = match path {
        Path::File => "file to file",
        Path::Nbd => "qemu-nbd (unix socket) to file",
    };
    let seconds = |list: &[Sample]| median(list.iter().map(|sample| sample.elapsed.as_secs_f64()));
    let cpu = |list: &[Sample]| median(list.iter().map(|sample| sample.cpu));
    let ours = samples.first().map_or((f64::NAN, f64::NAN), |list| (seconds(list), cpu(list)));
    let mut table = Table::new(format!("### {title}: {} image, median of {rounds}", image.size()), &COLUMNS);
    for (contender, list) in contenders.iter().zip(samples) {
        let (fastest, slowest) = spread(list.iter().map(|sample| sample.elapsed.as_secs_f64()));
        let (seconds, cpu) = (seconds(list), cpu(list));
        let numbers = [seconds, gib / seconds, cpu / gib, seconds / ours.0, cpu / ours.1];
        let mut cells: Vec<_> = numbers.map(|number| Cell::Number(number, 2)).into();
        cells.insert(0, contender.name.into());
        cells.insert(2, format!("{fastest:.2}–{slowest:.2}").into());
        table.row(cells);
    }
    let mut text = format!("{table}\n");
    for contender in contenders {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- `{}`", contender.line);
    }
    text
}
