//! The ports of an appliance beside that of all its routes.

use std::fs;

use oma_core::conformance::{Trial, trial};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::World;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("volumes_have_a_port_of_their_own_with_the_same_tokens", &[], volumes),
        trial("a_port_for_volumes_that_is_taken_is_named_with_what_to_do", &[], taken),
    ]
}

async fn volumes() {
    let world = World::of_appliance();
    let operator = world.token("web", "operator").await;
    let daemon = world.start(&["--volume-listen", "127.0.0.1:0"]).await;
    let admin = fs::read_to_string(world.path("data/first-admin-token")).unwrap().trim().to_owned();
    let url = format!("{}/api/v1", daemon.addresses[2]);
    let ask = async |method: Method, path: &str, token: Option<&str>, body: Option<Value>| {
        let mut request = Client::new().request(method, format!("{url}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(ask(Method::GET, "/volumes", None, None).await.0, 401);
    assert_eq!(ask(Method::GET, "/volumes", Some("oma_guessed"), None).await.0, 401);
    let vm = json!({ "instance_uuid": "u", "endpoint": "e", "name": "n", "path": "/p", "disks": [] });
    for token in [&admin, &operator] {
        assert_eq!(ask(Method::GET, "/volumes", Some(token), None).await.0, 200);
        let (status, made) = ask(Method::POST, "/vms", Some(token), Some(vm.clone())).await;
        assert_eq!(status, 200, "{made}");
        // What is no matter of volumes is served at the other port.
        assert_eq!(ask(Method::GET, "/replications", Some(token), None).await.0, 404);
        assert_eq!(ask(Method::GET, "/users", Some(token), None).await.0, 404);
    }
    let (_, document) = ask(Method::GET, "/openapi.json", Some(&operator), None).await;
    assert_eq!(document["info"]["title"], json!("OMA volumes"));
    assert!(
        document["paths"]["/api/v1/volumes"].is_object()
            && document["paths"]["/api/v1/replications"].is_null()
    );
    // One daemon: its records, its trail and its figures are the same.
    assert_eq!(daemon.all("/vms").await.len(), 1);
    let trail = daemon.all("/audit").await;
    assert_eq!(trail.iter().filter(|entry| entry.to_string().contains("/vms")).count(), 2, "{trail:?}");
    let figures = daemon.text("/metrics").await;
    assert_eq!(figures.matches("# TYPE oma_volume_operations gauge").count(), 1, "{figures}");
    assert!(figures.contains("method=\"POST\",route=\"/api/v1/vms\",status=\"200\"} 2"), "{figures}");
    daemon.stop().await;
}

async fn taken() {
    let world = World::of_appliance();
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let ran = world.run(&["--volume-listen", &address]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    for said in [&*address, "somebody listens there already", "--volume-listen"] {
        assert!(ran.err.contains(said), "{ran:?}");
    }
    // Nothing is left that would keep the next start from it.
    drop(holder);
    world.start(&["--volume-listen", &address]).await.stop().await;
}
