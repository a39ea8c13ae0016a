//! A journal as lines, and back.
//!
//! ```text
//! oma-copy-journal-1 {"content":…}  0f3a…      what it is of
//! run 268435456                     77c1…      a run began, which leaves no more than so much unrecorded
//! finished 1.16.1.AB.13ab…          9e20…      extents that are durable, as ExtentSet::compact writes them
//! ```
//!
//! Each line ends with the first digits of the BLAKE3 hash of itself and of the end of the line before it: a line that was
//! changed, lost, moved or taken from another journal is noticed. Only the last one may be torn, by a crash while it was written.

use oma_core::record::{CopyBasis, CopyEntry};
use oma_core::tree::LeafHash;
use oma_core::{ByteSize, ExtentSet};

/// How every journal begins.
pub(super) const MAGIC: &str = "oma-copy-journal-1";
const RUN: &str = "run";
const FINISHED: &str = "finished";
/// Digits of a hash that a line ends with.
const DIGITS: usize = 16;

/// The lines written so far, as far as the next one needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain(String);

impl Chain {
    fn line(&mut self, kind: &str, body: &str) -> String {
        let text = format!("{kind} {body}");
        self.0 = end(&self.0, &text);
        format!("{text} {}\n", self.0)
    }

    /// A new journal of a copy, with what is known of it.
    pub(super) fn head(&mut self, entry: &CopyEntry) -> Result<String, serde_json::Error> {
        let mut lines = self.line(MAGIC, &serde_json::to_string(&entry.basis)?);
        lines += &self.run(entry.unrecorded);
        lines += &self.finished(&entry.finished);
        Ok(lines)
    }

    pub(super) fn run(&mut self, unrecorded: ByteSize) -> String {
        self.line(RUN, &unrecorded.bytes().to_string())
    }

    pub(super) fn finished(&mut self, extents: &ExtentSet) -> String {
        extents.compact().map(|text| self.line(FINISHED, &text)).collect()
    }
}

/// What the lines of a journal say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) entry: CopyEntry,
    pub(super) chain: Chain,
    /// Where the next line begins; what is there already was torn.
    pub(super) length: u64,
    pub(super) lines: usize,
}

/// Why a text is not a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JournalError {
    /// It never was one.
    #[error("it is no journal of a copy, and is not replaced by one; name another file")]
    Foreign,
    /// It is not as it was written.
    #[error(
        "line {0} is not as it was written; remove the journal to copy all again, over what the target holds (`oma copy --overwrite`, without --blank)"
    )]
    Damaged(usize),
}

/// Reads a journal; `None` when its maker was killed before it was one: nothing was copied then.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Parsed>, JournalError> {
    let magic = MAGIC.as_bytes();
    let shared = magic.len().min(bytes.len());
    if bytes[..shared] != magic[..shared] {
        return Err(JournalError::Foreign);
    }
    let mut parsed: Option<Parsed> = None;
    let (mut chain, mut at, mut number) = (Chain::default(), 0, 0);
    while at < bytes.len() {
        number += 1;
        let line = bytes[at..].split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_last = at + line.len() == bytes.len();
        let taken = checked(line, &mut chain).and_then(|(kind, body)| take(kind, body, &mut parsed));
        at += line.len();
        match taken {
            Some(()) => {
                if let Some(parsed) = &mut parsed {
                    parsed.length += u64::try_from(line.len()).unwrap_or(u64::MAX);
                    (parsed.chain, parsed.lines) = (chain.clone(), number);
                }
            }
            None if is_last => return Ok(parsed),
            None => return Err(JournalError::Damaged(number)),
        }
    }
    Ok(parsed)
}

/// A whole line that comes behind those before it: its kind and body.
fn checked<'l>(line: &'l [u8], chain: &mut Chain) -> Option<(&'l str, &'l str)> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (text, found) = line.rsplit_once(' ')?;
    let expected = end(&chain.0, text);
    if found != expected {
        return None;
    }
    chain.0 = expected;
    text.split_once(' ')
}

fn take(kind: &str, body: &str, parsed: &mut Option<Parsed>) -> Option<()> {
    match (kind, parsed) {
        (MAGIC, none @ None) => {
            let basis: CopyBasis = serde_json::from_str(body).ok()?;
            let entry = CopyEntry { basis, finished: ExtentSet::new(), unrecorded: ByteSize::ZERO };
            *none = Some(Parsed { entry, chain: Chain::default(), length: 0, lines: 0 });
        }
        (RUN, Some(parsed)) => parsed.entry.unrecorded += ByteSize::new(body.parse().ok()?),
        (FINISHED, Some(parsed)) => {
            parsed.entry.finished.extend(ExtentSet::from_compact([body]).ok()?.iter());
        }
        _ => return None,
    }
    Some(())
}

fn end(before: &str, text: &str) -> String {
    let mut hash = LeafHash::of(format!("{before} {text}").as_bytes()).to_string();
    hash.truncate(DIGITS);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::{Extent, PointId};
    use proptest::prelude::*;

    fn entry() -> CopyEntry {
        let basis = CopyBasis {
            content: PointId::parse("file:1:2:3:4.5").unwrap(),
            capacity: ByteSize::gib(1),
            target: "file:1:9 with a space".to_owned(),
            target_capacity: ByteSize::gib(2),
            extents: Some("abc".to_owned()),
        };
        CopyEntry { basis, finished: ExtentSet::new(), unrecorded: ByteSize::mib(1) }
    }

    /// A journal of some extents, and where each of its lines ends.
    fn journal(extents: &[(u64, u64)]) -> (String, Vec<usize>) {
        let mut chain = Chain::default();
        let mut text = chain.head(&entry()).unwrap();
        for (offset, length) in extents {
            text += &chain.finished(&[Extent::new(*offset, *length).unwrap()].into_iter().collect());
        }
        let ends = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        (text, ends)
    }

    #[test]
    fn the_form_is_what_it_was() {
        let (text, _) = journal(&[(65_536, 131_072)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0]
                .starts_with("oma-copy-journal-1 {\"content\":\"file:1:2:3:4.5\",\"capacity\":1073741824,"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("run 1048576 ") && lines[2].starts_with("finished 1.16.1.BC."),
            "{text}"
        );
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn what_is_something_else_is_never_taken_for_a_journal() {
        for foreign in ["x", "oma-copy-journal-2 {} 00\n", "{}", "oma-copy_", "\n"] {
            assert_eq!(parse(foreign.as_bytes()), Err(JournalError::Foreign), "{foreign:?}");
        }
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn lines_of_two_journals_do_not_mix() {
        let (one, ends) = journal(&[(0, 10), (20, 10), (40, 10)]);
        let (other, others) = journal(&[(5, 10), (20, 10), (40, 10)]);
        let mixed = format!("{}{}", &one[..ends[2]], &other[others[2]..]);
        let twice = format!("{one}{}", &one[ends[2]..]);
        let lost = format!("{}{}", &one[..ends[1]], &one[ends[2]..]);
        for (text, line) in [(mixed, 4), (twice, 6), (lost, 3)] {
            assert_eq!(parse(text.as_bytes()), Err(JournalError::Damaged(line)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn l15_a_journal_cut_anywhere_has_all_lines_before_the_cut(
            extents in prop::collection::vec((0u64..1 << 40, 1u64..1 << 30), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let (text, ends) = journal(&extents);
            let cut = cut.index(text.len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let parsed = parse(&text.as_bytes()[..cut]).unwrap();
            prop_assert_eq!(parsed.as_ref().map_or(0, |parsed| parsed.lines), whole);
            if let Some(parsed) = parsed {
                let right: ExtentSet = extents.iter().take(whole.saturating_sub(2)).map(|(at, length)| Extent::new(*at, *length).unwrap()).collect();
                prop_assert_eq!(parsed.entry.finished, right);
                prop_assert_eq!(parsed.length, u64::try_from(ends[whole - 1]).unwrap());
                // What is written behind it next goes on from there.
                let mut chain = parsed.chain;
                let mut longer = text.as_bytes()[..ends[whole - 1]].to_vec();
                longer.extend(chain.run(ByteSize::mib(1)).bytes());
                prop_assert_eq!(parse(&longer).unwrap().unwrap().lines, whole + 1);
            }
        }

        #[test]
        fn any_damage_before_the_last_line_is_noticed(
            extents in prop::collection::vec((0u64..1 << 40, 1u64..1 << 30), 1..6),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (text, ends) = journal(&extents);
            let at = at.index(ends[ends.len() - 2]);
            let mut damaged = text.clone().into_bytes();
            damaged[at] = byte;
            let same = damaged == text.as_bytes();
            let parsed = parse(&damaged);
            if at + 1 == ends[ends.len() - 2] && !same {
                // The last two lines are one, which is torn: what stands before them is all that is believed.
                prop_assert_eq!(parsed.unwrap().map(|parsed| parsed.lines), Some(ends.len() - 2));
            } else {
                prop_assert_eq!(parsed.is_ok(), same, "byte {} of {}", at, text);
            }
        }
    }
}
