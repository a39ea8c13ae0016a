use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::CloudError;

/// Where the volumes of a [`CloudStackBackend`](super::CloudStackBackend) live and how they are reached. Keys are not part of it:
/// they are given apart, as [`Keys`](super::Keys).
///
/// In a file it needs the first four; durations are `{ "secs": 30, "nanos": 0 }` there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudStackConfig {
    /// URL of the API, `https://cloud.example/client/api`. Plain `http` is for this machine only, unless
    /// [`allow_plain_http`](Self::allow_plain_http).
    pub endpoint: String,
    /// Id of the zone that volumes are made in.
    pub zone_id: String,
    /// Id of the disk offering that they are made with: of custom size, not strict, not encrypted, active.
    pub disk_offering_id: String,
    /// Id of the virtual machine that this process runs in: volumes are attached to it.
    pub appliance_vm_id: String,
    /// Ids of the virtual machines of the other appliances on the same database: a volume of ours that one of them has is detached
    /// there when it is attached here or deleted, because whoever asks for that holds the lease that the other one had.
    #[serde(default)]
    pub peer_vm_ids: Vec<String>,
    /// Id of the project that volumes are made and looked for in, to which the appliance belongs too; without it they are the
    /// account's own.
    #[serde(default)]
    pub project_id: Option<String>,
    /// What the account may do.
    #[serde(default)]
    pub account: Account,
    /// A file of certificate authorities (PEM) instead of those that this machine trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Goes without TLS to another machine: what is asked and answered can be read and changed on the way.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// Says that every pool that volumes can come to lie on hands out space that reads as zero, as files (NFS, local, shared mount
    /// point) and Ceph do, and as CLVM and many raw devices do not. Without it volumes cannot grow.
    #[serde(default)]
    pub new_space_reads_as_zero: bool,
    /// The root of the tree in which local devices are looked for.
    #[serde(default = "root")]
    pub device_root: PathBuf,
    /// How long to wait for a TCP connection.
    #[serde(default = "connect_limit")]
    pub connect_limit: Duration,
    /// How long to wait for an answer.
    #[serde(default = "request_limit")]
    pub request_limit: Duration,
    /// How long a request that the server has no time for (429, 503) is tried again.
    #[serde(default = "patience")]
    pub patience: Duration,
    /// How long to wait for a job of the cloud. Its volumes may have to move between pools first.
    #[serde(default = "job_limit")]
    pub job_limit: Duration,
    /// The first pause between two looks at a job or a volume; later ones are longer.
    #[serde(default = "first_pause")]
    pub first_pause: Duration,
    /// The longest pause between two looks.
    #[serde(default = "longest_pause")]
    pub longest_pause: Duration,
    /// How long to wait for a local device to appear, to change its size or to vanish once the cloud says so.
    #[serde(default = "device_limit")]
    pub device_limit: Duration,
    /// Requests on the way at the same time.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
}

/// What the account of the keys may do, which decides how a volume is found again after an answer was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Account {
    /// Root administrator: volumes get ids of ours (`customid`), so that one operation can only ever make one volume.
    RootAdmin,
    /// Any other: volumes are found again by a name of ours, the job that made them, and their tags.
    #[default]
    Ordinary,
}

/// Nobody waits longer for anything.
const LONGEST: Duration = Duration::from_hours(24 * 7);

impl CloudStackConfig {
    /// With defaults for whatever has one.
    #[must_use]
    pub fn new(
        endpoint: impl Into<String>,
        zone_id: impl Into<String>,
        disk_offering_id: impl Into<String>,
        appliance_vm_id: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            zone_id: zone_id.into(),
            disk_offering_id: disk_offering_id.into(),
            appliance_vm_id: appliance_vm_id.into(),
            peer_vm_ids: Vec::new(),
            project_id: None,
            account: Account::default(),
            ca_file: None,
            allow_plain_http: false,
            new_space_reads_as_zero: false,
            device_root: root(),
            connect_limit: connect_limit(),
            request_limit: request_limit(),
            patience: patience(),
            job_limit: job_limit(),
            first_pause: first_pause(),
            longest_pause: longest_pause(),
            device_limit: device_limit(),
            in_flight: in_flight(),
        }
    }

    pub(super) fn check(&self) -> Result<(), CloudError> {
        let ids = [
            ("zone_id", Some(&self.zone_id)),
            ("disk_offering_id", Some(&self.disk_offering_id)),
            ("appliance_vm_id", Some(&self.appliance_vm_id)),
            ("project_id", self.project_id.as_ref()),
        ];
        let peers = self.peer_vm_ids.iter().map(|id| ("peer_vm_ids", Some(id)));
        let is_good = |id: &str| {
            id.starts_with(|first: char| first.is_ascii_alphanumeric())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let is_odd = |(_, id): &(&str, Option<&String>)| id.is_some_and(|id| !is_good(id));
        if let Some((name, _)) = ids.into_iter().chain(peers).find(is_odd) {
            return Err(CloudError::NoId(name));
        }
        let limits = [
            ("connect_limit", self.connect_limit),
            ("request_limit", self.request_limit),
            ("patience", self.patience),
            ("job_limit", self.job_limit),
            ("first_pause", self.first_pause),
            ("longest_pause", self.longest_pause),
            ("device_limit", self.device_limit),
        ];
        match limits.iter().find(|(_, limit)| *limit > LONGEST) {
            Some((name, _)) => Err(CloudError::Endless(name)),
            None => Ok(()),
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from("/")
}

const fn connect_limit() -> Duration {
    Duration::from_secs(10)
}

const fn request_limit() -> Duration {
    Duration::from_mins(1)
}

const fn patience() -> Duration {
    Duration::from_mins(2)
}

/// The server itself gives up after an hour (`job.cancel.threshold.minutes`).
const fn job_limit() -> Duration {
    Duration::from_mins(65)
}

const fn first_pause() -> Duration {
    Duration::from_millis(500)
}

/// The queue of a virtual machine's jobs is looked at every three seconds.
const fn longest_pause() -> Duration {
    Duration::from_secs(5)
}

const fn device_limit() -> Duration {
    Duration::from_mins(1)
}

const fn in_flight() -> usize {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_the_first_four_and_no_unknown_ones() {
        let text = r#"{"endpoint": "https://c/client/api", "zone_id": "z", "disk_offering_id": "o", "appliance_vm_id": "a"}"#;
        let config: CloudStackConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config, CloudStackConfig::new("https://c/client/api", "z", "o", "a"));
        let account = text.replace('}', r#", "account": "root-admin"}"#);
        assert_eq!(serde_json::from_str::<CloudStackConfig>(&account).unwrap().account, Account::RootAdmin);
        let unknown = text.replace('}', r#", "secret_key": "s"}"#);
        serde_json::from_str::<CloudStackConfig>(&unknown).unwrap_err();
    }

    #[test]
    fn what_can_never_work_is_refused_at_once() {
        let good = CloudStackConfig::new("https://c/client/api", "z", "o", "a");
        good.check().unwrap();
        let no_id = CloudStackConfig { zone_id: String::new(), ..good.clone() };
        let odd = CloudStackConfig { appliance_vm_id: "a b".to_owned(), ..good.clone() };
        // All projects at once is none to make a volume in.
        let all = CloudStackConfig { project_id: Some("-1".to_owned()), ..good.clone() };
        let peer = CloudStackConfig { peer_vm_ids: vec!["b".to_owned(), "c d".to_owned()], ..good.clone() };
        let blank = CloudStackConfig { project_id: Some(String::new()), ..good.clone() };
        let endless = CloudStackConfig { patience: Duration::MAX, ..good };
        for (config, name) in [
            (no_id, "zone_id"),
            (odd, "appliance_vm_id"),
            (all, "project_id"),
            (blank, "project_id"),
            (peer, "peer_vm_ids"),
            (endless, "patience"),
        ] {
            let error = config.check().unwrap_err().about("set up", "cloud");
            assert_eq!(error.kind(), oma_core::ErrorKind::Invalid);
            assert!(error.chain().contains(name), "{}", error.chain());
        }
    }
}
