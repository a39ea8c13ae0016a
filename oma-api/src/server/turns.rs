//! One at a time of those who are about the same thing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Turns, by the name of what they are about. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>);

impl Turns {
    /// Waits until nobody else has the turn of this thing; it ends with what is answered.
    pub(super) async fn take(&self, thing: &str) -> OwnedMutexGuard<()> {
        self.of(thing).lock_owned().await
    }

    fn of(&self, thing: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(thing).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(thing.to_owned(), Arc::downgrade(&turn));
        turn
    }
}
