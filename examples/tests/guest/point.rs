//! Whether the volumes of an epoch are what the guest's disks were at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::world::World;

/// Where a step writes its block.
fn place(step: u64) -> u64 {
    16 + 16 * (step * 37 % 500) + step % 16
}

/// Checks all volumes against each other; answers the step they are at. It is not beyond what the guest had told of, but for what it
/// was just doing.
pub(crate) async fn check(world: &World, told: u64) -> u64 {
    let (one, two) = (Volume::read(world, "one").await, Volume::read(world, "two").await);
    let (first, second) = (one.count(), two.count());
    assert!(first == second || first == second + 1, "one is at {first}, two at {second}");
    assert!(second > 0 && second <= told.saturating_add(1), "{second} of {told}");
    one.check(first);
    two.check(first);
    let journal = journal(world).await;
    assert!(journal == second || journal + 1 == second, "the journal is at {journal}, two at {second}");
    second
}

/// The last line of the journal in the file system, which must be whole once its own journal is replayed.
async fn journal(world: &World) -> u64 {
    let copy = world.text("fs-copy");
    let volume = world.volume("fs").await.display().to_string();
    world.must("cp", &["--sparse=always", &volume, &copy]).await;
    // Exit code 1 is "errors were corrected": the journal was replayed. A second look finds nothing.
    world.must("sh", &["-c", "e2fsck -p \"$0\" || [ $? = 1 ]", &copy]).await;
    world.must("e2fsck", &["-f", "-n", &copy]).await;
    let lines = world.must("debugfs", &["-R", "cat /journal", &copy]).await;
    let numbers: Vec<u64> = lines.lines().map(|line| line.parse().unwrap()).collect();
    let whole: Vec<u64> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, whole, "no line of the journal is missing");
    numbers.last().copied().unwrap_or(0)
}

struct Volume {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Volume {
    async fn read(world: &World, name: &'static str) -> Self {
        let path = world.volume(name).await;
        Self { name, bytes: fs::read::<&Path>(&path).unwrap() }
    }

    /// The number at its begin.
    fn count(&self) -> u64 {
        let text = String::from_utf8_lossy(&self.bytes[..8]);
        text.parse().unwrap_or_else(|_| panic!("{}: no number at its begin but {text:?}", self.name))
    }

    /// Each block is of the last step that wrote it; only the step after `count` may have begun.
    fn check(&self, count: u64) {
        let last: BTreeMap<u64, u64> = (1..=count).map(|step| (place(step), step)).collect();
        for (place, step) in last {
            let at = usize::try_from(place * 4096).unwrap();
            let found = &self.bytes[at..at + 4096];
            let of = |step: u64| found == pattern(self.name, step);
            let next = crate::point::place(count + 1) == place && of(count + 1);
            assert!(of(step) || next, "{}: block {place} is not of step {step}", self.name);
        }
    }
}

fn pattern(name: &str, step: u64) -> Vec<u8> {
    format!("{name} {step}\n").into_bytes().into_iter().cycle().take(4096).collect()
}
