//! What was asked and answered, and whether some order explains it.
//!
//! Each register is judged alone: linearizability is local (Herlihy and Wing 1990, theorem 1). The search is the one of
//! Wing and Gong with Lowe's configurations: after each answer, every state in which the calls so far can have left the
//! register is kept; when none is left, no order explains the answer.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a call did to one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It was asked to hold this value.
    Write(u64),
    /// It was found to hold this value.
    Read(u64),
    /// It was told that its value is not needed: from then on it may hold anything.
    Trim,
}

/// A call on one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) begun: u64,
    /// `None` when no answer came, or one of failure: it may have happened, at any time since, or not.
    pub(crate) ended: Option<u64>,
    pub(crate) effect: Effect,
}

/// A clock that gives each moment a number of its own.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What a register may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    Value(u64),
    Anything,
}

/// The calls under way that took effect already, and what the register holds then.
type State = (u128, Content);

/// The calls on many registers, all of which hold 0 in the beginning.
#[derive(Debug, Default)]
pub(crate) struct History(BTreeMap<u64, Vec<Call>>);

impl History {
    pub(crate) fn add(&mut self, register: u64, call: Call) {
        self.0.entry(register).or_default().push(call);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (register, calls) in other.0 {
            self.0.entry(register).or_default().extend(calls);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The first register whose answers no order explains, and the read that shows it.
    pub(crate) fn violation(&self) -> Option<(u64, Call)> {
        self.0.iter().find_map(|(register, calls)| Some((*register, unexplained(calls)?)))
    }
}

/// The first call whose answer no order explains.
fn unexplained(calls: &[Call]) -> Option<Call> {
    // Every moment has its own number, so there is one order of events.
    let mut events = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        events.insert(call.begun, index);
        events.extend(call.ended.map(|ended| (ended, index)));
    }
    let mut states = HashSet::from([(0, Content::Value(0))]);
    // Each call under way has a bit while it is.
    let mut under_way: Vec<Option<usize>> = Vec::new();
    for (moment, index) in events {
        let call = &calls[index];
        if call.begun == moment {
            match under_way.iter_mut().find(|place| place.is_none()) {
                Some(free) => *free = Some(index),
                None => under_way.push(Some(index)),
            }
            continue;
        }
        let place = under_way.iter().position(|found| *found == Some(index)).expect("it began before");
        let bit = 1_u128.checked_shl(place.try_into().unwrap()).expect("fewer calls at once than bits");
        states = reachable(states, &under_way, calls);
        states.retain(|(done, _)| done & bit != 0);
        states = states.into_iter().map(|(done, content)| (done & !bit, content)).collect();
        under_way[place] = None;
        if states.is_empty() {
            return Some(*call);
        }
    }
    None
}

/// All states that calls under way can lead to, in any order.
fn reachable(states: HashSet<State>, under_way: &[Option<usize>], calls: &[Call]) -> HashSet<State> {
    let mut rest: Vec<_> = states.iter().copied().collect();
    let mut found = states;
    while let Some((done, content)) = rest.pop() {
        for (place, call) in under_way.iter().enumerate() {
            let bit = 1_u128 << place;
            let Some(call) = call.filter(|_| done & bit == 0) else { continue };
            let after = match (calls[call].effect, content) {
                (Effect::Write(value), _) => Content::Value(value),
                (Effect::Trim, _) => Content::Anything,
                (Effect::Read(value), Content::Value(held)) if held != value => continue,
                (Effect::Read(_), held) => held,
            };
            if found.insert((done | bit, after)) {
                rest.push((done | bit, after));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Call, Effect, Effect::*, History};

    /// Calls as (begun, ended, effect) on one register.
    fn violation(calls: &[(u64, u64, Effect)]) -> Option<u64> {
        let mut history = History::default();
        for &(begun, ended, effect) in calls {
            history.add(3, Call { begun, ended: (ended != u64::MAX).then_some(ended), effect });
        }
        history.violation().map(|(register, call)| {
            assert_eq!(register, 3);
            call.begun
        })
    }

    const NEVER: u64 = u64::MAX;

    #[test]
    fn histories_that_some_order_explains_are_accepted() {
        for calls in [
            &[(0, 1, Read(0)), (2, 3, Write(7)), (4, 5, Read(7))][..],
            // A write under way is seen or not, and once seen it stays.
            &[(0, 9, Write(7)), (1, 2, Read(0)), (3, 4, Read(7)), (5, 6, Read(7))],
            // Two writes at once, in either order.
            &[(0, 5, Write(7)), (1, 6, Write(8)), (7, 8, Read(7)), (9, 10, Read(7))],
            &[(0, 5, Write(7)), (1, 6, Write(8)), (7, 8, Read(8)), (9, 10, Read(8))],
            // A call without an answer happens late, early or never.
            &[(0, NEVER, Write(7)), (1, 2, Write(8)), (3, 4, Read(8)), (5, 6, Read(7))],
            &[(0, NEVER, Write(7)), (1, 2, Write(8)), (3, 4, Read(8))],
            // A trim leaves anything, until the next write.
            &[
                (0, 1, Write(7)),
                (2, 3, Trim),
                (4, 5, Read(7)),
                (6, 7, Read(0)),
                (8, 9, Write(8)),
                (10, 11, Read(8)),
            ],
            // Zero is written twice, so it is no unique value.
            &[
                (0, 1, Write(7)),
                (2, 5, Write(0)),
                (3, 4, Read(0)),
                (6, 7, Write(8)),
                (8, 9, Write(0)),
                (10, 11, Read(0)),
            ],
        ] {
            assert_eq!(violation(calls), None, "{calls:?}");
        }
    }

    #[test]
    fn histories_that_no_order_explains_are_found_out() {
        for (calls, read) in [
            // Never written, lost, stale.
            (&[(0, 1, Read(7))][..], 0),
            (&[(0, 1, Write(7)), (2, 3, Read(0))], 2),
            (&[(0, 1, Write(7)), (2, 3, Write(8)), (4, 5, Read(7))], 4),
            // Seen before it began.
            (&[(0, 1, Read(7)), (2, 3, Write(7))], 0),
            // Seen, then not seen, then seen again.
            (&[(0, 9, Write(7)), (1, 2, Read(7)), (3, 4, Read(0))], 3),
            (&[(0, 5, Write(7)), (1, 6, Write(8)), (7, 8, Read(7)), (9, 10, Read(8))], 9),
            (&[(0, 20, Write(7)), (1, 2, Write(8)), (3, 4, Read(7)), (5, 6, Read(8))], 5),
            // A zero that came back.
            (&[(0, 1, Write(0)), (2, 3, Write(7)), (4, 5, Read(0))], 4),
            // A write behind a trim counts.
            (&[(0, 1, Trim), (2, 3, Write(7)), (4, 5, Read(0))], 4),
        ] {
            assert_eq!(violation(calls), Some(read), "{calls:?}");
        }
    }
}
