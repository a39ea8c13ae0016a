//! Lists are answered page by page.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use oma_core::record::Order;
use oma_core::{Error, ErrorKind, IdError, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;

use crate::Page;

/// As many as are answered unasked.
const USUAL: u16 = 100;
/// No page is longer.
const MOST: u16 = 1000;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct Part {
    /// How many at most: 100 if it is not said, never more than 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// `next` of the page before.
    after: Option<String>,
}

impl Part {
    /// The last one of the page before: the store reads on from there.
    pub(in crate::server) fn after<K: FromStr<Err = IdError>>(&self) -> Result<Option<K>> {
        self.after.as_deref().map(|after| after.parse().map_err(|_| never_answered(&after))).transpose()
    }

    /// The same of a list whose items are numbered.
    pub(in crate::server) fn after_number<N: FromStr>(&self) -> Result<Option<N>> {
        self.after.as_deref().map(|after| after.parse().map_err(|_| never_answered(&after))).transpose()
    }

    /// The same of a list that goes either way.
    pub(in crate::server) fn after_in<K: FromStr>(&self, sorted: &Sorted) -> Result<Option<K>> {
        let Some(after) = self.after.as_deref() else { return Ok(None) };
        sorted.place(after)?.parse().map(Some).map_err(|_| never_answered(&after))
    }

    /// As many as have to be read to know whether there are more.
    pub(in crate::server) fn enough(&self) -> u32 {
        u32::from(self.limit.unwrap_or(USUAL).clamp(1, MOST)) + 1
    }

    /// This part of what was read of a list, which is [`enough`](Self::enough).
    pub(in crate::server) fn cut<T>(
        &self,
        mut items: Vec<T>,
        id: impl Fn(&T) -> String,
    ) -> (Vec<T>, Option<String>) {
        let limit = usize::from(self.limit.unwrap_or(USUAL).clamp(1, MOST));
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(id);
        (items, next)
    }

    /// This part of a list that begins behind [`Part::after`].
    pub(in crate::server) async fn of<T>(
        &self,
        list: BoxStream<'_, Result<T>>,
        id: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Option<String>)> {
        let limit = usize::from(self.limit.unwrap_or(USUAL).clamp(1, MOST));
        Ok(self.cut(list.take(limit + 1).try_collect().await?, id))
    }
}

/// What a `next` of a list begins with that goes from the oldest on. No id has a slash in it.
const FROM_OLDEST: &str = "oldest/";

/// Which way a list goes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct Sorted {
    /// `newest` first, if it is not said, or `oldest` first. A `next` is good in the order alone that it was answered in.
    #[serde(default)]
    #[param(value_type = Option<String>, pattern = "^(newest|oldest)$")]
    pub(in crate::server) order: Order,
}

impl Sorted {
    /// The `next` of a page that ends with this one.
    pub(in crate::server) fn next(&self, id: &impl fmt::Display) -> String {
        match self.order {
            Order::Newest => id.to_string(),
            Order::Oldest => format!("{FROM_OLDEST}{id}"),
        }
    }

    /// What the page ended with whose `next` this is. One of the other order is refused: what is behind it there was told before, and
    /// what was not told yet would not be.
    pub(in crate::server) fn place<'a>(&self, next: &'a str) -> Result<&'a str> {
        match (self.order, next.strip_prefix(FROM_OLDEST)) {
            (Order::Newest, None) => Ok(next),
            (Order::Oldest, Some(id)) => Ok(id),
            (order, _) => Err(Error::new(ErrorKind::Invalid, "read the list behind", next).because(format!(
                "no page of the order `{order}` ended there; give the `next` of the page before as `after`, in the `order` of that page, or leave it out"
            ))),
        }
    }
}

/// One value, or several with commas between them.
#[derive(Debug)]
pub(in crate::server) struct Several<T>(pub(in crate::server) BTreeSet<T>);

impl<'de, T> Deserialize<'de> for Several<T>
where
    T: FromStr<Err: fmt::Display> + Ord,
{
    fn deserialize<D: Deserializer<'de>>(text: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        let values: std::result::Result<_, _> = text.split(',').map(str::parse).collect();
        values.map(Self).map_err(D::Error::custom)
    }
}

impl<T: Ord> Several<T> {
    /// The values that were given; none when nothing was.
    pub(in crate::server) fn of(given: Option<Self>) -> BTreeSet<T> {
        given.map_or_else(BTreeSet::new, |Self(values)| values)
    }
}

/// What was given as `after` was no `next` of this list.
pub(in crate::server) fn never_answered(after: &impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "read the list behind", after)
        .because("no page of it ended there; give the `next` of the page before as `after`, or leave it out")
}

/// A page of rows that were made of such a part.
pub(in crate::server) const fn page<T>(items: Vec<T>, next: Option<String>) -> Page<T> {
    Page { items, next }
}
