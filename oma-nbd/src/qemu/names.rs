//! Names of what is made in a machine. All bear the job (L20); the names of nodes are short, so they bear what tells jobs apart.

use oma_core::{DiskKey, JobId, PointId};
use uuid::Uuid;

/// What a node of a point in time is for.
///
/// ```text
///  device ── gate ── Filter ── Base ── (filters of other points) ── the disk
///                      ├── Scratch: what the guest overwrote
///  NBD export ── View ─┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Copies what is overwritten.
    Filter,
    /// What the filter stands on; its child can be exchanged, a filter's cannot.
    Base,
    /// Takes what is overwritten.
    Scratch,
    /// The disk as it was.
    View,
}

impl Role {
    const ALL: [(Self, char); 4] =
        [(Self::Filter, 'c'), (Self::Base, 'b'), (Self::Scratch, 's'), (Self::View, 'v')];

    fn letter(self) -> char {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or('?', |(_, letter)| *letter)
    }
}

/// A disk at the point in time of a job, as it stands in the names of nodes and exports: QEMU allows a node 31 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag {
    job: String,
    disk: String,
}

const JOB: usize = 20;
const DISK: usize = 6;

impl Tag {
    pub(super) fn new(job: &JobId, key: &DiskKey) -> Self {
        Self { job: job_tag(job), disk: digest(key.as_str(), DISK) }
    }

    /// The part that tells the job.
    pub(super) fn job(&self) -> &str {
        &self.job
    }

    pub(super) fn node(&self, role: Role) -> String {
        format!("oma{}{}-{}", role.letter(), self.job, self.disk)
    }

    /// The id of an export, of a job of QEMU's, and the stem of the name of a file.
    pub(super) fn id(&self) -> String {
        format!("oma-{}-{}", self.job, self.disk)
    }

    /// The id of the export that only tells changes.
    pub(super) fn changes_id(&self) -> String {
        format!("oma-{}-{}-changes", self.job, self.disk)
    }

    /// What the name of one of our nodes says.
    pub(super) fn of_node(name: &str) -> Option<(Role, Self)> {
        let rest = name.strip_prefix("oma")?;
        let letter = rest.chars().next()?;
        let (role, _) = Role::ALL.into_iter().find(|(_, known)| *known == letter)?;
        Some((role, Self::parse(&rest[1..])?))
    }

    /// What the id of one of our exports says.
    pub(super) fn of_id(id: &str) -> Option<Self> {
        let rest = id.strip_prefix("oma-")?;
        Self::parse(rest.strip_suffix("-changes").unwrap_or(rest))
    }

    fn parse(text: &str) -> Option<Self> {
        let (job, disk) = text.split_once('-')?;
        let sound =
            |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_alphanumeric());
        (sound(job, JOB) && sound(disk, DISK)).then(|| Self { job: job.to_owned(), disk: disk.to_owned() })
    }
}

/// What tells a job from others: its date, time and random part when it has that form.
pub(super) fn job_tag(job: &JobId) -> String {
    let plain: String = job.as_str().strip_prefix("job-").unwrap_or_default().replace('-', "");
    let sound = plain.len() == JOB && plain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if sound && job.as_str().len() == "job-YYYYMMDD-HHMMSS-xxxxxx".len() {
        return plain;
    }
    digest(job.as_str(), JOB)
}

fn digest(text: &str, length: usize) -> String {
    let mut hex = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
    hex.truncate(length);
    hex
}

/// The node between a device and its disk, below which filters come and go; it serves the points of all jobs.
pub(super) fn gate(key: &DiskKey) -> String {
    format!("omagate-{}", digest(key.as_str(), 16))
}

pub(super) fn is_gate(node: &str) -> bool {
    node.starts_with("omagate-")
}

/// The name of an export; it is long enough for all.
pub(super) fn export(job: &JobId, key: &DiskKey) -> String {
    format!("oma/{job}/{key}")
}

/// The bitmap that a question for changes is answered from. It lives as long as the question.
pub(super) fn changes(job: &JobId) -> String {
    format!("{CHANGES}{job}")
}

pub(super) const CHANGES: &str = "oma-changes/";

pub(super) fn point(job: &JobId) -> PointId {
    PointId::parse(format!("oma-{job}")).expect("a job id makes a point id")
}

/// The job of a point in time, if it has one.
pub(super) fn job_of(point: &PointId) -> Option<JobId> {
    JobId::parse(point.as_str().strip_prefix("oma-")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_core::Timestamp;

    #[test]
    fn names_fit_into_qemu_and_are_read_back() {
        for job in
            [JobId::mint(Timestamp::from_millis(1_755_770_000_000)), JobId::parse("x".repeat(191)).unwrap()]
        {
            let tag = Tag::new(&job, &DiskKey::parse("virtio-disk0").unwrap());
            for (role, _) in Role::ALL {
                let name = tag.node(role);
                assert_eq!(name.len(), 31, "{name}");
                assert_eq!(Tag::of_node(&name), Some((role, tag.clone())));
            }
            assert_eq!(Tag::of_id(&tag.id()).as_ref(), Some(&tag));
            assert_eq!(Tag::of_id(&tag.changes_id()), Some(tag));
            assert_eq!(job_of(&point(&job)), Some(job));
        }
    }

    #[test]
    fn l20_names_of_two_jobs_differ_and_bear_the_job() {
        let job = JobId::parse("job-20250821-095320-abcdef").unwrap();
        let key = DiskKey::parse("disk0").unwrap();
        assert!(Tag::new(&job, &key).node(Role::View).contains("20250821095320abcdef"));
        let other = JobId::parse("job-20250821-095320-abcdeg").unwrap();
        assert_ne!(Tag::new(&job, &key), Tag::new(&other, &key));
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in [
            "",
            "oma",
            "omac",
            "libvirt-1-format",
            "omac20250821095320abcdef",
            "omax20250821095320abcdef-123456",
            "omaé",
        ] {
            assert_eq!(Tag::of_node(name), None, "{name}");
        }
        assert_eq!(Tag::of_id("oma-x"), None);
        assert!(!is_gate("disk"));
    }
}
