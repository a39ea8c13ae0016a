//! What is looked at before anything is done, and how it is told.

use std::fs;
use std::process::Stdio;

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::world::{MIB, Ran, Server, VM, World, finish, replicate_args, signal, until};

pub(crate) fn trials() -> Vec<Trial> {
    let nbdkit = [Requirement::Program("nbdkit")];
    vec![
        trial("metrics_that_cannot_be_written_are_told_before_anything_is_done", &[], metrics_before),
        trial("metrics_that_could_not_be_written_are_a_warning", &nbdkit, metrics_after),
        trial("a_report_that_cannot_be_saved_is_told_before_anything_is_compared", &[], save_before),
        trial("a_report_that_could_not_be_saved_is_told_whatever_was_found", &nbdkit, save_after),
        trial("a_file_that_is_not_there_or_a_folder_is_told_as_such", &[], files_to_read),
        trial("a_copy_that_is_refused_makes_no_target", &[], copies),
        trial("arguments_that_can_never_be_right_say_why", &[], arguments),
        trial("a_data_directory_that_is_none_is_told_and_not_made", &[], data_directories),
        trial("a_terminal_that_goes_interrupts_unless_that_is_ignored", &nbdkit, hang_up),
        trial("another_hang_up_ends_nothing_sooner", &nbdkit, hung_up_twice),
        trial("a_run_tells_no_more_than_it_does", &nbdkit, quiet),
    ]
}

/// A source that is not read before the file `go` is there.
async fn gated(world: &World) -> Server {
    world.full("source.raw", MIB);
    // Nor does it wait for a test that has failed.
    let read = format!(
        "pread=: >{asked}; until test -e {go} || test ! -e {source}; do sleep 0.05; done; \
         dd if={source} skip=$4 count=$3 iflag=skip_bytes,count_bytes bs=256k status=none",
        asked = world.text("asked"),
        go = world.text("go"),
        source = world.text("source.raw")
    );
    world.nbdkit("gated", &["eval", "get_size=echo 1M", &read]).await
}

async fn metrics_before() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    let (source, metrics) = (world.text("source.raw"), world.text("nodir/m.prom"));
    let ran = world.replicate(&["--source", &source, "--metrics", &metrics]).await;
    let ran = ran.refused(7, &["m.prom", "a folder on the way"]);
    assert_eq!(ran.json()["status"], Value::from("failed"));
    assert!(!ran.err.contains(".tmp"), "{ran:?}");
    assert!(!world.path("data").exists());
}

async fn metrics_after() {
    let world = World::new();
    fs::create_dir(world.path("metrics")).unwrap();
    let _server = gated(&world).await;
    let (uri, metrics) = (world.uri("gated"), world.text("metrics/m.prom"));
    let child = world.oma(&replicate_args(&["--source", &uri, "--metrics", &metrics])).spawn().unwrap();
    until!("the run has begun", world.path("data/volumes").exists());
    // Removed it cannot be while a file is being written there.
    fs::rename(world.path("metrics"), world.path("moved")).unwrap();
    fs::write(world.path("go"), "").unwrap();
    let ran = finish(child).await.ok();
    assert!(ran.err.lines().any(|line| line.starts_with("warning: ") && line.contains("m.prom")), "{ran:?}");
    assert!(!ran.err.contains(".tmp"), "{ran:?}");
    let report = ran.json();
    assert_eq!(report["status"], Value::from("completed"));
    assert!(report["warnings"][0].as_str().unwrap().contains("m.prom"), "{report}");
}

async fn save_before() {
    let world = World::new();
    let (taken, far) = (world.text("taken.json"), world.text("nodir/report.json"));
    fs::write(&taken, "mine").unwrap();
    // There is not even a data directory to compare with.
    let verify =
        async |save: &str| world.run(&["verify", "--vm-path", VM, "--source", "a.raw", "--save", save]).await;
    verify(&taken).await.refused(2, &["taken.json", "another path"]);
    let ran = verify(&far).await.refused(7, &["report.json", "a folder on the way"]);
    assert!(!ran.err.contains(".tmp"), "{ran:?}");
    assert_eq!(fs::read_to_string(taken).unwrap(), "mine");
}

async fn save_after() {
    let world = World::new();
    let _server = gated(&world).await;
    let uri = world.uri("gated");
    fs::write(world.path("go"), "").unwrap();
    world.replicate(&["--source", &uri]).await.ok();
    let verify = async || {
        for name in ["go", "asked"] {
            fs::remove_file(world.path(name)).unwrap();
        }
        let (folder, save) = (world.path("reports"), world.text("reports/report.json"));
        fs::create_dir(&folder).unwrap();
        let args = ["--json", "verify", "--vm-path", VM, "--source", &uri, "--save", &save];
        let child = world.oma(&args).spawn().unwrap();
        until!("it compares", world.path("asked").exists());
        fs::remove_dir(&folder).unwrap();
        fs::write(world.path("go"), "").unwrap();
        finish(child).await
    };
    let ran = verify().await.refused(7, &["report.json", "a folder on the way"]);
    let report = ran.json();
    assert_eq!(report["status"], Value::from("identical"));
    assert!(report["error"].as_str().unwrap().contains("report.json"), "{report}");
    fs::write(world.path("source.raw"), vec![0x55; 1 << 20]).unwrap();
    let ran = verify().await.refused(3, &["differ"]);
    assert!(
        ran.err.lines().any(|line| line.starts_with("warning: ") && line.contains("report.json")),
        "{ran:?}"
    );
}

async fn files_to_read() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    let (source, copy, none) = (world.text("source.raw"), world.text("copy.raw"), world.text("none"));
    let folder = world.text("folder");
    fs::create_dir(&folder).unwrap();
    let read = async |path: &str, code: i32, words: &[&str]| {
        let limits = ["--source", &source, "--limits", path];
        world.replicate(&limits).await.refused(code, words);
        for args in [
            &["verify", "--report", path][..],
            &["copy", "--extents", path, &source, &copy],
            &["db", "import", path],
        ] {
            world.run(args).await.refused(code, words);
        }
    };
    read(&none, 7, &["none", "no such file"]).await;
    read(&folder, 2, &["folder", "name a file"]).await;
    assert!(!world.path("data").exists() && !world.path("copy.raw").exists());
}

async fn copies() {
    let world = World::new();
    let source = world.raw("source.raw", MIB, 1);
    std::os::unix::fs::symlink(&source, world.path("link.raw")).unwrap();
    let (from, to, link) = (world.text("source.raw"), world.text("copy.raw"), world.text("link.raw"));
    let journal = world.text("nodir/journal");
    let ran = world.run(&["copy", "--journal", &journal, &from, &to]).await;
    ran.refused(7, &["nodir/journal", "a folder on the way"]);
    assert!(!world.path("copy.raw").exists());
    for same in [&from, &link] {
        world.run(&["copy", "--overwrite", &from, same]).await.refused(2, &["the same", "another target"]);
    }
    world.run(&["copy", &from, &to]).await.ok();
}

async fn arguments() {
    let world = World::new();
    let told = async |args: &[&str], words: &[&str]| {
        let ran = world.run(&[&["--json"], args].concat()).await;
        assert_eq!(ran.code, 2, "{ran:#?}");
        let error = ran.json()["error"].to_string();
        for word in words {
            assert!(error.contains(word) && ran.err.contains(word), "{word:?} is not in {ran:#?}");
        }
    };
    told(&["replicate"], &["--vm-path", "--source"]).await;
    told(&["copy", "a.raw"], &["<TARGET>"]).await;
    told(&["serve", "a.raw", "--client", "foo:bar"], &["foo:bar", "dns, ip, email, uri, cn and uid"]).await;
    let vm = ["replicate", "--vm-path", VM, "--source"];
    told(&[&vm[..], &[""]].concat(), &["a value is required", "--source"]).await;
    told(&["copy", "a.raw", ""], &["a value is required", "TARGET"]).await;
    for none in [&["--json"][..], &["--json", "points"]] {
        let ran = world.run(none).await;
        assert!(ran.code == 2 && ran.err.contains("Usage:"), "{ran:?}");
        assert!(ran.json()["error"].as_str().unwrap().contains("name one of those"), "{ran:?}");
    }
    for step in ["0", "1", "1023KiB"] {
        told(&[&vm[..], &["a.raw", "--journal-step", step]].concat(), &["at least 1.0 MiB"]).await;
    }
    assert!(!world.path("data").exists());
}

async fn data_directories() {
    let world = World::new();
    world.run(&["key"]).await.refused(7, &["data", "--data-dir"]);
    assert!(!world.path("data").exists());
    fs::write(world.path("data"), "notes").unwrap();
    for command in ["disks", "jobs", "key"] {
        world.run(&[command]).await.refused(2, &["data", "no folder"]);
    }
    assert_eq!(fs::read_to_string(world.path("data")).unwrap(), "notes");
}

/// What a run does at SIGHUP while it copies. Whoever runs the tests may ignore that signal, and what they start inherits it.
async fn hung_up(how: &str) -> Ran {
    let world = World::new();
    let _server = gated(&world).await;
    let uri = world.uri("gated");
    let oma = world.oma(&replicate_args(&["--source", &uri]));
    let mut command = tokio::process::Command::new("env");
    command.arg(how).arg(oma.as_std().get_program()).args(oma.as_std().get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    until!("the database is made", world.path("data/volumes").exists());
    until!("a job replicates", {
        let ran = world.run(&["--json", "jobs"]).await;
        ran.code == 0 && ran.json().get(0).is_some_and(|job| job["status"] == "replicating")
    });
    signal(&child, "HUP").await;
    if how.starts_with("--ignore") {
        fs::write(world.path("go"), "").unwrap();
    }
    finish(child).await
}

async fn hang_up() {
    hung_up("--default-signal=HUP").await.refused(130, &["same command"]);
    hung_up("--ignore-signal=HUP").await.ok();
}

/// A shell passes on what the kernel has sent already.
async fn hung_up_twice() {
    let world = World::new();
    let _server = gated(&world).await;
    let uri = world.uri("gated");
    let oma = world.oma(&replicate_args(&["--source", &uri]));
    let mut command = tokio::process::Command::new("env");
    command.arg("--default-signal=HUP").arg(oma.as_std().get_program()).args(oma.as_std().get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    until!("it reads", world.path("asked").exists());
    signal(&child, "HUP").await;
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    while !told.next_line().await.unwrap().expect("it tells that it stops").starts_with("stopping") {}
    signal(&child, "HUP").await;
    let mut rest = String::new();
    let (read, ran) = tokio::join!(told.get_mut().read_to_string(&mut rest), finish(child));
    read.unwrap();
    // At the second signal of another kind there is no report.
    assert_eq!((ran.code, &ran.json()["status"]), (130, &Value::from("suspended")), "{ran:?} {rest}");
}

async fn quiet() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    let (source, vm) = (world.text("source.raw"), VM);
    let replicate = async |source: &str, more: &[&str]| {
        world.run(&[&["replicate", "--vm-path", vm, "--source", source][..], more].concat()).await
    };
    let _server = world.nbdkit("broken", &["eval", "get_size=echo 4M", "pread=exit 1"]).await;
    let ran = replicate(&world.uri("broken"), &[]).await;
    assert!(ran.code == 5 && ran.out.is_empty(), "{ran:?}");
    let told = |ran: &Ran, step: &str| ran.err.lines().any(|line| line == step);
    let ran = replicate(&source, &[]).await.ok();
    assert!(told(&ran, "copy") && !told(&ran, "verify") && !told(&ran, "snapshot"), "{ran:?}");
    let ran = replicate(&source, &["--verify", "full", "--keep-points", "1"]).await.ok();
    assert!(told(&ran, "verify") && told(&ran, "snapshot"), "{ran:?}");
    let mut log = world.oma(&["db", "migrate", "--data-dir", &world.text("other")]);
    let ran = finish(log.env("OMA_LOG", "info").spawn().unwrap()).await.ok();
    assert!(ran.err.contains("schema step applied") && !ran.err.contains('\u{1b}'), "{ran:?}");
}
