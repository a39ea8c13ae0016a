//! Replications that run all the time.

use std::io::{self, Error};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::clients::Target;
use crate::daemon::Daemon;

const SIZE: usize = 64 << 20;

/// VMs whose next replication begins when the one before has ended.
#[derive(Debug)]
pub(crate) struct Jobs {
    stop: Arc<AtomicBool>,
    completed: Arc<AtomicU32>,
    driving: JoinSet<io::Result<()>>,
}

impl Jobs {
    /// Begins, and waits until each VM has an epoch.
    pub(crate) async fn start(daemon: &Daemon, folder: &Path, vms: u32) -> io::Result<Self> {
        let (stop, completed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let mut driving = JoinSet::new();
        for vm in 0..vms {
            let image = folder.join("images").join(format!("vm-{vm}.raw"));
            std::fs::write(&image, vec![u8::try_from(vm % 251).unwrap_or(1) | 1; SIZE])?;
            let (target, stop, completed) = (daemon.target(), stop.clone(), completed.clone());
            driving.spawn(async move {
                let image = image.to_string_lossy().into_owned();
                for epoch in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    replicate(&target, vm, &image, epoch).await.map_err(Error::other)?;
                    completed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        while completed.load(Ordering::Relaxed) < vms {
            if let Some(ended) = driving.try_join_next() {
                ended.map_err(Error::other)??;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { stop, completed, driving })
    }

    /// Ends; how many were completed.
    pub(crate) async fn stop(mut self) -> io::Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.driving.join_next().await {
            ended.map_err(Error::other)??;
        }
        Ok(self.completed.load(Ordering::Relaxed))
    }
}

async fn replicate(
    target: &Target,
    vm: u32,
    image: &str,
    epoch: u32,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = Target::client()?;
    let key = format!("bench-{vm}-{epoch}");
    let job = target.replicate(&client, &format!("vm-{vm}"), image, &key).await?;
    let path = format!("/replications/{}", job["job_id"].as_str().unwrap_or_default());
    loop {
        let row = target.get(&client, &path).await?;
        match row["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") | None => return Err(format!("it was not replicated: {row}").into()),
            Some(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
