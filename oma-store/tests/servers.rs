//! The servers that tests start: what is killed, stays killed, and what was committed, stays committed.
#![allow(clippy::unwrap_used, reason = "a test panics when its setup fails")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use oma_core::conformance::{self, Requirement, Trial};
use oma_store::servers::{Server, ServerEngine, ServerOptions};

/// Names the engine that a child of ours starts.
const CHILD: &str = "OMA_TEST_SERVER_CHILD";
const MAKE: &str = "CREATE TABLE kept (id BIGINT PRIMARY KEY); INSERT INTO kept VALUES (1)";
/// Fails where the row is there.
const AGAIN: &str = "INSERT INTO kept VALUES (1)";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CHILD) {
        let engine = ServerEngine::ALL.iter().find(|engine| engine.name() == name).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(child(*engine));
    }
    conformance::run(ServerEngine::ALL.iter().flat_map(|engine| trials(*engine)).collect())
}

fn trials(engine: ServerEngine) -> Vec<Trial> {
    let trial = |name: &str, needs: Requirement, durable, run: fn(Server) -> _| {
        conformance::trial(&format!("{engine}::{name}"), &[needs], move || async move {
            let options = ServerOptions { durable, ..ServerOptions::default() };
            let run: futures_util::future::BoxFuture<'static, ()> =
                run(Server::start(engine, options).await.unwrap());
            run.await;
        })
    };
    let own = engine.private_required();
    vec![
        trial("databases_are_apart_and_go_when_they_are_dropped", engine.required(), false, |server| {
            Box::pin(databases(server))
        }),
        trial("a_commit_outlives_a_killed_server", own, true, |server| Box::pin(kill(server))),
        trial("a_commit_outlives_a_stopped_server", own, false, |server| Box::pin(stop(server))),
        trial("a_server_that_cannot_start_says_why", own, false, |server| Box::pin(refused(server))),
        trial("a_dropped_server_leaves_nothing", own, false, |server| Box::pin(dropped(server))),
        conformance::trial(&format!("{engine}::a_server_ends_with_its_process"), &[own], move || {
            orphaned(engine)
        }),
    ]
}

async fn databases(server: Server) {
    let (one, other) = (server.create_database().await.unwrap(), server.create_database().await.unwrap());
    for database in [&one, &other] {
        database.execute(MAKE).await.unwrap();
        database.execute(AGAIN).await.unwrap_err();
    }
    if server.engine() == ServerEngine::Postgres && server.folder().is_some() {
        one.execute("DO $$ BEGIN ASSERT 'a' < 'B', 'it sorts by code point'; END $$").await.unwrap();
    }
    let name = one.name().to_owned();
    drop(one);
    server.create_database().await.unwrap();
    server.execute(&name, "SELECT 1").await.unwrap_err();
    other.execute(AGAIN).await.unwrap_err();
}

async fn kill(server: Server) {
    let database = server.create_database().await.unwrap();
    database.execute(MAKE).await.unwrap();
    for _ in 0..2 {
        server.kill().await.unwrap();
        database.execute("SELECT 1").await.unwrap_err();
        server.restart().await.unwrap();
        let error = database.execute(AGAIN).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("duplicate"), "{error}");
    }
}

async fn stop(server: Server) {
    let database = server.create_database().await.unwrap();
    database.execute(MAKE).await.unwrap();
    server.stop().await.unwrap();
    database.execute("SELECT 1").await.unwrap_err();
    server.restart().await.unwrap();
    let error = database.execute(AGAIN).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("duplicate"), "{error}");
}

async fn refused(server: Server) {
    let arguments = vec!["--no-such-option".to_owned()];
    let error = Server::start(server.engine(), ServerOptions { arguments, ..ServerOptions::default() }).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("did not start") && error.contains("no-such-option"), "{error}");
    server.restart().await.expect_err("it runs already");
}

async fn dropped(server: Server) {
    let folder = server.folder().unwrap().to_owned();
    assert!(!processes_in(&folder).is_empty());
    drop(server);
    assert_eq!((processes_in(&folder), folder.exists()), (vec![], false));
}

/// Starts a server, tells its folder and waits to be killed.
async fn child(engine: ServerEngine) {
    let server = Server::start(engine, ServerOptions::default()).await.unwrap();
    server.create_database().await.unwrap();
    let folder = server.folder().unwrap().display();
    let mut out = std::io::stdout();
    writeln!(out, "{folder}").unwrap();
    out.flush().unwrap();
    std::future::pending::<()>().await;
}

async fn orphaned(engine: ServerEngine) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child: Child =
        command.env(CHILD, engine.name()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut folder = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut folder).unwrap();
    let folder = PathBuf::from(folder.trim_end());
    assert!(!processes_in(&folder).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    // The limit of every test ends this.
    while folder.exists() || !processes_in(&folder).is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that name a folder in their arguments, or have a file of it open.
fn processes_in(folder: &Path) -> Vec<String> {
    let name = folder.as_os_str().as_encoded_bytes();
    let holds = |process: &Path| {
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        arguments.windows(name.len()).any(|part| part == name) || files.any(|file| file.starts_with(folder))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let numbers = all.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok())
    });
    numbers.filter(|process| holds(process)).map(|process| process.display().to_string()).collect()
}
