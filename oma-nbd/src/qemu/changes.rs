//! Reads what changed on a disk up to a point in time out of its chain of bitmaps.

use oma_core::traits::{BlockDevice as _, Changes};
use oma_core::{ChangeId, DiskKey, Extent, ExtentSet, JobId};
use serde_json::{Value, json};

use super::bitmaps::{Between, between, links};
use super::error::Failure;
use super::freeze::link_of;
use super::machine::{Disk, Machine};
use super::names::{self, Role, Tag, job_tag};
use super::release::unexport;
use super::session::Session;
use crate::client::{Client, ClientConfig};
use crate::protocol::QEMU_DIRTY_BITMAP;

/// The disk at a job's point in time, when it is exported.
pub(super) fn find<'m>(machine: &'m Machine, job: &JobId, key: &DiskKey) -> Result<&'m Disk, Failure> {
    let disk = machine.disks.get(key).ok_or(Failure::NotFound)?;
    let tags = machine.tags().remove(&job_tag(job)).unwrap_or_default();
    let there = machine.is_complete(&tags) && tags.contains(&Tag::new(job, key));
    if there { Ok(disk) } else { Err(Failure::NotFound) }
}

/// What changed since a change id.
pub(super) async fn changed(
    session: &mut Session<'_>,
    job: &JobId,
    key: &DiskKey,
    since: &ChangeId,
) -> Result<Changes, Failure> {
    let machine = Machine::look(&mut session.qmp).await?;
    let disk = find(&machine, job, key)?;
    let Some(point) = link_of(disk, job) else {
        return Ok(Changes::Unknown("the dirty bitmap of this point in time is missing".to_owned()));
    };
    let between = match between(&disk.bitmaps, &point, since) {
        Ok(between) => between,
        Err(reason) => return Ok(Changes::Unknown(reason)),
    };
    let mut extents = match read(session, job, key, disk, &between).await {
        Ok(extents) => extents,
        // Nobody guesses what a bitmap that cannot be read would have said (L09).
        Err(failure @ Failure::Refused { .. }) => return Ok(Changes::Unknown(failure.to_string())),
        Err(failure) => return Err(failure),
    };
    extents.extend(between.grown);
    Ok(Changes::Since(extents))
}

/// Removes the bitmaps that only change ids before a committed one need.
pub(super) async fn committed(
    session: &mut Session<'_>,
    job: &JobId,
    key: &DiskKey,
    change_id: &ChangeId,
) -> Result<(), Failure> {
    let machine = Machine::look(&mut session.qmp).await?;
    let disk = find(&machine, job, key)?;
    // A chain that does not lead there is kept: nobody knows what it is still good for.
    if let Some(Ok(between)) = link_of(disk, job).map(|point| between(&disk.bitmaps, &point, change_id)) {
        prune(session, &machine, disk, &between).await;
    }
    Ok(())
}

/// Merges the bitmaps into one of ours and reads it through an export of its own.
async fn read(
    session: &mut Session<'_>,
    job: &JobId,
    key: &DiskKey,
    disk: &Disk,
    between: &Between,
) -> Result<ExtentSet, Failure> {
    if between.bitmaps.is_empty() {
        return Ok(ExtentSet::new());
    }
    let (tag, name) = (Tag::new(job, key), names::changes(job));
    let left_over = |bitmap: &super::bitmaps::Bitmap| bitmap.name.as_deref() == Some(&name);
    if disk.bitmaps.iter().any(left_over) {
        session.forget("block-export-del", json!({ "id": tag.changes_id(), "mode": "hard" })).await;
        session.forget("block-dirty-bitmap-remove", json!({ "node": disk.node, "name": name })).await;
    }
    let add = json!({ "node": disk.node, "name": name, "disabled": true });
    let merge = json!({ "node": disk.node, "target": name, "bitmaps": between.bitmaps });
    let action = |kind: &str, data: Value| json!({ "type": kind, "data": data });
    session
        .transaction(vec![action("block-dirty-bitmap-add", add), action("block-dirty-bitmap-merge", merge)])
        .await?;
    let extents =
        read_bitmap(session, &tag, disk, &name, &format!("{}/changes", names::export(job, key))).await;
    session.forget("block-dirty-bitmap-remove", json!({ "node": disk.node, "name": name })).await;
    extents
}

async fn read_bitmap(
    session: &mut Session<'_>,
    tag: &Tag,
    disk: &Disk,
    bitmap: &str,
    export: &str,
) -> Result<ExtentSet, Failure> {
    let options = json!({
        "type": "nbd", "id": tag.changes_id(), "node-name": tag.node(Role::View), "name": export,
        "writable": false, "bitmaps": [{ "node": disk.node, "name": bitmap }],
    });
    session.qmp.tell("block-export-add", options).await?;
    let extents = dirty(session, bitmap, export).await;
    unexport(session, &tag.changes_id()).await?;
    extents
}

async fn dirty(session: &Session<'_>, bitmap: &str, export: &str) -> Result<ExtentSet, Failure> {
    let context = format!("{QEMU_DIRTY_BITMAP}{bitmap}");
    let config = ClientConfig { contexts: vec![context], ..session.config.client.clone() };
    let client = Client::connect(&session.uri(export)?, config).await?;
    let extents = match Extent::between(0, client.info().capacity.bytes()) {
        Some(whole) => client.dirty_extents(bitmap, whole).await?,
        None => ExtentSet::new(),
    };
    client.close().await;
    Ok(extents)
}

/// Removes what the committed change id has made useless, but no bitmap of a point in time that is still there.
async fn prune(session: &mut Session<'_>, machine: &Machine, disk: &Disk, between: &Between) {
    let points = machine.tags();
    for known in links(&disk.bitmaps) {
        let name = known.link.name();
        let used = known.bitmap.busy || points.contains_key(&job_tag(&known.link.job));
        if between.older.contains(&name) && !used {
            session.forget("block-dirty-bitmap-remove", json!({ "node": disk.node, "name": name })).await;
        }
    }
}
