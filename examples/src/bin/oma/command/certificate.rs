use std::time::SystemTime;

use oma_core::Result;
use oma_examples::authority::Authority;
use serde_json::json;

use super::Context;
use crate::args::CertificateArgs;
use crate::output;

/// Certifies a client of NBD by the authority of the data directory, also while a daemon serves that.
pub(super) fn run(context: &Context, args: &CertificateArgs) -> Result<()> {
    let authority = Authority::load(&context.data.tls())?;
    authority.certify_client(&args.name, &args.directory, SystemTime::now())?;
    let directory = args.directory.display().to_string();
    if context.json {
        return output::json(&json!({ "name": args.name, "directory": directory }));
    }
    output::line(format_args!(
        "{directory} has what cn:{} shows; its key is for that client alone",
        args.name
    ))
}
