//! Which disk of this machine is a volume, proven and not guessed (L05).
//!
//! ```text
//!  volume's UUID ── first 20 digits ─▶ Serial
//!  /sys/block/*/serial             virtio-blk  ┐
//!  /sys/block/*/device/vpd_pg80    SCSI, ATA   ├─▶ one disk bears it ─▶ FoundDevice ─▶ checked ─▶ opened ─▶ looked at again
//!  /dev/disk/by-id/PREFIX-SERIAL   udev        ┘   two: a conflict
//! ```
//!
//! The kernel is asked before links are: links are made late and left behind. A disk passes when its size is the volume's to the byte,
//! and it is not what this machine runs from, not mounted, no swap, no part of another device, and writable. All that is told by
//! device numbers, partitions included; names of disks are nobody's property, and a cloud's word about them is a wish.
//!
//! The root of the tree is a parameter. In one that is not `/` regular files may stand for device nodes, so that tests build one:
//!
//! ```text
//!  ROOT/sys/block/vdb/dev          254:16
//!  ROOT/sys/block/vdb/size         2097152         sectors of 512 bytes
//!  ROOT/sys/block/vdb/serial       384000008cf011bdb24e
//!  ROOT/dev/vdb                    a file of 1 GiB
//!  ROOT/proc/self/mountinfo        may be empty
//! ```

mod asked;
mod disks;
mod error;
mod found;
mod serial;
mod usage;
mod watch;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oma_core::traits::{Access, BlockDevice};
use oma_core::{ByteSize, Result};
use tokio::time::{Instant, timeout_at};

use crate::device::{FileDevice, blocking};
use asked::Serials;
use disks::{Disk, Disks};
use error::DiscoveryError;
use found::Node;
pub use found::{Bus, FoundDevice, PathDifference};
pub use serial::Serial;
use usage::Usage;
use watch::Watch;

/// So long a look at the disks may take at least. It takes milliseconds, and with a disk that hangs [`asked::ANSWER`].
const LOOK: Duration = Duration::from_secs(10);

/// The devices of a machine, as the folders `sys`, `dev` and `proc` below a root tell of them.
///
/// Its calls need a runtime with its clock. A disk that does not tell its serial within five seconds is in nobody's way but of who
/// looks for a disk that it may be; its thread stays until it answers. A look that does not end within ten seconds for another
/// reason, or within the time of who waits if that is longer, is given up as `Unavailable`. Clones know of each other what hangs.
#[derive(Clone, Debug)]
pub struct DeviceTree {
    root: PathBuf,
    rescans: bool,
    serials: Serials,
}

impl DeviceTree {
    /// The tree at this root; `/` is the machine itself.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), rescans: false, serials: Serials::default() }
    }

    /// The same tree, where [`DeviceTree::appears`] tells SCSI hosts to look for new disks, and disks of another size than expected
    /// to look at theirs again. virtio-scsi tells both by itself; hosts that do not need it. It takes the right to write to sysfs.
    #[must_use]
    pub fn with_rescan(self) -> Self {
        Self { rescans: true, ..self }
    }

    /// The disk with this serial; `None` when it is known that there is none (L21).
    ///
    /// # Errors
    /// `Conflict`, naming both, when two bear it; `Unavailable` when the kernel cannot be asked.
    pub async fn find(&self, serial: &Serial) -> Result<Option<FoundDevice>> {
        let wanted = serial.clone();
        self.run("find device", serial, move |tree, disks| tree.look(disks, &wanted)).await
    }

    /// Waits until there is a disk with this serial and this size, and it passes every check. It waits for what the kernel and udev
    /// tell, without polling; it needs a runtime with its I/O driver and its clock.
    ///
    /// A size that is not the volume's, or a node that is missing, may be early news: it is waited on. Everything else is told at once.
    ///
    /// # Errors
    /// Those of [`DeviceTree::check`] and [`DeviceTree::find`]; `Unavailable`, with what was seen, when the time is over.
    pub async fn appears(
        &self,
        serial: &Serial,
        capacity: ByteSize,
        within: Duration,
    ) -> Result<FoundDevice> {
        let operation = "wait for device";
        let (watch, until) = (self.watch(operation, serial)?, Instant::now() + within);
        if self.rescans {
            self.run_until(until, operation, serial, |tree, _| tree.rescan_hosts()).await?;
        }
        let mut was_rescanned = false;
        loop {
            watch.arm().map_err(|error| DiscoveryError::Watch(error).about(operation, serial))?;
            let early = match self.settled(until, operation, serial, capacity).await? {
                Ok(found) => return Ok(found),
                Err(early) => early,
            };
            if let (DiscoveryError::Size { .. }, true, false) = (&early, self.rescans, was_rescanned) {
                was_rescanned = true;
                let wanted = serial.clone();
                let rescan = move |tree: &Self, disks: &Disks| tree.rescan(disks, &wanted);
                self.run_until(until, operation, serial, rescan).await?;
            }
            match timeout_at(until, watch.changed()).await {
                Ok(heard) => heard.map_err(|error| DiscoveryError::Watch(error).about(operation, serial))?,
                Err(_) => return Err(early.expired(within).about(operation, serial)),
            }
        }
    }

    /// Waits until no disk bears this serial.
    ///
    /// # Errors
    /// `Unavailable` when one still does at the end, or the kernel cannot be asked.
    pub async fn vanishes(&self, serial: &Serial, within: Duration) -> Result<()> {
        let operation = "wait for the end of device";
        let (watch, until) = (self.watch(operation, serial)?, Instant::now() + within);
        loop {
            watch.arm().map_err(|error| DiscoveryError::Watch(error).about(operation, serial))?;
            let wanted = serial.clone();
            let left = self.run_until(until, operation, serial, move |tree, disks| {
                Ok(tree.left(disks, &wanted, within))
            });
            let Some(left) = left.await? else { return Ok(()) };
            match timeout_at(until, watch.changed()).await {
                Ok(heard) => heard.map_err(|error| DiscoveryError::Watch(error).about(operation, serial))?,
                Err(_) => return Err(left.about(operation, serial)),
            }
        }
    }

    /// Looks again whether a disk that was found is still that disk, has exactly `capacity` bytes (that is what the cloud says the
    /// volume has: a larger disk is not that volume, or not as it is recorded), and may be written.
    ///
    /// # Errors
    /// `Conflict` when the disk is another one by now, is gone, or has another size or number; `Busy` when it is mounted, swapped to
    /// or part of another device; `PermissionDenied` when this machine runs from it or it is read-only.
    pub async fn check(&self, found: &FoundDevice, capacity: ByteSize) -> Result<()> {
        let wanted = found.clone();
        let check = move |tree: &Self, disks: &Disks| tree.prove(disks, &wanted, capacity, Access::ReadWrite);
        self.run("check device", &found.path.display(), check).await
    }

    /// Opens a disk that was found, checked before and, once it is open, again. Of what was swapped in between nothing is read or
    /// written. For writing the kernel gives it to nobody else who wants it alone, to `mount` for one.
    ///
    /// # Errors
    /// Those of [`DeviceTree::check`], but a read-only disk may be read; those of [`FileDevice::open`].
    pub async fn open(&self, found: &FoundDevice, capacity: ByteSize, access: Access) -> Result<FileDevice> {
        let (operation, path) = ("open device", found.path.display());
        let wanted = found.clone();
        let open = move |tree: &Self, disks: &Disks| tree.open_now(disks, &wanted, capacity, access);
        let device = self.run(operation, &path, open).await?;
        let wanted = found.clone();
        let prove = move |tree: &Self, disks: &Disks| {
            tree.prove_open(disks, &device, &wanted, capacity).map(|()| device)
        };
        self.run(operation, &path, prove).await
    }

    fn watch(&self, operation: &'static str, serial: &Serial) -> Result<Watch> {
        Watch::new(&self.root).map_err(|error| DiscoveryError::Watch(error).about(operation, serial))
    }

    /// The disk, once it is as it shall be, or why it is not yet.
    async fn settled(
        &self,
        until: Instant,
        operation: &'static str,
        serial: &Serial,
        capacity: ByteSize,
    ) -> Result<Result<FoundDevice, DiscoveryError>> {
        let wanted = serial.clone();
        self.run_until(until, operation, serial, move |tree, disks| {
            match tree.appeared(disks, &wanted, capacity) {
                Err(error) if error.is_early() => Ok(Err(error)),
                settled => settled.map(Ok),
            }
        })
        .await
    }

    async fn run<T, F>(
        &self,
        operation: &'static str,
        resource: &(impl fmt::Display + Sync),
        call: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self, &Disks) -> Result<T, DiscoveryError> + Send + 'static,
    {
        self.run_until(Instant::now(), operation, resource, call).await
    }

    /// A blocking call with the disks as they are now, given up at this time, but not before [`LOOK`] is over.
    async fn run_until<T, F>(
        &self,
        until: Instant,
        operation: &'static str,
        resource: &(impl fmt::Display + Sync),
        call: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self, &Disks) -> Result<T, DiscoveryError> + Send + 'static,
    {
        let start = Instant::now();
        let until = until.max(start + LOOK);
        let answer = async {
            let disks = self.disks().await?;
            self.block(move |tree| call(tree, &disks)).await
        };
        let late = |_| Err(DiscoveryError::Silent { after: until - start });
        timeout_at(until, answer).await.unwrap_or_else(late).map_err(|error| error.about(operation, resource))
    }

    /// All disks with their serials.
    async fn disks(&self) -> Result<Disks, DiscoveryError> {
        let mut disks = self.block(|tree| Disks::look(&tree.root)).await?;
        self.serials.ask(&self.root, &mut disks).await;
        Ok(disks)
    }

    async fn block<T, F>(&self, call: F) -> Result<T, DiscoveryError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, DiscoveryError> + Send + 'static,
    {
        let tree = self.clone();
        blocking(move || call(&tree)).await.map_err(DiscoveryError::Shutdown)?
    }
}

/// Blocking calls.
impl DeviceTree {
    fn look(&self, disks: &Disks, serial: &Serial) -> Result<Option<FoundDevice>, DiscoveryError> {
        match self.one(disks, serial)? {
            Some(disk) => self.found(disk, serial).map(Some),
            None => Ok(None),
        }
    }

    /// The one disk with this serial. One that does not tell its own may be the one; one that told this serial before it began to
    /// hang is a second one, whose writes may come any time.
    fn one<'a>(&self, disks: &'a Disks, serial: &Serial) -> Result<Option<&'a Disk>, DiscoveryError> {
        let two = |first: &Disk, second: &Disk| DiscoveryError::Two(first.path.clone(), second.path.clone());
        match disks.bearing(&self.root, serial)[..] {
            [disk] => match disks.iter().find(|other| other.bore(serial)) {
                Some(hung) => Err(two(hung, disk)),
                None => Ok(Some(disk)),
            },
            [first, second, ..] => Err(two(first, second)),
            [] => disks.iter().find_map(|disk| unreadable(disk, serial)).map_or(Ok(None), Err),
        }
    }

    fn found(&self, disk: &Disk, serial: &Serial) -> Result<FoundDevice, DiscoveryError> {
        Ok(FoundDevice {
            path: disk.path.clone(),
            name: disk.name.clone(),
            size: disk.size,
            serial: serial.clone(),
            bus: disk.bus,
            node: self.node(disk)?,
            sequence: disk.sequence,
        })
    }

    /// The node of a disk, which must be that disk's and no other's.
    fn node(&self, disk: &Disk) -> Result<Node, DiscoveryError> {
        let path = disk.path.clone();
        let about = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DiscoveryError::NoNode(path));
            }
            about => about.map_err(|source| DiscoveryError::File { path: path.clone(), source })?,
        };
        match Node::of(&about) {
            Some(Node::Block(node)) if node != disk.number => {
                Err(DiscoveryError::OtherNumber { path, node, disk: disk.number })
            }
            Some(Node::File { .. }) | None if self.root == Path::new("/") => {
                Err(DiscoveryError::NotADevice(path))
            }
            Some(node) => Ok(node),
            None => Err(DiscoveryError::NotADevice(path)),
        }
    }

    fn appeared(
        &self,
        disks: &Disks,
        serial: &Serial,
        capacity: ByteSize,
    ) -> Result<FoundDevice, DiscoveryError> {
        let Some(disk) = self.one(disks, serial)? else {
            return Err(DiscoveryError::NotSeen { within: Duration::ZERO, seen: disks.seen() });
        };
        let found = self.found(disk, serial)?;
        self.refuse(disks, disk, capacity, Access::ReadWrite)?;
        Ok(found)
    }

    /// What bears the serial still, or may.
    fn left(&self, disks: &Disks, serial: &Serial, within: Duration) -> Option<DiscoveryError> {
        match disks.bearing(&self.root, serial).first() {
            Some(disk) => Some(DiscoveryError::StillThere { path: disk.path.clone(), within }),
            None => disks.iter().find_map(|disk| unreadable(disk, serial)),
        }
    }

    /// Everything that keeps a disk from being used as a volume of this size.
    fn refuse(
        &self,
        disks: &Disks,
        disk: &Disk,
        wanted: ByteSize,
        access: Access,
    ) -> Result<(), DiscoveryError> {
        Usage::look(&self.root)?.refuse(disks, disk)?;
        if disk.is_read_only && access == Access::ReadWrite {
            return Err(DiscoveryError::ReadOnly(disk.path.clone()));
        }
        if disk.size != wanted {
            return Err(DiscoveryError::Size { path: disk.path.clone(), size: disk.size, wanted });
        }
        Ok(())
    }

    fn prove(
        &self,
        disks: &Disks,
        was: &FoundDevice,
        capacity: ByteSize,
        access: Access,
    ) -> Result<(), DiscoveryError> {
        let disk = self.one(disks, &was.serial)?.ok_or(DiscoveryError::Gone)?;
        same(was, &self.found(disk, &was.serial)?)?;
        self.refuse(disks, disk, capacity, access)
    }

    fn open_now(
        &self,
        disks: &Disks,
        was: &FoundDevice,
        capacity: ByteSize,
        access: Access,
    ) -> Result<FileDevice, DiscoveryError> {
        self.prove(disks, was, capacity, access)?;
        FileDevice::open_now(was.path.clone(), access)
            .map_err(|source| DiscoveryError::Open { path: was.path.clone(), source })
    }

    /// Whether what was opened is what was found: its name may have come to lead elsewhere while it was opened.
    fn prove_open(
        &self,
        disks: &Disks,
        device: &FileDevice,
        was: &FoundDevice,
        wanted: ByteSize,
    ) -> Result<(), DiscoveryError> {
        let path = was.path.clone();
        let about = device.file().metadata();
        let about =
            about.map_err(|error| DiscoveryError::Open { path: path.clone(), source: error.into() })?;
        match Node::of(&about) {
            Some(node) if node == was.node => {}
            node => {
                let is = node.map_or("no disk".to_owned(), |node| node.to_string());
                return Err(DiscoveryError::Changed { was: was.node.to_string(), is });
            }
        }
        self.prove(disks, was, wanted, device.info().access)?;
        let size = device.info().capacity;
        if size == wanted { Ok(()) } else { Err(DiscoveryError::Size { path, size, wanted }) }
    }

    /// `- - -`: every channel, target and unit. Hosts that cannot be told are left alone.
    fn rescan_hosts(&self) -> Result<(), DiscoveryError> {
        let hosts = fs::read_dir(self.root.join("sys/class/scsi_host")).into_iter().flatten().flatten();
        for path in hosts.map(|host| host.path().join("scan")) {
            tell(&path, "- - -");
        }
        Ok(())
    }

    /// Lets a SCSI disk look at its size again.
    fn rescan(&self, disks: &Disks, serial: &Serial) -> Result<(), DiscoveryError> {
        if let Some(disk) = self.one(disks, serial)?.filter(|disk| disk.bus == Bus::Scsi) {
            tell(&self.root.join("sys/block").join(&disk.name).join("device/rescan"), "1");
        }
        Ok(())
    }
}

fn tell(path: &Path, word: &str) {
    let told = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(word.as_bytes()));
    if let Err(error) = told {
        tracing::debug!(path = %path.display(), %error, "it could not be told to look again");
    }
}

/// A disk that may bear the serial and does not tell.
fn unreadable(disk: &Disk, serial: &Serial) -> Option<DiscoveryError> {
    let error = disk.serial.as_ref().err().filter(|_| disk.may_bear(serial))?;
    let source = io::Error::new(error.kind(), error.to_string());
    Some(DiscoveryError::Unreadable { path: disk.path.clone(), source })
}

/// Whether what is found now is the disk that was found before: not the next one under its name or its number.
fn same(was: &FoundDevice, is: &FoundDevice) -> Result<(), DiscoveryError> {
    if (&was.name, was.node, was.sequence) == (&is.name, is.node, is.sequence) {
        return Ok(());
    }
    let text = |found: &FoundDevice| {
        let count = found.sequence.map_or(String::new(), |count| format!(", disk {count} of this start"));
        format!("{}{count}", found.path.display())
    };
    Err(DiscoveryError::Changed { was: text(was), is: text(is) })
}

#[cfg(test)]
mod tests;
