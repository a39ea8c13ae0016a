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
    /// This part of a list in the order of ids: what was removed meanwhile is passed over.
    pub(super) async fn by_id<T: Send>(
        &self,
        all: BoxStream<'_, Result<T>>,
        id: impl Fn(&T) -> String + Copy + Send + Sync,
    ) -> Result<(Vec<T>, Option<String>)> {
        let is_behind = |entry: &T| self.after.as_deref().is_none_or(|after| id(entry).as_str() > after);
        self.cut(all.try_filter(|entry| ready(is_behind(entry))).boxed(), id).await
    }

    /// This part of a list of which nothing is removed.
    pub(super) async fn behind<T: Send>(
        &self,
        all: BoxStream<'_, Result<T>>,
        id: impl Fn(&T) -> String + Copy + Send + Sync,
    ) -> Result<(Vec<T>, Option<String>)> {
        let mut passed = self.after.is_none();
        let from_there = all.try_filter(move |entry| {
            let is_wanted = passed;
            passed |= self.after.as_deref() == Some(id(entry).as_str());
            ready(is_wanted)
        });
        self.cut(from_there.boxed(), id).await
    }

    async fn cut<T>(
        &self,
        list: BoxStream<'_, Result<T>>,
        id: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Option<String>)> {
        let limit = usize::from(self.limit.unwrap_or(USUAL).clamp(1, MOST));
        let mut items: Vec<T> = list.take(limit + 1).try_collect().await?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(id);
        Ok((items, next))
    }
}

/// A page of rows that were made of such a part.
pub(super) const fn page<T>(items: Vec<T>, next: Option<String>) -> Page<T> {
    Page { items, next }
}
