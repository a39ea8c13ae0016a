//! Snapshots of volumes and of machines.

use std::fs;

use oma_core::conformance::{self, Trial};
use serde_json::json;

use super::caller::{Caller, id};
use super::fake::{Fake, Options, Pace, VolumeState};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("snapshots::a_snapshot_brings_back_what_a_volume_was", &[], reverted),
        conformance::trial("snapshots::a_volume_without_content_has_none", &[], refused),
        conformance::trial("snapshots::a_volume_waits_for_its_snapshot", &[], waits),
        conformance::trial(
            "snapshots::a_snapshot_of_a_machine_keeps_volumes_where_they_are",
            &[],
            of_machine,
        ),
    ]
}

async fn subject(options: Options) -> (Fake, Caller, uuid::Uuid) {
    let fake = Fake::start(options).await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    (fake, user, volume)
}

async fn reverted() {
    let (fake, user, volume) = subject(Options::default()).await;
    user.attach(&fake, volume).await.unwrap();
    let device = fake.devices.join("dev").join(fake.device(volume).unwrap());
    let write = |text: &str| {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new()
            .write(true)
            .open(&device)
            .unwrap()
            .write_all_at(text.as_bytes(), 4096)
            .unwrap();
    };
    let read = |path: &std::path::Path| {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 3];
        fs::File::open(path).unwrap().read_exact_at(&mut bytes, 4096).unwrap();
        bytes
    };
    write("one");
    let (on, named) = (volume.to_string(), ("name", "snap-1"));
    let taken = user.job("createSnapshot", &[("volumeid", &on), named]).await.unwrap()["snapshot"].clone();
    assert_eq!((&taken["state"], &taken["name"]), (&json!("BackedUp"), &json!("snap-1")));
    let snapshot = taken["id"].as_str().unwrap();
    write("two");
    let (code, text) = user.job("revertSnapshot", &[("id", snapshot)]).await.unwrap_err();
    assert!(code == 431 && text.contains("not in the shutdown state"), "{text}");
    user.detach(volume).await.unwrap();
    user.job("revertSnapshot", &[("id", snapshot)]).await.unwrap();
    assert_eq!(
        (&read(&fake.content(volume)), fake.content(volume).metadata().unwrap().len()),
        (b"one", 1 << 30)
    );

    let made = user.job("createVolume", &[("snapshotid", snapshot), ("name", "copy")]).await.unwrap();
    let copy = &made["volume"];
    assert_eq!((&copy["state"], &copy["snapshotid"]), (&json!("Ready"), &json!(snapshot)));
    assert_eq!(&read(&fake.content(id(&copy["id"]))), b"one");
    assert_eq!(user.done("listSnapshots", &[("volumeid", &on), named]).await["count"], 1);
    user.job("deleteSnapshot", &[("id", snapshot)]).await.unwrap();
    assert_eq!(user.done("listSnapshots", &[("volumeid", &on)]).await, json!({}));
    let (code, text) = user.job("deleteSnapshot", &[("id", snapshot)]).await.unwrap_err();
    assert!(code == 431 && text.contains("unable to find a snapshot"), "{text}");
}

async fn refused() {
    let (fake, user, volume) = subject(Options { kvm_snapshots: false, ..Options::default() }).await;
    let on = volume.to_string();
    let (code, _, text) = user.refused("createSnapshot", &[("volumeid", &on)]).await;
    assert!(code == 431 && text.contains("attach this volume to a VM before"), "{text}");
    user.attach(&fake, volume).await.unwrap();
    let (code, _, text) = user.refused("createSnapshot", &[("volumeid", &on)]).await;
    assert!(code == 431 && text.contains("kvm.snapshot.enabled"), "{text}");
    user.detach(volume).await.unwrap();
    user.job("createSnapshot", &[("volumeid", &on)]).await.unwrap();
}

async fn waits() {
    let (fake, user, volume) = subject(Options { pace: Pace::Polls(2), ..Options::default() }).await;
    user.attach(&fake, volume).await.unwrap();
    user.detach(volume).await.unwrap();
    let on = volume.to_string();
    let snapshot = user.done("createSnapshot", &[("volumeid", &on)]).await;
    assert_eq!(fake.volume(volume).unwrap().state, VolumeState::Snapshotting);
    let (code, _, text) = user.refused("deleteVolume", &[("id", &on)]).await;
    assert!(code == 431 && text.contains("There are snapshot operations in progress"), "{text}");
    let (code, _, text) = user.refused("createSnapshot", &[("volumeid", &on)]).await;
    assert!(code == 431 && text.contains("is not in Ready state but Snapshotting"), "{text}");
    let (code, _) = user.job("resizeVolume", &[("id", &on), ("size", "2")]).await.unwrap_err();
    assert_eq!(code, 530);
    user.result(snapshot["jobid"].as_str().unwrap()).await.unwrap();
    assert_eq!(fake.volume(volume).unwrap().state, VolumeState::Ready);
    user.done("deleteVolume", &[("id", &on)]).await;
}

async fn of_machine() {
    let (fake, user, volume) = subject(Options::default()).await;
    let second = user.create(&fake, "w", "1").await;
    user.attach(&fake, volume).await.unwrap();
    let machine = fake.appliance.to_string();
    let on = ("virtualmachineid", machine.as_str());
    let made = user.job("createVMSnapshot", &[on, ("name", "before")]).await.unwrap();
    let snapshot = made["vmsnapshot"]["id"].as_str().unwrap();
    assert_eq!(user.refused("createVMSnapshot", &[on, ("name", "before")]).await.0, 431);
    let listed = user.done("listVMSnapshot", &[on]).await;
    assert_eq!(listed["vmSnapshot"][0]["state"], "Ready", "with a capital S");
    for refused in [user.attach(&fake, second).await, user.detach(volume).await] {
        let (code, text) = refused.unwrap_err();
        assert!(code == 431 && text.to_lowercase().contains("snapshots"), "{text}");
    }
    user.job("deleteVMSnapshot", &[("vmsnapshotid", snapshot)]).await.unwrap();
    user.detach(volume).await.unwrap();
}
