//! What is served is described.

use std::sync::Arc;

use oma_api::server::{Api, BackendRoutes, ExportRoutes, Publisher};
use oma_core::InstanceId;
use oma_core::conformance::{Trial, trial};
use oma_core::memory::{ManualClock, MemoryBackend, MemoryExportServer, MemoryStore};
use serde_json::Value;

use crate::daemon::Memory;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("every_route_is_described_with_its_answers_and_problems", &[], described)]
}

fn document() -> Value {
    let exports = Memory(MemoryExportServer::new());
    let publisher = Publisher::new(Arc::new(exports.0.clone()), Arc::new(exports));
    let (backend, instance) = (Arc::new(MemoryBackend::new()), InstanceId::mint());
    let registry =
        Arc::new(MemoryStore::new(Arc::new(ManualClock::new(oma_core::Timestamp::from_millis(0)))));
    let routes =
        BackendRoutes { backend: backend.clone(), instance: instance.clone(), publisher: publisher.clone() };
    let api = Api::new("test").backend(routes).exports(ExportRoutes {
        backend,
        registry,
        instance,
        publisher,
        jobs: None,
    });
    serde_json::to_value(api.document()).unwrap()
}

async fn described() {
    let document = document();
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with("/api/v1/backend/") || path.starts_with("/api/v1/exports"), "{path}");
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            let is_done = |status: &String| status.starts_with('2');
            assert!(answers.keys().any(is_done), "{method} {path}");
            // Each status by itself; a defect is none that anybody is told of.
            for problem in ["400", "401", "403", "404", "409", "423", "501", "503", "507"] {
                assert!(answers[problem]["$ref"].is_string(), "{method} {path} {problem}");
            }
            assert_eq!(answers.contains_key("413"), method != "get", "{method} {path}");
            assert!(!answers.contains_key("default") && !answers.contains_key("500"), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            operations += 1;
        }
    }
    // The 16 methods of `VolumeBackend`, 3 of sessions, and 4 of exports.
    assert_eq!(operations, 23);
    let text = document.to_string();
    for reference in text.split(r##""$ref":"#/components/"##).skip(1) {
        let (kind, name) = reference.split('"').next().unwrap().split_once('/').unwrap();
        assert!(document["components"][kind][name].is_object(), "{kind}/{name} is not described");
    }
}
