use super::super::{AuditEntry, AuditHash, AuditRecord};
use super::*;

/// A trail of so many entries.
fn trail(length: u64) -> (Vec<AuditRecord>, ChainState) {
    let mut chain = ChainState::new(AuditId::FIRST);
    let mut rows = Vec::new();
    for number in 1..=length {
        push(&mut rows, &mut chain, &entry(number));
    }
    (rows, chain)
}

fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        actor: format!("user-{number}"),
        action: "user.change".to_owned(),
        resource_type: "user".to_owned(),
        resource_id: number.to_string(),
        new: Some(serde_json::json!({ "role": "viewer" })),
        address: Some([192, 0, 2, 1].into()),
        ..AuditEntry::default()
    }
}

fn push(rows: &mut Vec<AuditRecord>, chain: &mut ChainState, entry: &AuditEntry) {
    let at = Timestamp::from_millis(1_700_000_000_000 + i64::try_from(rows.len()).unwrap());
    let row = AuditRecord::behind(chain, entry, at);
    *chain = row.chained(chain);
    rows.push(row);
}

fn walked(rows: &[AuditRecord], chain: Option<ChainState>, known: Option<&AuditHead>) -> Verified {
    let mut walk = ChainWalk::new(chain, known);
    let broken = rows.iter().find_map(|row| walk.step(row).err());
    walk.end(broken)
}

fn break_of(rows: &[AuditRecord], chain: &ChainState) -> Option<(u64, Tampering)> {
    walked(rows, Some(*chain), None).broken.map(|broken| (broken.id.0, broken.what))
}

#[test]
fn a_trail_as_it_was_recorded_is_whole() {
    for length in 0..5 {
        let (rows, chain) = trail(length);
        let verified = walked(&rows, (length > 0).then_some(chain), None);
        assert_eq!((verified.entries, verified.broken), (length, None));
        assert_eq!(verified.head, (length > 0).then_some(chain.head));
    }
}

#[test]
fn whichever_entry_is_removed_is_named() {
    let (rows, chain) = trail(6);
    for at in 0..6 {
        let mut rows = rows.clone();
        let gone = rows.remove(at);
        assert_eq!(break_of(&rows, &chain), Some((gone.id.0, Tampering::Removed)));
    }
    assert_eq!(break_of(&[], &chain), Some((1, Tampering::Removed)));
    assert_eq!(walked(&rows, None, None).broken.map(|broken| broken.what), Some(Tampering::Inserted));
}

#[test]
fn whichever_field_is_altered_its_entry_is_named() {
    let (rows, chain) = trail(6);
    type Change = fn(&mut AuditRecord);
    let changes: [Change; 9] = [
        |row| row.at = Timestamp::from_millis(0),
        |row| row.actor = Some("somebody".to_owned()),
        |row| row.actor = None,
        |row| row.action.push('x'),
        |row| row.resource_type.push('x'),
        |row| row.resource_id.clear(),
        |row| row.details = Some("{}".to_owned()),
        |row| row.address = None,
        |row| row.hash = Some(AuditHash::GENESIS),
    ];
    for at in 0..6 {
        for change in changes {
            let mut rows = rows.clone();
            change(&mut rows[at]);
            assert_eq!(break_of(&rows, &chain), Some((rows[at].id.0, Tampering::Altered)));
        }
        let mut rows = rows.clone();
        rows[at].action.push('x');
        rows[at].hash = Some(rows[at].computed(rows[at].previous.unwrap()));
        let named = break_of(&rows, &chain);
        assert_eq!(named, Some((rows[at].id.0, Tampering::Altered)), "hashed anew");
    }
}

#[test]
fn an_entry_of_somebody_else_is_named() {
    let (rows, chain) = trail(4);
    let bare = |id| AuditRecord { id: AuditId(id), previous: None, hash: None, ..rows[0].clone() };
    for (at, id) in [(1, 2), (4, 5), (4, 99)] {
        let mut rows = rows.clone();
        rows.insert(at, bare(id));
        assert_eq!(break_of(&rows, &chain), Some((id, Tampering::Inserted)));
    }
    let mut behind = rows.clone();
    let mut forged = chain;
    push(&mut behind, &mut forged, &entry(5));
    assert_eq!(break_of(&behind, &chain), Some((5, Tampering::Inserted)));
    let mut twice = rows.clone();
    twice.insert(2, rows[1].clone());
    assert_eq!(break_of(&twice, &chain), Some((2, Tampering::Inserted)));
}

#[test]
fn rows_from_before_the_chain_are_no_break() {
    let mut chain = ChainState::new(AuditId(7));
    let (old, _) = trail(1);
    let mut rows =
        vec![AuditRecord { id: AuditId(7), actor: None, previous: None, hash: None, ..old[0].clone() }];
    assert_eq!(walked(&rows, None, None).broken, None);
    push(&mut rows, &mut chain, &entry(8));
    assert_eq!(
        walked(&rows, Some(chain), None),
        Verified { entries: 1, head: Some(chain.head), broken: None }
    );
}

#[test]
fn a_pruned_beginning_is_proven_by_the_entry_that_says_so() {
    let (mut rows, mut chain) = trail(6);
    let before = (rows.clone(), chain);
    let pruning = AuditEntry::pruned(AuditId(4), rows[3].hash, Timestamp::from_millis(0));
    push(&mut rows, &mut chain, &pruning);
    chain.pruned = AuditId(4);
    for from in 0..=4 {
        assert_eq!(break_of(&rows[from..], &chain), None, "{from} are gone");
    }
    assert_eq!(break_of(&rows[5..], &chain), Some((5, Tampering::Removed)));
    let (rows, chain) = before;
    let claimed = ChainState { pruned: AuditId(4), ..chain };
    assert_eq!(break_of(&rows[4..], &claimed), Some((4, Tampering::Removed)), "no entry says so");
}

#[test]
fn a_trail_that_was_written_anew_does_not_go_through_a_head_kept_elsewhere() {
    let (rows, chain) = trail(3);
    let kept = chain.head;
    let (mut again, mut other) = (Vec::new(), ChainState::new(AuditId::FIRST));
    for number in [1, 7, 3, 4] {
        push(&mut again, &mut other, &entry(number));
    }
    assert_eq!(walked(&again, Some(other), None).broken, None);
    let broken = AuditBreak { id: AuditId(3), what: Tampering::Altered };
    assert_eq!(walked(&again, Some(other), Some(&kept)).broken, Some(broken));
    assert_eq!(walked(&rows, Some(chain), Some(&kept)).broken, None);
    let (short, shorter) = trail(2);
    let removed = AuditBreak { id: AuditId(3), what: Tampering::Removed };
    assert_eq!(walked(&short, Some(shorter), Some(&kept)).broken, Some(removed));
}

#[test]
fn no_entry_is_earlier_than_the_one_before_and_texts_fit() {
    let (_, chain) = trail(2);
    let odd = AuditEntry { actor: "a\0b".to_owned(), resource_id: "ü".repeat(400), ..entry(3) };
    let row = AuditRecord::behind(&chain, &odd, Timestamp::from_millis(0));
    assert_eq!((row.at, row.actor.as_deref()), (chain.at, Some("a\u{fffd}b")));
    assert_eq!(row.resource_id.chars().count(), 191);
}
