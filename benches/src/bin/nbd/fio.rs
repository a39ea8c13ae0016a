//! fio with its engine nbd.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::load::Work;
use crate::row::Unit;
use crate::{Result, program};

/// What fio does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fio {
    /// `randread`, `read` …
    pub(crate) pattern: &'static str,
    /// Bytes of a request.
    pub(crate) block: u32,
    /// Requests under way on each connection.
    pub(crate) depth: u32,
    /// Connections.
    pub(crate) jobs: u32,
}

impl Fio {
    pub(crate) async fn run(&self, uri: &str, unit: Unit, window: Duration, folder: &Path) -> Result<Work> {
        let arguments = [
            "--name=bench".to_owned(),
            "--ioengine=nbd".to_owned(),
            format!("--uri={uri}"),
            format!("--rw={}", self.pattern),
            format!("--bs={}", self.block),
            format!("--iodepth={}", self.depth),
            format!("--numjobs={}", self.jobs),
            format!("--runtime={}ms", window.as_millis()),
            "--time_based".to_owned(),
            "--group_reporting".to_owned(),
            "--norandommap".to_owned(),
            "--randrepeat=0".to_owned(),
            "--output-format=json".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let said = program::run("fio", &arguments, folder).await?.said;
        parse(&said, self.pattern.ends_with("write"), unit).ok_or_else(|| format!("fio said {said}").into())
    }
}

/// What was done in how many seconds.
fn parse(said: &str, wrote: bool, unit: Unit) -> Option<Work> {
    // Notes may stand before the report.
    let report: Value = serde_json::from_str(&said[said.find('{')?..]).ok()?;
    let side = report.get("jobs")?.get(0)?.get(if wrote { "write" } else { "read" })?;
    let seconds = side.get("runtime")?.as_f64()? / 1000.0;
    let amount = match unit {
        Unit::Gib => side.get("io_bytes")?.as_f64()? / f64::from(1 << 30),
        Unit::Requests => side.get("total_ios")?.as_f64()?,
    };
    (amount > 0.0 && seconds > 0.0).then_some(Work { amount, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let said = r#"note
            {"jobs": [{"read": {"io_bytes": 0, "total_ios": 0, "runtime": 0},
                       "write": {"io_bytes": 1073741824, "total_ios": 50, "runtime": 500}}]}"#;
        let work = parse(said, true, Unit::Gib).unwrap();
        assert_eq!((work.amount.to_bits(), work.seconds.to_bits()), (1.0_f64.to_bits(), 0.5_f64.to_bits()));
        assert_eq!(parse(said, true, Unit::Requests).unwrap().amount.to_bits(), 50.0_f64.to_bits());
        assert!(parse(said, false, Unit::Gib).is_none());
        assert!(parse("fio: failed", true, Unit::Gib).is_none());
    }
}
