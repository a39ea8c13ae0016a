use oma_core::ByteSize;
use serde::Deserialize;

use super::Tag;
use super::lists::Row;

/// A volume as `listVolumes` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(in super::super) struct CloudVolume {
    pub(in super::super) id: String,
    #[serde(default)]
    pub(in super::super) name: String,
    #[serde(default)]
    pub(in super::super) state: State,
    /// Its size in bytes.
    #[serde(default)]
    pub(in super::super) size: u64,
    /// The machine that it is attached to.
    #[serde(default, rename = "virtualmachineid")]
    pub(in super::super) machine: Option<String>,
    /// Since when, to the second; absent while it is not attached.
    #[serde(default)]
    pub(in super::super) attached: Option<String>,
    /// The job of the cloud that is about it, and how that stands. Only one that is under way is told.
    #[serde(default)]
    jobid: Option<String>,
    #[serde(default)]
    jobstatus: Option<i64>,
    /// When it was made, to the second.
    #[serde(default)]
    pub(in super::super) created: Option<String>,
    #[serde(default)]
    pub(in super::super) tags: Vec<Tag>,
}

/// What a volume's state means for us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(in super::super) enum State {
    /// A row and nothing else: its space is made when it is attached first.
    Allocated,
    /// There it is.
    Ready,
    /// A job of the cloud is at work on it.
    #[default]
    Moving,
    /// It was destroyed, for good or for the administrator's recycle bin.
    Gone,
    /// Nothing that we made is ever in such a state.
    Other(String),
}

impl From<String> for State {
    fn from(state: String) -> Self {
        match state.as_str() {
            "Allocated" => Self::Allocated,
            "Ready" => Self::Ready,
            "Creating" | "Attaching" | "Migrating" | "Snapshotting" | "RevertSnapshotting" | "Resizing"
            | "Copying" | "Restoring" | "Consolidating" => Self::Moving,
            "Destroy" | "Destroying" | "Expunging" | "Expunged" => Self::Gone,
            _ => Self::Other(state),
        }
    }
}

impl CloudVolume {
    pub(in super::super) const fn capacity(&self) -> ByteSize {
        ByteSize::new(self.size)
    }

    /// The job that is under way on it, whoever asked for it.
    pub(in super::super) fn job_at_work(&self) -> Option<&str> {
        self.jobid.as_deref().filter(|_| matches!(self.jobstatus, None | Some(0)))
    }
}

impl Row for CloudVolume {
    fn id(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_read_as_the_documents_show_it() {
        let text = r#"{"id":"3f0ed26a-0000-4000-8000-000000000001","name":"data-1","zoneid":"z","zonename":"zone","type":"DATADISK",
            "deviceid":1,"virtualmachineid":"m","vmname":"vm","vmstate":"Running","provisioningtype":"thin","size":5368709120,
            "created":"2026-01-02T03:04:05+0000","state":"Ready","account":"admin","hypervisor":"KVM","destroyed":false,
            "isextractable":true,"tags":[{"key":"oma.disk","value":"d","resourcetype":"Volume","account":"admin"}]}"#;
        let volume: CloudVolume = serde_json::from_str(text).unwrap();
        assert_eq!((volume.capacity(), volume.state.clone()), (ByteSize::gib(5), State::Ready));
        assert_eq!(volume.machine.as_deref(), Some("m"));
        assert_eq!(volume.tags, [Tag { key: "oma.disk".to_owned(), value: "d".to_owned() }]);
    }

    #[test]
    fn a_job_is_at_work_until_it_has_a_status() {
        for (status, is_at_work) in
            [("", true), (r#", "jobstatus": 0"#, true), (r#", "jobstatus": 1"#, false)]
        {
            let text = format!(r#"{{"id":"v","jobid":"j"{status}}}"#);
            let volume: CloudVolume = serde_json::from_str(&text).unwrap();
            assert_eq!(volume.job_at_work().is_some(), is_at_work, "{text}");
        }
        let volume: CloudVolume = serde_json::from_str(r#"{"id":"v","jobstatus":0}"#).unwrap();
        assert_eq!(volume.job_at_work(), None);
    }

    #[test]
    fn what_is_not_set_is_left_out() {
        let volume: CloudVolume = serde_json::from_str(r#"{"id":"v","state":"Allocated"}"#).unwrap();
        assert_eq!((volume.machine, volume.state), (None, State::Allocated));
    }

    #[test]
    fn a_state_of_a_later_version_is_neither_ready_nor_gone() {
        assert_eq!(State::from("RestoreError".to_owned()), State::Other("RestoreError".to_owned()));
        assert_eq!(State::from("Expunging".to_owned()), State::Gone);
        assert_eq!(State::from("Attaching".to_owned()), State::Moving);
    }
}
