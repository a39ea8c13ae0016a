//! Users, their tokens and sessions, and attempts to log in.

mod attempts;
mod tokens;
mod users;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use oma_core::record::{
    AccessToken, Attempt, AttemptLimits, AttemptSubject, Bearer, Credentials, Email, Login, TokenHash,
    TokenSpec, User, UserChange, UserSpec,
};
use oma_core::traits::Accounts;
use oma_core::{JobId, Timestamp, TokenId, UserId};

use crate::page::{PAGE, pages};
use crate::store::SqlStore;

#[async_trait]
impl Accounts for SqlStore {
    async fn add_user(&self, spec: &UserSpec) -> oma_core::Result<User> {
        let added = self.settled(|| self.insert_user(spec)).await;
        added.map_err(|error| error.at("add user", &spec.email))
    }

    async fn add_first_user(
        &self,
        spec: &UserSpec,
        token: &TokenSpec,
    ) -> oma_core::Result<Option<(User, AccessToken)>> {
        let added = self.settled(|| self.insert_first_user(spec, token)).await;
        added.map_err(|error| error.at("add the first user", &spec.email))
    }

    async fn user(&self, id: UserId) -> oma_core::Result<Option<User>> {
        self.find_user(id).await.map_err(|error| error.at("read user", id))
    }

    async fn credentials(&self, email: &Email) -> oma_core::Result<Option<Credentials>> {
        self.find_credentials(email).await.map_err(|error| error.at("read user", email))
    }

    fn users(&self, after: Option<UserId>) -> BoxStream<'_, oma_core::Result<User>> {
        let page = async move |behind| {
            let page = self.user_page(behind, PAGE).await;
            page.map_err(|error| error.at("list", "users"))
        };
        pages(after, |last: &User| last.id, page)
    }

    async fn change_user(&self, id: UserId, change: &UserChange) -> oma_core::Result<User> {
        self.settled(|| self.update_user(id, change)).await.map_err(|error| error.at("change user", id))
    }

    async fn remove_user(&self, id: UserId) -> oma_core::Result<()> {
        self.settled(|| self.delete_user(id)).await.map_err(|error| error.at("remove user", id))
    }

    async fn attempt(&self, subject: &AttemptSubject, limits: &AttemptLimits) -> oma_core::Result<Attempt> {
        let counted = self.settled(|| self.count_attempt(subject, limits)).await;
        counted.map_err(|error| error.at("count", "an attempt to log in"))
    }

    async fn log_in(&self, login: &Login) -> oma_core::Result<AccessToken> {
        let session = self.settled(|| self.begin_session(login)).await;
        session.map_err(|error| error.at("log in user", login.user))
    }

    async fn mint(&self, user: UserId, spec: &TokenSpec) -> oma_core::Result<AccessToken> {
        let made = self.settled(|| self.insert_token(user, spec)).await;
        made.map_err(|error| error.at("make a token for user", user))
    }

    async fn bearer(&self, hash: &TokenHash) -> oma_core::Result<Option<Bearer>> {
        self.find_bearer(hash).await.map_err(|error| error.at("look for", "a token"))
    }

    async fn token(&self, id: &TokenId) -> oma_core::Result<Option<AccessToken>> {
        self.find_token(id).await.map_err(|error| error.at("read token", id))
    }

    fn tokens(
        &self,
        user: Option<UserId>,
        after: Option<TokenId>,
    ) -> BoxStream<'_, oma_core::Result<AccessToken>> {
        let page = move |behind| async move {
            let page = self.token_page(user, behind, PAGE).await;
            page.map_err(|error| error.at("list", "tokens"))
        };
        pages(after, |last: &AccessToken| last.id.clone(), page)
    }

    async fn revoke(&self, id: &TokenId) -> oma_core::Result<AccessToken> {
        self.settled(|| self.revoke_token(id)).await.map_err(|error| error.at("revoke token", id))
    }

    async fn grant(&self, token: &TokenId, job: &JobId) -> oma_core::Result<()> {
        let granted = self.settled(|| self.grant_job(token, job)).await;
        granted.map_err(|error| error.at("let a token see job", job))
    }

    async fn tidy(&self, before: Timestamp) -> oma_core::Result<u64> {
        self.settled(|| self.forget(before)).await.map_err(|error| error.at("forget", "old tokens"))
    }
}
