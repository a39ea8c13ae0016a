//! A database as a file, from one engine to the next.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::time::Duration;

use futures_util::future::BoxFuture;
use oma_core::audit::AuditEntry;
use oma_core::conformance::{Requirement, Trial, trial};
use oma_core::record::{
    AttemptLimits, AttemptSubject, Email, JobEnd, LogEvent, Page, PageStart, PasswordHash, TokenHash,
    TokenSpec, UserSpec,
};
use oma_core::state::{LogLevel, Role, TokenKind};
use oma_core::traits::{Accounts, AuditLog, ExtentJournal, JobStore, LogStore, VolumeRegistry};
use oma_core::{ByteSize, ErrorKind, Extent, JobId, Timestamp, TokenId, WorkerId};
use oma_store::{Contents, SqlStore};
use serde_json::Value;

use crate::breaks;
use crate::place::{ENGINES, Engine, Place};
use crate::vm::Vm;

pub(crate) fn trials() -> Vec<Trial> {
    let all: Vec<Requirement> = ENGINES.iter().flat_map(|engine| engine.needs()).collect();
    let mut trials = vec![
        trial("a_database_that_went_through_every_engine_is_the_same", &all, round),
        trial("a_file_with_any_byte_changed_or_cut_anywhere_is_refused", &[], damaged),
    ];
    for engine in ENGINES {
        let mut add = |name: &str, test: fn(Engine) -> BoxFuture<'static, ()>| {
            trials.push(trial(&format!("{engine}::{name}"), &engine.needs(), move || test(engine)));
        };
        add("all_columns_are_moved", |engine| Box::pin(columns(engine)));
        add("a_failed_import_leaves_nothing_behind", |engine| Box::pin(refused(engine)));
        add("a_database_with_records_takes_in_nothing", |engine| Box::pin(full(engine)));
        add("of_two_imports_at_once_one_wins", |engine| Box::pin(at_once(engine)));
        add("l16_a_database_is_not_exported_while_a_lease_lasts", |engine| Box::pin(leased(engine)));
        add("what_was_moved_is_worked_on", |engine| Box::pin(worked_on(engine)));
    }
    trials
}

async fn exported(store: &SqlStore) -> (Vec<u8>, Contents) {
    let mut bytes = Vec::new();
    let contents = store.export_database(&mut bytes).await.unwrap();
    (bytes, contents)
}

async fn import(store: &SqlStore, bytes: &[u8]) -> oma_core::Result<Contents> {
    store.import_database(&mut Cursor::new(bytes)).await
}

/// The import is refused with these words, of one of these kinds.
async fn refuses(store: &SqlStore, bytes: &[u8], kinds: &[ErrorKind], words: &[&str]) {
    let error = import(store, bytes).await.unwrap_err();
    assert!(kinds.contains(&error.kind()), "{:?}: {}", error.kind(), error.chain());
    for word in words {
        assert!(error.chain().contains(word), "{word:?} is not in {:?}", error.chain());
    }
}

async fn round() {
    let [sqlite, mariadb, postgres] = ENGINES;
    let first = Place::new(sqlite).await;
    let store = first.open().await;
    populate(sqlite, &first, &store).await;
    assert_eq!(store.check().await.unwrap(), []);
    let (bytes, contents) = exported(&store).await;
    store.close().await;
    assert!(contents.rows.values().all(|rows| *rows > 0), "{contents:?}");
    for engine in [mariadb, postgres, sqlite] {
        let place = Place::new(engine).await;
        let store = place.open().await;
        assert_eq!(import(&store, &bytes).await.unwrap(), contents, "{engine}");
        assert_eq!(store.instance().await.unwrap(), contents.instance);
        assert_eq!(store.check().await.unwrap(), [], "{engine}");
        let (again, same) = exported(&store).await;
        assert_eq!(same, contents, "{engine}");
        assert!(again == bytes, "{engine} gives other bytes");
        store.close().await;
    }
}

async fn columns(engine: Engine) {
    let place = Place::new(engine).await;
    let store = place.open().await;
    populate(engine, &place, &store).await;
    let (bytes, contents) = exported(&store).await;
    store.close().await;
    let mut moved = Vec::new();
    for line in lines(&bytes) {
        let Some(table) = line["table"].as_str() else { continue };
        moved.extend(line["row"].as_object().unwrap().keys().map(|column| format!("{table}.{column}")));
    }
    moved.sort();
    moved.dedup();
    let mut schema = place.columns().await;
    schema.retain(|column| !column.starts_with("oma_m"));
    schema.sort();
    assert_eq!(moved, schema);
    assert_eq!(contents.rows.values().min(), Some(&1));
}

async fn damaged() {
    let (source, target) = (Place::new(Engine::Sqlite).await, Place::new(Engine::Sqlite).await);
    let store = source.open().await;
    Vm::committed(&store, "web01").await;
    let (bytes, _) = exported(&store).await;
    store.close().await;
    let store = target.open().await;
    let (before, _) = exported(&store).await;
    let head = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let any = [ErrorKind::Corrupt, ErrorKind::Invalid, ErrorKind::Unsupported];
    for at in (0..head).chain((head..bytes.len()).step_by(23)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        refuses(&store, &changed, if at > head { &any[..1] } else { &any }, &[]).await;
    }
    for at in (1..bytes.len()).step_by(41).chain([bytes.len() - 1]) {
        refuses(&store, &bytes[..at], if at > head { &any[..1] } else { &any[1..2] }, &[]).await;
    }
    for (number, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').rev().skip(1) {
        refuses(&store, &bytes[..=number], &any[..1], &["the file is cut"]).await;
    }
    for foreign in ["", "\n", "{}\n", "hello\n", "SQLite format 3\0", "[1]\n", "{\"oma\":\"demo\"}\n"] {
        refuses(&store, foreign.as_bytes(), &any[1..2], &["no export of an OMA database"]).await;
    }
    assert!(exported(&store).await.0 == before);
    import(&store, &bytes).await.unwrap();
    store.close().await;
}

/// Files that somebody edited and sealed again.
async fn refused(engine: Engine) {
    let (source, target) = (Place::new(Engine::Sqlite).await, Place::new(engine).await);
    let store = source.open().await;
    Vm::committed(&store, "web01").await;
    Vm::committed(&store, "web02").await;
    let bytes = String::from_utf8(exported(&store).await.0).unwrap();
    store.close().await;
    let store = target.open().await;
    let (before, _) = exported(&store).await;
    let corrupt = [ErrorKind::Corrupt];
    for (from, to, words) in [
        ("\"job_id\":\"job-", "\"job_id\":\"gone-", "refused by the database"),
        ("\"sync_status\":\"completed\"", "\"sync_status\":\"odd\"", "refused by the database"),
        ("\"bytes_synced\":131072", "\"bytes_synced\":-1", "refused by the database"),
        ("\"bytes_synced\":131072", "\"bytes_synced\":1e3", "no row of vm_disks"),
        ("\"bytes_synced\":131072", "\"bytes_synced\":\"1\"", "no row of vm_disks"),
        ("\"bytes_synced\":131072,", "", "no row of vm_disks"),
        ("\"bytes_synced\":131072", "\"bytes_synced\":131072,\"more\":1", "no row of vm_disks"),
        ("\"label\":\"Festplatte", "\"label\":\"\\u0000", "no row of vm_disks"),
        ("{\"table\":\"vm_disks\"", "{\"table\":\"odd\"", "does not belong there"),
        ("{\"table\":\"vm_disks\"", "{\"table\":\"ossea_configs\"", "does not belong there"),
        ("{\"table\":\"vm_disks\"", "{\"more\":1,\"table\":\"vm_disks\"", "unknown field"),
    ] {
        assert!(bytes.contains(from), "{from}");
        refuses(&store, sealed(&bytes.replacen(from, to, 1)).as_bytes(), &corrupt, &["line", words]).await;
    }
    let mut rows: Vec<&str> = bytes.lines().collect();
    let disk = rows.iter().position(|row| row.contains("\"vm_disks\"")).unwrap();
    rows.swap(disk, disk + 1);
    refuses(&store, sealed(&rows.join("\n")).as_bytes(), &corrupt, &["order of the keys"]).await;
    rows[disk] = rows[disk + 1];
    refuses(&store, sealed(&rows.join("\n")).as_bytes(), &corrupt, &["order of the keys"]).await;
    for (from, to, words) in [
        ("\"format\":1", "\"format\":2", "the file has format 2, this program reads 1"),
        ("\"schema\":12", "\"schema\":11", "the file has schema 11, this program reads 12"),
    ] {
        let changed = sealed(&bytes.replacen(from, to, 1));
        refuses(&store, changed.as_bytes(), &[ErrorKind::Unsupported], &[words]).await;
    }
    let counted = bytes.replacen("\"audit_logs\":0", "\"audit_logs\":1", 1);
    refuses(&store, counted.as_bytes(), &corrupt, &["does not count the rows"]).await;
    refuses(&store, format!("{bytes}\n").as_bytes(), &corrupt, &["nothing belongs behind"]).await;
    assert!(exported(&store).await.0 == before, "something was left");
    import(&store, bytes.as_bytes()).await.unwrap();
    store.close().await;
}

async fn full(engine: Engine) {
    let place = Place::new(engine).await;
    let store = place.open().await;
    Vm::committed(&store, "web01").await;
    let (bytes, _) = exported(&store).await;
    refuses(&store, &bytes, &[ErrorKind::Conflict], &["it holds records (vm_replication_contexts)"]).await;
    assert!(exported(&store).await.0 == bytes);
    store.close().await;
}

async fn at_once(engine: Engine) {
    let (source, target) = (Place::new(Engine::Sqlite).await, Place::new(engine).await);
    let store = source.open().await;
    Vm::committed(&store, "web01").await;
    let (bytes, _) = exported(&store).await;
    store.close().await;
    let (one, other) = (target.open().await, target.open().await);
    let (first, second) = tokio::join!(import(&one, &bytes), import(&other, &bytes));
    assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
    let error = first.and(second).unwrap_err();
    assert!(error.chain().contains("it holds records"), "{}", error.chain());
    assert!(exported(&one).await.0 == bytes);
    one.close().await;
    other.close().await;
}

async fn leased(engine: Engine) {
    let place = Place::new(engine).await;
    let store = place.open().await;
    let vm = Vm::copying(&store, "web01").await;
    let mut bytes = Vec::new();
    let error = store.export_database(&mut bytes).await.unwrap_err();
    assert_eq!((error.kind(), bytes.len()), (ErrorKind::Busy, 0));
    for word in [vm.lease.job.as_str(), vm.lease.worker.as_str()] {
        assert!(error.chain().contains(word), "{}", error.chain());
    }
    store.release(&vm.lease).await.unwrap();
    store.export_database(&mut bytes).await.unwrap();
    store.close().await;
}

async fn worked_on(engine: Engine) {
    let (source, target) = (Place::new(Engine::Sqlite).await, Place::new(engine).await);
    let store = source.open().await;
    populate(Engine::Sqlite, &source, &store).await;
    let (bytes, _) = exported(&store).await;
    store.close().await;
    let store = target.open().await;
    import(&store, &bytes).await.unwrap();
    Vm::committed(&store, "web09").await;
    let event = LogEvent {
        job: None,
        step: None,
        level: LogLevel::Info,
        message: "moved".to_owned(),
        attrs: None,
        at: Timestamp::from_millis(1_755_770_000_000),
    };
    store.append(std::slice::from_ref(&event)).await.unwrap();
    let newest = Page { start: PageStart::Newest, limit: 1 };
    assert_eq!(store.events(&oma_core::record::LogFilter::default(), &newest).await.unwrap()[0].1, event);
    let entry = AuditEntry { action: "worked".to_owned(), ..AuditEntry::default() };
    store.audit(&entry).await.unwrap();
    let trail = store.verify_audit(None).await.unwrap();
    assert_eq!((trail.entries, trail.broken), (2, None));
    assert!(store.bearer(&TokenHash::of("secret")).await.unwrap().is_some());
    let worker = WorkerId::parse("appliance-2").unwrap();
    let jobs: Vec<_> = lines(&bytes);
    let live = jobs
        .iter()
        .find(|line| line["table"] == "replication_jobs" && line["row"]["status"] == "replicating");
    let live = live.unwrap()["row"]["id"].as_str().unwrap().parse().unwrap();
    let lease = store.claim(&live, &worker, Duration::from_secs(60)).await.unwrap();
    store.end(&lease, JobEnd::Failed("given up".to_owned())).await.unwrap();
    let findings = store.check().await.unwrap();
    // The export of the copy that was given up still stands as running (L24).
    assert_eq!(findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), ["export-of-ended-job"]);
    store.close().await;
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The file with the fingerprint that it ought to have.
fn sealed(text: &str) -> String {
    let (rows, end) = text.trim_end().rsplit_once('\n').unwrap();
    let rows = format!("{rows}\n");
    let hash = rows.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (counts, _) = end.split_once("\"fingerprint\":").unwrap();
    format!("{rows}{counts}\"fingerprint\":\"{hash:016x}\"}}}}\n")
}

/// Rows in every table: VMs in several states, texts that are hard to keep, more extents than a page has.
async fn populate(engine: Engine, place: &Place, store: &SqlStore) {
    Vm::committed(store, "web01").await;
    let mut again = Vm::committed(store, "web02").await;
    again.again().await;
    again.publish().await;
    again.copy().await;
    again.withdraw().await;
    again.commit().await;
    let failed = Vm::copying(store, "web03").await;
    failed.withdraw().await;
    failed.fail().await;
    let live = Vm::copying(store, "web04").await;
    // More than are read at a time.
    for number in 0..520 {
        let run = Extent::new((number << 13) + (1 << 30), 4096).unwrap();
        let synced = ByteSize::new(run.end());
        ExtentJournal::record(store, &live.lease, &live.disk().key, run, synced).await.unwrap();
    }
    store.release(&live.lease).await.unwrap();
    let mut events = Vec::new();
    for (number, at) in [1_577_836_800_000, 1_700_000_000_123, 1_755_770_000_999].into_iter().enumerate() {
        let message = format!(
            "{number}: \"quoted\" \\ back\nslash\t\u{1} \u{2028} ü 😀 {}",
            "x".repeat(65_536 * number)
        );
        let attrs = Some(serde_json::json!({ "z": [1, "😀"], "a": { "b": null } }));
        let at = Timestamp::from_millis(at);
        events.push(LogEvent {
            job: Some(live.lease.job.clone()),
            step: None,
            level: LogLevel::Warn,
            message,
            attrs,
            at,
        });
    }
    let first = events[0].clone();
    events.extend((0..250).map(|number| LogEvent { message: number.to_string(), ..first.clone() }));
    store.append(&events).await.unwrap();
    let text = format!(
        "INSERT INTO ossea_configs (id, name, api_url, zone, created_at, updated_at) VALUES (7, 'cloud', 'https://cloud', 'z', {{t}}, {{t}}); \
         INSERT INTO schedules (id, name, cron_expression, created_at, updated_at) VALUES ('s', 'nightly', '0 3 * * *', {{t}}, {{t}}); \
         INSERT INTO failover_jobs (id, job_id, vm_context_id, vm_id, job_type, source_vm_name, source_vm_spec, created_at, updated_at) \
         VALUES (3, 'f', '{vm}', 'u', 'test', 'n', '{{ \"b\": 1,  \"a\": 2 }}', {{t}}, {{t}}); \
         INSERT INTO cleanups (seq, id, job_id, vm_context_id, worker, plan, status, created_at, updated_at) \
         VALUES (4, 'c-1', '{job}', '{vm}', 'w', {plan}, 'planned', {{t}}, {{t}}); \
         INSERT INTO cleanup_steps (id, cleanup_id, seq, name, status, updated_at) VALUES (6, 'c-1', 0, 'check', 'pending', {{t}}); \
         INSERT INTO network_mappings (id, vm_context_id, source_network_name, destination_network_id, destination_network_name, \
         created_at, updated_at) VALUES (5, '{vm}', 'a', 'b', 'c', {{t}}, {{t}}); \
         INSERT INTO job_steps (id, job_id, name, seq, started_at) VALUES (9, '{job}', 'copy', 1, {{t}}); \
         INSERT INTO verification_reports (job_id, report, created_at) VALUES ('{job}', {report}, {{t}}); \
         INSERT INTO recovery_points (id, vm_context_id, job_id, epoch, status, volumes, created_at, updated_at) \
         VALUES ('point-1', '{vm}', '{job}', 1, 'taken', '[ ]', {{t}}, {{t}})",
        vm = live.context.id,
        job = live.lease.job,
        report = breaks::REPORT,
        plan = breaks::PLAN,
    );
    place.force(&text.replace("{t}", engine.moment())).await;
    place.force(&breaks::automation(engine)).await;
    accounts(store, &live.lease.job).await;
}

/// A token that sees a job, an attempt to log in, and an entry of the audit trail behind the one that is in no chain.
async fn accounts(store: &SqlStore, job: &JobId) {
    let email = Email::parse("ada@example.com").unwrap();
    let spec = UserSpec {
        email,
        full_name: "Ada ü 😀".to_owned(),
        role: Role::Agent,
        password_hash: PasswordHash::none(),
    };
    let user = store.add_user(&spec).await.unwrap();
    let token = TokenSpec {
        id: TokenId::mint(),
        kind: TokenKind::Api,
        name: "token".to_owned(),
        role: Role::Agent,
        hash: TokenHash::of("secret"),
        jobs: BTreeSet::from([job.clone()]),
        lifetime: Duration::from_secs(3600),
        address: Some([192, 0, 2, 7].into()),
    };
    store.mint(user.id, &token).await.unwrap();
    let limits =
        AttemptLimits { attempts: 3, window: Duration::from_secs(60), lock: Duration::from_secs(60) };
    store.attempt(&AttemptSubject::account("ada"), &limits).await.unwrap();
    let entry = AuditEntry { actor: "ada".to_owned(), action: "moved".to_owned(), ..AuditEntry::default() };
    store.audit(&entry).await.unwrap();
}
