//! Processes that open one database first, all at once: this test program starts itself.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use oma_core::conformance::{self, Trial};
use oma_core::traits::VolumeRegistry;
use oma_store::{SqlStore, StoreConfig};

use crate::place::{Kind, Place};

/// The URL that a child of ours opens.
pub(crate) const CHILD: &str = "OMA_TEST_OPENING";
const ROUNDS: usize = 30;
const AT_ONCE: usize = 3;

pub(crate) fn trials() -> Vec<Trial> {
    let one = |kind: &Kind| {
        let kind = *kind;
        let name = format!("{kind}::many_processes_that_start_first_make_one_database");
        conformance::trial(&name, &[kind.required()], move || processes(kind))
    };
    Kind::ALL.iter().map(one).collect()
}

async fn instance(config: &StoreConfig) -> String {
    let store = SqlStore::open(config).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    let instance = store.instance().await.unwrap().to_string();
    store.close().await;
    instance
}

async fn processes(kind: Kind) {
    for _ in 0..ROUNDS {
        let place = Place::empty(kind).await;
        let start = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(CHILD, place.config().url).stdout(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..AT_ONCE).map(|_| start()).collect();
        let all = children.into_iter().map(|child| child.wait_with_output().unwrap());
        let told: BTreeSet<_> = all
            .map(|output| {
                assert!(output.status.success(), "{output:?}");
                output.stdout
            })
            .collect();
        assert_eq!(told, BTreeSet::from([instance(&place.config()).await.into_bytes()]));
    }
}

pub(crate) fn child(url: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let instance = runtime.block_on(instance(&StoreConfig { url, ..StoreConfig::default() }));
    std::io::stdout().write_all(instance.as_bytes()).unwrap();
}
