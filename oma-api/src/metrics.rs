//! A run, and a forecast, as metrics, for a collector that reads files.

use std::fmt::Write;

use crate::{DiskReport, ForecastReport, Outcome, ReplicationReport, RunningDisk, RunningReport, Spread};

impl ReplicationReport {
    /// The run in Prometheus' text format (version 0.0.4), for the textfile collector of its node exporter: all are gauges of the last
    /// run. The outcome is 1 for a committed epoch, else 0.
    ///
    /// ```
    /// # let line = r#"{"job_id":"job-1","vm_path":"/DC/vm/web01","status":"completed","epoch":2,
    /// # "replication_type":"incremental","seconds":0.5,"error":null,"warnings":[],"disks":[]}"#;
    /// let report: oma_api::ReplicationReport = serde_json::from_str(line)?;
    /// assert!(report.metrics().contains("oma_replication_epoch{vm=\"/DC/vm/web01\"} 2\n"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn metrics(&self) -> String {
        let vm = format!("vm=\"{}\"", escaped(self.vm_path.as_str()));
        let mut text = String::new();
        running(&mut text, &vm, false);
        committed(&mut text, &vm, self.status == Outcome::Completed);
        family(&mut text, "oma_replication_epoch", "The epoch of the last run");
        sample(&mut text, "oma_replication_epoch", &vm, self.epoch);
        family(&mut text, "oma_replication_seconds", "How long the last run took");
        sample(&mut text, "oma_replication_seconds", &vm, self.seconds);
        family(&mut text, "oma_replication_warnings", "Warnings of the last run");
        sample(&mut text, "oma_replication_warnings", &vm, self.warnings.len());
        family(
            &mut text,
            "oma_replication_disk_bytes",
            "Bytes of a disk in the last run, by what became of them",
        );
        for disk in &self.disks {
            for (kind, bytes) in bytes(disk) {
                sample(&mut text, "oma_replication_disk_bytes", &labels(&vm, disk, "kind", kind), bytes);
            }
        }
        family(
            &mut text,
            "oma_replication_disk_stage_seconds",
            "Time that data of a disk spent in each stage",
        );
        for disk in &self.disks {
            for (stage, seconds) in &disk.explanation.stage_seconds {
                let labels = labels(&vm, disk, "stage", stage);
                sample(&mut text, "oma_replication_disk_stage_seconds", &labels, seconds);
            }
        }
        text
    }
}

impl RunningReport {
    /// The run as it is now, in the same format, after what `before` has of the last one. A run that was killed leaves
    /// `oma_replication_running` at 1: how old the file is, the collector tells.
    #[must_use]
    pub fn metrics(&self, before: &str) -> String {
        let vm = format!("vm=\"{}\"", escaped(self.vm_path.as_str()));
        let mut text = String::new();
        running(&mut text, &vm, true);
        family(&mut text, PROGRESS_SECONDS, "How long the run has run");
        sample(&mut text, PROGRESS_SECONDS, &vm, self.seconds);
        family(&mut text, PROGRESS_BYTES, "How far the run is with a disk");
        for (key, disk) in &self.disks {
            for (kind, bytes) in running_bytes(disk) {
                let labels = format!("{vm},disk=\"{}\",kind=\"{kind}\"", escaped(key.as_str()));
                sample(&mut text, PROGRESS_BYTES, &labels, bytes);
            }
        }
        text + &without(before, &OF_A_RUN)
    }

    /// The run when it has ended without a report: no epoch is committed. What else `before` has of the last one follows.
    #[must_use]
    pub fn failed_metrics(&self, before: &str) -> String {
        let vm = format!("vm=\"{}\"", escaped(self.vm_path.as_str()));
        let mut text = String::new();
        running(&mut text, &vm, false);
        committed(&mut text, &vm, false);
        let [running, seconds, bytes] = OF_A_RUN;
        text + &without(before, &[running, seconds, bytes, COMMITTED])
    }
}

/// Metrics without those of these names.
fn without(metrics: &str, names: &[&str]) -> String {
    let is_left = |line: &&str| {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        let name = name.split([' ', '{']).next().unwrap_or_default();
        !names.contains(&name)
    };
    metrics.lines().filter(is_left).flat_map(|line| [line, "\n"]).collect()
}

/// What only a run that goes on has.
const OF_A_RUN: [&str; 3] = [RUNNING, PROGRESS_SECONDS, PROGRESS_BYTES];
const COMMITTED: &str = "oma_replication_committed";
const RUNNING: &str = "oma_replication_running";
const PROGRESS_SECONDS: &str = "oma_replication_progress_seconds";
const PROGRESS_BYTES: &str = "oma_replication_progress_bytes";

fn running(text: &mut String, vm: &str, runs: bool) {
    family(text, RUNNING, "Whether a run goes on");
    sample(text, RUNNING, vm, u8::from(runs));
}

fn committed(text: &mut String, vm: &str, is_committed: bool) {
    family(text, COMMITTED, "Whether the last run committed its epoch");
    sample(text, COMMITTED, vm, u8::from(is_committed));
}

fn running_bytes(disk: &RunningDisk) -> [(&'static str, u64); 7] {
    [
        ("total", disk.bytes_total),
        ("done", disk.bytes_done),
        ("durable", disk.bytes_durable),
        ("read", disk.bytes_read),
        ("written", disk.bytes_written),
        ("to_compare", disk.bytes_to_compare),
        ("compared", disk.bytes_compared),
    ]
    .map(|(kind, size)| (kind, size.bytes()))
}

impl ForecastReport {
    /// The forecast in the same format: gauges with a label `quantile`, the part of the past that was below.
    #[must_use]
    pub fn metrics(&self) -> String {
        let vm = format!("vm=\"{}\"", escaped(self.vm_path.as_str()));
        let mut text = String::new();
        family(&mut text, "oma_forecast_epochs", "Incremental epochs that the forecast is told from");
        sample(&mut text, "oma_forecast_epochs", &vm, self.epochs);
        let rate = "Bytes that change in a second";
        spread(&mut text, "oma_forecast_change_bytes_per_second", rate, &vm, self.change_bytes_per_second);
        let Spread { p10, p50, p90 } = self.next_bytes;
        let bytes = Spread { p10: p10.bytes(), p50: p50.bytes(), p90: p90.bytes() };
        spread(
            &mut text,
            "oma_forecast_next_bytes",
            "Bytes of an incremental epoch that begins now",
            &vm,
            bytes,
        );
        spread(&mut text, "oma_forecast_next_seconds", "How long that takes", &vm, self.next_seconds);
        let cutover = "How long the disks must stand still at a cutover";
        spread(&mut text, "oma_forecast_cutover_seconds", cutover, &vm, self.cutover_seconds);
        text
    }
}

fn spread<T: std::fmt::Display>(text: &mut String, name: &str, help: &str, vm: &str, of: Spread<T>) {
    family(text, name, help);
    for (quantile, value) in [("0.1", of.p10), ("0.5", of.p50), ("0.9", of.p90)] {
        sample(text, name, &format!("{vm},quantile=\"{quantile}\""), value);
    }
}

fn bytes(disk: &DiskReport) -> Vec<(&'static str, u64)> {
    let mut all = vec![
        ("capacity", disk.capacity_bytes),
        ("read", disk.bytes_read),
        ("written", disk.bytes_written),
        ("shared", disk.bytes_shared),
        ("zero", disk.bytes_zero),
        ("skipped", disk.bytes_skipped),
        ("unchanged", disk.bytes_unchanged),
        ("resumed", disk.bytes_resumed),
        ("recopied", disk.bytes_recopied),
        ("equal", disk.bytes_equal),
        ("hashed", disk.bytes_hashed),
    ];
    all.extend(disk.bytes_verified.map(|bytes| ("verified", bytes)));
    all.extend(disk.bytes_promised_zero.map(|bytes| ("promised_zero", bytes)));
    all.into_iter().map(|(kind, size)| (kind, size.bytes())).collect()
}

fn labels(vm: &str, disk: &DiskReport, name: &str, value: &str) -> String {
    format!("{vm},disk=\"{}\",{name}=\"{}\"", escaped(disk.disk_key.as_str()), escaped(value))
}

// Writing to a string cannot fail.
pub(crate) fn family(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

pub(crate) fn sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

/// A label's value may hold anything, with these three escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_label_cannot_end_it() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
