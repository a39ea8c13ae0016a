//! Requests that are made again because their answer was lost.

use super::*;

impl World {
    async fn keyed(&self, token: &str, path: &str, key: &str, body: Value) -> (StatusCode, Value) {
        let mut request = asked(token, Method::POST, path, Some(body));
        request.headers_mut().insert("Idempotency-Key", key.parse().unwrap());
        let (status, _, value) = self.send(request).await;
        (status, value)
    }
}

#[tokio::test]
async fn a_user_who_is_asked_for_twice_is_added_once() {
    let world = World::new().await;
    let new =
        json!({ "email": "new@example.com", "full_name": "Ada", "role": "viewer", "password": PASSWORD });
    let (status, made) = world.keyed("admin", "/users", "k1", new.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(world.keyed("admin", "/users", "k1", new.clone()).await, (StatusCode::CREATED, made));
    let actions: Vec<String> = world.trail().await.into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["user.create", "user.compare"]);
    // Not the same: another name, another role, another password, none.
    for (field, value) in [
        ("full_name", json!("Grace")),
        ("role", json!("operator")),
        ("password", json!("another long one")),
        ("password", Value::Null),
    ] {
        let mut other = new.clone();
        other[field] = value;
        let (status, problem) = world.keyed("admin", "/users", "k1", other).await;
        assert_eq!((status, &problem["title"]), (StatusCode::CONFLICT, &json!("already exists")), "{field}");
    }
    let (status, _) = world.ask("admin", Method::POST, "/users", Some(new)).await;
    assert_eq!(status, StatusCode::CONFLICT, "without a key it is another one's address");
}

#[tokio::test]
async fn l30_a_repeated_request_guesses_no_password() {
    let world = World::new().await;
    let guess = |at: u32| json!({ "email": "viewer@example.com", "role": "viewer", "password": format!("guess number {at}") });
    for at in 0..5 {
        let (status, _) = world.keyed("admin", "/users", "k1", guess(at)).await;
        assert_eq!(status, StatusCode::CONFLICT);
    }
    let (status, _) = world.keyed("admin", "/users", "k1", guess(6)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_token_that_is_asked_for_twice_is_made_once() {
    let world = World::new().await;
    let session = world.session("operator").await;
    let new = json!({ "name": "ci", "role": "viewer", "days": 1 });
    let (status, made) = world.keyed(&session, "/tokens", "k1", new.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let id = made["token"]["id"].as_str().unwrap();
    let (status, problem) = world.keyed(&session, "/tokens", "k1", new.clone()).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(&format!("DELETE /tokens/{id}")), "{problem}");
    let (status, row) = world.ask(&session, Method::GET, &format!("/tokens/{id}"), None).await;
    assert_eq!((status, &row), (StatusCode::OK, &made["token"]));
    let other = world.session("viewer").await;
    assert_eq!(world.ask(&other, Method::GET, &format!("/tokens/{id}"), None).await.0, StatusCode::NOT_FOUND);
    let (status, theirs) = world.keyed(&other, "/tokens", "k1", new).await;
    assert_eq!(status, StatusCode::CREATED, "another user's key is another key: {theirs}");
}

/// As the document says, whichever group a route is of.
#[tokio::test]
async fn every_route_with_a_condition_keeps_it() {
    let world = World::new().await;
    let session = world.session("admin").await;
    let mut kept = 0;
    for (path, methods) in world.document["paths"].as_object().unwrap() {
        for (method, told) in methods.as_object().unwrap() {
            let mut parameters = told["parameters"].as_array().into_iter().flatten();
            if !parameters.any(|parameter| parameter["name"] == json!("If-Match")) {
                continue;
            }
            let token = world.store.tokens(None, None).try_next().await.unwrap().unwrap().id;
            let user = world.user_id("viewer").await.to_string();
            let place = path.strip_prefix(PREFIX).unwrap().replace("{user_id}", &user);
            let place = place.replace("{token_id}", token.as_str()).replace(['{', '}'], "");
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut request = asked(&session, verb, &place, Some(json!({})));
            request.headers_mut().insert(header::IF_MATCH, "\"x\"".parse().unwrap());
            let (status, _, problem) = world.send(request).await;
            // What is not there cannot be read either.
            let is_there = place.starts_with("/users") || place.starts_with("/tokens");
            let expected = if is_there { StatusCode::PRECONDITION_FAILED } else { StatusCode::NOT_FOUND };
            assert_eq!(status, expected, "{method} {path}: {problem}");
            kept += 1;
        }
    }
    assert!(kept >= 12, "{kept}");
}

#[tokio::test]
async fn a_login_changes_no_tag_of_a_user_and_a_new_password_does() {
    let world = World::new().await;
    let admin = world.session("admin").await;
    let path = format!("/users/{}", world.user_id("viewer").await);
    let tag = async || {
        let (_, headers, _) = world.send(asked(&admin, Method::GET, &path, None)).await;
        headers[header::ETAG].clone()
    };
    let before = tag().await;
    world.session("viewer").await;
    assert_eq!(tag().await, before);
    let change = json!({ "password": "another long password" });
    assert_eq!(world.ask(&admin, Method::PATCH, &path, Some(change)).await.0, StatusCode::OK);
    assert_ne!(tag().await, before);
}
