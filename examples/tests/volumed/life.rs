//! Volumes from create to delete.

use std::fs;

use oma_core::conformance::{Trial, trial};
use reqwest::Method;
use serde_json::json;

use crate::world::{MIB, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_volume_is_made_attached_grown_and_deleted", &[], from_create_to_delete),
        trial("a_second_daemon_keeps_out_of_the_data_directory", &[], one_daemon),
        trial("l15_a_daemon_goes_on_where_the_command_line_stopped", &[], beside_the_command_line),
        trial("the_document_is_printed_without_a_daemon", &[], document),
        trial("a_place_for_volumes_is_checked", &[], checked),
    ]
}

async fn from_create_to_delete() {
    let world = World::new();
    let daemon = world.start(&[]).await;
    let id = daemon.volume("web01").await;
    daemon.done(Method::POST, &format!("/volumes/{id}/attach"), None).await;
    let device = daemon.get(&format!("/volumes/{id}/device")).await;
    let path = device["device_path"].as_str().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), MIB);
    let encoded = path.replace('/', "%2F");
    assert_eq!(daemon.get(&format!("/devices/{encoded}/volume")).await["volume_id"], json!(id));
    daemon.done(Method::POST, &format!("/volumes/{id}/resize"), Some(json!({ "size": 3 * MIB }))).await;
    assert_eq!(fs::metadata(path).unwrap().len(), 3 * MIB);
    daemon.done(Method::DELETE, &format!("/volumes/{id}"), None).await;
    assert!(!fs::exists(path).unwrap());
    assert_eq!(daemon.all("/operations").await.len(), 5);
    let compared = daemon.get("/reconciliation").await;
    assert_eq!(compared["found"]["findings"], json!([]), "{compared}");
    daemon.stop().await;
    assert!(!world.path("data/volumed.sock").exists());
}

async fn one_daemon() {
    let world = World::new();
    let daemon = world.start(&[]).await;
    let second = world.run(&[]).await;
    assert_eq!(second.code, Some(4), "{second:?}");
    assert!(second.err.contains("another one with --data-dir"), "{second:?}");
    daemon.get("/volumes").await;
    daemon.stop().await;
}

async fn beside_the_command_line() {
    let world = World::new();
    let daemon = world.start(&[]).await;
    let id = daemon.volume("web01").await;
    daemon.stop().await;
    let oma = |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_oma"));
        command.arg("--data-dir").arg(world.path("data")).args(args);
        command
    };
    let done = oma(&["volumes", "attach", &id]).output().await.unwrap();
    assert!(done.status.success(), "{done:?}");
    let daemon = world.start(&[]).await;
    assert_eq!(daemon.get(&format!("/volumes/{id}")).await["status"], json!("attached"));
    let busy = oma(&["volumes", "detach", &id]).output().await.unwrap();
    assert_eq!(busy.status.code(), Some(4), "{busy:?}");
    let socket = format!("unix:{}", world.text("data/volumed.sock"));
    let asked = oma(&["volumes", "detach", &id, "--api", &socket]).output().await.unwrap();
    assert!(asked.status.success(), "{asked:?}");
    assert_eq!(daemon.get(&format!("/volumes/{id}")).await["status"], json!("detached"));
    daemon.stop().await;
}

async fn document() {
    let world = World::new();
    let printed = world.run(&["openapi"]).await;
    let document: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(document["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    assert!(document["paths"]["/api/v1/volumes/{volume_id}/attach"]["post"].is_object());
    assert!(!world.path("data").exists(), "nothing is made for it");
}

async fn checked() {
    let world = World::new();
    let good = world.run(&["check"]).await;
    assert_eq!((good.code, good.out.starts_with("good: ")), (Some(0), true), "{good:?}");
    let keys = world.path("keys");
    fs::write(&keys, "api\nsecret\n").unwrap();
    fs::write(world.path("zone.json"), "{}").unwrap();
    let args = |zone: &str| {
        ["check", "--backend", "cloudstack", "--cloudstack", zone, "--cloudstack-keys"].map(str::to_owned)
    };
    for (zone, code, said) in [("missing.json", 7, "no such file"), ("zone.json", 2, "endpoint")] {
        let mut args = args(&world.text(zone)).to_vec();
        args.push(world.text("keys"));
        let ran = world.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
    }
    let zone = json!({ "endpoint": "https://cloud.example/client/api", "zone_id": "1", "disk_offering_id": "2",
        "appliance_vm_id": "3" });
    fs::write(world.path("zone.json"), zone.to_string()).unwrap();
    let mut args = args(&world.text("zone.json")).to_vec();
    args.push(world.text("keys"));
    let ran = world.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(ran.code == Some(1) && ran.err.contains("chmod 600"), "{ran:?}");
}
