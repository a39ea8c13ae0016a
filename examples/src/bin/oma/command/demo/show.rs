//! The steps of the demo, each told as it is done.

use std::path::Path;
use std::sync::Arc;

use oma_api::ReplicationReport;
use oma_core::engine::{CancellationToken, ReplicateConfig, ReplicateRequest, VerifyLevel};
use oma_core::traits::{Access, ExportSpec};
use oma_core::{ByteSize, ChangeId, DiskKey, Error, ErrorKind, ExportName, Fence, IdError, Result, VmPath};
use oma_nbd::{Client, ClientConfig, DirtyBitmap, Server, ServerConfig};
use oma_volume::device::FileDevice;

use super::disk;
use crate::appliance::Appliance;
use crate::serving::Serving;
use crate::{output, progress, report};
use oma_api::NamedDisk;
use oma_examples::data_dir::DataDir;
use oma_examples::signals::Signals;
use oma_examples::source;
use oma_examples::source::Source;

pub(super) const VM: &str = "/demo/vm/disk";
pub(super) const SOURCE: &str = "source.raw";
pub(super) const DATA_DIR: &str = "oma-data";

/// The bitmap gathers changes since the change id of the same name.
const FIRST: &str = "demo-1";
const SECOND: &str = "demo-2";

/// What every step needs.
struct Stage<'a> {
    data: DataDir,
    uri: String,
    stop: &'a CancellationToken,
}

/// Answers the reports of the full copy and of the changes.
pub(super) async fn run(folder: &Path, size: ByteSize) -> Result<Vec<ReplicationReport>> {
    let signals = Signals::listen("stopping; the demo cleans up (once more: end at once)")?;
    let file = folder.join(SOURCE);
    let made = disk::make(&file, size).await?;
    output::note(format!(
        "made a disk of {size}: {} data, {} zeroes, {} holes",
        made.data, made.zeroes, made.holes
    ));
    let device = FileDevice::open(&file, Access::ReadWrite).await?;
    let bitmap = DirtyBitmap::new(FIRST, Arc::new(device));
    let server = Server::new(ServerConfig::default());
    let name = ExportName::parse("disk").map_err(unnamed)?;
    let spec = ExportSpec {
        name: name.clone(),
        description: "the disk of the demo".to_owned(),
        access: Access::ReadWrite,
        fence: Fence::FIRST,
        device: bitmap.clone(),
    };
    server.publish_with(spec, vec![bitmap]).await?;
    let serving = Serving::unix(&server, &folder.join("source.sock"), &name).await?;
    output::note(format!("serving it at {}", serving.uri()));
    let stage = Stage {
        data: DataDir::new(&folder.join(DATA_DIR))?,
        uri: serving.uri().to_string(),
        stop: signals.stop(),
    };
    let reports = stage.play().await;
    serving.stop().await;
    reports
}

impl Stage<'_> {
    async fn play(&self) -> Result<Vec<ReplicationReport>> {
        output::note("replicating all of it, then comparing every byte");
        let full = self.replicate(None, FIRST).await?;
        let client = Client::connect(&self.uri.parse()?, ClientConfig::default()).await?;
        let changed = disk::change(&client).await?;
        client.close().await;
        output::note(format!("changed {changed} of it through NBD, as a running VM would"));
        output::note("replicating what changed, then comparing every byte");
        let changes = self.replicate(Some(FIRST), SECOND).await?;
        let read: ByteSize = changes.disks.iter().map(|disk| disk.bytes_read).sum();
        if read > changed {
            let reason = format!("{read} were read though {changed} had changed");
            return Err(Error::new(ErrorKind::Internal, "replicate", "the changes").because(reason));
        }
        Ok(vec![full, changes])
    }

    async fn replicate(&self, bitmap: Option<&str>, change_id: &str) -> Result<ReplicationReport> {
        let disk = NamedDisk {
            key: DiskKey::parse("disk-2000").map_err(unnamed)?,
            source: self.uri.clone(),
            bitmap: bitmap.map(str::to_owned),
            change_id: Some(ChangeId::parse(change_id).map_err(unnamed)?),
        };
        let vm = VmPath::parse(VM).map_err(unnamed)?;
        let request = ReplicateRequest { verify: VerifyLevel::Full, ..ReplicateRequest::new(vm) };
        let appliance = Appliance::open(&self.data, Source::Disks(source::open(&[disk])?)).await?;
        let progress = progress::for_stderr();
        let replicator = appliance.replicator(ReplicateConfig::default());
        let done = replicator.run(&request, &*progress, self.stop).await;
        drop(progress);
        appliance.close().await;
        let done = done?;
        let wire = report::replication(&request.vm, &done);
        report::error(done).map_or(Ok(wire), Err)
    }
}

/// A name in this file is none.
fn unnamed(error: IdError) -> Error {
    Error::new(ErrorKind::Internal, "name", "a part of the demo").with_source(error)
}
