//! Tokens and sessions of accounts let in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
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

/// Makes the first user, an admin without a password, and a token for it: its secret, to be shown once. `None` when there is any user
/// already; of many programs that start at once one makes it.
///
/// # Errors
/// `Invalid` for a text that is no address; what the store answers.
pub async fn first_admin(
    accounts: &dyn Accounts,
    audit: &dyn AuditLog,
    email: &str,
    lifetime: Duration,
) -> Result<Option<NewToken>> {
    let address = Email::parse(email)
        .map_err(|error| Error::new(ErrorKind::Invalid, "add the first user", email).with_source(error))?;
    let secret = NewToken::mint();
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
    let Some((user, token)) = accounts.add_first_user(&spec, &token).await? else {
        return Ok(None);
    };
    let entry = AuditEntry {
        actor: "oma".to_owned(),
        user: Some(user.id),
        action: "user.create".to_owned(),
        resource_type: "user".to_owned(),
        resource_id: user.email.to_string(),
        new: Some(
            json!({ "role": user.role, "token": token.id, "expires_at": token.expires_at.to_string() }),
        ),
        ..AuditEntry::default()
    };
    audit.audit(&entry).await?;
    Ok(Some(secret))
}
