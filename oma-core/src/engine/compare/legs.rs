//! What a comparison found so far, told while it goes on.

use async_trait::async_trait;

use super::Compared;
use crate::traits::ReadManner;
use crate::{Extent, ExtentSet, Result};

/// What was found from where the leg before it ended.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Leg {
    /// All of the scope that lies within is compared.
    pub(in crate::engine) span: Extent,
    /// Every extent of it that differs.
    pub(in crate::engine) differences: ExtentSet,
    /// The first of them where both sides promise zeroes, and the source holds data.
    pub(in crate::engine) broken: Option<Extent>,
    /// How the target was read.
    pub(in crate::engine) manner: ReadManner,
}

/// Hears what is found, in the order of the disk.
#[async_trait]
pub(in crate::engine) trait Listener: Send {
    /// A leg ends as soon as it spans so many bytes of the disk.
    fn longest(&self) -> u64;

    /// A leg is compared, as are all before it. What fails ends the comparison.
    async fn compared(&mut self, leg: &Leg) -> Result<()>;
}

/// Adds parts up to legs, and these to all that was found.
pub(super) struct Legs<'l> {
    longest: u64,
    listener: Option<&'l mut dyn Listener>,
    leg: Option<Leg>,
    pub(super) differences: ExtentSet,
    pub(super) broken: Option<Extent>,
    pub(super) manner: ReadManner,
}

impl<'l> Legs<'l> {
    pub(super) fn new(listener: Option<&'l mut dyn Listener>) -> Self {
        Self {
            longest: listener.as_ref().map_or(u64::MAX, |listener| listener.longest()),
            listener,
            leg: None,
            differences: ExtentSet::new(),
            broken: None,
            manner: ReadManner::PastCache,
        }
    }

    /// Adds the next part.
    pub(super) async fn add(&mut self, part: &Compared) -> Result<()> {
        let leg = self.leg.get_or_insert_with(|| Leg {
            span: part.extent,
            differences: ExtentSet::new(),
            broken: None,
            manner: ReadManner::PastCache,
        });
        leg.span = Extent::between(leg.span.offset(), part.extent.end()).unwrap_or(part.extent);
        leg.differences.extend(part.differences.iter().copied());
        leg.broken = leg.broken.or(part.broken);
        leg.manner = leg.manner.min(part.manner);
        if leg.span.length() >= self.longest { self.end_leg().await } else { Ok(()) }
    }

    /// Ends the leg that was begun, if one was.
    pub(super) async fn end_leg(&mut self) -> Result<()> {
        let Some(leg) = self.leg.take() else { return Ok(()) };
        self.differences.extend(leg.differences.iter());
        self.broken = self.broken.or(leg.broken);
        self.manner = self.manner.min(leg.manner);
        match &mut self.listener {
            Some(listener) => listener.compared(&leg).await,
            None => Ok(()),
        }
    }
}
