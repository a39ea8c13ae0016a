//! The appliances that share a database: a job's exports are at the one that drives it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oma_api::PushRow;
use oma_api::client::{Appliance, Token};
use oma_core::{JobId, Result};
use oma_examples::{private_file, trust};

use crate::args::Cli;

/// Whoever of them answers is asked; who drives the job is found by asking each.
#[derive(Debug)]
pub(crate) struct Appliances {
    all: Vec<Arc<Appliance>>,
    asked: AtomicUsize,
}

impl Appliances {
    /// Those that were named. Nothing is asked of them yet.
    pub(crate) async fn new(cli: &Cli) -> Result<Self> {
        let token = cli.token_file.as_deref().map(token).transpose()?;
        let mut all = Vec::new();
        for address in &cli.api {
            let config = trust::reach(address, cli.ca.as_deref())?;
            all.push(Arc::new(Appliance::new(&config, token.clone()).await?));
        }
        Ok(Self { all, asked: AtomicUsize::new(0) })
    }

    /// The one that is asked.
    pub(crate) fn asked(&self) -> &Arc<Appliance> {
        &self.all[self.index()]
    }

    fn index(&self) -> usize {
        self.asked.load(Ordering::Relaxed) % self.all.len()
    }

    /// Asks the next one from now on: this one does not answer.
    pub(crate) fn pass(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// What the agent of a job has to know, of the one that drives it if any does: that one is asked from now on.
    pub(crate) async fn push(&self, job: &JobId) -> Result<PushRow> {
        let first = self.index();
        let row = self.all[first].push(job).await?;
        if row.ready || row.status.is_terminal() {
            return Ok(row);
        }
        for index in (first + 1..first + self.all.len()).map(|index| index % self.all.len()) {
            // One that does not answer does not drive it, or is found by the next look.
            if let Ok(other) = self.all[index].push(job).await
                && other.ready
            {
                self.asked.store(index, Ordering::Relaxed);
                return Ok(other);
            }
        }
        Ok(row)
    }
}

fn token(path: &Path) -> Result<Token> {
    Token::new(&private_file::read(path)?)
}
