//! What is copied from where to where, and by whom.

use std::fs::File;
use std::io::{self, Write};

use crate::Bench;
use crate::contender::{Contender, Target};
use crate::extents;
use crate::measure::{self, Sample};
use crate::server::{self, Kind, Server, Transport};

/// A comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    FromFile,
    From(Kind, Transport),
    PushTls,
    /// Extents of so many bytes, behind servers that delay reads by 2 ms and writes by 1 ms.
    Changes(u64),
}

/// A row's runs.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Bytes of the work, holes included.
    pub(crate) bytes: u64,
    pub(crate) contenders: Vec<(Contender, Vec<Sample>)>,
}

const fn row(name: &'static str, title: &'static str, work: Work) -> Row {
    Row { name, title, work }
}

pub(crate) fn all() -> Vec<Row> {
    use Transport::{Tcp, Unix};
    vec![
        row("file", "file to file", Work::FromFile),
        row("qemu-nbd-unix", "qemu-nbd (unix socket) to file", Work::From(Kind::QemuNbd, Unix)),
        row("qemu-nbd-tcp", "qemu-nbd (TCP) to file", Work::From(Kind::QemuNbd, Tcp)),
        row("nbdkit-unix", "nbdkit (unix socket) to file", Work::From(Kind::Nbdkit, Unix)),
        row("nbdkit-tcp", "nbdkit (TCP) to file", Work::From(Kind::Nbdkit, Tcp)),
        row("oma-unix", "our server (unix socket) to file", Work::From(Kind::Oma, Unix)),
        row("oma-tcp", "our server (TCP) to file", Work::From(Kind::Oma, Tcp)),
        row(
            "push-tls",
            "file into an export on TCP with TLS, each into the server of its own house",
            Work::PushTls,
        ),
        row(
            "changes-64k",
            "5 % changed in extents of 64 KiB, source 2 ms and target 1 ms away",
            Work::Changes(64 << 10),
        ),
        row(
            "changes-1m",
            "5 % changed in extents of 1 MiB, source 2 ms and target 1 ms away",
            Work::Changes(1 << 20),
        ),
    ]
}

/// Debian's own, for which its package of libnbd is made.
const PYTHON: &str = "/usr/bin/python3";

/// Reads an extent, waits, writes it, waits: one line of extents after the other.
fn one_by_one(source: &Server, target: &Server, list: &str) -> String {
    format!(
        "import nbd\n\
         source, target = nbd.NBD(), nbd.NBD()\n\
         source.connect_uri({:?})\n\
         target.connect_uri({:?})\n\
         for line in open({list:?}):\n\
         \x20   offset, length = map(int, line.split())\n\
         \x20   target.pwrite(source.pread(length, offset), offset)\n\
         target.flush()\n",
        source.uri, target.uri
    )
}

impl Row {
    pub(crate) fn needs_image(&self) -> bool {
        !matches!(self.work, Work::Changes(_))
    }

    pub(crate) fn measure(&self, bench: &Bench) -> io::Result<Measured> {
        let image = bench.image.display().to_string();
        match self.work {
            Work::FromFile => interleaved(bench, bench.size.bytes(), from(bench, &image, true)),
            Work::From(kind, transport) => {
                let server = kind.start(&bench.oma, &bench.image, transport, bench.folder())?;
                interleaved(bench, bench.size.bytes(), from(bench, &server.uri, false))
            }
            Work::PushTls => push(bench, &image),
            Work::Changes(extent) => changes(bench, extent),
        }
    }
}

/// Copies from a source to a new file.
fn from(bench: &Bench, source: &str, is_file: bool) -> Vec<Contender> {
    let folder = bench.folder();
    let (file, data) = (folder.join("target.raw"), folder.join("oma-data"));
    let (target, data_dir) = (file.display().to_string(), data.display().to_string());
    let replicate =
        ["--data-dir", &data_dir, "--json", "replicate", "--vm-path", "/bench", "--source", source];
    // -t writeback: flushed at the end, like the others; the default is to leave that to the kernel.
    let convert = [
        "convert",
        "-n",
        "--target-is-zero",
        "-W",
        "-m",
        "16",
        "-t",
        "writeback",
        "-f",
        "raw",
        "-O",
        "raw",
        source,
        &target,
    ];
    let mut all = vec![
        Contender::new(
            "oma copy",
            &bench.oma,
            &["--json", "copy", source, &target],
            Target::New(file.clone()),
        ),
        Contender::new("oma replicate", &bench.oma, &replicate, Target::DataDir(data)),
        Contender::new("qemu-img", "qemu-img", &convert, Target::Empty(file.clone())),
        Contender::new(
            "nbdcopy",
            "nbdcopy",
            &["--flush", "--destination-is-zero", source, &target],
            Target::Empty(file.clone()),
        ),
    ];
    if is_file {
        let script = r#"cp --sparse=always "$1" "$2" && sync "$2""#;
        all.push(Contender::new("cp", "sh", &["-c", script, "cp", source, &target], Target::New(file)));
    }
    all
}

/// Copies a file into the export of a server with TLS.
fn push(bench: &Bench, image: &str) -> io::Result<Measured> {
    let certificates = oma_benches::certificates(bench.folder())?;
    let made = |name: &str| -> io::Result<_> {
        let path = bench.folder().join(name);
        File::create(&path)?.set_len(bench.size.bytes())?;
        Ok(path)
    };
    let (ours, theirs) = (made("ours.raw")?, made("theirs.raw")?);
    let oma = server::ours_tls(&bench.oma, &ours, &certificates)?;
    let nbdkit = server::nbdkit_tls(&theirs, &certificates)?;
    let contenders = vec![
        Contender::new(
            "oma copy to oma serve",
            &bench.oma,
            &["--json", "copy", "--blank", image, &oma.uri],
            Target::Served(ours),
        ),
        Contender::new(
            "nbdcopy to nbdkit",
            "nbdcopy",
            &["--flush", "--destination-is-zero", image, &nbdkit.uri],
            Target::Served(theirs),
        ),
    ];
    interleaved(bench, bench.size.bytes(), contenders)
}

/// Copies extents between servers that delay each request.
fn changes(bench: &Bench, extent: u64) -> io::Result<Measured> {
    let list = bench.folder().join("extents");
    let bytes = extents::scattered(&list, bench.delayed_size, extent)?;
    let size = format!("size={}", bench.delayed_size.bytes());
    let start = |plugin: &str, delay: &str| -> io::Result<Server> {
        server::nbdkit_with(&["--filter=delay", plugin, &size, delay], bench.folder())
    };
    let (source, target) = (start("pattern", "rdelay=2ms")?, start("memory", "wdelay=1ms")?);
    let list = list.display().to_string();
    let contenders = vec![
        Contender::new(
            "oma copy",
            &bench.oma,
            &["--json", "copy", "--extents", &list, &source.uri, &target.uri],
            Target::Discarded,
        ),
        Contender::new("loop", PYTHON, &["-c", &one_by_one(&source, &target, &list)], Target::Discarded),
    ];
    interleaved(bench, bytes, contenders)
}

/// Runs every contender once a round; who begins changes with each round, so that no place in the order is an advantage.
fn interleaved(bench: &Bench, bytes: u64, contenders: Vec<Contender>) -> io::Result<Measured> {
    let mut measured: Vec<_> = contenders.into_iter().map(|contender| (contender, Vec::new())).collect();
    let count = measured.len();
    for round in 0..bench.rounds {
        for step in 0..count {
            let index = (usize::try_from(round).unwrap_or(0) + step) % count;
            let (contender, samples) = &mut measured[index];
            contender.prepare(bench)?;
            samples.push(measure::run(&mut contender.command())?);
            if round == 0 {
                contender.check(bench)?;
            }
            contender.clean()?;
        }
        let _ = writeln!(io::stderr(), "round {} of {}", round + 1, bench.rounds);
    }
    Ok(Measured { bytes, contenders: measured })
}
