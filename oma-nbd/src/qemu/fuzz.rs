//! A monitor that says anything, and what is made of it.

use std::time::Duration;

use oma_core::{JobId, WorkerId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use uuid::Uuid;

use super::bitmaps::{Link, Moment, between, links, look_of, next};
use super::error::Failure;
use super::lines::Lines;
use super::machine::{Disk, Machine};
use super::qmp::{Qmp, greeting};

/// No line is waited for: all are there from the beginning.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn answers(bytes: &[u8]) -> Result<(), Failure> {
    let (ours, mut theirs) = UnixStream::pair().map_err(Failure::Lost)?;
    let say = async {
        // Whoever listens may have had enough.
        let _ = theirs.write_all(bytes).await;
        let _ = theirs.shutdown().await;
    };
    let (looked, ()) = tokio::join!(look(ours), say);
    let machine = looked?;
    for gate in machine.gates() {
        let _ = (machine.below(gate), machine.is_used(gate));
    }
    for (job, tags) in machine.tags() {
        let _ = machine.is_complete(&tags);
        assert!(tags.iter().all(|tag| tag.job() == job), "a tag of another job");
    }
    machine.disks.values().for_each(chain);
    Ok(())
}

async fn look(stream: UnixStream) -> Result<Machine, Failure> {
    let mut lines = Lines::over(stream);
    let version = greeting(&mut lines).await?;
    Machine::look(&mut Qmp::begin(lines, version, LIMIT).await?).await
}

/// What the next point in time would be, whatever bitmaps there are: it follows all that were made by the same owner.
fn chain(disk: &Disk) {
    let known = links(&disk.bitmaps);
    let job = JobId::parse("job-20250821-095320-abcdef").expect("it is an id");
    let owners = known.iter().map(|known| known.link.owner.clone());
    for owner in owners.chain([look_of(&WorkerId::parse("oma").expect("it is an id"))]) {
        let moment = Moment { owner: &owner, job: &job, capacity: disk.capacity, now: 7, fresh: Uuid::nil() };
        let next = next(&disk.bitmaps, &moment);
        assert_eq!(Link::parse(&next.link.name()).as_ref(), Some(&next.link), "a name that is not read back");
        for older in known.iter().filter(|known| known.link.owner == owner) {
            assert!(older.link.sequence < next.link.sequence || older.link.sequence == u64::MAX);
            if let Ok(between) = between(&disk.bitmaps, &next.link, &older.link.change_id()) {
                let grown = between.grown.map_or(0, |grown| grown.length());
                assert_eq!(older.link.capacity + grown, disk.capacity, "what it has grown by");
            }
        }
    }
}
