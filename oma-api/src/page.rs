use serde::{Deserialize, Serialize};

/// Some of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// What to give as `after` to read on; `None` at the end of the list.
    pub next: Option<String>,
}
