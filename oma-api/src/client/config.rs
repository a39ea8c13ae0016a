use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use oma_core::{Error, ErrorKind, InstanceId, Result};
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};

/// Where a volume daemon is. Its token is not part of it: that is given apart, as a [`Token`].
///
/// In a file it needs the first only; a duration is `{ "secs": 10, "nanos": 0 }` there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// `https://HOST[:PORT]`, or `unix:PATH` for a daemon on this machine. Plain `http` is for this machine only, unless
    /// [`allow_plain_http`](Self::allow_plain_http).
    pub address: String,
    /// A file of certificate authorities (PEM) instead of those that this machine trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Where authorities of its own were looked for, and none is: told when the daemon is not trusted.
    #[serde(skip)]
    pub sought: Option<PathBuf>,
    /// The deployment of the daemon, as it says at its start. Without it the first answer tells; another one is not believed after that.
    #[serde(default)]
    pub daemon: Option<InstanceId>,
    /// Goes without TLS to another machine: what is asked and answered, and the token, can be read and changed on the way.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// How long to wait for a connection, TLS included. A daemon whose machine is gone is found out within a minute.
    #[serde(default = "connect_limit")]
    pub connect_limit: Duration,
    /// How long to wait for what a daemon that works answers soon: what there is and what it looks like, the next entry of a list, a
    /// volume that is opened. After that nothing is known. A change takes as long as it takes.
    #[serde(default = "answer_limit")]
    pub answer_limit: Duration,
}

impl RemoteConfig {
    /// With defaults for whatever has one.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            ca_file: None,
            sought: None,
            daemon: None,
            allow_plain_http: false,
            connect_limit: connect_limit(),
            answer_limit: answer_limit(),
        }
    }
}

const fn connect_limit() -> Duration {
    Duration::from_secs(10)
}

/// A cloud that is asked too much of has the daemon wait for a while.
const fn answer_limit() -> Duration {
    Duration::from_secs(120)
}

/// Lets its bearer in at a volume daemon. It is never shown, logged or sent in a URL (L29).
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Takes a token as the daemon's operator made it; blanks and line ends around it are dropped.
    ///
    /// # Errors
    /// `Invalid` for one that is empty or has characters that no token has.
    pub fn new(token: &str) -> Result<Self> {
        let token = token.trim();
        let is_good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| is_good);
        let Some(mut header) = header else {
            return Err(Error::new(ErrorKind::Invalid, "read", "the token of a volume daemon")
                .because("it is empty or has characters that no token has; have a new one made"));
        };
        header.set_sensitive(true);
        Ok(Self(header))
    }

    pub(super) const fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_a_token_is_not_shown() {
        let token = Token::new(" oma_s3cret\n").unwrap();
        assert_eq!(token.header().to_str().unwrap(), "Bearer oma_s3cret");
        assert_eq!(format!("{token:?} {:?}", token.header()), "Token(not shown) Sensitive");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_showing_it() {
        for text in ["", " ", "s3cret s3cret", "s3crét", "s3cret\nHost: x"] {
            let error = Token::new(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!format!("{error:?} {}", error.chain()).contains("s3cr"), "{error:?}");
        }
    }

    #[test]
    fn a_file_needs_the_address_and_has_nothing_unknown() {
        let config: RemoteConfig = serde_json::from_str(r#"{"address": "https://volumes.example"}"#).unwrap();
        assert_eq!(config, RemoteConfig::new("https://volumes.example"));
        serde_json::from_str::<RemoteConfig>(r#"{"address": "https://v", "token": "t"}"#).unwrap_err();
    }
}
