//! The commands that are used, as types. Fields that are not read are not here; fields that the server leaves out when they are not
//! set are options.

mod catalog;
mod lists;
mod tag;
mod volume;

pub(super) use catalog::{ApiCommand, Capabilities, DiskOffering, Machine, Resources, VmSnapshot, Zone};
pub(super) use lists::{all, one_page};
pub(super) use tag::{Tag, create_tags, delete_tags};
pub(super) use volume::{CloudVolume, State};
