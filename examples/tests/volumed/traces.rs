//! Traces: what a collector is sent, and that nothing depends on it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oma_core::conformance::{Requirement, Trial, trial};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::appliance::ended;
use crate::world::{Daemon, LIMIT, Ran, World};

const BUILT: Requirement = Requirement::Feature("opentelemetry", cfg!(feature = "opentelemetry"));

/// No log may show it.
const SECRET: &str = "hush-e5f0";

/// Whose trace a request is a part of.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f0670011b90217";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_replication_arrives_as_spans_at_a_collector", &[BUILT], arrives),
        trial("a_collector_that_is_gone_holds_nothing_up", &[BUILT], gone),
        trial("a_collector_that_hangs_holds_nothing_up", &[BUILT], hangs),
        trial("l29_a_collector_that_cannot_be_is_refused_and_not_shown", &[BUILT], refused),
    ]
}

/// One request.
#[derive(Debug)]
struct Post {
    head: String,
    body: Vec<u8>,
}

/// What was posted.
#[derive(Clone, Debug, Default)]
struct Posted(Arc<Mutex<Vec<Post>>>);

impl Posted {
    /// Answers every request.
    async fn take(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(self.clone().answer(stream));
        }
    }

    async fn answer(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let from = head.len();
            if stream.read_line(&mut head).await.unwrap() == 0 {
                return;
            }
            let line = head[from..].trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        self.0.lock().unwrap().push(Post { head, body });
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    fn spans(&self) -> Vec<Told> {
        let mut told = Vec::new();
        for Post { head, body } in self.0.lock().unwrap().iter() {
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains(&format!("x-key: {SECRET}")), "{head}");
            let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
            for resource in request.resource_spans {
                let of = attributes(&resource.resource.unwrap().attributes);
                assert_eq!(of["service.name"], json!("omad"));
                told.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(Told::from));
            }
        }
        told.sort_by_key(|told| told.span.start_time_unix_nano);
        told
    }
}

/// A span, with its attributes as JSON.
#[derive(Debug)]
struct Told {
    span: Span,
    of: BTreeMap<String, Value>,
}

impl From<Span> for Told {
    fn from(span: Span) -> Self {
        Self { of: attributes(&span.attributes), span }
    }
}

impl Told {
    fn is_in(&self, parent: &Self) -> bool {
        self.span.trace_id == parent.span.trace_id && self.span.parent_span_id == parent.span.span_id
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, Value> {
    let value = |of: &KeyValue| match of.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => json!(text),
        any_value::Value::IntValue(number) => json!(number),
        other => json!(format!("{other:?}")),
    };
    list.iter().map(|of| (of.key.clone(), value(of))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An appliance that tells a collector at this address, and all to its log.
fn world(endpoint: &str) -> World {
    World::of_appliance()
        .with_env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned())
        .with_env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-key={SECRET}"))
        .with_env("OTEL_EXPORTER_OTLP_TIMEOUT", "500".to_owned())
        .with_env("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned())
        .with_env("OMA_LOG", "trace".to_owned())
}

/// Replicates a VM, asked for as a part of a trace.
async fn replicated(world: &World, daemon: &Daemon) -> Value {
    world.write(0, 1);
    let context = format!("00-{TRACE}-{PARENT}-01");
    let (status, job) = daemon.ask_within(&context, Method::POST, "/replications", &world.request(0)).await;
    assert_eq!(status, 201, "{job}");
    let row = ended(daemon, job["job_id"].as_str().unwrap()).await.unwrap();
    assert_eq!(row["status"], json!("completed"), "{row}");
    row
}

/// Cancels a job that waits for its agent, and has what it left cleaned up; the job.
async fn cleaned_up(daemon: &Daemon) -> String {
    let disk = json!({ "key": "disk-2000", "capacity_bytes": 1 << 20, "change_id": "point-1" });
    let request = json!({ "vm_path": "/DC/vm/pushed", "push": { "disks": [disk] } });
    let (status, job) = daemon.ask(Method::POST, "/replications", Some(request)).await;
    assert_eq!(status, 201, "{job}");
    let id = job["job_id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    while daemon.get(&format!("/replications/{id}/push")).await["ready"] != json!(true) {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, row) = daemon.ask(Method::POST, &format!("/replications/{id}/cancel"), None).await;
    assert_eq!(status, 202, "{row}");
    assert_eq!(ended(daemon, &id).await.unwrap()["status"], json!("cancelled"));
    let (status, plan) = daemon.ask(Method::POST, "/cleanups", Some(json!({ "job_id": id }))).await;
    assert_eq!((status, &plan["first"]), (201, &json!([])), "{plan}");
    let path = format!("/cleanups/{}/execute?wait=60s", plan["cleanup_id"].as_str().unwrap());
    let (status, row) = daemon.ask(Method::POST, &path, None).await;
    assert_eq!((status, &row["status"]), (200, &json!("completed")), "{row}");
    id
}

/// Lines are about what they say, not about the spans around them.
fn assert_readable(ran: &Ran) {
    assert!(!ran.err.contains(SECRET), "{}", ran.err);
    let driven = ran.err.lines().find(|line| line.ends_with("outcome=Completed")).unwrap();
    assert!(driven.contains("INFO oma_core::engine::work::drive: the job was driven job="), "{driven}");
    assert!(!ran.err.contains("otel.name"), "{}", ran.err);
}

async fn arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let posted = Posted::default();
    let taking = tokio::spawn(posted.clone().take(listener));
    let world = world(&endpoint);
    let daemon = world.appliance().await;
    let row = replicated(&world, &daemon).await;
    let id = row["job_id"].as_str().unwrap();
    let (status, problem) = daemon.ask(Method::GET, "/replications/nobody?limit=hidden", None).await;
    assert_eq!(status, 404, "{problem}");
    daemon.told(id, "epoch 1 is committed").await;
    let steps = daemon.all(&format!("/replications/{id}/steps")).await;
    let cleaned = cleaned_up(&daemon).await;
    assert_readable(&daemon.stop().await);
    taking.abort();

    let spans = posted.spans();
    let asked = spans.iter().find(|told| told.span.name == "POST /api/v1/replications").unwrap();
    assert_eq!((hex(&asked.span.trace_id), hex(&asked.span.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!(asked.span.kind, i32::from(SpanKind::Server));
    assert_eq!(asked.of["http.request.method"], json!("POST"));
    assert_eq!(asked.of["http.route"], json!("/api/v1/replications"));
    assert_eq!(asked.of["http.response.status_code"], json!(201));

    let unknown = spans.iter().find(|told| told.of.get("http.response.status_code") == Some(&json!(404)));
    let unknown = unknown.unwrap();
    assert_eq!(unknown.span.name, "GET /api/v1/replications/{job_id}");
    assert_eq!((unknown.of.len(), unknown.span.parent_span_id.len()), (3, 0), "no error of this program");

    let of_job = |told: &&Told| told.of.get("oma.job.id") == Some(&json!(id));
    let attempts: Vec<_> = spans.iter().filter(of_job).collect();
    let [attempt] = attempts[..] else { panic!("{attempts:?}") };
    assert_eq!(attempt.span.parent_span_id, [0_u8; 0]);
    assert_eq!(attempt.of["oma.job.attempt"], json!(1));
    assert_eq!(attempt.of["oma.job.outcome"], json!("completed"));
    assert_eq!(attempt.of["oma.vm.id"], row["context_id"], "{row}");

    let within: Vec<_> = spans.iter().filter(|told| told.is_in(attempt)).collect();
    let taken: Vec<_> = within.iter().filter_map(|told| told.of.get("oma.job.step")).collect();
    assert_eq!(taken, steps.iter().map(|step| &step["name"]).collect::<Vec<_>>());
    let provision = within.iter().find(|told| told.span.name == "provision").unwrap();
    let calls = spans.iter().filter(|told| told.is_in(provision));
    assert_eq!(calls.filter(|told| told.of.get("oma.backend.call") == Some(&json!("create"))).count(), 2);

    let cleanup = spans.iter().find(|told| told.span.name == "cleanup").unwrap();
    assert_eq!(cleanup.of["oma.job.id"], json!(cleaned));
    let asked =
        spans.iter().find(|told| told.span.name == "POST /api/v1/cleanups/{cleanup_id}/execute").unwrap();
    assert!(cleanup.is_in(asked), "{cleanup:?}");
    let deleting = spans.iter().find(|told| told.of.get("oma.operation.kind") == Some(&json!("delete")));
    let deleting = deleting.unwrap();
    assert!(deleting.is_in(cleanup) && deleting.of["oma.operation.id"].is_string(), "{deleting:?}");
    let call = spans.iter().find(|told| told.of.get("oma.backend.call") == Some(&json!("delete"))).unwrap();
    assert!(call.is_in(deleting), "{call:?}");

    let sent = format!("{spans:?}");
    assert!(!sent.contains("nobody") && !sent.contains("hidden"), "{sent}");
    assert!(!sent.contains(&world.text("")) && !sent.contains("/DC/vm"), "{sent}");
    let allowed = ["http.", "oma.", "error.type"];
    let told = spans.iter().flat_map(|told| told.of.keys());
    let others: Vec<_> = told.filter(|key| !allowed.iter().any(|begin| key.starts_with(begin))).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Replicates while nobody takes the traces, and ends in time; what it said.
async fn unheard(world: World) -> String {
    let daemon = world.appliance().await;
    replicated(&world, &daemon).await;
    let begun = Instant::now();
    let ran = daemon.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_readable(&ran);
    ran.err
}

async fn gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let said = unheard(world(&endpoint)).await;
    let told: Vec<_> = said.lines().filter(|line| line.contains("traces cannot be sent")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("Connection refused"), "{told:?}");
}

async fn hangs() {
    // The system takes connections, and nobody reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let patient = world(&endpoint).with_env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000".to_owned());
    let said = unheard(patient).await;
    assert_eq!(said.lines().filter(|line| line.contains("the last traces were not sent")).count(), 1);
}

async fn refused() {
    for endpoint in [format!("ftp://{SECRET}.example"), format!("http://me:{SECRET}@127.0.0.1:4318")] {
        let world = World::of_appliance().with_env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        let ran = world.run(&["check-config"]).await;
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !ran.err.contains(SECRET), "{ran:?}");
        assert!(fs::metadata(world.path("data")).is_err(), "nothing begins");
    }
}
