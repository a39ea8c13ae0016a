//! Attached, open, resized, deleted: what the cloud says and what this machine sees must agree.

use oma_core::record::VolumeTag;
use oma_core::traits::{Access, Volume};
use oma_core::{ByteSize, ErrorKind, VolumeId};

use super::api::CloudVolume;
use super::error::CloudError;
use super::jobs::JobName;
use super::placed::{Placed, Thought};
use super::request::Request;
use super::tries::Tries;
use super::volumes::{Cloud, Result, serial, with_device};
use crate::device::FileDevice;
use crate::discovery::{Bus, FoundDevice, PathDifference};

const LETTERS: u64 = 26;

impl Cloud {
    /// By state: what is attached is not attached again, whoever did it. What another appliance of ours has is taken from it: who calls
    /// holds the lease that it had.
    pub(super) async fn attach(&self, id: &VolumeId, tag: &VolumeTag) -> Result<Volume> {
        let (mut tries, mut thought) = (Tries::new(self.jobs.pauses()), Thought::Away);
        let (mut is_over, mut told) = (false, None);
        self.prove_machine().await?;
        self.settle_detach(id).await?;
        loop {
            let placed = self.prove(id, tag, thought).await?;
            let volume = &placed.volume;
            if self.is_at_peer(volume) {
                self.take_from_peer(volume, &mut tries, &mut is_over).await?;
                thought = Thought::Away;
                continue;
            }
            if self.is_here_or_nowhere(volume)? {
                let device = self.appeared(&placed).await?;
                if let Some(wrong) = told.and_then(|number| difference(&device, number)) {
                    let (told, found) = (wrong.told.display(), wrong.found.display());
                    tracing::warn!(volume = %volume.id, %told, %found, "the cloud's number of the disk is another one");
                }
                return with_device(volume, Some(&device));
            }
            tries.begin()?;
            // A guest may have kept the disk of an earlier attach (a detach that came late): it would be taken for the new one.
            self.vanished(volume).await?;
            let request = Request::new("attachVolume")
                .with("id", &volume.id)
                .with("virtualmachineid", &self.config.appliance_vm_id);
            let outcome = self.jobs.run(request, JobName::Fresh).await;
            told = outcome.as_ref().ok().and_then(|result| result.pointer("/volume/deviceid")?.as_u64());
            tries.ended(outcome).await?;
            thought = Thought::Here;
        }
    }

    pub(super) async fn open(&self, id: &VolumeId, tag: &VolumeTag, access: Access) -> Result<FileDevice> {
        self.settle_detach(id).await?;
        let placed = self.prove(id, tag, Thought::Here).await?;
        if !self.is_here_or_nowhere(&placed.volume)? {
            return Err(CloudError::NotAttached);
        }
        let found = self.tree.find(&placed.serial()?).await?.ok_or(CloudError::NoDevice)?;
        Ok(self.tree.open(&found, placed.volume.capacity(), access).await?)
    }

    /// By whole GiB, and never less than it has.
    pub(super) async fn resize(&self, id: &VolumeId, tag: &VolumeTag, capacity: ByteSize) -> Result<Volume> {
        let mut tries = Tries::new(self.jobs.pauses());
        self.prove_machine().await?;
        loop {
            let placed = self.prove(id, tag, Thought::Here).await?;
            let volume = &placed.volume;
            if !self.config.new_space_reads_as_zero {
                return Err(CloudError::NoGrowth);
            }
            self.is_here_or_nowhere(volume)?;
            let nobody_else = self.closed(&placed).await?;
            if volume.capacity() >= capacity {
                drop(nobody_else);
                return self.shown(&placed).await;
            }
            tries.begin()?;
            let request = Request::on_proof("resizeVolume", &volume.id).with("size", &capacity.gib_ceiling());
            tries.ended(self.jobs.run(request, JobName::Fresh).await).await?;
        }
    }

    /// Detaches it first, where it is attached.
    pub(super) async fn delete(&self, id: &VolumeId, tag: &VolumeTag) -> Result<()> {
        let (mut tries, mut is_over) = (Tries::new(self.jobs.pauses()), false);
        self.prove_machine().await?;
        loop {
            let volume = match self.prove(id, tag, Thought::Away).await {
                Err(CloudError::Unknown) => return Ok(()),
                placed => placed?.volume,
            };
            if self.is_at_peer(&volume) {
                self.take_from_peer(&volume, &mut tries, &mut is_over).await?;
                continue;
            }
            if self.is_here_or_nowhere(&volume)? {
                self.detach(id, tag).await?;
                // Whose it is, and where, is asked again: detaching takes its time.
                continue;
            }
            // The cloud may have lost track of a disk that a guest still has.
            self.vanished(&volume).await?;
            tries.begin()?;
            let outcome = self.delete_row(&volume.id).await;
            if outcome.is_ok() {
                return Ok(());
            }
            tries.ended_or_lost(outcome).await?;
        }
    }

    /// `deleteVolume` has no job: its answer says whether it was done.
    pub(super) async fn delete_row(&self, volume: &str) -> Result<()> {
        let request = Request::on_proof("deleteVolume", volume);
        let answer = self.client.call(&request).await?;
        match answer.get("success").map(|success| success.to_string()).as_deref() {
            Some("false" | "\"false\"") => Err(CloudError::NotDone { command: "deleteVolume" }),
            _ => Ok(()),
        }
    }

    /// An attached volume with its disk, as large as the cloud says.
    async fn shown(&self, placed: &Placed) -> Result<Volume> {
        let volume = &placed.volume;
        let device = if self.is_here(volume) { Some(self.appeared(placed).await?) } else { None };
        with_device(volume, device.as_ref())
    }

    /// The disk of a volume that the cloud says is attached here, proven (L05).
    async fn appeared(&self, placed: &Placed) -> Result<FoundDevice> {
        let (volume, limit) = (&placed.volume, self.config.device_limit);
        match self.tree.appears(&placed.serial()?, volume.capacity(), limit).await {
            Ok(device) => Ok(device),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::debug!(volume = %volume.id, error = %error.chain(), "no disk appeared");
                Err(CloudError::NotSeen(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn vanished(&self, volume: &CloudVolume) -> Result<()> {
        let Err(error) = self.tree.vanishes(&serial(volume)?, self.config.device_limit).await else {
            return Ok(());
        };
        // It may be another one's.
        self.prove_alone(volume).await?;
        Err(CloudError::StillHere(error))
    }
}

/// Whether a disk has another name than its number in the cloud stands for: the cloud counts slots, the machine the disks that came.
fn difference(found: &FoundDevice, number: u64) -> Option<PathDifference> {
    let begin = if found.bus == Bus::Virtio { "vd" } else { "sd" };
    found.difference(&format!("/dev/{begin}{}", letters(number)))
}

/// `a` to `z`, then `aa`: as the kernel counts disks.
fn letters(number: u64) -> String {
    let letter = |number: u64| u8::try_from(number % LETTERS).map_or('?', |number| char::from(b'a' + number));
    let before = (number / LETTERS).checked_sub(1).map(letters);
    format!("{}{}", before.unwrap_or_default(), letter(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_as_the_kernel_names_disks() {
        let names = [(0, "a"), (25, "z"), (26, "aa"), (701, "zz"), (702, "aaa")];
        for (number, name) in names {
            assert_eq!(letters(number), name);
        }
    }
}
