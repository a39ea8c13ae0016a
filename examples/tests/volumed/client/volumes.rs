//! `oma volumes`, `oma disks` and `oma change-id` as clients.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use super::{REPLICATE, refused, sample};
use crate::push::write_private;
use crate::world::{Daemon, MIB, World};

/// A VM that was replicated while nobody served, and the id of its volume.
async fn replicated() -> (World, String) {
    let world = World::of_appliance();
    fs::write(world.path("images/web01.raw"), sample(1)).unwrap();
    world.told_well(&REPLICATE).await;
    let volumes = world.told_well(&["volumes", "list"]).await;
    let id = volumes[0]["volume_id"].as_str().unwrap().to_owned();
    (world, id)
}

async fn operations(world: &World, id: &str) -> Vec<Value> {
    world.told_well(&["volumes", "operations", "--volume", id]).await.as_array().unwrap().clone()
}

fn text(done: &Output) -> String {
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout.clone()).unwrap()
}

pub(super) async fn asks() {
    let (world, id) = replicated().await;
    let id = id.as_str();
    let looks: [&[&str]; 7] = [
        &["volumes", "list"],
        &["volumes", "list", "--vm-path", "/DC/vm/web01"],
        &["volumes", "operations"],
        &["volumes", "operations", "--volume", id],
        &["disks"],
        &["change-id", "--vm-path", "/DC/vm/web01"],
        &["change-id", "--vm-path", "/DC/vm/web01", "--disk-key", "disk-2000"],
    ];
    let mut alone = Vec::new();
    for look in looks {
        alone.push((text(&world.told(look).await), world.told_well(look).await));
    }
    let daemon = world.serves().await;
    for (look, (shown, rows)) in looks.into_iter().zip(alone) {
        assert_eq!((text(&world.told(look).await), world.told_well(look).await), (shown, rows), "{look:?}");
    }
    let figures = daemon.text("/metrics").await;
    for route in ["volumes", "operations", "vms", "vms/{context_id}/disks"] {
        let counted = format!("method=\"GET\",route=\"/api/v1/{route}\",status=\"200\"");
        assert!(figures.contains(&counted), "the appliance told: {counted} is not in {figures}");
    }

    let done = text(&world.told(&["volumes", "detach", id]).await);
    assert_eq!(done, format!("detach of {id} is completed\n"));
    let attach = ["volumes", "attach", id, "--id", "op-mine"];
    let first = world.told_well(&attach).await;
    assert_eq!((&first["operation_id"], &first["status"]), (&json!("op-mine"), &json!("completed")));
    assert_eq!(first, world.told_well(&attach).await, "nothing is done a second time");
    assert_eq!(operations(&world, id).await.len(), 4);
    assert_eq!(daemon.get("/operations/op-mine").await, first);

    refused(&world.told(&["volumes", "delete", id]).await, 4, "is attached; detach it first");
    assert_eq!(operations(&world, id).await.len(), 4, "nothing is detached to be deleted");
    world.told_well(&["volumes", "resize", id, "5MiB"]).await;
    assert_eq!(daemon.get(&format!("/volumes/{id}")).await["capacity_bytes"], json!(5 * MIB));
    world.told_well(&["volumes", "detach", id]).await;
    let condemned = text(&world.told(&["volumes", "delete", id, "--id", "op-delete"]).await);
    assert!(condemned.contains("is deleted by the appliance after"), "{condemned}");
    let pending = world.told_well(&["volumes", "delete", id, "--id", "op-delete"]).await;
    assert!(pending["status"] == json!("pending") && pending["due_at"].is_string(), "{pending}");
    let pardoned = text(&world.told(&["volumes", "pardon", id]).await);
    assert_eq!(pardoned, format!("{id} is not deleted; replicate to it as before\n"));
    refused(&world.told(&["volumes", "pardon", id]).await, 4, "not condemned");
    let again = ["volumes", "delete", id, "--id", "op-delete"];
    refused(&world.told(&again).await, 4, "called off by an operator");
    refused(&world.told(&["volumes", "attach", "vol-none", "--id", "op-none"]).await, 7, "no such volume");
    let again = world.told_well(&REPLICATE).await;
    assert_eq!((&again["status"], &again["epoch"]), (&json!("completed"), &json!(2)), "{again}");
    daemon.stop().await;
}

pub(super) async fn refuses() {
    let (world, id) = replicated().await;
    let id = id.as_str();
    let daemon = world.serves().await;
    let told = async |args: &[&str]| world.told(args).await;
    refused(&told(&["volumes", "detach", "vol-none"]).await, 7, "`oma volumes list` lists");
    refused(&told(&["volumes", "pardon", "vol-none"]).await, 7, "`oma volumes list` lists");
    refused(&told(&["volumes", "list", "--vm-path", "/DC/vm/none"]).await, 7, "no such VM");
    refused(&told(&["change-id", "--vm-path", "/DC/vm/none"]).await, 7, "`oma disks` lists");
    let other = ["change-id", "--vm-path", "/DC/vm/web01", "--disk-key", "disk-1"];
    refused(&told(&other).await, 7, "disk disk-1 of");
    refused(&told(&["volumes", "delete", id, "--grace", "1s"]).await, 2, "volumes.grace");
    refused(&told(&["volumes", "recover"]).await, 2, "by itself");
    refused(&told(&["volumes", "abandon", "op-none", "--reason", "why"]).await, 7, "op-none");
    let done = world.told_well(&["volumes", "detach", id]).await;
    let done = done["operation_id"].as_str().unwrap();
    refused(&told(&["volumes", "abandon", done, "--reason", "why"]).await, 4, "it is completed");
    refused(&told(&["volumes", "attach", id, "--id", done]).await, 4, "given to something else");
    refused(&told(&["volumes", "detach", id]).await, 4, "not attached");
    refused(&told(&["volumes", "attach", id, "--embedded"]).await, 4, "works in it");
    // Whoever names an appliance means no data directory.
    let socket = format!("unix:{}", world.text("data/omad.sock"));
    daemon.stop().await;
    refused(&told(&["volumes", "attach", id, "--api", &socket]).await, 5, "cannot be reached");
    assert_eq!(operations(&world, id).await.len(), 3);
}

pub(super) async fn repairs() {
    let (world, id) = replicated().await;
    let plan = world.text("plan.json");
    let daemon = world.serves().await;
    let whole = world.told_well(&["volumes", "compare"]).await;
    assert_eq!((&whole["in_order"], &whole["findings"]), (&json!(1), &json!([])), "{whole}");
    // Somebody detached it by hand.
    let path = world.path(&format!("data/volumes/{id}.json"));
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, before.replace("\"attached\"", "\"detached\"")).unwrap();
    let found = world.told(&["volumes", "compare", "--plan", &plan]).await;
    let shown = String::from_utf8_lossy(&found.stdout);
    assert!(
        found.status.code() == Some(3) && shown.contains("not_attached") && shown.contains(&id),
        "{found:?}"
    );
    let status = async || daemon.get(&format!("/volumes/{id}")).await["status"].clone();
    assert_eq!(status().await, json!("attached"), "nothing is changed by looking");
    let repaired = world.told_well(&["volumes", "repair", &plan]).await;
    assert_eq!(repaired["left"]["findings"], json!([]), "{repaired}");
    assert_eq!(status().await, json!("detached"));
    assert!(text(&world.told(&["volumes", "repair", &plan]).await).contains("1 in order, 0 not"));
    refused(&world.told(&["volumes", "repair", "none.json"]).await, 7, "plan");
    daemon.stop().await;
}

/// `oma` elsewhere, let in as somebody.
pub(super) async fn asked(world: &World, daemon: &Daemon, role: &str, args: &[&str]) -> Output {
    let (api, ca, token) =
        (daemon.addresses[1].as_str(), world.text("data/tls/ca-cert.pem"), world.text(role));
    let place = ["--api", api, "--ca", &ca, "--token-file", &token, "--data-dir", "/nowhere"];
    world.oma(args).args(place).output().await.unwrap()
}

/// An appliance with TLS, and a file with a token of each role.
pub(super) async fn with_roles(world: &World) -> Daemon {
    for role in ["viewer", "operator", "admin"] {
        write_private(&world.text(role), &world.token(role, role).await);
    }
    let daemon = world.own("oma.example").await;
    assert!(daemon.addresses[1].starts_with("https://"), "{:?}", daemon.addresses);
    daemon
}

pub(super) async fn roles() {
    let (world, id) = replicated().await;
    let id = id.as_str();
    let daemon = with_roles(&world).await;
    let by = async |role: &str, args: &[&str]| asked(&world, &daemon, role, args).await;
    assert!(text(&by("viewer", &["volumes", "list"]).await).contains(id));
    assert!(text(&by("viewer", &["volumes", "operations"]).await).contains("attach"));
    assert!(text(&by("viewer", &["disks"]).await).contains("/DC/vm/web01"));
    assert!(!text(&by("viewer", &["change-id", "--vm-path", "/DC/vm/web01"]).await).trim().is_empty());
    for change in [&["volumes", "detach", id][..], &["volumes", "attach", id], &["volumes", "compare"]] {
        refused(&by("viewer", change).await, 1, "viewer is viewer; this needs the role operator");
    }
    assert!(text(&by("operator", &["volumes", "compare"]).await).contains("1 in order, 0 not"));
    let done = text(&by("operator", &["volumes", "detach", id]).await);
    assert_eq!(done, format!("detach of {id} is completed\n"));
    fs::write(world.path("images/plan.json"), r#"{"steps": []}"#).unwrap();
    let plan = world.text("images/plan.json");
    let compared = by("admin", &["volumes", "compare", "--plan", &plan]).await;
    assert!(compared.status.success(), "{compared:?}");
    for change in
        [&["volumes", "repair", &plan][..], &["volumes", "abandon", "op-none", "--reason", "it is gone"]]
    {
        refused(&by("operator", change).await, 1, "operator is operator; this needs the role admin");
    }
    assert!(text(&by("admin", &["volumes", "repair", &plan]).await).contains("1 in order"));
    daemon.stop().await;
}
