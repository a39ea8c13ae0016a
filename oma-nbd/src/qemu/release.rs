//! Takes a point in time down, whole or in parts, and clears up after runs that were interrupted.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use oma_core::JobId;
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::agent;
use super::bitmaps::{Known, links, look_of};
use super::config::OtherPoints;
use super::error::Failure;
use super::machine::Machine;
use super::names::{CHANGES, Role, Tag, is_gate, job_tag};
use super::session::Session;

#[derive(Deserialize)]
struct Job {
    id: String,
    status: String,
}

#[derive(Deserialize)]
struct Export {
    id: String,
}

/// Removes everything of a job's point in time but its bitmaps, and what a release before did not get to.
pub(super) async fn release(session: &mut Session<'_>, job: &JobId) -> Result<(), Failure> {
    let machine = Machine::look(&mut session.qmp).await?;
    if machine.tags().get(&job_tag(job)).is_some_and(|tags| !machine.is_complete(tags)) {
        thaw(session).await?;
    }
    remove(session, &machine, job).await?;
    let look = look_of(&session.config.owner);
    if machine.disks.values().flat_map(|disk| links(&disk.bitmaps)).any(|known| known.link.owner == look) {
        let machine = Machine::look(&mut session.qmp).await?;
        forget_looks(session, &machine).await;
    }
    Ok(())
}

/// Removes the bitmaps of points in time that served to look and are gone.
async fn forget_looks(session: &mut Session<'_>, machine: &Machine) {
    let points = machine.tags();
    let look = look_of(&session.config.owner);
    for disk in machine.disks.values() {
        for Known { link, bitmap } in links(&disk.bitmaps) {
            if link.owner == look && !bitmap.busy && !points.contains_key(&job_tag(&link.job)) {
                let arguments = json!({ "node": disk.node, "name": link.name() });
                session.forget("block-dirty-bitmap-remove", arguments).await;
            }
        }
    }
}

/// A release of what certainly left no guest frozen.
pub(super) async fn remove(session: &mut Session<'_>, machine: &Machine, job: &JobId) -> Result<(), Failure> {
    if let Some(tags) = machine.tags().get(&job_tag(job)) {
        take_down(session, machine, tags).await?;
    }
    let machine = Machine::look(&mut session.qmp).await?;
    open_gates(session, &machine).await?;
    stop_server(session, &machine).await;
    Ok(())
}

/// Clears up before a job freezes: its own point if it is not whole, every other that is not, and those of this owner's other
/// jobs if they are to be. Whole points of others stay.
pub(super) async fn recover(
    session: &mut Session<'_>,
    machine: &Machine,
    job: &JobId,
) -> Result<(), Failure> {
    let own = job_tag(job);
    let left_over = machine.tags();
    if left_over.values().any(|tags| !machine.is_complete(tags)) {
        thaw(session).await?;
    }
    for (tag, tags) in left_over {
        let whole = machine.is_complete(&tags);
        let others = session.config.other_points == OtherPoints::Release && is_ours(session, machine, &tag);
        if !whole || others || tag == own {
            tracing::warn!(job = tag, whole, "a point in time was left over; it is taken down");
            let fresh = Machine::look(&mut session.qmp).await?;
            take_down(session, &fresh, &tags).await?;
        }
    }
    let jobs: Vec<Job> = session.qmp.ask("query-jobs", json!({})).await?;
    for job in jobs.iter().filter(|job| Tag::of_id(&job.id).is_some() && job.status == "concluded") {
        session.forget("job-dismiss", json!({ "id": job.id })).await;
    }
    // What was taken down kept bitmaps busy.
    let machine = Machine::look(&mut session.qmp).await?;
    for disk in machine.disks.values() {
        for name in
            disk.bitmaps.iter().filter(|bitmap| !bitmap.busy).filter_map(|bitmap| bitmap.name.as_ref())
        {
            if name.starts_with(CHANGES) {
                session.forget("block-dirty-bitmap-remove", json!({ "node": disk.node, "name": name })).await;
            }
        }
    }
    forget_looks(session, &machine).await;
    open_gates(session, &machine).await
}

/// Thaws a guest that an interrupted freeze may have left frozen. It comes before anything of that freeze is taken down: what
/// is left of it is all that tells the next attempt.
async fn thaw(session: &mut Session<'_>) -> Result<(), Failure> {
    match session.config.guest_agent.as_deref() {
        Some(socket) if session.is_running().await? => {
            agent::thaw_left_over(socket, session.config.agent_timeout).await
        }
        agent => {
            tracing::warn!(
                agent = agent.is_some(),
                "an interrupted freeze may have left the guest's file systems frozen, and no agent can be asked; \
                 when the guest runs and its writes hang, thaw them by hand (guest-fsfreeze-thaw)"
            );
            Ok(())
        }
    }
}

/// Whether the job of this tag is one of this owner, as its bitmaps tell.
fn is_ours(session: &Session<'_>, machine: &Machine, tag: &str) -> bool {
    let links = machine.disks.values().flat_map(|disk| links(&disk.bitmaps));
    let mut of_tag = links.filter(|known| job_tag(&known.link.job) == tag).peekable();
    let (owner, look) = (&session.config.owner, look_of(&session.config.owner));
    of_tag.peek().is_some() && of_tag.all(|known| known.link.owner == *owner || known.link.owner == look)
}

/// In the order of which stands on which, so that it can be interrupted and begun again anywhere.
pub(super) async fn take_down(
    session: &mut Session<'_>,
    machine: &Machine,
    tags: &BTreeSet<Tag>,
) -> Result<(), Failure> {
    for tag in tags {
        for id in [tag.changes_id(), tag.id()] {
            if machine.exports.contains(&id) {
                unexport(session, &id).await?;
            }
        }
    }
    delete(session, machine, tags, Role::View).await?;
    let mut reopen = Vec::new();
    for tag in tags {
        let (filter, base) = (tag.node(Role::Filter), tag.node(Role::Base));
        if let (Some(above), Some(below)) = (machine.above(&filter), machine.below(&base)) {
            reopen.push(raw(above, below));
        }
    }
    if !reopen.is_empty() {
        session.qmp.tell("blockdev-reopen", json!({ "options": reopen })).await?;
    }
    for role in [Role::Filter, Role::Base, Role::Scratch] {
        delete(session, machine, tags, role).await?;
    }
    for tag in tags {
        unlink(&session.scratch(&tag.id()));
    }
    Ok(())
}

async fn delete(
    session: &mut Session<'_>,
    machine: &Machine,
    tags: &BTreeSet<Tag>,
    role: Role,
) -> Result<(), Failure> {
    for name in tags.iter().map(|tag| tag.node(role)).filter(|name| machine.node(name).is_some()) {
        session.qmp.tell("blockdev-del", json!({ "node-name": name })).await?;
    }
    Ok(())
}

/// A node that passes everything on, to be made or to be set on another child.
pub(super) fn raw(name: &str, file: &str) -> Value {
    json!({ "driver": "raw", "node-name": name, "file": file, "discard": "unmap" })
}

/// Takes an export back, and waits until its clients are gone.
pub(super) async fn unexport(session: &mut Session<'_>, id: &str) -> Result<(), Failure> {
    let end = Instant::now() + session.config.command_timeout;
    session.qmp.tell("block-export-del", json!({ "id": id, "mode": "hard" })).await?;
    loop {
        let exports: Vec<Export> = session.qmp.ask("query-block-exports", json!({})).await?;
        if exports.iter().all(|export| export.id != id) {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Failure::Timeout {
                what: "the end of an export",
                limit: session.config.command_timeout,
            });
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Sets devices back on their disks where no point in time is left.
async fn open_gates(session: &mut Session<'_>, machine: &Machine) -> Result<(), Failure> {
    for gate in machine.gates() {
        let below = machine.below(gate).unwrap_or_default();
        if Tag::of_node(below).is_some() {
            continue;
        }
        if let Some(disk) = machine.disks.values().find(|disk| disk.top == gate && is_gate(&disk.top)) {
            let arguments = json!({ "path": disk.device, "property": "drive", "value": below });
            session.qmp.tell("qom-set", arguments).await?;
        } else if machine.is_used(gate) {
            // A device that went away meanwhile, or a user that is not ours.
            continue;
        }
        session.qmp.tell("blockdev-del", json!({ "node-name": gate })).await?;
    }
    Ok(())
}

/// Stops the NBD server when it is ours and nothing is exported any more. A file that only is left over from a QEMU that was
/// killed says nothing of the server that runs now: another tool may have started it.
async fn stop_server(session: &mut Session<'_>, machine: &Machine) {
    let socket = session.nbd_socket();
    if session.config.nbd_server.is_some() || !machine.exports.is_empty() || !socket.exists() {
        return;
    }
    match is_served(&socket) {
        Ok(true) => {
            if let Err(failure) = session.qmp.tell("nbd-server-stop", json!({})).await {
                // As long as it may listen there, its clients must find it.
                tracing::warn!(%failure, "the machine's NBD server was left over");
                return;
            }
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(path = %socket.display(), %error, "nobody knows whether it is served; it stays");
            return;
        }
    }
    unlink(&socket);
}

/// Whether somebody holds a stream socket. It asks as what cannot connect to one: a server that is stopped while a client comes
/// or goes can take an older QEMU with it.
fn is_served(socket: &Path) -> io::Result<bool> {
    match UnixDatagram::unbound()?.connect(socket) {
        Err(error) if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(false)
        }
        other => other.map(|()| false),
    }
}

/// Removes a file that may be gone.
pub(super) fn unlink(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "left over");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_served_while_its_server_lives_and_its_file_alone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nbd");
        assert!(!is_served(&socket).unwrap());
        let server = UnixListener::bind(&socket).unwrap();
        server.set_nonblocking(true).unwrap();
        assert!(is_served(&socket).unwrap());
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "it sees no client");
        drop(server);
        assert!(socket.exists() && !is_served(&socket).unwrap());
    }
}
