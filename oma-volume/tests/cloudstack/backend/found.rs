//! What is asked, how often, and what is told of a cloud before it is used.

use futures_util::TryStreamExt;
use oma_core::ErrorKind;
use oma_core::conformance::{self, Trial};
use oma_core::traits::VolumeBackend;
use oma_volume::cloudstack::{Account, Check, CloudStackBackend, CloudStackConfig, Keys, Verdict};

use super::super::fake::Options;
use super::{ACCOUNTS, Bench, connect};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("cloudstack::a_life_needs_no_more_requests_than_it_must", &[], requests),
        conformance::trial("cloudstack::a_server_that_enforces_post_and_expiry_is_served", &[], enforced),
        conformance::trial("cloudstack::l29_keys_are_in_no_error", &[], secrets),
        conformance::trial("cloudstack::lists_are_read_to_their_end", &[], pages),
        conformance::trial("cloudstack::preflight_finds_a_cloud_that_fits_ready", &[], ready),
        conformance::trial("cloudstack::preflight_tells_what_stands_in_the_way", &[], unready),
    ]
}

async fn requests() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let spec = bench.spec();
        bench.fake.take_calls();
        let volume = bench.backend.create(&spec).await.unwrap();
        assert_eq!(bench.fake.take_calls(), 7, "look, create, job, look, mark, job, look");
        bench.backend.attach(&volume.id, &spec.tag).await.unwrap();
        assert_eq!(bench.fake.take_calls(), 5, "look, the appliance's disk, attach, job, look");
        bench.backend.detach(&volume.id, &spec.tag).await.unwrap();
        assert_eq!(bench.fake.take_calls(), 4, "look, detach, job, look");
        bench.backend.delete(&volume.id, &spec.tag).await.unwrap();
        assert_eq!(bench.fake.take_calls(), 2, "look, delete");
    }
}

async fn enforced() {
    let options = Options { post_and_timestamps: true, ..Options::default() };
    let bench = Bench::start(Account::Ordinary, options).await;
    let (volume, tag) = bench.attached().await;
    bench.backend.delete(&volume.id, &tag).await.unwrap();
    bench.assert_clean();
}

async fn secrets() {
    let bench = Bench::new(Account::Ordinary).await;
    let keys = &bench.fake.user;
    let wrong = format!("{}x", keys.secret);
    let config = CloudStackConfig::new(bench.fake.url.clone(), "zone", "offering", "vm");
    let backend = CloudStackBackend::new(config, Keys::new(&keys.key, &wrong).unwrap()).unwrap();
    let error = backend.get(&"v".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    assert!(error.chain().contains("clock"), "it says what to look at: {}", error.chain());
    let shown = format!("{error:?} {} {backend:?}", error.chain());
    assert!(!shown.contains(&keys.secret) && !shown.contains(&keys.key), "{shown}");
}

async fn pages() {
    let bench = Bench::new(Account::RootAdmin).await;
    for _ in 0..205 {
        bench.backend.create(&bench.spec()).await.unwrap();
    }
    let all: Vec<_> = bench.backend.list(&bench.instance).try_collect().await.unwrap();
    assert_eq!(all.len(), 205);
}

async fn ready() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let report = bench.backend.preflight().await.unwrap();
        assert!(report.is_ready(), "{report:#?}");
        let this = report.findings.iter().find(|finding| finding.check == Check::ThisMachine).unwrap();
        assert_eq!(this.verdict, Verdict::Good, "{this}");
    }
}

async fn unready() {
    let bench = Bench::new(Account::Ordinary).await;
    let (strict, other) = (bench.fake.offering_of("Strict"), bench.fake.machine_of("web01"));
    let backend = connect(&bench.fake, Account::Ordinary, |config| {
        config.disk_offering_id = strict.to_string();
        config.appliance_vm_id = other.to_string();
        config.zone_id = other.to_string();
    });
    let report = backend.preflight().await.unwrap();
    for check in [Check::Zone, Check::Offering, Check::Appliance, Check::ThisMachine] {
        let finding = report.findings.iter().find(|finding| finding.check == check).unwrap();
        assert_eq!(finding.verdict, Verdict::Failed, "{check:?}: {finding}");
    }
    assert!(!report.is_ready());
    let claims = connect(&bench.fake, Account::Ordinary, |config| config.account = Account::RootAdmin);
    let report = claims.preflight().await.unwrap();
    let account = report.findings.iter().find(|finding| finding.check == Check::Account).unwrap();
    assert_eq!(account.verdict, Verdict::Failed, "{account}");
    let error = claims.create(&bench.spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}
