use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the time of a copy, or of a run, went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The stage where data spent most time; `None` when nothing was copied or compared.
    pub bottleneck: Option<String>,
    /// Seconds that data spent in each stage, added up over all pieces that were under way at once: `wait` (for memory and limits),
    /// `read`, `scan` (for zeroes), `write`, `flush`, `journal`, `hash` (comparing
    /// source and target by their hashes, before the copy or after it).
    pub stage_seconds: BTreeMap<String, f64>,
}
