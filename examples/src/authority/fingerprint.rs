//! What two people compare to know that they mean the same certificate.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};

const LENGTH: usize = 32;
const KIND: &str = "SHA256:";

/// The SHA-256 of a certificate as DER: `SHA256:` and 32 bytes in hexadecimal with colons between, as `openssl x509 -fingerprint -sha256`
/// has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; LENGTH]);

impl Fingerprint {
    /// That of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KIND)?;
        self.0.iter().enumerate().try_for_each(|(at, byte)| {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")
        })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// Capitals, colons and the kind in front do not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no fingerprint: `{KIND}` and 64 hexadecimal digits, as the log of the daemon has it"
            )
        };
        let kind = text.get(..KIND.len()).filter(|kind| kind.eq_ignore_ascii_case(KIND));
        let digits: String = text[kind.map_or(0, str::len)..].chars().filter(|c| *c != ':').collect();
        if digits.len() != LENGTH * 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; LENGTH];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_people_write_it() {
        let known = Fingerprint::of(b"abc");
        let text = known.to_string();
        assert!(text.replace(':', "").ends_with("B410FF61F20015AD"), "{text}");
        let bare = text[KIND.len()..].to_owned();
        for written in [text.clone(), text.to_lowercase(), bare.clone(), bare.replace(':', "")] {
            assert_eq!(written.parse(), Ok(known), "{written}");
        }
        for wrong in ["", "SHA256:", "SHA256:00:78", &text[..text.len() - 1], "MD5:00", "SHA256:é"] {
            assert!(wrong.parse::<Fingerprint>().unwrap_err().contains("64 hexadecimal"), "{wrong}");
        }
    }
}
