//! Deletes what need not be kept any more, for as long as a process lives.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::record::Retention;
use crate::traits::{Accounts, AuditLog, Cleanups, LogStore};
use crate::{Clock as _, Error, SystemClock, Timestamp};

/// How long things are kept; what has no limit is kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpkeepConfig {
    /// What is told of jobs, and lines of automation jobs.
    pub logs: Option<Duration>,
    /// Tokens that expired or were revoked, since then.
    pub tokens: Option<Duration>,
    /// Cleanups that are not executing, since they last changed.
    pub cleanups: Option<Duration>,
    /// Entries of the audit trail; [`KEPT`](crate::audit::KEPT) at least.
    pub audit: Option<Duration>,
    /// How often it is looked for them.
    pub pace: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(days * 24);
        let (logs, cleanups, tokens) = (Some(days(90)), Some(days(90)), Some(days(30)));
        Self { logs, tokens, cleanups, audit: None, pace: Duration::from_hours(1) }
    }
}

/// Sweeps a store.
#[derive(Clone, Debug)]
pub struct Upkeep {
    logs: Arc<dyn LogStore>,
    accounts: Arc<dyn Accounts>,
    cleanups: Arc<dyn Cleanups>,
    audit: Arc<dyn AuditLog>,
    config: UpkeepConfig,
}

impl Upkeep {
    /// Sweeps this store. Any number of processes may sweep one.
    #[must_use]
    pub fn new<S: LogStore + Accounts + AuditLog + Cleanups>(store: &Arc<S>, config: UpkeepConfig) -> Self {
        let (logs, accounts, cleanups) = (store.clone(), store.clone(), store.clone());
        Self { logs, accounts, cleanups, audit: store.clone(), config }
    }

    /// Sweeps at once, and then again and again until it is stopped. What fails is logged, and done the next time.
    pub async fn run(&self, stop: &CancellationToken) {
        let sweeping = async {
            loop {
                for error in self.sweep(SystemClock.now()).await {
                    tracing::warn!(error = %error.chain(), "could not delete what need not be kept");
                }
                tokio::time::sleep(self.config.pace).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = sweeping => {}
        }
    }

    /// Deletes what was too old at a moment; answers what could not be done.
    pub async fn sweep(&self, now: Timestamp) -> Vec<Error> {
        let UpkeepConfig { logs, tokens, cleanups, audit, .. } = self.config;
        let mut failed = Vec::new();
        let mut tell = |what: &'static str, swept: crate::Result<u64>| match swept {
            Ok(0) => {}
            Ok(gone) => tracing::info!(what, gone, "deleted what need not be kept"),
            Err(error) => failed.push(error),
        };
        if let Some(kept) = logs {
            let retention = Retention { older_than: Some(now.before(kept)), keep: None };
            let pruned = self.logs.prune(&retention).await;
            tell("lines of logs", pruned.map(|pruned| pruned.events + pruned.lines));
        }
        if let Some(kept) = tokens {
            tell("tokens", self.accounts.tidy(now.before(kept)).await);
        }
        if let Some(kept) = cleanups {
            tell("cleanups", self.cleanups.prune_cleanups(now.before(kept)).await);
        }
        if let Some(kept) = audit {
            tell("entries of the audit trail", self.audit.prune_audit(now.before(kept)).await);
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::memory::MemoryStore;
    use crate::record::{LogEvent, LogFilter, Page, PageStart};
    use crate::state::LogLevel;

    const DAY: Duration = Duration::from_hours(24);

    fn event(at: Timestamp) -> LogEvent {
        let message = at.to_string();
        LogEvent { job: None, step: None, level: LogLevel::Info, message, attrs: None, at }
    }

    async fn left(store: &MemoryStore) -> usize {
        let page = Page { start: PageStart::Oldest, limit: 9 };
        store.events(&LogFilter::default(), &page).await.unwrap().len()
    }

    #[tokio::test]
    async fn what_is_too_old_goes_and_the_rest_stays() {
        let store = Arc::new(MemoryStore::default());
        let now = SystemClock.now();
        store.append(&[event(now.before(DAY * 3)), event(now.before(DAY))]).await.unwrap();
        let config = UpkeepConfig { logs: Some(DAY * 2), ..UpkeepConfig::default() };
        assert!(Upkeep::new(&store, config).sweep(now).await.is_empty());
        assert_eq!(left(&store).await, 1);
        let for_ever = UpkeepConfig { logs: None, tokens: None, cleanups: None, ..config };
        assert!(Upkeep::new(&store, for_ever).sweep(now.after(DAY * 1000)).await.is_empty());
        assert_eq!(left(&store).await, 1);
    }

    #[tokio::test]
    async fn old_cleanups_go() {
        let store = Arc::new(MemoryStore::default());
        let disk = crate::record::SourceDisk {
            key: crate::DiskKey::parse("disk-2000").unwrap(),
            label: String::new(),
            location: "[store] web.vmdk".to_owned(),
            capacity: crate::ByteSize::mib(1),
            unit_number: None,
        };
        let path = crate::VmPath::parse("/DC/vm/web").unwrap();
        let identity = crate::record::SourceIdentity {
            instance_uuid: crate::InstanceUuid::from_path(&path),
            endpoint: crate::Endpoint::parse("vcenter").unwrap(),
        };
        let vm = crate::record::SourceVm { identity, name: "web".to_owned(), path, disks: vec![disk] };
        let vm = crate::traits::Inventory::record(&*store, &vm).await.unwrap();
        let plan = crate::record::CleanupPlan {
            instance: crate::InstanceId::mint(),
            job: crate::JobId::parse("job-1").unwrap(),
            job_status: None,
            context: vm.id,
            vm: vm.path,
            failover_job: None,
            volumes: crate::record::KeepVolumes::Keep,
            first: Vec::new(),
            items: Vec::new(),
            steps: Vec::new(),
        };
        let worker = crate::WorkerId::parse("daemon").unwrap();
        let spec = crate::record::CleanupSpec { id: crate::CleanupId::mint(), worker, plan };
        store.insert_cleanup(&spec).await.unwrap();
        let upkeep = Upkeep::new(&store, UpkeepConfig { cleanups: Some(DAY), ..UpkeepConfig::default() });
        for (days, is_left) in [(0, true), (2, false)] {
            assert!(upkeep.sweep(SystemClock.now().after(DAY * days)).await.is_empty());
            assert_eq!(store.cleanup(&spec.id).await.unwrap().is_some(), is_left);
        }
    }

    #[tokio::test]
    async fn what_fails_is_told_and_keeps_nothing_else_from_going() {
        let store = Arc::new(MemoryStore::default());
        let now = SystemClock.now();
        store.append(&[event(now.before(DAY * 3))]).await.unwrap();
        // Less than a year of the audit trail is refused.
        let config = UpkeepConfig { logs: Some(DAY), audit: Some(DAY), ..UpkeepConfig::default() };
        let failed = Upkeep::new(&store, config).sweep(now).await;
        assert_eq!(failed.iter().map(Error::kind).collect::<Vec<_>>(), [ErrorKind::Invalid]);
        assert_eq!(left(&store).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_sweeps_again_and_again_until_it_is_stopped() {
        let store = Arc::new(MemoryStore::default());
        let upkeep = Upkeep::new(&store, UpkeepConfig { logs: Some(DAY), ..UpkeepConfig::default() });
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (upkeep, stop) = (upkeep.clone(), stop.clone());
            async move { upkeep.run(&stop).await }
        });
        for _ in 0..2 {
            store.append(&[event(SystemClock.now().before(DAY * 3))]).await.unwrap();
            tokio::time::sleep(upkeep.config.pace * 3 / 2).await;
            assert_eq!(left(&store).await, 0);
        }
        stop.cancel();
        task.await.unwrap();
    }
}
