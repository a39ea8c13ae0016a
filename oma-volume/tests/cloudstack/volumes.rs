//! The life of a volume.

use oma_core::conformance::{self, Trial};
use serde_json::json;
use uuid::Uuid;

use super::caller::Caller;
use super::fake::{Fake, Options, VolumeState};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("volumes::a_volume_is_a_row_until_it_is_attached", &[], life),
        conformance::trial("volumes::sizes_are_whole_gib_of_an_offering_that_lets_one_choose", &[], sizes),
        conformance::trial("volumes::a_root_administrator_chooses_ids_others_do_not", &[], custom_ids),
        conformance::trial("volumes::quotas_end_with_535", &[], quotas),
        conformance::trial("volumes::device_numbers_leave_out_0_and_3_and_end", &[], numbers),
        conformance::trial("volumes::what_is_attached_stays_and_what_is_not_cannot_be_detached", &[], twice),
        conformance::trial("volumes::what_was_deleted_is_still_known_by_its_id", &[], deleted),
        conformance::trial("volumes::destroy_keeps_what_recover_brings_back", &[], destroyed),
        conformance::trial("volumes::protection_keeps_a_volume", &[], protected),
        conformance::trial("volumes::a_resize_grows_the_device_and_shrinks_only_when_told", &[], resized),
        conformance::trial("volumes::an_account_sees_and_changes_its_own", &[], accounts),
        conformance::trial("volumes::the_system_of_a_running_machine_stays_where_it_is", &[], root),
    ]
}

async fn fake() -> Fake {
    Fake::start(Options::default()).await
}

async fn life() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "web01-disk-2000", "3").await;
    let id = volume.to_string();
    let one = || async { user.done("listVolumes", &[("id", &id)]).await["volume"][0].clone() };
    let row = one().await;
    assert_eq!((&row["state"], &row["size"]), (&json!("Allocated"), &json!(3_u64 << 30)));
    assert_eq!((&row["hypervisor"], &row["type"]), (&json!("None"), &json!("DATADISK")));
    assert!(row.get("deviceid").is_none() && row.get("storage").is_none(), "{row}");
    assert!(row["created"].as_str().unwrap().ends_with("+0000"), "{row}");
    assert!(!fake.content(volume).exists());

    let result = user.attach(&fake, volume).await.unwrap();
    assert_eq!((&result["volume"]["deviceid"], &result["volume"]["state"]), (&json!(1), &json!("Ready")));
    let row = one().await;
    assert_eq!(row["virtualmachineid"], fake.appliance.to_string());
    assert_eq!((&row["vmstate"], &row["hypervisor"]), (&json!("Running"), &json!("KVM")));
    assert_eq!(fake.attached(fake.appliance).last(), Some(&(volume, 1)));

    user.detach(volume).await.unwrap();
    let row = one().await;
    assert_eq!(row["state"], "Ready");
    assert!(row.get("virtualmachineid").is_none() && row.get("deviceid").is_none(), "{row}");
    assert_eq!(user.done("deleteVolume", &[("id", &id)]).await, json!({"success": true}));
    assert_eq!(user.done("listVolumes", &[("id", &id)]).await, json!({}));
    assert!(!fake.content(volume).exists());
}

async fn sizes() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let zone = fake.zone.to_string();
    let create = |offering: &'static str, size: &'static str| {
        let (fake, user, zone) = (&fake, &user, &zone);
        async move {
            let offering = fake.offering_of(offering).to_string();
            let mut pairs = vec![("zoneid", zone.as_str()), ("diskofferingid", &offering)];
            pairs.extend((!size.is_empty()).then_some(("size", size)));
            user.call("createVolume", &pairs).await
        }
    };
    for (offering, size, wanted) in [
        ("Custom", "", "requires a custom size"),
        ("Custom", "0", "out of allowed range. Min: 1. Max: 1024"),
        ("Custom", "1025", "out of allowed range"),
        ("Small", "7", "does not allow custom size"),
        ("Retired", "7", "specify a valid disk offering"),
    ] {
        let (code, class, text) = create(offering, size).await.refusal();
        assert_eq!((code, class), (431, 4350));
        assert!(text.contains(wanted), "{text}");
    }
    assert_eq!(create("Custom", "1.5").await.refusal().1, 9999, "no number");
    assert!(fake.data_volumes().is_empty());
    create("Small", "").await.body();
    create("Custom", "1024").await.body();
    let bytes: Vec<_> = fake.data_volumes().iter().map(|volume| volume.bytes).collect();
    assert_eq!(bytes, [5 << 30, 1 << 40]);
    let names: Vec<_> = fake.data_volumes().into_iter().map(|volume| volume.name).collect();
    assert!(names.iter().all(|name| Uuid::parse_str(name).is_ok()), "no name is a random one: {names:?}");
}

async fn custom_ids() {
    let fake = fake().await;
    let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
    let create = |caller: Caller, id: String| {
        let (zone, offering) = (zone.clone(), offering.clone());
        async move {
            let pairs =
                [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("size", "1"), ("customid", &id)];
            caller.call("createVolume", &pairs).await
        }
    };
    let (user, admin, id) = (Caller::user(&fake), Caller::admin(&fake), Uuid::new_v4().to_string());
    assert_eq!(create(user, id.clone()).await.refusal().0, 531);
    assert!(
        create(admin.clone(), id.to_uppercase()).await.refusal().2.contains("doesn't follow the UUID format")
    );
    assert_eq!(create(admin.clone(), id.clone()).await.body()["id"], id);
    let (code, class, text) = create(admin.clone(), id.clone()).await.refusal();
    assert_eq!((code, class), (431, 4350));
    assert_eq!(text, format!("UUID: {id} already exists so can't create/update with custom id"));
    admin.done("deleteVolume", &[("id", &id)]).await;
    assert_eq!(create(admin, id).await.refusal().0, 530, "its row is still there");
}

async fn quotas() {
    // The system of the account's machines takes two volumes and 4 GiB of them.
    let fake = Fake::start(Options { max_volumes: Some(4), max_gib: Some(10), ..Options::default() }).await;
    let user = Caller::user(&fake);
    let (zone, offering) = (fake.zone.to_string(), fake.offering.to_string());
    let pairs = |size| [("zoneid", zone.as_str()), ("diskofferingid", &offering), ("size", size)];
    let (code, class, text) = user.refused("createVolume", &pairs("7")).await;
    assert_eq!((code, class), (535, 4370), "{text}");
    let first = user.create(&fake, "first", "1").await;
    user.create(&fake, "second", "1").await;
    assert_eq!(user.refused("createVolume", &pairs("1")).await.0, 535);
    let grown = user.job("resizeVolume", &[("id", &first.to_string()), ("size", "6")]).await;
    assert_eq!(grown.unwrap_err().0, 535, "told by the job");
    Caller::admin(&fake).create(&fake, "root has no quota", "100").await;
}

async fn numbers() {
    let fake = Fake::start(Options { data_disks: 4, ..Options::default() }).await;
    let user = Caller::user(&fake);
    let mut volumes = Vec::new();
    for (name, number) in [("a", 1), ("b", 2), ("c", 4), ("d", 5)] {
        let volume = user.create(&fake, name, "1").await;
        assert_eq!(user.attach(&fake, volume).await.unwrap()["volume"]["deviceid"], number);
        volumes.push(volume);
    }
    let fifth = user.create(&fake, "e", "1").await;
    let (code, text) = user.attach(&fake, fifth).await.unwrap_err();
    assert!(code == 431 && text.contains("maximum number of data disks (4)"), "{text}");
    user.detach(volumes[1]).await.unwrap();
    let (id, machine) = (fifth.to_string(), fake.appliance.to_string());
    for (number, wanted) in
        [("3", "deviceId should be 0,1,2,4-5"), ("6", "should be"), ("4", "deviceId 4 is used by vol")]
    {
        let pairs = [("id", id.as_str()), ("virtualmachineid", &machine), ("deviceid", number)];
        let (code, text) = user.job("attachVolume", &pairs).await.unwrap_err();
        assert!(code == 530 && text.contains(wanted), "{text}");
    }
    assert_eq!(user.attach(&fake, fifth).await.unwrap()["volume"]["deviceid"], 2, "the lowest that is free");
}

async fn twice() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    let (code, text) = user.detach(volume).await.unwrap_err();
    assert!(code == 431 && text.contains("not attached to a VM"), "{text}");
    user.attach(&fake, volume).await.unwrap();
    let (code, text) = user.attach(&fake, volume).await.unwrap_err();
    assert!(code == 431 && text.contains("not attached to any VM"), "{text}");
    let (code, class, text) = user.refused("deleteVolume", &[("id", &volume.to_string())]).await;
    assert!((code, class) == (431, 4350) && text.contains("a volume that is not attached"), "{text}");
    let machine = fake.appliance.to_string();
    let done = user.job("detachVolume", &[("virtualmachineid", &machine), ("deviceid", "1")]).await;
    assert!(done.is_ok(), "by machine and number: {done:?}");
    assert_eq!(user.job("detachVolume", &[("virtualmachineid", &machine)]).await.unwrap_err().0, 431);
    let other_zone =
        Caller::admin(&fake).done("listZones", &[("name", "zone-2")]).await["zone"][0]["id"].clone();
    let offering = fake.offering.to_string();
    let pairs = [("zoneid", other_zone.as_str().unwrap()), ("diskofferingid", &offering), ("size", "1")];
    let far = super::caller::id(&user.done("createVolume", &pairs).await["id"]);
    let (code, text) = user.attach(&fake, far).await.unwrap_err();
    assert!(code == 431 && text.contains("in the same zone"), "{text}");
}

async fn deleted() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    let id = volume.to_string();
    user.done("deleteVolume", &[("id", &id)]).await;
    let (code, class, text) = user.refused("deleteVolume", &[("id", &id)]).await;
    assert!((code, class) == (431, 4350) && text.contains("Unable to find volume"), "{text}");
    let (code, text) = user.attach(&fake, volume).await.unwrap_err();
    assert!(code == 431 && text.contains("Unable to find volume"), "told by the job: {text}");
    assert_eq!(user.done("listVolumes", &[("id", &id), ("listall", "true")]).await, json!({}));
}

async fn destroyed() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    let id = volume.to_string();
    assert_eq!(
        user.job("destroyVolume", &[("id", &id)]).await.unwrap_err().0,
        431,
        "there is nothing to keep"
    );
    user.attach(&fake, volume).await.unwrap();
    user.detach(volume).await.unwrap();
    let result = user.job("destroyVolume", &[("id", &id)]).await.unwrap();
    assert_eq!(result["volume"]["state"], "Destroy");
    assert_eq!(
        user.done("listVolumes", &[("id", &id)]).await["volume"][0]["state"],
        "Destroy",
        "still listed"
    );
    assert_eq!(user.attach(&fake, volume).await.unwrap_err().0, 431);
    assert_eq!(user.done("recoverVolume", &[("id", &id)]).await["volume"]["state"], "Ready");
    assert_eq!(user.refused("recoverVolume", &[("id", &id)]).await.0, 431);
    let result = user.job("destroyVolume", &[("id", &id), ("expunge", "true")]).await.unwrap();
    assert_eq!(result["volume"]["state"], "Expunged");
    assert!(fake.volume(volume).is_none());
}

async fn protected() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    let id = volume.to_string();
    user.job("updateVolume", &[("id", &id), ("deleteprotection", "true"), ("name", "kept")]).await.unwrap();
    assert_eq!(fake.volume(volume).unwrap().name, "kept");
    let (code, _, text) = user.refused("deleteVolume", &[("id", &id)]).await;
    assert!(code == 431 && text.contains("has delete protection enabled"), "{text}");
    user.job("updateVolume", &[("id", &id), ("deleteprotection", "false")]).await.unwrap();
    user.done("deleteVolume", &[("id", &id)]).await;
}

async fn resized() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let volume = user.create(&fake, "v", "1").await;
    let id = volume.to_string();
    let resize = |size: &'static str, shrink: &'static str| {
        let (user, id) = (user.clone(), id.clone());
        async move { user.job("resizeVolume", &[("id", &id), ("size", size), ("shrinkok", shrink)]).await }
    };
    resize("2", "").await.unwrap();
    assert!(!fake.content(volume).exists(), "only the row has grown");
    user.attach(&fake, volume).await.unwrap();
    resize("4", "").await.unwrap();
    assert_eq!(fake.volume(volume).unwrap().bytes, 4 << 30);
    assert_eq!(fake.content(volume).metadata().unwrap().len(), 4 << 30);
    let name = fake.device(volume).unwrap();
    let sectors = std::fs::read_to_string(fake.devices.join("sys/block").join(name).join("size")).unwrap();
    assert_eq!(sectors.trim(), (8 << 20).to_string());
    assert_eq!(resize("1", "").await.unwrap_err().0, 432, "a parameter at fault is told as 432");
    resize("3", "true").await.unwrap();
    let strict = fake.offering_of("Strict").to_string();
    let zone = fake.zone.to_string();
    let pairs = [("zoneid", zone.as_str()), ("diskofferingid", &strict), ("size", "1")];
    let fixed = user.done("createVolume", &pairs).await["id"].as_str().unwrap().to_owned();
    assert_eq!(user.job("resizeVolume", &[("id", &fixed), ("size", "2")]).await.unwrap_err().0, 432);
}

async fn accounts() {
    let fake = fake().await;
    let (user, other, admin) = (Caller::user(&fake), Caller::new(&fake, &fake.other), Caller::admin(&fake));
    let volume = user.create(&fake, "v", "1").await;
    let id = volume.to_string();
    assert_eq!(other.done("listVolumes", &[("id", &id)]).await, json!({}));
    assert_eq!(other.done("listVolumes", &[("name", "v"), ("listall", "true")]).await, json!({}));
    assert_eq!(other.refused("deleteVolume", &[("id", &id)]).await.0, 531);
    let machine = fake.machine_of("db01").to_string();
    let refused = other.refused("attachVolume", &[("id", &id), ("virtualmachineid", &machine)]).await;
    assert_eq!((refused.0, refused.1), (531, 4365), "no job is made: {}", refused.2);
    assert_eq!(admin.done("listVolumes", &[("name", "v")]).await, json!({}), "its own, unless asked for all");
    assert_eq!(admin.done("listVolumes", &[("name", "v"), ("listall", "true")]).await["count"], 1);
    assert_eq!(admin.done("listVolumes", &[("id", &id)]).await["count"], 1);
    admin.attach(&fake, volume).await.unwrap();
    let machines = other.done("listVirtualMachines", &[("listall", "true"), ("details", "min")]).await;
    assert_eq!((&machines["count"], &machines["virtualmachine"][0]["name"]), (&json!(1), &json!("db01")));
}

async fn root() {
    let fake = fake().await;
    let user = Caller::user(&fake);
    let machine = fake.machine_of("web01");
    let id = machine.to_string();
    let row =
        user.done("listVolumes", &[("virtualmachineid", &id), ("type", "ROOT")]).await["volume"][0].clone();
    let system = super::caller::id(&row["id"]);
    let (code, text) = user.detach(system).await.unwrap_err();
    assert!(
        code == 431 && text.contains("Root volume detach can happen only when vm is in states: Stopped"),
        "{text}"
    );
    user.job("stopVirtualMachine", &[("id", &id)]).await.unwrap();
    user.detach(system).await.unwrap();
    assert_eq!(
        fake.volume(system).map(|volume| (volume.root, volume.state)),
        Some((false, VolumeState::Ready))
    );
    let (code, text) = user.job("startVirtualMachine", &[("id", &id)]).await.unwrap_err();
    assert!(code == 530 && text.contains("ROOT volume is missing"), "{text}");
    let migrated = user.create(&fake, "migrated", "2").await;
    let pairs =
        [("id", migrated.to_string()), ("virtualmachineid", id.clone()), ("deviceid", "0".to_owned())];
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(user.job("attachVolume", &pairs).await.unwrap()["volume"]["type"], "ROOT");
    let started = user.job("startVirtualMachine", &[("id", &id)]).await.unwrap();
    assert_eq!(started["virtualmachine"]["state"], "Running");
    let (code, text) = user.job("startVirtualMachine", &[("id", &id)]).await.unwrap_err();
    assert!(code == 431 && text.contains("is already running"), "{text}");
}
