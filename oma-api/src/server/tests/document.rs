//! The document has every route.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

/// What is printed by `omad openapi`, whose tests hold it against the program.
const KEPT: &str = include_str!("../../../../docs/openapi.json");

/// The methods and paths that handlers are annotated with.
fn annotated(folder: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Tests annotate nothing, and this one names what it looks for.
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            annotated(&path, found);
            continue;
        }
        for annotation in fs::read_to_string(&path).unwrap().split("#[utoipa::path(").skip(1) {
            let (method, rest) = annotation.split_once(',').unwrap();
            let (_, rest) = rest.split_once("path = \"").unwrap();
            let (route, _) = rest.split_once('"').unwrap();
            assert!(found.insert((method.trim().to_owned(), format!("{PREFIX}{route}"))), "{method} {route}");
        }
    }
}

#[test]
fn every_handler_is_in_the_document() {
    let mut found = BTreeSet::new();
    annotated(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server"), &mut found);
    let document: Value = serde_json::from_str(KEPT).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    let differs: Vec<_> = found.symmetric_difference(&described).collect();
    assert!(differs.is_empty(), "in one of both only: {differs:?}; run `just openapi`");
    assert!(found.len() > 100, "{}", found.len());
}
