use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use oma_api::client::ExportOpener;
use oma_core::Result;
use oma_core::traits::{Access, BlockDevice};
use oma_nbd::{Address, Client, ClientConfig, TlsClientConfig, Uri};

/// Opens what a volume daemon serves over NBD.
#[derive(Clone, Debug, Default)]
pub struct NbdOpener {
    /// How each export is used, but for what may be done. TLS that is configured here is demanded over TCP; a socket of this machine
    /// needs none.
    pub config: ClientConfig,
}

impl NbdOpener {
    /// Trusts `ca-cert.pem` of a directory, and shows `client-cert.pem` with `client-key.pem` (docs/tls.md). The files are read for
    /// each volume that is opened.
    #[must_use]
    pub fn with_certificates(directory: impl AsRef<Path>) -> Self {
        let tls = Some(TlsClientConfig::in_directory(directory));
        Self { config: ClientConfig { tls, ..ClientConfig::default() } }
    }

    fn config(&self, uri: &Uri, access: Access) -> ClientConfig {
        let is_near = matches!(uri.address(), Address::Unix(_)) && uri.tls().is_none();
        let tls = self.config.tls.clone().filter(|_| !is_near);
        ClientConfig { access, tls, ..self.config.clone() }
    }
}

#[async_trait]
impl ExportOpener for NbdOpener {
    async fn open(&self, uri: &str, access: Access) -> Result<Arc<dyn BlockDevice>> {
        let uri = Uri::parse(uri)?;
        Ok(Arc::new(Client::connect(&uri, self.config(&uri, access)).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_for_what_comes_over_a_network() {
        let opener = NbdOpener::with_certificates("/etc/oma/tls");
        for (uri, demands) in [
            ("nbd+unix:///a?socket=/run/nbd.sock", false),
            ("nbds+unix:///a?socket=/run/nbd.sock", true),
            ("nbds://volumes.example/a", true),
            // Whatever the daemon says: who has certificates wants them used.
            ("nbd://volumes.example/a", true),
        ] {
            let config = opener.config(&Uri::parse(uri).unwrap(), Access::ReadOnly);
            assert_eq!((config.tls.is_some(), config.access), (demands, Access::ReadOnly), "{uri}");
        }
    }
}
