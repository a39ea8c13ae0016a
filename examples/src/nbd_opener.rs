use std::sync::Arc;

use async_trait::async_trait;
use oma_api::client::ExportOpener;
use oma_core::Result;
use oma_core::traits::{Access, BlockDevice};
use oma_nbd::{Client, ClientConfig, Uri};

/// Opens what a volume daemon serves over NBD.
#[derive(Clone, Debug, Default)]
pub struct NbdOpener {
    /// How each export is used, but for what may be done.
    pub config: ClientConfig,
}

#[async_trait]
impl ExportOpener for NbdOpener {
    async fn open(&self, uri: &str, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let config = ClientConfig { access, ..self.config.clone() };
        Ok(Arc::new(Client::connect(&Uri::parse(uri)?, config).await?))
    }
}
