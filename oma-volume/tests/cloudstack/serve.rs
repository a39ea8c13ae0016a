//! The fake as a program, for foreign clients and for use by hand.

use std::env;
use std::io::{Read, Write};
use std::process::ExitCode;

use super::fake::{Fake, Options};

/// `serve` for a child that is only a fake.
pub(crate) const ROLE: &str = "OMA_TEST_CHILD";
/// The port that it listens at; any, unless it is set.
const PORT: &str = "OMA_FAKE_PORT";

/// Runs as a child, when it is one.
pub(crate) fn child() -> Option<ExitCode> {
    (env::var(ROLE).ok()? == "serve").then(serve)
}

/// Until standard input ends. What a client needs to know is printed as lines that a shell takes.
fn serve() -> ExitCode {
    let port = env::var(PORT).ok().map_or(0, |port| port.parse().expect("a port"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fake = runtime.block_on(Fake::start(Options { port, running_clock: true, ..Options::default() }));
    let mut text = String::new();
    for (name, value) in environment(&fake) {
        text.push_str(&format!("export {name}={value}\n"));
    }
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap();
    while std::io::stdin().read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    runtime.block_on(async { drop(fake) });
    ExitCode::SUCCESS
}

/// The names that `cs` knows, and what it cannot know.
pub(crate) fn environment(fake: &Fake) -> Vec<(&'static str, String)> {
    vec![
        ("CLOUDSTACK_ENDPOINT", fake.url.clone()),
        ("CLOUDSTACK_KEY", fake.user.key.clone()),
        ("CLOUDSTACK_SECRET", fake.user.secret.clone()),
        ("OMA_FAKE_ADMIN_KEY", fake.admin.key.clone()),
        ("OMA_FAKE_ADMIN_SECRET", fake.admin.secret.clone()),
        ("OMA_FAKE_ZONE", fake.zone.to_string()),
        ("OMA_FAKE_OFFERING", fake.offering.to_string()),
        ("OMA_FAKE_APPLIANCE", fake.appliance.to_string()),
        ("OMA_FAKE_DEVICES", fake.devices.display().to_string()),
    ]
}
