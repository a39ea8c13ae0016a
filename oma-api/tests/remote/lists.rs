//! Long lists.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use oma_core::conformance::{Trial, trial};
use oma_core::traits::VolumeBackend;

use crate::daemon::{Daemon, Way, tag};
use crate::stuck::Stuck;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("forty_thousand_volumes_are_listed", &[], many),
        trial("whoever_stops_reading_a_list_stops_it", &[], a_few),
    ]
}

async fn many() {
    let daemon = Daemon::start(Arc::new(Stuck::listing(40_000)), Way::Tcp).await;
    let remote = daemon.remote().await;
    let instance = tag().instance;
    let mut listed = remote.list(&instance).enumerate();
    let mut count = 0;
    while let Some((number, volume)) = listed.next().await {
        let volume = volume.unwrap();
        assert_eq!((volume.id.as_str(), volume.tag.is_some()), (format!("vol-{number}").as_str(), true));
        count += 1;
    }
    assert_eq!(count, 40_000);
}

/// A list without end: more is never made than is read, so this comes to an end.
async fn a_few() {
    let daemon = Daemon::start(Arc::new(Stuck::listing(u64::MAX)), Way::Tcp).await;
    let remote = daemon.remote().await;
    for _ in 0..50 {
        let few: Vec<_> = remote.list(&tag().instance).take(3).try_collect().await.unwrap();
        assert_eq!(few.len(), 3);
    }
}
