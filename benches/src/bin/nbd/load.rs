//! What clients do to a server.

use std::path::Path;
use std::time::Duration;

use oma_benches::gib;

use crate::disk::{Disks, Medium};
use crate::fio::Fio;
use crate::lean::Lean;
use crate::row::Unit;
use crate::{Result, program};

/// A client and its work.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// nbdcopy from the export to nowhere.
    CopyOut,
    /// nbdcopy from a file into the export.
    CopyIn,
    /// fio.
    Fio(Fio),
    /// `qemu-img bench`, reading in order: bytes of a request and requests under way.
    QemuImg(u32, u32),
    /// Our client.
    Lean(Lean),
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// GiB or requests.
    pub(crate) amount: f64,
    pub(crate) seconds: f64,
}

/// What a load is put on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) uri: &'a str,
    pub(crate) medium: Medium,
    pub(crate) disks: &'a Disks,
    pub(crate) window: Duration,
}

impl Load {
    /// The program that it needs.
    pub(crate) fn missing(&self) -> Option<String> {
        let program = match self {
            Self::CopyOut | Self::CopyIn => "nbdcopy",
            Self::Fio(_) => "fio",
            Self::QemuImg(..) => "qemu-img",
            Self::Lean(_) => return None,
        };
        (!program::is_there(program)).then(|| format!("{program} is missing"))
    }

    pub(crate) async fn run(&self, target: Target<'_>, unit: Unit) -> Result<Work> {
        let folder = target.disks.folder();
        let whole = gib(target.disks.size(target.medium).bytes());
        match self {
            Self::CopyOut => copy(&[target.uri, "null:"], whole, folder).await,
            Self::CopyIn => {
                let source = target.disks.source()?;
                copy(&[&source.display().to_string(), target.uri], whole, folder).await
            }
            Self::Fio(fio) => fio.run(target.uri, unit, target.window, folder).await,
            Self::QemuImg(block, depth) => qemu_img(target, *block, *depth, unit).await,
            Self::Lean(lean) => lean.run(target.uri, target.window).await,
        }
    }
}

async fn copy(arguments: &[&str], amount: f64, folder: &Path) -> Result<Work> {
    Ok(Work { amount, seconds: program::run("nbdcopy", arguments, folder).await?.seconds })
}

/// As many requests as the disk has blocks, but no more than a run of 4 KiB may take.
async fn qemu_img(target: Target<'_>, block: u32, depth: u32, unit: Unit) -> Result<Work> {
    const MOST: u64 = 200_000;
    let size = target.disks.size(target.medium).bytes();
    let count = u32::try_from((size / u64::from(block)).min(MOST))?;
    let [count_text, block_text, depth_text] = [count, block, depth].map(|number| number.to_string());
    let arguments =
        ["bench", "-f", "raw", "-c", &count_text, "-s", &block_text, "-d", &depth_text, target.uri];
    let said = program::run("qemu-img", &arguments, target.disks.folder()).await?.said;
    // It tells the time without its own start.
    let seconds =
        said.split("Run completed in ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let amount = match unit {
        Unit::Gib => gib(u64::from(count) * u64::from(block)),
        Unit::Requests => f64::from(count),
    };
    Ok(Work { amount, seconds: seconds.ok_or_else(|| format!("qemu-img said {said}"))? })
}
