//! MariaDB's programs and their arguments.

use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Plan, ServerOptions, missing};

/// An ordinary user's PATH may lack sbin.
pub(super) fn program() -> Option<PathBuf> {
    super::program("mariadbd", &["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from))
}

pub(super) fn plan(folder: &Path, options: &ServerOptions) -> Result<Plan> {
    let program = program().ok_or_else(|| missing("mariadbd"))?;
    let install = super::program("mariadb-install-db", &["/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    let install = install.ok_or_else(|| missing("mariadb-install-db"))?;
    let shown = folder.display();

    // A server that starts removes temporary tables from its folder for them, those of other servers too.
    let mut both =
        vec!["--no-defaults".to_owned(), format!("--datadir={shown}/data"), format!("--tmpdir={shown}")];
    if folder.metadata()?.uid() == 0 {
        both.push("--user=root".to_owned());
    }
    let mut init = vec![install.display().to_string()];
    init.extend(both.clone());
    init.extend(
        [
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            // Whatever comes of the first steps, they are repeated on a new folder.
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-innodb-doublewrite",
            "--debug-no-sync",
        ]
        .map(str::to_owned),
    );

    let mut server = vec![program.display().to_string()];
    server.append(&mut both);
    server.extend([
        format!("--socket={shown}/s"),
        format!("--pid-file={shown}/pid"),
        "--skip-networking".to_owned(),
        "--max-connections=500".to_owned(),
        // Nothing of ours may depend on a server's defaults: neither its time zone nor its character set.
        "--default-time-zone=+05:30".to_owned(),
        "--character-set-server=latin1".to_owned(),
    ]);
    if !options.durable {
        let fast = ["--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite", "--debug-no-sync"];
        server.extend(fast.map(str::to_owned));
    }
    server.extend(options.arguments.iter().cloned());
    Ok(Plan { init, server, user: None })
}

pub(super) fn url(folder: &Path, database: &str) -> String {
    format!("mysql://root@localhost/{database}?socket={}/s", folder.display())
}
