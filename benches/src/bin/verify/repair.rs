//! A disk behind a slow link, of which a thousandth differs: repaired, and copied in full.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use oma_benches::data;

use crate::measure::{Sample, run};
use crate::relay::Relay;
use crate::{Bench, Runs, volume};

/// Bytes of one extent that differs.
const EXTENT: u64 = 64 << 10;

/// `oma serve`; it ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself: then nothing is left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn measure(bench: &Bench<'_>) -> io::Result<Runs> {
    let image = bench.path("repair.raw");
    let file = File::options().read(true).write(true).create_new(true).open(&image)?;
    file.set_len(bench.cli.repair_size.bytes())?;
    data(&file, 0, bench.cli.repair_data.bytes())?;
    let (served, link) = (bench.path("served"), bench.path("link"));
    let _server = serve(bench, &image, &served)?;
    let _relay = Relay::start(&link, &served, bench.cli.rate)?;
    let oma = |data: &Path| {
        let mut oma = Command::new(&bench.oma);
        let source = format!("nbd+unix:///disk?socket={}", link.display());
        oma.arg("--data-dir").arg(data).args([
            "replicate",
            "--vm-path",
            "/bench/vm/repair",
            "--source",
            &source,
        ]);
        oma
    };
    let repaired = bench.path("repaired");
    let mut runs: Runs = vec![("repair", Vec::new()), ("full copy", Vec::new())];
    runs[1].1.push(run(&mut oma(&repaired))?);
    for round in 0..bench.cli.rounds {
        change(&file, bench.cli.repair_data.bytes(), bench.cli.repair_size.bytes() / 1000, round)?;
        runs[0].1.push(run(&mut oma(&repaired))?);
        if round > 0 {
            runs[1].1.push(full(bench, &oma)?);
        }
    }
    let mut compare = Command::new("cmp");
    run(compare.arg(&image).arg(volume(&repaired)?))?;
    Ok(runs)
}

/// A full copy into a data directory that is not there.
fn full(bench: &Bench<'_>, oma: &impl Fn(&Path) -> Command) -> io::Result<Sample> {
    let fresh = bench.path("fresh");
    let sample = run(&mut oma(&fresh))?;
    fs::remove_dir_all(fresh)?;
    Ok(sample)
}

/// Changes so many bytes, in extents at the same distance, to what they never were.
fn change(file: &File, of: u64, bytes: u64, round: u32) -> io::Result<()> {
    let count = (bytes / EXTENT).max(1);
    let distance = (of / count).max(EXTENT);
    let text: Vec<u8> = format!("round {round} ").into_bytes().into_iter().cycle().take(1 << 16).collect();
    for offset in (0..of.saturating_sub(EXTENT)).step_by(usize::try_from(distance).unwrap_or(usize::MAX)) {
        file.write_all_at(&text, offset / EXTENT * EXTENT)?;
    }
    Ok(())
}

fn serve(bench: &Bench<'_>, image: &Path, socket: &Path) -> io::Result<Server> {
    let mut command = Command::new(&bench.oma);
    command.arg("serve").arg(image).arg("--read-only").arg("--socket").arg(socket);
    let mut server = Server(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    // The URI is printed once clients can connect.
    let mut uri = String::new();
    if let Some(stdout) = server.0.stdout.take() {
        BufReader::new(stdout).read_line(&mut uri)?;
    }
    if uri.is_empty() { Err(io::Error::other("oma serve did not start")) } else { Ok(server) }
}
