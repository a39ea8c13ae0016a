//! PostgreSQL's programs and their arguments.

use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Plan, ServerOptions, missing};

/// The server refuses to be the superuser's; this is Debian's `nobody`.
const NOBODY: u32 = 65534;

/// Debian keeps each version in a folder of its own, outside of PATH.
pub(super) fn program() -> Option<PathBuf> {
    super::program("postgres", &versions())
}

fn versions() -> Vec<PathBuf> {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = found.map(|entry| entry.path()).collect();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    versions.into_iter().map(|path| path.join("bin")).collect()
}

pub(super) fn plan(folder: &Path, options: &ServerOptions) -> Result<Plan> {
    let program = program().ok_or_else(|| missing("postgres"))?;
    let initdb = program.with_file_name("initdb");
    let shown = folder.display();

    let data = format!("{shown}/data");
    let init = [
        &initdb.display().to_string(),
        "-D",
        &data,
        "--auth=trust",
        "--no-sync",
        "--encoding=UTF8",
        "--locale=C",
        "--username=postgres",
    ];
    let mut settings = vec![
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={shown}"),
        "port=5432".to_owned(),
        "max_connections=300".to_owned(),
        // In its folder, where a crash leaves it for us to remove.
        "dynamic_shared_memory_type=mmap".to_owned(),
        // After a crash, one call in place of one for each of a thousand files.
        "recovery_init_sync_method=syncfs".to_owned(),
        // Nothing of ours may depend on a server's time zone.
        "timezone=<+0530>-05:30".to_owned(),
    ];
    if !options.durable {
        settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned));
    }
    let mut server = vec![program.display().to_string(), "-D".to_owned(), data.clone()];
    server.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
    server.extend(options.arguments.iter().cloned());
    let user = (folder.metadata()?.uid() == 0).then_some(NOBODY);
    Ok(Plan { init: init.map(str::to_owned).to_vec(), server, user })
}

pub(super) fn url(folder: &Path, database: &str) -> String {
    format!("postgres://postgres@localhost:5432/{database}?host={}", folder.display())
}
