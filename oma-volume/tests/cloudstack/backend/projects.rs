//! Volumes of a project: made there, found there, and nowhere else.

use futures_util::TryStreamExt;
use oma_core::conformance::{self, Trial};
use oma_core::traits::{Access, VolumeBackend};
use oma_core::{Error, ErrorKind, VolumeId};
use oma_volume::cloudstack::{Account, Check, CloudStackBackend, Finding, Verdict};
use uuid::Uuid;

use super::super::caller::Caller;
use super::super::fake::{Options, What};
use super::{ACCOUNTS, Bench, connect};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials =
        conformance::cases("cloudstack_project", &conformance::volume_backend_cases(), || async {
            super::subject_of(Bench::in_project(Account::Ordinary, Options::default()).await)
        });
    trials.extend([
        conformance::trial("cloudstack::volumes_of_a_project_are_made_and_listed_in_it", &[], lives),
        conformance::trial("cloudstack::l21_what_left_the_project_is_not_gone", &[], left),
        conformance::trial(
            "cloudstack::l21_a_project_that_is_not_there_says_nothing_of_a_volume",
            &[],
            wrong,
        ),
        conformance::trial("cloudstack::a_volume_of_a_project_is_for_machines_of_that_project", &[], mixed),
        conformance::trial("cloudstack::preflight_looks_at_the_project", &[], preflight),
        conformance::trial("cloudstack::what_is_lost_on_the_way_into_a_project_is_found_there", &[], lost),
        conformance::trial("volumes::a_list_leaves_projects_out_that_are_not_asked_for", &[], listed),
    ]);
    trials
}

fn uuid(id: &VolumeId) -> Uuid {
    id.as_str().parse().unwrap()
}

fn in_project(bench: &Bench, project: &str) -> CloudStackBackend {
    connect(&bench.fake, Account::Ordinary, |config| config.project_id = Some(project.to_owned()))
}

async fn lives() {
    for account in ACCOUNTS {
        let bench = Bench::in_project(account, Options::default()).await;
        let (volume, tag) = bench.attached().await;
        bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
        let listed: Vec<_> = bench.backend.list(&bench.instance).try_collect().await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&volume));
        let project = bench.fake.project_of("migration").to_string();
        let user = Caller::user(&bench.fake);
        let row = user.done("listVolumes", &[("id", volume.id.as_str()), ("projectid", &project)]).await;
        assert_eq!(row["volume"][0]["projectid"], project.as_str());
        let outside = connect(&bench.fake, account, |_| ());
        let listed: Vec<_> = outside.list(&bench.instance).try_collect().await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
        bench.second.delete(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.second.get(&volume.id).await.unwrap(), None, "it is known to be gone");
        bench.assert_clean();
    }
}

async fn left() {
    let bench = Bench::in_project(Account::Ordinary, Options::default()).await;
    let (volume, tag) = bench.created().await;
    bench.fake.take_from_project(uuid(&volume.id));
    let asked = [
        bench.backend.get(&volume.id).await.map(drop),
        bench.backend.attach(&volume.id, &tag).await.map(drop),
        bench.backend.delete(&volume.id, &tag).await,
    ];
    for error in asked.map(Result::unwrap_err) {
        says(&error, ErrorKind::Conflict, "move it back");
    }
    bench.fake.move_to_project(uuid(&volume.id));
    bench.backend.attach(&volume.id, &tag).await.unwrap();
}

async fn wrong() {
    let bench = Bench::in_project(Account::Ordinary, Options::default()).await;
    let (volume, tag) = bench.created().await;
    let unknown = in_project(&bench, &Uuid::new_v4().to_string());
    let theirs = in_project(&bench, &bench.fake.project_of("finance").to_string());
    for (backend, kind) in [(unknown, ErrorKind::Invalid), (theirs, ErrorKind::PermissionDenied)] {
        for error in [
            backend.get(&volume.id).await.map(drop).unwrap_err(),
            backend.delete(&volume.id, &tag).await.unwrap_err(),
            backend.create(&bench.spec()).await.map(drop).unwrap_err(),
        ] {
            says(&error, kind, "project");
        }
    }
    assert_eq!(bench.fake.data_volumes().len(), 1);
}

async fn mixed() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.created().await;
    bench.fake.move_to_project(uuid(&volume.id));
    let project = bench.fake.project_of("migration").to_string();
    let appliance = bench.fake.appliance.to_string();
    let user = Caller::user(&bench.fake);
    let pairs = [("id", volume.id.as_str()), ("virtualmachineid", &appliance)];
    let (code, _, text) = user.call("attachVolume", &pairs).await.refusal();
    assert!(code == 531 && text.contains("different accounts"), "{code} {text}");
    let backend = in_project(&bench, &project);
    backend.attach(&volume.id, &tag).await.unwrap_err();
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1);
    bench.fake.move_appliance_to_project();
    backend.attach(&volume.id, &tag).await.unwrap();
}

async fn preflight() {
    let bench = Bench::in_project(Account::Ordinary, Options::default()).await;
    let report = bench.backend.preflight().await.unwrap();
    assert!(report.is_ready(), "{report:#?}");
    assert_eq!(found(&bench.backend, Check::Project).await.verdict, Verdict::Good);
    assert_eq!(found(&bench.backend, Check::ThisMachine).await.verdict, Verdict::Good);
    let finance = bench.fake.project_of("finance").to_string();
    for other in [finance, Uuid::new_v4().to_string()] {
        let other = in_project(&bench, &other);
        for check in [Check::Project, Check::Appliance] {
            let finding = found(&other, check).await;
            assert!(finding.verdict > Verdict::Good && finding.text.contains("project"), "{finding}");
        }
        assert!(!other.preflight().await.unwrap().is_ready());
    }
    bench.fake.suspend_project();
    let finding = found(&bench.backend, Check::Project).await;
    assert!(finding.verdict == Verdict::Failed && finding.text.contains("Suspended"), "{finding}");
    says(
        &bench.backend.create(&bench.spec()).await.unwrap_err(),
        ErrorKind::PermissionDenied,
        "no longer active",
    );
}

async fn found(backend: &CloudStackBackend, check: Check) -> Finding {
    let report = backend.preflight().await.unwrap();
    report.findings.into_iter().find(|finding| finding.check == check).unwrap()
}

async fn lost() {
    for account in ACCOUNTS {
        for command in ["createVolume", "createTags", "attachVolume", "detachVolume", "deleteVolume"] {
            let bench = Bench::in_project(account, Options::default()).await;
            bench.fake.fault(command, 0, 1, What::LoseResponse);
            let spec = bench.spec();
            let volume = super::insist(|| bench.backend.create(&spec)).await;
            super::insist(|| bench.backend.attach(&volume.id, &spec.tag)).await;
            super::insist(|| bench.backend.detach(&volume.id, &spec.tag)).await;
            super::insist(|| bench.backend.delete(&volume.id, &spec.tag)).await;
            bench.assert_clean();
        }
    }
}

async fn listed() {
    let bench = Bench::new(Account::Ordinary).await;
    let user = Caller::user(&bench.fake);
    let volume = user.create(&bench.fake, "v", "1").await;
    bench.fake.move_to_project(volume);
    let [ours, theirs] = ["migration", "finance"].map(|name| bench.fake.project_of(name).to_string());
    let id = volume.to_string();
    let count = async |caller: &Caller, project: Option<&str>| {
        let mut pairs = vec![("listall", "true"), ("id", &id)];
        pairs.extend(project.map(|project| ("projectid", project)));
        caller.done("listVolumes", &pairs).await["count"].as_u64().unwrap_or_default()
    };
    assert_eq!(count(&user, None).await, 0);
    assert_eq!(count(&user, Some(&ours)).await, 1);
    assert_eq!(count(&user, Some("-1")).await, 1);
    let admin = Caller::admin(&bench.fake);
    assert_eq!((count(&admin, None).await, count(&admin, Some(&ours)).await), (0, 1));
    let refused = user.call("listVolumes", &[("projectid", &theirs)]).await.refusal();
    assert!(refused.0 == 531 && refused.2.contains("can't access project"), "{refused:?}");
    let unknown = Uuid::new_v4().to_string();
    let refused = user.call("listVolumes", &[("projectid", &unknown)]).await.refusal();
    assert!(refused.0 == 431 && refused.2.contains("parameter projectid"), "{refused:?}");
}

fn says(error: &Error, kind: ErrorKind, part: &str) {
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().contains(part), "{}", error.chain());
}
