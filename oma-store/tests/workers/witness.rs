//! What the workers said, against what the records say.

use std::collections::{BTreeMap, BTreeSet};

use oma_core::JobId;
use oma_core::record::ReplicationJob;
use oma_core::state::JobStatus;

/// A line of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    done: bool,
    job: JobId,
    fence: u64,
    worker: String,
}

impl Word {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let [verb, job, fence, worker] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let done = verb == "done";
        Some(Self { done, job: job.parse().ok()?, fence: fence.parse().ok()?, worker: worker.to_owned() })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Witness {
    claims: BTreeMap<JobId, BTreeSet<(u64, String)>>,
    claimed: usize,
    done: BTreeMap<JobId, (u64, String)>,
}

impl Witness {
    pub(crate) fn hear(&mut self, word: Word) {
        let Word { done, job, fence, worker } = word;
        if done {
            let before = self.done.insert(job.clone(), (fence, worker));
            assert_eq!(before, None, "{job} was done twice");
            return;
        }
        let claims = self.claims.entry(job.clone()).or_default();
        let twice = claims.iter().any(|(known, _)| *known == fence);
        assert!(!twice, "{job}: token {fence} was given out twice: {claims:?}");
        claims.insert((fence, worker));
        self.claimed += 1;
    }

    pub(crate) fn done(&self) -> usize {
        self.done.len()
    }

    pub(crate) fn claims(&self) -> usize {
        self.claimed
    }

    /// Each job ended, by the newest of those who had it, and whoever was told so did it. A worker that was killed may have
    /// ended one without a word, or have got one: no more than one each.
    pub(crate) fn judge(&self, jobs: &BTreeMap<JobId, ReplicationJob>, killed: usize) {
        let mut silent = 0;
        for (id, job) in jobs {
            assert_eq!(job.status, JobStatus::Cancelled, "{id}");
            let (fence, worker) = job.error.as_deref().unwrap().split_once(' ').unwrap();
            let by: (u64, String) = (fence.parse().unwrap(), worker.to_owned());
            assert_eq!(by.0, job.fence.0, "{id} was ended with a token that is not the newest");
            let claims = self.claims.get(id).into_iter().flatten();
            assert!(claims.clone().all(|(fence, _)| *fence <= by.0), "{id} was given out after its end");
            match self.done.get(id) {
                Some(done) => assert_eq!(*done, by, "{id}"),
                None => silent += 1,
            }
            // Whoever was killed between the claim and its word.
            silent += usize::from(!claims.clone().any(|claim| *claim == by));
        }
        assert!(silent <= 2 * killed, "{silent} ends and claims without a word, {killed} workers killed");
        assert!(self.claims.keys().all(|id| jobs.contains_key(id)));
    }
}
