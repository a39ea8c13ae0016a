//! The certificates of a daemon, which are read again at SIGHUP; those of its own authority are made anew in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::data_dir::DataDir;
use crate::output;
use crate::signals::HangUps;
use oma_api::server::TlsIdentity;
use oma_core::Result;
use oma_nbd::TlsServer;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::own::Own;
use super::{DoorArgs, NbdArgs, doors, nbd_port};

/// How often it is looked whether certificates of the own authority are due.
const LOOKED_AT: Duration = Duration::from_hours(12);
/// How soon a client of NBD whose certificate was revoked is refused.
const HEEDED_WITHIN: Duration = Duration::from_secs(1);

/// They are read again as long as this lives.
#[derive(Debug)]
pub struct Identities {
    /// Of the routes.
    pub doors: Option<TlsIdentity>,
    /// Of exports.
    pub nbd: Option<TlsServer>,
    _hang_ups: HangUps,
    _looking: JoinSet<()>,
}

/// What can be read again.
#[derive(Clone, Debug)]
struct Read {
    own: Option<Arc<Own>>,
    doors: Option<TlsIdentity>,
    nbd: Option<TlsServer>,
}

impl Identities {
    /// Reads those that are named, and makes those that are needed and not named: for `args`, a port `beside` with the same clients, and
    /// `nbd`. The data directory is locked.
    ///
    /// # Errors
    /// What the files answer, and when the system refuses to tell of signals.
    pub async fn open(
        data: &DataDir,
        args: &DoorArgs,
        nbd: &NbdArgs,
        beside: Option<SocketAddr>,
    ) -> Result<Self> {
        if args.is_far(beside) && nbd.is_here_only() {
            output::note(
                "others reach the API, and NBD on this machine only: agents and volume clients elsewhere cannot open what it serves; name an \
                 address and a name that they reach with nbd.listen and nbd.host (--nbd-listen, --nbd-host), or nbd.listen = \"none\"",
            );
        }
        let for_doors = args.needs_own(beside);
        let own = (for_doors || nbd.needs_own()).then(|| Own::open(data, args, nbd, beside)).transpose()?;
        let doors = match &own {
            Some(own) if for_doors => Some(own.identity()?),
            _ => doors::identity(args)?,
        };
        let nbd = nbd_port::identity(nbd, own.as_ref()).await?;
        let read = Read { own: own.map(Arc::new), doors: doors.clone(), nbd: nbd.clone() };
        let mut looking = JoinSet::new();
        if read.own.is_some() {
            looking.spawn(read.clone().keep(LOOKED_AT));
        }
        if let Some(nbd) = &read.nbd {
            looking.spawn(nbd_port::heed_revoked(nbd.clone(), HEEDED_WITHIN));
        }
        let hang_ups = HangUps::listen(move || {
            let read = read.clone();
            async move {
                read.renew();
                read.again().await;
            }
        })?;
        Ok(Self { doors, nbd, _hang_ups: hang_ups, _looking: looking })
    }
}

impl Read {
    /// Renews for ever, where a look after each pause finds that it is due.
    async fn keep(self, pause: Duration) {
        let mut looks = tokio::time::interval(pause);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.renew() {
                self.again().await;
            }
        }
    }

    /// Whether the own authority has made something anew.
    fn renew(&self) -> bool {
        let renewed = self.own.as_ref().map_or(Ok(false), |own| own.renew());
        renewed.unwrap_or_else(|error| {
            output::note(format_args!("the own certificate is not renewed: {}", error.chain()));
            false
        })
    }

    async fn again(&self) {
        doors::reload(self.doors.clone()).await;
        nbd_port::reload(self.nbd.clone()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn what_is_due_is_made_anew_while_the_daemon_serves() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::new(folder.path()).unwrap();
        let args = DoorArgs { tls: true, ..DoorArgs::default() };
        let own = Own::open(&data, &args, &NbdArgs::default(), None).unwrap();
        let doors = own.identity().unwrap();
        let read = Read { own: Some(Arc::new(own)), doors: Some(doors), nbd: None };
        let certificate = data.tls().join("server-cert.pem");
        let before = fs::read_to_string(&certificate).unwrap();
        let mut keeping = JoinSet::new();
        keeping.spawn(read.keep(Duration::from_millis(1)));
        fs::remove_file(&certificate).unwrap();
        let made = async {
            while !certificate.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), made).await.expect("it is made anew");
        assert!(fs::read_to_string(&certificate).unwrap() != before);
    }
}
