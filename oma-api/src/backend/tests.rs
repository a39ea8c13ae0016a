use oma_core::traits::{Snapshot, Volume, VolumeSpec};
use serde_json::{from_str, to_string};

use super::*;

const TAG: &str = r#"{"instance":"i-1","context_id":"ctx-1","disk_key":"disk-2000","generation":3}"#;

#[test]
fn what_is_asked_reads_as_it_is_written_down() {
    let create = format!(
        r#"{{"operation_id":"op-1","tag":{TAG},"name":"web","capacity_bytes":4096,"provisioning":"thin"}}"#
    );
    let asked: Create = from_str(&create).unwrap();
    let spec = VolumeSpec::from(asked.clone());
    assert_eq!((spec.capacity, spec.tag.generation), (ByteSize::kib(4), Generation(3)));
    assert_eq!(Create::from(spec), asked);
    assert_eq!(to_string(&asked).unwrap(), create);
    let open = format!(r#"{{"tag":{TAG},"access":"reading"}}"#);
    assert_eq!(to_string(&from_str::<Open>(&open).unwrap()).unwrap(), open);
}

#[test]
fn what_is_answered_reads_as_it_is_written_down() {
    let volume = format!(
        r#"{{"volume_id":"vol-1","name":"web","capacity_bytes":4096,"tag":{TAG},"device_path":null}}"#
    );
    let told: BackendVolume = from_str(&volume).unwrap();
    assert_eq!(BackendVolume::from(Volume::from(told.clone())), told);
    assert_eq!(to_string(&told).unwrap(), volume);
    let snapshot = format!(
        r#"{{"mark":{{"snapshot_id":"s-1","volume_id":"vol-1","tag":{TAG},"job_id":"job-1"}},"name":"n","capacity_bytes":1}}"#
    );
    let told: BackendSnapshot = from_str(&snapshot).unwrap();
    assert_eq!(BackendSnapshot::from(Snapshot::from(told.clone())), told);
    assert_eq!(to_string(&told).unwrap(), snapshot);
}

#[test]
fn a_proof_with_more_in_it_than_is_known_is_none() {
    let more = r#"{"tag":{"instance":"i","context_id":"c","disk_key":"d","generation":1,"site":"b"}}"#;
    from_str::<Proof>(more).unwrap_err();
    let none = r#"{"tag":{"instance":"i","context_id":"c","disk_key":"d"}}"#;
    from_str::<Proof>(none).unwrap_err();
}

#[test]
fn lines_of_a_list_are_told_apart() {
    let line = to_string(&ListLine::Entry(1)).unwrap();
    assert_eq!(line, r#"{"entry":1}"#);
    let end: ListLine<u8> = from_str(r#"{"end":{"entries":2}}"#).unwrap();
    assert_eq!(end, ListLine::End(ListEnd { entries: 2 }));
}
