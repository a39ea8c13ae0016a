use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::memory::ManualClock;
use crate::{ByteSize, Timestamp};

const HOUR: i64 = 3_600_000;

fn limits(config: LimitsConfig) -> Limits {
    Limits::new(config, Arc::new(ManualClock::new(Timestamp::from_millis(9 * HOUR)))).unwrap()
}

fn host(name: &str) -> Endpoint {
    Endpoint::parse(name).unwrap()
}

fn rate(bandwidth: ByteSize) -> LimitConfig {
    LimitConfig { bandwidth: Some(bandwidth), ..LimitConfig::default() }
}

#[test]
fn a_way_without_limits_has_none() {
    let way = limits(LimitsConfig::default()).on_the_way(&host("a"), "[ds] a.vmdk");
    assert!(way.source.is_empty() && way.link.is_none());
}

#[test]
fn disks_of_one_host_and_datastore_share_their_limits_and_others_do_not() {
    let each = LimitConfig { operations: Some(4), ..LimitConfig::default() };
    let config = LimitsConfig {
        per_host: each.clone(),
        per_datastore: each.clone(),
        link: each,
        ..Default::default()
    };
    let limits = limits(config);
    let way = |name: &str, location: &str| {
        let way = limits.on_the_way(&host(name), location);
        way.source.into_iter().chain(way.link).collect::<Vec<_>>()
    };
    let (first, second) = (way("a", "[ds1] x/x.vmdk"), way("a", "[ds2] y.vmdk"));
    assert_eq!(first.len(), 3);
    assert!(
        Arc::ptr_eq(&first[0], &second[0])
            && !Arc::ptr_eq(&first[1], &second[1])
            && Arc::ptr_eq(&first[2], &second[2])
    );
    let other = way("b", "[ds1] x/x.vmdk");
    assert!(!Arc::ptr_eq(&first[0], &other[0]) && !Arc::ptr_eq(&first[1], &other[1]));
    assert_eq!(way("a", "/srv/web.raw").len(), 2, "a file lies in no datastore");
}

#[test]
fn exports_of_one_host_share_its_limit_and_others_have_their_own() {
    let each = |operations| LimitConfig { operations: Some(operations), ..LimitConfig::default() };
    let hosts = [(host("nas1"), each(1)), (host("::1"), each(2))].into();
    let of_hosts = limits(LimitsConfig { per_host: each(3), hosts, ..Default::default() });
    let way = |location: &str| of_hosts.on_the_way(&host("direct"), location).source[0].clone();
    let same = |one: &str, other: &str| assert!(Arc::ptr_eq(&way(one), &way(other)), "{one} and {other}");
    let apart = |one: &str, other: &str| assert!(!Arc::ptr_eq(&way(one), &way(other)), "{one} and {other}");
    same("nbd://nas1/a", "nbds://NAS1:10810/b?tls-certificates=/etc");
    same("nbd://nas2/a", "nbd://nas2:10810/");
    apart("nbd://nas1/a", "nbd://nas2/a");
    same("nbd://[::1]:10809/a", "nbd://user@[::1]/b");
    apart("nbd://[::1]:10809/a", "nbd://[::2]/b");
    same("nbd+unix:///a?socket=/run/a", "/srv/web.raw");
    apart("nbd+unix:///a?socket=/run/a", "nbd://nas2/a");
    assert_eq!(of_hosts.unused(), Vec::<String>::new());
    // Who names the source means all of it, but for hosts that are named themselves.
    let hosts = [(host("direct"), each(1)), (host("nas1"), each(2))].into();
    let of_source = limits(LimitsConfig { hosts, ..Default::default() });
    let way = |location: &str| of_source.on_the_way(&host("direct"), location).source[0].clone();
    assert!(Arc::ptr_eq(&way("nbd://nas2/a"), &way("/srv/web.raw")));
    assert!(!Arc::ptr_eq(&way("nbd://nas1/a"), &way("/srv/web.raw")));
}

#[test]
fn names_that_were_on_the_way_of_no_disk_are_told() {
    let limit = || rate(ByteSize::mib(1));
    let config = LimitsConfig {
        hosts: [(host("a"), limit()), (host("b"), limit()), (host("c"), LimitConfig::default())].into(),
        datastores: [("gold".to_owned(), limit()), ("gould".to_owned(), limit())].into(),
        ..Default::default()
    };
    let limits = limits(config);
    assert_eq!(limits.unused(), ["hosts.a", "hosts.b", "datastores.gold", "datastores.gould"]);
    limits.on_the_way(&host("a"), "[gold] x/x.vmdk");
    assert_eq!(limits.clone().unused(), ["hosts.b", "datastores.gould"]);
}

#[test]
fn limits_that_would_stop_everything_or_contradict_themselves_are_refused() {
    let refused = |link: LimitConfig| {
        let limits = Limits::new(LimitsConfig { link, ..Default::default() }, Arc::new(crate::SystemClock));
        assert_eq!(limits.unwrap_err().kind(), ErrorKind::Invalid);
    };
    refused(rate(ByteSize::ZERO));
    refused(LimitConfig { operations: Some(0), ..LimitConfig::default() });
    let hours = |list: &[(u8, u8)]| LimitConfig {
        hours: list
            .iter()
            .map(|(from, to)| HourlyRate { from: *from, to: *to, bandwidth: ByteSize::mib(1) })
            .collect(),
        ..LimitConfig::default()
    };
    for bad in [&[(24, 3)][..], &[(3, 3)], &[(3, 25)], &[(22, 6), (5, 7)]] {
        refused(hours(bad));
    }
    assert!(hours(&[(22, 6), (6, 22)]).check().is_ok());
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_kept_over_all_who_pass() {
    let limit = Limit::new(&rate(ByteSize::mib(10))).unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        limit.enter(1 << 20).await;
    }
    let elapsed = begun.elapsed();
    assert!((9_800..=10_000).contains(&elapsed.as_millis()), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_time_is_not_saved_up() {
    let limit = Limit::new(&rate(ByteSize::mib(1))).unwrap();
    limit.enter(1).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let begun = Instant::now();
    for _ in 0..3 {
        limit.enter(1 << 20).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn the_hour_of_the_day_sets_the_bandwidth() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(9 * HOUR)));
    let config = LimitConfig {
        hours: vec![HourlyRate { from: 8, to: 18, bandwidth: ByteSize::mib(1) }],
        ..rate(ByteSize::mib(100))
    };
    let limit = Limit::of(&config, clock.clone());
    let seconds = async |limit: &Limit| {
        let begun = Instant::now();
        for _ in 0..11 {
            limit.enter(1 << 20).await;
        }
        begun.elapsed().as_secs_f64()
    };
    assert!((9.9..10.1).contains(&seconds(&limit).await));
    clock.advance(Duration::from_secs(10 * 3600));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!((0.09..0.12).contains(&seconds(&limit).await));
}

#[tokio::test(start_paused = true)]
async fn operations_and_bytes_in_flight_come_back() {
    let config = LimitConfig {
        operations: Some(2),
        bytes_in_flight: Some(ByteSize::mib(3)),
        ..LimitConfig::default()
    };
    let limit = Limit::new(&config).unwrap();
    let soon = Duration::from_millis(1);
    let first = limit.enter(1 << 20).await;
    let second = limit.enter(1 << 20).await;
    assert!(tokio::time::timeout(soon, limit.enter(1)).await.is_err(), "two operations are under way");
    drop(second);
    let large = tokio::time::timeout(soon, limit.enter(3 << 20)).await;
    assert!(large.is_err(), "1 MiB of 3 is under way");
    drop(first);
    limit.enter(3 << 20).await;
}
