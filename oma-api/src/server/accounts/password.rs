//! Passwords: bcrypt of cost 12, a quarter of a second of one processor, on threads that may block.

use std::sync::Arc;

use oma_core::record::PasswordHash;
use oma_core::{Error, ErrorKind, Result, Retry};
use tokio::sync::Semaphore;

use crate::Secret;

/// Each step doubles the work (seed 004).
const COST: u32 = 12;
/// Characters.
const SHORTEST: usize = 12;
/// Bytes: bcrypt looks at no more.
const LONGEST: usize = 72;
/// Who logs in keeps no more threads busy than this, whoever else has work for them.
const AT_ONCE: usize = 4;

/// Makes and checks hashes of passwords. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Passwords {
    cost: u32,
    /// Of a password that nobody has: what is typed for an unknown account is checked against it, so that it takes as long.
    nobodys: PasswordHash,
    turns: Arc<Semaphore>,
}

impl Passwords {
    /// With the cost that is meant for use.
    ///
    /// # Errors
    /// `Unavailable` when the system has no random numbers.
    pub async fn new() -> Result<Self> {
        Self::of_cost(COST).await
    }

    /// With a lower cost, for tests.
    ///
    /// # Errors
    /// As [`Passwords::new`]; `Invalid` for a cost that bcrypt does not have.
    pub async fn of_cost(cost: u32) -> Result<Self> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut passwords = Self { cost, nobodys: PasswordHash::none(), turns };
        passwords.nobodys = passwords.hashed(uuid::Uuid::new_v4().to_string()).await?;
        Ok(passwords)
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// `Invalid` for one that is too short or too long.
    pub async fn hash(&self, password: &Secret) -> Result<PasswordHash> {
        let refused = |reason: String| Error::new(ErrorKind::Invalid, "take", "a password").because(reason);
        if password.reveal().chars().count() < SHORTEST {
            return Err(refused(format!("it has fewer than {SHORTEST} characters; take a longer one")));
        }
        let bytes = password.reveal().len();
        if bytes > LONGEST {
            return Err(refused(format!(
                "it has {bytes} bytes, and more than {LONGEST} would not be looked at; take a shorter one"
            )));
        }
        if password.reveal().contains('\0') {
            return Err(refused("it has a NUL; take another one".to_owned()));
        }
        self.hashed(password.reveal().to_owned()).await
    }

    /// Whether it is the password of an account; `None` for an account that is not there, which takes as long.
    ///
    /// # Errors
    /// `Internal` when the check did not come to its end.
    pub async fn verify(&self, password: &Secret, known: Option<&PasswordHash>) -> Result<bool> {
        let typed = password.reveal().to_owned();
        let can_be_right = typed.len() <= LONGEST && !typed.contains('\0');
        let real = known.filter(|hash| can_be_right && hash.reveal().starts_with("$2"));
        let hash = real.unwrap_or(&self.nobodys).reveal().to_owned();
        let is_real = real.is_some();
        let checked = self.blocking(move || bcrypt::verify(typed, &hash)).await?;
        Ok(checked.map_err(|error| failed("check", error))? && is_real)
    }

    async fn hashed(&self, password: String) -> Result<PasswordHash> {
        let cost = self.cost;
        // No longer than it looks at: of 72 bytes only the NUL behind them is cut.
        let hash = self.blocking(move || bcrypt::hash(password, cost)).await?;
        let hash = hash.map_err(|error| failed("hash", error))?;
        PasswordHash::parse(hash).ok_or_else(|| Error::new(ErrorKind::Internal, "hash", "a password"))
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let ended = |_| Error::new(ErrorKind::Internal, "check", "a password").with_retry(Retry::Later);
        let turn = self.turns.clone().acquire_owned().await.map_err(ended)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is done, whoever waits for it.
            let _turn = turn;
            work()
        });
        done.await.map_err(|lost| Error::new(ErrorKind::Internal, "check", "a password").with_source(lost))
    }
}

fn failed(operation: &'static str, error: bcrypt::BcryptError) -> Error {
    let kind = match error {
        bcrypt::BcryptError::CostNotAllowed(_) => ErrorKind::Invalid,
        bcrypt::BcryptError::Rand(_) => ErrorKind::Unavailable,
        bcrypt::BcryptError::InvalidHash(_) => ErrorKind::Corrupt,
        bcrypt::BcryptError::Truncation(_) => ErrorKind::Invalid,
    };
    Error::new(kind, operation, "a password").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_or_wrong_and_none_of_an_unknown_account_is_right() {
        let passwords = Passwords::of_cost(4).await.unwrap();
        let right = Secret::new("correct horse");
        let hash = passwords.hash(&right).await.unwrap();
        assert!(hash.reveal().starts_with("$2b$04$"), "{}", hash.reveal());
        assert!(passwords.verify(&right, Some(&hash)).await.unwrap());
        assert!(!passwords.verify(&Secret::new("correct Horse"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(&right, None).await.unwrap());
        assert!(!passwords.verify(&right, Some(&PasswordHash::none())).await.unwrap());
        assert_ne!(passwords.hash(&right).await.unwrap(), hash, "salted");
    }

    #[tokio::test]
    async fn the_cost_is_that_of_the_seed() {
        let hash = Passwords::new().await.unwrap().nobodys;
        assert!(hash.reveal().starts_with("$2b$12$"), "{}", hash.reveal());
    }

    #[tokio::test]
    async fn what_bcrypt_would_cut_is_refused() {
        let passwords = Passwords::of_cost(4).await.unwrap();
        let longest = Secret::new("ü".repeat(36));
        let hash = passwords.hash(&longest).await.unwrap();
        assert!(passwords.verify(&longest, Some(&hash)).await.unwrap());
        for (wrong, told) in
            [("ü".repeat(36) + "x", "73 bytes"), ("short".to_owned(), "fewer"), ("\0".repeat(20), "NUL")]
        {
            let error = passwords.hash(&Secret::new(wrong.clone())).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains(told) && !error.chain().contains(&wrong), "{}", error.chain());
            assert!(!passwords.verify(&Secret::new(wrong), Some(&hash)).await.unwrap());
        }
    }
}
