//! Who is let in, and how.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use oma_core::conformance::{Trial, trial};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::world::World;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("l30_a_token_lets_in_as_far_as_its_role", &[], tokens),
        trial("doors_that_cannot_be_are_refused_with_what_to_do", &[], refused),
        trial("https_is_served_with_a_certificate_that_can_change", &[], https),
        trial("without_tokens_everybody_on_this_machine_is_let_in", &[], no_auth),
        trial("who_comes_when_all_places_are_taken_is_served_once_one_is_free", &[], crowded),
    ]
}

async fn tokens() {
    let world = World::new();
    let (viewer, operator) = (world.token("graphs", "viewer").await, world.token("web", "operator").await);
    let daemon = world.start(&["--listen", "127.0.0.1:0"]).await;
    let ask = async |token: Option<&str>, body: Option<Value>| {
        let client = Client::new();
        let url = format!("{}/vms", daemon.url());
        let mut request = match &body {
            Some(body) => client.post(url).json(body),
            None => client.get(url),
        };
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let vm = json!({ "instance_uuid": "u", "endpoint": "e", "name": "n", "path": "/p", "disks": [] });
    assert_eq!(ask(None, None).await, 401);
    assert_eq!(ask(Some("oma_guessed"), None).await, 401);
    assert_eq!(ask(Some(&viewer), None).await, 200);
    assert_eq!(ask(Some(&viewer), Some(vm.clone())).await, 403);
    assert_eq!(ask(Some(&operator), Some(vm)).await, 200);
    let listed = world.run(&["token", "list"]).await;
    assert_eq!(listed.out, "graphs viewer\nweb operator\n");
    let days = world.run(&["token", "add", "week", "--role", "viewer", "--days", "7"]).await;
    assert_eq!(ask(Some(days.out.trim()), None).await, 200);
    assert!(world.run(&["token", "list"]).await.out.contains("week viewer until 2"));
    let twice = world.run(&["token", "add", "web", "--role", "viewer"]).await;
    assert_eq!(twice.code, Some(4), "{twice:?}");
    assert_eq!(world.run(&["token", "remove", "web"]).await.code, Some(0));
    assert_eq!(world.run(&["token", "remove", "web"]).await.code, Some(7));
    assert_eq!(ask(Some(&operator), None).await, 401, "at once");
    let health = reqwest::get(daemon.url().replace("/api/v1", "/health")).await.unwrap();
    assert_eq!(health.status(), 200);
    let said = daemon.stop().await;
    assert!(said.err.contains("principal=\"web\""), "{said:?}");
    let trail = world.oma_here(&["--json", "audit", "list"]).await.out;
    for action in ["token.create", "token.create failed", "token.revoke"] {
        assert!(trail.contains(&format!("\"{action}\"")), "{trail}");
    }
    for secret in [&viewer, &operator, &"oma_guessed".to_owned()] {
        assert!(!said.err.contains(secret.as_str()) && !said.out.contains(secret.as_str()), "{said:?}");
    }
}

async fn refused() {
    let world = World::new();
    for (args, said) in [
        (&["--listen", "0.0.0.0:0", "--no-auth"][..], "--no-auth is for an address of this machine"),
        (&["--listen", "127.0.0.1:0", "--no-auth", "--tls"], "--tls"),
        (&["--listen", "0.0.0.0:0", "--tls-name", "a b"], "neither a name of a host nor an address"),
        (&["--no-auth"], "--listen"),
        (&["--listen", "here"], "invalid value"),
        (&["--connections", "0"], "--connections"),
        (&["--tls-certificate", "a.pem", "--listen", "127.0.0.1:0"], "--tls-key"),
        (&["--backend", "cloudstack"], "--cloudstack"),
        (&["--database", "mysql://oma:hunter2@db/oma"], "OMA_DATABASE"),
        (&["--database", "sqlite:other.db"], "database of its data directory"),
        (&["token", "add", "a b", "--role", "viewer"], "no space"),
        (&["token", "add", "web", "--role", "king"], "viewer, operator and admin"),
        (
            &["--listen", "127.0.0.1:0", "--tls-certificate", "/missing.pem", "--tls-key", "/missing.pem"],
            "missing.pem",
        ),
    ] {
        let ran = world.run(args).await;
        assert!(matches!(ran.code, Some(2 | 7)), "{args:?}: {ran:?}");
        assert!(ran.err.contains(said), "{args:?}: {ran:?}");
        assert!(!ran.err.contains("hunter2") && !ran.err.contains("panicked"), "{ran:?}");
    }
    let open = World::new();
    fs::create_dir(open.path("data")).unwrap();
    fs::set_permissions(open.path("data"), fs::Permissions::from_mode(0o777)).unwrap();
    let ran = open.run(&[]).await;
    assert!(ran.code == Some(1) && ran.err.contains("chmod go-w"), "{ran:?}");
    let holder = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = world.run(&["--listen", &holder.local_addr().unwrap().to_string()]).await;
    assert_eq!(taken.code, Some(4), "{taken:?}");
}

async fn https() {
    let world = World::new();
    let write = |certified: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        fs::write(world.path("cert.pem"), certified.cert.pem()).unwrap();
        fs::write(world.path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    };
    let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (first, second) = (make(), make());
    write(&first);
    let token = world.token("web", "operator").await;
    let (cert, key) = (world.text("cert.pem"), world.text("key.pem"));
    let daemon =
        world.start(&["--listen", "127.0.0.1:0", "--tls-certificate", &cert, "--tls-key", &key]).await;
    assert!(daemon.addresses[1].starts_with("https://"), "{daemon:?}");
    let url = format!("{}/volumes", daemon.url().replace("127.0.0.1", "localhost"));
    let ask = async |trusted: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let root = Certificate::from_pem(trusted.cert.pem().as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([root]).build().unwrap();
        client.get(&url).bearer_auth(&token).send().await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(ask(&first).await.unwrap(), 200);
    ask(&second).await.expect_err("another certificate is not trusted");
    write(&second);
    daemon.signal("HUP").await;
    let changed = async {
        while ask(&second).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::world::LIMIT, changed).await.expect("the new certificate is served");
    // A file that is none leaves the one from before in use.
    fs::write(world.path("cert.pem"), "no certificate").unwrap();
    daemon.signal("HUP").await;
    assert_eq!(ask(&second).await.unwrap(), 200);
    daemon.stop().await;
}

async fn no_auth() {
    let world = World::new();
    let daemon = world.start(&["--listen", "127.0.0.1:0", "--no-auth"]).await;
    let answer = reqwest::get(format!("{}/volumes", daemon.url())).await.unwrap();
    assert_eq!(answer.status(), 200);
    daemon.stop().await;
}

async fn crowded() {
    let world = World::new();
    let daemon = world.start(&["--listen", "127.0.0.1:0", "--no-auth", "--connections", "2"]).await;
    let address = daemon.addresses[1].strip_prefix("http://").unwrap();
    let (first, _second) =
        (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    let url = format!("{}/vms", daemon.url());
    let third = tokio::spawn(async move { reqwest::get(url).await.unwrap().status().as_u16() });
    // Whoever may open the data directory has places of his own.
    daemon.get("/vms").await;
    assert!(!third.is_finished());
    drop(first);
    assert_eq!(third.await.unwrap(), 200);
    assert!(daemon.stop().await.err.contains("who comes now waits"));
}
