//! Certificates for the rows with TLS, in files of the names that libnbd, nbdkit and QEMU look for.

use std::path::{Path, PathBuf};

use crate::{Result, program};

/// The program that makes them.
pub(crate) const PROGRAM: &str = "openssl";

/// Makes a folder with an authority, a server `localhost` and a client.
pub(crate) async fn make(folder: &Path) -> Result<PathBuf> {
    const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let dir = folder.join("tls");
    if dir.join("client-cert.pem").exists() {
        return Ok(dir);
    }
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")?;
    let authority =
        ["-nodes", "-days", "2", "-subj", "/CN=bench-nbd", "-keyout", "ca-key.pem", "-out", "ca-cert.pem"];
    program::run(PROGRAM, &[&["req", "-x509"], &KEY[..], &authority].concat(), &dir).await?;
    for (who, subject) in [("server", "/CN=localhost"), ("client", "/CN=client")] {
        let [key, request, certificate] =
            ["key.pem", "request.pem", "cert.pem"].map(|file| format!("{who}-{file}"));
        let ask = ["-nodes", "-subj", subject, "-keyout", &key, "-out", &request];
        program::run(PROGRAM, &[&["req"], &KEY[..], &ask].concat(), &dir).await?;
        let sign =
            ["x509", "-req", "-days", "2", "-in", &request, "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem"];
        let rest = ["-CAcreateserial", "-extfile", "names", "-out", &certificate];
        program::run(PROGRAM, &[&sign[..], &rest].concat(), &dir).await?;
    }
    Ok(dir)
}
