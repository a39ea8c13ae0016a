use async_trait::async_trait;
use oma_core::Timestamp;
use oma_core::audit::{AuditEntry, AuditHead, Verified};

use super::*;
use crate::server::{ListenConfig, serve_tcp};

/// What a request to a changing route that records itself needs to come so far.
fn body_of(method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("post", "/auth/password") => Some(json!({ "current": PASSWORD, "new": "a new long password" })),
        ("post", "/users") => Some(json!({ "email": "new@example.com", "role": "viewer" })),
        ("patch", "/users/{user_id}") => Some(json!({ "full_name": "changed" })),
        ("post", "/tokens") => Some(json!({ "name": "new", "role": "viewer" })),
        _ => None,
    }
}

#[tokio::test]
async fn l30_every_changing_route_leaves_an_entry_and_every_route_needs_a_principal() {
    let document = World::new().await.document;
    let mut changes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let world = World::new().await;
            let own = path.strip_prefix(PREFIX).unwrap();
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let users = world.user_id("viewer").await.to_string();
            let token = world.store.tokens(None, None).try_next().await.unwrap().unwrap().id;
            let place = own.replace("{user_id}", &users).replace("{token_id}", token.as_str());
            let place = place.replace(['{', '}'], "");
            let body = body_of(method, own);
            if !["/health", "/auth/login"].contains(&own) {
                for bad in ["nobody's", ""] {
                    let status = world.ask(bad, verb.clone(), &place, body.clone()).await.0;
                    assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {own}");
                }
            }
            assert!(world.trail().await.is_empty(), "{method} {own}: nothing was changed yet");
            if verb == Method::GET {
                continue;
            }
            if own == "/auth/login" {
                world.session("admin").await;
            } else {
                let session = world.session("admin").await;
                let (status, answer) = world.ask(&session, verb, &place, body.clone()).await;
                let is_ours = body.is_some()
                    || ["/auth/logout", "/users/{user_id}", "/tokens/{token_id}"].contains(&own);
                assert!(!is_ours || status.is_success(), "{method} {own}: {answer}");
            }
            let entries = world.trail().await;
            let expected = if own == "/auth/login" { 1 } else { 2 };
            assert!(entries.len() >= expected, "{method} {own} left no entry");
            let entry = entries.last().unwrap();
            assert_eq!(entry.actor.as_deref(), Some("admin@example.com"), "{method} {own}");
            assert!(!entry.action.is_empty() && !entry.resource_type.is_empty(), "{entry:?}");
            changes += 1;
        }
    }
    assert!(changes >= 20, "{changes}");
}

#[tokio::test]
async fn an_entry_tells_who_what_and_from_where_and_no_secret() {
    let world = World::new().await;
    let session = world.session("admin").await;
    let new = json!({ "email": "ada@example.com", "role": "viewer", "password": "a secret passphrase" });
    let mut request = asked(&session, Method::POST, "/users", Some(new));
    request.extensions_mut().insert(ConnectInfo(Client([192, 0, 2, 77].into())));
    let (_, _, added) = world.send(request).await;
    let path = format!("/users/{}", added["id"]);
    world.ask(&session, Method::PATCH, &path, Some(json!({ "role": "operator" }))).await;
    let vm = json!({ "instance_uuid": "u", "endpoint": "e", "name": "n", "path": "/DC/vm/n", "disks": [] });
    assert_eq!(world.ask(&session, Method::POST, "/vms", Some(vm.clone())).await.0, StatusCode::OK);
    assert_eq!(
        world.ask(&session, Method::POST, "/vms", Some(json!({ "token": "t0p" }))).await.0,
        StatusCode::BAD_REQUEST
    );
    world.log_in("ada@example.com", "wrong", [192, 0, 2, 1]).await;
    world.log_in("my-password-in-the-wrong-place", "x", [192, 0, 2, 1]).await;
    let (_, page) = world.ask("admin", Method::GET, "/audit", None).await;
    let rows = page["items"].as_array().unwrap();
    let told: Vec<_> = rows.iter().rev().map(|row| row["action"].as_str().unwrap()).collect();
    let expected = [
        "session.begin",
        "user.create",
        "user.change",
        "POST /vms",
        "POST /vms",
        "POST /vms failed",
        "session.refused",
        "session.refused",
    ];
    assert_eq!(told, expected, "{page}");
    let row = |at: usize| &rows[rows.len() - 1 - at];
    assert_eq!((&row(1)["actor"], &row(1)["address"]), (&json!("admin@example.com"), &json!("192.0.2.77")));
    assert_eq!(
        (&row(1)["resource_type"], &row(1)["resource_id"]),
        (&json!("user"), &json!("ada@example.com"))
    );
    let (old, new) = (&row(2)["details"]["old"]["role"], &row(2)["details"]["new"]);
    assert_eq!((old, new), (&json!("viewer"), &json!({ "role": "operator" })));
    assert_eq!(row(3)["details"]["new"]["body"], vm);
    assert_eq!(row(5)["details"]["new"], json!({ "status": 400 }));
    assert_eq!((&row(6)["resource_id"], &row(7)["resource_id"]), (&json!("ada@example.com"), &json!("")));
    for secret in ["a secret passphrase", "my-password", session.as_str(), "t0p", "$2b$"] {
        assert!(!page.to_string().contains(secret), "{secret}: {page}");
    }
    let about = "/audit?resource_type=user&resource_id=ada@example.com";
    let (_, found) = world.ask("admin", Method::GET, about, None).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 3);
    let (_, first) = world.ask("admin", Method::GET, "/audit?order=oldest&limit=5", None).await;
    let next = first["next"].as_str().unwrap();
    let (_, rest) =
        world.ask("admin", Method::GET, &format!("/audit?order=oldest&limit=5&after={next}"), None).await;
    let both = [&first, &rest].map(|page| page["items"].as_array().unwrap().clone()).concat();
    assert!(both.iter().eq(rows.iter().rev()), "{both:?}");
    let (status, _) = world.ask("admin", Method::GET, &format!("/audit?after={next}"), None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "of the other order");
    let (_, verified) = world.ask("admin", Method::GET, "/audit/verification", None).await;
    assert_eq!((&verified["entries"], &verified["broken"]), (&json!(8), &Value::Null));
    let after = async |known: &str| {
        world.ask("admin", Method::GET, &format!("/audit/verification?known={known}"), None).await
    };
    let known = format!("8:{}", verified["last_hash"].as_str().unwrap());
    assert_eq!(after(&known).await.1["broken"], Value::Null);
    let rewritten = after(&format!("8:{}", "0".repeat(64))).await.1;
    assert_eq!(rewritten["broken"], json!("entry 8 was altered"), "{rewritten}");
    for bad in ["8", "8:", "x:00", ":", "8:0"] {
        assert_eq!(after(bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn over_tcp_the_address_of_the_client_is_known() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let (routes, token, config) = (world.routes.clone(), stop.clone(), ListenConfig::default());
    let served = tokio::spawn(async move { serve_tcp(listener, routes, None, config, &token).await });
    let body = json!({ "email": "viewer@example.com", "password": "wrong" }).to_string();
    let request = format!(
        "POST {PREFIX}/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let entries = world.trail().await;
    assert_eq!(entries[0].address.as_deref(), Some("127.0.0.1"));
    stop.cancel();
    served.await.unwrap().unwrap();
}

/// A trail that cannot be written.
#[derive(Debug)]
struct Stuck;

#[async_trait]
impl AuditLog for Stuck {
    async fn audit(&self, _: &AuditEntry) -> Result<AuditRecord> {
        Err(Error::new(ErrorKind::Unavailable, "record", "an audit entry"))
    }

    async fn audit_entries(
        &self,
        _: &oma_core::audit::AuditFilter,
        _: oma_core::audit::AuditFrom,
        _: u32,
    ) -> Result<Vec<AuditRecord>> {
        Ok(Vec::new())
    }

    async fn verify_audit(&self, _: Option<&AuditHead>) -> Result<Verified> {
        Ok(Verified { entries: 0, head: None, broken: None })
    }

    async fn prune_audit(&self, _: Timestamp) -> Result<u64> {
        Ok(0)
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let store = Arc::new(MemoryStore::default());
    let world = World::recording(store, Arc::new(Stuck)).await;
    let user = json!({ "email": "ada@example.com", "role": "viewer" });
    let vm = json!({ "instance_uuid": "u", "endpoint": "e", "name": "n", "path": "/DC/vm/n", "disks": [] });
    for (path, body) in [("/users", user), ("/vms", vm)] {
        let (status, problem) = world.ask("admin", Method::POST, path, Some(body)).await;
        assert_eq!((status, &problem["title"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
        let (_, list) = world.ask("admin", Method::GET, path, None).await;
        let before = if path == "/users" { 4 } else { 0 };
        assert_eq!(list["items"].as_array().unwrap().len(), before, "{path}");
    }
    assert_eq!(
        world.log_in("viewer@example.com", PASSWORD, [192, 0, 2, 1]).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
}
