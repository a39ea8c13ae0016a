//! `kill -9` at random moments of a copy with a journal, of either end.

use std::time::{Duration, Instant};

use oma_core::conformance::{Trial, trial};
use tokio::process::Child;

use super::moments::{Random, asked, tell};
use crate::serve::start;
use crate::world::{MIB, Ran, World, assert_same, finish, number};

const SIZE: u64 = 12 * MIB;
const STEP: u64 = MIB;
/// A copy is let through after so many.
const STRIKES: u64 = 6;

pub(super) fn trials() -> Vec<Trial> {
    let (kills, seed) = asked();
    // The rest is for replications.
    let kills = kills.div_ceil(5);
    vec![
        trial("l15_a_copy_between_files_killed_at_any_moment_goes_on", &[], move || {
            killed(End::File, kills, seed)
        }),
        trial("l15_a_push_killed_at_any_moment_at_either_end_goes_on", &[], move || {
            killed(End::Export, kills, seed)
        }),
    ]
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    File,
    Export,
}

async fn killed(end: End, kills: u64, seed: u64) {
    tell(seed);
    let mut random = Random(seed);
    // The first copy is measured: nobody is killed.
    let (_, length) = Push::new(end).await.reach(&mut random, Duration::ZERO, 0).await;
    let (mut done, mut worlds) = (0, 0);
    while done < kills {
        worlds += 1;
        assert!(worlds <= 8 + kills, "too few kills hit a copy: seed {seed}");
        let (struck, _) = Push::new(end).await.reach(&mut random, length, STRIKES.min(kills - done)).await;
        done += struck;
    }
}

/// A copy that is killed and goes on.
struct Push {
    world: World,
    server: Option<Child>,
    target: String,
}

impl Push {
    async fn new(end: End) -> Self {
        let world = World::new();
        world.full("source.raw", SIZE);
        let mut push = Self { target: world.text("copy.raw"), server: None, world };
        if end == End::Export {
            std::fs::write(push.world.path("copy.raw"), vec![0xee; usize::try_from(SIZE).unwrap()]).unwrap();
            push.serve().await;
        }
        push
    }

    async fn serve(&mut self) {
        let (file, socket) = (self.world.text("copy.raw"), self.world.text("serve.sock"));
        let (child, uri) = start(&self.world, &[&file, "--socket", &socket]).await;
        (self.server, self.target) = (Some(child), uri);
    }

    /// Runs until the copy is complete; answers how often it was killed and how long the last run took.
    async fn reach(mut self, random: &mut Random, length: Duration, strikes: u64) -> (u64, Duration) {
        let (source, journal) = (self.world.text("source.raw"), self.world.text("journal"));
        // One that was struck before it could reach the export has begun no journal.
        let (mut struck, mut is_begun) = (0, false);
        loop {
            is_begun |= self.world.path("journal").exists();
            let target = self.target.clone();
            let line = [
                "--json",
                "copy",
                "--reflink",
                "never",
                "--overwrite",
                "--journal",
                &journal,
                "--journal-step",
                "1MiB",
            ];
            let line = [&line[..], &["--bandwidth", "24MiB", &source, &target]].concat();
            let begun = Instant::now();
            let mut child = self.world.oma(&line).spawn().unwrap();
            if struck < strikes {
                let millis = u64::try_from(length.as_millis()).unwrap();
                tokio::time::sleep(Duration::from_millis(random.below(millis.max(1)))).await;
                if child.try_wait().unwrap().is_none() {
                    struck += 1;
                    if self.server.is_none() || random.below(2) == 0 {
                        child.kill().await.unwrap();
                        continue;
                    }
                    // The other end dies; the copy fails, or has reached its end before.
                    self.server.take().unwrap().kill().await.unwrap();
                    self.serve().await;
                }
            }
            let ran = finish(child).await;
            if ran.code == 5 && struck > 0 {
                assert!(self.world.path("journal").exists() || !is_begun, "{ran:?}");
                continue;
            }
            self.completed(&ran.ok(), struck);
            return (struck, begun.elapsed());
        }
    }

    /// What was copied twice is told, and no more than a step for each kill.
    fn completed(&self, ran: &Ran, struck: u64) {
        let report = ran.json();
        let again = number(&report["bytes_recopied"]);
        assert!(again <= struck * STEP, "{again} bytes were copied again after {struck} kills: {report}");
        assert_eq!(number(&report["bytes_read"]) + number(&report["bytes_resumed"]), SIZE, "{report}");
        assert_same(&self.world.path("source.raw"), &self.world.path("copy.raw"));
        assert!(!self.world.path("journal").exists(), "the copy is complete");
    }
}
