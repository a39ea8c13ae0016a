//! A monitor that says anything, and what is made of it.

use std::time::Duration;

use oma_core::{JobId, WorkerId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use uuid::Uuid;

use super::bitmaps::{Known, Link, Moment, between, links, look_of, next};
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
            let same = |other: &&Known| {
                let (one, other) = (&older.link, &other.link);
                (&one.owner, one.chain, one.sequence) == (&other.owner, other.chain, other.sequence)
            };
            if known.iter().filter(same).count() == 1
                && let Ok(between) = between(&disk.bitmaps, &next.link, &older.link.change_id())
            {
                let grown = between.grown.map_or(0, |grown| grown.length());
                assert_eq!(older.link.capacity + grown, disk.capacity, "what it has grown by");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10}}}}"#;

    /// A monitor that answers the questions of a look, in their order.
    async fn told(answers: [&str; 4]) -> Result<(), Failure> {
        let mut said = format!("{GREETING}\n{{\"return\":{{}},\"id\":\"oma-1\"}}\n");
        for (number, answer) in (2..).zip(answers) {
            said.push_str(&format!("{{\"return\":{answer},\"id\":\"oma-{number}\"}}\n"));
        }
        tokio::time::timeout(LIMIT, super::answers(said.as_bytes())).await.unwrap()
    }

    const DEVICE: &str =
        r#"[{"device":"","qdev":"d0","removable":false,"inserted":{"node-name":"a","ro":false}}]"#;

    #[tokio::test]
    async fn nodes_that_stand_on_each_other_in_a_circle_end_a_look_all_the_same() {
        let node = |name: &str| {
            format!(r#"{{"node-name":"{name}","drv":"throttle","file":"","image":{{"virtual-size":9}}}}"#)
        };
        let nodes = format!("[{},{}]", node("a"), node("b"));
        let graph = r#"{"nodes":[{"id":1,"name":"a","type":"block-driver"},{"id":2,"name":"b","type":"block-driver"}],
            "edges":[{"parent":1,"child":2,"name":"file"},{"parent":2,"child":1,"name":"file"}]}"#;
        told([DEVICE, &nodes, &graph.replace('\n', ""), "[]"]).await.unwrap();
    }

    #[tokio::test]
    async fn a_bitmap_with_the_last_number_there_is_does_not_end_the_next_freeze() {
        let chain = "0123456789abcdef0123456789abcdef";
        let name = format!("oma/oma/{chain}/{}/0/9/job-20250821-095320-abcdef", u64::MAX);
        let bitmap = format!(r#"{{"name":"{name}","recording":true,"busy":false,"inconsistent":false}}"#);
        let nodes = format!(
            r#"[{{"node-name":"a","drv":"raw","file":"","image":{{"virtual-size":10}},"dirty-bitmaps":[{bitmap}]}}]"#
        );
        told([DEVICE, &nodes, r#"{"nodes":[],"edges":[]}"#, "[]"]).await.unwrap();
    }
}
