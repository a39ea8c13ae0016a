//! Whether the cloud has what replication will need. It is looked at beside everything else: a daemon is of use without its cloud, too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oma_api::server::Readiness;
use oma_core::engine::CancellationToken;
use oma_core::{Error, ErrorKind, Result};
use oma_volume::cloudstack::{CloudStackBackend, Preflight, Verdict};

use super::{Backend, BackendArgs, backend};

/// How often it is looked at again until nothing is lacking.
const AGAIN: Duration = Duration::from_mins(5);

/// What the cloud lacks, where volumes live in one.
#[derive(Debug)]
pub(super) struct CloudCheck {
    cloud: Option<CloudStackBackend>,
    lacking: Arc<Mutex<Vec<String>>>,
}

impl CloudCheck {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// What the cloud's description and keys answer.
    pub(super) fn open(args: &BackendArgs) -> Result<Self> {
        let is_cloud = args.backend == Backend::Cloudstack;
        let cloud = is_cloud.then(|| backend::cloudstack(args)).transpose()?;
        Ok(Self { cloud, lacking: Arc::default() })
    }

    /// The same, and a cloud in which nothing was found to be lacking, where there is one.
    pub(super) fn needed_by(&self, readiness: Readiness) -> Readiness {
        if self.cloud.is_none() {
            return readiness;
        }
        let lacking = Arc::clone(&self.lacking);
        readiness.needing("cloud", move || {
            let found = lacking.lock().unwrap_or_else(PoisonError::into_inner).join("; ");
            async move {
                match found.is_empty() {
                    true => Ok(()),
                    false => Err(Error::new(ErrorKind::Conflict, "use", "CloudStack").because(found)),
                }
            }
        })
    }

    /// Looks until nothing is lacking, or until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let Some(cloud) = &self.cloud else { return };
        let look = async {
            while !self.note(cloud.preflight().await) {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = look => {}
            () = stop.cancelled() => {}
        }
    }

    /// Tells the log, and whether that was all.
    fn note(&self, found: Result<Preflight>) -> bool {
        let findings = match found {
            Ok(found) => found.findings,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the cloud could not be asked what it has");
                return false;
            }
        };
        let mut lacking = Vec::new();
        for finding in findings {
            match finding.verdict {
                Verdict::Good => tracing::info!(check = ?finding.check, "{finding}"),
                Verdict::Doubtful => tracing::warn!(check = ?finding.check, "{finding}"),
                Verdict::Failed => {
                    tracing::warn!(check = ?finding.check, "{finding}");
                    lacking.push(finding.text);
                }
            }
        }
        let is_all = lacking.is_empty();
        *self.lacking.lock().unwrap_or_else(PoisonError::into_inner) = lacking;
        is_all
    }
}

#[cfg(test)]
mod tests {
    use oma_volume::cloudstack::{Check, CloudStackConfig, Finding, Keys};

    use super::*;

    /// Nobody is there.
    fn check() -> CloudCheck {
        let config = CloudStackConfig::new("http://127.0.0.1:1/client/api", "zone", "offering", "vm");
        let cloud = CloudStackBackend::new(config, Keys::new("api", "secret").unwrap()).unwrap();
        CloudCheck { cloud: Some(cloud), lacking: Arc::default() }
    }

    fn finding(verdict: Verdict) -> Finding {
        Finding { check: Check::Commands, verdict, text: "the role lacks detachVolume".to_owned() }
    }

    #[tokio::test]
    async fn what_the_cloud_lacks_is_missing_until_it_is_there() {
        let check = check();
        for (verdict, is_all) in [(Verdict::Failed, false), (Verdict::Doubtful, true), (Verdict::Good, true)]
        {
            let findings = vec![finding(Verdict::Good), finding(verdict)];
            assert_eq!(check.note(Ok(Preflight { findings })), is_all, "{verdict:?}");
            let missing = check.needed_by(Readiness::new()).missing().await;
            assert_eq!(missing.contains(&"cloud"), !is_all, "{verdict:?}");
        }
    }

    #[tokio::test]
    async fn a_cloud_that_cannot_be_asked_is_asked_again_and_ends_nothing() {
        let check = check();
        assert!(!check.note(check.cloud.as_ref().unwrap().preflight().await));
        assert_eq!(
            check.needed_by(Readiness::new()).missing().await,
            [""; 0],
            "nothing is known to be lacking"
        );
        let stop = CancellationToken::new();
        let ends = async { stop.cancel() };
        tokio::join!(check.run(&stop), ends);
    }

    #[tokio::test]
    async fn volumes_elsewhere_need_no_cloud() {
        let check = CloudCheck { cloud: None, lacking: Arc::default() };
        check.run(&CancellationToken::new()).await;
        check.note(Ok(Preflight { findings: vec![finding(Verdict::Failed)] }));
        assert_eq!(check.needed_by(Readiness::new()).missing().await, [""; 0]);
    }
}
