use std::sync::Arc;

use oma_core::traits::{Access, ExportSpec};
use oma_core::{Fence, Result};
use oma_nbd::{Clients, ExportOptions, Server, ServerConfig, TlsFiles, TlsPolicy, TlsServer, Uri, UriTls};
use oma_volume::device::FileDevice;

use super::Context;
use crate::args::ServeArgs;
use crate::serving::Serving;
use oma_examples::output;
use oma_examples::signals::{HangUps, Signals};

const STOPPING: &str = "stopping; requests in flight are answered (once more: end at once)";

/// Exports a file until a signal.
pub(super) async fn run(context: &Context, args: &ServeArgs) -> Result<()> {
    let signals = match args.tls_certificates {
        Some(_) => Signals::listen_but_for_hang_ups(STOPPING)?,
        None => Signals::listen(STOPPING)?,
    };
    let access = if args.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let device = FileDevice::open(&args.file, access).await?.with_uring();
    let server =
        Server::new(ServerConfig { default_export: Some(args.name.clone()), ..ServerConfig::default() });
    let spec = ExportSpec {
        name: args.name.clone(),
        description: args.file.display().to_string(),
        access,
        fence: Fence::FIRST,
        device: Arc::new(device),
    };
    let anybody = args.clients.is_empty();
    let clients = if anybody { Clients::Anybody } else { Clients::named(args.clients.iter().cloned()) };
    server.publish_to(spec, ExportOptions { clients, ..ExportOptions::default() }).await?;
    let tls = tls(args).await?;
    let _hang_ups = tls.clone().map(|tls| HangUps::listen(move || reload(tls.clone()))).transpose()?;
    let server = tls.clone().map_or(server.clone(), |tls| server.with_tls(TlsPolicy::Required(tls)));
    let serving = match &args.socket {
        Some(socket) => Serving::unix(&server, socket, &args.name).await?,
        None => Serving::tcp(&server, args.listen, &args.name).await?,
    };
    let uri = match tls {
        // Which directory clients have is not known here.
        Some(_) => Uri::clone(serving.uri()).with_tls(UriTls::default())?,
        None => serving.uri().clone(),
    };
    if context.json {
        output::json(&serde_json::json!({ "uri": uri.to_string() }))?;
    } else {
        output::line(uri)?;
    }
    signals.stop().cancelled().await;
    serving.stop().await;
    Ok(())
}

async fn tls(args: &ServeArgs) -> Result<Option<TlsServer>> {
    let Some(directory) = &args.tls_certificates else { return Ok(None) };
    let files = match args.tls_verify_clients || args.clients.iter().any(|name| !name.is_user()) {
        true => TlsFiles::mutual_in_directory(directory),
        false => TlsFiles::in_directory(directory),
    };
    Ok(Some(TlsServer::open(files).await?))
}

async fn reload(tls: TlsServer) {
    match tls.reload().await {
        Ok(()) => output::note("the certificates were read again"),
        Err(error) => output::note(format!("{}; those from before stay in use", error.chain())),
    }
}
