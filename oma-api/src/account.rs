//! Accounts, tokens and the audit trail on the wire.

use std::fmt;

use oma_core::audit::{AuditHead, AuditRecord, Verified};
use oma_core::record::{AccessToken, User};
use oma_core::state::{Role, TokenKind};
use oma_core::{AuditId, JobId, TokenId, UserId};
use serde::{Deserialize, Serialize};

/// What nobody but the receiver may read: hidden in `Debug` (L29).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who wants to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// The address of the account.
    #[cfg_attr(feature = "server", schema(example = "ada@example.com"))]
    pub email: String,
    /// Its password.
    #[cfg_attr(feature = "server", schema(value_type = String, format = Password))]
    pub password: Secret,
}

/// A session that was just begun, or a token that was just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct NewTokenRow {
    /// What to show from now on, as `Authorization: Bearer TOKEN`: the only time that it can be read.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub secret: Secret,
    /// All else about it.
    pub token: TokenRow,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct MeRow {
    /// A name, the address of the account when there is one.
    pub name: String,
    /// What it may do.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub role: Role,
    /// The account, when there is one.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub user_id: Option<UserId>,
    /// The token or session that was shown, when it is of an account.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub token_id: Option<TokenId>,
    /// The jobs that it sees; `None` for all.
    #[cfg_attr(feature = "server", schema(value_type = Option<Vec<String>>))]
    pub jobs: Option<Vec<JobId>>,
}

/// A new password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password so far.
    #[cfg_attr(feature = "server", schema(value_type = String, format = Password))]
    pub current: Secret,
    /// The password from now on: 12 characters at least, 72 bytes at most.
    #[cfg_attr(feature = "server", schema(value_type = String, format = Password))]
    pub new: Secret,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct UserRow {
    /// Its number.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub id: UserId,
    /// Whom it is known by.
    pub email: String,
    /// Its name, for readers.
    pub full_name: String,
    /// What it may do.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub role: Role,
    /// Whether it is let in.
    pub is_active: bool,
    /// When it last logged in, RFC 3339 in UTC.
    pub last_login_at: Option<String>,
    /// When it was added.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

impl From<&User> for UserRow {
    fn from(user: &User) -> Self {
        Self {
            id: user.id,
            email: user.email.to_string(),
            full_name: user.full_name.clone(),
            role: user.role,
            is_active: user.is_active,
            last_login_at: user.last_login_at.map(|at| at.to_string()),
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
        }
    }
}

/// A user to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Whom it is known by, unique whatever its case.
    #[cfg_attr(feature = "server", schema(example = "ada@example.com"))]
    pub email: String,
    /// Its name, for readers.
    #[serde(default)]
    pub full_name: String,
    /// What it may do: `agent`, `viewer`, `operator` or `admin`.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "viewer"))]
    pub role: Role,
    /// Its password: 12 characters at least, 72 bytes at most. Without one it cannot log in, and has tokens only.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, format = Password))]
    pub password: Option<Secret>,
}

/// What is to become of a user; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// Its name, for readers.
    #[serde(default)]
    pub full_name: Option<String>,
    /// What it may do.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub role: Option<Role>,
    /// Whether it is let in; its sessions end when it is not any more.
    #[serde(default)]
    pub is_active: Option<bool>,
    /// A new password; its sessions end.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>, format = Password))]
    pub password: Option<Secret>,
}

/// The id of a token that is made for a user by an `Idempotency-Key`: the same one for the same key, known before it is made.
#[cfg(any(feature = "client", feature = "server"))]
#[must_use]
pub fn token_id(user: UserId, key: &str) -> TokenId {
    let hash = blake3::hash(format!("{user} {key}").as_bytes()).to_hex();
    TokenId::parse(format!("tok-{}", &hash[..32])).expect("36 characters make an id")
}

/// A token or session, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct TokenRow {
    /// Its id.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub id: TokenId,
    /// Whose it is.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub user_id: UserId,
    /// What it is for.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub kind: TokenKind,
    /// What it is called.
    pub name: String,
    /// What it may do at most; never more than its user.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub role: Role,
    /// From where it was asked for.
    pub address: Option<String>,
    /// When it was made, RFC 3339 in UTC.
    pub created_at: String,
    /// When it stops being good.
    pub expires_at: String,
    /// When it was last shown, give or take a minute.
    pub last_used_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
}

impl From<&AccessToken> for TokenRow {
    fn from(token: &AccessToken) -> Self {
        Self {
            id: token.id.clone(),
            user_id: token.user,
            kind: token.kind,
            name: token.name.clone(),
            role: token.role,
            address: token.address.map(|address| address.to_string()),
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.to_string(),
            last_used_at: token.last_used_at.map(|at| at.to_string()),
            revoked_at: token.revoked_at.map(|at| at.to_string()),
        }
    }
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it is called, 1 to 191 characters.
    #[cfg_attr(feature = "server", schema(example = "graphs"))]
    pub name: String,
    /// What it may do at most: no more than its user, and than whoever makes it.
    #[cfg_attr(feature = "server", schema(value_type = String, example = "viewer"))]
    pub role: Role,
    /// How many days it is good.
    #[serde(default = "quarter")]
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 366, default = 90))]
    pub days: u16,
    /// Whose it is to be: another user's only for an admin; without one it is whoever asks.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub user_id: Option<UserId>,
    /// The jobs that it sees as an agent, beside those that it creates.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Vec<String>))]
    pub jobs: Vec<JobId>,
}

const fn quarter() -> u16 {
    90
}

/// An entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct AuditRow {
    /// Its place.
    #[cfg_attr(feature = "server", schema(value_type = u64))]
    pub id: AuditId,
    /// When it was recorded, RFC 3339 in UTC.
    pub at: String,
    /// Who changed it.
    pub actor: Option<String>,
    /// The account of whoever changed it, as long as there is one.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub user_id: Option<UserId>,
    /// What was done.
    pub action: String,
    /// What kind of thing it was done to.
    pub resource_type: String,
    /// Which one.
    pub resource_id: String,
    /// What it was and is to be.
    #[cfg_attr(feature = "server", schema(value_type = Option<Object>))]
    pub details: Option<serde_json::Value>,
    /// From where it was asked for.
    pub address: Option<String>,
    /// Its hash, over the hash of the entry before.
    pub hash: Option<String>,
}

impl From<&AuditRecord> for AuditRow {
    fn from(record: &AuditRecord) -> Self {
        Self {
            id: record.id,
            at: record.at.to_string(),
            actor: record.actor.clone(),
            user_id: record.user,
            action: record.action.clone(),
            resource_type: record.resource_type.clone(),
            resource_id: record.resource_id.clone(),
            details: record.details.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            address: record.address.clone(),
            hash: record.hash.map(|hash| hash.to_string()),
        }
    }
}

/// What reading the whole audit trail gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct AuditVerification {
    /// So many entries are as they were recorded, from the first on.
    pub entries: u64,
    /// The last of them: keep it elsewhere, with its hash, and compare the next time.
    #[cfg_attr(feature = "server", schema(value_type = Option<u64>))]
    pub last_id: Option<AuditId>,
    /// Its hash.
    pub last_hash: Option<String>,
    /// The first place where the trail was tampered with.
    pub broken: Option<String>,
}

impl From<&Verified> for AuditVerification {
    fn from(verified: &Verified) -> Self {
        Self {
            entries: verified.entries,
            last_id: verified.head.map(|AuditHead { id, .. }| id),
            last_hash: verified.head.map(|AuditHead { hash, .. }| hash.to_string()),
            broken: verified.broken.map(|broken| broken.to_string()),
        }
    }
}
