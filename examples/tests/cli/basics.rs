//! What every user does: replicate a file, list, ask for the change id, verify.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use oma_core::conformance::{Trial, trial};
use serde_json::Value;

use crate::world::{MIB, VM, World, assert_same, number};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_file_becomes_a_volume_with_the_same_bytes", &[], a_file_becomes_a_volume),
        trial("disks_names_what_the_database_knows", &[], disks_names_what_the_database_knows),
        trial("logs_prints_what_is_told_of_a_job", &[], logs_prints_what_is_told_of_a_job),
        trial("jobs_lists_by_state_and_vm_from_either_end", &[], jobs_lists_by_state_and_vm_from_either_end),
        trial("change_id_prints_what_was_committed", &[], change_id_prints_what_was_committed),
        trial("verify_names_each_extent_that_differs", &[], verify_names_each_extent_that_differs),
        trial("two_disks_share_one_epoch", &[], two_disks_share_one_epoch),
        trial("verify_full_is_part_of_the_epoch", &[], verify_full_is_part_of_the_epoch),
        trial("l14_a_report_is_stored_signed_and_checked_offline", &[], a_report_is_checked_offline),
        trial("a_sample_is_compared_and_reported_as_one", &[], a_sample_is_compared_and_reported_as_one),
        trial("every_shell_has_completions", &[], every_shell_has_completions),
    ]
}

async fn a_file_becomes_a_volume() {
    let world = World::new();
    let source = world.raw("source.raw", 16 * MIB, 1);
    // The temporary folder may lie on a file system that shares blocks.
    let args = ["--source", &world.text("source.raw"), "--reflink", "never"];
    let report = world.replicate(&args).await.ok().json();
    assert_eq!((&report["status"], &report["epoch"]), (&Value::from("completed"), &Value::from(1)));
    assert!(report["job_id"].as_str().unwrap().starts_with("job-"));
    let disk = &report["disks"][0];
    assert_eq!((&disk["disk_key"], &disk["mode"]), (&Value::from("disk-2000"), &Value::from("initial")));
    assert_eq!(number(&disk["bytes_written"]), 8 * MIB);
    assert_eq!(number(&disk["bytes_zero"]), 8 * MIB);
    assert!(number(&disk["bytes_read"]) <= 12 * MIB, "a hole was read");
    assert_same(&source, &world.volume("disk-2000").await);
    let mode = world.path("data").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

async fn disks_names_what_the_database_knows() {
    let world = World::new();
    world.raw("source.raw", 4 * MIB, 1);
    world.replicate(&["--source", &world.text("source.raw"), "--change-id", "b0"]).await.ok();
    let rows = world.disks().await;
    let row = &rows[0];
    assert_eq!(rows.len(), 1);
    let expected = [
        ("vm_path", Value::from(VM)),
        ("disk_key", Value::from("disk-2000")),
        ("capacity_bytes", Value::from(4 * MIB)),
        ("change_id", Value::from("b0")),
        ("epoch", Value::from(1)),
        // It left the first one with its first epoch.
        ("generation", Value::from(2)),
        ("sync_status", Value::from("completed")),
        ("bytes_synced", Value::from(4 * MIB)),
    ];
    for (name, value) in expected {
        assert_eq!(row[name], value, "{name}");
    }
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    assert_eq!((&jobs[0]["status"], &jobs[0]["vm_path"]), (&Value::from("completed"), &Value::from(VM)));
    let table = world.run(&["disks"]).await.ok().out;
    assert!(table.contains(VM) && table.contains("b0"), "{table}");
}

async fn logs_prints_what_is_told_of_a_job() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    world.replicate(&["--source", &world.text("source.raw")]).await.ok();
    let jobs = world.run(&["--json", "jobs"]).await.ok().json();
    let job = jobs[0]["job_id"].as_str().unwrap();
    let lines = world.run(&["logs", job]).await.ok().out;
    let last = lines.lines().last().unwrap();
    assert!(last.ends_with("INFO  -         epoch 1 is committed"), "{lines}");
    assert!(lines.contains(" INFO  plan      disk disk-2000: initial, "), "{lines}");
    // It has ended: nothing more comes.
    assert_eq!(world.run(&["logs", "--follow", job]).await.ok().out, lines);
    let rows = world.run(&["--json", "logs", job, "--step", "4"]).await.ok().json();
    assert_eq!(rows[0]["fields"]["disk"], Value::from("disk-2000"));
    assert_eq!(
        world.run(&["--json", "logs", job, "--level", "ERROR"]).await.ok().json(),
        Value::from(vec![0; 0])
    );
    let steps = world.run(&["--json", "logs", job, "--steps"]).await.ok().json();
    let names: Vec<_> = steps.as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names.first().zip(names.last()), Some((&"freeze", &"commit")));
    assert!(world.run(&["logs", job, "--steps"]).await.ok().out.contains("completed"));
    world.run(&["logs", "job-none"]).await.refused(7, &["oma jobs"]);
    assert_eq!(world.run(&["logs", job, "--level", "loud"]).await.code, 2);
}

async fn jobs_lists_by_state_and_vm_from_either_end() {
    let world = World::new();
    world.raw("source.raw", MIB, 1);
    for _ in 0..3 {
        world.replicate(&["--source", &world.text("source.raw")]).await.ok();
    }
    let listed = async |args: &[&str]| -> Vec<Value> {
        let rows = world.run(&[&["--json", "jobs"], args].concat()).await.ok().json();
        rows.as_array().unwrap().iter().map(|job| job["epoch"].clone()).collect()
    };
    let epochs = |epochs: &[u64]| epochs.iter().copied().map(Value::from).collect::<Vec<_>>();
    assert_eq!(listed(&["--status", "completed"]).await, epochs(&[3, 2, 1]));
    assert_eq!(listed(&["--status", "failed,completed", "--order", "oldest"]).await, epochs(&[1, 2, 3]));
    assert_eq!(listed(&["--limit", "2", "--vm-path", VM]).await, epochs(&[3, 2]));
    assert_eq!(listed(&["--limit", "1", "--order", "oldest"]).await, epochs(&[1]));
    for none in [&["--status", "failed"], &["--vm-path", "/DC/vm/other"]] {
        assert_eq!(listed(none).await, epochs(&[]), "{none:?}");
    }
    assert_eq!(listed(&["--live"]).await, epochs(&[]));
    for wrong in [["--status", "broken"], ["--order", "random"]] {
        assert_eq!(world.run(&[&["jobs"], &wrong[..]].concat()).await.code, 2, "{wrong:?}");
    }
}

async fn change_id_prints_what_was_committed() {
    let id = "52 3c ec 11 9e 2c 4c 3d-87 4a c3 4e 85 f2 ea 95/446";
    let world = World::new();
    world.run(&["change-id", "--vm-path", VM]).await.refused(7, &["replicate"]);
    world.raw("a.raw", MIB, 1);
    world.replicate(&["--source", &world.text("a.raw"), "--change-id", id]).await.ok();
    let ask = ["change-id", "--vm-path", VM];
    assert_eq!(world.run(&ask).await.ok().out, format!("{id}\n"));
    let one = world.run(&["--json", "change-id", "--vm-path", VM, "--disk-key", "disk-2000"]).await.ok();
    assert_eq!(one.json()["change_id"], Value::from(id));
    let all = world.run(&["--json", "change-id", "--vm-path", VM]).await.ok();
    assert_eq!(all.json()[0]["change_id"], Value::from(id));
    world.run(&["change-id", "--vm-path", "/DC/vm/other"]).await.refused(7, &["/DC/vm/other"]);
}

async fn verify_names_each_extent_that_differs() {
    let world = World::new();
    let source = world.raw("source.raw", 4 * MIB, 1);
    let disk = ["--vm-path", VM, "--source", &world.text("source.raw")].map(str::to_owned);
    let disk: Vec<&str> = disk.iter().map(String::as_str).collect();
    world.run(&[&["verify"], &disk[..]].concat()).await.refused(7, &["replicate"]);
    world.run(&[&["replicate"], &disk[..]].concat()).await.ok();
    let ran = world.run(&[&["verify"], &disk[..]].concat()).await.ok();
    assert!(ran.err.lines().any(|line| line.ends_with("disk-2000: compares 4.0 MiB")), "{ran:?}");
    let file = OpenOptions::new().write(true).open(source).unwrap();
    file.write_all_at(b"other", MIB + 4096).unwrap();
    let ran = world.run(&[&["--json", "verify"], &disk[..]].concat()).await.refused(3, &["differ"]);
    let report = ran.json();
    assert_eq!(report["status"], Value::from("differs"));
    assert_eq!(report["disks"][0]["differences"], serde_json::json!([[MIB + 4096, 4096]]));
}

async fn two_disks_share_one_epoch() {
    let world = World::new();
    let (one, two) = (world.raw("a,b=c.raw", 2 * MIB, 1), world.raw("two.raw", 3 * MIB, 2));
    let first = format!("disk-2000={},change-id=b0", one.display());
    let second = format!("disk-2001={}", two.display());
    let report = world.replicate(&["--disk", &first, "--disk", &second]).await.ok().json();
    assert_eq!(report["disks"].as_array().unwrap().len(), 2);
    assert_same(&one, &world.volume("disk-2000").await);
    assert_same(&two, &world.volume("disk-2001").await);
    let lines = world.run(&["change-id", "--vm-path", VM]).await.ok().out;
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], "disk-2000\tb0");
    assert!(lines[1].starts_with("disk-2001\toma-"), "{lines:?}");
    assert!(world.disks().await.iter().all(|row| row["epoch"] == 1));
    let left_out = "disk disk-2001 is left out and stays at epoch 1";
    let ran = world.replicate(&["--disk", &first]).await.ok();
    assert_eq!(ran.json()["warnings"], serde_json::json!([left_out]));
    assert!(ran.err.lines().any(|line| line == format!("warning: {left_out}")), "{ran:?}");
}

async fn verify_full_is_part_of_the_epoch() {
    let world = World::new();
    world.raw("source.raw", 4 * MIB, 1);
    let source = world.text("source.raw");
    let ran = world.replicate(&["--source", &source, "--verify", "full"]).await.ok();
    assert!(ran.err.lines().any(|line| line.ends_with("disk-2000: compares 4.0 MiB")), "{ran:?}");
    let full = ran.json();
    let disk = &full["disks"][0];
    assert_eq!(number(&disk["bytes_verified"]), 4 * MIB);
    assert_eq!(number(&disk["bytes_hashed"]) + number(&disk["bytes_promised_zero"]), 4 * MIB);
    assert!(disk["explanation"]["stage_seconds"]["hash"].as_f64().unwrap() > 0.0, "{disk}");
    let none = world.replicate(&["--source", &source]).await.ok().json();
    assert_eq!((&none["epoch"], &none["disks"][0]["bytes_verified"]), (&Value::from(2), &Value::Null));
}

async fn a_report_is_checked_offline() {
    let world = World::new();
    let (path, source, [report, changed]) = (
        world.raw("source.raw", 4 * MIB, 1),
        world.text("source.raw"),
        ["r.json", "changed.json"].map(|name| world.text(name)),
    );
    let full = world.replicate(&["--source", &source, "--verify", "full"]).await.ok().json();
    let job = full["job_id"].as_str().unwrap();
    let key = world.run(&["key"]).await.ok().out.trim().to_owned();
    let stored = world.run(&["--json", "report", job, "--save", &report]).await.ok().json();
    assert_eq!(stored["seal"]["public_key"], Value::from(key.as_str()));
    assert_eq!(
        (&stored["report"]["job"], &stored["report"]["scope"]["level"]),
        (&Value::from(job), &Value::from("full"))
    );
    // Elsewhere: nothing but the report, the key and the files.
    let elsewhere = World::new();
    let volume = world.volume("disk-2000").await.display().to_string();
    let check = async |file: &str, more: &[&str]| {
        elsewhere.run(&[&["verify", "--report", file][..], more].concat()).await
    };
    let with_key = ["--public-key", &key, "--source", &source, "--volume", &volume];
    check(&report, &with_key).await.ok();
    check(&report, &[]).await.refused(7, &["oma key"]);
    check(&report, &["--public-key", &"5".repeat(64)]).await.refused(1, &["was signed with the key"]);
    let text = fs::read_to_string(&report).unwrap();
    for (from, to, code, word) in [
        ("\"epoch\":1", "\"epoch\":2", 8, "was changed"),
        ("\"version\":2", "\"version\":3", 2, "version 3"),
        ("}", "", 8, "no whole report"),
    ] {
        fs::write(&changed, text.replacen(from, to, 1)).unwrap();
        check(&changed, &["--public-key", &key]).await.refused(code, &[word]);
    }
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"other", MIB).unwrap();
    check(&report, &with_key).await.refused(3, &["its root is"]);
    // A verification by itself tells of the difference, and so does its report.
    let second = world.text("second.json");
    let differs = ["verify", "--vm-path", VM, "--source", &source, "--save", &second];
    world.run(&differs).await.refused(3, &["differ"]);
    check(&second, &["--public-key", &key]).await.refused(3, &["source and volume differ"]);
    // Nothing is replaced, and nothing compared for it.
    let before = fs::read(&second).unwrap();
    let ran = world.run(&differs).await.refused(2, &["second.json", "another path"]);
    assert!(!ran.err.contains("compar"), "{ran:?}");
    assert!(fs::read(&second).unwrap() == before);
    world.run(&["report", "job-20200101-000000-aaaaaa"]).await.refused(7, &["there is no such job"]);
}

async fn a_sample_is_compared_and_reported_as_one() {
    let world = World::new();
    world.raw("source.raw", 4 * MIB, 1);
    let source = world.text("source.raw");
    let sampled = world.replicate(&["--source", &source, "--verify", "sample=3"]).await.ok().json();
    assert_eq!(number(&sampled["disks"][0]["bytes_verified"]), 3 * 65_536);
    let job = sampled["job_id"].as_str().unwrap();
    let shown = world.run(&["report", job]).await.ok().out;
    assert!(shown.contains("sample of 3") && !shown.contains("whole disk"), "{shown}");
    let none = world.replicate(&["--source", &source]).await.ok().json();
    let none = none["job_id"].as_str().unwrap();
    world.run(&["report", none]).await.refused(7, &["--verify none"]);
    let wrong = ["verify", "--vm-path", VM, "--source", &source, "--level", "changed"];
    world.run(&wrong).await.refused(2, &["there is no epoch"]);
}

async fn every_shell_has_completions() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run(&["completions", shell]).await.ok().out;
        assert!(script.contains("replicate") && script.contains("change-id"), "{shell}");
    }
}
