//! `oma users` and `oma audit`.

use std::fs::{self, File};

use oma_core::conformance::{Trial, trial};
use oma_store::servers::{Server, ServerEngine};
use serde_json::Value;

use crate::world::{MIB, Ran, World, finish};

pub(crate) fn trials() -> Vec<Trial> {
    let mariadb = [ServerEngine::MariaDb.required()];
    vec![
        trial("l29_a_user_has_a_password_and_tokens_and_none_of_them_is_kept", &[], user),
        trial("what_cannot_be_of_users_is_refused", &[], refused),
        trial("what_is_changed_without_a_daemon_is_in_the_trail_too", &[], changed),
        trial("audit_verify_names_the_entry_that_was_altered", &mariadb, altered),
    ]
}

/// Runs the program with a line on standard input.
async fn typed(world: &World, line: &str, args: &[&str]) -> Ran {
    let path = world.path("typed");
    fs::write(&path, line).unwrap();
    finish(world.oma(args).stdin(File::open(&path).unwrap()).spawn().unwrap()).await
}

async fn user() {
    let world = World::new();
    let add = ["users", "add", "Ada@Example.com", "--role", "admin", "--password-stdin"];
    typed(&world, "correct horse battery\n", &add).await.ok();
    let listed = world.run(&["--json", "users", "list"]).await.ok().json();
    assert_eq!(
        (&listed[0]["email"], &listed[0]["role"]),
        (&Value::from("ada@example.com"), &Value::from("admin"))
    );
    let made =
        world.run(&["users", "token", "ada@example.com", "--role", "viewer", "--days", "7"]).await.ok();
    let secret = made.out.trim_end();
    assert!(secret.starts_with("oma_") && secret.len() > 60, "{made:?}");
    let id = made.err.split_whitespace().find(|word| word.starts_with("tok-")).unwrap().trim_end_matches(',');
    world.run(&["users", "add", "eve@example.com", "--role", "viewer"]).await.ok();
    let listed = world.run(&["users", "tokens"]).await.ok().out;
    assert!(
        listed.contains(id) && listed.contains("ada@example.com") && !listed.contains(secret),
        "{listed}"
    );
    assert!(!world.run(&["users", "tokens", "eve@example.com"]).await.ok().out.contains(id));
    world.run(&["users", "tokens", "bob@example.com"]).await.refused(7, &["oma users list"]);
    assert!(world.run(&["users", "revoke", id]).await.ok().out.contains("is revoked since"));
    let tokens = world.run(&["--json", "users", "tokens", "ada@example.com"]).await.ok().json();
    assert!(tokens[0]["id"] == id && tokens[0]["revoked_at"].is_string(), "{tokens}");
    world
        .run(&["users", "change", "ada@example.com", "--role", "viewer"])
        .await
        .refused(4, &["no active admin"]);
    let trail = world.run(&["--json", "audit", "list"]).await.ok();
    let actions: Vec<_> = trail.json().as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert_eq!(
        actions,
        ["user.change failed", "user.change", "token.revoke", "user.create", "token.create", "user.create"]
    );
    let verified = world.run(&["audit", "verify"]).await.ok();
    assert!(verified.out.starts_with("6 entries are as they were recorded\nlast  6:"), "{}", verified.out);
    let known = verified.out.split_whitespace().last().unwrap();
    world.run(&["audit", "verify", "--known", known]).await.ok();
    let other = format!("6:{}", "0".repeat(64));
    world.run(&["audit", "verify", "--known", &other]).await.refused(8, &["entry 6 was altered"]);
    let files = ["data/oma.db", "data/oma.db-wal"].map(|name| fs::read(world.path(name)).unwrap_or_default());
    for hidden in [secret, "correct horse"] {
        let is_there = |bytes: &Vec<u8>| bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes());
        assert!(!files.iter().any(is_there) && !trail.out.contains(hidden), "{hidden}");
    }
}

async fn refused() {
    let world = World::new();
    let add = |email, role| ["users", "add", email, "--role", role];
    world.run(&add("no-address", "viewer")).await.refused(2, &[]);
    world.run(&add("a@b.c", "owner")).await.refused(2, &[]);
    let with_password = [&add("a@b.c", "viewer")[..], &["--password-stdin"]].concat();
    typed(&world, "short\n", &with_password).await.refused(2, &["12 characters"]);
    typed(&world, &"x".repeat(73), &with_password).await.refused(2, &["73 bytes"]);
    world.run(&add("a@b.c", "viewer")).await.ok();
    world.run(&add("A@B.C", "viewer")).await.refused(4, &["exists"]);
    world.run(&["users", "token", "a@b.c", "--role", "admin"]).await.refused(2, &["more than its user"]);
    world.run(&["users", "token", "nobody@b.c"]).await.refused(7, &["oma users list"]);
    world.run(&["users", "revoke", "tok-1"]).await.refused(7, &["tok-1"]);
    world.run(&["audit", "verify", "--known", "4"]).await.refused(2, &[]);
}

async fn changed() {
    let world = World::new();
    world.raw("disk.raw", MIB, 1);
    let source = world.text("disk.raw");
    let report = world.replicate(&["--source", source.as_str()]).await.ok().json();
    let volumes = world.run(&["--json", "volumes", "list"]).await.ok().json();
    let (job, volume) = (report["job_id"].as_str().unwrap(), volumes[0]["volume_id"].as_str().unwrap());
    world.run(&["volumes", "delete", volume]).await.refused(4, &["detach it first"]);
    world.run(&["volumes", "detach", volume]).await.ok();
    world.run(&["volumes", "delete", volume]).await.ok();
    world.run(&["volumes", "pardon", volume]).await.ok();
    world.run(&["cancel", job]).await.refused(4, &[job]);
    world.run(&["cleanup", job]).await.ok();
    let trail = world.run(&["--json", "audit", "list"]).await.ok().json();
    let told: Vec<_> = trail.as_array().unwrap().iter().rev().collect();
    let actions: Vec<_> = told.iter().map(|row| row["action"].as_str().unwrap()).collect();
    let expected = [
        "replication.run",
        "volume.delete",
        "volume.delete failed",
        "volume.detach",
        "volume.delete",
        "volume.pardon",
        "replication.cancel",
        "replication.cancel failed",
        "cleanup.plan",
    ];
    assert_eq!(actions, expected, "{trail}");
    assert_eq!((&told[1]["resource_id"], &told[6]["resource_id"]), (&Value::from(volume), &Value::from(job)));
    world.run(&["audit", "verify"]).await.ok();
}

async fn altered() {
    let world = World::new();
    let database = Server::shared(ServerEngine::MariaDb).await.unwrap().create_database().await.unwrap();
    let run = async |args: &[&str]| {
        finish(world.oma(args).env("OMA_DATABASE", database.url()).spawn().unwrap()).await
    };
    for email in ["ada@example.com", "eve@example.com"] {
        run(&["users", "add", email, "--role", "viewer"]).await.ok();
    }
    run(&["audit", "verify"]).await.ok();
    let alter = "UPDATE audit_logs SET resource_id = 'bob@example.com' WHERE id = 1";
    assert!(database.execute(alter).await.unwrap_err().to_string().contains("append only"));
    database.execute(&format!("DROP TRIGGER audit_logs_update; {alter}")).await.unwrap();
    let found = run(&["--json", "audit", "verify"]).await.refused(8, &["entry 1 was altered"]);
    assert_eq!(found.json()["broken"], "entry 1 was altered");
    run(&["db", "check"]).await.refused(8, &["1 contradiction"]);
}
