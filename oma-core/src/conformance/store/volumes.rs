use super::super::runner::table;
use super::*;
use crate::record::{JobEnd, VolumeContent, VolumeFilter};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        the_instance_id_is_minted_once,
        an_unknown_volume_is_absent,
        volumes_are_listed_by_id,
        l12_marking_inconsistent_is_idempotent_and_only_for_the_jobs_volumes,
        a_stamp_is_kept_until_the_volume_is_written_again,
        the_stamp_of_an_epoch_stays_that_of_its_commit,
        l09_each_advance_of_the_generation_is_another_one,
        l09_a_renewed_generation_keeps_what_is_known_of_the_content,
        l09_a_renewed_generation_keeps_what_an_interrupted_run_has_finished,
        l02_a_renewed_volume_is_deleted_in_two_steps,
        l10_a_disk_whose_zeroes_are_distrusted_stays_so_and_begins_a_generation,
        l03_a_new_volume_of_a_disk_takes_the_link_and_a_larger_generation,
        a_forgotten_volume_is_gone_and_its_successor_has_a_larger_generation,
        forgetting_an_unknown_volume_is_fine,
        l09_generations_grow_past_every_one_that_was_forgotten,
        forgetting_the_volume_before_leaves_the_one_after_it,
        the_volume_of_another_vm_is_not_forgotten,
    ]
}

async fn the_instance_id_is_minted_once(store: StoreSubject) {
    let id = store.volumes.instance().await.unwrap();
    assert_eq!(store.volumes.instance().await.unwrap(), id);
}

async fn an_unknown_volume_is_absent(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let id = VolumeId::parse("vol-none").unwrap();
    assert_eq!(store.volumes.volume(&id).await.unwrap(), None);
    assert_eq!(store.volumes.volume_of(&store.disk(&vm, KEYS[0])).await.unwrap(), None);
    assert_eq!(store.volumes.volume_of(&store.disk(&vm, "disk-9")).await.unwrap(), None);
    assert_kind(store.volumes.mark_inconsistent(&lease, &id).await, ErrorKind::NotFound);
    assert_kind(store.volumes.advance_generation(&lease, &id).await, ErrorKind::NotFound);
}

async fn volumes_are_listed_by_id(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let second = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-b").await;
    let first = store.provision(&lease, &store.disk(&vm, KEYS[1]), "vol-a").await;
    let all: Vec<_> = store.volumes.volumes(VolumeFilter::default()).try_collect().await.unwrap();
    assert_eq!(all, [first, second]);
}

async fn l12_marking_inconsistent_is_idempotent_and_only_for_the_jobs_volumes(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let volume = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await;
    assert_eq!(volume.content, VolumeContent::Blank);
    for _ in 0..2 {
        store.volumes.mark_inconsistent(&lease, &volume.id).await.unwrap();
        let marked = store.volumes.volume(&volume.id).await.unwrap().unwrap();
        assert_eq!((marked.content, marked.generation), (VolumeContent::Inconsistent, volume.generation));
    }
    let other = store.job_of_another_vm().await;
    assert_kind(store.volumes.mark_inconsistent(&other, &volume.id).await, ErrorKind::NotFound);
    assert_kind(store.volumes.advance_generation(&other, &volume.id).await, ErrorKind::NotFound);
}

async fn a_stamp_is_kept_until_the_volume_is_written_again(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let volume = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await;
    let kept = async || store.volumes.volume(&volume.id).await.unwrap().unwrap();
    assert_eq!(kept().await.stamp, None);
    let stamp = |text: &str| ContentStamp(text.to_owned());
    for text in ["first", "second", "second"] {
        store.volumes.keep_stamp(&lease, &volume.id, &stamp(text)).await.unwrap();
        assert_eq!((kept().await.stamp, kept().await.content), (Some(stamp(text)), VolumeContent::Blank));
    }
    store.volumes.mark_inconsistent(&lease, &volume.id).await.unwrap();
    assert_eq!(kept().await.stamp, None);
    store.volumes.keep_stamp(&lease, &volume.id, &stamp("third")).await.unwrap();
    assert_eq!(
        (kept().await.stamp, kept().await.content),
        (Some(stamp("third")), VolumeContent::Inconsistent)
    );
    store.volumes.advance_generation(&lease, &volume.id).await.unwrap();
    assert_eq!(kept().await.stamp, None);
    let other = store.job_of_another_vm().await;
    assert_kind(store.volumes.keep_stamp(&other, &volume.id, &stamp("theirs")).await, ErrorKind::NotFound);
}

async fn the_stamp_of_an_epoch_stays_that_of_its_commit(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let volume = store.volumes.volume_of(&store.disk(&vm, KEYS[0])).await.unwrap().unwrap();
    let later = ContentStamp("later".to_owned());
    assert_kind(store.volumes.keep_stamp(&lease, &volume.id, &later).await, ErrorKind::Conflict);
    assert_eq!(store.volumes.volume(&volume.id).await.unwrap(), Some(volume));
}

async fn l09_each_advance_of_the_generation_is_another_one(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.volumes.volume_of(&disk).await.unwrap().unwrap();
    let endpoint = &vm.identity.endpoint;
    let current = store.change_ids.current(&disk, volume.generation, endpoint).await.unwrap();
    assert!(current.is_some());
    let next = store.volumes.advance_generation(&lease, &volume.id).await.unwrap();
    assert_eq!(store.volumes.advance_generation(&lease, &volume.id).await.unwrap(), next.next());
    let now = store.volumes.volume(&volume.id).await.unwrap().unwrap();
    assert_eq!((now.generation, now.content), (next.next(), VolumeContent::Inconsistent));
    assert_eq!(store.change_ids.current(&disk, now.generation, endpoint).await.unwrap(), None);
}

async fn l09_a_renewed_generation_keeps_what_is_known_of_the_content(store: StoreSubject) {
    let vm = store.replicated().await;
    let lease = store.second_job(&vm).await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.volumes.volume_of(&disk).await.unwrap().unwrap();
    let endpoint = &vm.identity.endpoint;
    let current = async |generation| store.change_ids.current(&disk, generation, endpoint).await.unwrap();
    let before = current(volume.generation).await.unwrap();
    let next = store.volumes.renew_generation(&lease, &volume.id).await.unwrap();
    assert_eq!(next, volume.generation.next());
    let last = store.volumes.renew_generation(&lease, &volume.id).await.unwrap();
    assert_eq!(last, next.next(), "each is another one");
    let now = store.volumes.volume(&volume.id).await.unwrap().unwrap();
    assert_eq!(now, VolumeRecord { generation: last, updated_at: now.updated_at, ..volume.clone() });
    assert_eq!(current(last).await.unwrap(), CommittedChange { generation: last, ..before });
    for earlier in [volume.generation, next] {
        assert_eq!(current(earlier).await, None, "of {earlier}");
    }
    let commit = store.ready_to_commit(&vm, &lease, "second").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    let other = store.job_of_another_vm().await;
    assert_kind(store.volumes.renew_generation(&other, &volume.id).await, ErrorKind::NotFound);
}

async fn l09_a_renewed_generation_keeps_what_an_interrupted_run_has_finished(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let mut entry = JournalEntry { basis: basis(volume.generation), ..empty_journal() };
    entry.finished.insert(extent(0, 4096));
    store.journal.begin(&lease, &disk.key, &entry).await.unwrap();
    store.journal.record(&lease, &disk.key, extent(8192, 4096), ByteSize::new(8192)).await.unwrap();
    entry.finished.insert(extent(8192, 4096));
    let synced = store.inventory.disk(&disk).await.unwrap().unwrap().bytes_synced;
    let next = store.volumes.renew_generation(&lease, &volume.id).await.unwrap();
    entry.basis.generation = next;
    assert_eq!(store.journal.load(&disk).await.unwrap(), Some(entry.clone()));
    assert_eq!(store.inventory.disk(&disk).await.unwrap().unwrap().bytes_synced, synced);
    store.journal.record(&lease, &disk.key, extent(16384, 4096), ByteSize::new(12288)).await.unwrap();
    entry.finished.insert(extent(16384, 4096));
    assert_eq!(store.journal.load(&disk).await.unwrap(), Some(entry.clone()));
    // That of a generation before stays what it is: nothing of it holds.
    store.volumes.advance_generation(&lease, &volume.id).await.unwrap();
    store.volumes.renew_generation(&lease, &volume.id).await.unwrap();
    assert_eq!(store.journal.load(&disk).await.unwrap(), Some(entry));
}

async fn l02_a_renewed_volume_is_deleted_in_two_steps(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.provision(&lease, &disk, "vol-1").await;
    let detach = store.operation(&lease, &disk, OperationKind::Detach, Some(&volume.id));
    store.carry_out(&lease, &detach, &store.backend_volume("vol-1", None)).await.unwrap();
    assert!(!volume.held_epoch);
    store.volumes.renew_generation(&lease, &volume.id).await.unwrap();
    assert!(store.volumes.volume(&volume.id).await.unwrap().unwrap().held_epoch);
    store.jobs.end(&lease, JobEnd::Cancelled("no more".to_owned())).await.unwrap();
    let lease = store.job_of(store.operate_spec(&vm)).await;
    let delete = store.operation(&lease, &disk, OperationKind::Delete, Some(&volume.id));
    assert_kind(store.volumes.begin(&lease, &delete).await, ErrorKind::Conflict);
    store.volumes.condemn(&lease, &delete, TTL).await.unwrap();
}

async fn l10_a_disk_whose_zeroes_are_distrusted_stays_so_and_begins_a_generation(store: StoreSubject) {
    let vm = store.replicated().await;
    let broken = async || {
        let disks = store.inventory.disks(&vm.id).await.unwrap();
        disks.iter().filter(|disk| disk.zeroes_broken).map(|disk| disk.disk.clone()).collect::<Vec<_>>()
    };
    assert_eq!(broken().await, []);
    let lease = store.second_job(&vm).await;
    let disk = store.disk(&vm, KEYS[0]);
    let volume = store.volumes.volume_of(&disk).await.unwrap().unwrap();
    let next = store.volumes.distrust_zeroes(&lease, &volume.id).await.unwrap();
    assert_eq!(store.volumes.distrust_zeroes(&lease, &volume.id).await.unwrap(), next.next());
    let now = store.volumes.volume(&volume.id).await.unwrap().unwrap();
    assert_eq!((now.generation, now.content, now.stamp), (next.next(), VolumeContent::Inconsistent, None));
    let endpoint = &vm.identity.endpoint;
    assert_eq!(store.change_ids.current(&disk, now.generation, endpoint).await.unwrap(), None);
    let commit = store.ready_to_commit(&vm, &lease, "second").await;
    store.change_ids.commit_epoch(&lease, &commit).await.unwrap();
    assert_eq!(broken().await, [disk], "whatever is committed later");
    let other = store.job_of_another_vm().await;
    assert_kind(store.volumes.distrust_zeroes(&other, &volume.id).await, ErrorKind::NotFound);
}

async fn l03_a_new_volume_of_a_disk_takes_the_link_and_a_larger_generation(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let first = store.carry_out(&lease, &create, &store.backend_volume("vol-1", None)).await.unwrap();
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let second = store.carry_out(&lease, &create, &store.backend_volume("vol-2", None)).await.unwrap();
    assert!(second.generation > first.generation);
    assert_eq!(store.volumes.volume_of(&disk).await.unwrap().unwrap().id, second.id);
    assert_kind(store.volumes.mark_inconsistent(&lease, &first.id).await, ErrorKind::NotFound);
    assert_kind(store.volumes.advance_generation(&lease, &first.id).await, ErrorKind::NotFound);
    assert_eq!(store.volumes.volume(&first.id).await.unwrap(), Some(first));
}

async fn a_forgotten_volume_is_gone_and_its_successor_has_a_larger_generation(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let lost = store.provision(&lease, &disk, "vol-1").await;
    store.exports.begin(&lease, &name("x"), &disk.key, &lost.id).await.unwrap();
    store.volumes.forget(&lease, &lost.id).await.unwrap();
    assert_eq!(store.volumes.volume(&lost.id).await.unwrap(), None);
    assert_eq!(store.volumes.volume_of(&disk).await.unwrap(), None);
    assert_eq!(store.exports.export(&name("x")).await.unwrap(), None);
    store.volumes.forget(&lease, &lost.id).await.unwrap();
    // The device path is free again.
    let create = store.operation(&lease, &disk, OperationKind::Create, None);
    let made = store.carry_out(&lease, &create, &store.backend_volume("vol-2", None)).await.unwrap();
    assert!(made.generation > lost.generation);
    let attach = store.operation(&lease, &disk, OperationKind::Attach, Some(&made.id));
    let answer = store.backend_volume("vol-2", lost.device_path.as_deref());
    store.carry_out(&lease, &attach, &answer).await.unwrap();
}

async fn forgetting_an_unknown_volume_is_fine(store: StoreSubject) {
    let (_, lease) = store.claimed().await;
    store.volumes.forget(&lease, &VolumeId::parse("vol-none").unwrap()).await.unwrap();
}

async fn l09_generations_grow_past_every_one_that_was_forgotten(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let mut largest = Generation(0);
    for id in ["vol-1", "vol-2", "vol-3"] {
        let volume = store.provision(&lease, &disk, id).await;
        assert!(volume.generation > largest, "{id}");
        for _ in 0..2 {
            largest = store.volumes.advance_generation(&lease, &volume.id).await.unwrap();
        }
        store.volumes.forget(&lease, &volume.id).await.unwrap();
    }
    // The backend may give an id once more.
    assert!(store.provision(&lease, &disk, "vol-1").await.generation > largest);
}

async fn forgetting_the_volume_before_leaves_the_one_after_it(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let disk = store.disk(&vm, KEYS[0]);
    let first = store.provision(&lease, &disk, "vol-1").await;
    let second = store.provision(&lease, &disk, "vol-2").await;
    store.volumes.forget(&lease, &first.id).await.unwrap();
    assert_eq!(store.volumes.volume(&first.id).await.unwrap(), None);
    assert_eq!(store.volumes.volume_of(&disk).await.unwrap(), Some(second));
}

async fn the_volume_of_another_vm_is_not_forgotten(store: StoreSubject) {
    let (vm, lease) = store.claimed().await;
    let volume = store.provision(&lease, &store.disk(&vm, KEYS[0]), "vol-1").await;
    let other = store.job_of_another_vm().await;
    assert_kind(store.volumes.forget(&other, &volume.id).await, ErrorKind::NotFound);
    assert_eq!(store.volumes.volume(&volume.id).await.unwrap(), Some(volume));
}
