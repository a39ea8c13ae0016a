//! Turns cases into tests.

use std::any::Any;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Failed};

use super::Requirement;

pub use libtest_mimic::Trial;

/// No case may take longer: a hang is a failure, not a stuck build.
const LIMIT: Duration = Duration::from_secs(120);

/// A promise of a trait, as a test over a subject.
#[derive(Debug)]
pub struct Case<S> {
    /// A sentence of behaviour.
    pub name: &'static str,
    /// Panics when the promise is broken.
    pub run: fn(S) -> BoxFuture<'static, ()>,
}

/// A table of cases: async functions over a subject, each named as a sentence of behaviour.
macro_rules! table {
    ($($case:ident),+ $(,)?) => {
        vec![$($crate::conformance::Case {
            name: stringify!($case),
            run: |subject| Box::pin($case(subject)),
        }),+]
    };
}
pub(super) use table;

/// What lives as long as a subject does: a directory, a server. Dropped when the case is over.
pub type Guard = Box<dyn Any + Send + Sync>;

/// One test per case; `factory` makes a fresh subject for each.
pub fn cases<S, F, Fut>(subject: &str, cases: &[Case<S>], factory: F) -> Vec<Trial>
where
    S: Send + 'static,
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = S> + Send + 'static,
{
    cases_needing(subject, &[], cases, factory)
}

/// [`cases`] whose subject needs something of the machine; without it all are ignored, or failed, as a [`trial`] is.
pub fn cases_needing<S, F, Fut>(
    subject: &str,
    needs: &[Requirement],
    cases: &[Case<S>],
    factory: F,
) -> Vec<Trial>
where
    S: Send + 'static,
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = S> + Send + 'static,
{
    let one = |case: &Case<S>| {
        let (run, factory) = (case.run, factory.clone());
        trial(&format!("{subject}::{}", case.name), needs, move || async move { run(factory().await).await })
    };
    cases.iter().map(one).collect()
}

/// Cases without those that a subject cannot keep: names of cases, each group with its reason.
///
/// # Panics
/// When a name is no case, so that a case that was renamed does not go missing.
#[must_use]
pub fn without<S>(mut cases: Vec<Case<S>>, not_kept: &[(&str, &[&str])]) -> Vec<Case<S>> {
    for (reason, names) in not_kept {
        for name in *names {
            let before = cases.len();
            cases.retain(|case| case.name != *name);
            assert_eq!(cases.len() + 1, before, "{name} ({reason}) is no case");
        }
    }
    cases
}

/// One test of its own. A missing requirement makes it ignored, or failed where `OMA_TEST_REQUIRE` names it.
pub fn trial<F, Fut>(name: &str, needs: &[Requirement], body: F) -> Trial
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    trial_within(LIMIT, name, needs, body)
}

/// As [`trial`], for one that may take longer than others.
pub fn trial_within<F, Fut>(limit: Duration, name: &str, needs: &[Requirement], body: F) -> Trial
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let missing: Vec<_> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    let Some(first) = missing.first().copied() else {
        return Trial::test(name, move || block_on(limit, body()));
    };
    let reason = format!("{first} is missing on this machine");
    if missing.iter().any(|need| need.is_required()) {
        return Trial::test(name, move || {
            Err(Failed::from(format!("{reason} and OMA_TEST_REQUIRE names it")))
        });
    }
    Trial::test(name, || Ok(())).with_ignored_flag(true).with_kind(reason)
}

/// Runs the tests as the command line asks.
#[must_use]
pub fn run(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn block_on(limit: Duration, body: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, body).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map_err(|_| Failed::from(format!("still running after {} s", limit.as_secs())))
}
