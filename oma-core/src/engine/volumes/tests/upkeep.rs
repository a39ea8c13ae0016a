//! A service that looks after itself, over hours of simulated time.

use std::sync::atomic::Ordering;

use super::deletes::Replicated;
use super::world::CONFIG;
use super::*;
use crate::engine::Recovered;
use crate::state::VolumeStatus;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Time passes for the processes and for the store alike.
async fn pass(world: &World, time: Duration) {
    let second = Duration::from_secs(1);
    for _ in 0..time.as_secs() {
        world.clock.advance(second);
        tokio::time::sleep(second).await;
    }
}

#[test]
fn a_deletion_begins_soon_after_it_is_due_however_long_the_period_is() {
    let vm = Replicated::new();
    vm.life(async |service| {
        service.upkeep(DAY);
        pass(&vm.world, MINUTE).await;
        let delete = request(&vm.disk, VolumeChange::Delete);
        service.submit(delete.clone()).await.unwrap();
        pass(&vm.world, CONFIG.grace.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(vm.status().await, Some(VolumeStatus::Condemned), "not before its time");
        pass(&vm.world, Duration::from_secs(8)).await;
        let ended = service.wait(&delete.id, Duration::ZERO).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Completed);
    });
    vm.world.assert_whole();
}

#[test]
fn a_deletion_that_was_asked_for_before_the_start_begins_as_well() {
    let vm = Replicated::new();
    vm.condemned();
    vm.life(async |service| {
        service.upkeep(DAY);
        pass(&vm.world, CONFIG.grace + Duration::from_secs(8)).await;
        assert_eq!(vm.status().await, None);
    });
    vm.world.assert_whole();
}

#[test]
fn l15_what_a_dead_worker_left_is_taken_up_without_anybody_asking() {
    let world = World::new();
    let disk = world.disk("web");
    let create = request(&disk, create());
    world.live("daemon", FOR_EVER, &[Fate::Silent], async |service| {
        service.submit(create.clone()).await.unwrap();
        service.wait(&create.id, Duration::from_millis(1)).await.unwrap();
    });
    world.live("rival", FOR_EVER, &[], async |service| {
        service.upkeep(MINUTE);
        pass(&world, CONFIG.lease + MINUTE * 2).await;
        assert_eq!(
            service.wait(&create.id, Duration::ZERO).await.unwrap().status,
            OperationStatus::Completed
        );
    });
    world.assert_whole();
    assert_eq!(world.left().len(), 1);
}

#[test]
fn what_others_carry_out_is_not_asked_for_one_by_one_until_its_lease_has_ended() {
    const VMS: usize = 12;
    let world = World::new();
    let disks: Vec<_> = (0..VMS).map(|number| world.disk(&format!("web{number}"))).collect();
    world.live("other", FOR_EVER, &[Fate::Silent; VMS], async |service| {
        for disk in &disks {
            service.submit(request(disk, create())).await.unwrap();
        }
    });
    // Any call but the lists would be its last.
    let recovered = world.live("daemon", 0, &[], async |service| service.recover().await.unwrap());
    assert_eq!(recovered, Some(Recovered::default()));
    world.clock.advance(CONFIG.lease * 2);
    let finished =
        world.live("daemon", FOR_EVER, &[], async |service| service.finish_left_over().await.unwrap());
    assert_eq!(finished.unwrap().len(), VMS);
    world.assert_whole();
}

#[test]
fn deletions_that_are_not_due_are_not_asked_for() {
    let vm = Replicated::new();
    vm.condemned();
    let recover = || vm.world.live("daemon", 0, &[], async |service| service.recover().await.unwrap());
    assert_eq!(recover(), Some(Recovered::default()));
    vm.world.clock.advance(CONFIG.grace);
    assert_eq!(recover(), None, "it is asked for now");
}

#[test]
fn l21_a_store_that_does_not_answer_for_hours_ends_no_upkeep() {
    let vm = Replicated::new();
    vm.condemned();
    vm.life(async |service| {
        service.upkeep(DAY);
        pass(&vm.world, MINUTE).await;
        vm.world.weather.deaf.store(true, Ordering::SeqCst);
        pass(&vm.world, CONFIG.grace * 30).await;
        assert_eq!(vm.status().await, Some(VolumeStatus::Condemned), "nobody knows that it is due");
        vm.world.weather.deaf.store(false, Ordering::SeqCst);
        pass(&vm.world, CONFIG.lease + Duration::from_secs(8)).await;
        assert_eq!(vm.status().await, None);
    });
    vm.world.assert_whole();
}

#[test]
fn a_pardoned_deletion_does_not_begin() {
    let vm = Replicated::new();
    let delete = vm.condemned();
    vm.life(async |service| {
        service.upkeep(MINUTE);
        service.pardon(&delete.id, "still wanted").await.unwrap();
        pass(&vm.world, CONFIG.grace * 2).await;
        assert_eq!(vm.status().await, Some(VolumeStatus::Detached));
    });
    vm.world.assert_whole();
}

#[test]
fn upkeep_ends_with_the_service_and_is_one_however_often_it_is_asked_for() {
    let world = World::new();
    let lists = || world.weather.lists.load(Ordering::SeqCst);
    let looks = |asked: usize| {
        world.live("daemon", FOR_EVER, &[], async |service| {
            let before = lists();
            (0..asked).for_each(|_| service.upkeep(MINUTE));
            pass(&world, MINUTE * 10).await;
            let looks = lists() - before;
            service.shutdown().await;
            let ended = lists();
            service.upkeep(MINUTE);
            pass(&world, MINUTE * 10).await;
            assert_eq!(lists(), ended, "nothing is asked after the end");
            looks
        })
    };
    let once = looks(1).unwrap();
    assert!(once > 9, "{once}");
    assert_eq!(looks(3), Some(once));
}

#[test]
fn appliances_that_start_together_do_not_ask_their_store_together() {
    let world = World::new();
    let mut first: Vec<Duration> = (0..100)
        .map(|number| {
            let first = world.live(&format!("appliance-{number}"), FOR_EVER, &[], async |service| {
                service.upkeep(MINUTE);
                let begun = tokio::time::Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                // The first look for what is due is there, the second comes with the first recovery.
                let before = world.weather.lists.load(Ordering::SeqCst);
                while world.weather.lists.load(Ordering::SeqCst) == before {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                begun.elapsed()
            });
            first.unwrap()
        })
        .collect();
    first.sort();
    assert!(first[0] >= MINUTE / 2 && first[99] <= MINUTE + Duration::from_secs(1), "{first:?}");
    assert!(first[75] - first[25] > MINUTE / 8, "{first:?}");
}
