use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oma_core::{Error, ErrorKind, Result};
use ring::hmac;

/// Who asks: the API key and the secret key of an account. Neither is ever shown, logged or sent in a URL (L29).
#[derive(Clone)]
pub struct Keys {
    api: String,
    secret: hmac::Key,
}

impl Keys {
    /// Takes the two keys of an account, as its page in CloudStack shows them; blanks and line ends around them are dropped.
    ///
    /// # Errors
    /// `Invalid` for a key that is empty or has characters that no key has.
    pub fn new(api: &str, secret: &str) -> Result<Self> {
        let (api, secret) = (checked("API key", api)?, checked("secret key", secret)?);
        let secret = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        Ok(Self { api: api.to_owned(), secret })
    }

    pub(super) fn api(&self) -> &str {
        &self.api
    }

    pub(super) fn sign(&self, text: &str) -> String {
        STANDARD.encode(hmac::sign(&self.secret, text.as_bytes()))
    }
}

fn checked<'a>(what: &'static str, key: &'a str) -> Result<&'a str> {
    let key = key.trim();
    if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(key);
    }
    let advice =
        "it is empty or has characters that no key has; copy it again from the account's page in CloudStack";
    Err(Error::new(ErrorKind::Invalid, "read CloudStack's keys", what).because(advice))
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_keys_are_not_shown() {
        let keys = Keys::new(" api-key\n", "secret-key").unwrap();
        assert_eq!(keys.api(), "api-key");
        assert_eq!(format!("{keys:?}"), "Keys(not shown)");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_without_showing_it() {
        for (api, secret) in [("", "s3cret"), ("a", ""), ("a", "s3cret s3cret"), ("a", "s3crét")] {
            let error = Keys::new(api, secret).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(!format!("{error:?} {}", error.chain()).contains("s3cr"), "{error:?}");
        }
    }
}
