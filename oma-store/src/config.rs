use std::time::Duration;

/// Which database, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite:///absolute/path` or `sqlite:relative/path`; the path is taken to the letter.
    pub url: String,
    /// How long a write waits for a writer of another process before it answers `Busy`; twice as long for one of its own.
    pub busy_timeout: Duration,
    /// Connections that read at the same time.
    pub readers: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: "sqlite:oma.db".to_owned(), busy_timeout: Duration::from_secs(10), readers: 4 }
    }
}
