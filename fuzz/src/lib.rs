//! A server that is spoken to over memory, and servers that lie.

pub mod dice;
pub mod liar;
pub mod session;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, ExportServer, ExportSpec};
use oma_core::{ByteSize, ExportName, Fence, Result};
use oma_nbd::{DirtyBitmap, MetaContext, Server, ServerConfig, TlsFiles, TlsPolicy, TlsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Lets a client that makes these choices use a server.
///
/// # Panics
/// When the server breaks the protocol, hangs, or keeps a connection that ended.
pub fn use_server(choices: &[u8]) {
    runtime().block_on(async {
        let config = ServerConfig {
            max_payload: session::PAYLOAD,
            advertised_payload: session::PAYLOAD,
            max_buffered: ByteSize::kib(256),
            ..ServerConfig::default()
        };
        let server = serve_with(config, ByteSize::new(session::SIZE)).await;
        let (near, far) = duplex(1 << 15);
        let session = session::Session::new(near, dice::Dice::new(choices));
        let both = async { tokio::join!(server.serve_stream(far, CancellationToken::new()), session.talk()) };
        // How the server saw it is its own business; that both came to an end is not.
        let _ = tokio::time::timeout(Duration::from_secs(10), both).await.expect("nobody hangs");
        let name = ExportName::parse("disk").expect("it is a name");
        let statistics = server.statistics(&name).await.expect("it is told").expect("it is served");
        assert_eq!(statistics.connections, 0);
    });
}

/// Says `bytes` to a server with the export `disk` (1 MiB, bitmap `b0`) and hangs up; all that it answered, and how the
/// connection ended.
#[must_use]
pub fn converse(bytes: &[u8]) -> (Vec<u8>, Result<()>) {
    runtime().block_on(say(bytes, serve()))
}

/// Lets a monitor of QEMU say `bytes` to a source that looks at its machine.
///
/// # Panics
/// When what the source makes of them breaks a promise.
pub fn look_at_machine(bytes: &[u8]) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(oma_nbd::qemu::fuzz_answers(bytes));
}

/// As [`converse`], with a server that demands TLS.
#[must_use]
pub fn converse_through_tls(bytes: &[u8]) -> (Vec<u8>, Result<()>) {
    runtime().block_on(say(bytes, async { serve().await.with_tls(TlsPolicy::Required(tls().await)) }))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime starts")
}

/// The server `localhost`, the same in all of a process.
async fn tls() -> TlsServer {
    static TLS: OnceLock<TlsServer> = OnceLock::new();
    if let Some(tls) = TLS.get() {
        return tls.clone();
    }
    let folder = tempfile::tempdir().expect("there is room for two small files");
    let key = rcgen::KeyPair::generate().expect("there is randomness");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("it is a name");
    let certificate = params.self_signed(&key).expect("the key can sign");
    let files = TlsFiles::in_directory(folder.path());
    std::fs::write(&files.certificate, certificate.pem()).expect("the folder can be written");
    std::fs::write(&files.key, key.serialize_pem()).expect("the folder can be written");
    let made = TlsServer::open(files).await.expect("the files are good");
    TLS.get_or_init(|| made).clone()
}

async fn say(bytes: &[u8], serve: impl Future<Output = Server>) -> (Vec<u8>, Result<()>) {
    let (near, far) = duplex(1 << 16);
    let (mut reader, mut writer) = split(near);
    let server = serve.await;
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
}

async fn serve() -> Server {
    serve_with(ServerConfig::default(), ByteSize::mib(1)).await
}

async fn serve_with(config: ServerConfig, size: ByteSize) -> Server {
    let server = Server::new(config);
    let bitmap = DirtyBitmap::new("b0", Arc::new(MemoryDevice::new("memory", size)));
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
