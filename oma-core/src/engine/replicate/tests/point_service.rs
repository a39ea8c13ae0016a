//! Reverts and deletions that a process carries out beside whoever asks for them.

use std::sync::OnceLock;

use futures_util::FutureExt as _;

use super::points::{DISKS, Epochs, three_epochs};
use super::reverts::{by_copy, killed_revert};
use super::shaky::stamping;
use super::*;
use crate::engine::{PointService, destination, went_back};
use crate::record::ReplicationJob;
use crate::state::{JobKind, Wanted};
use crate::traits::RecoveryPoints;
use crate::{JobId, RecoveryPointId};

impl World {
    /// As the worker of this name.
    fn points_of(&self, name: &str) -> PointService {
        PointService::new(self.services().0, worker(name), self.config)
    }

    async fn newest_job(&self) -> ReplicationJob {
        self.store.list(JobFilter::default()).try_next().await.unwrap().unwrap()
    }

    async fn assert_holds(&self, epoch: u64, epochs: &Epochs) {
        for (name, held) in DISKS.iter().zip(&epochs[&epoch]) {
            assert!(self.target(name).await.bytes() == *held, "{name}");
            assert_eq!(self.volume(name).await.content, VolumeContent::Epoch(Epoch(epoch)));
        }
    }
}

fn job(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

#[tokio::test]
async fn l18_a_revert_goes_on_by_itself_and_its_job_tells_how_far_it_is() {
    let (world, epochs) = three_epochs().await;
    let (service, id) = (world.points_of("appliance"), world.ready().await[1].id.clone());
    let begun = service.revert(&job("job-1"), &id).await.unwrap();
    assert_eq!((begun.kind, destination(&begun)), (JobKind::Revert, Some(id.clone())));
    let ended = service.wait(&begun.id, Duration::MAX).await.unwrap();
    assert!(went_back(&ended), "{ended:?}");
    world.assert_holds(2, &epochs).await;
    let told = world.store.progress(&begun.id).await.unwrap().unwrap();
    assert_eq!((told.step, told.disks.len()), (None, 2));
    assert!(told.disks.iter().all(|disk| disk.durable == disk.total && disk.total > ByteSize::ZERO));
    // The answer that was lost is given again, and nothing is done a second time.
    let generation = world.volume(DISKS[0]).await.generation;
    assert_eq!(service.revert(&begun.id, &id).await.unwrap(), ended);
    assert_eq!(world.volume(DISKS[0]).await.generation, generation);
    let other = world.ready().await[0].id.clone();
    let taken = service.revert(&begun.id, &other).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    world.run().await;
    world.assert_replicated(4).await;
}

#[tokio::test]
async fn what_can_never_be_gone_back_to_is_refused_at_once() {
    let (world, _) = three_epochs().await;
    let (service, id) = (world.points_of("appliance"), world.ready().await[0].id.clone());
    let unknown = service.revert(&job("job-1"), &RecoveryPointId::mint()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    service.revert(&job("job-2"), &id).await.unwrap();
    let twice = service.revert(&job("job-3"), &id).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    assert!(twice.chain().contains("job-2"), "{}", twice.chain());
    service.wait(&job("job-2"), Duration::MAX).await.unwrap();
    world.source.add_disk(&world.vm, &key("disk-2002"), CAPACITY);
    world.run().await;
    let lacking = service.revert(&job("job-4"), &id).await.unwrap_err();
    assert_eq!(lacking.kind(), ErrorKind::Conflict);
    assert!(world.store.get(&job("job-4")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_revert_failed_with_is_told_to_who_waits_and_by_its_job_after_a_restart() {
    let (world, _) = three_epochs().await;
    let (service, id) = (world.points_of("appliance"), world.ready().await[1].id.clone());
    let last = world.volume(DISKS[1]).await.id;
    let tag = world.backend.get(&last).await.unwrap().unwrap().tag.unwrap();
    let reader = world.backend.open(&last, &tag, Access::ReadOnly).await.unwrap();
    service.revert(&job("job-1"), &id).await.unwrap();
    assert_eq!(service.wait(&job("job-1"), Duration::MAX).await.unwrap_err().kind(), ErrorKind::Busy);
    let restarted = world.points_of("appliance");
    let failed = restarted.wait(&job("job-1"), Duration::MAX).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Conflict);
    assert!(failed.chain().contains("could not go back"), "{}", failed.chain());
    drop(reader);
    restarted.revert(&job("job-2"), &id).await.unwrap();
    restarted.wait(&job("job-2"), Duration::MAX).await.unwrap();
}

#[tokio::test]
async fn l15_the_next_start_goes_on_with_a_revert_that_was_killed_to_its_own_point() {
    for asks_again in [false, true] {
        let (world, epochs) = three_epochs().await;
        let (id, world) = (world.ready().await[1].id.clone(), Arc::new(world));
        killed_revert(&world, &id).await;
        let left = world.newest_job().await;
        let service = world.points_of("appliance");
        match asks_again {
            true => drop(service.revert(&left.id, &id).await.unwrap()),
            false => assert_eq!(service.recover().await.unwrap(), std::slice::from_ref(&left.id)),
        }
        assert_eq!(service.recover().await.unwrap(), [], "it is carried out");
        assert!(went_back(&service.wait(&left.id, Duration::MAX).await.unwrap()));
        world.assert_holds(2, &epochs).await;
        assert_eq!(service.recover().await.unwrap(), []);
    }
}

#[tokio::test]
async fn l16_another_worker_goes_on_once_the_lease_has_ended() {
    let (world, epochs) = three_epochs().await;
    let (id, world) = (world.ready().await[1].id.clone(), Arc::new(world));
    killed_revert(&world, &id).await;
    let left = world.newest_job().await.id;
    let other = world.points_of("other");
    assert_eq!(other.recover().await.unwrap(), []);
    world.clock.advance(world.config.lease * 2);
    assert_eq!(other.recover().await.unwrap(), std::slice::from_ref(&left));
    other.wait(&left, Duration::MAX).await.unwrap();
    world.assert_holds(2, &epochs).await;
}

#[tokio::test]
async fn a_revert_that_was_left_gives_way_to_another_one_or_ends_when_that_is_wanted() {
    let (world, epochs) = three_epochs().await;
    let (ready, world) = (world.ready().await, Arc::new(world));
    killed_revert(&world, &ready[1].id).await;
    let (service, left) = (world.points_of("appliance"), world.newest_job().await.id);
    service.revert(&job("job-2"), &ready[0].id).await.unwrap();
    service.wait(&job("job-2"), Duration::MAX).await.unwrap();
    world.assert_holds(3, &epochs).await;
    let gave_way = service.wait(&left, Duration::MAX).await.unwrap_err();
    assert!(gave_way.chain().contains("took its place"), "{}", gave_way.chain());

    killed_revert(&world, &ready[1].id).await;
    let left = world.newest_job().await.id;
    world.store.want(&left, Wanted::Cancel).await.unwrap();
    assert_eq!(service.recover().await.unwrap(), []);
    let ended = world.store.get(&left).await.unwrap().unwrap();
    assert_eq!((ended.status, went_back(&ended)), (JobStatus::Cancelled, false));
    world.run().await;
    world.assert_replicated(4).await;
}

#[tokio::test]
async fn a_revert_that_rests_for_a_shutdown_is_gone_on_with_at_the_next_start() {
    let (world, epochs) = three_epochs().await;
    let id = world.ready().await[1].id.clone();
    let service = Arc::<OnceLock<PointService>>::default();
    let stopped = service.clone();
    let services =
        stamping(&world, move || assert_eq!(stopped.get().unwrap().shutdown().now_or_never(), None));
    let service = service.get_or_init(|| PointService::new(services, worker("appliance"), world.config));
    service.revert(&job("job-1"), &id).await.unwrap();
    service.shutdown().await;
    let left = world.store.get(&job("job-1")).await.unwrap().unwrap();
    assert_eq!((left.status.is_terminal(), &left.owner), (false, &None));
    assert_eq!(service.revert(&job("job-2"), &id).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let next = world.points_of("appliance");
    assert_eq!(next.recover().await.unwrap(), std::slice::from_ref(&left.id));
    next.wait(&left.id, Duration::MAX).await.unwrap();
    world.assert_holds(2, &epochs).await;
}

#[tokio::test]
async fn a_revert_that_is_cancelled_while_it_is_carried_out_leaves_volumes_that_nobody_believes() {
    let (world, _, id) = by_copy().await;
    let (store, service) = (world.store.clone(), Arc::<OnceLock<PointService>>::default());
    let nudged = service.clone();
    let services = stamping(&world, move || {
        store.want(&job("job-1"), Wanted::Cancel).now_or_never().unwrap().unwrap();
        nudged.get().unwrap().nudge();
    });
    let service = service.get_or_init(|| PointService::new(services, worker("appliance"), world.config));
    service.revert(&job("job-1"), &id).await.unwrap();
    assert_eq!(service.wait(&job("job-1"), Duration::MAX).await.unwrap_err().kind(), ErrorKind::Cancelled);
    let ended = world.store.get(&job("job-1")).await.unwrap().unwrap();
    assert_eq!((ended.status, went_back(&ended)), (JobStatus::Cancelled, false));
    assert_eq!(world.volume(DISKS[0]).await.content, VolumeContent::Inconsistent);
}

#[tokio::test]
async fn a_point_is_deleted_also_when_nobody_waits() {
    let (world, _) = three_epochs().await;
    let (service, id) = (world.points_of("appliance"), world.ready().await[1].id.clone());
    let unknown = service.delete(&RecoveryPointId::mint(), "why", Duration::ZERO).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let now = service.delete(&id, "why", Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(now.reason.as_deref(), Some("why"));
    service.shutdown().await;
    assert_eq!(world.store.point(&id).await.unwrap(), None);
    world.assert_nothing_forgotten().await;
    let next = world.points_of("appliance");
    let newest = world.ready().await[0].id.clone();
    assert_eq!(next.delete(&newest, "why", Duration::MAX).await.unwrap(), None);
}
