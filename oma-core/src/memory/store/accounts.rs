use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::error::Refusal;
use super::{MemoryStore, State, listed};
use crate::record::{
    AccessToken, Attempt, AttemptLimits, AttemptSubject, Bearer, Credentials, Email, Login, PasswordHash,
    TokenHash, TokenSpec, User, UserChange, UserSpec,
};
use crate::state::{Role, TokenKind};
use crate::traits::Accounts;
use crate::{JobId, Result, Timestamp, TokenId, UserId};

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    last: u64,
    users: BTreeMap<UserId, Credentials>,
    tokens: BTreeMap<TokenId, Token>,
    attempts: BTreeMap<AttemptSubject, Attempts>,
}

#[derive(Clone, Debug)]
struct Token {
    record: AccessToken,
    hash: TokenHash,
    jobs: BTreeSet<JobId>,
}

#[derive(Clone, Debug)]
struct Attempts {
    count: u32,
    /// When what is counted is forgotten.
    until: Timestamp,
}

impl Table {
    fn add(&mut self, spec: &UserSpec, now: Timestamp) -> Result<User, Refusal> {
        if self.users.values().any(|known| known.user.email == spec.email) {
            return Err(Refusal::Taken("address"));
        }
        self.last += 1;
        let user = User {
            id: UserId(self.last),
            email: spec.email.clone(),
            full_name: spec.full_name.clone(),
            role: spec.role,
            is_active: true,
            last_login_at: None,
            created_at: now,
            updated_at: now,
        };
        let credentials = Credentials { user: user.clone(), password_hash: spec.password_hash.clone() };
        self.users.insert(user.id, credentials);
        Ok(user)
    }

    fn known(&self, id: UserId) -> Result<&Credentials, Refusal> {
        self.users.get(&id).ok_or_else(|| Refusal::unknown("user", id))
    }

    /// Refuses what leaves nobody who could let others in.
    fn keeps_an_admin(&self, without: UserId) -> Result<(), Refusal> {
        let is_admin = |user: &User| user.is_active && user.role == Role::Admin;
        let others = self.users.values().any(|known| known.user.id != without && is_admin(&known.user));
        if others || !self.users.get(&without).is_some_and(|known| is_admin(&known.user)) {
            return Ok(());
        }
        Err(Refusal::Stands("no active admin would be left; make another one first"))
    }

    fn mint(&mut self, user: &User, spec: &TokenSpec, now: Timestamp) -> Result<AccessToken, Refusal> {
        if spec.role > user.role {
            return Err(Refusal::Input("a token may not do more than its user"));
        }
        if self.tokens.contains_key(&spec.id) || self.tokens.values().any(|token| token.hash == spec.hash) {
            return Err(Refusal::Taken("token"));
        }
        let record = AccessToken {
            id: spec.id.clone(),
            user: user.id,
            kind: spec.kind,
            name: spec.name.clone(),
            role: spec.role,
            address: spec.address.map(|address| address.to_canonical()),
            created_at: now,
            expires_at: now.after(spec.lifetime),
            last_used_at: None,
            revoked_at: None,
        };
        let token = Token { record: record.clone(), hash: spec.hash, jobs: spec.jobs.clone() };
        self.tokens.insert(spec.id.clone(), token);
        Ok(record)
    }

    fn end_sessions(&mut self, user: UserId, now: Timestamp) {
        let sessions = self.tokens.values_mut().map(|token| &mut token.record);
        for session in sessions.filter(|token| token.user == user && token.kind == TokenKind::Session) {
            session.revoked_at.get_or_insert(now);
        }
    }

    fn attempt(&mut self, subject: &AttemptSubject, limits: &AttemptLimits, now: Timestamp) -> Attempt {
        let fresh = Attempts { count: 0, until: now.after(limits.window) };
        let counted = self.attempts.entry(subject.clone()).or_insert(fresh);
        if counted.until <= now {
            *counted = Attempts { count: 0, until: now.after(limits.window) };
        }
        if counted.count >= limits.attempts {
            return Attempt::Locked { until: counted.until };
        }
        counted.count += 1;
        if counted.count >= limits.attempts {
            counted.until = now.after(limits.lock);
        }
        Attempt::Allowed
    }
}

impl State {
    fn check_jobs(&self, jobs: &BTreeSet<JobId>) -> Result<(), Refusal> {
        match jobs.iter().find(|job| !self.jobs.contains_key(job)) {
            None => Ok(()),
            Some(job) => Err(Refusal::unknown("job", job)),
        }
    }

    fn change_user(&mut self, id: UserId, change: &UserChange, now: Timestamp) -> Result<User, Refusal> {
        let table = &mut self.accounts;
        table.known(id)?;
        let less = change.is_active == Some(false) || change.role.is_some_and(|role| role < Role::Admin);
        if less {
            table.keeps_an_admin(id)?;
        }
        if change.is_active == Some(false) || change.password_hash.is_some() {
            table.end_sessions(id, now);
        }
        let Some(known) = table.users.get_mut(&id) else {
            return Err(Refusal::unknown("user", id));
        };
        let user = &mut known.user;
        user.full_name = change.full_name.clone().unwrap_or_else(|| user.full_name.clone());
        user.role = change.role.unwrap_or(user.role);
        user.is_active = change.is_active.unwrap_or(user.is_active);
        user.updated_at = now;
        known.password_hash = change.password_hash.clone().unwrap_or_else(|| known.password_hash.clone());
        Ok(user.clone())
    }

    fn log_in(&mut self, login: &Login, now: Timestamp) -> Result<AccessToken, Refusal> {
        const OTHER: Refusal = Refusal::Denied("the account has changed meanwhile; log in again");
        let table = &mut self.accounts;
        let is_same = |hash: &PasswordHash| *hash == login.password_hash;
        let known = table.users.get_mut(&login.user).filter(|known| known.user.is_active);
        let known = known.filter(|known| is_same(&known.password_hash)).ok_or(OTHER)?;
        let user = User { last_login_at: Some(now), ..known.user.clone() };
        let session = table.mint(&user, &login.session, now)?;
        table.attempts.remove(&login.subject);
        if let Some(known) = table.users.get_mut(&user.id) {
            known.user = user;
        }
        Ok(session)
    }

    fn bearer(&mut self, hash: &TokenHash, now: Timestamp) -> Option<Bearer> {
        let Table { users, tokens, .. } = &mut self.accounts;
        let token = tokens.values_mut().find(|token| token.hash == *hash)?;
        let user = users.get(&token.record.user).map(|known| &known.user)?;
        if token.record.revoked_at.is_some() || token.record.expires_at <= now || !user.is_active {
            return None;
        }
        token.record.last_used_at = Some(now);
        let role = token.record.role.min(user.role);
        Some(Bearer { user: user.clone(), token: token.record.clone(), role, jobs: token.jobs.clone() })
    }
}

#[async_trait]
impl Accounts for MemoryStore {
    async fn add_user(&self, spec: &UserSpec) -> Result<User> {
        self.change("add user", &spec.email, |state, now| state.accounts.add(spec, now))
    }

    async fn add_first_user(
        &self,
        spec: &UserSpec,
        token: &TokenSpec,
    ) -> Result<Option<(User, AccessToken)>> {
        self.change("add the first user", &spec.email, |state, now| {
            if !state.accounts.users.is_empty() {
                return Ok(None);
            }
            if token.role > spec.role {
                return Err(Refusal::Input("a token may not do more than its user"));
            }
            state.check_jobs(&token.jobs)?;
            let user = state.accounts.add(spec, now)?;
            let token = state.accounts.mint(&user, token, now)?;
            Ok(Some((user, token)))
        })
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        Ok(self.state().accounts.users.get(&id).map(|known| known.user.clone()))
    }

    async fn credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        Ok(self.state().accounts.users.values().find(|known| known.user.email == *email).cloned())
    }

    fn users(&self, after: Option<UserId>) -> BoxStream<'_, Result<User>> {
        let state = self.state();
        let users = state.accounts.users.values().map(|known| known.user.clone());
        listed(users.filter(|user| after.is_none_or(|after| user.id > after)).collect())
    }

    async fn change_user(&self, id: UserId, change: &UserChange) -> Result<User> {
        self.change("change user", &id, |state, now| state.change_user(id, change, now))
    }

    async fn remove_user(&self, id: UserId) -> Result<()> {
        self.change("remove user", &id, |state, _| {
            state.accounts.keeps_an_admin(id)?;
            state.accounts.users.remove(&id);
            state.accounts.tokens.retain(|_, token| token.record.user != id);
            state.forget_actor(id);
            Ok(())
        })
    }

    async fn attempt(&self, subject: &AttemptSubject, limits: &AttemptLimits) -> Result<Attempt> {
        self.change("count", &"an attempt to log in", |state, now| {
            Ok(state.accounts.attempt(subject, limits, now))
        })
    }

    async fn log_in(&self, login: &Login) -> Result<AccessToken> {
        self.change("log in user", &login.user, |state, now| state.log_in(login, now))
    }

    async fn mint(&self, user: UserId, spec: &TokenSpec) -> Result<AccessToken> {
        self.change("make a token for user", &user, |state, now| {
            let known = state.accounts.known(user)?.user.clone();
            if !known.is_active {
                return Err(Refusal::Stands("the user is not active; activate it first"));
            }
            state.check_jobs(&spec.jobs)?;
            state.accounts.mint(&known, spec, now)
        })
    }

    async fn bearer(&self, hash: &TokenHash) -> Result<Option<Bearer>> {
        self.change("look for", &"a token", |state, now| Ok(state.bearer(hash, now)))
    }

    async fn token(&self, id: &TokenId) -> Result<Option<AccessToken>> {
        Ok(self.state().accounts.tokens.get(id).map(|token| token.record.clone()))
    }

    fn tokens(&self, user: Option<UserId>, after: Option<TokenId>) -> BoxStream<'_, Result<AccessToken>> {
        let state = self.state();
        let tokens = state.accounts.tokens.values().map(|token| token.record.clone());
        let is_behind = |token: &AccessToken| after.as_ref().is_none_or(|after| token.id > *after);
        let is_wanted = |token: &AccessToken| user.is_none_or(|user| token.user == user) && is_behind(token);
        listed(tokens.filter(is_wanted).collect())
    }

    async fn revoke(&self, id: &TokenId) -> Result<AccessToken> {
        self.change("revoke token", id, |state, now| {
            let found = state.accounts.tokens.get_mut(id).ok_or_else(|| Refusal::unknown("token", id))?;
            found.record.revoked_at.get_or_insert(now);
            Ok(found.record.clone())
        })
    }

    async fn grant(&self, token: &TokenId, job: &JobId) -> Result<()> {
        self.change("let a token see job", job, |state, _| {
            state.check_jobs(&BTreeSet::from([job.clone()]))?;
            let found =
                state.accounts.tokens.get_mut(token).ok_or_else(|| Refusal::unknown("token", token))?;
            found.jobs.insert(job.clone());
            Ok(())
        })
    }

    async fn tidy(&self, before: Timestamp) -> Result<u64> {
        self.change("forget", &"old tokens", |state, _| {
            let table = &mut state.accounts;
            let count = table.tokens.len();
            let is_old = |at: Timestamp| at < before;
            table.tokens.retain(|_, token| {
                !is_old(token.record.expires_at) && !token.record.revoked_at.is_some_and(is_old)
            });
            table.attempts.retain(|_, counted| !is_old(counted.until));
            Ok(u64::try_from(count - table.tokens.len()).unwrap_or(u64::MAX))
        })
    }
}
