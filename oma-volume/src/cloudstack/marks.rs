//! Marks of ownership as resource tags of a volume (L02).
//!
//! | key | value |
//! |---|---|
//! | `oma.instance` | the deployment |
//! | `oma.context`, `oma.disk` | the disk that it is for |
//! | `oma.operation` | the intent that made it |
//! | `oma.made` | its generation when it was made |
//! | `oma.generation.N` | that it has reached the generation N; the largest counts |
//! | `oma.name` | its name for readers |
//!
//! The first ones are set by one command, all or none, and never changed. A key exists once, and no value can be changed: a new
//! generation is one more key, and smaller ones are taken away afterwards, so that a crash between leaves a right answer.
//! Characters beyond `A-Z a-z 0-9 . -` are written `_` and two hex digits, so that no version and no client has anything to encode.

use std::fmt::Write;

use oma_core::record::VolumeTag;
use oma_core::traits::VolumeSpec;
use oma_core::{ContextId, DiskKey, DiskRef, Generation, InstanceId, OperationId};

use super::api::Tag;

pub(super) const INSTANCE: &str = "oma.instance";
const CONTEXT: &str = "oma.context";
const DISK: &str = "oma.disk";
const OPERATION: &str = "oma.operation";
const MADE: &str = "oma.made";
const NAME: &str = "oma.name";
const GENERATION: &str = "oma.generation.";
const OURS: &str = "oma.";

/// A column of CloudStack's table of tags.
const LONGEST_VALUE: usize = 255;

/// What a volume of ours is marked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) operation: OperationId,
    /// The generation that it was made with.
    pub(super) made: Generation,
    /// The tag that it bears now.
    pub(super) tag: VolumeTag,
    pub(super) name: String,
}

impl Marks {
    /// Of a volume to be made.
    pub(super) fn of(spec: &VolumeSpec) -> Self {
        let (operation, tag, name) = (spec.operation.clone(), spec.tag.clone(), spec.name.clone());
        Self { operation, made: tag.generation, tag, name }
    }

    /// Those of a volume; `None` where one is missing or makes no sense.
    pub(super) fn read(tags: &[Tag]) -> Option<Self> {
        let value = |key: &str| unescaped(&tags.iter().find(|tag| tag.key == key)?.value);
        let made = Generation(value(MADE)?.parse().ok()?);
        let reached = generations(tags).map(|(_, generation)| generation).max();
        let disk = DiskRef {
            context: ContextId::parse(value(CONTEXT)?).ok()?,
            key: DiskKey::parse(value(DISK)?).ok()?,
        };
        let instance = InstanceId::parse(value(INSTANCE)?).ok()?;
        Some(Self {
            operation: OperationId::parse(value(OPERATION)?).ok()?,
            made,
            tag: VolumeTag { instance, disk, generation: reached.map_or(made, |reached| reached.max(made)) },
            name: value(NAME).unwrap_or_default(),
        })
    }

    /// The tags of a volume that was just made.
    pub(super) fn tags(&self) -> Vec<(String, String)> {
        let disk = &self.tag.disk;
        let made = self.made.0.to_string();
        let mut tags = vec![
            (INSTANCE, escaped(self.tag.instance.as_str())),
            (CONTEXT, escaped(disk.context.as_str())),
            (DISK, escaped(disk.key.as_str())),
            (OPERATION, escaped(self.operation.as_str())),
            (MADE, made),
            (NAME, escaped(&self.name)),
        ];
        tags.retain(|(_, value)| !value.is_empty());
        tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Whether the same intent made it, with the same tag.
    pub(super) fn is_made_by(&self, spec: &VolumeSpec) -> bool {
        let made = VolumeTag { generation: self.made, ..self.tag.clone() };
        self.operation == spec.operation && made == spec.tag
    }
}

/// Whether it bears a mark of ours, or of somebody who is as we are.
pub(super) fn are_any(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.key.starts_with(OURS))
}

/// The tag that says that a generation is reached.
pub(super) fn reached(generation: Generation) -> (String, String) {
    (format!("{GENERATION}{}", generation.0), generation.0.to_string())
}

/// Tags that say that a smaller generation was reached.
pub(super) fn outdated(tags: &[Tag], now: Generation) -> Vec<(String, String)> {
    let smaller = generations(tags).filter(|(_, generation)| *generation < now);
    smaller.map(|(tag, _)| (tag.key.clone(), tag.value.clone())).collect()
}

/// The filter of volumes of a deployment.
pub(super) fn of_instance(instance: &InstanceId) -> String {
    escaped(instance.as_str())
}

fn generations(tags: &[Tag]) -> impl Iterator<Item = (&Tag, Generation)> {
    tags.iter().filter_map(|tag| {
        let number = tag.key.strip_prefix(GENERATION)?.parse().ok()?;
        Some((tag, Generation(number)))
    })
}

/// At most as long as a value can be; what is cut off is cut off whole.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        let before = escaped.len();
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' => escaped.push(char::from(byte)),
            _ => write!(escaped, "_{byte:02x}").expect("a string takes everything"),
        }
        if escaped.len() > LONGEST_VALUE {
            escaped.truncate(before);
            break;
        }
    }
    escaped
}

/// `None` for what [`escaped`] never writes.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'_' {
            bytes.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    Some(
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

#[cfg(test)]
mod tests {
    use oma_core::ByteSize;
    use oma_core::traits::Provisioning;
    use proptest::prelude::*;

    use super::*;

    fn spec() -> VolumeSpec {
        let disk = DiskRef { context: "ctx:1".parse().unwrap(), key: "disk_2000".parse().unwrap() };
        VolumeSpec {
            operation: OperationId::mint(),
            tag: VolumeTag { instance: InstanceId::mint(), disk, generation: Generation(3) },
            name: "Größe, web 01".to_owned(),
            capacity: ByteSize::gib(1),
            provisioning: Provisioning::Thin,
        }
    }

    fn tags(pairs: Vec<(String, String)>) -> Vec<Tag> {
        pairs.into_iter().map(|(key, value)| Tag { key, value }).collect()
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let spec = spec();
        let marks = Marks::of(&spec);
        let tags = tags(marks.tags());
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(
            tags.iter().all(|tag| tag.key.chars().all(plain) && tag.value.chars().all(plain)),
            "{tags:?}"
        );
        let read = Marks::read(&tags).unwrap();
        assert_eq!(read, marks);
        assert!(read.is_made_by(&spec) && are_any(&tags));
    }

    #[test]
    fn the_largest_generation_counts_in_whatever_order_tags_come_and_go() {
        let spec = spec();
        let mut all = Marks::of(&spec).tags();
        all.extend([reached(Generation(10)), reached(Generation(9))]);
        let all = tags(all);
        let marks = Marks::read(&all).unwrap();
        assert_eq!((marks.tag.generation, marks.made), (Generation(10), Generation(3)));
        assert!(marks.is_made_by(&spec));
        assert_eq!(outdated(&all, Generation(10)), [reached(Generation(9))]);
        let smaller = tags([Marks::of(&spec).tags(), vec![reached(Generation(2))]].concat());
        assert_eq!(Marks::read(&smaller).unwrap().tag.generation, Generation(3));
    }

    #[test]
    fn l02_marks_that_are_not_whole_prove_nothing() {
        let whole = Marks::of(&spec()).tags();
        for missing in [INSTANCE, CONTEXT, DISK, OPERATION, MADE] {
            let rest = whole.iter().filter(|(key, _)| key != missing).cloned().collect();
            let rest = tags(rest);
            assert_eq!(Marks::read(&rest), None, "{missing}");
            assert!(are_any(&rest), "it is not free to be taken either");
        }
        let foreign = tags(vec![("owner".to_owned(), "somebody".to_owned())]);
        assert_eq!(Marks::read(&foreign), None);
        assert!(!are_any(&foreign));
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_where_it_can_be_read() {
        let mut spec = spec();
        spec.name = "ä".repeat(200);
        let marks = Marks::of(&spec);
        assert!(marks.tags().iter().all(|(_, value)| value.len() <= LONGEST_VALUE));
        let read = Marks::read(&tags(marks.tags())).unwrap();
        assert!(spec.name.starts_with(read.name.trim_end_matches('\u{fffd}')), "{}", read.name);
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in "\\PC{0,20}") {
            prop_assert_eq!(unescaped(&escaped(&text)), Some(text));
        }

        #[test]
        fn no_value_of_somebody_else_is_a_panic(text in ".{0,40}") {
            let _ = unescaped(&text);
        }
    }
}
