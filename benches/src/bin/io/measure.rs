//! Measures a row: every way once a round, by turns.

use oma_benches::{Cell, Table, chill, median, spread};

use crate::load::{self, Disk};
use crate::row::{Action, Row, Way};
use crate::{Effort, Result};

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Requests in a second.
    pub(crate) rate: f64,
    /// Processor seconds of this process for a request.
    pub(crate) cpu: f64,
    /// Share of the requests that were done in place.
    pub(crate) in_place: f64,
    /// KiB that the disk was asked for, for a request; read-ahead makes it more than 4.
    pub(crate) disk: f64,
}

/// A way's runs, or why there are none.
type Samples = std::result::Result<Vec<Sample>, String>;

/// Who begins changes with each round, so that no place in the order is an advantage.
pub(crate) fn row(row: &Row, disk: &Disk, effort: Effort) -> Result<Table> {
    let ways = row.action.ways();
    let mut runs: Vec<Samples> = ways.iter().map(|_| Ok(Vec::new())).collect();
    for round in 0..effort.rounds {
        for step in 0..ways.len() {
            let index = (usize::try_from(round)? + step) % ways.len();
            let Ok(samples) = &mut runs[index] else { continue };
            settle(row.action, disk)?;
            // One that cannot run is reported; it costs the others nothing.
            match load::run(disk, row, ways[index], effort.window) {
                Ok(sample) => samples.push(sample),
                Err(error) => runs[index] = Err(error.to_string()),
            }
        }
    }
    Ok(table(row, ways, &runs))
}

/// Brings the file to where each run begins.
fn settle(action: Action, disk: &Disk) -> Result<()> {
    let mut file = std::fs::File::open(&disk.path)?;
    match action {
        Action::Hot => {
            std::io::copy(&mut file, &mut std::io::sink())?;
        }
        Action::Cold => chill(&file)?,
        Action::Durable => file.sync_all()?,
    }
    Ok(())
}

fn table(row: &Row, ways: &[Way], runs: &[Samples]) -> Table {
    let first = match &runs[0] {
        Ok(samples) => samples.as_slice(),
        Err(_) => &[],
    };
    let versus = ways[0].to_string();
    let columns = [
        "way",
        "k requests/s",
        "slowest–fastest",
        "CPU s/100k requests",
        "in place, %",
        "KiB from the disk for each",
        &format!("rate : {versus}"),
        &format!("CPU : {versus}"),
    ];
    let rounds = runs.iter().filter_map(|samples| Some(samples.as_ref().ok()?.len())).max().unwrap_or(0);
    let title = format!("### {}: {} (median of {rounds})", row.name, row.title);
    let mut table = Table::new(title, &columns);
    for (way, samples) in ways.iter().zip(runs) {
        let mut cells = vec![way.to_string().into()];
        match samples {
            Ok(samples) => cells.extend(numbers(samples, first)),
            Err(reason) => {
                cells.extend([Cell::Number(f64::NAN, 0), format!("not run: {reason}").into()]);
                cells.resize(columns.len(), Cell::Number(f64::NAN, 0));
            }
        }
        table.row(cells);
    }
    table
}

fn numbers(samples: &[Sample], first: &[Sample]) -> [Cell; 7] {
    let of = |number: fn(&Sample) -> f64| median(samples.iter().map(number));
    let (low, high) = spread(samples.iter().map(|sample| sample.rate / 1000.0));
    // Each round has a ratio of its own: the machine changes from round to round.
    let ratio = |number: fn(&Sample) -> f64| {
        median(samples.iter().zip(first).map(|(sample, first)| number(sample) / number(first)))
    };
    [
        Cell::Number(of(|sample| sample.rate / 1000.0), 2),
        format!("{low:.2}–{high:.2}").into(),
        Cell::Number(of(|sample| sample.cpu * 100_000.0), 2),
        Cell::Number(of(|sample| sample.in_place * 100.0), 0),
        Cell::Number(of(|sample| sample.disk), 1),
        Cell::Number(ratio(|sample| sample.rate), 2),
        Cell::Number(ratio(|sample| sample.cpu), 2),
    ]
}
