use super::{labelled, transitions};

labelled! {
    /// How a volume stands.
    VolumeStatus, "volume status" {
        /// Asked for.
        Creating = "creating",
        /// It exists.
        Created = "created",
        /// It is visible as a local device.
        Attached = "attached",
        /// It exists and has no local device any more.
        Detached = "detached",
        /// Its deletion is planned and can still be called off.
        Condemned = "condemned",
        /// The backend was told to destroy it.
        Deleting = "deleting",
        /// It is gone.
        Deleted = "deleted",
    }
}

labelled! {
    /// What happens to a volume.
    VolumeEvent, "volume event" {
        /// The backend made it.
        Created = "created",
        /// It has a local device.
        Attach = "attach",
        /// Its local device is gone.
        Detach = "detach",
        /// Its deletion is planned.
        Condemn = "condemn",
        /// The plan is called off.
        Pardon = "pardon",
        /// The backend is told to destroy it.
        Delete = "delete",
        /// The backend confirms that it is gone.
        Deleted = "deleted",
        /// The backend did not destroy it.
        Keep = "keep",
    }
}

use VolumeEvent as E;
use VolumeStatus as S;

transitions! { VolumeStatus, VolumeEvent, "volume" {
    S::Creating, E::Created => S::Created,
    S::Created | S::Detached, E::Attach => S::Attached,
    S::Attached, E::Detach => S::Detached,
    S::Created | S::Detached, E::Condemn => S::Condemned,
    S::Condemned, E::Pardon => S::Detached,
    S::Created | S::Detached | S::Condemned, E::Delete => S::Deleting,
    S::Deleting, E::Keep => S::Detached,
    S::Deleting, E::Deleted => S::Deleted,
}}
