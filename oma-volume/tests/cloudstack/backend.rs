//! `CloudStackBackend` over the fake: what every backend promises, and what only a cloud can do to one.

mod crash;
mod detaches;
mod devices;
mod found;
mod hidden;
mod lost;
mod owners;
mod projects;
mod real;
mod twins;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use oma_core::conformance::{self, BackendSubject, Requirement, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Provisioning, Volume, VolumeBackend, VolumeSpec};
use oma_core::{ByteSize, DiskRef, Generation, InstanceId, OperationId, Result, Retry};
use oma_volume::cloudstack::{Account, CloudStackBackend, CloudStackConfig, Keys};

use super::fake::{Backing, Bus, Fake, Options, What};

const ACCOUNTS: [Account; 2] = [Account::RootAdmin, Account::Ordinary];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = conformance::cases("cloudstack_root", &conformance::volume_backend_cases(), || async {
        subject(Account::RootAdmin, Options::default()).await
    });
    trials.extend(conformance::cases("cloudstack_user", &conformance::volume_backend_cases(), || async {
        subject(Account::Ordinary, Options::default()).await
    }));
    trials.extend(conformance::cases("cloudstack", &conformance::unreachable_backend_cases(), || async {
        let mut config = CloudStackConfig::new("http://127.0.0.1:1/client/api", "zone", "offering", "vm");
        config.device_root = "/nonexistent".into();
        let backend = Arc::new(CloudStackBackend::new(config, Keys::new("api", "secret").unwrap()).unwrap());
        BackendSubject { second: backend.clone(), backend, guard: Box::new(()) }
    }));
    trials.extend(over_disks());
    trials.extend(lost::trials());
    trials.extend(crash::trials());
    trials.extend(detaches::trials());
    trials.extend(devices::trials());
    trials.extend(owners::trials());
    trials.extend(found::trials());
    trials.extend(hidden::trials());
    trials.extend(twins::trials());
    trials.extend(projects::trials());
    trials.extend(real::trials());
    trials
}

/// The same over block devices, and over disks that tell their serial as SCSI does.
fn over_disks() -> Vec<Trial> {
    let free = Command::new("losetup").arg("--find").output().is_ok_and(|done| done.status.success());
    let loops = [Requirement::Program("losetup"), Requirement::Feature("a loop device", free)];
    let all = conformance::volume_backend_cases();
    let mut trials = conformance::cases_needing("cloudstack_loop", &loops, &all, || async {
        subject(Account::Ordinary, Options { backing: Backing::Loop, ..Options::default() }).await
    });
    trials.extend(conformance::cases("cloudstack_scsi", &all, || async {
        subject(Account::Ordinary, Options { bus: Bus::Scsi, ..Options::default() }).await
    }));
    trials
}

async fn subject(account: Account, options: Options) -> BackendSubject {
    subject_of(Bench::start(account, options).await)
}

fn subject_of(bench: Bench) -> BackendSubject {
    let (backend, second) = (Arc::new(bench.backend), Arc::new(bench.second));
    BackendSubject { backend, second, guard: Box::new(bench.fake) }
}

/// A cloud, the backend twice, and a deployment.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) fake: Fake,
    pub(crate) backend: CloudStackBackend,
    pub(crate) second: CloudStackBackend,
    pub(crate) instance: InstanceId,
}

impl Bench {
    pub(crate) async fn new(account: Account) -> Self {
        Self::start(account, Options::default()).await
    }

    pub(crate) async fn start(account: Account, options: Options) -> Self {
        let fake = Fake::start(options).await;
        let (backend, second) = (connect(&fake, account, |_| ()), connect(&fake, account, |_| ()));
        Self { fake, backend, second, instance: InstanceId::mint() }
    }

    /// Appliance and backends in a project of the ordinary account.
    pub(crate) async fn in_project(account: Account, options: Options) -> Self {
        let fake = Fake::start(options).await;
        fake.move_appliance_to_project();
        let project = fake.project_of("migration").to_string();
        let connected = || connect(&fake, account, |config| config.project_id = Some(project.clone()));
        let (backend, second) = (connected(), connected());
        Self { fake, backend, second, instance: InstanceId::mint() }
    }

    pub(crate) fn spec(&self) -> VolumeSpec {
        let disk = DiskRef { context: "ctx-1".parse().unwrap(), key: "disk-2000".parse().unwrap() };
        VolumeSpec {
            operation: OperationId::mint(),
            tag: VolumeTag { instance: self.instance.clone(), disk, generation: Generation::FIRST },
            name: "web 01/disk-2000".to_owned(),
            capacity: ByteSize::mib(1),
            provisioning: Provisioning::Thin,
        }
    }

    pub(crate) async fn created(&self) -> (Volume, VolumeTag) {
        let spec = self.spec();
        (self.backend.create(&spec).await.unwrap(), spec.tag)
    }

    pub(crate) async fn attached(&self) -> (Volume, VolumeTag) {
        let (volume, tag) = self.created().await;
        (self.backend.attach(&volume.id, &tag).await.unwrap(), tag)
    }

    /// The volume of a create that ended before it marked what it made.
    pub(crate) async fn left_unmarked(&self, account: Account, spec: &VolumeSpec) -> String {
        self.fake.fault("createTags", 0, 3, What::Unavailable);
        let hasty = connect(&self.fake, account, |config| config.patience = Duration::ZERO);
        hasty.create(spec).await.unwrap_err();
        let made = self.fake.data_volumes();
        assert_eq!(made.len(), 1);
        made[0].id.to_string()
    }

    /// Nothing of ours is left in the cloud or on this machine.
    pub(crate) fn assert_clean(&self) {
        assert!(self.fake.data_volumes().is_empty(), "{:?}", self.fake.data_volumes());
        assert_eq!(self.fake.attached(self.fake.appliance).len(), 1, "its own disk");
    }
}

/// The backend as a process of the appliance has it, quick to ask again.
pub(crate) fn connect(
    fake: &Fake,
    account: Account,
    change: impl FnOnce(&mut CloudStackConfig),
) -> CloudStackBackend {
    let ids = [fake.zone, fake.offering, fake.appliance].map(|id| id.to_string());
    let [zone, offering, appliance] = ids;
    let mut config = CloudStackConfig::new(fake.url.clone(), zone, offering, appliance);
    config.account = account;
    config.device_root.clone_from(&fake.devices);
    config.new_space_reads_as_zero = true;
    config.first_pause = Duration::from_millis(1);
    config.longest_pause = Duration::from_millis(20);
    config.device_limit = Duration::from_millis(500);
    change(&mut config);
    let keys = match account {
        Account::RootAdmin => &fake.admin,
        Account::Ordinary => &fake.user,
    };
    CloudStackBackend::new(config, Keys::new(&keys.key, &keys.secret).unwrap()).unwrap()
}

/// Calls as the engine does: again and with growing pauses, as long as that is said to help.
pub(crate) async fn insist<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> T {
    let mut last = None;
    for pause in 0..100 {
        match call().await {
            Ok(value) => return value,
            Err(error) if error.retry() == Retry::Later => last = Some(error),
            Err(error) => panic!("{}", error.chain()),
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    panic!("it never worked: {}", last.unwrap().chain())
}
