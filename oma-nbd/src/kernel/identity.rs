//! The name under which the kernel knows an attached export, so that it is recognised whoever attached it.

use std::fs;

use oma_core::traits::ExportSpec;
use oma_core::{ExportName, Fence};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "oma:";

/// Who is attached, and which process serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) name: ExportName,
    pub(super) fence: Fence,
    pub(super) device: String,
    owner: Owner,
}

/// A process: its number and when it began, because numbers come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    pid: u32,
    began: u64,
}

impl Identity {
    /// As attached by this process.
    pub(super) fn new(spec: &ExportSpec) -> Self {
        let pid = std::process::id();
        let owner = Owner { pid, began: began(pid).unwrap_or_default() };
        let device = spec.device.info().identity.to_string();
        Self { name: spec.name.clone(), fence: spec.fence, device, owner }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix(PREFIX)?).ok()
    }

    /// As the kernel keeps it.
    pub(super) fn text(&self) -> String {
        let json = serde_json::to_string(self).expect("texts and numbers are JSON");
        format!("{PREFIX}{json}")
    }

    /// Whether the process that serves it lives.
    pub(super) fn is_served(&self) -> bool {
        began(self.owner.pid) == Some(self.owner.began)
    }
}

/// When a process began, in ticks since the machine did: field 22 of proc_pid_stat(5).
fn began(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = text.rsplit_once(')')?.1;
    // One that has ended serves nothing, whether or not somebody has waited for it.
    let mut fields = fields.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oma_core::ByteSize;
    use oma_core::memory::MemoryDevice;
    use oma_core::traits::Access;

    use super::*;

    fn identity() -> Identity {
        Identity::new(&ExportSpec {
            name: ExportName::parse("disk").unwrap(),
            description: String::new(),
            access: Access::ReadWrite,
            fence: Fence(7),
            device: Arc::new(MemoryDevice::new("a \"device\"\n", ByteSize::mib(1))),
        })
    }

    #[test]
    fn an_identity_is_one_line_and_read_again() {
        let text = identity().text();
        assert!(text.starts_with("oma:{\"name\":\"disk\",\"fence\":7,") && !text.contains('\n'), "{text}");
        assert_eq!(Identity::parse(&text), Some(identity()));
        for foreign in ["", "oma:", "oma:{}", "nbd", "{}"] {
            assert_eq!(Identity::parse(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_process_that_is_gone_serves_nothing() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let owner = Owner { pid: child.id(), began: began(child.id()).unwrap() };
        let served = Identity { owner, ..identity() };
        assert!(served.is_served() && identity().is_served());
        let later = Owner { began: owner.began + 1, ..owner };
        assert!(!Identity { owner: later, ..identity() }.is_served(), "another process of that number");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!served.is_served());
    }
}
