//! Accounts of an appliance, as an admin's program asks for them.

use oma_core::{Result, TokenId, UserId};
use reqwest::Method;

use super::appliance::Appliance;
use super::http::Asked;
use crate::{ChangeUser, CreateToken, CreateUser, NewTokenRow, TokenRow, UserRow};

impl Appliance {
    /// All users.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn users(&self) -> Result<Vec<UserRow>> {
        self.all(&["users"], &[], "the list of users").await
    }

    /// Adds a user. The same key and request answer the same user.
    ///
    /// # Errors
    /// `AlreadyExists` for an address that another user has; `Invalid` for an address or a password that can be none; as
    /// [`Appliance::begin`].
    pub async fn add_user(&self, key: &str, user: &CreateUser) -> Result<UserRow> {
        let asked = Asked { key: Some(key), body: Some(user), ..Asked::default() };
        self.ask(Method::POST, &["users"], asked, &user.email).await
    }

    /// Changes a user. Its sessions end with a new password, and when it is not active any more.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when no active admin would be left; as [`Appliance::add_user`].
    pub async fn change_user(&self, id: UserId, change: &ChangeUser) -> Result<UserRow> {
        let asked = Asked { body: Some(change), ..Asked::default() };
        self.ask(Method::PATCH, &["users", &id.to_string()], asked, &id).await
    }

    /// Makes a token, whose secret is in this answer alone.
    ///
    /// # Errors
    /// `AlreadyExists` for a key that was used before: its secret is gone, and the error names the token to revoke; `Invalid` for a role
    /// that its user does not have; as [`Appliance::begin`].
    pub async fn make_token(&self, key: &str, token: &CreateToken) -> Result<NewTokenRow> {
        let asked = Asked { key: Some(key), body: Some(token), ..Asked::default() };
        self.ask(Method::POST, &["tokens"], asked, &token.name).await
    }

    /// The tokens and sessions of a user, or of all, without their secrets; also those that ended of late.
    ///
    /// # Errors
    /// As [`Appliance::begin`].
    pub async fn tokens(&self, of: Option<UserId>) -> Result<Vec<TokenRow>> {
        let of = of.map(|user| user.to_string());
        let wanted: Vec<_> = of.iter().map(|user| ("user_id", user.as_str())).collect();
        self.all(&["tokens"], &wanted, "the list of tokens").await
    }

    /// A token or session, without its secret.
    ///
    /// # Errors
    /// `NotFound`; as [`Appliance::begin`].
    pub async fn token(&self, id: &TokenId) -> Result<TokenRow> {
        self.ask(Method::GET, &["tokens", id.as_str()], Asked::<()>::default(), id).await
    }

    /// Revokes a token, or ends a session, at once. Revoked already, it stays so.
    ///
    /// # Errors
    /// As [`Appliance::token`].
    pub async fn revoke_token(&self, id: &TokenId) -> Result<()> {
        self.remove(&["tokens", id.as_str()], id).await
    }
}
