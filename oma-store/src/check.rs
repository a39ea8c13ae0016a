//! Whether the records agree with each other.

use std::collections::BTreeSet;
use std::fmt;

use oma_core::DiskKey;
use oma_core::audit::AuditBreak;

use crate::audit_log;
use crate::cleanups::Found;
use crate::db::{MOST_FAULTS, Row, Sql, ToVal, Tx, Val, vals};
use crate::error::{Result, StoreError};
use crate::extent_journal;
use crate::record;
use crate::recovery_points::point;
use crate::report_store::report;
use crate::sql::checks::{self, Rule};
use crate::sql::{
    changes, cleanups, events, exports, jobs, journals, operations, points, reports, tables, vms, volumes,
};
use crate::store::SqlStore;

/// Something in the database that contradicts something else, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Which rule is broken: the first word of one of [`RULES`].
    pub rule: &'static str,
    /// The table.
    pub table: &'static str,
    /// The key of the row; `?` where the engine names only the table.
    pub key: String,
    /// What is wrong with it.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}: {}", self.rule, self.table, self.key, self.detail)
    }
}

/// The rules that [`SqlStore::check`] looks at, and what a finding of each means.
pub const RULES: &[(&str, &str)] = &[
    ("orphan", "a row refers to a row that is not there"),
    ("label", "a row has a state or kind that this program does not know"),
    ("unreadable", "a row is none that this program could have written"),
    ("check", "a table has a row that its own definition forbids"),
    ("device-of-deleted-volume", "a device shows a volume that is recorded as deleted"),
    ("device-of-detached-volume", "a device shows a volume that is not recorded as attached"),
    ("device-twice", "two volumes are said to be one device of one machine"),
    ("attached-without-device", "a volume is recorded as attached, and no device shows it"),
    ("device-path", "a volume's device path is not that of its device"),
    ("condemned-without-delete", "a volume is condemned or being deleted, and no operation says so"),
    ("epoch-never-held", "a volume holds an epoch, and is recorded as one that never held any"),
    ("generation-ahead", "a volume has a generation that its disk never gave out"),
    ("link-to-other-disk", "a disk is linked to a volume of another disk"),
    ("link-to-deleted-volume", "a disk is linked to a volume that is recorded as deleted"),
    ("content-of-other-epoch", "a volume holds an epoch that its disk's change id contradicts"),
    ("operation-on-other-disk", "an operation is about a volume of another disk"),
    ("operation-without-volume", "an operation is completed and names no volume"),
    ("operation-due", "an operation's state and when it is due contradict each other"),
    ("operation-on-no-snapshot", "an operation about a snapshot names none"),
    ("operation-end", "an operation's state and its end contradict each other"),
    ("operations-at-once", "two operations of one disk have not ended"),
    ("point-of-other-vm", "a recovery point was made by a job of another VM"),
    ("point-without-commit", "a recovery point is ready though its job did not complete its epoch"),
    ("points-of-one-epoch", "two recovery points of one VM are ready and of one epoch"),
    ("journal-without-job", "a disk that belongs to no job has a journal of what was copied"),
    ("journal-of-committed-disk", "a committed disk still has a journal of what was copied"),
    ("export-of-ended-job", "an export is not stopped though its job has ended"),
    ("export-for-other-vm", "an export is claimed by a job of another VM"),
    ("export-of-other-disk", "an export serves a volume of another disk"),
    ("volume-exported-twice", "one volume is served under two names"),
    ("disk-exported-twice", "two volumes of one disk are served"),
    ("current-job-ended", "a VM's current job has ended"),
    ("current-job-of-other-vm", "a VM's current job is one of another VM"),
    ("replicating-without-job", "a VM is said to replicate and has no live job"),
    ("last-job", "a VM's last successful job did not complete the VM's epoch"),
    ("job-counts", "a VM counts more jobs ended than begun"),
    ("disk-of-other-vm", "a disk is with a job of another VM"),
    ("epoch-ahead", "a disk has a later epoch than its VM"),
    ("change-id-ahead", "a change id is of a generation that its disk never gave out"),
    ("change-id-of-other-epoch", "a disk's change id is not the one that the job of its epoch committed"),
    ("change-id-incomplete", "a disk's change id lacks what it is bound to"),
    ("not-committed", "a job is completed and a disk of it is not at its epoch"),
    ("syncs-without-job", "a disk is said to be copied and no live job has it"),
    ("live-job-unknown-to-vm", "a job is live and its VM knows no live job"),
    ("live-job-of-idle-vm", "a job is live and its VM is not said to replicate"),
    ("jobs-at-once", "a VM has two live jobs"),
    ("epoch-of-live-job", "a live job makes another epoch than the next"),
    ("epoch-of-completed-job", "a completed job's epoch is later than its VM's"),
    ("epoch-twice", "two jobs completed one epoch of one VM"),
    ("owner-of-ended-job", "an ended job still has an owner"),
    ("due", "a job's state and its lease contradict each other"),
    ("job-end", "a job's state and its end contradict each other"),
    ("completed-without-success", "a job is completed and one of its disks is not recorded as a success"),
    ("success-without-commit", "a disk is recorded as a success of a job that did not complete"),
    ("incomplete-history", "a completed job has no history of one of its disks"),
    ("history-of-other-vm", "a history row names a job of another VM"),
    ("failover-of-other-vm", "a failover names a replication job of another VM"),
    ("log-of-other-job", "a log event names a step of another job"),
    ("line-twice", "two lines of a job's output have one number"),
    ("audit-trail", "the audit trail was tampered with: an entry was removed, altered or inserted"),
];

/// Rows that are read at a time.
const PAGE: i64 = 1000;

impl SqlStore {
    /// Looks for everything in the records that contradicts something else or cannot be read, all of it as of one moment.
    /// Nothing is changed. A healthy database has no finding, in whatever state its jobs are.
    ///
    /// Every row is read, so it takes a while on a large database; others can write meanwhile. No rule answers more than
    /// 1000 rows of a table.
    ///
    /// The file of an SQLite database is checked first, page by page; a server has no such check that is cheap.
    ///
    /// # Errors
    /// `Corrupt` when that file is damaged: what its rows say is worth nothing then. Another kind when the database cannot be
    /// read at all.
    pub async fn check(&self) -> oma_core::Result<Vec<Finding>> {
        self.find_all().await.map_err(|error| error.at("check", self.db.place()))
    }

    async fn find_all(&self) -> Result<Vec<Finding>> {
        let forbidding = self.damage().await?;
        let mut tx = self.db.snapshot().await?;
        let mut findings = Vec::new();
        for rule in checks::RULES.concat() {
            let rows =
                tx.all(rule.sql, vals![], |row| Ok((row.shown("row_key"), row.shown("found")))).await?;
            findings.extend(rows.into_iter().map(|(key, found)| broken(&rule, key, &found)));
        }
        for (key, sql, record) in TABLES {
            read(&mut tx, *key, *sql, *record, &mut findings).await?;
        }
        read_journals(&mut tx, &mut findings).await?;
        let broken = audit_log::walk(&mut tx, None).await?.broken;
        findings.extend(broken.map(|broken| tampered(&broken)));
        // A rule that was broken in such a table says more.
        let untold = |table: &&str| !findings.iter().any(|finding| finding.table == *table);
        let untold: Vec<_> = forbidding.into_iter().filter(untold).map(forbidden).collect();
        findings.extend(untold);
        Ok(findings)
    }

    /// The tables with rows that their checks forbid; whatever else the engine itself finds wrong with its file is an error.
    async fn damage(&self) -> Result<BTreeSet<&'static str>> {
        let found = self.db.integrity().await?;
        let tables: BTreeSet<_> = found.iter().filter_map(|line| forbidding(line)).collect();
        let damage = found.iter().find(|line| forbidding(line).is_none());
        // After so many it stopped, whatever comes behind.
        match damage.or_else(|| found.first().filter(|_| found.len() >= MOST_FAULTS)) {
            Some(detail) => Err(StoreError::Damaged { path: self.db.place().into(), detail: detail.clone() }),
            None => Ok(tables),
        }
    }
}

/// How the engine begins to tell of a row that its table forbids.
pub(crate) const BROKEN_CHECK: &str = "CHECK constraint failed in ";

/// The table of ours whose check a row breaks, when that is what the engine tells.
fn forbidding(line: &str) -> Option<&'static str> {
    let name = line.strip_prefix(BROKEN_CHECK)?;
    tables::TABLES.iter().map(|table| table.name).find(|table| *table == name)
}

fn forbidden(table: &'static str) -> Finding {
    let detail =
        "a value in one of its rows breaks a CHECK of the table; set it to one that the table allows";
    Finding { rule: "check", table, key: "?".to_owned(), detail: detail.to_owned() }
}

fn tampered(broken: &AuditBreak) -> Finding {
    let detail = format!("{broken}; so whatever stands behind it proves nothing");
    Finding { rule: "audit-trail", table: "audit_logs", key: broken.id.to_string(), detail }
}

fn broken(rule: &Rule, key: String, found: &str) -> Finding {
    Finding { rule: rule.name, table: rule.table, key, detail: rule.says.replace("{}", found) }
}

/// How a row is read.
type Record = fn(&Row) -> Result<()>;

/// Tables whose rows are records: the column that their pages go by, the statement of a page, how a row is read.
const TABLES: &[(Key, Sql, Record)] = &[
    (Key::Text("context_id"), vms::PAGE, |row| record::context(row).map(drop)),
    (Key::Int("seq"), jobs::SCAN, |row| record::job(row).map(drop)),
    (Key::Int("row_id"), vms::SCAN_DISKS, |row| {
        record::disk(row).and_then(|_| record::committed(row)).map(drop)
    }),
    (Key::Text("volume_id"), volumes::SCAN, |row| record::volume(row).map(drop)),
    (Key::Text("id"), operations::SCAN, |row| record::operation(row).map(drop)),
    (Key::Text("export_name"), exports::PAGE, |row| record::export(row).map(drop)),
    (Key::Int("id"), changes::SCAN, |row| record::history(row).map(drop)),
    (Key::Int("id"), events::AFTER, |row| record::event(row).map(drop)),
    (Key::Text("job_id"), reports::SCAN, |row| report(row).map(drop)),
    (Key::Text("id"), points::SCAN, |row| point(row).map(drop)),
    (Key::Int("seq"), cleanups::SCAN, |row| Found::read(row).map(drop)),
    (Key::Int("seq"), changes::OF_COMPLETED, covered),
];

/// A column that pages go by.
#[derive(Clone, Copy, Debug)]
enum Key {
    Int(&'static str),
    Text(&'static str),
}

impl Key {
    /// Before every row.
    fn first(self) -> Result<Val> {
        match self {
            Self::Int(_) => i64::MIN.to_val(),
            Self::Text(_) => "".to_val(),
        }
    }

    fn of(self, row: &Row) -> Result<Val> {
        match self {
            Self::Int(column) => row.fields("a page", column).int(column)?.to_val(),
            Self::Text(column) => row.fields("a page", column).text(column)?.to_val(),
        }
    }
}

/// Reads every row of a table; goes on behind one that cannot be read.
async fn read(tx: &mut Tx, key: Key, sql: Sql, record: Record, findings: &mut Vec<Finding>) -> Result<()> {
    let mut behind = key.first()?;
    loop {
        let rows = tx.all(sql, Ok(vec![behind, PAGE.to_val()?]), |row| Ok(row.clone())).await?;
        for row in &rows {
            if let Err(error) = record(row) {
                findings.push(unreadable(error)?);
            }
        }
        let Some(last) = rows.last().filter(|_| i64::try_from(rows.len()) == Ok(PAGE)) else {
            return Ok(());
        };
        behind = key.of(last)?;
    }
}

/// Reads every journal with its parts and extents.
async fn read_journals(tx: &mut Tx, findings: &mut Vec<Finding>) -> Result<()> {
    let mut behind = i64::MIN;
    loop {
        let numbered =
            |row: &Row| Ok((row.fields("disk_journals", "vm_disk_id").int("vm_disk_id")?, row.clone()));
        let rows = tx.all(journals::SCAN, vals![behind, PAGE], numbered).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        behind = *last;
        for (_, row) in &rows {
            if let Err(error) = extent_journal::read(tx, row).await {
                findings.push(unreadable(error)?);
            }
        }
    }
}

fn unreadable(error: StoreError) -> Result<Finding> {
    match error {
        StoreError::Row { table, key, column, reason } if column == HISTORY => {
            Ok(Finding { rule: "incomplete-history", table, key, detail: reason })
        }
        StoreError::Row { table, key, column, reason } => {
            Ok(Finding { rule: "unreadable", table, key, detail: format!("column {column}: {reason}") })
        }
        error => Err(error),
    }
}

/// The column of [`changes::OF_COMPLETED`] that counts a job's disks with a history.
const HISTORY: &str = "disks_with_history";

/// A completed job has a history of each of its disks (L08).
fn covered(row: &Row) -> Result<()> {
    let fields = row.fields("replication_jobs", "id");
    // A list that cannot be read was told when the jobs were.
    let Ok(disks) = fields.json::<Vec<DiskKey>>("disk_ids") else {
        return Ok(());
    };
    let recorded = fields.count(HISTORY)?;
    if u64::try_from(disks.len()) == Ok(recorded) {
        return Ok(());
    }
    Err(fields.damaged(
        HISTORY,
        format!("it is completed with {} disks, {recorded} of them have a history", disks.len()),
    ))
}
