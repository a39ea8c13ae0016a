//! What is measured, and in which ways.

use std::fmt;

/// A kind of request and how many of them are under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) action: Action,
    pub(crate) depth: usize,
}

/// Requests of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reads of what is in the page cache.
    Hot,
    /// Reads of what is not.
    Cold,
    /// Writes that are on the disk when they are done (FUA).
    Durable,
}

/// Who waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The device as it is, with so many blocking threads.
    Pool(usize),
    /// io_uring; a durable write is one request, with `RWF_DSYNC`.
    Ring,
    /// The same, but each request is handed over alone and nothing is asked of the thread: what a device can do by itself.
    Alone,
    /// io_uring; a durable write is two requests, the second a linked `fdatasync`.
    Linked,
}

impl Action {
    /// The ways to do it; the first one is what the others are held against.
    pub(crate) const fn ways(self) -> &'static [Way] {
        match self {
            Self::Hot | Self::Cold => &[Way::Pool(16), Way::Ring, Way::Alone, Way::Pool(64)],
            Self::Durable => &[Way::Pool(16), Way::Ring, Way::Linked, Way::Pool(64)],
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(threads) => write!(f, "{threads} threads"),
            Self::Ring => f.write_str("io_uring"),
            Self::Alone => f.write_str("io_uring, one by one"),
            Self::Linked => f.write_str("io_uring, write and fdatasync linked"),
        }
    }
}

const fn row(name: &'static str, title: &'static str, action: Action, depth: usize) -> Row {
    Row { name, title, action, depth }
}

/// All rows.
pub(crate) const ALL: &[Row] = &[
    row("hot-read-16", "4 KiB random read out of the page cache, depth 16", Action::Hot, 16),
    row("cold-read-1", "4 KiB random read of a cold file, depth 1", Action::Cold, 1),
    row("cold-read-16", "4 KiB random read of a cold file, depth 16", Action::Cold, 16),
    row("cold-read-64", "4 KiB random read of a cold file, depth 64", Action::Cold, 64),
    row("durable-write-1", "4 KiB random durable write, depth 1", Action::Durable, 1),
    row("durable-write-16", "4 KiB random durable write, depth 16", Action::Durable, 16),
];
