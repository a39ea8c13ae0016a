//! The document has every route.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

/// What is printed by `omad openapi`, whose tests hold it against the program.
const KEPT: &str = include_str!("../../../../docs/openapi.json");

/// The methods and paths that handlers are annotated with, and whether they read a body.
fn annotated(folder: &Path, found: &mut BTreeMap<(String, String), bool>) {
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
            let (handler, _) = rest.split_once("{\n").unwrap();
            let reads = handler.contains("Body<");
            let before = found.insert((method.trim().to_owned(), format!("{PREFIX}{route}")), reads);
            assert!(before.is_none(), "{method} {route} twice");
        }
    }
}

#[test]
fn every_handler_is_in_the_document() {
    let mut found = BTreeMap::new();
    annotated(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server"), &mut found);
    let document: Value = serde_json::from_str(KEPT).unwrap();
    let mut described = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.clone(), path.clone()), operation["requestBody"].is_object());
        }
    }
    let differs: Vec<_> = found.iter().filter(|(route, body)| described.get(*route) != Some(*body)).collect();
    assert!(
        differs.is_empty(),
        "handlers that are not described, or whose body is not: {differs:?}; see `just openapi`"
    );
    assert_eq!(found.len(), described.len());
    assert!(found.len() > 100, "{}", found.len());
}

#[test]
fn every_problem_has_its_status_and_a_defect_has_none() {
    let document: Value = serde_json::from_str(KEPT).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.contains_key("503"), "{method} {path}: {answers:?}");
            for of_all in ["default", "500", "4XX", "5XX"] {
                assert!(!answers.contains_key(of_all), "{method} {path}: {of_all}");
            }
            let names: Vec<_> = answers.values().filter_map(|answer| answer["$ref"].as_str()).collect();
            for name in &names {
                let answer = document.pointer(name.strip_prefix('#').unwrap()).unwrap();
                assert!(answer["content"]["application/problem+json"].is_object(), "{name}");
            }
            let has_condition = operation["parameters"].to_string().contains("\"If-Match\"");
            assert_eq!(answers.contains_key("412"), has_condition, "{method} {path}");
            assert_eq!(answers.contains_key("413"), method != "get", "{method} {path}");
        }
    }
}

#[test]
fn l29_no_command_of_the_guides_has_a_secret_in_an_argument() {
    let guides = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut read = 0;
    for entry in fs::read_dir(guides).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "md") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let has_token = ["-H 'Authorization", "-H \"Authorization", "--oauth2-bearer", "curl -u"];
            let has_password = line.contains("-d '") && line.contains("\"password\"");
            assert!(!has_token.iter().any(|shown| line.contains(shown)) && !has_password, "{path:?}: {line}");
        }
        read += 1;
    }
    assert!(read > 10, "{read}");
}
