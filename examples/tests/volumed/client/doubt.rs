//! What is not known of a change, and what whoever asked for it is told.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use super::lost::{Thief, well, world};
use super::refused;
use crate::push::write_private;
use crate::world::{Daemon, World};

/// The word of this beginning in what a command has said.
fn word(done: &Output, beginning: &str) -> String {
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let mut words = said.split([' ', '`']);
    let found = words.rfind(|word| word.starts_with(beginning));
    found.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Asks; the answer is lost, and the token that it was asked with is good no more when it is asked again.
async fn shut(world: &World, daemon: &Daemon, args: &[&str]) -> Output {
    write_private(&world.text("token"), &world.token("mary", "admin").await);
    let thief = Thief::that_waits(daemon).await;
    let child = thief.command(world, args).spawn().unwrap();
    thief.answered.notified().await;
    let removed = world.run(&["token", "remove", "mary"]).await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    thief.tells();
    child.wait_with_output().await.unwrap()
}

pub(super) async fn shut_out() {
    let world = world().await;
    let daemon = world.serves().await;
    let id = daemon.all("/volumes").await[0]["volume_id"].as_str().unwrap().to_owned();
    let before = daemon.all("/operations").await.len();
    let shut_out = async |args: &[&str]| shut(&world, &daemon, args).await;

    let lost = shut_out(&["volumes", "detach", &id]).await;
    refused(&lost, 1, "`--id op-");
    let key = word(&lost, "op-");
    let known = world.told_well(&["volumes", "detach", &id, "--id", &key]).await;
    assert_eq!((&known["operation_id"], &known["status"]), (&json!(key), &json!("completed")));
    assert_eq!(daemon.all("/operations").await.len(), before + 1, "it is the same operation");

    assert!(world.told(&["users", "add", "eve@example.com", "--role", "operator"]).await.status.success());
    let told = "it was done, or your right ended before it was; see `oma audit list`";
    refused(&shut_out(&["users", "change", "eve@example.com", "--role", "viewer"]).await, 1, told);
    let users = daemon.all("/users").await;
    let is_eve = |user: &&Value| user["email"] == json!("eve@example.com");
    assert_eq!(users.iter().find(is_eve).unwrap()["role"], json!("viewer"));

    let lost = shut_out(&["users", "token", "eve@example.com"]).await;
    refused(&lost, 1, "it may have been made: `oma users revoke tok-");
    let token = word(&lost, "tok-");
    let row = daemon.get(&format!("/tokens/{token}")).await;
    assert!(row["role"] == json!("viewer") && row["revoked_at"].is_null(), "{row}");
    refused(&shut_out(&["users", "revoke", &token]).await, 1, told);
    assert!(daemon.get(&format!("/tokens/{token}")).await["revoked_at"].is_string());
    daemon.stop().await;
}

pub(super) async fn stopped() {
    let world = world().await;
    let daemon = world.serves().await;
    let id = daemon.all("/volumes").await[0]["volume_id"].as_str().unwrap().to_owned();
    let thief = Thief::that_waits(&daemon).await;
    let child = thief.command(&world, &["volumes", "detach", &id]).spawn().unwrap();
    thief.answered.notified().await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let done = child.wait_with_output().await.unwrap();
    refused(&done, 130, "if it was asked for, it goes on");
    let key = word(&done, "op-");
    refused(&done, 130, &format!("`--id {key}` asks for the same again"));
    let known = thief.command(&world, &["volumes", "detach", &id, "--id", &key]).output().await.unwrap();
    assert_eq!(well(&known)["operation_id"], json!(key));
    daemon.stop().await;
}
