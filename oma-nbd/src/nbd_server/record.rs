use std::path::{Path, PathBuf};

use oma_core::traits::{Access, DeviceIdentity, Export, ExportSpec};
use oma_core::{ByteSize, ExportName, Fence};
use serde::{Deserialize, Serialize};

use super::error::Failure;

/// What we must know of an export and nbd-server does not keep: it stands in a comment of its section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) name: ExportName,
    fence: Fence,
    read_only: bool,
    capacity: ByteSize,
    device: String,
    /// Where the device lies.
    pub(super) path: PathBuf,
    description: String,
}

impl Record {
    pub(super) fn new(spec: &ExportSpec, path: &Path) -> Self {
        let Export { name, description, access, fence, capacity, device } = spec.export();
        let read_only = access == Access::ReadOnly;
        Self { name, fence, read_only, capacity, device: device.0, path: path.to_owned(), description }
    }

    pub(super) fn export(&self) -> Export {
        Export {
            name: self.name.clone(),
            description: self.description.clone(),
            access: if self.read_only { Access::ReadOnly } else { Access::ReadWrite },
            fence: self.fence,
            capacity: self.capacity,
            device: DeviceIdentity(self.device.clone()),
        }
    }

    /// The keys of the section, as nbd-server reads them.
    pub(super) fn keys(&self, link: &Path) -> Result<String, Failure> {
        let link = link.to_str().filter(|text| plain(text)).ok_or_else(|| Failure::Path(link.to_owned()))?;
        let read_only = self.read_only;
        // virtstyle: else a client's address would be put into the path.
        Ok(format!(
            "exportname = {link}\nvirtstyle = none\nreadonly = {read_only}\nflush = true\nfua = true\ntrim = {}\n",
            !read_only
        ))
    }
}

/// Whether a text is read as it stands: a key file has escapes, and blanks at the ends are lost.
fn plain(text: &str) -> bool {
    text.starts_with('/')
        && !text.ends_with(' ')
        && !text.contains(|c: char| c == '\\' || c == '%' || c.is_control())
}

/// Refuses names that would be no section, or the one that is not an export.
pub(super) fn check_name(name: &ExportName) -> Result<(), Failure> {
    let text = name.as_str();
    if text == "generic" {
        return Err(Failure::Name("[generic] is the section of the server itself"));
    }
    if text.contains(['[', ']']) || text.chars().any(char::is_control) {
        return Err(Failure::Name("it has a bracket or a control character"));
    }
    Ok(())
}

/// The name of an export's link: letters, digits, dashes and underscores, different for each export.
pub(super) fn link_name(name: &ExportName) -> String {
    use std::fmt::Write;
    let mut text = String::from("export-");
    for byte in name.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "_{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ExportName {
        ExportName::parse(text).unwrap()
    }

    #[test]
    fn names_that_are_no_section_are_refused() {
        for bad in ["generic", "a]", "[a"] {
            assert!(check_name(&name(bad)).is_err(), "{bad}");
        }
        for good in ["Generic", "generic2", "migration-vm-1-disk-2000", "a=b", "#a", "ä/ö;%s"] {
            assert!(check_name(&name(good)).is_ok(), "{good}");
        }
    }

    #[test]
    fn links_of_two_names_differ_and_stay_in_their_folder() {
        let names = ["a.b", "a_b", "a_2eb", "a/b", "..", "%s", "ä"];
        let links: std::collections::BTreeSet<_> = names.iter().map(|text| link_name(&name(text))).collect();
        assert_eq!(links.len(), names.len());
        for link in links {
            assert!(link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{link}");
        }
    }

    #[test]
    fn paths_that_nbd_server_reads_otherwise_are_refused() {
        for (text, is_plain) in
            [("/a/b", true), ("/a b", true), ("a", false), ("/a%s", false), ("/a\\n", false), ("/a ", false)]
        {
            assert_eq!(plain(text), is_plain, "{text}");
        }
    }
}
