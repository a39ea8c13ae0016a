//! What runs in the machine.

use std::process::{Command, ExitCode};
use std::time::Duration;

use futures_util::future::BoxFuture;

/// A test in the machine.
pub(crate) struct Case {
    pub name: &'static str,
    pub run: fn() -> BoxFuture<'static, ()>,
}

/// A table of cases: async functions, each named as a sentence of behaviour.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        vec![$($crate::inside::Case { name: stringify!($case), run: || Box::pin($case()) }),+]
    };
}
pub(crate) use cases;

/// No case may take longer: the others want to run as well.
const LIMIT: Duration = Duration::from_secs(40);

/// Runs all cases, one after the other; tells each outcome in a line.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    if std::env::args().any(|argument| argument == crate::exports::ABANDON) {
        return crate::exports::abandon();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for case in cases {
        let run = case.run;
        let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, tokio::spawn(run())).await });
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
