//! Tokens and sessions of accounts let in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use oma_core::audit::AuditEntry;
use oma_core::record::{Bearer, Email, PasswordHash, TokenHash, TokenSpec, UserSpec};
use oma_core::state::{Role, TokenKind};
use oma_core::traits::{Accounts, AuditLog};
use oma_core::{Error, ErrorKind, Result, TokenId};
use serde_json::json;

use crate::server::access::{Account, Authenticator, Principal};
use crate::server::tokens::NewToken;

/// Knows the tokens and sessions of accounts.
#[derive(Clone, Debug)]
pub struct AccountTokens(Arc<dyn Accounts>);

impl AccountTokens {
    /// Those of these accounts.
    #[must_use]
    pub const fn new(accounts: Arc<dyn Accounts>) -> Self {
        Self(accounts)
    }
}

#[async_trait]
impl Authenticator for AccountTokens {
    async fn principal(&self, token: &str) -> Result<Option<Principal>> {
        let found = self.0.bearer(&TokenHash::of(token)).await?;
        Ok(found.map(|Bearer { user, token, role, jobs }| Principal {
            name: user.email.to_string(),
            role,
            account: Some(Account { user: user.id, token: token.id, kind: token.kind, jobs }),
        }))
    }
}

/// Several that know tokens: the first that knows one says whose it is.
#[derive(Clone, Debug)]
pub struct AnyOf(Vec<Arc<dyn Authenticator>>);

impl AnyOf {
    /// These, asked in this order.
    #[must_use]
    pub const fn new(all: Vec<Arc<dyn Authenticator>>) -> Self {
        Self(all)
    }
}

#[async_trait]
impl Authenticator for AnyOf {
    async fn principal(&self, token: &str) -> Result<Option<Principal>> {
        for one in &self.0 {
            if let Some(principal) = one.principal(token).await? {
                return Ok(Some(principal));
            }
        }
        Ok(None)
    }
}

/// Makes the first user, an admin without a password, and a token for it, whose secret `keep` has kept before anybody is let in by it: a
/// crash leaves no admin whom nobody can be. Answers whether it did; nothing is done when there is any user already, and of many programs
/// that start at once one makes it: what the others kept opens nothing.
///
/// # Errors
/// `Invalid` for a text that is no address; what `keep` and the store answer.
pub async fn first_admin(
    accounts: &dyn Accounts,
    audit: &dyn AuditLog,
    email: &str,
    lifetime: Duration,
    keep: impl FnOnce(&NewToken) -> Result<()> + Send,
) -> Result<bool> {
    let address = Email::parse(email)
        .map_err(|error| Error::new(ErrorKind::Invalid, "add the first user", email).with_source(error))?;
    if accounts.users(None).try_next().await?.is_some() {
        return Ok(false);
    }
    let secret = NewToken::mint();
    keep(&secret)?;
    let spec = UserSpec {
        email: address,
        full_name: "first admin".to_owned(),
        role: Role::Admin,
        password_hash: PasswordHash::none(),
    };
    let token = TokenSpec {
        id: TokenId::mint(),
        kind: TokenKind::Api,
        name: "first start".to_owned(),
        role: Role::Admin,
        hash: TokenHash::of(secret.reveal()),
        jobs: BTreeSet::new(),
        lifetime,
        address: None,
    };
    let entry = AuditEntry {
        actor: "oma".to_owned(),
        action: "user.create".to_owned(),
        resource_type: "user".to_owned(),
        resource_id: spec.email.to_string(),
        new: Some(json!({ "role": spec.role, "token": token.id, "seconds": lifetime.as_secs() })),
        ..AuditEntry::default()
    };
    audit.audit(&entry).await?;
    if accounts.add_first_user(&spec, &token).await?.is_some() {
        return Ok(true);
    }
    let new = Some(json!({ "error": ErrorKind::AlreadyExists.as_str() }));
    audit.audit(&AuditEntry { action: "user.create failed".to_owned(), new, ..entry }).await?;
    Ok(false)
}
