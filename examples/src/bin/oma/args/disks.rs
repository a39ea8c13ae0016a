//! A VM and its disks, as an operator names them, and how its volumes are made.

use clap::ValueEnum;
use oma_core::traits::Provisioning;
pub(crate) use oma_examples::disk_args::{DiskArgs, MachineArgs, SOURCE, list};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProvisioningArg {
    /// As it is written
    Thin,
    /// All at once
    Thick,
}

impl From<ProvisioningArg> for Provisioning {
    fn from(arg: ProvisioningArg) -> Self {
        match arg {
            ProvisioningArg::Thin => Self::Thin,
            ProvisioningArg::Thick => Self::Thick,
        }
    }
}

pub(crate) const REFLINK: &str = "Whether the target shares the blocks of the source where both are files of a file system that can, \
    as XFS and Btrfs: nothing is read then; a block that the disk loses is lost to both";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReflinkArg {
    /// Where it is possible
    Auto,
    /// Everything is copied
    Never,
}
