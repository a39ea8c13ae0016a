use std::cmp::Ordering;

use crate::state::labelled;

labelled! {
    /// Which way a list goes that is in the order in which its rows were recorded.
    #[derive(Default)]
    Order, "order" {
        /// The last one first.
        #[default]
        Newest = "newest",
        /// The first one first.
        Oldest = "oldest",
    }
}

impl Order {
    /// How two places of a list follow each other: `Less` is the one that comes first.
    #[must_use]
    pub fn compare<K: Ord>(self, one: &K, other: &K) -> Ordering {
        match self {
            Self::Newest => other.cmp(one),
            Self::Oldest => one.cmp(other),
        }
    }

    /// Whether a place comes later in the list than another one.
    #[must_use]
    pub fn is_behind<K: Ord>(self, place: &K, last: &K) -> bool {
        self.compare(place, last) == Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_its_label_and_sorts_by_it() {
        let mut places = [2, 3, 1];
        places.sort_by(|one, other| Order::Newest.compare(one, other));
        assert_eq!(places, [3, 2, 1]);
        places.sort_by(|one, other| Order::Oldest.compare(one, other));
        assert_eq!(places, [1, 2, 3]);
        assert!(Order::Newest.is_behind(&1, &2) && !Order::Newest.is_behind(&2, &2));
        assert!(Order::Oldest.is_behind(&2, &1) && !Order::Oldest.is_behind(&1, &2));
        assert_eq!(("newest".parse(), "oldest".parse()), (Ok(Order::default()), Ok(Order::Oldest)));
        assert!("".parse::<Order>().is_err());
    }
}
