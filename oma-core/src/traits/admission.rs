use crate::traits::{Access, Export, ExportSpec};
use crate::{Error, ErrorKind, Result};

/// What publishing an export means, given what is served already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The name is free: serve it.
    Serve,
    /// It is served just so: change nothing.
    Keep,
    /// An older token serves the name: cut that off first, then serve.
    Replace,
}

impl ExportSpec {
    /// Decides what publishing it means: the rules of [`ExportServer::publish`](crate::traits::ExportServer::publish),
    /// for every server to use.
    ///
    /// `served` is everything through which a write can land now.
    ///
    /// # Errors
    /// As `publish`.
    pub fn admit<'a>(&self, served: impl IntoIterator<Item = &'a Export>) -> Result<Admission> {
        let refuse = |kind, reason| Err(Error::new(kind, "publish export", &self.name).because(reason));
        let new = self.export();
        if self.access == Access::ReadWrite && self.device.info().access == Access::ReadOnly {
            let reason = format!("the device {} is open for reading only", new.device);
            return refuse(ErrorKind::Invalid, reason);
        }
        let mut admission = Admission::Serve;
        for old in served {
            if old.name != new.name {
                let written = Access::ReadWrite;
                if old.device == new.device && (old.access == written || new.access == written) {
                    let reason = format!(
                        "the device {} is exported as {} already; withdraw that first",
                        old.device, old.name
                    );
                    return refuse(ErrorKind::Conflict, reason);
                }
                continue;
            }
            if new.fence < old.fence {
                let reason = format!("token {} serves it now, {} is older", old.fence, new.fence);
                return refuse(ErrorKind::Fenced, reason);
            }
            if new.fence > old.fence {
                admission = Admission::Replace;
            } else if new == *old {
                admission = Admission::Keep;
            } else {
                let reason = "the same token serves something else under this name; withdraw that first";
                return refuse(ErrorKind::AlreadyExists, reason.to_owned());
            }
        }
        Ok(admission)
    }

    /// What it is once published.
    #[must_use]
    pub fn export(&self) -> Export {
        let device = self.device.info();
        Export {
            name: self.name.clone(),
            description: self.description.clone(),
            access: self.access,
            fence: self.fence,
            capacity: device.capacity,
            device: device.identity.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::MemoryDevice;
    use crate::{ByteSize, ExportName, Fence};

    fn spec(name: &str, device: &str, access: Access, fence: u64) -> ExportSpec {
        ExportSpec {
            name: ExportName::parse(name).unwrap(),
            description: String::new(),
            access,
            fence: Fence(fence),
            device: Arc::new(MemoryDevice::new(device, ByteSize::mib(1))),
        }
    }

    #[test]
    fn every_pair_of_exports_is_decided() {
        use Access::{ReadOnly as R, ReadWrite as W};
        use Admission::{Keep, Replace, Serve};
        use ErrorKind::{AlreadyExists, Conflict, Fenced};
        let table = [
            // new name, device, access, token, against "a" on device "d", written with token 5
            ("a", "d", W, 5, Ok(Keep)),
            ("a", "d", W, 6, Ok(Replace)),
            ("a", "d", W, 4, Err(Fenced)),
            ("a", "e", W, 4, Err(Fenced)),
            ("a", "e", W, 5, Err(AlreadyExists)),
            ("a", "d", R, 5, Err(AlreadyExists)),
            ("a", "e", R, 6, Ok(Replace)),
            ("b", "d", W, 9, Err(Conflict)),
            ("b", "d", R, 9, Err(Conflict)),
            ("b", "e", W, 1, Ok(Serve)),
        ];
        let served = [spec("a", "d", W, 5).export()];
        for (name, device, access, fence, expected) in table {
            let admitted = spec(name, device, access, fence).admit(&served).map_err(|error| error.kind());
            assert_eq!(admitted, expected, "{name} {device} {access:?} {fence}");
        }
        let read_only = [spec("a", "d", R, 5).export()];
        assert_eq!(spec("b", "d", R, 1).admit(&read_only).unwrap(), Serve);
        assert_eq!(spec("b", "d", W, 1).admit(&read_only).unwrap_err().kind(), Conflict);
    }

    #[test]
    fn a_replacement_that_conflicts_with_a_third_export_is_refused() {
        let served =
            [spec("a", "d", Access::ReadWrite, 5).export(), spec("z", "e", Access::ReadWrite, 1).export()];
        let error = spec("a", "e", Access::ReadWrite, 6).admit(&served).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.chain().contains("exported as z already"), "{}", error.chain());
    }
}
