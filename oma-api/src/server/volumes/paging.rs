//! Lists are answered page by page.

use std::future::ready;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use oma_core::Result;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::Page;

/// As many as are answered unasked.
const USUAL: u16 = 100;
/// No page is longer.
const MOST: u16 = 1000;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// How many at most: 100 if it is not said, never more than 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// `next` of the page before.
    after: Option<String>,
}

impl Part {
    /// This part of a list, whose entries are known by the name that `name` makes. A list whose `after` is gone is at its end.
    pub(super) async fn of<T>(
        &self,
        all: BoxStream<'_, Result<T>>,
        name: impl Fn(&T) -> String + Copy + Send,
    ) -> Result<(Vec<T>, Option<String>)>
    where
        T: Send,
    {
        let limit = usize::from(self.limit.unwrap_or(USUAL).clamp(1, MOST));
        let mut passed = self.after.is_none();
        let from_there = all.try_filter(move |entry| {
            let is_wanted = passed;
            passed |= self.after.as_deref() == Some(name(entry).as_str());
            ready(is_wanted)
        });
        let mut items: Vec<T> = from_there.take(limit + 1).try_collect().await?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(name);
        Ok((items, next))
    }
}

/// A page of rows that were made of such a part.
pub(super) const fn page<T>(items: Vec<T>, next: Option<String>) -> Page<T> {
    Page { items, next }
}
