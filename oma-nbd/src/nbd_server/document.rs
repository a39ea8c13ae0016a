//! The text of a configuration. What is not ours stays as it is, byte for byte.
//!
//! ```text
//!  [generic]                                 nbd-server's own, always the first section
//!  …
//!  # OMA begins: {"name":"disk",…}           ours: from here
//!  [disk]
//!  exportname = /var/lib/oma/exports/export-disk
//!  …
//!  # OMA ends: disk                          to here
//! ```

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use oma_core::ExportName;

use super::error::Failure;
use super::process::DeviceKey;
use super::record::{Record, check_name};

const BEGINS: &str = "# OMA begins: ";
const ENDS: &str = "# OMA ends: ";

/// A configuration that was read.
#[derive(Clone, Debug)]
pub(super) struct Document {
    path: PathBuf,
    text: String,
    ours: Vec<Block>,
    foreign: Vec<Section>,
}

#[derive(Clone, Debug)]
struct Block {
    record: Record,
    bytes: Range<usize>,
}

/// A section that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// What it serves, where it says so.
    pub(super) exportname: Option<PathBuf>,
}

impl Section {
    /// Whether it serves a device.
    pub(super) fn serves(&self, device: DeviceKey) -> bool {
        self.exportname.as_deref().is_some_and(|path| DeviceKey::of(path).is_ok_and(|found| found == device))
    }
}

/// Where the reader is.
enum Place {
    Foreign,
    /// In a block of ours: since which byte and line, with what record, and whether its section was seen.
    Ours {
        since: usize,
        line: usize,
        record: Record,
        headed: bool,
    },
}

impl Document {
    /// Reads a text.
    pub(super) fn parse(path: &Path, text: String) -> Result<Self, Failure> {
        let broken = |reason: &str| Failure::Broken { path: path.to_owned(), reason: reason.to_owned() };
        let (mut ours, mut foreign): (Vec<Block>, Vec<Section>) = (Vec::new(), Vec::new());
        let (mut place, mut at) = (Place::Foreign, 0);
        for (number, raw) in (1..).zip(text.split_inclusive('\n')) {
            let edited = |reason| Failure::Edited { path: path.to_owned(), line: number, reason };
            let (begin, line) = (at, raw.trim());
            at += raw.len();
            place = match (place, line) {
                (Place::Foreign, line) if line.starts_with(BEGINS) => {
                    if foreign.is_empty() {
                        return Err(broken("one of our sections stands before [generic]"));
                    }
                    let record = serde_json::from_str(&line[BEGINS.len()..])
                        .map_err(|_| edited("it does not describe an export"))?;
                    Place::Ours { since: begin, line: number, record, headed: false }
                }
                (Place::Foreign, line) if line.starts_with(ENDS) => return Err(edited("it ends nothing")),
                (Place::Foreign, line) => {
                    if let Some(name) = header(line) {
                        foreign.push(Section { name: name.to_owned(), exportname: None });
                    } else if let (Some(section), Some(path)) = (foreign.last_mut(), exportname(line)) {
                        section.exportname = Some(path);
                    } else if foreign.is_empty() && !(line.is_empty() || line.starts_with('#')) {
                        return Err(broken("something stands before its first section"));
                    }
                    Place::Foreign
                }
                (Place::Ours { since, line: first, record, headed }, line) => {
                    if line.strip_prefix(ENDS).is_some_and(|name| name == record.name.as_str()) && headed {
                        ours.push(Block { record, bytes: since..at });
                        Place::Foreign
                    } else if line.starts_with(BEGINS) || line.starts_with(ENDS) {
                        return Err(edited("it does not belong here"));
                    } else if let Some(name) = header(line) {
                        if headed || name != record.name.as_str() {
                            return Err(edited("another section stands within one of ours"));
                        }
                        Place::Ours { since, line: first, record, headed: true }
                    } else {
                        Place::Ours { since, line: first, record, headed }
                    }
                }
            };
        }
        if let Place::Ours { line, .. } = place {
            return Err(Failure::Edited {
                path: path.to_owned(),
                line,
                reason: "the end of this section is missing",
            });
        }
        let document = Self { path: path.to_owned(), text, ours, foreign };
        document.check()?;
        Ok(document)
    }

    /// What nbd-server would not read, or read otherwise than it looks.
    fn check(&self) -> Result<(), Failure> {
        let broken = |reason: String| Failure::Broken { path: self.path.clone(), reason };
        if self.foreign.first().is_none_or(|section| section.name != "generic") {
            return Err(broken("its first section is not [generic]".to_owned()));
        }
        let names = self.foreign.iter().map(|section| section.name.as_str());
        let names = names.chain(self.ours.iter().map(|block| block.record.name.as_str()));
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                return Err(broken(format!("the section [{name}] stands there twice")));
            }
        }
        Ok(())
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The sections that are not ours, but [generic].
    pub(super) fn foreign(&self) -> &[Section] {
        self.foreign.get(1..).unwrap_or_default()
    }

    /// Our exports, by name.
    pub(super) fn records(&self) -> Vec<&Record> {
        let mut records: Vec<_> = self.ours.iter().map(|block| &block.record).collect();
        records.sort_by(|one, other| one.name.cmp(&other.name));
        records
    }

    pub(super) fn record(&self, name: &ExportName) -> Option<&Record> {
        self.ours.iter().map(|block| &block.record).find(|record| record.name == *name)
    }

    /// With an export of ours behind everything else.
    pub(super) fn with(&self, record: &Record, link: &Path) -> Result<Self, Failure> {
        check_name(&record.name)?;
        if self.foreign.iter().any(|section| section.name == record.name.as_str()) {
            return Err(Failure::Foreign);
        }
        let json = serde_json::to_string(record).expect("a record of texts and numbers is JSON");
        let (name, keys) = (&record.name, record.keys(link)?);
        // A last line without an end gets one, and keeps it.
        let joint = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" };
        let text = format!("{}{joint}{BEGINS}{json}\n[{name}]\n{keys}{ENDS}{name}\n", self.text);
        let new = Self::parse(&self.path, text)?;
        new.proves(self, |found| found != name)?;
        Ok(new)
    }

    /// Without an export of ours.
    pub(super) fn without(&self, name: &ExportName) -> Result<Self, Failure> {
        let Some(block) = self.ours.iter().find(|block| block.record.name == *name) else {
            return Ok(self.clone());
        };
        let mut text = self.text.clone();
        text.replace_range(block.bytes.clone(), "");
        let new = Self::parse(&self.path, text)?;
        self.proves(&new, |found| found != name)?;
        Ok(new)
    }

    /// Proves that nothing but our own block differs: the other document has all our other exports and foreign sections.
    fn proves(&self, less: &Self, kept: impl Fn(&ExportName) -> bool) -> Result<(), Failure> {
        let others = self.ours.iter().map(|block| &block.record).filter(|record| kept(&record.name));
        if self.foreign == less.foreign && others.eq(less.ours.iter().map(|block| &block.record)) {
            return Ok(());
        }
        let reason = "a section of ours cannot be told from what is around it".to_owned();
        Err(Failure::Broken { path: self.path.clone(), reason })
    }
}

/// The name of the section that a line begins.
fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

fn exportname(line: &str) -> Option<PathBuf> {
    let (key, value) = line.split_once('=')?;
    (key.trim() == "exportname").then(|| PathBuf::from(value.trim()))
}

#[cfg(test)]
mod tests;
