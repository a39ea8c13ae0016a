//! `oma users` and `oma audit` as clients.

use std::fs::{self, File};
use std::process::Output;

use serde_json::{Value, json};

use super::refused;
use super::volumes::{asked, with_roles};
use crate::push::write_private;
use crate::world::World;

const PASSWORD: &str = "correct horse battery";
const ADD: [&str; 6] = ["users", "add", "Ada@Example.com", "--role", "admin", "--password-stdin"];

fn text(done: &Output) -> String {
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout.clone()).unwrap()
}

impl World {
    /// `oma` on the data directory, with a line on standard input.
    async fn typed(&self, line: &str, args: &[&str]) -> Output {
        fs::write(self.path("typed"), format!("{line}\n")).unwrap();
        let mut command = self.oma(args);
        command.stdin(File::open(self.path("typed")).unwrap()).args(["--data-dir", &self.text("data")]);
        command.output().await.unwrap()
    }
}

/// What was done to users and tokens, the first first.
fn actions(trail: &Value) -> Vec<&str> {
    let rows = trail.as_array().unwrap().iter().rev();
    let ours = rows.filter(|row| row["actor"] == json!("owner of the data directory"));
    ours.map(|row| row["action"].as_str().unwrap()).collect()
}

pub(super) async fn asks() {
    let world = World::of_appliance();
    let daemon = world.serves().await;
    let added = world.typed(PASSWORD, &ADD).await;
    assert!(text(&added).contains("ada@example.com"), "{added:?}");
    let users = world.told_well(&["users", "list"]).await;
    let ada =
        users.as_array().unwrap().iter().find(|user| user["email"] == json!("ada@example.com")).unwrap();
    assert_eq!((&ada["role"], &ada["is_active"]), (&json!("admin"), &json!(true)));

    let made = world.told(&["users", "token", "ada@example.com", "--days", "7"]).await;
    let secret = text(&made).trim_end().to_owned();
    assert!(secret.starts_with("oma_") && secret.len() > 60);
    write_private(&world.text("token"), &secret);
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    let id = said.split_whitespace().find(|word| word.starts_with("tok-")).unwrap().trim_end_matches(',');
    let api = daemon.addresses[1].clone();
    let as_ada = async |args: &[&str]| {
        let token = world.text("token");
        let place = ["--api", &api, "--token-file", &token, "--data-dir", "/nowhere"];
        world.oma(args).args(place).output().await.unwrap()
    };
    assert!(text(&as_ada(&["users", "list"]).await).contains("ada@example.com"));
    let tokens = as_ada(&["users", "tokens", "ada@example.com", "--json"]).await;
    let tokens: Value = serde_json::from_str(&text(&tokens)).unwrap();
    assert!(tokens.as_array().unwrap().len() == 1 && tokens[0]["id"] == json!(id), "{tokens}");
    let all = text(&world.told(&["users", "tokens"]).await);
    assert!(all.contains(id) && all.contains("admin@localhost") && !all.contains(&secret), "{all}");
    // Its own token: nobody tells it anything afterwards.
    let revoked = as_ada(&["users", "revoke", id, "--json"]).await;
    let row: Value = serde_json::from_str(&text(&revoked)).unwrap();
    assert!(row["id"] == json!(id) && row["revoked_at"].is_string(), "{row}");
    refused(&as_ada(&["users", "list"]).await, 1, "nobody has this token");
    let again = text(&world.told(&["users", "revoke", id]).await);
    assert!(again.starts_with(&format!("token {id} is revoked since 20")), "{again}");

    let changed = world.told_well(&["users", "change", "ada@example.com", "--role", "viewer"]).await;
    assert_eq!((&changed[0]["id"], &changed[0]["role"]), (&ada["id"], &json!("viewer")));
    let new = ["users", "change", "ada@example.com", "--active", "false", "--password-stdin"];
    assert!(text(&world.typed("another long passphrase", &new).await).contains("no"));

    let trail = world.told_well(&["audit", "list"]).await;
    let expected =
        ["user.create", "token.create", "token.revoke", "user.change", "user.change"].map(str::to_owned);
    assert_eq!(actions(&trail), expected, "{trail}");
    let by_ada = world.told_well(&["audit", "list", "--actor", "ada@example.com"]).await;
    assert_eq!(by_ada[0]["action"], json!("token.revoke"), "{by_ada}");
    let newest = trail[0]["id"].as_u64().unwrap();
    let before = ["audit", "list", "--before", &newest.to_string(), "--limit", "1"].map(str::to_owned);
    let before = world.told_well(&before.each_ref().map(String::as_str)).await;
    assert_eq!((before.as_array().unwrap().len(), &before[0]), (1, &trail[1]));

    let verified = text(&world.told(&["audit", "verify"]).await);
    let known = verified.split_whitespace().last().unwrap();
    assert!(known.starts_with(&format!("{newest}:")), "{verified}");
    assert!(world.told(&["audit", "verify", "--known", known]).await.status.success());
    let other = format!("{newest}:{}", "0".repeat(64));
    refused(&world.told(&["audit", "verify", "--known", &other]).await, 8, "was altered; docs/database.md");
    let alone = ["audit", "verify", "--embedded"];
    assert_eq!(text(&world.told(&alone).await), verified, "it is one trail, told alike");
    let told = text(&world.told(&["audit", "list"]).await);
    assert_eq!(told, text(&world.told(&["audit", "list", "--embedded"]).await));

    let ran = daemon.stop().await;
    let kept = ["data/oma.db", "data/oma.db-wal"].map(|name| fs::read(world.path(name)).unwrap_or_default());
    for hidden in [secret.as_str(), "correct horse", "another long"] {
        let is_there = |bytes: &Vec<u8>| bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes());
        assert!(!kept.iter().any(is_there) && !trail.to_string().contains(hidden), "{hidden}");
        assert!(!ran.err.contains(hidden) && !ran.out.contains(hidden), "{hidden}");
    }
}

pub(super) async fn refuses() {
    let world = World::of_appliance();
    let daemon = world.serves().await;
    assert!(world.typed(PASSWORD, &ADD).await.status.success());
    refused(&world.typed(PASSWORD, &ADD).await, 4, "`oma users change` changes it");
    let add = ["users", "add", "a@b.c", "--role", "viewer", "--password-stdin"];
    refused(&world.typed("short", &add).await, 2, "12 characters");
    refused(&world.typed(&"x".repeat(73), &add).await, 2, "73 bytes");
    assert!(world.told(&add[..5]).await.status.success());
    refused(&world.told(&["users", "token", "a@b.c", "--role", "admin"]).await, 2, "more than its user");
    refused(&world.told(&["users", "token", "nobody@b.c"]).await, 7, "`oma users list`");
    refused(
        &world.told(&["users", "change", "nobody@b.c", "--active", "false"]).await,
        7,
        "`oma users list`",
    );
    refused(&world.told(&["users", "revoke", "tok-1"]).await, 7, "tok-1");
    refused(&world.told(&["audit", "verify", "--known", "4"]).await, 2, "ID:HASH");
    refused(
        &world.told(&["users", "add", "b@b.c", "--role", "viewer", "--embedded"]).await,
        4,
        "works in it",
    );
    let listed = world.told_well(&["users", "list"]).await;
    assert!(!listed.to_string().contains("b@b.c"), "{listed}");
    daemon.stop().await;
}

pub(super) async fn roles() {
    let world = World::of_appliance();
    let daemon = with_roles(&world).await;
    let commands: [&[&str]; 6] = [
        &["users", "list"],
        &["users", "add", "eve@example.com", "--role", "admin"],
        &["users", "token", "eve@example.com"],
        &["users", "change", "eve@example.com", "--role", "admin"],
        &["audit", "list"],
        &["audit", "verify"],
    ];
    for role in ["viewer", "operator"] {
        for command in commands {
            let done = asked(&world, &daemon, role, command).await;
            refused(&done, 1, &format!("{role} is {role}; this needs the role admin"));
        }
    }
    for command in [commands[1], commands[2], commands[0], commands[4], commands[5]] {
        assert!(!text(&asked(&world, &daemon, "admin", command).await).is_empty(), "{command:?}");
    }
    daemon.stop().await;
}

pub(super) async fn on_the_database() {
    let world = World::of_appliance();
    let url = format!("sqlite://{}/another.db", world.text("images"));
    let add = ["users", "add", "ada@example.com", "--role", "admin", "--database", &url];
    assert!(world.told(&add).await.status.success());
    let daemon = world.serves().await;
    let is_there = |done: &Output| text(done).contains("ada@example.com");
    assert!(!is_there(&world.told(&["users", "list"]).await), "it is of another database");
    let socket = daemon.addresses[0].clone();
    for look in [&["users", "list"][..], &["audit", "list"]] {
        assert!(is_there(&world.told(&[look, &["--database", &url]].concat()).await), "{look:?}");
        let both = [look, &["--database", &url, "--api", &socket]].concat();
        refused(&world.told(&both).await, 2, "'--database'");
        let place = ["--data-dir", &world.text("data")].map(str::to_owned);
        let named = world.oma(look).args(&place).env("OMA_DATABASE", &url).output().await.unwrap();
        assert!(is_there(&named), "{look:?}");
        let mut asked = world.oma(look);
        asked.args(&place).args(["--api", &socket]).env("OMA_DATABASE", &url);
        assert!(!is_there(&asked.output().await.unwrap()), "{look:?}");
    }
    daemon.stop().await;
}
