use std::sync::Arc;

use oma_core::traits::{Access, ExportServer, ExportSpec};
use oma_core::{Fence, Result};
use oma_nbd::{Server, ServerConfig};
use oma_volume::device::FileDevice;

use super::Context;
use crate::args::ServeArgs;
use crate::output;
use crate::serving::Serving;
use crate::signals::Signals;

/// Exports a file until a signal.
pub(super) async fn run(context: &Context, args: &ServeArgs) -> Result<()> {
    let signals = Signals::listen("stopping; requests in flight are answered (once more: end at once)")?;
    let access = if args.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let device = FileDevice::open(&args.file, access).await?;
    let server =
        Server::new(ServerConfig { default_export: Some(args.name.clone()), ..ServerConfig::default() });
    let spec = ExportSpec {
        name: args.name.clone(),
        description: args.file.display().to_string(),
        access,
        fence: Fence::FIRST,
        device: Arc::new(device),
    };
    server.publish(spec).await?;
    let serving = match &args.socket {
        Some(socket) => Serving::unix(&server, socket, &args.name).await?,
        None => Serving::tcp(&server, args.listen, &args.name).await?,
    };
    if context.json {
        output::json(&serde_json::json!({ "uri": serving.uri().to_string() }))?;
    } else {
        output::line(serving.uri())?;
    }
    signals.stop().cancelled().await;
    serving.stop().await;
    Ok(())
}
