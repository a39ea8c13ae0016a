//! A disk served over NBD as the source of a replication.

use std::sync::Arc;

use async_trait::async_trait;
use oma_core::direct::{DirectDescription, DirectDisk};
use oma_core::traits::{Access, BlockDevice, Changes};
use oma_core::{ByteSize, ChangeId, Error, ErrorKind, Extent, ExtentSet, PointId, Result};

use crate::client::{Client, ClientConfig, list_contexts};
use crate::protocol::QEMU_DIRTY_BITMAP;
use crate::uri::Uri;

/// An export as a source disk; what changed is told by a dirty bitmap of QEMU, when one is named.
///
/// NBD has no snapshots and no marker of content. The content id is made of the URI, the size and the bitmap, or of the
/// change id and the size when the operator gave one: what is served under it must stay the same until the job that reads
/// it has ended, resumed runs included. Give another change id whenever the content is another.
#[derive(Clone, Debug)]
pub struct NbdSource {
    uri: Uri,
    bitmap: Option<String>,
    change_id: Option<ChangeId>,
    config: ClientConfig,
}

impl NbdSource {
    /// A source that reads the export of a URI. Nothing is connected yet; the export is never written.
    #[must_use]
    pub fn new(uri: Uri, bitmap: Option<String>, change_id: Option<ChangeId>, config: ClientConfig) -> Self {
        Self { uri, bitmap, change_id, config: ClientConfig { access: Access::ReadOnly, ..config } }
    }

    async fn connect(&self, contexts: Vec<String>) -> Result<Client> {
        Client::connect(&self.uri, ClientConfig { contexts, ..self.config.clone() }).await
    }

    fn content(&self, capacity: ByteSize) -> PointId {
        let bytes = capacity.bytes();
        let text = match (&self.change_id, &self.bitmap) {
            (Some(change_id), _) => format!("nbd {change_id} {bytes}"),
            (None, Some(bitmap)) => format!("nbd {} {bytes} {bitmap}", self.uri),
            (None, None) => format!("nbd {} {bytes}", self.uri),
        };
        // Too long for an id: a new one says "not known to be the same", which only costs a resumed copy.
        PointId::parse(text).unwrap_or_else(|_| {
            PointId::parse(format!("nbd {}", ChangeId::mint())).expect("a minted id is short")
        })
    }

    async fn no_bitmap(&self, bitmap: &str) -> Error {
        let offered = match list_contexts(&self.uri, "qemu:", &self.config).await {
            Ok(names) => names,
            Err(error) => return error,
        };
        let bitmaps: Vec<_> =
            offered.iter().filter_map(|name| name.strip_prefix(QEMU_DIRTY_BITMAP)).collect();
        let (offer, advice) = match bitmaps.as_slice() {
            [] => (
                "it offers no bitmap".to_owned(),
                format!(
                    "add one with `qemu-img bitmap --add IMAGE {bitmap}` and serve the image with `qemu-nbd -B {bitmap}`"
                ),
            ),
            names => (format!("it offers {names:?}"), "name one of these".to_owned()),
        };
        let advice = if offered.is_empty() {
            format!("{advice}, or copy everything by naming no bitmap")
        } else {
            advice
        };
        Error::new(ErrorKind::NotFound, "find the dirty bitmap", bitmap)
            .because(format!("the export {} has no such bitmap: {offer}; {advice}", self.uri))
    }
}

#[async_trait]
impl DirectDisk for NbdSource {
    async fn describe(&self) -> Result<DirectDescription> {
        let client = self.connect(Vec::new()).await?;
        let capacity = client.info().capacity;
        client.close().await;
        Ok(DirectDescription { capacity, location: self.uri.to_string(), content: self.content(capacity) })
    }

    /// Every extent that the bitmap marks, over the whole disk. It has the name of the change id that it began at; what changed since
    /// another one is unknown.
    async fn changed(&self, since: &ChangeId) -> Result<Changes> {
        let Some(bitmap) = &self.bitmap else {
            let reason = "no dirty bitmap is named for the source, so it cannot tell what changed";
            return Ok(Changes::Unknown(reason.to_owned()));
        };
        let context = format!("{QEMU_DIRTY_BITMAP}{bitmap}");
        let client = self.connect(vec![context.clone()]).await?;
        if !client.has_context(&context) {
            client.close().await;
            return Err(self.no_bitmap(bitmap).await);
        }
        if bitmap != since.as_str() {
            client.close().await;
            let reason =
                format!("the dirty bitmap {bitmap} tells what changed since {bitmap}, not since {since}");
            return Ok(Changes::Unknown(reason));
        }
        let dirty = match Extent::between(0, client.info().capacity.bytes()) {
            Some(whole) => client.dirty_extents(bitmap, whole).await?,
            None => ExtentSet::new(),
        };
        client.close().await;
        Ok(Changes::Since(dirty))
    }

    /// What is served may not change: NBD tells nothing of it.
    async fn confirm(&self, _content: &PointId) -> Result<()> {
        Ok(())
    }

    async fn open(&self) -> Result<Arc<dyn BlockDevice>> {
        Ok(Arc::new(self.connect(Vec::new()).await?))
    }
}
