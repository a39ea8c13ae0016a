//! Streams over tables: page by page, so that a slow reader holds no transaction open.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use oma_core::Error;
use oma_core::record::Order;

/// Rows of one page.
pub(crate) const PAGE: i64 = 200;

/// The items of all pages behind a key; `next` answers the page behind one, or the first.
pub(crate) fn pages<'a, T, K, Fut>(
    after: Option<K>,
    key: fn(&T) -> K,
    next: impl Fn(Option<K>) -> Fut + Send + 'a,
) -> BoxStream<'a, oma_core::Result<T>>
where
    T: Send + 'a,
    K: Send + 'a,
    Fut: Future<Output = oma_core::Result<Vec<T>>> + Send + 'a,
{
    let start = (next, VecDeque::new(), after, false);
    stream::try_unfold(start, move |(next, mut page, mut last, mut done)| async move {
        if page.is_empty() && !done {
            page = VecDeque::from(next(last.take()).await?);
            done = i64::try_from(page.len()).is_ok_and(|rows| rows < PAGE);
        }
        let Some(item) = page.pop_front() else {
            return Ok::<_, Error>(None);
        };
        if page.is_empty() && !done {
            last = Some(key(&item));
        }
        Ok(Some((item, (next, page, last, done))))
    })
    .boxed()
}

/// One page of what was read as a page of each of several lists: what comes first in any of them, and nothing twice.
pub(crate) fn merged<T, K: Ord>(mut found: Vec<T>, order: Order, key: impl Fn(&T) -> K) -> Vec<T> {
    found.sort_by(|one, other| order.compare(&key(one), &key(other)));
    found.dedup_by(|one, other| key(one) == key(other));
    found.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    found
}
