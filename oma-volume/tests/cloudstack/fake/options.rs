//! How the cloud is set up.

use std::time::Duration;

use super::devices::{Backing, Bus};

/// Defaults are a cloud as it is installed, whose jobs take one poll.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `enforce.post.requests.and.timestamps`.
    pub(crate) post_and_timestamps: bool,
    pub(crate) pace: Pace,
    /// With `Pace::Polls`, whether a list that shows what a job is about is a question about it.
    pub(crate) lists_ask: bool,
    /// `default.page.size`.
    pub(crate) page_size: usize,
    /// Data disks that a machine can have.
    pub(crate) data_disks: u32,
    /// Volumes and GiB that each ordinary account may have.
    pub(crate) max_volumes: Option<u64>,
    pub(crate) max_gib: Option<u64>,
    pub(crate) kvm_snapshots: bool,
    pub(crate) backing: Backing,
    pub(crate) bus: Bus,
    /// `cloudstackversion`. Parameters that came later are ignored, and not told of.
    pub(crate) version: &'static str,
    /// The port to listen at; 0 is any.
    pub(crate) port: u16,
    /// The clock goes with the machine's, for use by hand; else it stands still until it is moved on.
    pub(crate) running_clock: bool,
}

/// When a job that is its queue's first comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// While the n-th question about it is answered, so that the n-th answer already has the result. A list that shows what the job
    /// is about, or a question about a job behind it, is such a question too.
    Polls(u32),
    /// When so much of the fake's time has gone by.
    Time(Duration),
    /// When the test says so.
    Steps,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            post_and_timestamps: false,
            pace: Pace::Polls(1),
            lists_ask: true,
            page_size: 500,
            data_disks: 32,
            max_volumes: None,
            max_gib: None,
            kvm_snapshots: true,
            backing: Backing::File,
            bus: Bus::Virtio,
            version: "4.22.0.0",
            port: 0,
            running_clock: false,
        }
    }
}
