use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use oma_core::{Extent, ExtentSet, Result};

use super::{ContextStatus, MetaContext};
use crate::protocol::{OMA_DIRTY, OMA_EPOCH, OMA_STATE_DIRTY, OMA_STATE_DURABLE};

/// One answer tells no more: who wants the rest asks again.
const MAX_TOLD: usize = 8192;

/// A metadata context that somebody feeds: some extents are marked, all others are not.
///
/// The epoch's context tells a remote agent from where to go on: whoever writes marks what is durable.
///
/// ```
/// use oma_core::{Extent, ExtentSet};
/// use oma_nbd::MarkedExtents;
///
/// let durable = MarkedExtents::epoch();
/// durable.mark(Extent::new(0, 4096)?); // after the flush that covers it
/// assert_eq!(durable.extents().bytes().bytes(), 4096);
/// durable.replace(ExtentSet::new()); // the next epoch begins
/// # Ok::<(), oma_core::ExtentError>(())
/// ```
#[derive(Debug)]
pub struct MarkedExtents {
    name: String,
    flag: u32,
    marked: Mutex<ExtentSet>,
}

impl MarkedExtents {
    /// A context of any name whose marked extents bear a flag. Nothing is marked yet.
    #[must_use]
    pub fn new(name: impl Into<String>, flag: u32) -> Self {
        Self { name: name.into(), flag, marked: Mutex::default() }
    }

    /// `x-oma:epoch`: which extents are durable in the running epoch.
    #[must_use]
    pub fn epoch() -> Arc<Self> {
        Arc::new(Self::new(OMA_EPOCH, OMA_STATE_DURABLE))
    }

    /// `x-oma:dirty`: which extents have changed since the last epoch.
    #[must_use]
    pub fn dirty() -> Arc<Self> {
        Arc::new(Self::new(OMA_DIRTY, OMA_STATE_DIRTY))
    }

    /// Marks an extent.
    pub fn mark(&self, extent: Extent) {
        self.set().insert(extent);
    }

    /// What is marked.
    #[must_use]
    pub fn extents(&self) -> ExtentSet {
        self.set().clone()
    }

    /// Marks exactly these extents and gives back what was marked before.
    pub fn replace(&self, extents: ExtentSet) -> ExtentSet {
        std::mem::replace(&mut *self.set(), extents)
    }

    fn set(&self) -> MutexGuard<'_, ExtentSet> {
        // An insert that panicked half-way would lose a mark; better to stop than to answer "not marked".
        self.marked.lock().expect("nothing panics while the marked extents are held")
    }
}

#[async_trait]
impl MetaContext for MarkedExtents {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_computed(&self) -> bool {
        false
    }

    async fn status(&self, extent: Extent) -> Result<Vec<ContextStatus>> {
        let flags = |marked| if marked { self.flag.into() } else { 0 };
        let marked = self.set();
        let runs = marked.runs(extent).take(MAX_TOLD);
        Ok(runs.map(|(extent, marked)| ContextStatus { extent, flags: flags(marked) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent::new(offset, length).unwrap()
    }

    async fn told(context: &MarkedExtents, asked: Extent) -> Vec<(u64, u64, u64)> {
        let found = context.status(asked).await.unwrap();
        found.iter().map(|s| (s.extent.offset(), s.extent.length(), s.flags)).collect()
    }

    #[tokio::test]
    async fn marks_are_told_within_what_was_asked_and_replaced_at_once() {
        let context = MarkedExtents::epoch();
        assert_eq!(context.name(), "x-oma:epoch");
        assert_eq!(told(&context, extent(0, 1 << 40)).await, [(0, 1 << 40, 0)]);
        context.mark(extent(4096, 4096));
        context.mark(extent(1 << 33, 512));
        assert_eq!(told(&context, extent(5000, 1000)).await, [(5000, 1000, 1)]);
        let all = told(&context, extent(0, (1 << 33) + 512)).await;
        assert_eq!(all, [(0, 4096, 0), (4096, 4096, 1), (8192, (1 << 33) - 8192, 0), (1 << 33, 512, 1)]);
        assert_eq!(context.replace(ExtentSet::new()).bytes().bytes(), 4608);
        assert!(context.extents().is_empty());
    }

    #[tokio::test]
    async fn an_answer_is_bounded_however_shattered_the_marks_are() {
        let context = MarkedExtents::dirty();
        context.replace((0..20_000).map(|n| extent(n * 1024, 512)).collect());
        let found = told(&context, extent(0, 1 << 30)).await;
        assert_eq!((found.len(), found[0], found[1]), (8192, (0, 512, 1), (512, 512, 0)));
    }
}
