//! Who copies.

use std::fs::{self, File};
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::process::{Command, Stdio};

use oma_core::ByteSize;

use crate::measure;

/// From where the image is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// From its file.
    File,
    /// From qemu-nbd, over a unix socket.
    Nbd,
}

/// A program that copies the image to a raw file, and flushes it.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) line: String,
    program: PathBuf,
    arguments: Vec<String>,
    target: Target,
}

/// What a contender leaves behind.
#[derive(Debug)]
enum Target {
    /// A file of the right size, which it must find.
    File(PathBuf),
    /// A data directory with one volume, which it makes.
    DataDir(PathBuf),
}

/// Ours first: the others are compared with it.
pub(crate) fn all(source: &str, oma: &FsPath, folder: &FsPath) -> Vec<Contender> {
    let data = folder.join("oma-data");
    let file = folder.join("target.raw");
    let target = file.display().to_string();
    let text = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    let data_dir = data.display().to_string();
    let replicate =
        ["--data-dir", &data_dir, "--json", "replicate", "--vm-path", "/bench", "--source", source];
    // -t writeback: flushed at the end, like the others; the default is to leave that to the kernel.
    let convert =
        ["convert", "-n", "-W", "-m", "16", "-t", "writeback", "-f", "raw", "-O", "raw", source, &target];
    let nbdcopy = ["--flush", source, &target];
    let line = |program: &str, arguments: &[&str]| {
        let shown = arguments.join(" ").replace(source, "SOURCE").replace(&target, "TARGET");
        format!("{program} {}", shown.replace(&data_dir, "DIR"))
    };
    vec![
        Contender {
            name: "oma",
            line: line("oma", &replicate),
            program: oma.to_owned(),
            arguments: text(&replicate),
            target: Target::DataDir(data),
        },
        Contender {
            name: "qemu-img",
            line: line("qemu-img", &convert),
            program: PathBuf::from("qemu-img"),
            arguments: text(&convert),
            target: Target::File(file.clone()),
        },
        Contender {
            name: "nbdcopy",
            line: line("nbdcopy", &nbdcopy),
            program: PathBuf::from("nbdcopy"),
            arguments: text(&nbdcopy),
            target: Target::File(file),
        },
    ]
}

impl Contender {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Makes the target as the program wants it.
    pub(crate) fn prepare(&self, size: ByteSize) -> io::Result<()> {
        match &self.target {
            Target::File(path) => File::create_new(path)?.set_len(size.bytes()),
            Target::DataDir(_) => Ok(()),
        }
    }

    /// Proves that the copy is one.
    pub(crate) fn check(&self, image: &FsPath) -> io::Result<()> {
        let copy = match &self.target {
            Target::File(path) => path.clone(),
            Target::DataDir(path) => volume(&path.join("volumes"))?,
        };
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-q", "-f", "raw", "-F", "raw"]).arg(image).arg(copy);
        measure::run(&mut compare).map(drop)
    }

    /// Gives the room back.
    pub(crate) fn clean(&self) -> io::Result<()> {
        match &self.target {
            Target::File(path) => fs::remove_file(path),
            Target::DataDir(path) => fs::remove_dir_all(path),
        }
    }
}

/// The largest file of a folder: the volume, whatever else lies beside it.
fn volume(folder: &FsPath) -> io::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.into_iter().max().map(|(_, path)| path).ok_or_else(|| io::Error::other("there is no volume"))
}
