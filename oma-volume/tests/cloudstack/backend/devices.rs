//! The cloud says one thing and the machine shows another (L05).

use oma_core::ErrorKind;
use oma_core::conformance::{self, Trial};
use oma_core::traits::{Access, VolumeBackend};
use oma_volume::cloudstack::Account;
use tracing::instrument::WithSubscriber;
use uuid::Uuid;

use super::super::fake::{Late, What, Wrong};
use super::super::told::Warnings;
use super::Bench;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        conformance::trial("cloudstack::l05_a_device_that_is_not_the_volume_is_never_used", &[], wrong),
        conformance::trial("cloudstack::a_disk_that_cannot_be_used_can_be_taken_away", &[], unusable),
        conformance::trial("cloudstack::a_guest_that_lets_go_late_is_waited_for", &[], late),
        conformance::trial("cloudstack::a_disk_that_was_left_behind_is_no_new_one", &[], left_behind),
        conformance::trial(
            "cloudstack::a_wrong_device_number_of_the_cloud_is_corrected_and_told",
            &[],
            number,
        ),
        conformance::trial("cloudstack::a_volume_that_is_open_stays_attached_while_others_ask", &[], open),
    ]
}

async fn wrong() {
    for (wrong, kind) in [
        (Wrong::Serial, ErrorKind::Unavailable),
        (Wrong::Missing, ErrorKind::Unavailable),
        (Wrong::Size, ErrorKind::Conflict),
        (Wrong::ReadOnly, ErrorKind::PermissionDenied),
    ] {
        let bench = Bench::new(Account::Ordinary).await;
        let (volume, tag) = bench.created().await;
        bench.fake.fault("attachVolume", 0, 1, What::Device(wrong));
        let error = bench.backend.attach(&volume.id, &tag).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{wrong:?}: {}", error.chain());
        let open = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await;
        assert!(open.is_err(), "{wrong:?}");
        assert_eq!(bench.fake.calls("attachVolume"), 1, "{wrong:?}: what is attached is not attached again");
    }
}

/// Nobody can write to it, yet it is detached and deleted, unless somebody has it.
async fn unusable() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.created().await;
    bench.fake.fault("attachVolume", 0, 2, What::Device(Wrong::Empty));
    for _ in 0..2 {
        bench.backend.attach(&volume.id, &tag).await.unwrap_err();
        let name = bench.fake.device(volume.id.as_str().parse().unwrap()).unwrap();
        let somebody = std::fs::File::open(bench.fake.devices.join("dev").join(name)).unwrap();
        somebody.lock_shared().unwrap();
        let error = bench.backend.detach(&volume.id, &tag).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
        drop(somebody);
        bench.backend.detach(&volume.id, &tag).await.unwrap();
    }
    bench.fake.fault("attachVolume", 0, 1, What::Device(Wrong::Empty));
    bench.backend.attach(&volume.id, &tag).await.unwrap_err();
    bench.backend.delete(&volume.id, &tag).await.unwrap();
    bench.assert_clean();
}

async fn late() {
    for late in [Late::StillAttached, Late::Detached, Late::ForgetsNext] {
        let bench = Bench::new(Account::Ordinary).await;
        let (volume, tag) = bench.attached().await;
        bench.fake.fault("detachVolume", 0, 1, What::LateDetach(late));
        let detached = bench.backend.detach(&volume.id, &tag).await.unwrap();
        assert_eq!(detached.device_path, None, "{late:?}");
        assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1, "{late:?}: its own disk");
        bench.backend.attach(&volume.id, &tag).await.unwrap();
        bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    }
}

/// The cloud lost track of a disk (issue 14214): it says detached, the guest still has it.
async fn left_behind() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    let id: Uuid = volume.id.as_str().parse().unwrap();
    let name = bench.fake.device(id).unwrap();
    let (sys, aside) = (bench.fake.devices.join("sys/block").join(&name), bench.fake.devices.join("aside"));
    copy(&sys, &aside);
    bench.fake.operate("detachVolume", &[("id", volume.id.as_str())]).unwrap();
    std::fs::rename(&aside, &sys).unwrap();
    let error = bench.backend.attach(&volume.id, &tag).await.unwrap_err();
    assert!(error.chain().contains("still here"), "{}", error.chain());
    assert_eq!(bench.fake.attached(bench.fake.appliance).len(), 1, "it was not attached");
    let error = bench.backend.detach(&volume.id, &tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it is not said to be free: {}", error.chain());
    bench.fake.take_calls();
    let error = bench.backend.delete(&volume.id, &tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "the guest still writes to it: {}", error.chain());
    assert_eq!(bench.fake.calls("deleteVolume"), 0);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["serial", "size", "dev", "diskseq", "ro"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

async fn number() {
    let bench = Bench::new(Account::RootAdmin).await;
    let (first, tag) = bench.created().await;
    bench.fake.fault("attachVolume", 0, 1, What::DeviceId);
    let warnings = Warnings::default();
    let attach = bench.backend.attach(&first.id, &tag).with_subscriber(warnings.clone());
    let found = attach.await.unwrap().device_path.unwrap();
    let name = bench.fake.device(first.id.as_str().parse().unwrap()).unwrap();
    assert!(found.ends_with(&format!("/dev/{name}")));
    let lines = warnings.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for word in [first.id.as_str(), "told=/dev/vdc", &format!("found={found}")] {
        assert!(lines[0].contains(word), "{word}: {lines:?}");
    }
    bench.backend.detach(&first.id, &tag).await.unwrap();
    let warnings = Warnings::default();
    bench.backend.attach(&first.id, &tag).with_subscriber(warnings.clone()).await.unwrap();
    assert_eq!(warnings.lines(), [""; 0], "the number is right");
}

async fn open() {
    let bench = Bench::new(Account::Ordinary).await;
    let (volume, tag) = bench.attached().await;
    let device = bench.backend.open(&volume.id, &tag, Access::ReadWrite).await.unwrap();
    bench.fake.take_calls();
    for call in
        [bench.second.detach(&volume.id, &tag).await.map(drop), bench.second.delete(&volume.id, &tag).await]
    {
        assert_eq!(call.unwrap_err().kind(), ErrorKind::Busy);
    }
    assert_eq!(bench.fake.calls("detachVolume") + bench.fake.calls("deleteVolume"), 0, "nobody asked for it");
    drop(device);
    bench.second.delete(&volume.id, &tag).await.unwrap();
    bench.assert_clean();
}
