use oma_core::Retry;
use tokio::time::sleep;

use super::error::CloudError;
use super::pauses::Pauses;

/// How often a change that did not come to be is asked for in one call.
const TRIES: usize = 3;

/// Counts commands whose outcome only the thing itself tells: asked for, looked at, asked for again.
#[derive(Debug)]
pub(super) struct Tries {
    left: usize,
    last: Option<CloudError>,
    pauses: Pauses,
}

impl Tries {
    pub(super) const fn new(pauses: Pauses) -> Self {
        Self { left: TRIES, last: None, pauses }
    }

    /// Before the command is sent: the thing is not as it should be.
    pub(super) fn begin(&mut self) -> Result<(), CloudError> {
        if self.left == 0 {
            return Err(self.last.take().unwrap_or(CloudError::NoEffect(TRIES)));
        }
        self.left -= 1;
        Ok(())
    }

    /// After it was sent, where sending it again does no harm: a volume is deleted once.
    pub(super) async fn ended_or_lost<T>(
        &mut self,
        outcome: Result<T, CloudError>,
    ) -> Result<(), CloudError> {
        match outcome {
            Err(error) if error.is_uncertain() => {
                sleep(self.pauses.next_pause()).await;
                self.last = Some(error);
                Ok(())
            }
            outcome => self.ended(outcome).await,
        }
    }

    /// After it was sent. What was refused for good is looked at once more: a rival may have done it.
    pub(super) async fn ended<T>(&mut self, outcome: Result<T, CloudError>) -> Result<(), CloudError> {
        let Err(error) = outcome else {
            self.last = None;
            return Ok(());
        };
        let is_sure = !error.is_told_by_the_thing() && !error.is_unheard_of();
        match (is_sure, error.refusal().map(|refusal| refusal.judgement().1)) {
            (true, None) => return Err(error),
            (true, Some(Retry::Never | Retry::Exhausted)) => self.left = 0,
            (_, _) => sleep(self.pauses.next_pause()).await,
        }
        self.last = Some(error);
        Ok(())
    }
}
