use oma_api::KeyRow;
use oma_core::Result;
use oma_core::seal::Signer;

use super::Context;
use crate::output;
use oma_examples::signing_key;

/// Prints the public key that signatures of verification reports are checked with.
pub(super) fn run(context: &Context) -> Result<()> {
    // Made when it is not there, but in no directory that is not there.
    let _lock = if context.data.signing_key().exists() {
        None
    } else {
        context.data.check_used()?;
        Some(context.data.lock()?)
    };
    let public_key = signing_key::load_or_make(&context.data.signing_key())?.public_key();
    if context.json { output::json(&KeyRow { public_key }) } else { output::line(public_key) }
}
