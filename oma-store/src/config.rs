use std::fmt;
use std::time::Duration;

/// Which database, and how it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite:///absolute/path` or `sqlite:relative/path` (taken to the letter), `mysql://USER@HOST/DATABASE`,
    /// `postgres://USER@HOST/DATABASE`. It may carry a password, and is never shown with it.
    pub url: String,
    /// How long a write waits for another one, or for a connection, before it answers `Busy`; on SQLite twice as long
    /// for one of this process.
    pub busy_timeout: Duration,
    /// Connections at the same time; on SQLite those that read, beside the one that writes.
    pub connections: u32,
    /// What an acknowledged write outlives; a server decides that by its own settings.
    pub durability: Durability,
}

/// What an acknowledged write outlives on SQLite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the machine (`synchronous=FULL`): each commit waits for the disk.
    #[default]
    PowerLoss,
    /// A crash of the program (`synchronous=NORMAL`), about twice as fast: a power cut may take the last commits back,
    /// whole and in order. Not for a store that tells what happened to volumes.
    Crash,
}

impl StoreConfig {
    /// The URL without its password.
    #[must_use]
    pub fn public_url(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else {
            // Anything may stand in what is no URL.
            let scheme = self.url.split_once(':').map_or("database", |(scheme, _)| scheme);
            return if scheme == "sqlite" { self.url.clone() } else { scheme.to_owned() };
        };
        // A path may hold an `@`, and a query a password.
        let (authority, behind) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) =
            behind.split_once('?').map_or((behind, None), |(path, query)| (path, Some(query)));
        let authority = match authority.rsplit_once('@') {
            Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
            None => authority.to_owned(),
        };
        let query = query.map(|query| {
            let shown = query.split('&').filter(|pair| !pair.to_ascii_lowercase().starts_with("password="));
            format!("?{}", shown.collect::<Vec<_>>().join("&"))
        });
        format!("{scheme}://{authority}{path}{}", query.unwrap_or_default())
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("url", &self.public_url())
            .field("busy_timeout", &self.busy_timeout)
            .field("connections", &self.connections)
            .field("durability", &self.durability)
            .finish()
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: "sqlite:oma.db".to_owned(),
            busy_timeout: Duration::from_secs(10),
            connections: 4,
            durability: Durability::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l29_no_form_of_the_configuration_shows_the_password() {
        for (url, shown) in [
            ("mysql://oma:se%40cret@db/oma", "mysql://oma@db/oma"),
            (
                "mysql://oma:se@cret@db:3306/oma?ssl-mode=REQUIRED",
                "mysql://oma@db:3306/oma?ssl-mode=REQUIRED",
            ),
            (
                "postgres:///oma?host=/run/pg&password=secret&user=a@b",
                "postgres:///oma?host=/run/pg&user=a@b",
            ),
            ("postgres://oma@db/oma", "postgres://oma@db/oma"),
            ("sqlite:///var/lib/a@b.db", "sqlite:///var/lib/a@b.db"),
            ("sqlite:oma.db", "sqlite:oma.db"),
            ("mysql:oma:secret@db/oma", "mysql"),
            ("secret", "database"),
        ] {
            let config = StoreConfig { url: url.to_owned(), ..StoreConfig::default() };
            assert_eq!(config.public_url(), shown);
            let debug = format!("{config:?}");
            assert!(debug.contains(shown) && !debug.contains("cret"), "{debug}");
        }
    }
}
