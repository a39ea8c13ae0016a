use std::io::{self, IsTerminal as _};
use std::path::Path;

use oma_api::client::{RemoteConfig, Stranger};
use oma_core::{Error, ErrorKind, Result};
use oma_examples::authority::Fingerprint;
use oma_examples::trust;
use serde_json::json;

use super::Context;
use crate::args::{RemoteArgs, TrustArgs};
use crate::output;

/// Looks which authority an appliance shows, and keeps it once somebody has said that it is the right one. No token is read for that.
pub(super) async fn run(context: &Context, remote: &RemoteArgs, args: &TrustArgs) -> Result<()> {
    let stranger = stranger(remote)?;
    let path = args.out.clone().or_else(|| trust::file(&stranger)).ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "trust", stranger.place())
            .because("there is no home directory to keep it in; name a file with --out")
    })?;
    let authority = stranger.authority().await?;
    let shown = Fingerprint::of(&authority);
    let place = stranger.place();
    output::note(format_args!("{place} shows the authority {shown}"));
    if let Some(expected) = args.fingerprint.filter(|expected| *expected != shown) {
        return Err(refused(
            &place,
            format!("it is not {expected}, which --fingerprint names; nothing is trusted"),
        ));
    }
    match trust::trusted(&path)? {
        Some(known) if known == shown => {}
        Some(known) => return Err(refused(&place, replaced(known, &path))),
        None => {
            if args.fingerprint.is_none() {
                confirm(&place)?;
            }
            trust::keep(&path, &authority)?;
        }
    }
    let file = path.display().to_string();
    match context.json {
        true => output::json(&json!({ "fingerprint": shown.to_string(), "file": file })),
        false => output::line(format_args!("trusted: {file}")),
    }
}

fn stranger(remote: &RemoteArgs) -> Result<Stranger> {
    let refused = |reason| Error::new(ErrorKind::Invalid, "trust", "an appliance").because(reason);
    let Some(address) = &remote.api else {
        return Err(refused("name it with --api https://HOST:PORT"));
    };
    let stranger = Stranger::at(&RemoteConfig::new(address))?;
    stranger.ok_or_else(|| refused("this address is not served with TLS; name one that begins with https://"))
}

/// Somebody at a terminal has compared.
fn confirm(place: &str) -> Result<()> {
    let unsaid = "nobody has said that it is the right one: compare it with what the log of the appliance has, then name it with \
                  --fingerprint, or type `yes` at a terminal";
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(refused(place, unsaid.to_owned()));
    }
    output::note("Does the log of the appliance have the same? Type yes to trust it:");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| oma_examples::failure::io_error("read", "the terminal", error))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(refused(place, unsaid.to_owned())),
    }
}

fn replaced(known: Fingerprint, path: &Path) -> String {
    format!(
        "{known} was trusted before, in {}; somebody may be on the way. If the appliance has a new authority, which its log tells, take \
         that file away and trust it anew",
        path.display()
    )
}

fn refused(place: &str, reason: String) -> Error {
    Error::new(ErrorKind::PermissionDenied, "trust", place).because(reason)
}
