//! The signature check with the rules of the Java server, written from what the server does and not from any client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;

use super::params::Params;

/// What `java.net.URLEncoder` leaves as it is; the space it makes a plus of is replaced by %20 afterwards.
const RAW: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'*').remove(b'_');

/// What is signed: every parameter but the signature, sorted by its name as received, values encoded, names not, all of it in lower
/// case at the end.
pub(crate) fn string_to_sign(params: &Params) -> String {
    let mut signed: Vec<_> =
        params.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("signature")).collect();
    // Java compares UTF-16 units.
    signed.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
    let pairs: Vec<_> =
        signed.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RAW))).collect();
    pairs.join("&").to_lowercase()
}

/// HMAC-SHA1 in Base64.
pub(crate) fn sign(params: &Params, secret: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    STANDARD.encode(hmac::sign(&key, string_to_sign(params).as_bytes()))
}

/// Whether the request carries the signature of this secret.
pub(crate) fn is_signed(params: &Params, secret: &str) -> bool {
    params.text("signature").is_some_and(|signature| signature == sign(params, secret))
}
