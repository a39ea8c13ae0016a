//! Our client and its peers against each server.

use oma_benches::{Cell, Table};

use crate::disk::{Disks, Medium};
use crate::fio::Fio;
use crate::lean::{Action, Lean};
use crate::load::Load;
use crate::measure::{Measured, Middle, Servers};
use crate::row::Unit;
use crate::server::{Kind, Transport};
use crate::verdict::{Ratio, Verdict};
use crate::{Effort, Result};

/// What our client must reach against the best other client.
const MUST: f64 = 1.5;

/// One kind of work that every client can do; ours is the first.
struct Task {
    name: &'static str,
    title: &'static str,
    unit: Unit,
    clients: Vec<(&'static str, Load)>,
}

pub(crate) async fn measure(
    kinds: &[Kind],
    disks: &Disks,
    effort: Effort,
) -> Result<(Vec<Table>, Vec<Verdict>)> {
    let servers = Servers::start(kinds, Transport::Unix, Medium::Full, disks, None).await?;
    let once = Effort { rounds: 1, ..effort };
    let (mut tables, mut verdicts) = (Vec::new(), Vec::new());
    for task in tasks() {
        let mut runs: Vec<Option<Measured>> = task.clients.iter().map(|_| None).collect();
        for round in 0..effort.rounds {
            for step in 0..runs.len() {
                let index = (usize::try_from(round)? + step) % runs.len();
                let load = &task.clients[index].1;
                if load.missing().is_some() {
                    continue;
                }
                let measured = servers.measure(load, task.unit, once).await?;
                match &mut runs[index] {
                    Some(before) => before.extend(measured),
                    first => *first = Some(measured),
                }
            }
        }
        verdicts.extend(verdict(&task, kinds, &runs));
        tables.push(table(&task, kinds, &runs));
    }
    servers.stop().await?;
    Ok((tables, verdicts))
}

fn tasks() -> Vec<Task> {
    const SMALL: u32 = 4 << 10;
    const LARGE: u32 = 1 << 20;
    let lean = |action, connections, depth, block| Load::Lean(Lean { action, connections, depth, block });
    let fio = |pattern, block, depth| Load::Fio(Fio { pattern, block, depth, jobs: 1 });
    vec![
        Task {
            name: "clients-seq",
            title: "Sequential read, each client as it does best",
            unit: Unit::Gib,
            clients: vec![
                ("oma, 2 × 4 × 256 KiB", lean(Action::Read, 2, 4, 256 << 10)),
                ("nbdcopy to nowhere", Load::CopyOut),
                ("qemu-img bench, 16 × 1 MiB", Load::QemuImg(LARGE, 16)),
                ("fio, 16 × 1 MiB", fio("read", LARGE, 16)),
            ],
        },
        Task {
            name: "clients-small",
            title: "4 KiB read, one connection, depth 64",
            unit: Unit::Requests,
            clients: vec![
                ("oma, random", lean(Action::RandomRead, 1, 64, SMALL)),
                ("qemu-img bench, in order", Load::QemuImg(SMALL, 64)),
                ("fio, random", fio("randread", SMALL, 64)),
            ],
        },
    ]
}

fn rate(run: Option<&Measured>, kind: Kind) -> f64 {
    let samples = run.and_then(|run| run.contenders.iter().find(|(found, _)| *found == kind));
    samples
        .and_then(|(_, samples)| samples.as_ref().ok())
        .map_or(f64::NAN, |samples| Middle::of(samples).rate)
}

fn table(task: &Task, kinds: &[Kind], runs: &[Option<Measured>]) -> Table {
    let (name, part) = task.unit.rate();
    let servers: Vec<_> = kinds.iter().map(ToString::to_string).collect();
    let columns: Vec<_> = std::iter::once("client").chain(servers.iter().map(String::as_str)).collect();
    let mut table =
        Table::new(format!("### {}: {} ({name} from each server)", task.name, task.title), &columns);
    for ((client, load), run) in task.clients.iter().zip(runs) {
        let named =
            load.missing().map_or_else(|| (*client).to_owned(), |why| format!("{client}: not run, {why}"));
        let numbers = kinds.iter().map(|kind| Cell::Number(rate(run.as_ref(), *kind) / part, 2));
        table.row(std::iter::once(named.into()).chain(numbers).collect());
    }
    table
}

fn verdict(task: &Task, kinds: &[Kind], runs: &[Option<Measured>]) -> Vec<Verdict> {
    let of = |kind: &Kind| {
        let others =
            task.clients.iter().zip(runs).skip(1).map(|((name, _), run)| (*name, rate(run.as_ref(), *kind)));
        let best = others.filter(|(_, rate)| rate.is_finite()).max_by(|one, other| one.1.total_cmp(&other.1));
        let ours = rate(runs.first().and_then(Option::as_ref), *kind);
        let (against, best) = best.unwrap_or(("no client", f64::NAN));
        let ratio = Ratio { found: ours / best, bound: Some(MUST) };
        Verdict::on_rate(format!("{} from {kind}", task.name), against.to_owned(), ratio)
    };
    kinds.iter().map(of).collect()
}
