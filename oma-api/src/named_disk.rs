//! One disk as an operator names it: in requests, and in flags as `KEY=SOURCE[,bitmap=NAME][,change-id=ID]`.

use std::str::FromStr;

use oma_core::{ChangeId, DiskKey};
use serde::{Deserialize, Serialize};

/// A disk and where it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedDisk {
    /// Its key within the VM.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "disk-2000"))]
    pub key: DiskKey,
    /// `nbd://HOST[:PORT]/EXPORT`, `nbds://…`, `nbd+unix:///EXPORT?socket=PATH`, or the path of a file or block device.
    #[cfg_attr(feature = "server", schema(example = "nbd://hypervisor.example/web01"))]
    pub source: String,
    /// The dirty bitmap of an NBD export that tells what changed since the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmap: Option<String>,
    /// The change id of its content, where somebody else knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub change_id: Option<ChangeId>,
}

/// Why a text is not a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedDiskError {
    /// There is no `=`.
    #[error("it has no `=`; write KEY=SOURCE, e.g. disk-2000=/srv/web01.raw")]
    NoSource,
    /// An option without a value.
    #[error("nothing follows {0}; leave it out or give it a value")]
    Empty(&'static str),
    /// A key or change id that is none.
    #[error(transparent)]
    Id(#[from] oma_core::IdError),
}

const BITMAP: &str = ",bitmap=";
const CHANGE_ID: &str = ",change-id=";

impl FromStr for NamedDisk {
    type Err = NamedDiskError;

    /// Takes the options from the right, each at most once; what is left is the source, commas and `=` included.
    fn from_str(text: &str) -> Result<Self, NamedDiskError> {
        let (key, mut rest) = text.split_once('=').ok_or(NamedDiskError::NoSource)?;
        let (mut bitmap, mut change_id) = (None, None);
        loop {
            let at = |name: &str, taken: bool| if taken { None } else { rest.rfind(name) };
            match (at(BITMAP, bitmap.is_some()), at(CHANGE_ID, change_id.is_some())) {
                (None, None) => break,
                (Some(begin), other) if other.is_none_or(|other| begin > other) => {
                    bitmap = Some(value(rest, begin, BITMAP)?);
                    rest = &rest[..begin];
                }
                (_, begin) => {
                    let begin = begin.unwrap_or(rest.len());
                    change_id = Some(ChangeId::parse(value(rest, begin, CHANGE_ID)?)?);
                    rest = &rest[..begin];
                }
            }
        }
        if rest.is_empty() {
            return Err(NamedDiskError::Empty("KEY="));
        }
        Ok(Self { key: DiskKey::parse(key)?, source: rest.to_owned(), bitmap, change_id })
    }
}

fn value(text: &str, begin: usize, name: &'static str) -> Result<String, NamedDiskError> {
    match text.get(begin + name.len()..) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(NamedDiskError::Empty(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, Option<String>, Option<String>) {
        let disk: NamedDisk = text.parse().unwrap();
        (disk.key.to_string(), disk.source, disk.bitmap, disk.change_id.map(String::from))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn options_follow_the_source_in_any_order() {
        let source = "nbd+unix:///?socket=/run/a.sock".to_owned();
        let key = "disk-2000".to_owned();
        let both = (key.clone(), source.clone(), some("b0"), some("b1"));
        assert_eq!(parts("disk-2000=nbd+unix:///?socket=/run/a.sock,bitmap=b0,change-id=b1"), both);
        assert_eq!(parts("disk-2000=nbd+unix:///?socket=/run/a.sock,change-id=b1,bitmap=b0"), both);
        assert_eq!(parts("disk-2000=nbd+unix:///?socket=/run/a.sock"), (key, source, None, None));
    }

    #[test]
    fn a_source_may_hold_commas_and_equal_signs() {
        let key = "k".to_owned();
        assert_eq!(parts("k=/a,b=c.raw"), (key.clone(), "/a,b=c.raw".to_owned(), None, None));
        assert_eq!(
            parts("k=/odd,bitmap=x.raw,bitmap=b0"),
            (key.clone(), "/odd,bitmap=x.raw".to_owned(), some("b0"), None)
        );
        assert_eq!(parts("k=/a,b,change-id=1,2"), (key, "/a,b".to_owned(), None, some("1,2")));
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for bad in ["", "disk-2000", "=x", "k=", "k=x,bitmap=", "k=x,change-id=", "k=x,change-id=*", "a b=x"]
        {
            assert!(bad.parse::<NamedDisk>().is_err(), "{bad}");
        }
    }
}
