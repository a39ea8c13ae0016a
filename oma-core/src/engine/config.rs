use std::time::Duration;

use super::points::KeepPoints;
use crate::record::SampleSize;
use crate::traits::Provisioning;
use crate::{ByteSize, Error, ErrorKind, Result, VmPath};

/// What is to be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicateRequest {
    /// The VM, as its source names it.
    pub vm: VmPath,
    /// Whether a VM may get this path that had another one, or that another VM has.
    pub path: PathPolicy,
    /// How much is proven before the epoch is committed.
    pub verify: VerifyLevel,
    /// How far the source is believed when it says what changed.
    pub trust: TrustPolicy,
    /// When the space of new volumes is allocated.
    pub provisioning: Provisioning,
    /// Makes a recovery point of the epoch, and says which ones are kept; `None` makes none and leaves those there are.
    pub points: Option<KeepPoints>,
    /// Who copies.
    pub mode: CopyMode,
}

impl ReplicateRequest {
    /// Replicates a VM to thin volumes, without verification and recovery point.
    #[must_use]
    pub fn new(vm: VmPath) -> Self {
        let (verify, trust) = (VerifyLevel::None, TrustPolicy::Trust);
        let (path, provisioning) = (PathPolicy::Keep, Provisioning::Thin);
        Self { vm, path, verify, trust, provisioning, points: None, mode: CopyMode::Pull }
    }

    /// Refuses what only who reads the source can do, where that is an agent.
    pub(super) fn check(&self) -> Result<()> {
        let refused = |reason| Err(Error::new(ErrorKind::Invalid, "push", &self.vm).because(reason));
        match (self.mode, self.verify, self.trust) {
            (CopyMode::Pull, ..) => Ok(()),
            (CopyMode::Push, level, _) if level != VerifyLevel::None => refused(
                "its source is not read here, so nothing is compared with it; have the agent verify before it reports",
            ),
            (CopyMode::Push, _, TrustPolicy::SpotCheck { .. }) => refused(
                "its source is not read here, so nothing is compared with it; trust its changes or compare all",
            ),
            (CopyMode::Push, ..) => Ok(()),
        }
    }
}

/// Who brings the blocks of the source to the volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// The engine reads the source and writes the volumes.
    #[default]
    Pull,
    /// An agent writes them into exports that it is given, and reports: see [`Pushes`](super::Pushes). The source only describes.
    Push,
}

/// Whose word the path of a VM is.
///
/// A VM is who its identity says. Where an operator names the path, a machine that was copied with its UUID or a slip of the pen
/// would rename another VM and take its volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// An operator's, the same in every run: a VM that is known by another path is refused, and a path that another VM has.
    #[default]
    Keep,
    /// An operator's who has renamed the VM: it gets the path, unless another VM has that.
    Rename,
    /// The source's: it is recorded, whoever had the path before. By a path of several VMs the one is found whose record was made
    /// last.
    Follow,
}

/// How far a source is believed when it says what changed since the last epoch.
///
/// Whenever there is no change id to go by, hashes are compared in place of copying everything: whatever the volume holds,
/// only what differs is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustPolicy {
    /// What it does not name is not looked at.
    #[default]
    Trust,
    /// So many of a thousand leaves are compared of what it says is unchanged, other ones in each run. When one differs, all
    /// is compared.
    SpotCheck {
        /// Rounded up.
        permille: u16,
    },
    /// It is not asked: all is compared.
    AlwaysCompare,
}

/// How much is compared between source and target after the copy (L14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyLevel {
    /// Nothing.
    #[default]
    None,
    /// Leaves chosen at random. It proves nothing of the others.
    Sample(SampleSize),
    /// What this epoch copied.
    Changed,
    /// Whole disks.
    Full,
}

/// How the engine works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicateConfig {
    /// At most so much data is read at once; a block of the target's preferred size, where that is larger.
    pub piece: ByteSize,
    /// Changed extents with at most this much between them are read at once; what lies between is not written.
    pub merge_gap: ByteSize,
    /// At most so many pieces are under way at once, per disk; fewer where more would only wait.
    pub in_flight: usize,
    /// Data on its way takes at most this much memory, over all disks and jobs of a [`Replicator`](super::Replicator).
    pub memory: ByteSize,
    /// Whether the source is believed when it says that an extent reads as zero (L10). If not, all is read.
    pub trust_zeroes: bool,
    /// Whether source and target may share blocks where both are files of one file system that can (reflink): nothing is read
    /// then. A block that the medium loses is lost to both.
    pub share_blocks: bool,
    /// Runs of zeroes of at least this size, and aligned to it, are not written as data.
    pub zero_granule: ByteSize,
    /// At most so much data is copied twice after a crash, per disk.
    pub journal_step: ByteSize,
    /// The journal is written at least this often while data moves.
    pub journal_interval: Duration,
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How long clients of an export may take to finish, and the backend to answer, once the run is stopped or at its end.
    pub drain: Duration,
    /// How long the source may take to read an extent or to tell its block status; then it counts as `Unavailable`.
    pub read_limit: Duration,
    /// How long the source may take for any other answer, as a point in time.
    pub answer_limit: Duration,
    /// How long an agent that pushes may give no sign of life; then the attempt has failed.
    pub agent_patience: Duration,
    /// How often and how patiently a call is tried again.
    pub retry: RetryConfig,
    /// So many lines of the log of a job are kept, the last ones.
    pub log_lines: u64,
}

impl ReplicateConfig {
    /// The same; a source that broke a promise of zeroes is not believed (L10).
    pub(super) const fn but_for_zeroes(self, broken: bool) -> Self {
        Self { trust_zeroes: self.trust_zeroes && !broken, ..self }
    }
}

impl Default for ReplicateConfig {
    fn default() -> Self {
        Self {
            piece: ByteSize::mib(1),
            merge_gap: ByteSize::kib(32),
            in_flight: 64,
            memory: ByteSize::mib(128),
            trust_zeroes: true,
            share_blocks: true,
            zero_granule: ByteSize::kib(64),
            journal_step: ByteSize::mib(256),
            journal_interval: Duration::from_secs(2),
            lease: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            read_limit: Duration::from_secs(120),
            answer_limit: Duration::from_secs(900),
            agent_patience: Duration::from_secs(900),
            retry: RetryConfig::default(),
            log_lines: 10_000,
        }
    }
}

/// How often and how patiently a call that failed with [`Retry::Later`](crate::Retry::Later) is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Calls in all, at least one.
    pub attempts: u32,
    /// Pause after the first; doubled after each.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_millis(100), longest_pause: Duration::from_secs(3) }
    }
}
