//! A cloud as it should be, and ways in which it is not.

use serde_json::json;

use super::super::script::{Script, client, config};
use super::*;

/// A cloud in which everything is as it should be, but its disks are not of this machine.
fn cloud_of(script: &Script, folder: &tempfile::TempDir) -> Cloud {
    std::fs::create_dir_all(folder.path().join("sys/block")).unwrap();
    let mut config = config();
    config.device_root = folder.path().to_owned();
    Cloud::new(client(script), config)
}

fn good_script() -> Script {
    let mut script = Script::new()
        .answers(
            "listCapabilities",
            json!({"capability": {"cloudstackversion": "4.22.0.0", "kvmsnapshotenabled": true}}),
        )
        .answers(
            "listAccounts",
            json!({"count": 1, "account": [{"name": "oma", "roletype": "User",
            "volumeavailable": "Unlimited", "primarystorageavailable": "900"}]}),
        )
        .answers("listZones", json!({"count": 1, "zone": [{"name": "z1", "allocationstate": "Enabled"}]}))
        .answers(
            "listDiskOfferings",
            json!({"count": 1, "diskoffering": [{"name": "custom", "iscustomized": true,
            "disksizestrictness": false, "state": "Active"}]}),
        )
        .answers(
            "listVirtualMachines",
            json!({"count": 1, "virtualmachine": [{"name": "oma1", "state": "Running",
            "hypervisor": "KVM", "zoneid": "zone"}]}),
        )
        .answers("listVMSnapshot", json!({}))
        .answers("listVolumes", json!({}));
    for name in NEEDED {
        script = script.answers("listApis", json!({"count": 1, "api": [{"name": name}]}));
    }
    script
}

async fn verdicts(script: &Script) -> Vec<(Check, Verdict)> {
    let folder = tempfile::tempdir().unwrap();
    let report = cloud_of(script, &folder).preflight().await.unwrap();
    report.findings.iter().map(|finding| (finding.check, finding.verdict)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_fits_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let report = cloud_of(&good_script(), &folder).preflight().await.unwrap();
    assert!(report.is_ready(), "{report:?}");
    let bad = report.findings.iter().filter(|finding| finding.verdict > Verdict::Good);
    let bad: Vec<_> = bad.map(|finding| finding.check).collect();
    assert_eq!(bad, [Check::ThisMachine], "it has no disk to tell it by: {report:?}");
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Preflight>(&text).unwrap(), report);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_doubtful_and_the_rest_is_told() {
    let script = Script::new()
        .answers("listCapabilities", json!({"capability": {}}))
        .refuses("listAccounts", 531, Some(4365), "no")
        .unknown_id("listZones")
        .loses("listDiskOfferings")
        .answers(
            "listVirtualMachines",
            json!({"count": 1, "virtualmachine": [{"name": "oma1", "state": "Stopped"}]}),
        )
        .answers("listVMSnapshot", json!({"count": 1, "vmSnapshot": [{"id": "s"}]}))
        .answers(
            "listVolumes",
            json!({"count": 1, "volume": [{"id": "38400000-8cf0-11bd-b24e-10b96e4ef00d"}]}),
        )
        .refuses("listApis", 401, None, "no");
    let verdicts = verdicts(&script).await;
    for (check, verdict) in [
        (Check::Account, Verdict::Doubtful),
        (Check::Zone, Verdict::Failed),
        (Check::Offering, Verdict::Doubtful),
        (Check::Appliance, Verdict::Failed),
        (Check::VmSnapshots, Verdict::Failed),
        (Check::ThisMachine, Verdict::Failed),
        (Check::Commands, Verdict::Doubtful),
    ] {
        assert!(verdicts.contains(&(check, verdict)), "{check:?}: {verdicts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_not_found_is_no_failure_of_the_cloud() {
    for (text, verdict) in [
        ("Api Discovery plugin was unable to find an api by that name or process any apis", Verdict::Failed),
        ("Unable to acquire a database connection", Verdict::Doubtful),
    ] {
        let script = Script::new().refuses("listApis", 530, Some(9999), text);
        let folder = tempfile::tempdir().unwrap();
        let judged = cloud_of(&script, &folder).commands().await;
        assert_eq!(judged.unwrap_or_else(|error| not_asked(&error)).0, verdict, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_asked_at_all_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new().refuses("listCapabilities", 401, None, "unable to verify user credentials");
    let error = cloud_of(&script, &folder).preflight().await.unwrap_err();
    assert_eq!(error.about("check", "cloud").kind(), ErrorKind::PermissionDenied);
}

#[test]
fn offerings_that_do_not_fit_are_told_why() {
    let fit = json!({"name": "o", "iscustomized": true});
    let judge = |name: &str, value: serde_json::Value| {
        let mut offering = fit.clone();
        offering[name] = value;
        judge_offering(&serde_json::from_value(offering).unwrap(), "zone").0
    };
    assert_eq!(judge("iscustomized", json!(true)), Verdict::Good);
    assert_eq!(judge("storagetype", json!("local")), Verdict::Doubtful);
    assert_eq!(judge("zoneid", json!("a,zone")), Verdict::Good);
    for (name, value) in [
        ("iscustomized", json!(false)),
        ("iscustomizediops", json!(true)),
        ("disksizestrictness", json!(true)),
        ("encrypt", json!(true)),
        ("state", json!("Inactive")),
        ("zoneid", json!("a,b")),
    ] {
        assert_eq!(judge(name, value.clone()), Verdict::Failed, "{name} {value}");
    }
}

#[test]
fn room_for_disks_is_told_before_it_is_gone() {
    let disks = |count: usize| -> Vec<CloudVolume> {
        (0..count).map(|id| serde_json::from_value(json!({"id": format!("v{id}")})).unwrap()).collect()
    };
    assert_eq!(slots(&disks(1)).0, Verdict::Good);
    assert_eq!(slots(&disks(30)).0, Verdict::Doubtful);
    assert_eq!(slots(&disks(33)).0, Verdict::Failed);
}
