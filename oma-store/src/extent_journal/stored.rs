//! A journal as rows, and back: nothing of it is believed that is not as it was written.

use oma_core::record::{JournalBasis, JournalEntry};
use oma_core::{ByteSize, Extent, ExtentSet};
use serde::{Deserialize, Serialize};

use crate::db::{Row, Tx, vals};
use crate::error::{Result, StoreError};
use crate::migrate::fingerprint;
use crate::sql::journals;

const TABLE: &str = "disk_journals";
const PARTS: &str = "disk_journal_parts";
const EXTENTS: &str = "disk_journal_extents";
const KEY: &str = "vm_disk_id";

/// The column `basis`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<B> {
    about: B,
    recopied: ByteSize,
}

/// What is written when a journal begins.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) basis: String,
    pub(super) planned_parts: i64,
    pub(super) parts: Vec<String>,
    pub(super) checksum: String,
}

impl Written {
    pub(super) fn new(entry: &JournalEntry) -> Result<Self> {
        let basis = serde_json::to_string(&Head { about: &entry.basis, recopied: entry.recopied })?;
        let mut parts: Vec<String> = entry.planned.compact().collect();
        let planned_parts = i64::try_from(parts.len()).unwrap_or(i64::MAX);
        parts.extend(entry.finished.compact());
        let checksum = checksum(&basis, planned_parts, &parts);
        Ok(Self { basis, planned_parts, parts, checksum })
    }
}

/// Of the row and, by the checksums at their ends, of all parts in their order.
fn checksum(basis: &str, planned_parts: i64, parts: &[String]) -> String {
    let ends: String =
        parts.iter().map(|part| part.get(part.len().saturating_sub(16)..).unwrap_or(part)).collect();
    fingerprint(&format!("{basis} {planned_parts} {} {ends}", parts.len()))
}

/// Of a run of finished bytes of the journal with a checksum.
pub(super) fn run_checksum(journal: &str, start: u64, end: u64) -> String {
    fingerprint(&format!("{journal} {start} {end}"))
}

/// The whole journal that a row of `disk_journals` is of.
pub(crate) async fn read(tx: &mut Tx, row: &Row) -> Result<JournalEntry> {
    let fields = row.fields(TABLE, KEY);
    let (disk, head) = (fields.int(KEY)?, fields.json::<Head<JournalBasis>>("basis")?);
    let (planned_parts, count) = (fields.int("planned_parts")?, fields.count("parts")?);
    let expected = fields.text("checksum")?;
    let texts = |row: &Row| Ok(row.fields(PARTS, KEY).text("extents")?.to_owned());
    let parts = tx.all(journals::PARTS, vals![disk], texts).await?;
    let found = checksum(fields.text("basis")?, planned_parts, &parts);
    if u64::try_from(parts.len()) != Ok(count) || found != expected {
        return Err(fields.damaged("checksum", "the journal is not as it was written"));
    }
    let planned = usize::try_from(planned_parts).ok().and_then(|at| parts.split_at_checked(at));
    let (planned, finished) = planned.ok_or_else(|| fields.damaged("planned_parts", "there are fewer"))?;
    let set = |parts: &[String]| {
        let fields = row.fields(PARTS, KEY);
        ExtentSet::from_compact(parts).map_err(|error| fields.damaged("extents", error))
    };
    let (basis, recopied) = (head.about, head.recopied);
    let mut entry = JournalEntry { basis, planned: set(planned)?, finished: set(finished)?, recopied };
    let (mut behind, mut runs) = (None, Vec::new());
    for found in tx.all(journals::EXTENTS, vals![disk], |row| Ok(row.clone())).await? {
        let extent = run(&found, expected)?;
        if behind.is_some_and(|end| extent.offset() <= end) {
            return Err(row
                .fields(EXTENTS, KEY)
                .damaged("start_offset", "it reaches into the run before it"));
        }
        behind = Some(extent.end());
        runs.push(extent);
    }
    entry.finished.extend(runs);
    Ok(entry)
}

/// A run of finished bytes of the journal with this checksum.
pub(super) fn run(row: &Row, journal: &str) -> Result<Extent> {
    let fields = row.fields(EXTENTS, KEY);
    let (start, end) = (fields.count("start_offset")?, fields.count("end_offset")?);
    if fields.text("checksum")? != run_checksum(journal, start, end) {
        return Err(fields.damaged("checksum", "the run is not as it was written"));
    }
    Extent::between(start, end).ok_or_else(|| fields.damaged("end_offset", "it is not behind start_offset"))
}

/// The checksum of a journal that is there.
pub(super) async fn known(tx: &mut Tx, disk: i64) -> Result<Option<String>> {
    let read = |row: &Row| Ok::<_, StoreError>(row.fields(TABLE, KEY).text("checksum")?.to_owned());
    tx.find(journals::CHECKSUM, vals![disk], read).await
}
