//! The steps of a schema: which a database has, and which it lacks.

use std::time::{SystemTime, UNIX_EPOCH};

use oma_core::InstanceId;

use crate::db::{Row, Val, vals};
use crate::error::{Result, StoreError};

/// Where `oma_meta` keeps the id of the deployment.
pub(crate) const INSTANCE: &str = "instance_id";

/// One step, never changed once it was released: its text is a file of `migrations/`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) version: i64,
    name: &'static str,
    pub(crate) text: &'static str,
}

/// Which steps a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has nothing at all.
    Empty,
    /// All steps up to this one, and none later.
    At(i64),
}

/// Which schema a database has, and which this program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The version of the database; `None` for one without a table.
    pub found: Option<i64>,
    /// The version that this program needs, and makes when it opens the database for writing.
    pub needed: i64,
}

impl Schema {
    pub(crate) fn new(steps: &[Step], state: State) -> Self {
        let found = match state {
            State::Empty => None,
            State::At(version) => Some(version),
        };
        Self { found, needed: newest(steps) }
    }
}

impl Step {
    pub(crate) const fn new(version: i64, name: &'static str, text: &'static str) -> Self {
        Self { version, name, text }
    }

    /// The row that records it.
    pub(crate) fn values(&self) -> Result<Vec<Val>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        vals![self.version, self.name, self.checksum(), i64::try_from(since.as_millis()).unwrap_or(i64::MAX)]
    }

    fn checksum(&self) -> String {
        fingerprint(self.text)
    }
}

/// FNV-1a of a text, whatever its line ends: tells an accident, not an attacker.
pub(crate) fn fingerprint(text: &str) -> String {
    let bytes = text.bytes().filter(|byte| *byte != b'\r');
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The version that a program of these steps needs.
pub(crate) fn newest(steps: &[Step]) -> i64 {
    steps.last().map_or(0, |step| step.version)
}

/// The state that the rows of `oma_migrations` tell.
///
/// # Errors
/// A step that this program does not know, or that another build made.
pub(crate) fn state(steps: &[Step], rows: &[Row]) -> Result<State> {
    let mut at = 0;
    for row in rows {
        let fields = row.fields("oma_migrations", "version");
        at = fields.int("version")?;
        let known = newest(steps);
        let Some(step) = steps.iter().find(|step| step.version == at) else {
            return Err(StoreError::Newer { found: at, known });
        };
        if fields.text("checksum")? != step.checksum() {
            return Err(StoreError::OtherBuild { version: at, name: step.name.to_owned() });
        }
    }
    Ok(State::At(at))
}

/// That a database has all steps, to be read.
///
/// # Errors
/// It has none at all, or lacks some.
pub(crate) fn complete(steps: &[Step], state: State) -> Result<()> {
    let known = newest(steps);
    match state {
        State::Empty => Err(StoreError::NoDatabase),
        State::At(found) if found < known => Err(StoreError::Older { found, known }),
        State::At(_) => Ok(()),
    }
}

/// The steps that a database in this state lacks.
pub(crate) fn missing(steps: &[Step], state: State) -> impl Iterator<Item = &Step> {
    let at = match state {
        State::Empty => 0,
        State::At(version) => version,
    };
    steps.iter().filter(move |step| step.version > at)
}

/// The row of a new deployment's id.
pub(crate) fn instance() -> Result<Vec<Val>> {
    vals![INSTANCE, InstanceId::mint()]
}
