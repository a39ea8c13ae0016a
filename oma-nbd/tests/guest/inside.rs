//! What runs in the machine.

use std::process::{Command, ExitCode};
use std::time::Duration;

use futures_util::future::BoxFuture;
use oma_core::conformance;
use tokio::runtime::Runtime;

/// A test in the machine.
pub(crate) struct Case {
    pub name: String,
    pub run: Box<dyn Fn() -> BoxFuture<'static, ()>>,
}

/// A table of cases: async functions, each named as a sentence of behaviour.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        vec![$($crate::inside::Case {
            name: stringify!($case).to_owned(),
            run: Box::new(|| Box::pin($case())),
        }),+]
    };
}
pub(crate) use cases;

/// The cases of a suite, each over a fresh subject.
pub(crate) fn suite<S, F>(
    subject: &str,
    cases: Vec<conformance::Case<S>>,
    factory: impl Fn() -> F + Copy + Send + 'static,
) -> Vec<Case>
where
    S: Send + 'static,
    F: Future<Output = S> + Send + 'static,
{
    let one = |conformance::Case { name, run }: conformance::Case<S>| Case {
        name: format!("{subject}::{name}"),
        run: Box::new(move || Box::pin(async move { run(factory().await).await })),
    };
    cases.into_iter().map(one).collect()
}

/// What a case has a process of its own do, by the argument that asks for it.
pub(crate) type Errand = (&'static str, fn() -> ExitCode);

/// No case may take longer: the others want to run as well.
const LIMIT: Duration = Duration::from_secs(40);

/// Runs all cases, one after the other; tells each outcome in a line.
pub(crate) fn run(cases: &[Case], errands: &[Errand]) -> ExitCode {
    let asked = |(argument, _): &&Errand| std::env::args().any(|given| given == *argument);
    if let Some((_, errand)) = errands.iter().find(asked) {
        return errand();
    }
    let runtime = runtime();
    for case in cases {
        let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, tokio::spawn((case.run)())).await });
        let said = match ended {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(panicked)) => format!("failed: {}", text(panicked)),
            Err(_) => format!("failed: it hangs\n{}", stacks()),
        };
        let line = format!("case {} {}", case.name, said.replace('\n', "\\n"));
        println!("{line}");
    }
    // What a case that hangs holds, the end of the machine frees.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Where the kernel has the threads of all processes of this program.
fn stacks() -> String {
    let mut said = String::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(threads) = std::fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads.flatten() {
            let stack = std::fs::read_to_string(thread.path().join("stack")).unwrap_or_default();
            let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            if stack.contains("nbd")
                || stack.contains("blkdev")
                || stack.contains("bdev")
                || stack.contains("sync")
            {
                said += &format!("{}: {stack}", name.trim());
            }
        }
    }
    said
}

fn text(panicked: tokio::task::JoinError) -> String {
    let payload = panicked.into_panic();
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.unwrap()
}

/// Runs a program; what it said, and whether it ended well.
pub(crate) async fn program(line: &str) -> (String, bool) {
    let line = line.to_owned();
    blocking(move || {
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (said, output.status.success())
    })
    .await
}

/// The same, which must end well.
pub(crate) async fn well(line: &str) -> String {
    let (said, well) = program(line).await;
    assert!(well, "{line}: {said}");
    said
}
