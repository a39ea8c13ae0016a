//! Sealed reports: a verification report as JSON with an Ed25519 signature, to be checked anywhere.
//!
//! What is signed is the line [`PREFIX`] and the compact JSON of the report, its fields in their order. So a sealed report may
//! be formatted anew, but no byte of its content may change.

#[cfg(feature = "signing")]
mod key;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::VerificationReport;
use crate::{Error, ErrorKind, Result};

#[cfg(feature = "signing")]
pub use key::SigningKey;

/// What every signed message begins with, so that no signature fits another kind of message.
pub const PREFIX: &str = "oma verification report 1\n";

/// Who signs reports.
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// The key that signatures are checked with.
    fn public_key(&self) -> PublicKey;

    /// The signature of a message.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// Why a text is not a key or a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has {0} hexadecimal digits")]
pub struct HexError(usize);

macro_rules! hexadecimal {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $size]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
                let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).ok();
                let digits = digits.filter(|digits| digits.len() == 2 * $size).ok_or(HexError(2 * $size))?;
                let bytes: Option<Vec<u8>> = digits.chunks_exact(2).map(byte).collect();
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                Ok(Self(bytes.ok_or(HexError(2 * $size))?))
            }
        }

        impl TryFrom<String> for $name {
            type Error = HexError;

            fn try_from(text: String) -> Result<Self, HexError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(bytes: $name) -> Self {
                bytes.to_string()
            }
        }
    };
}

hexadecimal! {
    /// An Ed25519 public key.
    PublicKey, 32
}
hexadecimal! {
    /// An Ed25519 signature.
    Signature, 64
}

/// A report and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedReport {
    /// The report.
    pub report: VerificationReport,
    /// Who vouches for it; `None` where nobody signs.
    pub seal: Option<Seal>,
}

/// A signature and the key that it is checked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The key of whoever signed. That it is theirs must be known from elsewhere.
    pub public_key: PublicKey,
    /// The signature.
    pub signature: Signature,
}

/// As much of a report as tells which program can read it.
#[derive(Deserialize)]
struct Outline {
    report: Versioned,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl SealedReport {
    /// Signs a report, if there is somebody to do so.
    ///
    /// # Errors
    /// `Internal` when the report cannot be written as JSON.
    pub fn new(report: VerificationReport, signer: Option<&dyn Signer>) -> Result<Self> {
        let seal = match signer {
            None => None,
            Some(signer) => {
                let signature = signer.sign(&message(&report)?);
                Some(Seal { public_key: signer.public_key(), signature })
            }
        };
        Ok(Self { report, seal })
    }

    /// The report as JSON, one line.
    ///
    /// # Errors
    /// `Internal` when it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Internal, "write", "a report").with_source(error))
    }

    /// Reads a report from JSON. The signature is not looked at.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Corrupt` for what is no report or not all of one.
    pub fn parse(text: &str) -> Result<Self> {
        let outline: Outline = serde_json::from_str(text).map_err(|error| damaged(&error))?;
        let version = outline.report.version;
        if !(1..=VerificationReport::VERSION).contains(&version) {
            return Err(Error::new(ErrorKind::Unsupported, "read", "the report").because(format!(
                "it has version {version} and this program reads up to {}; use the one that wrote it",
                VerificationReport::VERSION
            )));
        }
        serde_json::from_str(text).map_err(|error| damaged(&error))
    }

    /// Whether the report is as it was when the owner of `trusted` signed it.
    ///
    /// # Errors
    /// `Corrupt` when it was changed or nobody signed it; `PermissionDenied` when it was signed with another key.
    #[cfg(feature = "signing")]
    pub fn check(&self, trusted: &PublicKey) -> Result<()> {
        let refused = |kind, reason: String| Err(Error::new(kind, "check", "the report").because(reason));
        let Some(seal) = &self.seal else {
            return refused(
                ErrorKind::Corrupt,
                "it is not signed, so anybody may have changed it".to_owned(),
            );
        };
        if !key::verifies(&seal.public_key, &message(&self.report)?, &seal.signature) {
            let reason = "its signature does not fit: it was changed since it was signed".to_owned();
            return refused(ErrorKind::Corrupt, reason);
        }
        if seal.public_key != *trusted {
            let reason = format!("it was signed with the key {}, not with {trusted}", seal.public_key);
            return refused(ErrorKind::PermissionDenied, reason);
        }
        Ok(())
    }
}

fn damaged(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "the report").because(format!("it is no whole report: {error}"))
}

fn message(report: &VerificationReport) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(report)
        .map_err(|error| Error::new(ErrorKind::Internal, "write", "a report").with_source(error))?;
    Ok([PREFIX.as_bytes(), &json].concat())
}

#[cfg(test)]
mod tests;
