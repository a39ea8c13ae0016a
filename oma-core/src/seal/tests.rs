#![cfg(feature = "signing")]

use super::*;
use crate::record::{DiskVerification, SampleSize, VerificationScope};
use crate::traits::ReadManner;
use crate::tree::{LEAF, TreeRoot};
use crate::{ByteSize, ChangeId, ContextId, DiskKey, Epoch, Extent, Generation, Timestamp, VmPath, VolumeId};

fn report() -> VerificationReport {
    let root = TreeRoot([7; 32]);
    VerificationReport {
        version: VerificationReport::VERSION,
        job: None,
        context: ContextId::parse("ctx-1").unwrap(),
        vm: VmPath::parse("/DC/vm/web").unwrap(),
        epoch: Some(Epoch(3)),
        scope: VerificationScope::Sample { size: SampleSize::Permille(10), seed: 42 },
        leaf_bytes: LEAF,
        begun: Timestamp::from_millis(1_700_000_000_000),
        ended: Timestamp::from_millis(1_700_000_001_500),
        disks: vec![DiskVerification {
            key: DiskKey::parse("disk-2000").unwrap(),
            volume: VolumeId::parse("vol-1").unwrap(),
            generation: Generation(2),
            change_id: ChangeId::parse("c1").unwrap(),
            capacity: ByteSize::mib(1),
            compared: ByteSize::kib(960),
            promised_zero: Some(ByteSize::kib(64)),
            source_root: Some(root),
            target_root: Some(root),
            read_back: ReadManner::PastCache,
            differences: [Extent::new(8192, 4096).unwrap()].into_iter().collect(),
            begun: Timestamp::from_millis(1_700_000_000_000),
            ended: Timestamp::from_millis(1_700_000_001_000),
        }],
    }
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(&[byte; 32]).unwrap()
}

fn sealed() -> String {
    SealedReport::new(report(), Some(&key(1))).unwrap().to_json().unwrap()
}

#[test]
fn a_sealed_report_is_read_and_checked_also_when_it_was_formatted_anew() {
    let text = sealed();
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&text).unwrap());
    for text in [text, format!(" {}\n", sealed().replace(',', ",\n")), pretty.unwrap()] {
        let read = SealedReport::parse(&text).unwrap();
        assert_eq!(read.report, report());
        read.check(&key(1).public_key()).unwrap();
    }
}

/// The format is a promise: a report of today is checked by the programs of later years.
#[test]
fn the_json_of_a_report_is_fixed() {
    let root = "07".repeat(32);
    let expected = format!(
        "{{\"report\":{{\"version\":2,\"job\":null,\"context\":\"ctx-1\",\"vm\":\"/DC/vm/web\",\"epoch\":3,\
         \"scope\":{{\"level\":\"sample\",\"size\":{{\"permille\":10}},\"seed\":42}},\"leaf_bytes\":65536,\
         \"begun\":1700000000000,\"ended\":1700000001500,\"disks\":[{{\"key\":\"disk-2000\",\"volume\":\"vol-1\",\
         \"generation\":2,\"change_id\":\"c1\",\"capacity\":1048576,\"compared\":983040,\"promised_zero\":65536,\"source_root\":\"{root}\",\
         \"target_root\":\"{root}\",\"read_back\":\"past_cache\",\"differences\":[[8192,4096]],\
         \"begun\":1700000000000,\"ended\":1700000001000}}]}},\"seal\":null}}"
    );
    assert_eq!(SealedReport::new(report(), None).unwrap().to_json().unwrap(), expected);
}

/// A report as the first version wrote and signed it.
#[test]
fn a_report_of_the_first_version_is_read_and_its_signature_still_fits() {
    let mut first = report();
    first.version = 1;
    (first.disks[0].compared, first.disks[0].promised_zero) = (ByteSize::mib(1), None);
    let message = [PREFIX, &serde_json::to_string(&first).unwrap()].concat();
    assert!(!message.contains("promised"), "{message}");
    let signature = key(1).sign(message.as_bytes());
    let seal = Seal { public_key: key(1).public_key(), signature };
    let text = serde_json::to_string(&SealedReport { report: first.clone(), seal: Some(seal) }).unwrap();
    let read = SealedReport::parse(&text).unwrap();
    assert_eq!((read.report.disks[0].covered(), &read.report), (ByteSize::mib(1), &first));
    read.check(&key(1).public_key()).unwrap();
}

#[test]
fn every_changed_byte_of_content_is_found_out() {
    let text = sealed();
    let trusted = key(1).public_key();
    let (mut changed, mut refused) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        let other = match byte {
            b'0'..=b'8' | b'a'..=b'e' => byte + 1,
            b'9' | b'f' => byte - 1,
            _ => continue,
        };
        let mut bytes = text.clone().into_bytes();
        bytes[at] = other;
        changed += 1;
        let read = SealedReport::parse(std::str::from_utf8(&bytes).unwrap());
        let checked = read.and_then(|read| read.check(&trusted));
        refused += usize::from(checked.is_err());
    }
    assert!(changed > 400);
    assert_eq!(refused, changed);
}

#[test]
fn a_report_that_was_cut_is_damaged_wherever_it_was_cut() {
    let text = sealed();
    for end in 0..text.len() {
        assert_eq!(SealedReport::parse(&text[..end]).unwrap_err().kind(), ErrorKind::Corrupt, "{end}");
    }
    assert_eq!(SealedReport::parse(&format!("{text}x")).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn another_version_another_key_and_no_signature_are_told_apart() {
    let kind = |text: &str| {
        let read = SealedReport::parse(text);
        read.and_then(|read| read.check(&key(1).public_key())).unwrap_err().kind()
    };
    assert_eq!(kind(&sealed().replace("\"version\":2", "\"version\":3")), ErrorKind::Unsupported);
    let new_fields = r#"{"report":{"version":7,"something":"new"},"seal":{"other":1}}"#;
    assert_eq!(kind(new_fields), ErrorKind::Unsupported);
    let other = SealedReport::new(report(), Some(&key(2))).unwrap().to_json().unwrap();
    assert_eq!(kind(&other), ErrorKind::PermissionDenied);
    let none = SealedReport::new(report(), None).unwrap().to_json().unwrap();
    assert_eq!(kind(&none), ErrorKind::Corrupt);
    // Somebody else's key beside our signature.
    let (ours, theirs) = (key(1).public_key().to_string(), key(2).public_key().to_string());
    assert_eq!(kind(&sealed().replace(&ours, &theirs)), ErrorKind::Corrupt);
    let unknown = sealed().replace("\"version\":2", "\"version\":2,\"extra\":1");
    assert_eq!(kind(&unknown), ErrorKind::Corrupt);
}

#[test]
fn a_signature_made_for_something_else_than_a_report_is_none_of_a_report() {
    let report = report();
    let json = serde_json::to_vec(&report).unwrap();
    let seal = Seal { public_key: key(1).public_key(), signature: key(1).sign(&json) };
    let sealed = SealedReport { report, seal: Some(seal) };
    assert_eq!(sealed.check(&key(1).public_key()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn l29_a_key_does_not_show_its_seed() {
    let shown = format!("{:?}", key(0xab));
    assert!(!shown.contains("abab") && !shown.contains("171, 171"), "{shown}");
    assert!(shown.contains(&key(0xab).public_key().to_string()));
}

/// RFC 8032, section 7.1, test 2.
#[test]
fn signatures_are_those_of_the_standard() {
    let seed: PublicKey = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb".parse().unwrap();
    let key = SigningKey::from_seed(&seed.0).unwrap();
    let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    assert_eq!(key.public_key().to_string(), public);
    let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                     085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(key.sign(&[0x72]).to_string(), signature);
}
