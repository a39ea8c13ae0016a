//! Volumes of others: never taken, never touched (L02, L03).

use futures_util::TryStreamExt;
use oma_core::conformance::{self, Trial};
use oma_core::record::VolumeTag;
use oma_core::traits::{Access, VolumeBackend};
use oma_core::{ErrorKind, Generation, InstanceId, VolumeId};
use oma_volume::cloudstack::Account;
use uuid::Uuid;

use super::super::caller::Caller;
use super::super::fake::{Late, What};
use super::{ACCOUNTS, Bench, connect};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial(
            "cloudstack::l03_a_volume_of_the_right_name_that_others_marked_is_not_taken",
            &[],
            named,
        ),
        conformance::trial("cloudstack::l02_without_all_its_marks_a_volume_is_nobodys", &[], unmarked),
        conformance::trial("cloudstack::l16_what_a_dead_appliance_of_ours_had_is_taken_from_it", &[], peer),
        conformance::trial("cloudstack::l07_what_somebody_attached_elsewhere_is_left_alone", &[], elsewhere),
        conformance::trial("cloudstack::an_appliance_with_snapshots_is_a_conflict", &[], refused),
        conformance::trial("cloudstack::surplus_volumes_of_rivals_go_and_others_stay", &[], surplus),
        conformance::trial("cloudstack::a_retag_that_was_cut_leaves_the_larger_generation", &[], retagged),
        conformance::trial("cloudstack::what_an_administrator_destroyed_is_gone", &[], destroyed),
        conformance::trial("cloudstack::what_is_in_the_recycle_bin_is_not_made_again", &[], recycled),
        conformance::trial("cloudstack::what_was_removed_for_good_is_not_made_again", &[], expunged),
        conformance::trial("cloudstack::l03_an_unmarked_volume_that_was_used_is_not_taken", &[], used),
        conformance::trial("cloudstack::copied_marks_do_not_make_two_volumes_one", &[], copied),
    ]
}

/// Tags of a volume, put there by an administrator.
fn mark(bench: &Bench, volume: &str, tags: &[(&str, &str)]) {
    for (key, value) in tags {
        let pairs = [
            ("resourcetype", "Volume"),
            ("resourceids", volume),
            ("tags[0].key", key),
            ("tags[0].value", value),
        ];
        bench.fake.operate("createTags", &pairs).unwrap();
    }
}

/// Takes a tag of a volume away.
fn unmark(bench: &Bench, volume: &str, key: &str) {
    let pairs = [("resourcetype", "Volume"), ("resourceids", volume), ("tags[0].key", key)];
    bench.fake.operate("deleteTags", &pairs).unwrap();
}

/// A volume that a create left unmarked, which then is somebody else's.
async fn named() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let spec = bench.spec();
        let id = bench.left_unmarked(account, &spec).await;
        mark(&bench, &id, &[("oma.instance", "another")]);
        let error = bench.second.create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
        let left: Vec<_> = bench.fake.data_volumes().iter().map(|volume| volume.id.to_string()).collect();
        assert_eq!(left, [id]);
    }
}

async fn unmarked() {
    for key in ["oma.instance", "oma.context", "oma.disk", "oma.operation", "oma.made"] {
        let bench = Bench::new(Account::Ordinary).await;
        let (volume, tag) = bench.created().await;
        unmark(&bench, volume.id.as_str(), key);
        assert_eq!(bench.backend.get(&volume.id).await.unwrap().unwrap().tag, None, "{key}");
        for call in [
            bench.backend.attach(&volume.id, &tag).await.map(drop),
            bench.backend.delete(&volume.id, &tag).await,
            bench.backend.retag(&volume.id, &tag).await,
        ] {
            assert_eq!(call.unwrap_err().kind(), ErrorKind::PermissionDenied, "{key}");
        }
        assert_eq!(bench.fake.data_volumes().len(), 1);
    }
}

/// Failed over by hand: the volume runs a machine now.
async fn elsewhere() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.created().await;
    let machine = bench.fake.machine_of("web01");
    let pairs = [("id", volume.id.as_str()), ("virtualmachineid", &machine.to_string())];
    bench.fake.operate("attachVolume", &pairs).unwrap();
    for call in [
        bench.backend.attach(&volume.id, &tag).await.map(drop),
        bench.backend.detach(&volume.id, &tag).await.map(drop),
        bench.backend.delete(&volume.id, &tag).await,
    ] {
        let error = call.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        assert!(error.chain().contains(&machine.to_string()), "{}", error.chain());
    }
    assert_eq!(bench.fake.attached(machine).len(), 2);
    assert_eq!(bench.fake.calls("detachVolume") + bench.fake.calls("deleteVolume"), 0);
}

/// One that died, whose job's lease has ended. Whatever becomes of an answer, and whatever it had asked for itself.
async fn peer() {
    let faults: [&[(&str, What)]; 5] = [
        &[],
        &[("detachVolume", What::LoseResponse)],
        &[("detachVolume", What::LoseRequest), ("attachVolume", What::LoseResponse)],
        &[("detachVolume", What::LateDetach(Late::Detached))],
        &[("detachVolume", What::Twice), ("attachVolume", What::Twice)],
    ];
    for (account, faults) in ACCOUNTS.iter().flat_map(|account| faults.map(|faults| (*account, faults))) {
        let bench = Bench::new(account).await;
        let (volume, tag) = bench.created().await;
        let (machine, other) = (bench.fake.machine_of("web01"), bench.fake.machine_of("db01"));
        let pairs = [("id", volume.id.as_str()), ("virtualmachineid", &machine.to_string())];
        bench.fake.operate("attachVolume", &pairs).unwrap();
        let knows =
            |peer: Uuid| connect(&bench.fake, account, |config| config.peer_vm_ids.push(peer.to_string()));
        let error = knows(other).attach(&volume.id, &tag).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "a machine that is none of ours: {}", error.chain());
        let copied = VolumeTag { instance: InstanceId::mint(), ..tag.clone() };
        let error = knows(machine).attach(&volume.id, &copied).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "another deployment: {}", error.chain());
        assert_eq!((bench.fake.attached(machine).len(), bench.fake.calls("detachVolume")), (2, 0));
        for (command, fault) in faults {
            bench.fake.fault(command, 0, 1, *fault);
        }
        let ours = knows(machine);
        let attached = ours.attach(&volume.id, &tag).await.unwrap();
        assert!(attached.device_path.is_some(), "{faults:?}");
        assert_eq!(bench.fake.attached(machine).len(), 1, "{faults:?}: its own disk");
        drop(ours.open(&volume.id, &tag, Access::ReadWrite).await.unwrap());
        // Condemned meanwhile, and attached there once more.
        bench.fake.operate("detachVolume", &[("id", volume.id.as_str())]).unwrap();
        bench.fake.operate("attachVolume", &pairs).unwrap();
        ours.delete(&volume.id, &tag).await.unwrap();
        bench.assert_clean();
        assert_eq!(bench.fake.attached(machine).len(), 1, "{faults:?}: its own disk");
    }
}

/// What the cloud refuses for the state of a thing is no bad input.
async fn refused() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.created().await;
    let appliance = bench.fake.appliance.to_string();
    bench.fake.operate("createVMSnapshot", &[("virtualmachineid", &appliance)]).unwrap();
    let error = bench.backend.attach(&volume.id, &tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
    assert!(error.chain().contains("Instance Snapshots"), "{}", error.chain());
    let report = bench.backend.preflight().await.unwrap();
    assert!(!report.is_ready(), "it was told before: {report:#?}");
}

/// Two rows of one operation: the second one goes, unless it has marks, data or a machine.
async fn surplus() {
    for what in ["nothing", "marks", "data", "a machine"] {
        let bench = Bench::new(Account::Ordinary).await;
        let spec = bench.spec();
        let made = bench.left_unmarked(Account::Ordinary, &spec).await;
        let name = bench.fake.data_volumes()[0].name.clone();
        let other = Caller::user(&bench.fake).create(&bench.fake, &name, "1").await.to_string();
        let machine = bench.fake.machine_of("web01").to_string();
        match what {
            "marks" => mark(&bench, &other, &[("oma.instance", "another")]),
            "data" | "a machine" => {
                bench
                    .fake
                    .operate("attachVolume", &[("id", &other), ("virtualmachineid", &machine)])
                    .unwrap();
            }
            _ => {}
        }
        if what == "data" {
            bench.fake.operate("detachVolume", &[("id", &other)]).unwrap();
        }
        assert_eq!(bench.second.create(&spec).await.unwrap().id.as_str(), made, "{what}");
        let left: Vec<_> = bench.fake.data_volumes().iter().map(|volume| volume.id.to_string()).collect();
        assert_eq!(left.contains(&other), what != "nothing", "{what}: {left:?}");
    }
}

async fn retagged() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, mut tag) = bench.created().await;
    for generation in [2, 10] {
        tag.generation = Generation(generation);
        bench.fake.fault("deleteTags", 0, 9, What::LoseRequest);
        bench.backend.retag(&volume.id, &tag).await.unwrap();
        assert_eq!(bench.backend.get(&volume.id).await.unwrap().unwrap().tag, Some(tag.clone()));
    }
    let smaller = VolumeTag { generation: Generation(9), ..tag.clone() };
    let error = bench.backend.retag(&volume.id, &smaller).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

async fn destroyed() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let spec = bench.spec();
        let volume = bench.backend.create(&spec).await.unwrap();
        bench.fake.operate("deleteVolume", &[("id", volume.id.as_str())]).unwrap();
        assert_eq!(bench.backend.get(&volume.id).await.unwrap(), None);
        bench.backend.delete(&volume.id, &spec.tag).await.unwrap();
        let listed: Vec<_> = bench.backend.list(&bench.instance).try_collect().await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
    }
}

/// In the recycle bin: it is not used, and no second one is made in its place.
async fn recycled() {
    for account in ACCOUNTS {
        let bench = Bench::new(account).await;
        let spec = bench.spec();
        let volume = bench.backend.create(&spec).await.unwrap();
        bench.backend.attach(&volume.id, &spec.tag).await.unwrap();
        bench.backend.detach(&volume.id, &spec.tag).await.unwrap();
        bench.fake.operate("destroyVolume", &[("id", volume.id.as_str())]).unwrap();
        assert_eq!(bench.backend.get(&volume.id).await.unwrap(), None);
        let error = bench.backend.create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
        assert!(error.chain().contains("recover it"), "{}", error.chain());
        bench.fake.operate("recoverVolume", &[("id", volume.id.as_str())]).unwrap();
        assert_eq!(bench.backend.create(&spec).await.unwrap().id, volume.id);
    }
}

/// Removed for good before anybody recorded it: an id of ours is never used twice.
async fn expunged() {
    let bench = Bench::new(Account::RootAdmin).await;
    let spec = bench.spec();
    let volume = bench.backend.create(&spec).await.unwrap();
    bench.fake.operate("deleteVolume", &[("id", volume.id.as_str())]).unwrap();
    bench.fake.take_calls();
    let error = bench.backend.create(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
    assert_eq!(bench.fake.calls("createVolume"), 0);
}

/// An unmarked volume of the operation that somebody has used since is his.
async fn used() {
    for (account, is_detached) in ACCOUNTS.into_iter().flat_map(|account| [(account, false), (account, true)])
    {
        let bench = Bench::new(account).await;
        let spec = bench.spec();
        let id = bench.left_unmarked(account, &spec).await;
        let machine = bench.fake.machine_of("web01").to_string();
        bench.fake.operate("attachVolume", &[("id", &id), ("virtualmachineid", &machine)]).unwrap();
        if is_detached {
            bench.fake.operate("detachVolume", &[("id", &id)]).unwrap();
        }
        let error = bench.second.create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
        assert!(bench.fake.tags().is_empty(), "it was not marked");
    }
}

/// An administrator copied the tags of one volume to another one.
async fn copied() {
    let bench = Bench::new(Account::RootAdmin).await;
    let (volume, _) = bench.created().await;
    let pairs = [
        ("zoneid", bench.fake.zone.to_string()),
        ("diskofferingid", bench.fake.offering.to_string()),
        ("size", "1".to_owned()),
        ("name", "copy".to_owned()),
    ];
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let made = bench.fake.operate("createVolume", &pairs).unwrap();
    let copy = made["volume"]["id"].as_str().unwrap().to_owned();
    let id: Uuid = volume.id.as_str().parse().unwrap();
    let tags: Vec<_> = bench.fake.tags().into_iter().filter(|tag| tag.resource == id).collect();
    let tags: Vec<_> = tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    mark(&bench, &copy, &tags);
    let listed: Vec<_> = bench.backend.list(&bench.instance).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2, "both are told, under their own ids");
    let copy = VolumeId::parse(copy).unwrap();
    assert_ne!(bench.backend.get(&copy).await.unwrap().unwrap().id, volume.id);
    let nobody = InstanceId::mint();
    let none: Vec<_> = bench.backend.list(&nobody).try_collect().await.unwrap();
    assert!(none.is_empty());
}
