//! `oma copy` between files and exports.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use oma_core::conformance::{Requirement, Trial, trial};
use serde_json::Value;

use crate::pki::Pki;
use crate::serve::start;
use crate::world::{MIB, VM, World, assert_same, finish, number, replicate_args, signal, until};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("copy_makes_a_file_and_says_where_the_time_went", &[], makes_a_file),
        trial("copy_pushes_into_an_export_with_tls", &[], pushes_into_an_export),
        trial("copy_zeroes_what_a_target_held", &[], zeroes_what_a_target_held),
        trial("copy_writes_over_no_file_unasked", &[], writes_over_nothing_unasked),
        trial("copy_repairs_an_older_copy_behind_an_export", &[], repairs_an_export),
        trial("copy_brings_over_only_the_extents_of_a_file", &[], only_extents),
        trial("copy_keeps_its_bandwidth", &[], keeps_its_bandwidth),
        trial("limits_of_a_file_bound_a_replication", &[], limits_of_a_file),
        trial("l08_a_file_that_is_written_while_it_is_copied_is_no_epoch", &[], written_meanwhile),
        trial(
            "metrics_of_a_run_that_goes_on_tell_how_far_it_is",
            &[Requirement::Program("qemu-nbd")],
            metrics_while_a_run_goes_on,
        ),
        trial("metrics_of_a_run_are_a_file_for_a_collector", &[], metrics_of_a_run),
        trial("forecast_needs_two_incremental_epochs", &[], forecast_needs_epochs),
        trial("copy_tells_what_is_wrong", &[], tells_what_is_wrong),
    ]
}

async fn makes_a_file() {
    let world = World::new();
    let source = world.raw("source.raw", 16 * MIB, 1);
    let (from, to) = (world.text("source.raw"), world.text("copy.raw"));
    // The temporary folder may lie on a file system that shares blocks.
    let report = world.run(&["--json", "copy", "--reflink", "never", &from, &to]).await.ok().json();
    assert_same(&source, &world.path("copy.raw"));
    assert_eq!((number(&report["bytes_total"]), number(&report["bytes_written"])), (16 * MIB, 8 * MIB));
    let stages = report["explanation"]["stage_seconds"].as_object().unwrap();
    assert!(stages["read"].as_f64().unwrap() > 0.0 && stages["write"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["explanation"]["bottleneck"].is_string());
    assert!(!world.path("data").exists(), "nothing is recorded");
}

async fn pushes_into_an_export() {
    let (world, pki) = (World::new(), Pki::new());
    let source = world.raw("source.raw", 16 * MIB, 1);
    let target = world.full("target.raw", 16 * MIB);
    let (file, directory) = (world.text("target.raw"), pki.folder().display().to_string());
    let args = [&file, "--listen", "127.0.0.1:0", "--tls-certificates", &directory, "--client", "cn:agent"];
    let (child, uri) = start(&world, &args).await;
    let uri = format!("{uri}?tls-certificates={directory}&tls-hostname=localhost");
    world.run(&["copy", &world.text("source.raw"), &uri]).await.ok();
    // It is flushed: what the file holds when the server is killed is the copy.
    signal(&child, "KILL").await;
    finish(child).await;
    assert_same(&source, &target);
}

async fn zeroes_what_a_target_held() {
    let world = World::new();
    let source = world.raw("source.raw", 4 * MIB, 1);
    let target = world.full("target.raw", 4 * MIB);
    world.run(&["copy", "--overwrite", &world.text("source.raw"), &world.text("target.raw")]).await.ok();
    assert_same(&source, &target);
    let larger = world.full("larger.raw", 5 * MIB);
    let (before, to) = (fs::read(&larger).unwrap(), world.text("larger.raw"));
    let ran = world.run(&["copy", "--overwrite", &world.text("source.raw"), &to]).await.ok();
    assert!(ran.err.contains("behind 4.0 MiB stays"), "{ran:?}");
    let (after, end) = (fs::read(&larger).unwrap(), 4 << 20);
    assert!(after[..end] == fs::read(&source).unwrap() && after[end..] == before[end..]);
}

async fn writes_over_nothing_unasked() {
    let world = World::new();
    let source = world.raw("source.raw", 4 * MIB, 1);
    let target = world.full("target.raw", 4 * MIB);
    let before = fs::read(&target).unwrap();
    let copy = async |to: &str| world.run(&["copy", &world.text("source.raw"), &world.text(to)]).await;
    copy("target.raw").await.refused(4, &["target.raw", "--overwrite"]);
    assert!(fs::read(&target).unwrap() == before);
    // What is empty, or a hole all over, was made for it.
    fs::write(world.path("empty.raw"), "").unwrap();
    File::create(world.path("blank.raw")).unwrap().set_len(4 * MIB).unwrap();
    for made in ["empty.raw", "blank.raw", "new.raw"] {
        copy(made).await.ok();
        assert_same(&source, &world.path(made));
        copy(made).await.refused(4, &[made, "--overwrite"]);
    }
}

async fn repairs_an_export() {
    let world = World::new();
    let source = world.full("source.raw", 16 * MIB);
    let (from, file) = (world.text("source.raw"), world.text("target.raw"));
    fs::copy(&source, world.path("target.raw")).unwrap();
    let edit = |path: &Path, at, bytes: &[u8]| {
        File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
    };
    edit(&world.path("target.raw"), 3 << 20, &[0; 4096]);
    edit(&world.path("target.raw"), (9 << 20) - 1, b"xy");
    let both = world.run(&["copy", "--repair", "--blank", &from, &file]).await;
    assert!(both.code == 2 && both.err.contains("'--repair' cannot be used with '--blank'"), "{both:?}");

    let (child, uri) = start(&world, &[&file, "--socket", &world.text("socket")]).await;
    let line = ["--json", "copy", "--repair", "--verify", "full", &from, &uri];
    let report = world.run(&line).await.ok().json();
    let bytes = |name: &str| number(&report[name]);
    assert_eq!((bytes("bytes_written"), bytes("bytes_equal")), (3 * 4096, 16 * MIB - 3 * 4096), "{report}");
    assert_eq!((bytes("bytes_total"), bytes("bytes_verified")), (16 * MIB, 16 * MIB), "{report}");
    assert!(report["explanation"]["stage_seconds"]["hash"].as_f64().unwrap() > 0.0, "{report}");
    signal(&child, "KILL").await;
    finish(child).await;
    assert_same(&source, &world.path("target.raw"));
    let told = world.run(&["copy", "--repair", "--verify", "sample=9", &from, &file]).await.ok();
    assert!(told.out.contains("16.0 MiB of it were equal"), "{told:?}");
    assert!(told.out.contains("576.0 KiB compared and equal"), "{told:?}");
}

async fn only_extents() {
    let world = World::new();
    world.full("source.raw", MIB);
    let (from, to, list) = (world.text("source.raw"), world.text("copy.raw"), world.text("extents"));
    fs::write(world.path("extents"), "4096 512\n8192 1\n").unwrap();
    world.run(&["copy", "--extents", &list, &from, &to]).await.ok();
    let (source, copy) =
        (fs::read(world.path("source.raw")).unwrap(), fs::read(world.path("copy.raw")).unwrap());
    assert!(copy[4096..4608] == source[4096..4608] && copy[8192] == source[8192]);
    let others = copy.iter().enumerate().filter(|(at, _)| !(4096..4608).contains(at) && *at != 8192);
    assert!(copy.len() == source.len() && others.into_iter().all(|(_, byte)| *byte == 0));
    fs::write(world.path("extents"), "4096 512\nx 1\n").unwrap();
    world.run(&["copy", "--extents", &list, &from, &to]).await.refused(2, &["extents", "line 2", "\"x\""]);
}

async fn keeps_its_bandwidth() {
    let world = World::new();
    world.full("source.raw", 6 * MIB);
    let (from, to) = (world.text("source.raw"), world.text("copy.raw"));
    let report = world.run(&["--json", "copy", "--bandwidth", "4MiB", &from, &to]).await.ok().json();
    assert!(report["seconds"].as_f64().unwrap() >= 1.2, "{report}");
    assert_eq!(report["explanation"]["bottleneck"], Value::from("wait"));
}

async fn tells_what_is_wrong() {
    let world = World::new();
    world.raw("source.raw", 4 * MIB, 1);
    world.raw("small.raw", MIB, 1);
    let text = |name: &str| world.text(name);
    let copy = async |from: &str, to: &str| world.run(&["copy", from, to]).await;
    copy(&text("source.raw"), &text("small.raw")).await.refused(2, &["small.raw", "as large"]);
    copy(&text("missing.raw"), &text("copy.raw")).await.refused(7, &["missing.raw"]);
    assert!(!world.path("copy.raw").exists(), "no target is made for a source that is not there");
    copy(&text("source.raw"), &text("no/such/copy.raw")).await.refused(7, &["copy.raw"]);
    let before = fs::read(world.path("source.raw")).unwrap();
    copy(&text("source.raw"), &text("source.raw"))
        .await
        .refused(2, &["source.raw", "the same", "another target"]);
    assert!(fs::read(world.path("source.raw")).unwrap() == before);
    copy(&text("source.raw"), "nbd://127.0.0.1:1/x").await.refused(5, &["127.0.0.1:1"]);
}

async fn limits_of_a_file() {
    let world = World::new();
    world.full("source.raw", 6 * MIB);
    let (source, limits) = (world.text("source.raw"), world.text("limits.json"));
    let replicate = async |text: &str| {
        fs::write(world.path("limits.json"), text).unwrap();
        world.replicate(&["--source", &source, "--limits", &limits]).await
    };
    let report = replicate(r#"{ "link": { "bandwidth": 4194304 } }"#).await.ok().json();
    assert!(report["seconds"].as_f64().unwrap() >= 1.2, "{report}");
    assert_eq!(report["disks"][0]["explanation"]["bottleneck"], Value::from("wait"));
    let verify = async |text: &str| {
        fs::write(world.path("limits.json"), text).unwrap();
        let args = ["verify", "--vm-path", VM, "--source", &source, "--distrust-zeroes", "--limits", &limits];
        world.run(&args).await
    };
    let text = r#"{ "link": { "bandwidth": 4194304 }, "hosts": { "direkt": { "operations": 1 } } }"#;
    let begun = Instant::now();
    let told = verify(text).await.ok();
    // The second stretch, of 2 MiB, waits for the first of 4.
    assert!(begun.elapsed().as_secs_f64() >= 1.0, "{told:?}");
    assert!(told.err.contains("hosts.direkt is on the way of no disk"), "{told:?}");
    verify(r#"{ "link": { "operations": 0 } }"#).await.refused(2, &["limits.json", "zero"]);
    replicate(r#"{ "link": { "bandwidth": 0 } }"#).await.refused(2, &["limits.json", "zero"]);
    replicate(r#"{ "lonk": {} }"#).await.refused(2, &["limits.json", "lonk"]);
}

async fn written_meanwhile() {
    let world = World::new();
    let source = world.full("source.raw", 12 * MIB);
    fs::write(world.path("limits.json"), r#"{ "link": { "bandwidth": 4194304 } }"#).unwrap();
    let (text, limits, copy) = (world.text("source.raw"), world.text("limits.json"), world.text("copy.raw"));
    let replicate = ["--source", &text, "--limits", &limits];
    let write = || File::options().write(true).open(&source).unwrap().write_all_at(b"later", 0).unwrap();

    let child = world.oma(&replicate_args(&replicate)).spawn().unwrap();
    until!("a job replicates", {
        let ran = world.run(&["--json", "jobs"]).await;
        ran.code == 0 && ran.json().get(0).is_some_and(|job| job["status"] == "replicating")
    });
    write();
    finish(child).await.refused(4, &["source.raw", "while it was copied"]);
    assert_eq!(world.change_id("disk-2000").await, None);
    world.replicate(&["--source", &text]).await.ok();
    assert_same(&source, &world.volume("disk-2000").await);

    let child = world.oma(&["copy", "--bandwidth", "4MiB", &text, &copy]).spawn().unwrap();
    until!("the copy has begun", fs::metadata(&copy).is_ok_and(|about| about.blocks() > 0));
    write();
    finish(child).await.refused(4, &["source.raw", "while it was copied"]);
}

async fn forecast_needs_epochs() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    let forecast = async || world.run(&["forecast", "--vm-path", VM]).await;
    forecast().await.refused(7, &["replicates first"]);
    world.replicate(&["--source", &world.text("source.raw")]).await.ok();
    forecast().await.refused(7, &["two incremental epochs"]);
    let unknown = world.run(&["forecast", "--vm-path", "/DC/vm/other"]).await;
    unknown.refused(7, &["/DC/vm/other", "no such VM", "oma disks"]);
}

async fn metrics_while_a_run_goes_on() {
    let world = World::new();
    world.full("source.raw", 32 * MIB);
    let (uri, metrics) = (world.uri("slow"), world.path("oma.prom"));
    let done = format!("oma_replication_progress_bytes{{vm=\"{VM}\",disk=\"disk-2000\",kind=\"done\"}} ");
    let done =
        |text: &str| text.lines().find_map(|line| line.strip_prefix(&done)).map(|number| number != "0");
    let runs = |number: u8| format!("oma_replication_running{{vm=\"{VM}\"}} {number}\n");
    let now = || fs::read_to_string(&metrics).unwrap_or_default();
    let server = world.slow_nbd("slow", "source.raw", 6).await;
    let file = metrics.display().to_string();
    let args = replicate_args(&["--source", &uri, "--metrics", &file]);
    let child = world.oma(&args).spawn().unwrap();
    let mut text;
    until!("metrics tell how far it is", {
        text = now();
        done(&text) == Some(true)
    });
    assert!(text.contains(&runs(1)), "{text}");
    signal(&child, "TERM").await;
    finish(child).await.refused(130, &["same command"]);
    server.stop().await;
    let ended = now();
    assert!(ended.contains(&runs(0)) && ended.contains("oma_replication_committed"), "{ended}");
    assert_eq!(done(&ended), None, "{ended}");
    // One without a report leaves what the last one told: nothing was committed by either.
    world.run(&args).await.refused(5, &["slow.sock"]);
    assert_eq!(now(), ended);
}

async fn metrics_of_a_run() {
    let world = World::new();
    world.raw("source.raw", 4 * MIB, 1);
    let (source, metrics) = (world.text("source.raw"), world.text("oma.prom"));
    world.replicate(&["--source", &source, "--metrics", &metrics]).await.ok();
    let text = fs::read_to_string(world.path("oma.prom")).unwrap();
    let line =
        format!("oma_replication_disk_bytes{{vm=\"{VM}\",disk=\"disk-2000\",kind=\"written\"}} {}", 2 * MIB);
    assert!(text.lines().any(|found| found == line), "{text}");
    world.replicate(&["--source", &source, "--metrics", &metrics]).await.ok();
    assert!(
        fs::read_to_string(world.path("oma.prom"))
            .unwrap()
            .contains("oma_replication_epoch{vm=\"/DC/vm/web01\"} 2")
    );
    let committed = fs::read_to_string(world.path("oma.prom")).unwrap();
    world
        .replicate(&["--source", &world.text("none.raw"), "--metrics", &metrics])
        .await
        .refused(7, &["none.raw"]);
    let failed = fs::read_to_string(world.path("oma.prom")).unwrap();
    let line = |of: u8| format!("oma_replication_committed{{vm=\"{VM}\"}} {of}\n");
    assert!(committed.contains(&line(1)) && failed == committed.replace(&line(1), &line(0)), "{failed}");
    let disk = fs::read(world.path("source.raw")).unwrap();
    world.replicate(&["--source", &source, "--metrics", &source]).await.refused(4, &["no file of metrics"]);
    assert!(fs::read(world.path("source.raw")).unwrap() == disk, "the disk is there");
    let far = world.text("no/such/oma.prom");
    world.replicate(&["--source", &source, "--metrics", &far]).await.refused(7, &["oma.prom"]);
}
