//! `oma copy --journal`: what goes on, and what is refused.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use oma_core::conformance::{Trial, trial};

use crate::world::{MIB, Ran, World, assert_same, finish, number, signal, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l15_a_copy_that_was_killed_goes_on_by_its_journal", &[], goes_on),
        trial("an_interrupted_copy_with_a_journal_says_how_to_go_on", &[], interrupted),
        trial("l09_a_journal_goes_on_with_no_other_source_or_target", &[], refused),
        trial("l09_a_file_that_was_written_is_another_source_whatever_change_id_names_it", &[], renamed),
        trial("l11_a_copy_of_a_file_that_was_written_keeps_its_journal", &[], written_meanwhile),
        trial("a_journal_that_is_none_or_was_damaged_is_refused", &[], damaged),
    ]
}

const SIZE: u64 = 16 * MIB;

/// A copy of which a part is done.
struct Begun {
    world: World,
    journal: String,
    source: String,
    copy: String,
    always: &'static [&'static str],
}

impl Begun {
    /// It is ended by a signal once something is in the journal.
    async fn new(name: &str) -> (Self, Ran) {
        Self::with(name, &[]).await
    }

    /// The same, of a command line that says more.
    async fn with(name: &str, always: &'static [&'static str]) -> (Self, Ran) {
        let world = World::new();
        let [journal, source, copy] = ["journal", "source.raw", "copy.raw"].map(|name| world.text(name));
        let begun = Self { world, journal, source, copy, always };
        begun.world.full("source.raw", SIZE);
        let child = begun.world.oma(&begun.line(&["--bandwidth", "8MiB"])).spawn().unwrap();
        until!("something is finished", {
            fs::read_to_string(begun.world.path("journal")).is_ok_and(|text| text.contains("\nfinished "))
        });
        signal(&child, name).await;
        let ran = finish(child).await;
        (begun, ran)
    }

    fn line<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let journal = ["--json", "copy", "--reflink", "never", "--journal", &self.journal];
        let disks = [self.source.as_str(), &self.copy];
        [&journal[..], &["--journal-step", "1MiB"], self.always, more, &disks].concat()
    }

    async fn go_on(&self) -> Ran {
        self.world.run(&self.line(&[])).await
    }

    async fn completes(&self) {
        let report = self.go_on().await.ok().json();
        let resumed = number(&report["bytes_resumed"]);
        assert!(resumed > 0 && resumed + number(&report["bytes_read"]) == SIZE, "{report}");
        assert!(number(&report["bytes_recopied"]) <= MIB, "{report}");
        assert_same(&self.world.path("source.raw"), &self.world.path("copy.raw"));
        assert!(!self.world.path("journal").exists());
    }
}

async fn goes_on() {
    let (begun, ran) = Begun::new("KILL").await;
    assert_eq!(ran.code, -1);
    begun.completes().await;
}

async fn interrupted() {
    let (begun, ran) = Begun::new("INT").await;
    assert!(ran.code == 130 && ran.err.contains("the same command goes on"), "{ran:?}");
    begun.completes().await;
}

async fn refused() {
    let (begun, _) = Begun::new("KILL").await;
    let world = &begun.world;
    let (journal, before) =
        (fs::read(world.path("journal")).unwrap(), fs::read(world.path("copy.raw")).unwrap());
    let (source, copy) = (world.path("source.raw"), world.path("copy.raw"));
    let is_refused = async |code: i32, words: &[&str]| {
        begun.go_on().await.refused(code, words);
        assert!(fs::read(world.path("journal")).unwrap() == journal, "the journal stays");
    };
    // Another file in the place of the target, with the same content.
    fs::rename(&copy, world.path("kept.raw")).unwrap();
    fs::write(&copy, &before).unwrap();
    is_refused(4, &["its target was", "remove the journal", "--repair"]).await;
    fs::remove_file(&copy).unwrap();
    is_refused(7, &["copy.raw", "remove the journal"]).await;
    assert!(!copy.exists(), "no other target is made");
    fs::rename(world.path("kept.raw"), &copy).unwrap();
    // The same file, whose content is gone.
    fs::OpenOptions::new().write(true).truncate(true).open(&copy).unwrap().set_len(SIZE).unwrap();
    is_refused(3, &["is not what the source has", "remove the journal", "--repair"]).await;
    fs::OpenOptions::new().write(true).open(&copy).unwrap().set_len(SIZE + 4096).unwrap();
    is_refused(4, &["target's size"]).await;
    fs::write(&copy, &before).unwrap();
    // Other extents.
    fs::write(world.path("extents"), "0 4096\n").unwrap();
    let list = world.text("extents");
    world.run(&begun.line(&["--extents", &list])).await.refused(4, &["list of extents"]);
    // A source that was written.
    let content = fs::read(&source).unwrap();
    fs::write(&source, &content).unwrap();
    is_refused(4, &["its source was"]).await;
    fs::remove_file(world.path("journal")).unwrap();
    // Without its journal the target is a file as any other.
    begun.go_on().await.refused(4, &["--overwrite"]);
    let report = world.run(&begun.line(&["--repair", "--verify", "full"])).await.ok().json();
    let equal = number(&report["bytes_equal"]);
    assert_eq!(equal + number(&report["bytes_read"]), SIZE, "{report}");
    assert_eq!(number(&report["bytes_verified"]), SIZE, "{report}");
    assert_same(&source, &copy);
}

async fn renamed() {
    let (mut begun, _) = Begun::with("KILL", &["--change-id", "monday"]).await;
    let path = begun.world.path("source.raw");
    let before = path.metadata().unwrap().modified().unwrap();
    let touch = |time| fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    touch(before + Duration::from_nanos(1_000));
    begun.go_on().await.refused(4, &["its source was", "monday"]);
    touch(before);
    begun.always = &["--change-id", "tuesday"];
    begun.go_on().await.refused(4, &["its source was", "tuesday"]);
    begun.always = &["--change-id", "monday"];
    begun.completes().await;
}

/// Nobody repeats it with `--blank` over what it has written.
async fn written_meanwhile() {
    let world = World::new();
    let (source, copy) = (world.full("source.raw", 12 * MIB), world.text("copy.raw"));
    let (text, journal) = (world.text("source.raw"), world.text("journal"));
    let line = ["copy", "--journal", &journal, "--blank", "--bandwidth", "4MiB", &text, &copy];
    let child = world.oma(&line).spawn().unwrap();
    until!("the copy has begun", fs::metadata(&copy).is_ok_and(|about| about.blocks() > 0));
    fs::File::options().write(true).open(&source).unwrap().write_all_at(b"later", 0).unwrap();
    finish(child).await.refused(4, &["source.raw", "while it was copied", "--repair", "without --blank"]);
    world.run(&line).await.refused(4, &["its source was", "remove the journal", "without --blank"]);
    fs::remove_file(world.path("journal")).unwrap();
    world.run(&["copy", "--repair", &text, &copy]).await.ok();
    assert_same(&source, &world.path("copy.raw"));
}

async fn damaged() {
    let (begun, _) = Begun::new("KILL").await;
    let world = &begun.world;
    let journal = fs::read_to_string(world.path("journal")).unwrap();
    fs::write(world.path("journal"), journal.replacen("run ", "ran ", 1)).unwrap();
    begun.go_on().await.refused(8, &["journal", "line 2", "remove", "--overwrite"]);
    fs::write(world.path("journal"), "notes of somebody\n").unwrap();
    begun.go_on().await.refused(2, &["is no journal"]);
    assert_eq!(fs::read_to_string(world.path("journal")).unwrap(), "notes of somebody\n");
    // A last line that was torn by the crash.
    fs::write(world.path("journal"), &journal[..journal.len() - 3]).unwrap();
    let report = begun.go_on().await.ok().json();
    assert_eq!(number(&report["bytes_read"]) + number(&report["bytes_resumed"]), SIZE);
    assert_same(&world.path("source.raw"), &world.path("copy.raw"));
}
