//! Measures a row: every server once a round, by turns.

use oma_benches::{CERTIFICATES_PROGRAM, Cell, Table, certificates, median, spread};

use crate::disk::{Disks, Medium};
use crate::load::{Load, Target};
use crate::row::{Row, Unit};
use crate::server::{Kind, Plan, Server, Transport};
use crate::{Effort, Result, program, reason};

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Work in a second.
    pub(crate) rate: f64,
    /// Processor seconds of the server for one unit of work.
    pub(crate) cpu: f64,
}

/// A server's runs, or why there are none.
pub(crate) type Samples = std::result::Result<Vec<Sample>, String>;

/// A row's runs.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) contenders: Vec<(Kind, Samples)>,
}

/// Medians of a server's runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Middle {
    pub(crate) rate: f64,
    pub(crate) cpu: f64,
}

impl Middle {
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let rate = median(samples.iter().map(|sample| sample.rate));
        Self { rate, cpu: median(samples.iter().map(|sample| sample.cpu)) }
    }
}

/// Runs a row on all servers that are there.
pub(crate) async fn row(row: &Row, kinds: &[Kind], disks: &Disks, effort: Effort) -> Result<Measured> {
    let servers = Servers::start(kinds, row.transport, row.medium, disks, row.load.missing()).await?;
    let measured = servers.measure(&row.load, row.unit, effort).await?;
    servers.stop().await?;
    Ok(measured)
}

/// Servers of one disk that run side by side; one that nobody asks costs nothing.
#[derive(Debug)]
pub(crate) struct Servers<'a> {
    pub(crate) started: Vec<(Kind, std::result::Result<Server, String>)>,
    medium: Medium,
    disks: &'a Disks,
}

impl<'a> Servers<'a> {
    pub(crate) async fn start(
        kinds: &[Kind],
        transport: Transport,
        medium: Medium,
        disks: &'a Disks,
        missing: Option<String>,
    ) -> Result<Self> {
        let tls = transport == Transport::Tls;
        let missing = match missing.or(disks.missing(medium)?) {
            None if tls && !program::is_there(CERTIFICATES_PROGRAM) => {
                Some(format!("{CERTIFICATES_PROGRAM} is missing"))
            }
            other => other,
        };
        let certificates = if tls && missing.is_none() { Some(certificates(disks.folder())?) } else { None };
        let mut started = Vec::new();
        for kind in kinds {
            if let Some(reason) = missing.clone().or_else(|| kind.missing()) {
                started.push((*kind, Err(reason)));
                continue;
            }
            let (files, certificates) = ([disks.file(medium)?], certificates.as_deref());
            let plan = Plan { files: &files, transport, certificates, folder: disks.folder() };
            started.push((*kind, kind.start(plan).await.map_err(|error| reason(&error))));
        }
        Ok(Self { started, medium, disks })
    }

    /// Puts a load on every server once a round; who begins changes with each round, so that no place in the order is
    /// an advantage.
    pub(crate) async fn measure(&self, load: &Load, unit: Unit, effort: Effort) -> Result<Measured> {
        let start = |(kind, server): &(Kind, std::result::Result<Server, String>)| {
            (*kind, server.as_ref().map(|_| Vec::new()).map_err(Clone::clone))
        };
        let mut contenders: Vec<(Kind, Samples)> = self.started.iter().map(start).collect();
        let count = contenders.len();
        for round in 0..effort.rounds {
            for step in 0..count {
                let index = (usize::try_from(round)? + step) % count;
                let ((_, Ok(server)), (_, samples)) = (&self.started[index], &mut contenders[index]) else {
                    continue;
                };
                // One that fails is reported; it costs the others nothing.
                match (self.sample(server, load, unit, effort).await, &mut *samples) {
                    (Ok(sample), Ok(before)) => before.push(sample),
                    (Err(error), _) => *samples = Err(reason(&error)),
                    (Ok(_), Err(_)) => {}
                }
            }
        }
        Ok(Measured { contenders })
    }

    /// Ends them all.
    pub(crate) async fn stop(self) -> Result<()> {
        for server in self.started.into_iter().filter_map(|(_, server)| server.ok()) {
            server.stop().await?;
        }
        Ok(())
    }

    async fn sample(&self, server: &Server, load: &Load, unit: Unit, effort: Effort) -> Result<Sample> {
        self.disks.settle(self.medium)?;
        let before = server.cpu()?;
        let target =
            Target { uri: server.uri(), medium: self.medium, disks: self.disks, window: effort.window };
        let work = load.run(target, unit).await?;
        Ok(Sample { rate: work.amount / work.seconds, cpu: (server.cpu()? - before) / work.amount })
    }
}

impl Measured {
    /// Adds the runs of the same load on the same servers.
    pub(crate) fn extend(&mut self, more: Self) {
        for ((_, samples), (_, found)) in self.contenders.iter_mut().zip(more.contenders) {
            if let (Ok(samples), Ok(found)) = (samples, found) {
                samples.extend(found);
            }
        }
    }

    /// Our medians.
    pub(crate) fn ours(&self) -> std::result::Result<Middle, String> {
        let ours = self.contenders.iter().find(|(kind, _)| *kind == Kind::Oma);
        let (_, samples) = ours.ok_or_else(|| "oma was left out".to_owned())?;
        samples.as_deref().map(Middle::of).map_err(Clone::clone)
    }

    /// The fastest peer and its medians.
    pub(crate) fn best_peer(&self) -> Option<(Kind, Middle)> {
        let peers = self.contenders.iter().filter(|(kind, _)| *kind != Kind::Oma);
        let ran = peers.filter_map(|(kind, samples)| Some((*kind, Middle::of(samples.as_ref().ok()?))));
        ran.max_by(|(_, one), (_, other)| one.rate.total_cmp(&other.rate))
    }

    /// The row for readers.
    pub(crate) fn table(&self, row: &Row) -> Table {
        let ((rate, part), (cpu, work)) = (row.unit.rate(), row.unit.cpu());
        let columns = ["server", rate, "slowest–fastest", cpu, "rate : best peer", "CPU : best peer"];
        let rounds = self.contenders.iter().filter_map(|(_, samples)| samples.as_ref().ok());
        let rounds = rounds.map(Vec::len).max().unwrap_or(0);
        let title = format!("### {}: {} (median of {rounds})", row.name, row.title);
        let mut table = Table::new(title, &columns);
        let best = self.best_peer().map_or(Middle { rate: f64::NAN, cpu: f64::NAN }, |(_, middle)| middle);
        for (kind, samples) in &self.contenders {
            let name = kind.to_string().into();
            let blank = Cell::Number(f64::NAN, 0);
            match samples {
                Ok(samples) => {
                    let middle = Middle::of(samples);
                    let (low, high) = spread(samples.iter().map(|sample| sample.rate / part));
                    table.row(vec![
                        name,
                        Cell::Number(middle.rate / part, 2),
                        format!("{low:.2}–{high:.2}").into(),
                        Cell::Number(middle.cpu * work, 3),
                        Cell::Number(middle.rate / best.rate, 2),
                        Cell::Number(middle.cpu / best.cpu, 2),
                    ]);
                }
                Err(reason) => {
                    let said = format!("not run: {reason}").into();
                    table.row(vec![name, blank.clone(), said, blank.clone(), blank.clone(), blank]);
                }
            }
        }
        table
    }
}
