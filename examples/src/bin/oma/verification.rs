//! Verification reports for readers: as a table, and as a file.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use oma_core::Result;
use oma_core::record::{SampleSize, VerificationReport, VerificationScope};
use oma_core::seal::SealedReport;
use oma_core::traits::ReadManner;

use crate::output;
use crate::table::{Align, Table};
use oma_examples::failure::{io_error, read_error};
use oma_examples::folder;

/// One row a disk.
pub(crate) fn table(report: &VerificationReport) -> Table {
    let mut table = Table::new(&[
        ("VM", Align::Left),
        ("epoch", Align::Right),
        ("disk", Align::Left),
        ("level", Align::Left),
        ("compared", Align::Right),
        ("promised zero", Align::Right),
        ("of", Align::Right),
        ("different", Align::Right),
        ("read back", Align::Left),
        ("root", Align::Left),
    ]);
    for disk in &report.disks {
        table.row([
            report.vm.to_string(),
            report.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            disk.key.to_string(),
            level(&report.scope),
            disk.compared.to_string(),
            disk.promised_zero.map(|bytes| bytes.to_string()).unwrap_or_default(),
            disk.capacity.to_string(),
            disk.differences.bytes().to_string(),
            manner(disk.read_back).to_owned(),
            disk.source_root.map(|root| root.to_string()).unwrap_or_default(),
        ]);
    }
    table
}

/// A line for each extent that differs.
pub(crate) fn print_differences(report: &VerificationReport) -> Result<()> {
    for disk in &report.disks {
        for extent in disk.differences.iter() {
            let (length, offset) = (extent.length(), extent.offset());
            output::line(format_args!("{}: {length} bytes differ at {offset}", disk.key))?;
        }
    }
    Ok(())
}

/// Before anything is compared: a report can be written there, and nothing is there yet.
pub(crate) fn check_savable(path: &Path) -> Result<()> {
    let failed = |error| io_error("write the report", path.display(), error);
    match fs::symlink_metadata(path) {
        Ok(_) => Err(failed(io::ErrorKind::AlreadyExists.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder::check_writable("write the report", path)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a report into a file that is not there yet, whole or not at all.
pub(crate) fn save(sealed: &SealedReport, path: &Path) -> Result<()> {
    let failed = |error| io_error("write the report", path.display(), error);
    let mut file = folder::draft(path).map_err(failed)?;
    writeln!(file.as_file_mut(), "{}", sealed.to_json()?).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    folder::sync(path).map_err(failed)
}

/// Reads a report from a file; the signature is not looked at.
pub(crate) fn read(path: &Path) -> Result<SealedReport> {
    let bytes = fs::read(path).map_err(|error| read_error("read the report", path.display(), error))?;
    SealedReport::parse(&String::from_utf8_lossy(&bytes))
}

fn level(scope: &VerificationScope) -> String {
    match scope {
        VerificationScope::Full => "whole disk".to_owned(),
        VerificationScope::Changed => "changed".to_owned(),
        VerificationScope::Sample { size: SampleSize::Leaves(count), .. } => format!("sample of {count}"),
        VerificationScope::Sample { size: SampleSize::Permille(permille), .. } => {
            format!("sample of {permille}/1000")
        }
    }
}

const fn manner(manner: ReadManner) -> &'static str {
    match manner {
        ReadManner::PastCache => "past the page cache",
        ReadManner::InMemory => "from memory, where the volume is kept",
        ReadManner::ThroughCache => "through the page cache",
    }
}
