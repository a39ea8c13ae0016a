//! `check`: nothing on a healthy database, and each contradiction by itself.

use std::collections::BTreeSet;

use oma_core::ErrorKind;
use oma_core::conformance::{Trial, trial};
use oma_core::state::OperationKind;
use oma_core::traits::{Inventory, JobStore, VolumeRegistry};
use oma_store::{Finding, RULES, SqlStore};

use crate::breaks;
use crate::place::{ENGINES, Engine, Place};
use crate::vm::Vm;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for engine in ENGINES {
        let name = format!("{engine}::a_healthy_database_has_no_finding_in_any_state");
        trials.push(trial(&name, &engine.needs(), move || healthy(engine)));
        let name = format!("{engine}::every_contradiction_is_found_and_nothing_else");
        trials.push(trial(&name, &engine.needs(), move || broken(engine)));
        let name = format!("{engine}::the_way_out_that_the_documentation_names_leads_out");
        trials.push(trial(&name, &engine.needs(), move || mended(engine)));
    }
    trials.push(trial("sqlite::a_row_that_its_table_forbids_is_found", &[], forbidden));
    trials
}

async fn fine(store: &SqlStore, when: &str) {
    let findings = store.check().await.unwrap();
    assert!(findings.is_empty(), "{when}: {findings:#?}");
}

async fn healthy(engine: Engine) {
    let place = Place::new(engine).await;
    let store = place.open().await;
    fine(&store, "empty").await;
    place.force(&breaks::automation(engine)).await;
    let mut vm = Vm::begun(&store, "web01").await;
    fine(&store, "begun").await;
    vm.operate(OperationKind::Create).await;
    fine(&store, "volume made").await;
    vm.operate(OperationKind::Attach).await;
    vm.publish().await;
    fine(&store, "published").await;
    vm.copy().await;
    fine(&store, "copying").await;
    store.release(&vm.lease).await.unwrap();
    fine(&store, "given back").await;
    vm.lease =
        store.claim(&vm.lease.job, &vm.lease.worker, std::time::Duration::from_secs(60)).await.unwrap();
    vm.withdraw().await;
    vm.fail().await;
    fine(&store, "failed").await;
    vm = Vm::committed(&store, "web02").await;
    fine(&store, "committed").await;
    vm.again().await;
    vm.publish().await;
    vm.copy().await;
    fine(&store, "copying changes").await;
    vm.withdraw().await;
    vm.commit().await;
    fine(&store, "committed again").await;
    vm.again().await;
    store.advance_generation(&vm.lease, &vm.volume).await.unwrap();
    fine(&store, "next generation").await;
    vm.operate(OperationKind::Detach).await;
    fine(&store, "detached").await;
    vm.fail().await;
    fine(&store, "failed").await;
    vm.condemn().await;
    fine(&store, "condemned").await;
    vm.delete().await;
    fine(&store, "deleted").await;
    store.close().await;
}

/// Every contradiction on a VM of its own, all in one database: each is found, once, and nothing else.
async fn broken(engine: Engine) {
    let place = Place::new(engine).await;
    let store = place.open().await;
    let mut expected = breaks::all(engine, &place, &store).await;
    // Only SQLite looks again whether rows are what their tables allow.
    let mut known: BTreeSet<_> = RULES.iter().map(|(rule, _)| *rule).collect();
    if engine == Engine::Sqlite {
        place.force(FORBIDDEN).await;
        expected.push(("check".to_owned(), "playbooks".to_owned(), "?".to_owned()));
        expected.sort();
    } else {
        known.remove("check");
    }
    let mut findings = store.check().await.unwrap();
    findings.sort();
    let found: Vec<(String, String, String)> = findings.iter().map(named).collect();
    assert_eq!(found, expected, "{findings:#?}");
    let rules: BTreeSet<_> = findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, known);
    for finding in &findings {
        assert!(!finding.detail.contains("{}") && !finding.detail.is_empty(), "{finding}");
    }
    store.close().await;
}

/// What no rule but the table's own is against.
const FORBIDDEN: &str = "UPDATE playbooks SET variables = 'no JSON'";

/// By itself, beside something else, and no longer told apart from damage when there is too much of it.
async fn forbidden() {
    let place = Place::new(Engine::Sqlite).await;
    let store = place.open().await;
    place.force(&breaks::automation(Engine::Sqlite)).await;
    place.force(FORBIDDEN).await;
    let found = async || store.check().await.unwrap().iter().map(named).collect::<Vec<_>>();
    let forbidden = ("check".to_owned(), "playbooks".to_owned(), "?".to_owned());
    assert_eq!(found().await, std::slice::from_ref(&forbidden));
    let refused = place.try_open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.chain().contains("in playbooks); set it to what"), "{}", refused.chain());
    place.force("UPDATE tickets SET status = 'odd'").await;
    let label = ("label".to_owned(), "tickets".to_owned(), "t-1".to_owned());
    assert_eq!(found().await, [label, forbidden], "what a rule is about is told once");
    place
        .force(
            "WITH RECURSIVE n (id) AS (SELECT 2 UNION ALL SELECT id + 1 FROM n WHERE id < 1001) \
             INSERT INTO playbooks (id, name, file_path, variables, created_at, updated_at) \
             SELECT id, id, id, 'no JSON', 1, 1 FROM n",
        )
        .await;
    assert_eq!(store.check().await.unwrap_err().kind(), ErrorKind::Corrupt);
    store.close().await;
}

fn named(finding: &Finding) -> (String, String, String) {
    (finding.rule.to_owned(), finding.table.to_owned(), finding.key.clone())
}

/// Breaks change ids, does what `docs/database.md` says, and replicates again.
async fn mended(engine: Engine) {
    let place = Place::new(engine).await;
    let store = place.open().await;
    let mut vm = Vm::committed(&store, "web01").await;
    let disk = place.number("SELECT id FROM vm_disks").await;
    place.force("UPDATE vm_disks SET disk_change_id = 'b7', epoch = 9, change_generation = 5").await;
    assert!(store.check().await.unwrap().len() > 2);
    let document = include_str!("../../../docs/database.md");
    let (_, text) = document.split_once("one that was never").unwrap();
    let (_, text) = text.split_once("```sql").unwrap();
    let (statements, _) = text.split_once("```").unwrap();
    place.force(&statements.replace(" = 7", &format!(" = {disk}"))).await;
    fine(&store, "mended").await;
    vm.again().await;
    let disk = Inventory::disk(&store, &vm.disk()).await.unwrap().unwrap();
    assert_eq!((disk.change_id, disk.epoch.0), (None, 0));
    vm.publish().await;
    vm.copy().await;
    fine(&store, "copying again").await;
    vm.withdraw().await;
    vm.commit().await;
    fine(&store, "committed again").await;
    store.close().await;
}
