use serde::{Deserialize, Serialize};

use crate::Problem;

/// A line of a list. The list is whole only when its last line is the [`ListEnd`]; one that ends without was cut short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ListLine<T> {
    /// An entry.
    Entry(T),
    /// What the backend answered instead of an entry.
    Problem(Problem),
    /// There is nothing more.
    End(ListEnd),
}

/// The end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ListEnd {
    /// How many entries there were.
    pub entries: u64,
}
