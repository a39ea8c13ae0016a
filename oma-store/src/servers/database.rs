//! Databases of one test each.

use std::io::Result;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::{Server, ServerEngine};

/// A database of its own, empty when it was made. Dropped, it is removed when the next one is made, and in any case with a
/// private server.
#[derive(Debug)]
pub struct Database {
    server: Server,
    name: String,
}

impl Database {
    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Has statements run in it, as the server's superuser.
    ///
    /// # Errors
    /// What the server said.
    pub async fn execute(&self, statements: &str) -> Result<()> {
        self.server.execute(&self.name, statements).await
    }

    /// Another one with the same tables and rows. PostgreSQL only, and nobody may be connected to this one.
    ///
    /// # Errors
    /// What the server said.
    pub async fn copy(&self) -> Result<Self> {
        self.server.make(&format!(" TEMPLATE {}", self.name)).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut unused = self.server.0.unused.lock().unwrap_or_else(PoisonError::into_inner);
        unused.push(std::mem::take(&mut self.name));
    }
}

impl Server {
    /// Makes an empty database.
    ///
    /// # Errors
    /// What the server said.
    pub async fn create_database(&self) -> Result<Database> {
        // A database that sorts as people do, where that was built in: nothing of ours may depend on it.
        const SORTED: &str = " TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
        if self.engine() == ServerEngine::Postgres
            && let Ok(database) = self.make(SORTED).await
        {
            return Ok(database);
        }
        self.make("").await
    }

    async fn make(&self, clause: &str) -> Result<Database> {
        let name = self.next_name();
        let engine = self.engine();
        self.execute(engine.maintenance(), &format!("CREATE DATABASE {name}{clause}")).await?;
        let unused = std::mem::take(&mut *self.0.unused.lock().unwrap_or_else(PoisonError::into_inner));
        for name in unused {
            // Whoever is still connected has outlived the test.
            let force = if engine == ServerEngine::Postgres { " WITH (FORCE)" } else { "" };
            self.execute(engine.maintenance(), &format!("DROP DATABASE {name}{force}")).await?;
        }
        Ok(Database { server: self.clone(), name })
    }
}

/// A URL with another database.
pub(super) fn with_name(url: &str, name: &str) -> String {
    let (rest, query) = url.split_once('?').map_or((url, ""), |(rest, query)| (rest, query));
    let authority = rest.find("://").map_or(0, |at| at + 3);
    let end = rest[authority..].find('/').map_or(rest.len(), |at| authority + at);
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}/{name}{mark}{query}", &rest[..end])
}

/// Tells two runs apart that the system gave one process id.
pub(super) fn moment() -> u128 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis())
}

#[cfg(test)]
mod tests {
    use super::with_name;

    #[test]
    fn the_name_of_a_database_is_the_path_of_its_url() {
        for (url, expected) in [
            ("mysql://root@localhost", "mysql://root@localhost/new"),
            ("mysql://u:p@h:3306/old", "mysql://u:p@h:3306/new"),
            ("postgres:///old?host=/run/x&user=me", "postgres:///new?host=/run/x&user=me"),
            ("postgres://h/?sslmode=disable", "postgres://h/new?sslmode=disable"),
        ] {
            assert_eq!(with_name(url, "new"), expected);
        }
    }
}
