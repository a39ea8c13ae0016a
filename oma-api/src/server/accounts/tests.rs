mod repeated;
mod trail;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use oma_core::audit::AuditRecord;
use oma_core::engine::{
    CancellationToken, ReconcileServices, Reconciler, VolumeService, VolumeServices, VolumesConfig,
};
use oma_core::memory::{MemoryBackend, MemoryStore};
use oma_core::record::{TokenHash, TokenSpec, UserSpec};
use oma_core::state::{Role, TokenKind};
use oma_core::{Error, ErrorKind, TokenId, WorkerId};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::server::audit::Client;
use crate::server::{Api, Authenticator, Door, NewToken, PREFIX, Principal, VolumeRoutes};

const PASSWORD: &str = "correct horse battery";

struct World {
    routes: Router,
    store: Arc<MemoryStore>,
    document: Value,
}

impl World {
    /// With a user for each role, whose password is [`PASSWORD`] and who has a token that is its label.
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        Self::recording(store.clone(), store).await
    }

    async fn recording(store: Arc<MemoryStore>, trail: Arc<dyn AuditLog>) -> Self {
        let passwords = Passwords::of_cost(4).await.unwrap();
        for role in Role::ALL {
            let password_hash = passwords.hash(&crate::Secret::new(PASSWORD)).await.unwrap();
            let email = oma_core::record::Email::parse(&format!("{role}@example.com")).unwrap();
            let spec = UserSpec { email, full_name: String::new(), role: *role, password_hash };
            let user = store.add_user(&spec).await.unwrap();
            let token = TokenSpec {
                id: TokenId::mint(),
                kind: TokenKind::Api,
                name: role.to_string(),
                role: *role,
                hash: TokenHash::of(role.as_str()),
                jobs: BTreeSet::new(),
                lifetime: Duration::from_secs(3600),
                address: None,
            };
            store.mint(user.id, &token).await.unwrap();
        }
        let config = LoginConfig { attempts_per_address: 7, ..LoginConfig::default() };
        let routes = AccountRoutes::new(store.clone(), trail, passwords, config);
        let api = Api::new("test").volumes(volumes(&store)).accounts(routes);
        let door = Door::Tokens(Arc::new(AccountTokens::new(store.clone())));
        let document = serde_json::to_value(api.document()).unwrap();
        Self { routes: api.router(door), store, document }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let (status, _, value) = self.send(asked(token, method, path, body)).await;
        (status, value)
    }

    async fn log_in(&self, email: &str, password: &str, from: [u8; 4]) -> (StatusCode, HeaderMap, Value) {
        let body = json!({ "email": email, "password": password });
        let mut request = asked("", Method::POST, "/auth/login", Some(body));
        request.headers_mut().remove(header::AUTHORIZATION);
        request.extensions_mut().insert(ConnectInfo(Client(from.into())));
        self.send(request).await
    }

    /// The secret of a new session.
    async fn session(&self, role: &str) -> String {
        let (status, _, begun) = self.log_in(&format!("{role}@example.com"), PASSWORD, [192, 0, 2, 1]).await;
        assert_eq!(status, StatusCode::OK, "{begun}");
        begun["secret"].as_str().unwrap().to_owned()
    }

    async fn user_id(&self, role: &str) -> u64 {
        let email = oma_core::record::Email::parse(&format!("{role}@example.com")).unwrap();
        self.store.credentials(&email).await.unwrap().unwrap().user.id.0
    }

    /// All entries of the trail, oldest first.
    async fn trail(&self) -> Vec<AuditRecord> {
        let filter = oma_core::audit::AuditFilter::All;
        let mut entries =
            self.store.audit_entries(&filter, oma_core::audit::AuditFrom::default(), 1000).await.unwrap();
        entries.reverse();
        entries
    }
}

fn volumes(store: &Arc<MemoryStore>) -> VolumeRoutes {
    let backend = Arc::new(MemoryBackend::new());
    let services = VolumeServices { jobs: store.clone(), volumes: store.clone(), backend };
    let service = VolumeService::new(services, WorkerId::parse("test").unwrap(), VolumesConfig::default());
    let beside = ReconcileServices { inventory: store.clone(), points: store.clone() };
    let reconciler = Reconciler::new(service.clone(), beside);
    VolumeRoutes {
        service,
        inventory: store.clone(),
        reconciler,
        machine: None,
        stop: CancellationToken::new(),
    }
}

fn asked(token: &str, method: Method, path: &str, body: Option<Value>) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("{PREFIX}{path}"));
    let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    match body {
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap(),
        None => request.body(Body::empty()).unwrap(),
    }
}

#[tokio::test]
async fn a_session_lasts_from_login_to_logout() {
    let world = World::new().await;
    let (status, headers, begun) = world.log_in("Viewer@Example.com", PASSWORD, [192, 0, 2, 1]).await;
    assert_eq!((status, &begun["token"]["kind"]), (StatusCode::OK, &json!("session")), "{begun}");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    let secret = begun["secret"].as_str().unwrap();
    let (status, me) = world.ask(secret, Method::GET, "/auth/me", None).await;
    assert_eq!((status, &me["name"]), (StatusCode::OK, &json!("viewer@example.com")));
    assert_eq!((&me["role"], &me["jobs"]), (&json!("viewer"), &Value::Null));
    assert_eq!(world.ask(secret, Method::GET, "/vms", None).await.0, StatusCode::OK);
    assert_eq!(world.ask(secret, Method::POST, "/auth/logout", None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.ask(secret, Method::GET, "/auth/me", None).await.0, StatusCode::UNAUTHORIZED);
    let (status, problem) = world.ask("viewer", Method::POST, "/auth/logout", None).await;
    assert_eq!(status, StatusCode::CONFLICT, "no session: {problem}");
}

#[tokio::test]
async fn an_unknown_account_is_told_no_other_than_a_wrong_password() {
    let world = World::new().await;
    let id = world.user_id("operator").await;
    let off = json!({ "is_active": false });
    assert_eq!(world.ask("admin", Method::PATCH, &format!("/users/{id}"), Some(off)).await.0, StatusCode::OK);
    let wrong = world.log_in("viewer@example.com", "wrong", [192, 0, 2, 1]).await;
    assert_eq!((wrong.0, &wrong.2["title"]), (StatusCode::UNAUTHORIZED, &json!("permission denied")));
    for (email, password) in
        [("eve@example.com", "wrong"), ("no address", "wrong"), ("operator@example.com", PASSWORD), ("", "")]
    {
        let other = world.log_in(email, password, [192, 0, 2, 1]).await;
        assert_eq!((other.0, other.1, other.2), wrong, "{email}");
    }
}

#[tokio::test]
async fn too_many_attempts_lock_an_account_whether_it_is_there_or_not() {
    let world = World::new().await;
    let mut told = Vec::new();
    for (number, email) in ["viewer@example.com", "eve@example.com"].into_iter().enumerate() {
        let from = |attempt| [192, 0, u8::try_from(number).unwrap(), attempt];
        for attempt in 0..5 {
            assert_eq!(world.log_in(email, "wrong", from(attempt)).await.0, StatusCode::UNAUTHORIZED);
        }
        // The right one too.
        let (status, headers, problem) = world.log_in(email, PASSWORD, from(5)).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{problem}");
        let wait: u64 = headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((890..=901).contains(&wait), "{wait}");
        told.push(problem);
    }
    assert_eq!(told[0], told[1]);
    world.session("operator").await;
}

#[tokio::test]
async fn too_many_attempts_lock_an_address() {
    let world = World::new().await;
    for attempt in 0..7 {
        let email = format!("eve-{attempt}@example.com");
        assert_eq!(world.log_in(&email, "wrong", [192, 0, 2, 9]).await.0, StatusCode::UNAUTHORIZED);
    }
    let locked = world.log_in("viewer@example.com", PASSWORD, [192, 0, 2, 9]).await;
    assert_eq!(locked.0, StatusCode::TOO_MANY_REQUESTS);
    assert!(locked.1.contains_key(header::RETRY_AFTER));
    let elsewhere = world.log_in("viewer@example.com", PASSWORD, [192, 0, 2, 10]).await;
    assert_eq!(elsewhere.0, StatusCode::OK);
}

#[tokio::test]
async fn an_admin_keeps_users_and_nobody_else_does() {
    let world = World::new().await;
    let new =
        json!({ "email": "Ada@Example.com", "full_name": "Ada", "role": "viewer", "password": PASSWORD });
    for role in ["agent", "viewer", "operator"] {
        let refused = world.ask(role, Method::POST, "/users", Some(new.clone())).await.0;
        assert_eq!(refused, StatusCode::FORBIDDEN, "{role}");
        for path in ["/users", "/users/1", "/audit", "/audit/verification"] {
            assert_eq!(
                world.ask(role, Method::GET, path, None).await.0,
                StatusCode::FORBIDDEN,
                "{role} {path}"
            );
        }
    }
    let (status, added) = world.ask("admin", Method::POST, "/users", Some(new.clone())).await;
    assert_eq!((status, &added["email"]), (StatusCode::CREATED, &json!("ada@example.com")), "{added}");
    assert_eq!(world.ask("admin", Method::POST, "/users", Some(new)).await.0, StatusCode::CONFLICT);
    let path = format!("/users/{}", added["id"]);
    assert_eq!(world.ask("admin", Method::GET, &path, None).await.1, added);
    let session = world.session("ada").await;
    let change = json!({ "role": "operator", "full_name": "Ada L." });
    let (_, changed) = world.ask("admin", Method::PATCH, &path, Some(change)).await;
    assert_eq!((&changed["role"], &changed["full_name"]), (&json!("operator"), &json!("Ada L.")));
    assert_eq!(world.ask(&session, Method::GET, "/auth/me", None).await.0, StatusCode::OK);
    let password = json!({ "password": "another long password" });
    assert_eq!(world.ask("admin", Method::PATCH, &path, Some(password)).await.0, StatusCode::OK);
    assert_eq!(world.ask(&session, Method::GET, "/auth/me", None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.ask("admin", Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.ask("admin", Method::GET, &path, None).await.0, StatusCode::NOT_FOUND);
    let last = format!("/users/{}", world.user_id("admin").await);
    assert_eq!(world.ask("admin", Method::DELETE, &last, None).await.0, StatusCode::CONFLICT);
    let (_, page) = world.ask("admin", Method::GET, "/users?limit=3", None).await;
    let next = page["next"].as_str().unwrap();
    let (_, rest) = world.ask("admin", Method::GET, &format!("/users?after={next}"), None).await;
    assert_eq!((page["items"].as_array().unwrap().len(), rest["items"].as_array().unwrap().len()), (3, 1));
}

#[tokio::test]
async fn bad_users_and_tokens_are_refused_with_what_to_do() {
    let world = World::new().await;
    let user =
        |email: &str, password: &str| json!({ "email": email, "role": "viewer", "password": password });
    let long = "x".repeat(73);
    let token =
        |name: &str, role: &str, days: u32| json!({ "name": name, "role": role, "days": days, "user_id": 2 });
    for (path, body, told) in [
        ("/users", user("no address", PASSWORD), "no email address"),
        ("/users", user("a@b.c", "short"), "12 characters"),
        ("/users", user("a@b.c", &long), "73 bytes"),
        ("/users", json!({ "email": "a@b.c", "role": "owner" }), "owner"),
        ("/tokens", token("", "viewer", 1), "1 to 191"),
        ("/tokens", token("n", "viewer", 0), "1 to 366"),
        ("/tokens", token("n", "viewer", 367), "1 to 366"),
        ("/tokens", token("n", "admin", 1), "more than its user"),
        ("/auth/login", json!({ "email": "a@b.c" }), "password"),
    ] {
        let (status, problem) = world.ask("admin", Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{told}: {problem}");
        assert!(!problem.to_string().contains(&long), "{problem}");
    }
    for path in ["/users?after=x", "/tokens?after=a%20b", "/audit?after=x", "/audit?resource_type=user"] {
        assert_eq!(world.ask("admin", Method::GET, path, None).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_revoked_at_once() {
    let world = World::new().await;
    let session = world.session("operator").await;
    let wanted = json!({ "name": "graphs", "role": "viewer", "days": 7 });
    let (status, made) = world.ask(&session, Method::POST, "/tokens", Some(wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (secret, id) = (made["secret"].as_str().unwrap(), made["token"]["id"].as_str().unwrap());
    let (_, me) = world.ask(secret, Method::GET, "/auth/me", None).await;
    assert_eq!((&me["role"], &me["token_id"]), (&json!("viewer"), &json!(id)));
    assert_eq!(world.ask(secret, Method::POST, "/vms", Some(json!({}))).await.0, StatusCode::FORBIDDEN);
    let (_, own) = world.ask(&session, Method::GET, "/tokens", None).await;
    assert_eq!(own["items"].as_array().unwrap().len(), 3, "its first, its session and the new one: {own}");
    assert!(!own.to_string().contains(secret));
    for stranger in ["viewer", "agent"] {
        let path = format!("/tokens/{id}");
        assert_eq!(
            world.ask(stranger, Method::DELETE, &path, None).await.0,
            StatusCode::NOT_FOUND,
            "{stranger}"
        );
        let others = format!("/tokens?user_id={}", world.user_id("operator").await);
        assert_eq!(world.ask(stranger, Method::GET, &others, None).await.0, StatusCode::FORBIDDEN);
    }
    let path = format!("/tokens/{id}");
    assert_eq!(world.ask("admin", Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(world.ask(secret, Method::GET, "/auth/me", None).await.0, StatusCode::UNAUTHORIZED);
    let (_, all) = world.ask("admin", Method::GET, "/tokens", None).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn a_token_makes_no_other_and_nobody_makes_one_that_may_more() {
    let world = World::new().await;
    let wanted = |role: &str| Some(json!({ "name": "n", "role": role }));
    let of_token = world.ask("operator", Method::POST, "/tokens", wanted("viewer")).await.0;
    assert_eq!(of_token, StatusCode::FORBIDDEN);
    let session = world.session("operator").await;
    assert_eq!(world.ask(&session, Method::POST, "/tokens", wanted("admin")).await.0, StatusCode::FORBIDDEN);
    let other = json!({ "name": "n", "role": "viewer", "user_id": world.user_id("admin").await });
    assert_eq!(world.ask(&session, Method::POST, "/tokens", Some(other)).await.0, StatusCode::FORBIDDEN);
    let for_other = json!({ "name": "n", "role": "agent", "user_id": world.user_id("agent").await });
    assert_eq!(world.ask("admin", Method::POST, "/tokens", Some(for_other)).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn an_agent_sees_its_jobs_and_nothing_else() {
    let world = World::new().await;
    for path in ["/vms", "/volumes", "/operations", "/openapi.json"] {
        assert_eq!(world.ask("agent", Method::GET, path, None).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    let (_, me) = world.ask("agent", Method::GET, "/auth/me", None).await;
    assert_eq!((&me["role"], &me["jobs"]), (&json!("agent"), &json!([])));
    let job = |text: &str| oma_core::JobId::parse(text).unwrap();
    let tokens = AccountTokens::new(world.store.clone());
    let mut agent = tokens.principal("agent").await.unwrap().unwrap();
    assert!(agent.sees(&job("job-1")).is_err());
    if let Some(account) = &mut agent.account {
        account.jobs.insert(job("job-1"));
    }
    assert!(agent.sees(&job("job-1")).is_ok());
    let hidden = agent.sees(&job("job-2")).unwrap_err();
    assert_eq!(hidden.kind(), ErrorKind::NotFound);
    assert!(Principal::new("viewer", Role::Viewer).sees(&job("job-2")).is_ok());
    assert!(Principal::new("agent", Role::Agent).sees(&job("job-1")).is_err());
}

#[tokio::test]
async fn whoever_knows_the_password_changes_it() {
    let world = World::new().await;
    let session = world.session("viewer").await;
    let change = |current: &str, new: &str| Some(json!({ "current": current, "new": new }));
    let new = "a new long password";
    for (body, status) in [
        (change("wrong", new), StatusCode::FORBIDDEN),
        (change(PASSWORD, "short"), StatusCode::BAD_REQUEST),
        (change(PASSWORD, new), StatusCode::NO_CONTENT),
        (change(PASSWORD, new), StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(world.ask(&session, Method::POST, "/auth/password", body).await.0, status);
    }
    assert_eq!(
        world.log_in("viewer@example.com", PASSWORD, [192, 0, 2, 1]).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(world.log_in("viewer@example.com", new, [192, 0, 2, 1]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_first_start_makes_an_admin_and_no_later_one_does() {
    let store = MemoryStore::default();
    let lifetime = Duration::from_secs(86_400);
    let full = |_: &NewToken| Err(Error::new(ErrorKind::NoSpace, "write", "the token"));
    let refused = first_admin(&store, &store, "admin@localhost", lifetime, full).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    let mut secret = None;
    let keep = |token: &NewToken| {
        secret = Some(token.clone());
        Ok(())
    };
    assert!(first_admin(&store, &store, "admin@localhost", lifetime, keep).await.unwrap(), "nobody was made");
    let secret = secret.unwrap();
    assert!(secret.reveal().starts_with("oma_") && secret.reveal().len() >= 4 + 32);
    let never = |_: &NewToken| unreachable!("there is an admin");
    assert!(!first_admin(&store, &store, "admin@localhost", lifetime, never).await.unwrap());
    let store = Arc::new(store);
    let others: Arc<dyn Authenticator> = Arc::new(crate::server::TokenFile::new("/nonexistent/tokens"));
    let both = AnyOf::new(vec![others, Arc::new(AccountTokens::new(store.clone()))]);
    let principal = both.principal(secret.reveal()).await.unwrap().unwrap();
    assert_eq!((principal.name.as_str(), principal.role), ("admin@localhost", Role::Admin));
    assert_eq!(both.principal("nobody's").await.unwrap(), None);
    let verified = store.verify_audit(None).await.unwrap();
    assert_eq!((verified.entries, verified.broken), (1, None));
}
