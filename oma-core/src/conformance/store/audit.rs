//! The audit trail.

use futures_util::future::join_all;

use super::super::runner::table;
use super::*;
use crate::audit::{
    AuditBreak, AuditEntry, AuditFilter, AuditFrom, AuditHash, AuditHead, AuditRecord, KEPT, Tampering,
};
use crate::record::Order;
use crate::state::Role;
use crate::{AuditId, Timestamp};

pub(super) fn cases() -> Vec<Case<StoreSubject>> {
    table![
        an_entry_comes_back_as_it_was_recorded,
        entries_are_chained_without_gaps,
        entries_recorded_at_once_each_get_a_place,
        entries_are_paged_newest_first,
        entries_are_found_by_who_and_by_what,
        entries_are_read_from_any_one_on_in_both_orders,
        an_untouched_trail_is_whole,
        a_trail_that_does_not_go_through_a_known_head_was_rewritten,
        a_removed_user_leaves_its_entries,
        no_entry_is_earlier_than_the_one_before,
        old_entries_are_pruned_and_the_rest_is_whole,
        entries_of_a_year_are_kept,
    ]
}

fn entry(number: u32) -> AuditEntry {
    AuditEntry {
        actor: format!("user-{}@example.com", number % 2),
        user: None,
        action: "volume.resize".to_owned(),
        resource_type: "volume".to_owned(),
        resource_id: format!("vol-{}", number % 3),
        old: Some(serde_json::json!({ "size": number, "z": "ü 😀 \u{1} \0", "a": null })),
        new: number.is_multiple_of(2).then(|| serde_json::json!([number, 1.5, "\"quoted\" \\"])),
        address: Some([192, 0, 2, 7].into()),
    }
}

impl StoreSubject {
    async fn audited(&self, numbers: std::ops::Range<u32>) -> Vec<AuditRecord> {
        let mut recorded = Vec::new();
        for number in numbers {
            recorded.push(self.audit.audit(&entry(number)).await.unwrap());
        }
        recorded
    }

    async fn found(&self, filter: AuditFilter) -> Vec<AuditRecord> {
        self.audit.audit_entries(&filter, AuditFrom::default(), 1000).await.unwrap()
    }

    async fn assert_whole(&self, entries: u64) -> Option<AuditHead> {
        let verified = self.audit.verify_audit(None).await.unwrap();
        assert_eq!((verified.entries, verified.broken), (entries, None));
        verified.head
    }
}

async fn an_entry_comes_back_as_it_was_recorded(store: StoreSubject) {
    let user = store.user("ada", Role::Viewer).await;
    let with_user = AuditEntry { user: Some(user.id), ..entry(2) };
    let bare = AuditEntry {
        actor: "a\0b".to_owned(),
        action: "x".repeat(500),
        resource_type: "t".to_owned(),
        ..AuditEntry::default()
    };
    let mut recorded = Vec::new();
    for entry in [&with_user, &bare] {
        recorded.push(store.audit.audit(entry).await.unwrap());
    }
    assert_eq!(recorded[0].user, Some(user.id));
    assert_eq!(recorded[0].at, store.clock.now());
    let details: serde_json::Value = serde_json::from_str(recorded[0].details.as_ref().unwrap()).unwrap();
    assert_eq!(
        (Some(&details["old"]), Some(&details["new"])),
        (with_user.old.as_ref(), with_user.new.as_ref())
    );
    assert_eq!((recorded[1].actor.as_deref(), recorded[1].action.len()), (Some("a\u{fffd}b"), 191));
    assert_eq!((&recorded[1].details, &recorded[1].address), (&None, &None));
    recorded.reverse();
    assert_eq!(store.found(AuditFilter::All).await, recorded);
}

async fn entries_are_chained_without_gaps(store: StoreSubject) {
    let recorded = store.audited(0..5).await;
    assert_eq!(recorded[0].previous, Some(AuditHash::GENESIS));
    for (at, pair) in recorded.windows(2).enumerate() {
        assert_eq!(pair[1].previous, pair[0].hash, "{at}");
        assert_eq!(pair[1].id, pair[0].id.next());
    }
}

async fn entries_recorded_at_once_each_get_a_place(store: StoreSubject) {
    let tasks = join_all((0..8).map(|task| {
        let audit = store.audit.clone();
        async move {
            let mut ids = Vec::new();
            for number in 0..6 {
                ids.push(audit.audit(&entry(task * 10 + number)).await?.id.0);
            }
            Ok::<_, crate::Error>(ids)
        }
    }));
    let mut ids: Vec<u64> = tasks.await.into_iter().flat_map(Result::unwrap).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=48).collect::<Vec<_>>());
    store.assert_whole(48).await;
}

async fn entries_are_paged_newest_first(store: StoreSubject) {
    let mut recorded = store.audited(0..7).await;
    recorded.reverse();
    let (mut read, mut before) = (Vec::new(), None);
    loop {
        let page = store.audit.audit_entries(&AuditFilter::All, AuditFrom::before(before), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        assert!(page.len() <= 3);
        read.extend(page);
    }
    assert_eq!(read, recorded);
    assert!(store.audit.audit_entries(&AuditFilter::All, AuditFrom::default(), 0).await.unwrap().is_empty());
}

async fn entries_are_found_by_who_and_by_what(store: StoreSubject) {
    let mut recorded = store.audited(0..9).await;
    recorded.reverse();
    let by = AuditFilter::Actor("user-1@example.com".to_owned());
    let expected: Vec<_> =
        recorded.iter().filter(|row| row.actor.as_deref() == Some("user-1@example.com")).collect();
    assert_eq!(store.found(by.clone()).await.iter().collect::<Vec<_>>(), expected);
    let second = store.audit.audit_entries(&by, AuditFrom::before(Some(expected[0].id)), 1).await.unwrap();
    assert_eq!(second.iter().collect::<Vec<_>>(), [expected[1]]);
    let about = AuditFilter::Resource { kind: "volume".to_owned(), id: "vol-2".to_owned() };
    let expected: Vec<_> = recorded.iter().filter(|row| row.resource_id == "vol-2").collect();
    assert_eq!(store.found(about).await.iter().collect::<Vec<_>>(), expected);
    assert!(store.found(AuditFilter::Actor("nobody".to_owned())).await.is_empty());
}

async fn entries_are_read_from_any_one_on_in_both_orders(store: StoreSubject) {
    let recorded = store.audited(0..9).await;
    let ends = recorded.iter().map(|row| Some(row.id)).chain([None, Some(AuditId(u64::MAX))]);
    let places: Vec<_> = ends.collect();
    for filter in [
        AuditFilter::All,
        AuditFilter::Actor("user-1@example.com".to_owned()),
        AuditFilter::Resource { kind: "volume".to_owned(), id: "vol-2".to_owned() },
    ] {
        for order in [Order::Newest, Order::Oldest] {
            let mut whole = store.found(filter.clone()).await;
            whole.sort_by(|one, other| order.compare(&one.id, &other.id));
            assert!(!whole.is_empty());
            for behind in places.clone() {
                let mut expected = whole.clone();
                expected.retain(|row| behind.is_none_or(|last| order.is_behind(&row.id, &last)));
                expected.truncate(2);
                let read = store.audit.audit_entries(&filter, AuditFrom { order, behind }, 2).await.unwrap();
                assert_eq!(read, expected, "{filter:?} {order} behind {behind:?}");
            }
        }
    }
}

async fn an_untouched_trail_is_whole(store: StoreSubject) {
    assert_eq!(store.assert_whole(0).await, None);
    let recorded = store.audited(0..3).await;
    let head = store.assert_whole(3).await.unwrap();
    assert_eq!((head.id, Some(head.hash)), (recorded[2].id, recorded[2].hash));
    store.audited(3..6).await;
    assert_eq!(store.audit.verify_audit(Some(&head)).await.unwrap().broken, None);
}

async fn a_trail_that_does_not_go_through_a_known_head_was_rewritten(store: StoreSubject) {
    store.audited(0..4).await;
    let other = AuditHead { id: AuditId(2), hash: AuditHash::GENESIS };
    let altered = AuditBreak { id: AuditId(2), what: Tampering::Altered };
    assert_eq!(store.audit.verify_audit(Some(&other)).await.unwrap().broken, Some(altered));
    let later = AuditHead { id: AuditId(9), hash: AuditHash::GENESIS };
    let removed = AuditBreak { id: AuditId(5), what: Tampering::Removed };
    assert_eq!(store.audit.verify_audit(Some(&later)).await.unwrap().broken, Some(removed));
}

async fn a_removed_user_leaves_its_entries(store: StoreSubject) {
    let user = store.user("ada", Role::Viewer).await;
    let with_user = AuditEntry { user: Some(user.id), ..entry(0) };
    let recorded = store.audit.audit(&with_user).await.unwrap();
    store.accounts.remove_user(user.id).await.unwrap();
    assert_eq!(store.found(AuditFilter::All).await, [AuditRecord { user: None, ..recorded }]);
    store.assert_whole(1).await;
}

async fn no_entry_is_earlier_than_the_one_before(store: StoreSubject) {
    let recorded = store.audited(0..20).await;
    assert!(recorded.is_sorted_by_key(|row| row.at));
}

async fn old_entries_are_pruned_and_the_rest_is_whole(store: StoreSubject) {
    let old = store.audited(0..5).await;
    store.clock.advance(Duration::from_secs(10));
    let newer = store.audited(5..7).await;
    let time = newer[0].at;
    store.clock.advance(KEPT + Duration::from_secs(60));
    assert_eq!(store.audit.prune_audit(old[0].at).await.unwrap(), 0);
    store.assert_whole(7).await;
    assert_eq!(store.audit.prune_audit(time).await.unwrap(), 5);
    let left = store.found(AuditFilter::All).await;
    assert_eq!(left[1..], [newer[1].clone(), newer[0].clone()]);
    assert_eq!((left[0].action.as_str(), left[0].id), (AuditEntry::PRUNED, AuditId(8)));
    store.assert_whole(3).await;
    store.audited(7..9).await;
    store.clock.advance(KEPT * 2);
    assert_eq!(store.audit.prune_audit(newer[0].at.after(Duration::from_secs(1))).await.unwrap(), 2);
    assert_eq!(store.audit.prune_audit(store.clock.now().before(KEPT)).await.unwrap(), 3);
    store.assert_whole(2).await;
}

async fn entries_of_a_year_are_kept(store: StoreSubject) {
    store.audited(0..2).await;
    let now = store.clock.now();
    assert_kind(store.audit.prune_audit(now).await, ErrorKind::Invalid);
    let nearly = Timestamp::from_millis(now.before(KEPT).as_millis() + 1);
    assert_kind(store.audit.prune_audit(nearly).await, ErrorKind::Invalid);
    assert_eq!(store.audit.prune_audit(now.before(KEPT)).await.unwrap(), 0);
    store.assert_whole(2).await;
}
