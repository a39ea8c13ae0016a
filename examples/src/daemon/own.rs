//! The certificate that a daemon has from its own authority, where nobody has given it one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use oma_api::server::TlsIdentity;
use oma_core::Result;
use oma_nbd::TlsFiles;

use super::{DoorArgs, NbdArgs};
use crate::authority::Authority;
use crate::data_dir::DataDir;
use crate::output;

/// By which the daemon is reached on its own machine.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The authority, and the names that it certifies.
#[derive(Debug)]
pub(super) struct Own {
    authority: Authority,
    names: BTreeSet<String>,
}

impl Own {
    /// Makes what is not there yet. The data directory is locked: nobody else does so.
    pub(super) fn open(
        data: &DataDir,
        doors: &DoorArgs,
        nbd: &NbdArgs,
        beside: Option<SocketAddr>,
    ) -> Result<Self> {
        let directory = data.tls();
        let is_new = !directory.exists();
        let authority = Authority::load_or_make(&directory, SystemTime::now())?;
        let names = names(doors, nbd, beside);
        let own = Self { authority, names };
        own.renew()?;
        output::note(format_args!(
            "this daemon is certified by the {}authority in {}: {}",
            if is_new { "new " } else { "" },
            directory.display(),
            own.authority.fingerprint()
        ));
        Ok(own)
    }

    /// Has the daemon certified anew where that is due; answers whether it was.
    pub(super) fn renew(&self) -> Result<bool> {
        let now = SystemTime::now();
        if let Some(note) = self.authority.ending(now) {
            output::note(note);
        }
        self.authority.certify(&self.names, now)
    }

    /// For HTTPS.
    pub(super) fn identity(&self) -> Result<TlsIdentity> {
        let (certificate, key) = self.authority.server();
        TlsIdentity::open(certificate, key)
    }

    /// For NBD, to clients of the same authority.
    pub(super) fn files(&self) -> TlsFiles {
        TlsFiles::mutual_in_directory(self.authority.directory())
    }
}

/// What clients may call this daemon.
fn names(doors: &DoorArgs, nbd: &NbdArgs, beside: Option<SocketAddr>) -> BTreeSet<String> {
    let listened: Vec<IpAddr> =
        [doors.listen, nbd.address(), beside].into_iter().flatten().map(|address| address.ip()).collect();
    let mut names: BTreeSet<String> = HERE.into_iter().map(str::to_owned).collect();
    names.extend(doors.tls_names.iter().chain(&nbd.nbd_host).cloned());
    names.extend(listened.iter().filter(|ip| !ip.is_unspecified()).map(IpAddr::to_string));
    if listened.iter().any(IpAddr::is_unspecified) {
        names.extend(machine());
    }
    names
}

/// The name of this machine, if it is one that can be certified.
fn machine() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_ascii_lowercase();
    let is_good = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(is_good).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_clients_are_told_is_among_the_names() {
        let args = |listen: &str| DoorArgs {
            listen: Some(listen.parse().unwrap()),
            tls_names: vec!["oma.example".to_owned()],
            ..DoorArgs::default()
        };
        let nbd = NbdArgs {
            nbd_listen: Some("192.0.2.7:10809".parse().unwrap()),
            nbd_host: Some("nbd.example".to_owned()),
            nbd_tls_certificates: None,
        };
        let found = names(&args("127.0.0.1:8082"), &nbd, Some("[2001:db8::7]:8090".parse().unwrap()));
        let wanted =
            ["127.0.0.1", "192.0.2.7", "2001:db8::7", "::1", "localhost", "nbd.example", "oma.example"];
        assert_eq!(found, wanted.into_iter().map(str::to_owned).collect());
        let everywhere = names(&args("0.0.0.0:8082"), &NbdArgs::default(), None);
        assert!(!everywhere.contains("0.0.0.0"), "{everywhere:?}");
        assert_eq!(everywhere.len(), 4 + usize::from(machine().is_some_and(|name| name != "localhost")));
    }

    #[test]
    fn it_is_needed_where_others_listen_or_it_is_asked_for() {
        let needs = |listen: &str, beside: Option<&str>, change: &dyn Fn(&mut DoorArgs)| {
            let mut args = DoorArgs { listen: Some(listen.parse().unwrap()), ..DoorArgs::default() };
            change(&mut args);
            args.needs_own(beside.map(|address| address.parse().unwrap()))
        };
        assert!(!needs("127.0.0.1:1", None, &|_| {}) && !needs("[::1]:1", Some("127.0.0.1:2"), &|_| {}));
        assert!(needs("0.0.0.0:1", None, &|_| {}) && needs("127.0.0.1:1", Some("[::]:2"), &|_| {}));
        assert!(needs("127.0.0.1:1", None, &|args| args.tls = true));
        assert!(!needs("0.0.0.0:1", None, &|args| args.tls_certificate = Some("c.pem".into())));
        assert!(!needs("0.0.0.0:1", None, &|args| args.no_auth = true));
    }
}
