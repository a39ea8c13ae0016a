use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::record::{
    AccessToken, Attempt, AttemptLimits, AttemptSubject, Bearer, Credentials, Email, Login, TokenHash,
    TokenSpec, User, UserChange, UserSpec,
};
use crate::{JobId, Result, Timestamp, TokenId, UserId};

/// Users, their tokens and sessions, and how often somebody tried to log in: one set for all programs on one database.
///
/// Passwords and secrets of tokens never come here, only their hashes (L29).
#[async_trait]
pub trait Accounts: fmt::Debug + Send + Sync + 'static {
    /// Adds a user, who is active.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one of this address.
    async fn add_user(&self, spec: &UserSpec) -> Result<User>;

    /// Adds the first user with a token, both or neither. `None`, and nothing is done, when there is any user: of many at once
    /// one adds it.
    ///
    /// # Errors
    /// `Invalid` when the token may more than the user.
    async fn add_first_user(&self, spec: &UserSpec, token: &TokenSpec)
    -> Result<Option<(User, AccessToken)>>;

    /// A user; none of an unknown number.
    async fn user(&self, id: UserId) -> Result<Option<User>>;

    /// The user of an address, with what its password is checked against; none of an unknown one.
    async fn credentials(&self, email: &Email) -> Result<Option<Credentials>>;

    /// The users behind a number, or all, by number.
    fn users(&self, after: Option<UserId>) -> BoxStream<'_, Result<User>>;

    /// Changes a user. A new password, or being deactivated, ends all its sessions at once; its other tokens are good again
    /// when it is active again.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when no active admin would be left: of two at once that are the last two, one is refused.
    async fn change_user(&self, id: UserId, change: &UserChange) -> Result<User>;

    /// Takes a user out, with its tokens. Idempotent: an unknown one is `Ok`.
    ///
    /// # Errors
    /// `Conflict` when no active admin would be left, or when runs or tickets are the user's: deactivate it then.
    async fn remove_user(&self, id: UserId) -> Result<()>;

    /// Counts an attempt to log in before it is made, so that many at once are no more than the limit, on however many
    /// programs. What was counted longer ago than the window counts no more; a lock ends by itself.
    async fn attempt(&self, subject: &AttemptSubject, limits: &AttemptLimits) -> Result<Attempt>;

    /// Records a login whose password was right: the session is made, the user's last login is now, and the attempts of the
    /// subject are forgotten.
    ///
    /// # Errors
    /// `PermissionDenied` when the user is not there or not active any more, or its password is another by now; `Invalid` when
    /// the session may more than the user.
    async fn log_in(&self, login: &Login) -> Result<AccessToken>;

    /// Makes a token for a user.
    ///
    /// # Errors
    /// `NotFound` for an unknown user or job; `Conflict` for a user who is not active; `Invalid` when the token may more than the
    /// user; `AlreadyExists` when the id or the hash is taken.
    async fn mint(&self, user: UserId, spec: &TokenSpec) -> Result<AccessToken>;

    /// Who has the token with this hash; nobody when it is unknown, expired or revoked, or its user not active, from the moment
    /// that any program recorded so. Notes that it was used.
    async fn bearer(&self, hash: &TokenHash) -> Result<Option<Bearer>>;

    /// A token; none of an unknown id.
    async fn token(&self, id: &TokenId) -> Result<Option<AccessToken>>;

    /// The tokens and sessions of one user, or of all, behind an id, or all, by id; also those that are not good any more.
    fn tokens(&self, user: Option<UserId>, after: Option<TokenId>) -> BoxStream<'_, Result<AccessToken>>;

    /// Revokes a token, or ends a session. Idempotent: it stays revoked since the first time.
    ///
    /// # Errors
    /// `NotFound`.
    async fn revoke(&self, id: &TokenId) -> Result<AccessToken>;

    /// Lets the bearer of a token see a job as an agent: one that it created. Idempotent.
    ///
    /// # Errors
    /// `NotFound` for an unknown token or job.
    async fn grant(&self, token: &TokenId, job: &JobId) -> Result<()>;

    /// Forgets tokens that expired or were revoked, and attempts whose window and lock ended, before a time. Answers how many
    /// tokens that were.
    async fn tidy(&self, before: Timestamp) -> Result<u64>;
}
