//! Clean-up of one VM never touches another's volume: the accident of seed 001, in each way that it could come about.

use super::*;
use crate::memory::MemoryStore;
use crate::record::{VolumeRecord, VolumeTag};
use crate::state::OperationKind;
use crate::traits::{Volume, VolumeBackend, VolumeRegistry, VolumeSpec};
use crate::{Generation, InstanceId, VolumeId};

/// Two VMs of one appliance, each with a volume: `pgtest2` is cleaned up, `PGWINTESTBIOS` is not.
struct Two {
    world: World,
    cleaned: DiskRef,
    other: DiskRef,
}

impl Two {
    fn new() -> Self {
        let world = World::new();
        let (cleaned, other) = (world.disk("pgtest2"), world.disk("PGWINTESTBIOS"));
        let this = Self { world, cleaned, other };
        this.life(async |service| {
            for disk in [&this.cleaned, &this.other] {
                assert_eq!(done(&service, &request(disk, create())).await.status, OperationStatus::Completed);
            }
        });
        this
    }

    fn life<T, Fut: Future<Output = T>>(&self, life: impl FnOnce(VolumeService) -> Fut) -> T {
        self.world.live("daemon", FOR_EVER, &[], life).unwrap()
    }

    fn recorded(&self, disk: &DiskRef) -> VolumeId {
        self.life(async |_| self.world.store.volume_of(disk).await.unwrap().unwrap().id)
    }

    fn found(&self, id: &VolumeId) -> Option<Volume> {
        self.life(async |_| self.world.backend.get(id).await.unwrap())
    }

    /// Deletes the volume of the VM that is cleaned up; tells how that ended.
    fn clean_up(&self) -> OperationStatus {
        self.life(async |service| {
            let delete = request(&self.cleaned, VolumeChange::Delete);
            match service.submit(delete.clone()).await {
                Ok(_) => service.wait(&delete.id, LONG).await.unwrap().status,
                Err(_) => OperationStatus::Cancelled,
            }
        })
    }

    /// Makes a volume beside all records, as another program would.
    fn plant(&self, operation: &OperationId, tag: VolumeTag, name: &str) -> Volume {
        let spec = VolumeSpec {
            operation: operation.clone(),
            tag,
            name: name.to_owned(),
            capacity: ByteSize::mib(1),
            provisioning: Provisioning::Thin,
        };
        self.life(async |_| self.world.backend.create(&spec).await.unwrap())
    }

    /// The create that made the volume of the VM that is cleaned up: its id follows from that.
    fn create_of_cleaned(&self) -> OperationId {
        self.life(async |_| {
            let filter = crate::record::OperationFilter {
                context: Some(self.cleaned.context.clone()),
                kind: Some(OperationKind::Create),
                ..Default::default()
            };
            let found = self.world.store.operations(filter);
            let found: Vec<Operation> = futures_util::TryStreamExt::try_collect(found).await.unwrap();
            found[0].spec.id.clone()
        })
    }

    /// Both are attached; where.
    fn attached(&self) -> [(VolumeId, String); 2] {
        [&self.cleaned, &self.other].map(|disk| {
            let ended = self.life(async |service| done(&service, &request(disk, VolumeChange::Attach)).await);
            assert_eq!(ended.status, OperationStatus::Completed);
            let id = self.recorded(disk);
            let path = self.found(&id).unwrap().device_path.unwrap();
            (id, path)
        })
    }

    /// The backend believes this volume to be at this device.
    fn mistake(&self, id: &VolumeId, path: &str) {
        self.world.weather.devices.lock().unwrap().insert(id.clone(), path.to_owned());
    }

    fn end_mistakes(&self) {
        self.world.weather.devices.lock().unwrap().clear();
    }

    /// What nobody may touch: the other volume and its record.
    fn untouched(&self) -> (Option<Volume>, Option<VolumeRecord>) {
        let record = self.life(async |_| self.world.store.volume_of(&self.other).await.unwrap());
        (self.found(&record.as_ref().unwrap().id), record)
    }

    fn instance(&self) -> InstanceId {
        self.life(async |_| self.world.store.instance().await.unwrap())
    }
}

#[test]
fn l03_equal_names_of_two_volumes_mislead_nobody() {
    let two = Two::new();
    let (cleaned, other) = (two.recorded(&two.cleaned), two.recorded(&two.other));
    let before = two.found(&other).unwrap();
    assert_eq!(two.found(&cleaned).unwrap().name, before.name, "both have one name");
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!((two.found(&cleaned), two.found(&other)), (None, Some(before)));
}

#[test]
fn l03_a_name_used_again_by_somebody_else_misleads_nobody() {
    let two = Two::new();
    let cleaned = two.recorded(&two.cleaned);
    let name = two.found(&cleaned).unwrap().name;
    two.world.backend.lose(&cleaned);
    let tag =
        VolumeTag { instance: InstanceId::mint(), disk: two.cleaned.clone(), generation: Generation::FIRST };
    let foreign = two.plant(&OperationId::mint(), tag, &name);
    assert_eq!(two.clean_up(), OperationStatus::Completed, "what is gone is gone");
    assert_eq!(two.found(&foreign.id), Some(foreign));
}

#[test]
fn l02_a_stale_row_that_names_a_volume_of_another_vm_deletes_nothing() {
    let two = Two::new();
    let cleaned = two.recorded(&two.cleaned);
    let operation = two.create_of_cleaned();
    two.world.backend.lose(&cleaned);
    // The id of the row is another VM's volume by now.
    let tag = VolumeTag { instance: two.instance(), disk: two.other.clone(), generation: Generation::FIRST };
    let others = two.plant(&operation, tag, "PGWINTESTBIOS-disk-0");
    assert_eq!(others.id, cleaned);
    assert_eq!(two.clean_up(), OperationStatus::Failed);
    assert_eq!(two.found(&others.id), Some(others));
}

#[test]
fn l02_copied_tags_do_not_make_a_volume_ours_to_delete() {
    let two = Two::new();
    let cleaned = two.recorded(&two.cleaned);
    let tag = two.found(&cleaned).unwrap().tag.unwrap();
    // Somebody made a copy of the volume, and its tags went with it.
    let copy = two.plant(&OperationId::mint(), tag, "copy of it");
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!((two.found(&cleaned), two.found(&copy.id)), (None, Some(copy)));
}

#[test]
fn l02_two_appliances_on_one_account_do_not_touch_each_others() {
    let two = Two::new();
    let there = MemoryStore::default();
    let instance = two.life(async |_| there.instance().await.unwrap());
    let tag = VolumeTag { instance, disk: two.cleaned.clone(), generation: Generation::FIRST };
    let theirs = two.plant(&OperationId::mint(), tag, "web-disk-2000");
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!(two.found(&theirs.id), Some(theirs));
}

#[test]
fn l02_records_from_a_backup_do_not_delete_what_has_gone_on_since() {
    let two = Two::new();
    let cleaned = two.recorded(&two.cleaned);
    let tag = two.found(&cleaned).unwrap().tag.unwrap();
    // The volume went on to a later generation, of which a restored database knows nothing.
    let later = VolumeTag { generation: tag.generation.next(), ..tag };
    two.life(async |_| two.world.backend.retag(&cleaned, &later).await.unwrap());
    let before = two.found(&cleaned);
    assert_eq!(two.clean_up(), OperationStatus::Failed);
    assert_eq!(two.found(&cleaned), before);
}

#[test]
fn l03_a_renamed_vm_keeps_its_own_volume() {
    let two = Two::new();
    let (cleaned, other) = (two.recorded(&two.cleaned), two.recorded(&two.other));
    // The VM that stays gets the name of the one that goes; who it is, its identity says.
    two.world.rename("PGWINTESTBIOS", "pgtest2");
    let before = two.found(&other);
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!((two.found(&cleaned), two.found(&other)), (None, before));
}

#[test]
fn l05_a_volume_that_an_administrator_attached_elsewhere_is_not_deleted_while_it_is_in_use() {
    let two = Two::new();
    let cleaned = two.recorded(&two.cleaned);
    let tag = two.found(&cleaned).unwrap().tag.unwrap();
    let open = two.life(async |_| {
        two.world.backend.attach(&cleaned, &tag).await.unwrap();
        two.world.backend.open(&cleaned, &tag, crate::traits::Access::ReadWrite).await.unwrap()
    });
    let before = two.found(&cleaned);
    assert_eq!(two.clean_up(), OperationStatus::Failed, "it is busy, however often it is asked");
    assert_eq!(two.found(&cleaned), before);
    drop(open);
}

#[test]
fn l05_swapped_device_letters_mislead_nobody() {
    let two = Two::new();
    let [(cleaned, at), (other, others)] = two.attached();
    // The machine was started again, and its kernel named the disks in another order than the records have it.
    two.mistake(&cleaned, &others);
    two.mistake(&other, &at);
    let before = two.untouched();
    two.life(async |service| {
        let detached = done(&service, &request(&two.cleaned, VolumeChange::Detach)).await;
        assert_eq!(detached.status, OperationStatus::Completed);
    });
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!((two.found(&cleaned), two.untouched()), (None, before));
    // Where the other is now is recorded once it is asked for.
    two.life(async |service| {
        assert_eq!(
            done(&service, &request(&two.other, VolumeChange::Attach)).await.status,
            OperationStatus::Completed
        );
        let recorded = two.world.store.volume_of(&two.other).await.unwrap().unwrap();
        assert_eq!((recorded.id, recorded.device_path), (other, Some(at)));
    });
}

#[test]
fn l05_a_device_that_is_taken_for_that_of_a_volume_of_the_same_serial_is_recorded_for_one_of_them() {
    let two = Two::new();
    let [(cleaned, at), (_, others)] = two.attached();
    let detach =
        || two.life(async |service| done(&service, &request(&two.cleaned, VolumeChange::Detach)).await);
    assert_eq!(detach().status, OperationStatus::Completed);
    // Both serials are cut to the same 20 digits: the device of the other is found for this one.
    two.mistake(&cleaned, &others);
    let before = two.untouched();
    let attach = request(&two.cleaned, VolumeChange::Attach);
    two.life(async |service| {
        let left = done_or_left(&service, &attach).await;
        assert_eq!(left.status, OperationStatus::Executing);
        assert!(left.error.unwrap().contains("cannot be recorded"));
    });
    assert_eq!(two.clean_up(), OperationStatus::Cancelled, "nobody knows where it is");
    two.life(async |service| service.recover().await.unwrap());
    assert!(two.found(&cleaned).is_some());
    assert_eq!(two.untouched(), before);
    two.end_mistakes();
    two.life(async |service| {
        service.finish_left_over().await.unwrap();
        assert_eq!(service.wait(&attach.id, LONG).await.unwrap().status, OperationStatus::Completed);
        let recorded = two.world.store.volume_of(&two.cleaned).await.unwrap().unwrap();
        assert_eq!(recorded.device_path, Some(at));
    });
    assert_eq!(detach().status, OperationStatus::Completed);
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!((two.found(&cleaned), two.untouched()), (None, before));
    two.world.assert_whole();
}

#[test]
fn l05_of_two_volumes_of_one_serial_the_second_that_is_attached_is_not_touched_with_the_first() {
    let two = Two::new();
    let [(cleaned, at), (other, _)] = two.attached();
    two.life(async |service| {
        assert_eq!(
            done(&service, &request(&two.other, VolumeChange::Detach)).await.status,
            OperationStatus::Completed
        );
    });
    // This time the other is taken for the one that is to be cleaned up.
    two.mistake(&other, &at);
    let attach = request(&two.other, VolumeChange::Attach);
    two.life(async |service| {
        assert_eq!(done_or_left(&service, &attach).await.status, OperationStatus::Executing);
    });
    let before = two.untouched();
    assert!(before.0.as_ref().unwrap().device_path.is_some(), "attached, and not recorded");
    two.life(async |service| {
        let detached = done(&service, &request(&two.cleaned, VolumeChange::Detach)).await;
        assert_eq!(detached.status, OperationStatus::Completed);
    });
    assert_eq!(two.clean_up(), OperationStatus::Completed);
    assert_eq!((two.found(&cleaned), two.untouched()), (None, before));
}

/// Asks, and waits until nobody carries it out any more.
async fn done_or_left(service: &VolumeService, request: &VolumeRequest) -> Operation {
    service.submit(request.clone()).await.unwrap();
    service.wait(&request.id, LONG).await.unwrap()
}
