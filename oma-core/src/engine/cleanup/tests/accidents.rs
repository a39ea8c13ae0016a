//! What happened to the system of the seeds, and what stays in spite of it.

use super::*;
use crate::traits::{ExportSpec, Provisioning};
use crate::{ExportName, Fence, Generation, InstanceUuid};

/// Makes the volume of this record bear another mark, as if somebody had taken its id.
fn taken_by(site: &Site, record: &VolumeRecord, tag: VolumeTag) {
    let filter = crate::record::OperationFilter {
        context: Some(record.disk.context.clone()),
        kind: Some(crate::state::OperationKind::Create),
        ..Default::default()
    };
    let made: Vec<_> = paused().block_on(site.world.store.operations(filter).try_collect()).unwrap();
    site.world.backend.lose(&record.id);
    let id = plant(site, &made[0].spec.id, tag, &record.name);
    assert_eq!(id, record.id);
}

fn plant(site: &Site, operation: &OperationId, tag: VolumeTag, name: &str) -> VolumeId {
    let spec = VolumeSpec {
        operation: operation.clone(),
        tag,
        name: name.to_owned(),
        capacity: ByteSize::mib(1),
        provisioning: Provisioning::Thin,
    };
    paused().block_on(site.world.backend.create(&spec)).unwrap().id
}

fn tag(site: &Site, record: &VolumeRecord) -> VolumeTag {
    VolumeTag { instance: site.instance(), disk: record.disk.clone(), generation: record.generation }
}

#[test]
fn l02_the_accident_of_seed_001_cleaning_up_pgtest2_leaves_the_volume_of_pgwintestbios() {
    let site = Site::new();
    site.replicated("PGWINTESTBIOS");
    let other = site.last_job();
    let theirs = site.volume(&other).unwrap();
    let job = site.failed("pgtest2");
    let stale = site.volume(&job).unwrap();
    // The row of pgtest2 is stale: the volume of that id is of PGWINTESTBIOS by now.
    taken_by(&site, &stale, VolumeTag { disk: theirs.disk.clone(), ..tag(&site, &theirs) });
    let (before, their_volume) = (site.in_backend(&stale.id), site.in_backend(&theirs.id));
    let planned = site.plan_of(&job);
    let why = protection(&planned, K::Volume);
    assert!(why.contains("another disk") && why.contains(&theirs.disk.to_string()), "{why}");
    assert_eq!(labels(&planned), ["withdraw", "delete_job", "check"]);
    assert_eq!(site.execute(&planned.spec.id).left, Some(Orphans::default()));
    assert_eq!(site.in_backend(&stale.id), before);
    assert_eq!(site.in_backend(&theirs.id), their_volume);
    assert_eq!(site.volume(&other), Some(theirs));
}

#[test]
fn l02_volumes_of_others_with_the_same_name_are_nobodys_to_remove() {
    let site = Site::new();
    let job = site.failed("web");
    let ours = site.volume(&job).unwrap();
    let foreign = VolumeTag { instance: InstanceId::mint(), ..tag(&site, &ours) };
    let twin = plant(&site, &OperationId::mint(), foreign, &ours.name);
    // And one that bears our mark, which no record knows.
    let orphan = plant(&site, &OperationId::mint(), tag(&site, &ours), &ours.name);
    let planned = site.plan_of(&job);
    assert_eq!(item(&planned, K::Orphan).id, orphan.to_string());
    assert!(protection(&planned, K::Orphan).contains("nobody needs it"));
    let done = site.execute(&planned.spec.id);
    assert_eq!(done.left, Some(Orphans::default()), "{done:#?}");
    assert_eq!(site.in_backend(&ours.id), None);
    assert!(site.in_backend(&twin).is_some() && site.in_backend(&orphan).is_some());
}

#[test]
fn l21_a_missing_volume_is_forgotten_only_where_others_of_ours_are() {
    for with_others in [true, false] {
        let site = Site::new();
        let job = site.failed("web");
        let volume = site.volume(&job).unwrap();
        if with_others {
            site.replicated("neighbour");
        }
        site.world.backend.lose(&volume.id);
        let planned = site.plan_of(&job);
        assert!(item(&planned, K::Volume).detail.contains("missing"));
        // Its device mapping has no volume any more.
        assert_eq!(item(&planned, K::Device).id, volume.device_path.unwrap());
        assert_eq!(labels(&planned).contains(&"forget"), with_others);
        let done = site.execute(&planned.spec.id);
        assert_eq!(done.left, Some(Orphans::default()), "{done:#?}");
        assert_eq!(site.volume(&job).is_none(), with_others);
        if with_others {
            site.assert_fresh("web", &job);
        } else {
            assert!(protection(&planned, K::Volume).contains("another place"));
            assert_eq!(site.jobs(), [job], "without it nobody could plan for its volume again");
        }
    }
}

#[test]
fn l21_nothing_is_planned_before_the_backend_answers() {
    let site = Site::new();
    let job = site.failed("web");
    site.world.backend.disconnect();
    let planned = site.plan_of(&job);
    assert!(planned.spec.plan.first.iter().any(|first| first.contains("could not")), "{planned:#?}");
    site.world.backend.reconnect();
    let id = &planned.spec.id;
    let refused = site.live(FOR_EVER, &[], async |cleanups| cleanups.execute(id).await.unwrap_err());
    assert_eq!(refused.unwrap().kind(), ErrorKind::Conflict);
    site.cleaned(&job);
}

#[test]
fn l24_an_export_that_no_record_justifies_is_withdrawn() {
    let site = Site::new();
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let (exports, served) = site.exports();
    assert_eq!((exports.len(), served), (1, 1));
    // The record of the export went with the device mapping, by another tool's hand.
    let disk = site.disk(&job);
    paused().block_on(site.server.withdraw(&exports[0].name, Duration::ZERO)).unwrap();
    let detach = request(&disk, VolumeChange::Detach);
    site.live(FOR_EVER, &[], async |cleanups| {
        cleanups.volumes().submit(detach.clone()).await.unwrap();
        cleanups.volumes().wait(&detach.id, Duration::MAX).await.unwrap();
    });
    let device = site.world.backend.device(&volume.id).unwrap();
    let (name, fence) = (exports[0].name.clone(), Fence(1));
    let spec = |name: ExportName, access| ExportSpec {
        name,
        description: "left behind".to_owned(),
        access,
        fence,
        device: Arc::new(device.read_only()),
    };
    let others = ExportName::for_disk(&InstanceUuid::parse("another-vm").unwrap(), &disk.key).unwrap();
    // One that an agent was told of, and one of a disk whose key begins alike.
    let agents = ExportName::parse(format!("{name}-0123456789abcdef0123456789abcdef")).unwrap();
    let longer = ExportName::parse(format!("{name}-0")).unwrap();
    for name in [&name, &others, &agents, &longer] {
        paused().block_on(site.server.publish(spec(name.clone(), Access::ReadOnly))).unwrap();
    }
    let planned = site.plan_of(&job);
    assert_eq!(item(&planned, K::ServedExport).id, name.to_string());
    assert_eq!(labels(&planned), ["withdraw", "withdraw", "delete", "delete_job", "check"]);
    assert_eq!(site.execute(&planned.spec.id).left, Some(Orphans::default()));
    let served: Vec<_> = paused().block_on(site.server.list().try_collect()).unwrap();
    let served: Vec<_> = served.into_iter().map(|export| export.name).collect();
    assert!(served.len() == 2 && served.contains(&others) && served.contains(&longer), "{served:?}");
}

#[test]
fn l16_a_mark_newer_than_the_records_stops_it() {
    let site = Site::new();
    let job = site.failed("web");
    let volume = site.volume(&job).unwrap();
    let newer = VolumeTag { generation: Generation(volume.generation.0 + 3), ..tag(&site, &volume) };
    paused().block_on(site.world.backend.retag(&volume.id, &newer)).unwrap();
    let planned = site.plan_of(&job);
    assert!(protection(&planned, K::Volume).contains("newer than the records"));
    site.execute(&planned.spec.id);
    assert!(site.in_backend(&volume.id).is_some());
}
