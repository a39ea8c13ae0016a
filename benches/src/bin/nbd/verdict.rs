//! What was to be reached and what was.

use oma_benches::{Cell, Table};

use crate::measure::Measured;
use crate::row::Row;

/// A row's goal and how far we came.
#[derive(Debug)]
pub(crate) struct Verdict {
    name: String,
    /// Of whom the ratios are.
    against: String,
    rate: Ratio,
    cpu: Ratio,
    /// Why it was not measured.
    missing: Option<String>,
}

/// A ratio, and its bound if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) found: f64,
    pub(crate) bound: Option<f64>,
}

impl Verdict {
    pub(crate) fn of(row: &Row, measured: &Measured) -> Self {
        let best = measured.best_peer();
        let (found, missing) = match (measured.ours(), &best) {
            (Ok(ours), Some((_, best))) => (Some((ours.rate / best.rate, ours.cpu / best.cpu)), None),
            (Err(reason), _) => (None, Some(reason)),
            (Ok(_), None) => (None, Some("no peer ran".to_owned())),
        };
        let (rate, cpu) = found.unwrap_or((f64::NAN, f64::NAN));
        Self {
            name: row.name.to_owned(),
            against: best.map_or_else(String::new, |(kind, _)| kind.to_string()),
            rate: Ratio { found: rate, bound: row.must.rate },
            cpu: Ratio { found: cpu, bound: row.must.cpu },
            missing,
        }
    }

    /// A verdict on a rate alone.
    pub(crate) fn on_rate(name: String, against: String, rate: Ratio) -> Self {
        Self { name, against, rate, cpu: Ratio { found: f64::NAN, bound: None }, missing: None }
    }

    fn met(&self) -> String {
        if let Some(reason) = &self.missing {
            return format!("not run: {reason}");
        }
        let fast = self.rate.bound.is_none_or(|bound| self.rate.found >= bound);
        let lean = self.cpu.bound.is_none_or(|bound| self.cpu.found <= bound);
        let text = match (fast, lean) {
            _ if self.rate.bound.is_none() && self.cpu.bound.is_none() => "no goal",
            (true, true) => "met",
            (false, true) => "missed",
            (true, false) => "rate met, CPU missed",
            (false, false) => "both missed",
        };
        text.to_owned()
    }
}

/// All verdicts.
pub(crate) fn table(verdicts: &[Verdict]) -> Table {
    let columns = ["row", "against", "rate : best", "must be ≥", "CPU : best", "must be ≤", "verdict"];
    let mut table = Table::new("### What was to be reached", &columns);
    let bound = |ratio: Ratio| Cell::Number(ratio.bound.unwrap_or(f64::NAN), 2);
    for verdict in verdicts {
        table.row(vec![
            verdict.name.clone().into(),
            verdict.against.clone().into(),
            Cell::Number(verdict.rate.found, 2),
            bound(verdict.rate),
            Cell::Number(verdict.cpu.found, 2),
            bound(verdict.cpu),
            verdict.met().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rate: (f64, Option<f64>), cpu: (f64, Option<f64>)) -> String {
        let ratio = |(found, bound)| Ratio { found, bound };
        let verdict =
            Verdict { cpu: ratio(cpu), ..Verdict::on_rate(String::new(), String::new(), ratio(rate)) };
        verdict.met()
    }

    #[test]
    fn a_goal_is_met_when_its_bounds_are() {
        assert_eq!(verdict((1.6, Some(1.6)), (0.3, Some(0.3))), "met");
        assert_eq!(verdict((1.5, Some(1.6)), (0.3, None)), "missed");
        assert_eq!(verdict((1.7, Some(1.6)), (0.4, Some(0.3))), "rate met, CPU missed");
        assert_eq!(verdict((1.0, Some(1.6)), (0.4, Some(0.3))), "both missed");
        assert_eq!(verdict((1.0, None), (0.4, None)), "no goal");
        assert_eq!(verdict((f64::NAN, Some(1.6)), (0.4, None)), "missed");
    }
}
