use std::fmt;

use async_trait::async_trait;

use crate::record::Summary;
use crate::{Result, Timestamp};

/// Everything in numbers, for dashboards.
#[async_trait]
pub trait Overview: fmt::Debug + Send + Sync + 'static {
    /// How everything stands at one moment; of ended jobs those that ended at `since` or after.
    async fn summary(&self, since: Timestamp) -> Result<Summary>;
}
