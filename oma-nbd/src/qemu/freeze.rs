//! Freezes all disks of the machine at one point in time.
//!
//! ```text
//!  1  a file and a gate for each disk              the guest goes on, nothing is copied
//!  2  new bitmaps, one transaction                 what changes from here on stands in them
//!  3  filters above the disks, unused
//!  4  all gates onto their filters, one command    the point in time: all disks are drained for it
//!  5  old bitmaps end, one transaction             so what changed up to 4 stands in them, too
//!  6  views of the disks as they were, exported
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use oma_core::traits::{PointDisk, PointInTime};
use oma_core::{ByteSize, Clock as _, DiskKey, JobId, PointId, SystemClock};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::agent::Frozen;
use super::bitmaps::{Link, Moment, Next, links, next};
use super::error::Failure;
use super::machine::{Disk, Machine};
use super::names::{self, Role, Tag, gate, job_tag};
use super::release::{raw, recover, remove, unlink};
use super::session::Session;
use crate::client::Client;

#[derive(Deserialize)]
struct Job {
    id: String,
    status: String,
    error: Option<String>,
}

/// One disk on its way.
#[derive(Debug)]
struct Draft {
    key: DiskKey,
    tag: Tag,
    gate: String,
    disk: Disk,
    /// What the gate stands on before the point in time.
    below: String,
    next: Next,
}

/// Answers the job's point in time, or makes it. What fails is taken back; what is interrupted is taken back by the next one.
pub(super) async fn freeze(session: &mut Session<'_>, job: &JobId) -> Result<PointInTime, Failure> {
    let machine = Machine::look(&mut session.qmp).await?;
    if machine.disks.is_empty() {
        return Err(Failure::NoDisks);
    }
    if let Some(point) = existing(&machine, job) {
        return Ok(point);
    }
    recover(session, &machine, job).await?;
    let machine = Machine::look(&mut session.qmp).await?;
    let drafts = draft(session, &machine, job);
    if let Err(failure) = build(session, job, &drafts).await {
        // What is left tells the next one to thaw the guest first.
        if !matches!(failure, Failure::NotThawed(_)) {
            undo(session, job, &drafts).await;
        }
        return Err(failure);
    }
    for draft in &drafts {
        for name in &draft.next.lost {
            tracing::warn!(disk = %draft.key, bitmap = name, "the chain of bitmaps is lost; a new one begins");
            session
                .forget("block-dirty-bitmap-remove", json!({ "node": draft.disk.node, "name": name }))
                .await;
        }
    }
    let disks = drafts.iter().map(|draft| describe(&draft.key, &draft.next.link)).collect();
    Ok(PointInTime { id: names::point(job), disks })
}

/// The point in time that the job has, when it is whole.
fn existing(machine: &Machine, job: &JobId) -> Option<PointInTime> {
    let tags = machine.tags().remove(&job_tag(job))?;
    if !machine.is_complete(&tags) {
        return None;
    }
    let mut found = BTreeSet::new();
    let mut disks = Vec::new();
    for (key, disk) in &machine.disks {
        let tag = Tag::new(job, key);
        if tags.contains(&tag) {
            disks.push(describe(key, &link_of(disk, job)?));
            found.insert(tag);
        }
    }
    (found == tags).then(|| PointInTime { id: names::point(job), disks })
}

/// The link that a job made on a disk.
pub(super) fn link_of(disk: &Disk, job: &JobId) -> Option<Link> {
    links(&disk.bitmaps).into_iter().map(|known| known.link).rfind(|link| link.job == *job)
}

fn describe(key: &DiskKey, link: &Link) -> PointDisk {
    let content = format!("qemu {}/{}", link.chain.simple(), link.sequence);
    PointDisk {
        key: key.clone(),
        capacity: ByteSize::new(link.capacity),
        change_id: link.change_id(),
        content: PointId::parse(content).expect("a UUID and a number are a point id"),
    }
}

fn draft(session: &Session<'_>, machine: &Machine, job: &JobId) -> Vec<Draft> {
    let now = u64::try_from(SystemClock.now().as_millis()).unwrap_or(0);
    let owner = &session.owner();
    let one = |(key, disk): (&DiskKey, &Disk)| {
        let gate = gate(key);
        let moment = Moment { owner, job, capacity: disk.capacity, now, fresh: Uuid::new_v4() };
        Draft {
            key: key.clone(),
            tag: Tag::new(job, key),
            below: machine.below(&gate).unwrap_or(&disk.base).to_owned(),
            next: next(&disk.bitmaps, &moment),
            disk: disk.clone(),
            gate,
        }
    };
    machine.disks.iter().map(one).collect()
}

async fn build(session: &mut Session<'_>, job: &JobId, drafts: &[Draft]) -> Result<(), Failure> {
    for draft in drafts {
        scratch(session, draft).await?;
        if draft.disk.top != draft.gate {
            session.qmp.tell("blockdev-add", raw(&draft.gate, &draft.disk.top)).await?;
            let path = &draft.disk.device;
            let arguments = json!({ "path": path, "property": "drive", "value": draft.gate });
            session.qmp.tell("qom-set", arguments).await?;
        }
    }
    session.transaction(drafts.iter().map(add_bitmap).collect()).await?;
    for draft in drafts {
        add_filter(session, draft).await?;
    }
    switch(session, drafts).await?;
    session.transaction(drafts.iter().flat_map(end_bitmaps).collect()).await?;
    start_server(session).await?;
    for draft in drafts {
        export(session, job, draft).await?;
    }
    Ok(())
}

/// Makes the file that takes what the guest overwrites, as long as the disk but sparse. QEMU makes and opens it, so that it has
/// the rights; then its name goes, so that nothing stays when QEMU ends.
async fn scratch(session: &mut Session<'_>, draft: &Draft) -> Result<(), Failure> {
    let (id, node) = (draft.tag.id(), draft.tag.node(Role::Scratch));
    let path = session.scratch(&id);
    unlink(&path);
    let size = draft.disk.capacity;
    let options = json!({ "driver": "file", "filename": path, "size": size });
    session.qmp.tell("blockdev-create", json!({ "job-id": id, "options": options })).await?;
    let ended = concluded(session, &id).await;
    session.forget("job-dismiss", json!({ "id": id })).await;
    let added = match ended {
        Ok(()) => {
            let options =
                json!({ "driver": "file", "node-name": node, "filename": path, "discard": "unmap" });
            session.qmp.tell("blockdev-add", options).await
        }
        Err(failure) => Err(failure),
    };
    unlink(&path);
    added
}

async fn concluded(session: &mut Session<'_>, id: &str) -> Result<(), Failure> {
    let limit = session.config.command_timeout;
    let end = Instant::now() + limit;
    loop {
        let jobs: Vec<Job> = session.qmp.ask("query-jobs", json!({})).await?;
        let job = jobs.into_iter().find(|job| job.id == id);
        match job {
            Some(Job { status, error, .. }) if status == "concluded" => {
                let refused = |text| Failure::Refused {
                    command: "blockdev-create",
                    class: "GenericError".to_owned(),
                    text,
                };
                return error.map_or(Ok(()), |text| Err(refused(text)));
            }
            _ if Instant::now() >= end => return Err(Failure::Timeout { what: "blockdev-create", limit }),
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
}

fn add_bitmap(draft: &Draft) -> Value {
    let data = json!({
        "node": draft.disk.node,
        "name": draft.next.link.name(),
        "persistent": draft.disk.stores_bitmaps && !draft.next.link.is_look(),
    });
    json!({ "type": "block-dirty-bitmap-add", "data": data })
}

fn end_bitmaps(draft: &Draft) -> Vec<Value> {
    let end = |name: &String| {
        let data = json!({ "node": draft.disk.node, "name": name });
        json!({ "type": "block-dirty-bitmap-disable", "data": data })
    };
    draft.next.relieved.iter().map(end).collect()
}

async fn add_filter(session: &mut Session<'_>, draft: &Draft) -> Result<(), Failure> {
    let base = draft.tag.node(Role::Base);
    session.qmp.tell("blockdev-add", raw(&base, &draft.below)).await?;
    let options = json!({
        "driver": "copy-before-write",
        "node-name": draft.tag.node(Role::Filter),
        "file": base,
        "target": draft.tag.node(Role::Scratch),
        // The guest goes before: when its data cannot be copied in time, the point in time is lost, not its write.
        "on-cbw-error": "break-snapshot",
        "cbw-timeout": whole_seconds(session.config.copy_timeout),
        "discard": "unmap",
    });
    session.qmp.tell("blockdev-add", options).await
}

/// At least one: none would be no limit to QEMU, and a write of the guest could wait for ever.
fn whole_seconds(limit: Duration) -> u32 {
    u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// The point in time, with the guest's file systems frozen around it when there is an agent.
async fn switch(session: &mut Session<'_>, drafts: &[Draft]) -> Result<(), Failure> {
    let onto = |draft: &Draft| raw(&draft.gate, &draft.tag.node(Role::Filter));
    let options: Vec<_> = drafts.iter().map(onto).collect();
    let frozen = match &session.config.guest_agent {
        Some(socket) if session.is_running().await? => {
            Some(Frozen::begin(socket, session.config.agent_timeout).await?)
        }
        _ => None,
    };
    let switched = session.qmp.tell("blockdev-reopen", json!({ "options": options })).await;
    let thawed = match frozen {
        Some(frozen) => frozen.end().await,
        None => Ok(()),
    };
    // A guest that stays frozen is the worse news.
    thawed.and(switched)
}

/// Starts the machine's NBD server; one that runs is used, and [`export`] sees whether it is the right one.
async fn start_server(session: &mut Session<'_>) -> Result<(), Failure> {
    if session.config.nbd_server.is_some() {
        return Ok(());
    }
    let address = json!({ "type": "unix", "data": { "path": session.nbd_socket() } });
    match session.qmp.tell("nbd-server-start", json!({ "addr": address })).await {
        Err(Failure::Refused { text, .. }) if text.contains("already running") => Ok(()),
        started => started,
    }
}

async fn export(session: &mut Session<'_>, job: &JobId, draft: &Draft) -> Result<(), Failure> {
    let view = draft.tag.node(Role::View);
    let options = json!({
        "driver": "snapshot-access",
        "node-name": view,
        "file": draft.tag.node(Role::Filter),
    });
    session.qmp.tell("blockdev-add", options).await?;
    let name = names::export(job, &draft.key);
    let options = json!({
        "type": "nbd", "id": draft.tag.id(), "node-name": view, "name": name, "writable": false,
    });
    session.qmp.tell("block-export-add", options).await?;
    let uri = session.uri(&name)?;
    let opened = Client::connect(&uri, session.config.client.clone()).await;
    let client = opened.map_err(|error| Failure::OtherServer(uri.to_string(), error))?;
    let capacity = oma_core::traits::BlockDevice::info(&client).capacity;
    client.close().await;
    if capacity.bytes() == draft.next.link.capacity {
        return Ok(());
    }
    Err(Failure::Resized(draft.key.to_string()))
}

/// Takes back what a freeze that failed has made. Its bitmaps go only where those before them still record.
async fn undo(session: &mut Session<'_>, job: &JobId, drafts: &[Draft]) {
    if let Err(failure) = try_undo(session, job, drafts).await {
        tracing::warn!(%job, %failure, "a freeze that failed could not be taken back; the next one does");
    }
}

async fn try_undo(session: &mut Session<'_>, job: &JobId, drafts: &[Draft]) -> Result<(), Failure> {
    let machine = Machine::look(&mut session.qmp).await?;
    remove(session, &machine, job).await?;
    for draft in drafts {
        let Some(disk) = machine.disks.get(&draft.key) else { continue };
        let records = |name: &str| {
            disk.bitmaps.iter().any(|bitmap| bitmap.name.as_deref() == Some(name) && bitmap.recording)
        };
        let name = draft.next.link.name();
        if records(&name) && draft.next.relieved.iter().all(|name| records(name)) {
            session.forget("block-dirty-bitmap-remove", json!({ "node": disk.node, "name": name })).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_always_has_a_limit() {
        for (limit, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(999), 1),
            (Duration::from_millis(15_400), 15),
            (Duration::MAX, u32::MAX),
        ] {
            assert_eq!(whole_seconds(limit), seconds, "{limit:?}");
        }
    }
}
