//! Certificates for servers and clients with TLS, in files of the names that libnbd, nbdkit and QEMU look for.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program that makes them.
pub const CERTIFICATES_PROGRAM: &str = "openssl";

/// Makes a folder with an authority, a server `localhost` and a client, unless it is there.
///
/// # Errors
/// openssl is missing or fails; those of the file system.
pub fn certificates(folder: &Path) -> io::Result<PathBuf> {
    const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let made = folder.join("tls");
    let folder = made.as_path();
    if folder.join("client-cert.pem").exists() {
        return Ok(made);
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")?;
    let authority =
        ["-nodes", "-days", "2", "-subj", "/CN=benchmark", "-keyout", "ca-key.pem", "-out", "ca-cert.pem"];
    run(&[&["req", "-x509"], &KEY[..], &authority].concat(), folder)?;
    for (who, subject) in [("server", "/CN=localhost"), ("client", "/CN=client")] {
        let [key, request, certificate] =
            ["key.pem", "request.pem", "cert.pem"].map(|file| format!("{who}-{file}"));
        let ask = ["-nodes", "-subj", subject, "-keyout", &key, "-out", &request];
        run(&[&["req"], &KEY[..], &ask].concat(), folder)?;
        let sign =
            ["x509", "-req", "-days", "2", "-in", &request, "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem"];
        let rest = ["-CAcreateserial", "-extfile", "names", "-out", &certificate];
        run(&[&sign[..], &rest].concat(), folder)?;
    }
    Ok(made)
}

fn run(arguments: &[&str], folder: &Path) -> io::Result<()> {
    let mut command = Command::new(CERTIFICATES_PROGRAM);
    let output = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{CERTIFICATES_PROGRAM} {arguments:?} failed ({}): {}",
        output.status,
        said.trim()
    )))
}
