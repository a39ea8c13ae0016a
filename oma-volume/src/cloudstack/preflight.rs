//! Everything that replication will need of a cloud, asked before it begins.

use std::fmt;

use oma_core::ErrorKind;
use serde::{Deserialize, Serialize};

use super::api::{
    self, ApiCommand, Capabilities, CloudVolume, DiskOffering, Machine, Resources, VmSnapshot, Zone,
};
use super::config::Account;
use super::error::CloudError;
use super::placed::serial_among;
use super::request::Request;
use super::volumes::{Cloud, Result};

/// Data disks of a machine on KVM (`max_data_volumes_limit`), unless somebody changed that.
const SLOTS: usize = 32;
/// Fewer free ones are told before they are gone.
const FEW_SLOTS: usize = 4;

/// Commands without which nothing goes.
const NEEDED: [&str; 11] = [
    "listVolumes",
    "createVolume",
    "attachVolume",
    "detachVolume",
    "deleteVolume",
    "resizeVolume",
    "createTags",
    "deleteTags",
    "queryAsyncJobResult",
    "listVirtualMachines",
    "listSnapshots",
];

/// What was found out about a cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// One for each thing that was looked at.
    pub findings: Vec<Finding>,
}

/// What was found out about one thing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// Whether it will do.
    pub verdict: Verdict,
    /// A sentence for the operator.
    pub text: String,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// The version of the server.
    Version,
    /// The commands that these keys may call.
    Commands,
    /// What the account is, against what the configuration says.
    Account,
    /// The project, where one is configured.
    Project,
    /// The zone.
    Zone,
    /// The disk offering.
    Offering,
    /// The virtual machine that volumes are attached to.
    Appliance,
    /// Snapshots of that machine, which keep volumes from being attached.
    VmSnapshots,
    /// Room for more disks at that machine.
    Slots,
    /// Whether that machine is the one that this program runs in.
    ThisMachine,
    /// The account's limits.
    Quota,
    /// Whether volumes of running machines can have snapshots.
    KvmSnapshots,
    /// How many requests are let through.
    RateLimit,
}

/// Whether something will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It will.
    Good,
    /// It may not, or could not be found out.
    Doubtful,
    /// It will not: replication would fail.
    Failed,
}

impl Preflight {
    /// Whether nothing is known to stand in the way.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict < Verdict::Failed)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Doubtful => "doubtful",
            Verdict::Failed => "failed",
        };
        write!(f, "{verdict}: {}", self.text)
    }
}

type Judged = (Verdict, String);

fn good(text: impl Into<String>) -> Judged {
    (Verdict::Good, text.into())
}

fn doubtful(text: impl Into<String>) -> Judged {
    (Verdict::Doubtful, text.into())
}

fn failed(text: impl Into<String>) -> Judged {
    (Verdict::Failed, text.into())
}

impl Cloud {
    pub(super) async fn preflight(&self) -> Result<Preflight> {
        let capabilities = self.capabilities().await?;
        let disks = self.here().await;
        let disks = disks.as_ref();
        let mut judged = vec![
            (Check::Version, Ok(version(&capabilities))),
            (Check::Commands, self.commands().await),
            (Check::Account, self.account().await),
            (Check::Zone, self.zone().await),
            (Check::Offering, self.offering().await),
            (Check::Appliance, self.appliance().await),
            (Check::VmSnapshots, self.vm_snapshots().await),
            (Check::Slots, Ok(disks.map_or_else(not_asked, |disks| slots(disks)))),
            (
                Check::ThisMachine,
                Ok(match disks {
                    Ok(disks) => self.this_machine(disks).await,
                    Err(error) => not_asked(error),
                }),
            ),
            (Check::Quota, self.quota().await),
            (Check::KvmSnapshots, Ok(kvm_snapshots(&capabilities))),
            (Check::RateLimit, Ok(rate_limit(&capabilities))),
        ];
        if let Some(id) = &self.config.project_id {
            judged.push((Check::Project, self.project(id).await));
        }
        let finding = |(check, judged): (Check, Result<Judged>)| {
            let (verdict, text) = judged.unwrap_or_else(|error| not_asked(&error));
            Finding { check, verdict, text }
        };
        Ok(Preflight { findings: judged.into_iter().map(finding).collect() })
    }

    async fn capabilities(&self) -> Result<Capabilities> {
        #[derive(Debug, Deserialize)]
        struct Content {
            capability: Capabilities,
        }
        Ok(self.client.ask::<Content>(&Request::new("listCapabilities")).await?.capability)
    }

    /// The row that an id names; `None` when it names nothing that the account may see.
    async fn row<T: serde::de::DeserializeOwned>(&self, request: Request, key: &str) -> Result<Option<T>> {
        match api::one_page::<T>(&self.client, &request, key).await {
            Ok(mut rows) => Ok(rows.pop()),
            Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_id() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn commands(&self) -> Result<Judged> {
        let mut missing = Vec::new();
        for name in NEEDED.into_iter().chain(self.config.project_id.is_some().then_some("listProjects")) {
            let request = Request::new("listApis").with("name", name);
            let found = match api::one_page::<ApiCommand>(&self.client, &request, "api").await {
                Err(CloudError::Refused { refusal, .. }) if refusal.is_unknown_command() => {
                    return Ok(doubtful("the account may not call listApis, so its rights are not known"));
                }
                // What a role may not call is a parameter that is wrong, or a name that is not found; 530 says other things too.
                Err(CloudError::Refused { refusal, .. })
                    if refusal.code == 431
                        || (refusal.code == 530 && refusal.text.contains("unable to find")) =>
                {
                    Vec::new()
                }
                found => found?,
            };
            if !found.iter().any(|command| command.name.eq_ignore_ascii_case(name)) {
                missing.push(name);
            }
        }
        Ok(match missing[..] {
            [] => good("all commands that are needed may be called"),
            _ => {
                failed(format!("the account's role may not call {}; give it that right", missing.join(", ")))
            }
        })
    }

    async fn account(&self) -> Result<Judged> {
        let Some(found) = self.own_account().await? else {
            return Ok(doubtful("the account is not shown, so what it may do is not known"));
        };
        let is_root = found.roletype.as_deref() == Some("Admin");
        Ok(match (self.config.account, is_root) {
            (Account::RootAdmin, true) => good(format!("{} is root administrator", found.name)),
            (Account::Ordinary, false) => good(format!("{} is an ordinary account", found.name)),
            (Account::Ordinary, true) => doubtful(format!(
                "{} is root administrator and the configuration does not say so; with `account = root-admin` lost answers are resolved in fewer steps",
                found.name
            )),
            (Account::RootAdmin, false) => failed(format!(
                "{} is not root administrator, so the cloud refuses ids of ours; say `account = ordinary`",
                found.name
            )),
        })
    }

    async fn project(&self, id: &str) -> Result<Judged> {
        Ok(match self.project_row(id).await? {
            None => failed(format!(
                "there is no project {id} for this account; check project_id, and that the account is a member of it"
            )),
            Some(found) => match found.state.as_deref() {
                Some("Active") | None => good(format!("the project {} is active", found.name)),
                Some(state) => failed(format!(
                    "the project {} is {state}, so no volume can be made in it; activate it",
                    found.name
                )),
            },
        })
    }

    async fn project_row(&self, id: &str) -> Result<Option<Resources>> {
        self.row(Request::list_all("listProjects").with("id", id), "project").await
    }

    /// Without `listall` only the caller's own account is shown, to an administrator too.
    async fn own_account(&self) -> Result<Option<Resources>> {
        self.row(Request::new("listAccounts"), "account").await
    }

    async fn zone(&self) -> Result<Judged> {
        let id = &self.config.zone_id;
        let found: Option<Zone> = self.row(Request::new("listZones").with("id", id), "zone").await?;
        Ok(match found {
            None => failed(format!("there is no zone {id} for this account; check zone_id")),
            Some(zone) => match zone.allocationstate.as_deref() {
                Some("Enabled") | None => good(format!("the zone {} is enabled", zone.name)),
                Some(state) => failed(format!("the zone {} is {state}; enable it", zone.name)),
            },
        })
    }

    async fn offering(&self) -> Result<Judged> {
        let id = &self.config.disk_offering_id;
        let request = Request::new("listDiskOfferings").with("id", id);
        let found: Option<DiskOffering> = self.row(request, "diskoffering").await?;
        Ok(match found {
            None => failed(format!(
                "there is no active disk offering {id} for this account; check disk_offering_id"
            )),
            Some(offering) => judge_offering(&offering, &self.config.zone_id),
        })
    }

    async fn appliance(&self) -> Result<Judged> {
        let id = &self.config.appliance_vm_id;
        let request = self.list_all("listVirtualMachines").with("id", id).with("details", "min");
        let found: Option<Machine> = self.row(request, "virtualmachine").await?;
        Ok(match found {
            None => match &self.config.project_id {
                None => failed(format!(
                    "there is no virtual machine {id} for this account; check appliance_vm_id"
                )),
                Some(project) => failed(format!(
                    "there is no virtual machine {id} in the project {project}, and volumes of a project are attached to its own machines only; check appliance_vm_id and project_id"
                )),
            },
            Some(machine) => judge_machine(&machine, &self.config.zone_id),
        })
    }

    async fn vm_snapshots(&self) -> Result<Judged> {
        let id = &self.config.appliance_vm_id;
        let request = self.list_all("listVMSnapshot").with("virtualmachineid", id);
        let found: Vec<VmSnapshot> = api::one_page(&self.client, &request, "vmSnapshot").await?;
        Ok(match found.first() {
            None => good("the appliance has no snapshots of the whole machine"),
            Some(first) => failed(format!(
                "the appliance has the snapshot {}, with which no volume can be attached or detached; delete it, and make none again",
                first.displayname.as_ref().unwrap_or(&first.id)
            )),
        })
    }

    async fn this_machine(&self, disks: &[CloudVolume]) -> Judged {
        let mut seen = 0;
        for volume in disks {
            let found = match serial_among(volume, disks) {
                Ok(serial) => self.tree.find(&serial).await,
                Err(CloudError::Device(twin)) if twin.kind() == ErrorKind::Conflict => {
                    return failed(twin.chain());
                }
                Err(error) => return not_asked(&error),
            };
            seen += usize::from(matches!(found, Ok(Some(_))));
        }
        match (seen, disks.len()) {
            (_, 0) => doubtful("the appliance has no disk by which to tell whether it is this machine"),
            (0, all) => failed(format!(
                "none of the {all} disks of the appliance is seen here by its serial; is appliance_vm_id this very machine, and does it run on KVM?"
            )),
            (seen, all) if seen == all => good(format!("all {all} disks of the appliance are seen here")),
            (seen, all) => doubtful(format!("{seen} of the {all} disks of the appliance are seen here")),
        }
    }

    async fn quota(&self) -> Result<Judged> {
        let (whose, found) = match &self.config.project_id {
            Some(id) => ("project", self.project_row(id).await?),
            None => ("account", self.own_account().await?),
        };
        let Some(found) = found else {
            return Ok(doubtful(format!("the {whose}'s limits are not shown")));
        };
        let none = |room: &Option<String>| room.as_deref() == Some("0");
        Ok(match (&found.volumeavailable, &found.primarystorageavailable) {
            (volumes, _) if none(volumes) => {
                failed(format!("the {whose} may have no more volumes; raise its limit, or delete some"))
            }
            (_, gib) if none(gib) => {
                failed(format!("the {whose} has no primary storage left; raise its limit, or delete volumes"))
            }
            (Some(volumes), Some(gib)) => {
                good(format!("room for volumes: {volumes}; GiB of primary storage: {gib}"))
            }
            _ => doubtful(format!("the {whose}'s limits are not shown")),
        })
    }
}

fn not_asked(error: &CloudError) -> Judged {
    doubtful(format!("it could not be found out: {error}"))
}

fn version(found: &Capabilities) -> Judged {
    let Some(version) = &found.cloudstackversion else {
        return doubtful("the server does not tell its version");
    };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        (major, minor) if (major, minor) < (4, 11) => doubtful(format!(
            "CloudStack {version} is older than any whose interface this was written from (4.11 to 4.23)"
        )),
        _ => good(format!("CloudStack {version}")),
    }
}

fn judge_offering(offering: &DiskOffering, zone: &str) -> Judged {
    let name = &offering.name;
    let use_another = |why: &str| failed(format!("the disk offering {name} {why}; use another one"));
    match offering {
        offering if !offering.iscustomized => use_another("has a fixed size"),
        offering if offering.iscustomizediops => {
            use_another("asks for a number of operations with each volume")
        }
        offering if offering.disksizestrictness => use_another("forbids volumes to change their size"),
        offering if offering.encrypt => use_another("encrypts volumes, whose sizes are not whole GiB then"),
        offering if offering.state.as_deref().is_some_and(|state| state != "Active") => {
            use_another("is not active")
        }
        offering if offering.zoneid.as_ref().is_some_and(|zones| !zones.split(',').any(|id| id == zone)) => {
            use_another("is for other zones")
        }
        offering if offering.storagetype.as_deref() == Some("local") => doubtful(format!(
            "the disk offering {name} is of local storage: its volumes can only be used by machines of the appliance's host"
        )),
        _ => good(format!("the disk offering {name} fits")),
    }
}

fn judge_machine(machine: &Machine, zone: &str) -> Judged {
    let name = &machine.name;
    let hypervisor = machine.hypervisor.as_deref();
    match machine {
        machine if machine.state != "Running" => {
            failed(format!("the appliance {name} is {}; start it", machine.state))
        }
        machine if machine.zoneid.as_deref().is_some_and(|id| id != zone) => failed(format!(
            "the appliance {name} is in another zone than zone_id; volumes cannot be attached to it"
        )),
        _ if hypervisor.is_some_and(|kind| kind != "KVM") => failed(format!(
            "the appliance {name} runs on {}, where disks have no serial to prove them by; run it on KVM",
            hypervisor.unwrap_or_default()
        )),
        machine if machine.haenable => doubtful(format!(
            "the appliance {name} is highly available: should the cloud start it elsewhere while it runs, two would write to one volume"
        )),
        _ => good(format!("the appliance {name} runs")),
    }
}

fn slots(disks: &[CloudVolume]) -> Judged {
    let data = disks.len().saturating_sub(1);
    match SLOTS.saturating_sub(data) {
        0 => failed(format!("the appliance has {data} data disks already; KVM has room for {SLOTS}")),
        free if free <= FEW_SLOTS => doubtful(format!("the appliance has room for {free} more disks only")),
        free => good(format!("the appliance has room for {free} more disks")),
    }
}

fn kvm_snapshots(found: &Capabilities) -> Judged {
    match found.kvmsnapshotenabled {
        true => good("volumes of running machines can have snapshots"),
        false => doubtful(
            "volumes of running machines can have no snapshots, which a test failover needs; set kvm.snapshot.enabled",
        ),
    }
}

fn rate_limit(found: &Capabilities) -> Judged {
    match (found.apilimitmax, found.apilimitinterval) {
        (Some(most), Some(seconds)) if most < seconds.saturating_mul(2) => doubtful(format!(
            "{most} requests are let through in {seconds} s; raise api.throttling.max for this account"
        )),
        (Some(most), Some(seconds)) => good(format!("{most} requests are let through in {seconds} s")),
        _ => good("requests are not counted"),
    }
}

#[cfg(test)]
mod tests;
