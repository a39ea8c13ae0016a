//! The report, as Markdown.

use std::fmt::Write;

use oma_benches::{Cell, Table, gib, median, spread};

use crate::Bench;
use crate::measure::Sample;
use crate::row::{Measured, Row};

/// Medians of a contender.
#[derive(Clone, Copy)]
struct Middle {
    seconds: f64,
    cpu: f64,
    memory: f64,
}

impl Middle {
    fn of(samples: &[Sample]) -> Self {
        let middle = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
        Self {
            seconds: middle(|one| one.seconds),
            cpu: middle(|one| one.cpu),
            memory: middle(|one| one.memory),
        }
    }
}

/// A table of medians, with ratios against our first: above 1 they are slower, or spend more.
pub(crate) fn markdown(row: &Row, bench: &Bench, measured: &Measured) -> String {
    const COLUMNS: [&str; 8] = [
        "copy",
        "seconds",
        "fastest–slowest",
        "GiB/s",
        "CPU s/GiB",
        "MiB at most",
        "time against oma",
        "CPU against oma",
    ];
    // Holes included.
    let gib = gib(measured.bytes);
    let title = format!("### {}: {}, {gib:.2} GiB, median of {}", row.name, row.title, bench.rounds);
    let mut table = Table::new(title, &COLUMNS);
    let ours = measured.contenders.first().map(|(_, samples)| Middle::of(samples));
    for (contender, samples) in &measured.contenders {
        let middle = Middle::of(samples);
        let (fastest, slowest) = spread(samples.iter().map(|sample| sample.seconds));
        let ratio = |of: fn(&Middle) -> f64| ours.map_or(f64::NAN, |ours| of(&middle) / of(&ours));
        table.row(vec![
            contender.name.into(),
            Cell::Number(middle.seconds, 2),
            format!("{fastest:.2}–{slowest:.2}").into(),
            Cell::Number(gib / middle.seconds, 2),
            Cell::Number(middle.cpu / gib, 2),
            Cell::Number(middle.memory, 0),
            Cell::Number(ratio(|one| one.seconds), 2),
            Cell::Number(ratio(|one| one.cpu), 2),
        ]);
    }
    let mut text = format!("{table}\n");
    for (contender, _) in &measured.contenders {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- `{}`", contender.line(bench));
    }
    text
}
