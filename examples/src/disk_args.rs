//! A VM and its disks, as an operator names them.

use std::path::PathBuf;

use crate::source::Source;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use oma_api::NamedDisk;
use oma_core::{ChangeId, DiskKey, Result, VmPath};

/// What `--source` may be.
pub const SOURCE: &str = "The disk, of a VM that has one: a raw file, a block device, \
    nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH";

/// A running machine, in place of disks.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// The monitor of a running QEMU machine, a unix socket: all its writable disks, frozen at one moment
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["source", "disk", "bitmap", "change_id"])]
    pub qmp: Option<PathBuf>,
    /// The guest agent of that machine, a unix socket: the guest's file systems are frozen for that moment
    #[arg(long, value_name = "SOCKET", requires = "qmp", conflicts_with_all = ["source", "disk"])]
    pub guest_agent: Option<PathBuf>,
}

impl MachineArgs {
    /// The machine, or these disks where none was named.
    pub fn source(&self, vm: &VmPath, disks: &[NamedDisk]) -> Result<Source> {
        Source::open(vm, self.qmp.as_deref(), self.guest_agent.as_deref(), disks)
    }
}

/// A VM and its disks.
#[derive(Debug, Args)]
pub struct DiskArgs {
    /// Inventory path of the VM: its identity here, the same in every run
    #[arg(long, value_name = "/DC/vm/NAME")]
    pub vm_path: VmPath,
    #[arg(long, value_name = "URI|FILE", required_unless_present_any = ["disk", "qmp"], conflicts_with = "disk")]
    #[arg(help = SOURCE, value_parser = NonEmptyStringValueParser::new())]
    source: Option<String>,
    /// Key of that disk within the VM
    #[arg(long, value_name = "KEY", default_value = "disk-2000", conflicts_with = "disk")]
    pub disk_key: DiskKey,
    /// Dirty bitmap of the NBD export that holds every change since the last epoch
    #[arg(long, value_name = "NAME", conflicts_with = "disk")]
    pub bitmap: Option<String>,
    /// Change id of what the source is now, recorded with the epoch; minted when not given
    #[arg(long, value_name = "ID", conflicts_with = "disk")]
    pub change_id: Option<ChangeId>,
    /// A disk of a VM that has several; once per disk. Options are taken from the right, each once: all before them
    /// is the source, commas and `=` included
    #[arg(long, value_name = "KEY=SOURCE[,bitmap=NAME][,change-id=ID]")]
    pub disk: Vec<NamedDisk>,
    /// The running machine, in place of disks.
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl DiskArgs {
    /// What was named. Nothing is opened yet.
    pub fn open(&self) -> Result<Source> {
        self.machine.source(&self.vm_path, &self.list())
    }

    /// The disks, however they were named; none of a running machine.
    #[must_use]
    pub fn list(&self) -> Vec<NamedDisk> {
        list(self.source.as_deref(), &self.disk_key, (&self.bitmap, &self.change_id), &self.disk)
    }
}

/// One disk named by its source, or several.
pub fn list(
    source: Option<&str>,
    key: &DiskKey,
    (bitmap, change_id): (&Option<String>, &Option<ChangeId>),
    several: &[NamedDisk],
) -> Vec<NamedDisk> {
    let single = source.map(|source| NamedDisk {
        key: key.clone(),
        source: source.to_owned(),
        bitmap: bitmap.clone(),
        change_id: change_id.clone(),
    });
    single.into_iter().chain(several.iter().cloned()).collect()
}
