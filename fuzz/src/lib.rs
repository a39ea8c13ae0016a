//! A server that is spoken to over memory.

use std::sync::Arc;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, ExportSpec};
use oma_core::{ByteSize, ExportName, Fence, Result};
use oma_nbd::{DirtyBitmap, MetaContext, Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio_util::sync::CancellationToken;

/// Says `bytes` to a server with the export `disk` (1 MiB, bitmap `b0`) and hangs up; all that it answered, and how the
/// connection ended.
#[must_use]
pub fn converse(bytes: &[u8]) -> (Vec<u8>, Result<()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(async {
        let (near, far) = duplex(1 << 16);
        let (mut reader, mut writer) = split(near);
        let server = serve().await;
        let mut answers = Vec::new();
        let say = async {
            // The server may hang up first.
            let _ = writer.write_all(bytes).await;
            let _ = writer.shutdown().await;
        };
        let (outcome, (), heard) = tokio::join!(
            server.serve_stream(far, CancellationToken::new()),
            say,
            reader.read_to_end(&mut answers)
        );
        heard.expect("memory does not fail");
        (answers, outcome)
    })
}

async fn serve() -> Server {
    let server = Server::new(ServerConfig::default());
    let bitmap = DirtyBitmap::new("b0", Arc::new(MemoryDevice::new("memory", ByteSize::mib(1))));
    let (context, device): (Arc<dyn MetaContext>, Arc<dyn BlockDevice>) = (bitmap.clone(), bitmap);
    let name = ExportName::parse("disk").expect("it is a name");
    let spec = ExportSpec {
        name,
        description: "fuzzed".to_owned(),
        access: Access::ReadWrite,
        fence: Fence(1),
        device,
    };
    server.publish_with(spec, vec![context]).await.expect("nothing else is published");
    server
}
