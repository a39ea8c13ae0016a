//! The certificates of a daemon, which are read again at SIGHUP.

use crate::signals::HangUps;
use oma_api::server::TlsIdentity;
use oma_core::Result;
use oma_nbd::TlsServer;

use super::{DoorArgs, NbdArgs, doors, nbd_port};

/// They are read again as long as this lives.
#[derive(Debug)]
pub struct Identities {
    /// Of the routes.
    pub doors: Option<TlsIdentity>,
    /// Of exports.
    pub nbd: Option<TlsServer>,
    _hang_ups: HangUps,
}

impl Identities {
    /// Reads those that are named.
    ///
    /// # Errors
    /// What the files answer, and when the system refuses to tell of signals.
    pub async fn open(args: &DoorArgs, nbd: &NbdArgs) -> Result<Self> {
        let (doors, nbd) = (doors::identity(args)?, nbd_port::identity(nbd).await?);
        let again = (doors.clone(), nbd.clone());
        let hang_ups = HangUps::listen(move || {
            let (doors, nbd) = again.clone();
            async move {
                doors::reload(doors).await;
                nbd_port::reload(nbd).await;
            }
        })?;
        Ok(Self { doors, nbd, _hang_ups: hang_ups })
    }
}
