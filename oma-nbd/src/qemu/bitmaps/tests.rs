use super::*;
use proptest::prelude::*;

fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

fn job(number: u64) -> JobId {
    JobId::parse(format!("job-{number}")).unwrap()
}

const CHAIN: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn link(sequence: u64, previous: u64) -> Link {
    Link { owner: worker("w"), chain: CHAIN, sequence, previous, capacity: 1000, job: job(sequence) }
}

fn bitmap(link: &Link, recording: bool) -> Bitmap {
    Bitmap { name: Some(link.name()), recording, ..Bitmap::default() }
}

/// Links 5, 7 and 9, the last recording, each of a disk of 1000 bytes.
fn chain() -> Vec<Bitmap> {
    vec![bitmap(&link(5, 0), false), bitmap(&link(7, 5), false), bitmap(&link(9, 7), true)]
}

fn follow(bitmaps: &[Bitmap]) -> Next {
    let owner = worker("w");
    next(bitmaps, &Moment { owner: &owner, job: &job(20), capacity: 1000, now: 20, fresh: OTHER })
}

fn unknown(bitmaps: &[Bitmap], point: &Link, since: &Link) -> String {
    between(bitmaps, point, &since.change_id()).unwrap_err()
}

#[test]
fn the_next_link_relieves_those_that_record() {
    let next = follow(&chain());
    let expected = Link { job: job(20), ..link(20, 9) };
    assert_eq!((next.link, next.relieved, next.lost), (expected, vec![link(9, 7).name()], vec![]));
}

#[test]
fn sequences_grow_when_the_clock_goes_back() {
    let ahead = Link { sequence: 90, ..link(9, 0) };
    assert_eq!(follow(&[bitmap(&ahead, true)]).link.sequence, 91);
}

#[test]
fn the_first_link_begins_a_chain() {
    let next = follow(&[Bitmap { name: Some("b0".to_owned()), ..Bitmap::default() }, Bitmap::default()]);
    assert_eq!((next.link.chain, next.link.previous), (OTHER, 0));
    assert!(next.relieved.is_empty() && next.lost.is_empty());
}

#[test]
fn l09_a_chain_that_was_lost_in_part_is_never_continued() {
    let mut crashed = chain();
    crashed[0].inconsistent = true;
    let mut stopped = chain();
    stopped[2].recording = false;
    for lost in [crashed, stopped] {
        let next = follow(&lost);
        assert_eq!((next.link.chain, next.link.previous, next.lost.len()), (OTHER, 0, 3));
        assert!(next.link.sequence > 9);
    }
}

#[test]
fn a_chain_that_nobody_commits_ends() {
    let many: Vec<_> = (1..).take(MOST).map(|n| bitmap(&link(n, n - 1), true)).collect();
    assert_eq!(follow(&many).link.chain, OTHER);
    assert_eq!(follow(&many[1..]).link.chain, CHAIN);
}

#[test]
fn l20_bitmaps_of_another_owner_are_left_alone() {
    let foreign = Link { owner: worker("other"), chain: OTHER, ..link(8, 0) };
    let mut all = chain();
    all.push(bitmap(&foreign, true));
    let next = follow(&all);
    assert_eq!((next.link.previous, next.relieved, next.lost), (9, vec![link(9, 7).name()], vec![]));
    let found = between(&all, &link(9, 7), &link(9, 7).change_id()).unwrap();
    assert!(!found.older.contains(&foreign.name()), "{found:?}");
}

#[test]
fn changes_are_the_union_of_all_links_since() {
    let found = between(&chain(), &link(9, 7), &link(5, 0).change_id()).unwrap();
    assert_eq!(found.bitmaps, [link(7, 5).name(), link(5, 0).name()]);
    assert_eq!((found.grown, found.older), (None, vec![]));
    let found = between(&chain(), &link(9, 7), &link(7, 5).change_id()).unwrap();
    assert_eq!((found.bitmaps, found.older), (vec![link(7, 5).name()], vec![link(5, 0).name()]));
    assert!(between(&chain(), &link(9, 7), &link(9, 7).change_id()).unwrap().bitmaps.is_empty());
}

#[test]
fn l09_what_cannot_be_trusted_makes_the_changes_unknown() {
    let (first, second, third) = (link(5, 0), link(7, 5), link(9, 7));
    let mut inconsistent = chain();
    inconsistent[1].inconsistent = true;
    let mut busy = chain();
    busy[0].busy = true;
    let gap = vec![chain()[0].clone(), chain()[2].clone()];
    for (bitmaps, because) in
        [(inconsistent, "lost with the machine"), (busy, "in use"), (gap, "7 is missing")]
    {
        let reason = unknown(&bitmaps, &third, &first);
        assert!(reason.contains(because), "{reason}");
    }
    assert!(unknown(&chain(), &second, &third).contains("no dirty bitmap began"));
    assert!(unknown(&chain(), &third, &link(6, 0)).contains("no dirty bitmap began"));
    assert!(unknown(&chain(), &third, &link(3, 0)).contains("no dirty bitmap began"));
    let other = Link { chain: OTHER, ..first };
    assert!(unknown(&chain(), &third, &other).contains("a new one has begun"));
    assert!(between(&chain(), &third, &ChangeId::mint()).unwrap_err().contains("is not one of a chain"));
}

#[test]
fn what_a_disk_grew_by_has_changed_and_a_shrunken_one_is_unknown() {
    let point = Link { capacity: 3000, ..link(9, 7) };
    let found = between(&chain(), &point, &link(5, 0).change_id()).unwrap();
    assert_eq!(found.grown, Extent::between(1000, 3000));
    let point = Link { capacity: 999, ..link(9, 7) };
    assert!(unknown(&chain(), &point, &link(7, 5)).contains("shrank"));
}

#[test]
fn a_chain_that_runs_in_a_circle_ends() {
    let (one, two) = (link(5, 7), link(7, 5));
    let bitmaps = [bitmap(&one, false), bitmap(&two, false)];
    assert!(unknown(&bitmaps, &two, &link(3, 0)).contains("no dirty bitmap began"));
}

#[test]
fn change_ids_of_a_chain_continue_each_other() {
    let (old, new) = (link(5, 0).change_id(), link(7, 5).change_id());
    assert_eq!((new.uuid(), new.sequence()), (Some(CHAIN), Some(7)));
    assert!(new.continues(&old) && !old.continues(&new));
    assert!(!Link { chain: OTHER, ..link(7, 5) }.change_id().continues(&old));
}

proptest! {
    #[test]
    fn names_round_trip(chain: u128, sequence: u64, previous: u64, capacity: u64, number: u64) {
        let chain = Uuid::from_u128(chain);
        let link = Link { owner: worker("w"), chain, sequence, previous, capacity, job: job(number) };
        prop_assert_eq!(Link::parse(&link.name()), Some(link));
    }

    #[test]
    fn no_name_panics(name in "(oma/)?.{0,60}") {
        if let Some(link) = Link::parse(&name) {
            prop_assert_eq!(link.name(), name);
        }
    }
}
