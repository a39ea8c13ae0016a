//! A site with a running nbd-server, which has an export of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oma_core::memory::MemoryDevice;
use oma_core::traits::{Access, BlockDevice, ExportSpec};
use oma_core::{ByteSize, ExportName, Fence, Result};

use oma_nbd::nbd_server::{Locate, NbdServer, NbdServerConfig, Unsound};
use oma_nbd::{Client, Uri};

use crate::fixture::{Peer, config};

/// Size of every device.
pub(crate) const SIZE: ByteSize = ByteSize::mib(1);

/// What stands in the configuration behind `[generic]` before anything of ours does.
pub(crate) const THEIRS: &str = "allowlist = true\n# by hand\n";

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) peer: Peer,
}

/// A device is a file of its name in a folder.
#[derive(Debug)]
struct Files(PathBuf);

impl Locate for Files {
    fn locate(&self, device: &dyn BlockDevice) -> Result<PathBuf> {
        let path = self.0.join(&device.info().identity.0);
        if !path.exists() {
            let file = std::fs::File::create_new(&path).unwrap();
            file.set_len(device.info().capacity.bytes()).unwrap();
        }
        Ok(path)
    }
}

impl Site {
    pub(crate) async fn new() -> Self {
        let mut peer = Peer::new();
        let theirs = peer.path("theirs.raw");
        std::fs::File::create_new(&theirs).unwrap().set_len(SIZE.bytes()).unwrap();
        peer.start_nbd_server(
            THEIRS,
            &format!("[theirs]\n\texportname={}\nflush = true\n# end", theirs.display()),
        )
        .await;
        Self { peer }
    }

    pub(crate) fn config(&self) -> NbdServerConfig {
        config_at(&self.peer.path(""))
    }

    pub(crate) fn server(&self) -> NbdServer {
        self.server_with(self.config())
    }

    pub(crate) fn server_with(&self, config: NbdServerConfig) -> NbdServer {
        NbdServer::new(config, Arc::new(Files(self.peer.path(""))))
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.peer.path("config")).unwrap()
    }

    /// Files beside the configuration whose names begin like it, sorted.
    pub(crate) fn beside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.peer.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("config.")).collect();
        names.sort();
        names
    }

    /// The content of a device.
    pub(crate) fn bytes(&self, device: &str) -> Vec<u8> {
        std::fs::read(self.peer.path(device)).unwrap()
    }

    pub(crate) async fn connect(&self, export: &str) -> Result<Client> {
        Client::connect(&self.peer.uri(export), config()).await
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.peer.path("pid")
    }
}

/// `device` for writing under a name, with token 5.
pub(crate) fn spec(export: &str, device: &str) -> ExportSpec {
    ExportSpec {
        name: name(export),
        description: "a disk of ours".to_owned(),
        access: Access::ReadWrite,
        fence: Fence(5),
        device: Arc::new(MemoryDevice::new(device, SIZE)),
    }
}

pub(crate) fn name(text: &str) -> ExportName {
    ExportName::parse(text).unwrap()
}

/// The server of the site in a folder.
pub(crate) fn server_at(folder: &Path) -> NbdServer {
    NbdServer::new(config_at(folder), Arc::new(Files(folder.to_owned())))
}

fn config_at(folder: &Path) -> NbdServerConfig {
    let uri = Uri::unix(folder.join("socket"), "ignored").unwrap();
    let [file, pid, links] = ["config", "pid", "links"].map(|name| folder.join(name));
    let config = NbdServerConfig::new(file, pid, links, uri);
    // The server of Debian 12 takes three new names in a row: no test gives it more.
    NbdServerConfig { settle: Duration::from_secs(20), unsound: Unsound::Risk, ..config }
}
