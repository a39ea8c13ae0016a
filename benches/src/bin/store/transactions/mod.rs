//! Durable transactions of the store, against the same statements through the bare driver.

mod task;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use oma_benches::{Cell, Table, median};
use tokio::sync::Mutex;

use self::task::{Contender, Kind, Task};
use self::texts::Texts;
use crate::engine::{Base, Engine, Host};
use crate::rate::rate;
use crate::{Effort, Result, say};

const TASKS: [u32; 2] = [1, 8];
/// Turns of each contender in a round.
const TURNS: u32 = 14;

/// Transactions a second, by contender: one for each round.
type Rates = Vec<Vec<f64>>;

pub(crate) async fn measure(host: &Host, effort: Effort) -> Result<Vec<Table>> {
    let base = host.database().await?;
    let tasks = Task::several(&base, usize::try_from(TASKS[TASKS.len() - 1])?).await?;
    if host.engine == Engine::Mariadb {
        check_statements(&base, &tasks[0]).await?;
    }
    let contenders = contenders();
    let mut rates: Vec<Rates> = vec![vec![Vec::new(); contenders.len()]; TASKS.len()];
    for round in 0..effort.rounds {
        for (rates, count) in rates.iter_mut().zip(TASKS) {
            let tasks = &tasks[..usize::try_from(count)?];
            for (rates, rate) in rates.iter_mut().zip(one_round(tasks, &contenders, effort.window).await?) {
                rates.push(rate);
            }
        }
        say(&format!("round {} of {}", round + 1, effort.rounds));
    }
    drop(tasks);
    base.end().await?;
    Ok(vec![table(host.engine, &rates, effort)])
}

/// Those that are compared are neighbours.
fn contenders() -> Vec<Contender> {
    let pairs = Kind::ALL.iter().flat_map(|kind| [Contender::Store(*kind), Contender::Driver(*kind)]);
    pairs.chain([Contender::Autocommit]).collect()
}

fn table(engine: Engine, rates: &[Rates], effort: Effort) -> Table {
    const COLUMNS: [&str; 8] = [
        "tasks",
        "transaction",
        "statements",
        "store, tx/s",
        "driver, tx/s",
        "store : driver",
        "one-row autocommit, tx/s",
        "store : autocommit",
    ];
    let title = format!("### {engine}: durable transactions, medians of {}", effort.rounds);
    let mut table = Table::new(title, &COLUMNS);
    let contenders = contenders();
    let middle = |rates: &[f64]| median(rates.iter().copied());
    // Of each round, and the middle of these: what disturbs a round disturbs both.
    let ratio =
        |rates: &[f64], limits: &[f64]| median(rates.iter().zip(limits).map(|(rate, limit)| rate / limit));
    for (rates, count) in rates.iter().zip(TASKS) {
        let of = |wanted| {
            let found = contenders.iter().zip(rates).find(|(contender, _)| **contender == wanted);
            found.map_or(&[][..], |(_, rates)| rates)
        };
        let autocommit = of(Contender::Autocommit);
        for kind in Kind::ALL {
            let (store, driver) = (of(Contender::Store(kind)), of(Contender::Driver(kind)));
            table.row(vec![
                count.into(),
                kind.name().into(),
                Texts::count(engine, kind).into(),
                Cell::Number(middle(store), 0),
                Cell::Number(middle(driver), 0),
                Cell::Number(ratio(store, driver), 2),
                Cell::Number(middle(autocommit), 0),
                Cell::Number(ratio(store, autocommit), 2),
            ]);
        }
    }
    table
}

/// The rates of all contenders. They go by short turns, because a disk that others use is now slow, now fast; who begins
/// changes with each turn.
async fn one_round(
    tasks: &[Arc<Mutex<Task>>],
    contenders: &[Contender],
    window: Duration,
) -> Result<Vec<f64>> {
    let mut rates = vec![0.0; contenders.len()];
    for turn in 0..TURNS {
        for step in 0..contenders.len() {
            let at = (step + usize::try_from(turn)?) % contenders.len();
            rates[at] += one(tasks, contenders[at], window / TURNS).await? / f64::from(TURNS);
        }
    }
    Ok(rates)
}

async fn one(tasks: &[Arc<Mutex<Task>>], contender: Contender, window: Duration) -> Result<f64> {
    let workers = tasks.iter().map(|task| {
        let task = task.clone();
        move || {
            let task = task.clone();
            async move { task.lock().await.run(contender).await.map(|()| Some(1)) }
        }
    });
    rate(workers.collect(), window).await
}

/// The driver is to do what the store does: as many statements, as the server counts them.
async fn check_statements(base: &Base, task: &Mutex<Task>) -> Result<()> {
    const ASK: &str = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                       WHERE variable_name = 'COM_STMT_EXECUTE'";
    let mut bare = base.bare().await?;
    let mut task = task.lock().await;
    for kind in Kind::ALL {
        let mut counts = Vec::new();
        for contender in [Contender::Store(kind), Contender::Driver(kind)] {
            // The first extent has no neighbour to be joined with.
            task.run(contender).await?;
            let before = bare.number(ASK).await?;
            task.run(contender).await?;
            // The question is one, too.
            counts.push(bare.number(ASK).await? - before - 1);
        }
        let expected = i64::from(Texts::count(base.engine, kind));
        if counts.iter().any(|count| *count != expected) {
            let (name, counted) = (kind.name(), format!("{counts:?} (store, driver)"));
            return Err(
                format!("{name}: {counted} statements in place of {expected}; texts.rs is old").into()
            );
        }
    }
    Ok(())
}
