use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{PublicKey, Signature, Signer};
use crate::{Error, ErrorKind, Result};

/// An Ed25519 key that signs. Neither `Debug` nor an error shows its seed (L29).
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Bytes of a seed.
    pub const SEED: usize = 32;

    /// A seed from the system's randomness: the secret to be kept.
    ///
    /// # Errors
    /// `Unavailable` when the system has none.
    pub fn fresh_seed() -> Result<[u8; Self::SEED]> {
        let mut seed = [0; Self::SEED];
        SystemRandom::new().fill(&mut seed).map_err(|_| {
            Error::new(ErrorKind::Unavailable, "make", "a signing key")
                .because("the system gives no randomness")
        })?;
        Ok(seed)
    }

    /// The key of a seed.
    ///
    /// # Errors
    /// `Invalid` when it has not [`SigningKey::SEED`] bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        pair.map(Self).map_err(|_| {
            Error::new(ErrorKind::Invalid, "read", "a signing key")
                .because(format!("its seed has not {} bytes", Self::SEED))
        })
    }
}

impl Signer for SigningKey {
    fn public_key(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref().try_into();
        PublicKey(bytes.expect("an Ed25519 public key has 32 bytes"))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.0.sign(message);
        Signature(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

pub(super) fn verifies(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, &signature.0).is_ok()
}
