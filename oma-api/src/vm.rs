use oma_core::record::VmContext;
use oma_core::state::ContextStatus;
use oma_core::{ContextId, Endpoint, Epoch, InstanceUuid, JobId, VmPath};
use serde::{Deserialize, Serialize};

/// A VM as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct VmRow {
    /// The id of its record.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub context_id: ContextId,
    /// Its UUID at the source.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub instance_uuid: InstanceUuid,
    /// The source.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub endpoint: Endpoint,
    /// Its name when it was last discovered.
    pub name: String,
    /// Its path when it was last discovered.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub path: VmPath,
    /// How it stands.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub status: ContextStatus,
    /// The last committed epoch; 0 before the first.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub epoch: Epoch,
    /// The live job, if there is one.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub job_id: Option<JobId>,
    /// When the record last changed, RFC 3339 in UTC.
    pub updated_at: String,
}

impl From<&VmContext> for VmRow {
    fn from(vm: &VmContext) -> Self {
        Self {
            context_id: vm.id.clone(),
            instance_uuid: vm.identity.instance_uuid.clone(),
            endpoint: vm.identity.endpoint.clone(),
            name: vm.name.clone(),
            path: vm.path.clone(),
            status: vm.status,
            epoch: vm.epoch,
            job_id: vm.current_job.clone(),
            updated_at: vm.updated_at.to_string(),
        }
    }
}
