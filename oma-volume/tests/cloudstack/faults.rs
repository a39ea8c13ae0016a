//! What goes wrong when it is to go wrong.

use oma_core::conformance::{self, Trial};
use serde_json::json;
use uuid::Uuid;

use super::caller::Caller;
use super::fake::{Fake, Late, Options, What};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("faults::a_lost_response_is_lost_after_the_command", &[], lost_response),
        conformance::trial("faults::a_lost_request_is_lost_before_it", &[], lost_request),
        conformance::trial("faults::the_same_seed_loses_the_same_answers", &[], seeded),
        conformance::trial("faults::a_request_that_arrives_twice_is_carried_out_twice", &[], twice),
        conformance::trial("faults::a_detach_can_be_late", &[], late),
        conformance::trial("faults::a_late_detach_can_forget_the_next_attachment", &[], forgotten),
        conformance::trial("faults::limits_and_maintenance_are_told_with_429_and_503", &[], refused),
    ]
}

async fn subject() -> (Fake, Caller) {
    let fake = Fake::start(Options::default()).await;
    let user = Caller::user(&fake);
    (fake, user)
}

async fn lost_response() {
    let (fake, user) = subject().await;
    fake.fault("createVolume", 1, 1, What::LoseResponse);
    user.create(&fake, "a", "1").await;
    let (zone, offering, job) =
        (fake.zone.to_string(), fake.offering.to_string(), Uuid::new_v4().to_string());
    let pairs =
        [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("size", "1"), ("customjobid", &job)];
    assert!(user.try_call("createVolume", &pairs).await.is_none());
    assert_eq!(fake.data_volumes().len(), 2);
    assert!(user.result(&job).await.is_ok(), "its job is known by the id of the caller");
    assert_eq!(fake.calls("createVolume"), 2);
}

async fn lost_request() {
    let (fake, user) = subject().await;
    fake.fault_any(1, What::LoseRequest);
    assert!(user.try_call("listZones", &[]).await.is_none());
    assert_eq!(user.done("listZones", &[]).await["count"], 2);
    let volume = user.create(&fake, "a", "1").await;
    fake.fault("deleteVolume", 0, 1, What::LoseRequest);
    assert!(user.try_call("deleteVolume", &[("id", &volume.to_string())]).await.is_none());
    assert!(fake.volume(volume).is_some());
}

async fn seeded() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (fake, user) = subject().await;
        fake.lose_per_mille(300, 7);
        let mut lost = Vec::new();
        for number in 0..60 {
            lost.extend(user.try_call("listZones", &[]).await.is_none().then_some(number));
        }
        assert!((8..30).contains(&lost.len()), "{lost:?}");
        fake.lose_per_mille(0, 0);
        assert!(user.try_call("listZones", &[]).await.is_some());
        runs.push(lost);
    }
    assert_eq!(runs[0], runs[1]);
}

async fn twice() {
    let (fake, user) = subject().await;
    fake.fault("createVolume", 0, 1, What::Twice);
    user.create(&fake, "a", "1").await;
    assert_eq!(fake.data_volumes().len(), 2);
    fake.fault("deleteVolume", 0, 1, What::Twice);
    let id = fake.data_volumes()[0].id.to_string();
    assert_eq!(user.refused("deleteVolume", &[("id", &id)]).await.0, 431, "the second finds nothing");
    assert_eq!(fake.data_volumes().len(), 1);
}

async fn late() {
    let (fake, user) = subject().await;
    for (late, stays) in [(Late::StillAttached, true), (Late::Detached, false)] {
        let volume = user.create(&fake, "a", "1").await;
        user.attach(&fake, volume).await.unwrap();
        fake.fault("detachVolume", 0, 1, What::LateDetach(late));
        let (code, text) = user.detach(volume).await.unwrap_err();
        assert!(code == 530 && text.contains("Could not detach volume after sending the command"), "{text}");
        assert!(fake.device(volume).is_some() && fake.volume(volume).unwrap().attached.is_some());
        user.done("listZones", &[]).await;
        assert!(fake.device(volume).is_none(), "the guest let it go");
        assert_eq!(fake.volume(volume).unwrap().attached.is_some(), stays);
        assert_eq!(user.detach(volume).await.is_ok(), stays, "repeated");
        assert!(fake.volume(volume).unwrap().attached.is_none());
    }
}

async fn forgotten() {
    let (fake, user) = subject().await;
    let (second, root) = fake.add_appliance("second");
    let volume = user.create(&fake, "a", "1").await;
    user.attach(&fake, volume).await.unwrap();
    fake.fault("detachVolume", 0, 1, What::LateDetach(Late::ForgetsNext));
    assert_eq!(user.detach(volume).await.unwrap_err().0, 530);
    user.detach(volume).await.unwrap();
    let (id, machine) = (volume.to_string(), second.to_string());
    user.job("attachVolume", &[("id", &id), ("virtualmachineid", &machine)]).await.unwrap();
    let row = user.done("listVolumes", &[("id", &id)]).await["volume"][0].clone();
    assert!(row.get("virtualmachineid").is_none(), "{row}");
    assert!(root.join("sys/block/vdb").exists(), "the machine has it all the same");
}

async fn refused() {
    let (fake, user) = subject().await;
    fake.fault_any(2, What::Throttle(Some(3)));
    for _ in 0..2 {
        let answer = user.call("listZones", &[]).await;
        assert_eq!((answer.refusal().0, answer.refusal().1), (429, 4545));
        assert_eq!(answer.headers["retry-after"], "3");
    }
    fake.fault("listZones", 0, 1, What::Throttle(None));
    assert!(!user.call("listZones", &[]).await.headers.contains_key("retry-after"));
    fake.fault("createVolume", 0, 1, What::Unavailable);
    let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
    let pairs = [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("size", "1")];
    assert_eq!(user.refused("createVolume", &pairs).await.0, 503);
    assert!(fake.data_volumes().is_empty(), "nothing was done");
    assert_ne!(user.done("createVolume", &pairs).await, json!({}));
}
