//! One job that is driven: its writes through the store, and the same through the bare driver.

use std::sync::Arc;
use std::time::Duration;

use oma_core::record::{JobSpec, JournalBasis, JournalEntry, Lease, SourceDisk, SourceIdentity, SourceVm};
use oma_core::state::ReplicationType;
use oma_core::traits::{ExtentJournal, Inventory, JobStore};
use oma_core::{
    ByteSize, ChangeId, Clock, ContextId, DiskKey, Endpoint, Extent, ExtentSet, Generation, InstanceUuid,
    JobId, PointId, SystemClock, Timestamp, VmPath, WorkerId,
};
use oma_store::SqlStore;
use tokio::sync::Mutex;

use super::texts::Texts;
use crate::Result;
use crate::bare::{Bare, Value};
use crate::engine::{Base, Engine};

const TTL: Duration = Duration::from_secs(3600);
/// What a job reports as finished at a time.
const STEP: u64 = 1 << 20;
/// As long as one.
const CHECKSUM: &str = "0123456789abcdef";

/// A transaction of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `JobStore::renew`
    Renew,
    /// `JobStore::claim`, of a job by its id
    Claim,
    /// `ExtentJournal::record`
    Record,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Renew, Self::Claim, Self::Record];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Claim => "claim",
            Self::Record => "record",
        }
    }
}

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Store(Kind),
    Driver(Kind),
    /// One row, updated without a transaction around it.
    Autocommit,
}

/// A job that is driven, and whoever drives it.
#[derive(Debug)]
pub(super) struct Task {
    store: SqlStore,
    texts: Texts,
    /// SQLite has one writer: all tasks share one connection, as those of the store do.
    bare: Arc<Mutex<Bare>>,
    lease: Lease,
    context: ContextId,
    key: DiskKey,
    row: i64,
    /// Where the next finished extent begins: behind the last, so that the journal stays one row.
    next: u64,
}

impl Task {
    /// A VM with one disk for each task, and a claimed job that copies it.
    pub(super) async fn several(base: &Base, count: usize) -> Result<Vec<Arc<Mutex<Self>>>> {
        let mut tasks = Vec::new();
        let mut bare = Arc::new(Mutex::new(base.bare().await?));
        for number in 0..count {
            if base.engine != Engine::Sqlite {
                bare = Arc::new(Mutex::new(base.bare().await?));
            }
            let task = Self::new(base, number, bare.clone()).await?;
            tasks.push(Arc::new(Mutex::new(task)));
        }
        Ok(tasks)
    }

    async fn new(base: &Base, number: usize, bare: Arc<Mutex<Bare>>) -> Result<Self> {
        let store = base.store.clone();
        let key = DiskKey::parse("disk-2000")?;
        let context = Inventory::record(&store, &vm(number, &key)?).await?.id;
        let spec = JobSpec::new(
            JobId::mint(SystemClock.now()),
            context.clone(),
            ReplicationType::Initial,
            vec![key.clone()],
        );
        let job = store.insert(spec).await?;
        let lease = store.claim(&job.id, &WorkerId::parse(format!("worker-{number}"))?, TTL).await?;
        let basis = JournalBasis {
            generation: Generation::FIRST,
            endpoint: Endpoint::parse("vcenter.example")?,
            content: PointId::parse("point")?,
            change_id: ChangeId::parse("change")?,
            base: None,
            capacity: ByteSize::gib(1),
        };
        let entry = JournalEntry::new(basis, ExtentSet::new());
        ExtentJournal::begin(&store, &lease, &key, &entry).await?;
        let text = format!("SELECT id FROM vm_disks WHERE vm_context_id = '{context}'");
        let row = bare.lock().await.number(&text).await?;
        Ok(Self { store, texts: Texts::new(base.engine), bare, lease, context, key, row, next: 0 })
    }

    pub(super) async fn run(&mut self, contender: Contender) -> Result<()> {
        match contender {
            Contender::Store(kind) => self.through_store(kind).await,
            Contender::Driver(kind) => {
                let bare = self.bare.clone();
                let mut bare = bare.lock().await;
                bare.begin().await?;
                match kind {
                    Kind::Renew => self.renew(&mut bare).await?,
                    Kind::Claim => self.claim(&mut bare).await?,
                    Kind::Record => self.record(&mut bare).await?,
                }
                bare.commit().await
            }
            Contender::Autocommit => {
                let bare = self.bare.clone();
                self.set_due_at(&mut *bare.lock().await, SystemClock.now()).await
            }
        }
    }

    async fn through_store(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Renew => self.lease = self.store.renew(&self.lease, TTL).await?,
            Kind::Claim => self.lease = self.store.claim(&self.lease.job, &self.lease.worker, TTL).await?,
            Kind::Record => {
                let extent = Extent::new(self.next, STEP)?;
                self.next += STEP;
                let synced = ByteSize::new(self.next);
                ExtentJournal::record(&self.store, &self.lease, &self.key, extent, synced).await?;
            }
        }
        Ok(())
    }

    /// What a statement asks to be sure of the lease.
    fn held(&self) -> Result<[Value; 3]> {
        let fence = i64::try_from(self.lease.fence.0)?;
        Ok([self.lease.job.as_str().into(), fence.into(), self.lease.worker.as_str().into()])
    }

    async fn now(&self, bare: &mut Bare) -> Result<Timestamp> {
        if let Some(now) = self.texts.now {
            bare.fetch(now, &[]).await?;
        }
        // The answer's value is of no matter here; its way is.
        Ok(SystemClock.now())
    }

    async fn set_due_at(&mut self, bare: &mut Bare, now: Timestamp) -> Result<()> {
        self.lease.expires_at = now.after(TTL);
        let [job, fence, worker] = self.held()?;
        bare.execute(self.texts.renew, &[self.lease.expires_at.into(), job, fence, worker]).await
    }

    async fn renew(&mut self, bare: &mut Bare) -> Result<()> {
        let now = self.now(bare).await?;
        self.set_due_at(bare, now).await
    }

    async fn claim(&mut self, bare: &mut Bare) -> Result<()> {
        let [job, fence, worker] = self.held()?;
        bare.fetch(self.texts.job, std::slice::from_ref(&job)).await?;
        let now = self.now(bare).await?;
        let known = self.lease.expires_at;
        self.lease.expires_at = now.after(TTL);
        self.lease.fence = self.lease.fence.next();
        let next = i64::try_from(self.lease.fence.0)?;
        let due = self.lease.expires_at;
        let values = [worker, next.into(), due.into(), now.into(), job, fence, known.into()];
        bare.execute(self.texts.claim, &values).await
    }

    async fn record(&mut self, bare: &mut Bare) -> Result<()> {
        let (held, row) = (self.held()?, Value::from(self.row));
        let end = self.next + STEP;
        let synced = i64::try_from(end)?;
        bare.execute(self.texts.guard, &held).await?;
        bare.fetch(self.texts.job, &held[..1]).await?;
        bare.fetch(self.texts.disk, &[self.context.as_str().into(), self.key.as_str().into()]).await?;
        bare.fetch(self.texts.journal, std::slice::from_ref(&row)).await?;
        // The run that this one touches, which it takes the place of; before that there is none.
        bare.fetch(self.texts.last_up_to, &[row.clone(), synced.into()]).await?;
        bare.execute(self.texts.delete_extent, &[row.clone(), 0.into()]).await?;
        bare.fetch(self.texts.last_up_to, &[row.clone(), synced.into()]).await?;
        bare.execute(self.texts.insert_extent, &[row.clone(), 0.into(), synced.into(), CHECKSUM.into()])
            .await?;
        let now = self.now(bare).await?;
        bare.execute(self.texts.sync_disk, &[synced.into(), now.into(), row]).await?;
        bare.execute(self.texts.progress, &held).await?;
        self.next = end;
        Ok(())
    }
}

fn vm(number: usize, key: &DiskKey) -> Result<SourceVm> {
    let disk = SourceDisk {
        key: key.clone(),
        label: "Hard disk 1".to_owned(),
        location: format!("[store] web-{number}/web-{number}.vmdk"),
        capacity: ByteSize::gib(1),
        unit_number: Some(0),
    };
    Ok(SourceVm {
        identity: SourceIdentity {
            instance_uuid: InstanceUuid::parse(format!("uuid-{number}"))?,
            endpoint: Endpoint::parse("vcenter.example")?,
        },
        name: format!("web-{number}"),
        path: VmPath::parse(format!("/DC/vm/web-{number}"))?,
        disks: vec![disk],
    })
}
