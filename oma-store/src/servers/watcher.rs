//! The shell that keeps a server and outlives us by the moment that it takes to end it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Error, Result, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// Runs each line that it reads and answers with its status. PostgreSQL's processes are in sessions of their own, so a crash
/// stops the first, which makes no more then, and kills all of them one by one. At our end it gets its own signal first: killed,
/// it would leave its shared memory. A server that died has its number reused sooner or later, so its parent is looked at.
const SCRIPT: &str = r#"
server=
log=$1/log
farewell=$2
run() { "$@" </dev/null >>"$log" 2>&1; }
running() {
    [ -n "$server" ] && read -r _ _ state parent _ <"/proc/$server/stat" && [ "$state" != Z ] && [ "$parent" = $$ ]
}
start() {
    ! running || return 1
    "$@" </dev/null >>"$log" 2>&1 &
    server=$!
}
stop() {
    running || return 1
    kill "-$1" "$server"
    wait "$server"
    server=
}
crash() {
    running || return 1
    kill -STOP "$server"
    children=$(cat "/proc/$server/task/"*"/children")
    kill -KILL "$server" $children
    wait "$server"
    for child in $children; do
        while [ -e "/proc/$child" ]; do sleep 0.01; done
    done
    server=
}
while read -r line; do
    eval "$line"
    echo $?
done
if running && kill "-$farewell" "$server"; then
    for turn in $(seq 500); do
        running || break
        sleep 0.01
    done
fi
crash
rm -rf "$1"
"#;

/// A server's shell. Dropped, it kills the server and removes the folder.
#[derive(Debug)]
pub(super) struct Watcher {
    folder: PathBuf,
    shell: Child,
    /// `None` while it ends.
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Watcher {
    /// From here on the folder is its own, and the user's. `farewell` is the signal of a server's quickest end.
    pub(super) fn start(folder: TempDir, user: Option<u32>, farewell: &str) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "watcher"]).arg(folder.path()).arg(farewell);
        command.current_dir("/").env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A Ctrl-C at the terminal is for us: the shell must be there when we are gone.
        command.process_group(0);
        if let Some(user) = user {
            chown(folder.path(), Some(user), Some(user))?;
            command.uid(user).gid(user);
        }
        let mut shell = command.spawn()?;
        let pipes = shell.stdin.take().zip(shell.stdout.take());
        let (words, answers) = pipes.ok_or_else(|| Error::other("sh has no pipes"))?;
        Ok(Self { folder: folder.keep(), shell, words: Some(words), answers: BufReader::new(answers) })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has a line run, and waits for its end.
    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        let words = self.words.as_mut().ok_or_else(|| Error::other("the server's shell is ending"))?;
        writeln!(words, "{line}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer == "0\n" {
            return Ok(());
        }
        let what: String = line.chars().take(120).collect();
        Err(Error::other(format!("{what}: status {}\n{}", answer.trim(), said(&self.folder))))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.words = None;
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "a server's shell cannot be waited for");
        }
    }
}

/// The end of what the programs in a folder said.
pub(super) fn said(folder: &Path) -> String {
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Words for a shell, each taken to the letter.
pub(super) fn quoted(words: &[String]) -> String {
    words.iter().fold(String::new(), |mut line, word| {
        let _ = write!(line, "'{}' ", word.replace('\'', r"'\''"));
        line
    })
}
