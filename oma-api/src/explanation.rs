use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the time of a copy went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The stage where data spent most time; `None` when nothing was copied.
    pub bottleneck: Option<String>,
    /// Seconds that data spent in each stage, added up over all pieces that were under way at once: `wait` (for memory and limits),
    /// `read`, `scan` (for zeroes), `write`, `flush`, `journal`.
    pub stage_seconds: BTreeMap<String, f64>,
}
