//! Changes that are made only while what their caller read is so.

use super::*;

impl World {
    async fn tag(&self, path: &str) -> String {
        let (status, headers, value) = self.send(asked(Method::GET, path, "operator", None, None)).await;
        assert_eq!(status, StatusCode::OK, "{value}");
        headers[header::ETAG].to_str().unwrap().to_owned()
    }

    async fn change(&self, path: &str, role: &str, tag: &str) -> (StatusCode, Value) {
        let mut request = asked(Method::POST, path, role, None, None);
        request.headers_mut().insert(header::IF_MATCH, tag.parse().unwrap());
        let (status, _, value) = self.send(request).await;
        (status, value)
    }
}

#[tokio::test]
async fn a_change_of_what_is_not_as_it_was_read_is_not_done() {
    let world = World::new();
    let path = format!("/volumes/{}", world.volume("web01").await);
    let attach = format!("{path}/attach?wait=30s");
    let tag = world.tag(&path).await;
    assert_eq!(world.tag(&path).await, tag, "nothing happened in between");
    let (status, done) = world.change(&attach, "operator", &tag).await;
    assert_eq!((status, &done["status"]), (StatusCode::OK, &json!("completed")), "{done}");
    let (status, problem) = world.change(&format!("{path}/detach?wait=30s"), "operator", &tag).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("read it again"), "{problem}");
    assert_eq!(world.get(&path).await["status"], json!("attached"));
    world.done(Method::POST, &format!("{path}/detach"), None).await;
    for bad in ["\"other\"", "other", "", &format!("W/{}", world.tag(&path).await)] {
        let (status, problem) = world.change(&attach, "operator", bad).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{bad}: {problem}");
    }
    let (status, problem) =
        world.change(&attach, "operator", &format!("\"other\", {}", world.tag(&path).await)).await;
    assert_eq!(status, StatusCode::OK, "{problem}");
    let (status, problem) = world.change(&format!("{path}/detach"), "operator", "*").await;
    assert!(status.is_success(), "{problem}");
}

#[tokio::test]
async fn a_condition_tells_nobody_more_than_a_look() {
    let world = World::new();
    let path = format!("/volumes/{}", world.volume("web01").await);
    let (status, _) = world.change(&format!("{path}/attach"), "viewer", "*").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = world.change("/volumes/vol-none/attach", "operator", "*").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // There is no one thing behind these.
    for path in ["/volumes", "/reconciliation"] {
        let (status, problem) = world.change(path, "operator", "*").await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{problem}");
    }
}

#[tokio::test]
async fn of_two_changes_with_one_tag_one_is_done() {
    let world = World::new();
    let path = format!("/volumes/{}", world.volume("web01").await);
    let (tag, attach) = (world.tag(&path).await, format!("{path}/attach?wait=30s"));
    let (one, other) =
        tokio::join!(world.change(&attach, "operator", &tag), world.change(&attach, "operator", &tag));
    let mut statuses = [one.0, other.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::PRECONDITION_FAILED], "{one:?} {other:?}");
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let world = World::new();
    let path = format!("/volumes/{}", world.volume("web01").await);
    let tag = world.tag(&path).await;
    let look = async |known: &str| {
        let mut request = asked(Method::GET, &path, "operator", None, None);
        request.headers_mut().insert(header::IF_NONE_MATCH, known.parse().unwrap());
        let (status, headers, body) = world.send(request).await;
        (status, headers[header::ETAG].to_str().unwrap().to_owned(), body)
    };
    assert_eq!(look(&tag).await, (StatusCode::NOT_MODIFIED, tag.clone(), json!("")));
    assert_eq!(look("\"other\"").await.0, StatusCode::OK);
    world.done(Method::POST, &format!("{path}/attach"), None).await;
    let (status, now, row) = look(&tag).await;
    assert_eq!((status, &row["status"]), (StatusCode::OK, &json!("attached")));
    assert_ne!(now, tag);
    // Lists and figures have none.
    for path in ["/volumes", "/health"] {
        let (_, headers, _) = world.send(asked(Method::GET, path, "operator", None, None)).await;
        assert!(!headers.contains_key(header::ETAG), "{path}");
    }
}

#[tokio::test]
async fn the_document_names_the_conditions() {
    let document = World::new().get("/openapi.json").await;
    let names = |path: &str, method: &str| -> Vec<String> {
        let parameters = document["paths"][format!("{PREFIX}{path}")][method]["parameters"].clone();
        let named = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
        parameters.as_array().into_iter().flatten().map(named).collect()
    };
    let has = |path: &str, method: &str, name: &str| names(path, method).iter().any(|named| named == name);
    assert!(has("/volumes/{volume_id}", "delete", "If-Match"));
    assert!(has("/volumes/{volume_id}/attach", "post", "If-Match"));
    assert!(has("/volumes/{volume_id}", "get", "If-None-Match"));
    assert!(!has("/volumes", "post", "If-Match") && !has("/volumes", "get", "If-None-Match"));
}
