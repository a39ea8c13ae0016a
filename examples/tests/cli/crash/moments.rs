//! `kill -9` at random moments of whole lives of runs, of either end.

use std::fs;
use std::time::{Duration, Instant};

use oma_core::conformance::{Requirement, Trial, trial};
use oma_examples::noise;
use serde_json::Value;
use tokio::process::Child;

use crate::world::{MIB, Ran, Server, World, finish, number, replicate_args};

const QEMU: [Requirement; 3] =
    [Requirement::Program("qemu-img"), Requirement::Program("qemu-io"), Requirement::Program("qemu-nbd")];

/// How often is killed in all when `OMA_TEST_KILLS` does not say.
const KILLS: u64 = 40;
/// So many trials share them, at the same time.
const SHARES: u64 = 4;
/// An epoch is let through after so many.
const STRIKES: u64 = 4;

const IMAGE: &str = "disk.qcow2";
const SIZE: u64 = 16 * MIB;
/// What the source reads in a second.
const SPEED: u64 = 48;
/// As large as what is read at once.
const STEP: u64 = MIB;

/// How often is killed in all, and from which seed on.
pub(super) fn asked() -> (u64, u64) {
    let asked = std::env::var("OMA_TEST_KILLS");
    let kills = asked.map_or(KILLS, |asked| asked.parse().expect("OMA_TEST_KILLS is a number"));
    let asked = std::env::var("OMA_TEST_SEED");
    let seed = asked.map_or_else(|_| now(), |asked| asked.parse().expect("OMA_TEST_SEED is a number"));
    (kills, seed)
}

pub(super) fn trials() -> Vec<Trial> {
    let (kills, seed) = asked();
    let share = move |share: u64| {
        let name = format!("l15_killed_at_any_moment_the_next_run_completes_the_epoch_{share}");
        trial(&name, &QEMU, move || killed(kills.div_ceil(SHARES), seed.wrapping_add(share)))
    };
    (1..=SHARES).map(share).collect()
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

#[expect(clippy::print_stderr, reason = "a failure is repeated with it")]
pub(super) fn tell(seed: u64) {
    eprintln!("OMA_TEST_SEED={seed}");
}

/// What is copied, and how much of it is compared.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Full,
    Incremental,
    Verify,
    /// No bitmap tells what changed: hashes are compared, and what differs is copied.
    Repair,
}

/// The epochs of a world, in their order.
const LIFE: [Kind; 4] = [Kind::Full, Kind::Incremental, Kind::Verify, Kind::Repair];

#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = u64::from_le_bytes(noise(self.0, 8).try_into().unwrap());
        self.0 % end
    }
}

/// What was learned of runs so far.
#[derive(Debug, Default)]
struct Tally {
    /// How long a run of each kind takes that nothing disturbs.
    length: [Duration; LIFE.len()],
    kills: u64,
    /// Kills of runs that began from nothing, by the third of the life that they came in.
    thirds: [u64; 3],
}

impl Tally {
    /// A moment in a life of this length: in the third that had the fewest kills.
    fn moment(&self, length: Duration, random: &mut Random) -> Duration {
        let third = (0_u32..).zip(self.thirds).min_by_key(|(_, kills)| *kills).map_or(0, |(third, _)| third);
        length * (third * 333 + u32::try_from(random.below(334)).unwrap()) / 1000
    }
}

async fn killed(kills: u64, seed: u64) {
    tell(seed);
    let (mut random, mut tally) = (Random(seed), Tally::default());
    // The first world measures: nobody is killed in it.
    Disk::new(&mut random).await.live(&mut random, &mut tally, 0).await;
    let mut worlds = 0;
    while tally.kills < kills {
        worlds += 1;
        assert!(worlds <= 8 + kills, "too few kills hit a run: seed {seed}, {tally:?}");
        Disk::new(&mut random).await.live(&mut random, &mut tally, kills).await;
    }
    // Half of what an equal share would be.
    let least = tally.thirds.iter().sum::<u64>() / 6;
    assert!(tally.thirds.iter().all(|third| *third >= least), "not at all moments: seed {seed}, {tally:?}");
}

/// A disk of a world, and how often it was replicated.
struct Disk {
    world: World,
    epoch: usize,
    /// What each epoch held.
    held: Vec<Vec<u8>>,
}

impl Disk {
    async fn new(random: &mut Random) -> Self {
        let world = World::new();
        world.must("qemu-img", &["create", "-q", "-f", "qcow2", IMAGE, "16M"]).await;
        let disk = Self { world, epoch: 0, held: Vec::new() };
        disk.write(random, SIZE / MIB).await;
        disk
    }

    /// The guest writes so many MiB somewhere.
    async fn write(&self, random: &mut Random, count: u64) {
        let commands: Vec<String> = (0..count)
            .map(|_| {
                let (pattern, at) = (1 + random.below(255), random.below(SIZE / 65_536 - 16));
                format!("write -P {pattern} {} 1M", at * 65_536)
            })
            .collect();
        let args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).chain([IMAGE]).collect();
        self.world.must("qemu-io", &args).await;
    }

    /// All its epochs, with kills until there were so many.
    async fn live(mut self, random: &mut Random, tally: &mut Tally, kills: u64) {
        for (at, kind) in LIFE.into_iter().enumerate() {
            if at > 0 {
                self.write(random, 8).await;
            }
            self.epoch += 1;
            // From here on it gathers what changes for the epoch after this one.
            let bitmap = format!("b{}", self.epoch);
            self.world.must("qemu-img", &["bitmap", "--add", IMAGE, &bitmap]).await;
            let server = self.serve().await;
            let begun = Instant::now();
            let server = self.reach(kind, server, random, tally, kills).await;
            if kills == 0 {
                tally.length[at] = begun.elapsed();
            }
            server.stop().await;
            let volume = self.world.volume("disk-2000").await.display().to_string();
            self.world.must("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", IMAGE, &volume]).await;
            self.held.push(fs::read(volume).unwrap());
            self.check_points().await;
        }
    }

    /// Each ready recovery point holds its epoch; no snapshot lies there that no point knows.
    async fn check_points(&self) {
        let rows = self.world.run(&["--json", "points", "list"]).await.ok().json();
        let rows = rows.as_array().unwrap();
        let newest = rows.iter().find(|row| row["status"] == "ready").unwrap();
        assert_eq!(newest["epoch"], Value::from(self.epoch), "{rows:?}");
        let image = |row: &Value| format!("{}.raw", row["disks"][0]["snapshot_id"].as_str().unwrap());
        let folder = self.world.path("data/volumes");
        for row in rows.iter().filter(|row| row["status"] == "ready") {
            let held = &self.held[usize::try_from(number(&row["epoch"])).unwrap() - 1];
            assert!(fs::read(folder.join(image(row))).unwrap() == *held, "{row}");
        }
        let known: Vec<String> = rows.iter().map(image).collect();
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_snapshot = name.starts_with("snap-") && name.ends_with(".raw");
            assert!(!is_snapshot || known.contains(&name), "{name} is forgotten: {rows:?}");
        }
    }

    async fn serve(&self) -> Server {
        let group = format!("throttle-group,id=slow,x-bps-read={}", SPEED * MIB);
        let image = format!(
            "driver=throttle,throttle-group=slow,file.driver=qcow2,file.file.driver=file,file.file.filename={IMAGE}"
        );
        let before = format!("b{}", self.epoch - 1);
        let mut args = vec!["--read-only", "--object", &group, "--image-opts", &image];
        if self.epoch > 1 {
            args.extend(["--bitmap", &before]);
        }
        self.world.qemu_nbd("disk", &args).await
    }

    /// Brings the volume to the epoch, however often it is killed on the way.
    async fn reach(
        &self,
        kind: Kind,
        mut server: Server,
        random: &mut Random,
        tally: &mut Tally,
        kills: u64,
    ) -> Server {
        let (uri, before, id) =
            (self.world.uri("disk"), format!("b{}", self.epoch - 1), format!("b{}", self.epoch));
        let keep = ["--journal-step", "1MiB", "--keep-points", "2"];
        let mut args = replicate_args(&[&["--source", &uri, "--change-id", &id], &keep[..]].concat());
        match kind {
            Kind::Full | Kind::Repair => {}
            Kind::Incremental => args.extend(["--bitmap", &before]),
            Kind::Verify => args.extend(["--bitmap", &before, "--verify", "full"]),
        }
        let length = tally.length[self.epoch - 1];
        let mut strikes = 0;
        loop {
            let mut child = self.world.oma(&args).spawn().unwrap();
            if strikes == STRIKES || tally.kills >= kills {
                self.completed(&finish(child).await.ok(), strikes);
                break;
            }
            let wait = tally.moment(length, random);
            tokio::time::sleep(wait).await;
            if child.try_wait().unwrap().is_some() {
                if strikes == 0 {
                    // The machine was slower when it was measured.
                    tally.length[self.epoch - 1] = wait;
                }
                self.completed(&finish(child).await.ok(), strikes);
                break;
            }
            tally.thirds[third(wait, length)] += u64::from(strikes == 0);
            strikes += 1;
            tally.kills += 1;
            if random.below(5) > 0 {
                if self.kill(child).await {
                    break;
                }
            } else {
                server.kill().await;
                server = self.serve().await;
                let ran = finish(child).await;
                if ran.code == 0 {
                    self.completed(&ran, strikes);
                    break;
                }
                self.not_committed(&ran.refused(5, &["unavailable"])).await;
            }
        }
        assert_eq!(self.world.change_id("disk-2000").await.as_deref(), Some(&*id));
        server
    }

    /// Kills a run; whether it had committed its epoch.
    async fn kill(&self, mut child: Child) -> bool {
        child.kill().await.unwrap();
        let before = (self.epoch > 1).then(|| format!("b{}", self.epoch - 1));
        let now = self.world.change_id("disk-2000").await;
        let committed = now.as_deref() == Some(&*format!("b{}", self.epoch));
        assert!(committed || now == before, "{now:?} was committed by nobody");
        committed
    }

    /// L08: a run that failed moved no change id.
    async fn not_committed(&self, ran: &Ran) {
        let before = (self.epoch > 1).then(|| format!("b{}", self.epoch - 1));
        assert_eq!(self.world.change_id("disk-2000").await, before, "{ran:?}");
    }

    /// What was copied twice is told, and no more than a step for each time that it was killed.
    fn completed(&self, ran: &Ran, strikes: u64) {
        let report = ran.json();
        let disk = &report["disks"][0];
        assert_eq!(report["epoch"], Value::from(self.epoch), "{report}");
        let again = number(&disk["bytes_recopied"]);
        assert!(again <= strikes * STEP, "{again} bytes were copied again after {strikes} kills: {report}");
        let read = number(&disk["bytes_read"]);
        assert!(read + number(&disk["bytes_resumed"]) <= SIZE, "{report}");
    }
}

/// Which third of a life a moment is in.
fn third(wait: Duration, length: Duration) -> usize {
    match wait * 3 {
        early if early < length => 0,
        middle if middle < length * 2 => 1,
        _ => 2,
    }
}
