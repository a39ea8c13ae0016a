//! A run as metrics, for a collector that reads files.

use std::fmt::Write;

use crate::{DiskReport, Outcome, ReplicationReport};

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
        let committed = u8::from(self.status == Outcome::Completed);
        family(&mut text, "oma_replication_committed", "Whether the last run committed its epoch");
        sample(&mut text, "oma_replication_committed", &vm, committed);
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

fn bytes(disk: &DiskReport) -> Vec<(&'static str, u64)> {
    let mut all = vec![
        ("capacity", disk.capacity_bytes),
        ("read", disk.bytes_read),
        ("written", disk.bytes_written),
        ("shared", disk.bytes_shared),
        ("zero", disk.bytes_zero),
        ("skipped", disk.bytes_skipped),
        ("resumed", disk.bytes_resumed),
        ("recopied", disk.bytes_recopied),
        ("equal", disk.bytes_equal),
    ];
    all.extend(disk.bytes_verified.map(|bytes| ("verified", bytes)));
    all.into_iter().map(|(kind, size)| (kind, size.bytes())).collect()
}

fn labels(vm: &str, disk: &DiskReport, name: &str, value: &str) -> String {
    format!("{vm},disk=\"{}\",{name}=\"{}\"", escaped(disk.disk_key.as_str()), escaped(value))
}

// Writing to a string cannot fail.
fn family(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
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
