//! Volumes of an appliance, as an operator's program looks at them and changes single ones.

use std::time::Duration;

use oma_core::engine::{ReconcilePlan, Reconciled};
use oma_core::{ByteSize, OperationId, Result, VolumeId};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::{CallOff, Compared, OperationRow, ResizeVolume, VolumeRow, WhenAttached};

/// No route waits for longer.
const LONGEST: Duration = Duration::from_mins(5);

/// What is to become of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeWanted {
    /// It has a device at the appliance.
    Attached,
    /// It has none.
    Detached,
    /// It is at least so large.
    Resized(ByteSize),
    /// It is gone; condemned when it ever held an epoch. One that is attached is detached before, or the deletion is a `Conflict`.
    Deleted(WhenAttached),
}

impl Appliance {
    /// All volumes, in the order of their ids.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn volumes(&self) -> Result<Vec<VolumeRow>> {
        self.all(&["volumes"], &[], "the list of volumes").await
    }

    /// A volume.
    ///
    /// # Errors
    /// `NotFound`; as [`Appliance::begin`].
    pub async fn volume(&self, id: &VolumeId) -> Result<VolumeRow> {
        self.ask(Method::GET, &["volumes", id.as_str()], Asked::<()>::default(), id).await
    }

    /// What was asked for of all volumes, or of one, the newest first.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn operations(&self, volume: Option<&VolumeId>) -> Result<Vec<OperationRow>> {
        let wanted: Vec<_> = volume.map(|volume| ("volume_id", volume.as_str())).into_iter().collect();
        self.all(&["operations"], &wanted, "the list of operations").await
    }

    /// An operation once it has ended or is pending, or as it is after so long, five minutes at most.
    ///
    /// # Errors
    /// `NotFound`; as [`Appliance::begin`].
    pub async fn operation(&self, id: &OperationId, within: Duration) -> Result<OperationRow> {
        let within = within.min(LONGEST);
        let wait = wait(within);
        let query = [("wait", wait.as_str())];
        let asked = Asked::<()> { query: &query, ..Asked::default() };
        self.ask_waiting(within, Method::GET, &["operations", id.as_str()], asked, id).await
    }

    /// Asks for a change of a volume, and answers it as [`Appliance::operation`] does. The same key and change answer the same operation; it
    /// goes on when nobody waits for it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the volume or its VM stands in the way of it; `AlreadyExists` when the key was given to something else;
    /// as [`Appliance::begin`].
    pub async fn change_volume(
        &self,
        key: &OperationId,
        id: &VolumeId,
        wanted: VolumeWanted,
        within: Duration,
    ) -> Result<OperationRow> {
        let within = within.min(LONGEST);
        let wait = wait(within);
        let mut query = vec![("wait", wait.as_str())];
        let size = match wanted {
            VolumeWanted::Resized(size) => Some(ResizeVolume { size }),
            VolumeWanted::Attached | VolumeWanted::Detached | VolumeWanted::Deleted(_) => None,
        };
        let (method, route) = match wanted {
            VolumeWanted::Attached => (Method::POST, Some("attach")),
            VolumeWanted::Detached => (Method::POST, Some("detach")),
            VolumeWanted::Resized(_) => (Method::POST, Some("resize")),
            VolumeWanted::Deleted(_) => (Method::DELETE, None),
        };
        if let VolumeWanted::Deleted(attached) = wanted {
            query.push(("attached", attached.as_str()));
        }
        let path: Vec<&str> = ["volumes", id.as_str()].into_iter().chain(route).collect();
        let asked = Asked { query: &query, key: Some(key.as_str()), body: size.as_ref() };
        self.ask_waiting(within, method, &path, asked, id).await
    }

    /// Calls off the deletion of a condemned volume. Called off already, it is answered as it is.
    ///
    /// # Errors
    /// `Conflict` when it has begun or is none; as [`Appliance::operation`].
    pub async fn pardon(&self, id: &OperationId, why: &CallOff) -> Result<OperationRow> {
        let asked = Asked { body: Some(why), ..Asked::default() };
        self.ask(Method::POST, &["operations", id.as_str(), "pardon"], asked, id).await
    }

    /// Ends an operation in doubt whose backend never answers again. The backend is asked once more before, which may take long.
    ///
    /// # Errors
    /// `Conflict` when it is not in doubt, and when the backend answers after all; as [`Appliance::operation`].
    pub async fn abandon(&self, id: &OperationId, why: &CallOff) -> Result<OperationRow> {
        let asked = Asked { body: Some(why), ..Asked::default() };
        self.ask_long(Method::POST, &["operations", id.as_str(), "abandon"], asked, id).await
    }

    /// Has records and volumes compared in both directions. The backend is asked about each volume: it may take long.
    ///
    /// # Errors
    /// `Busy` while another comparison is under way; as [`Appliance::begin`].
    pub async fn compare(&self) -> Result<Compared> {
        let asked = Asked::<()>::default();
        self.ask_long(Method::GET, &["reconciliation"], asked, &"the comparison of records and volumes").await
    }

    /// Has the steps of a plan done, each while the world is as the plan saw it, and all compared again. Given once more, what is done is
    /// found done.
    ///
    /// # Errors
    /// As [`Appliance::compare`].
    pub async fn repair(&self, plan: &ReconcilePlan) -> Result<Reconciled> {
        let asked = Asked { body: Some(plan), ..Asked::default() };
        self.ask_long(Method::POST, &["reconciliation"], asked, &"the steps of a plan").await
    }
}

/// As routes are told how long to wait.
fn wait(within: Duration) -> String {
    format!("{}ms", within.as_millis())
}
