use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::state::{Role, TokenKind};
use crate::{JobId, Timestamp, TokenId, UserId};

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no email address: it reads `name@host`, has no space and at most 191 characters")]
pub struct EmailError(String);

/// An email address, in lower case: whom a user is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

impl Email {
    /// As many characters as a database key holds.
    const LONGEST: usize = 191;

    /// Takes an address in whatever case.
    ///
    /// # Errors
    /// A text that is none.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let lower = text.to_lowercase();
        let has_both = lower
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
        let is_odd = lower.contains(|c: char| c.is_whitespace() || c.is_control());
        if has_both && !is_odd && lower.chars().count() <= Self::LONGEST {
            return Ok(Self(lower));
        }
        Err(EmailError(text.to_owned()))
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Email {
    type Err = EmailError;
    fn from_str(text: &str) -> Result<Self, EmailError> {
        Self::parse(text)
    }
}

/// The hash of a password in its own notation (`$2b$12$…`); never the password. Hidden in `Debug` (L29).
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes a text that is such a hash: `None` for any other, which might be a password.
    #[must_use]
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (text.starts_with('$') && text.len() <= 255).then_some(Self(text))
    }

    /// One that no password has: for who logs in by token only.
    #[must_use]
    pub fn none() -> Self {
        Self("$none$".to_owned())
    }

    /// The hash as text, for whoever stores or checks it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A user to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    /// Whom it is known by, unique.
    pub email: Email,
    /// Its name, for readers.
    pub full_name: String,
    /// What it may do.
    pub role: Role,
    /// Of its password.
    pub password_hash: PasswordHash,
}

/// Somebody with an account (`users`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: UserId,
    /// Whom it is known by, unique.
    pub email: Email,
    /// Its name, for readers.
    pub full_name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it is let in.
    pub is_active: bool,
    /// When it last logged in.
    pub last_login_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A user, and what its password is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// Of its password.
    pub password_hash: PasswordHash,
}

/// What is to become of a user; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChange {
    /// Its name, for readers.
    pub full_name: Option<String>,
    /// What it may do.
    pub role: Option<Role>,
    /// Whether it is let in. Its sessions end when it is not any more.
    pub is_active: Option<bool>,
    /// Of a new password. Its sessions end.
    pub password_hash: Option<PasswordHash>,
}

/// BLAKE3 of a token, which is random: who finds it has nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(*blake3::hash(token.as_bytes()).as_bytes())
    }

    /// In hexadecimal digits, as it is stored.
    #[must_use]
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// A token to be made; its secret stays with the caller, who shows it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    /// Its id, minted by the caller.
    pub id: TokenId,
    /// What it is for.
    pub kind: TokenKind,
    /// What it is called, for readers.
    pub name: String,
    /// What it may do at most; never more than its user.
    pub role: Role,
    /// Of its secret.
    pub hash: TokenHash,
    /// The jobs that it sees when it acts as an agent.
    pub jobs: BTreeSet<JobId>,
    /// How long it is good.
    pub lifetime: Duration,
    /// Where it was asked from.
    pub address: Option<IpAddr>,
}

/// A token or session (`access_tokens`), without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// What it is for.
    pub kind: TokenKind,
    /// What it is called, for readers.
    pub name: String,
    /// What it may do at most; never more than its user.
    pub role: Role,
    /// Where it was asked from.
    pub address: Option<IpAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops being good.
    pub expires_at: Timestamp,
    /// When it was last shown, give or take a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Who showed a token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user: User,
    /// The token.
    pub token: AccessToken,
    /// What it may do: the lesser of what token and user may.
    pub role: Role,
    /// The jobs that it sees as [`Role::Agent`]; other roles see all.
    pub jobs: BTreeSet<JobId>,
}

/// Whose attempts to log in are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptSubject(String);

impl AttemptSubject {
    /// An account, whether it exists or not. What was typed is kept as a hash: it may be a password in the wrong place.
    #[must_use]
    pub fn account(typed: &str) -> Self {
        Self(format!("account:{}", blake3::hash(typed.to_lowercase().as_bytes()).to_hex()))
    }

    /// A client's address. Of IPv6 it is the network of 64 bits, whose addresses one machine has all of.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(format!("address:{address}")),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(format!("address:{a:x}:{b:x}:{c:x}:{d:x}::/64"))
            }
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How often somebody may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptLimits {
    /// So many attempts, none of which succeeds,
    pub attempts: u32,
    /// within this time
    pub window: Duration,
    /// lock for this long.
    pub lock: Duration,
}

/// Whether an attempt may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may, and was counted.
    Allowed,
    /// There were too many; it was not counted.
    Locked {
        /// When the next one may be made.
        until: Timestamp,
    },
}

/// A login whose password was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub user: UserId,
    /// What the password was checked against.
    pub password_hash: PasswordHash,
    /// Whose attempts are forgotten.
    pub subject: AttemptSubject,
    /// The session to be made.
    pub session: TokenSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_in_lower_case() {
        assert_eq!(Email::parse("Ada@Example.COM").unwrap().as_str(), "ada@example.com");
        for wrong in
            ["", "ada", "@", "ada@", "@example", "a b@c", "a@b@c", "a@b\0", &format!("a@{}", "b".repeat(190))]
        {
            assert!(Email::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn l29_hashes_are_not_shown() {
        let hash = PasswordHash::parse("$2b$12$abc").unwrap();
        assert_eq!(format!("{hash:?} {:?}", TokenHash::of("t")), "PasswordHash(…) TokenHash(…)");
        assert_eq!(PasswordHash::parse("hunter2"), None);
    }

    #[test]
    fn attempts_of_a_network_count_together() {
        let of = |text: &str| AttemptSubject::address(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:3::7"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(AttemptSubject::account("A@b"), AttemptSubject::account("a@B"));
        assert!(!AttemptSubject::account("hunter2").as_str().contains("hunter2"));
    }
}
