//! Several processes at one file: this test program starts itself.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, Command, Stdio};

use futures_util::TryStreamExt;
use oma_core::traits::{Inventory, VolumeRegistry};
use oma_store::{SqlStore, StoreConfig};

use crate::fixture::{Folder, source_vm};

const URL: &str = "OMA_STORE_TEST_URL";
const NAME: &str = "OMA_STORE_TEST_NAME";
const COUNT: &str = "OMA_STORE_TEST_COUNT";

/// Opens the store and tells its instance, then records VMs and tells each that was acknowledged.
#[tokio::test]
#[ignore = "not a test: the process that the tests beside it start"]
async fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let text = |name| std::env::var(name).unwrap();
    let config = StoreConfig { url, ..StoreConfig::default() };
    let store = SqlStore::open(&config).await.unwrap();
    let mut out = std::io::stderr();
    writeln!(out, "instance {}", store.instance().await.unwrap()).unwrap();
    for at in 0..text(COUNT).parse::<usize>().unwrap() {
        let vm = Inventory::record(&store, &source_vm(&format!("{}-{at}", text(NAME)))).await.unwrap();
        writeln!(out, "vm {}", vm.id).unwrap();
    }
}

fn start(folder: &Folder, name: &str, count: usize) -> (Child, BufReader<ChildStderr>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(URL, folder.config().url).env(NAME, name).env(COUNT, count.to_string());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let words = BufReader::new(child.stderr.take().unwrap());
    (child, words)
}

/// What a child told, up to so many VMs.
fn told(words: &mut BufReader<ChildStderr>, vms: usize) -> BTreeSet<String> {
    let known = words
        .lines()
        .map(Result::unwrap)
        .filter(|line| line.starts_with("vm ") || line.starts_with("instance "));
    known.take(vms + 1).collect()
}

async fn vms(folder: &Folder) -> BTreeSet<String> {
    let store = folder.open().await.unwrap();
    let vms: Vec<_> = store.contexts(None).try_collect().await.unwrap();
    vms.into_iter().map(|vm| format!("vm {}", vm.id)).collect()
}

#[tokio::test]
async fn processes_that_start_at_once_share_one_database() {
    let folder = Folder::new();
    let mut children: Vec<_> = (0..4).map(|at| start(&folder, &format!("web-{at}"), 10)).collect();
    let mut all = BTreeSet::new();
    for (child, words) in &mut children {
        all.extend(told(words, 10));
        assert!(child.wait().unwrap().success());
    }
    let (vms_told, instances): (BTreeSet<_>, BTreeSet<_>) =
        all.into_iter().partition(|line| line.starts_with("vm "));
    assert_eq!((instances.len(), vms_told.len()), (1, 40));
    assert_eq!(vms(&folder).await, vms_told);
}

#[tokio::test]
async fn l15_a_killed_process_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    for round in 0..3 {
        let (mut child, mut words) = start(&folder, &format!("web-{round}"), 100_000);
        let acknowledged = told(&mut words, 15 + round);
        child.kill().unwrap();
        child.wait().unwrap();
        let vms_told: BTreeSet<_> = acknowledged.into_iter().filter(|line| line.starts_with("vm ")).collect();
        assert_eq!(vms_told.len(), 15 + round);
        assert!(vms(&folder).await.is_superset(&vms_told));
    }
}
