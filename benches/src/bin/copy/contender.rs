//! Who copies, and how it is told to.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Bench;
use crate::measure;

/// A program that copies, and flushes what it wrote.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    target: Target,
}

/// What a contender leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A file that it makes.
    New(PathBuf),
    /// A file of the right size, which it must find.
    Empty(PathBuf),
    /// A data directory with one volume, which it makes.
    DataDir(PathBuf),
    /// The file behind a server, which stays.
    Served(PathBuf),
    /// Nothing that lasts.
    Discarded,
}

impl Contender {
    pub(crate) fn new(
        name: &'static str,
        program: impl Into<PathBuf>,
        arguments: &[&str],
        target: Target,
    ) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { name, program: program.into(), arguments, target }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// The command line for a reader.
    pub(crate) fn line(&self, bench: &Bench) -> String {
        let program = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let line = format!("{program} {}", self.arguments.join(" ")).replace('\n', "; ");
        line.replace(&bench.folder().display().to_string(), "DIR")
    }

    /// Makes the target as the program wants it.
    pub(crate) fn prepare(&self, bench: &Bench) -> io::Result<()> {
        match &self.target {
            Target::Empty(path) => File::create_new(path)?.set_len(bench.size.bytes()),
            // What an earlier copy wrote must not help the next one.
            Target::Served(path) => {
                let file = File::options().write(true).open(path)?;
                file.set_len(0)?;
                file.set_len(bench.size.bytes())
            }
            Target::New(_) | Target::DataDir(_) | Target::Discarded => Ok(()),
        }
    }

    /// Proves that the copy is one.
    pub(crate) fn check(&self, bench: &Bench) -> io::Result<()> {
        let copy = match &self.target {
            Target::New(path) | Target::Empty(path) | Target::Served(path) => path.clone(),
            Target::DataDir(path) => volume(&path.join("volumes"))?,
            Target::Discarded => return Ok(()),
        };
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-q", "-f", "raw", "-F", "raw"]).arg(&bench.image).arg(copy);
        measure::run(&mut compare).map(drop)
    }

    /// Gives the room back.
    pub(crate) fn clean(&self) -> io::Result<()> {
        match &self.target {
            Target::New(path) | Target::Empty(path) => fs::remove_file(path),
            Target::DataDir(path) => fs::remove_dir_all(path),
            Target::Served(_) | Target::Discarded => Ok(()),
        }
    }
}

/// The largest file of a folder: the volume, whatever else lies beside it.
fn volume(folder: &Path) -> io::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.into_iter().max().map(|(_, path)| path).ok_or_else(|| io::Error::other("there is no volume"))
}
