//! Tokens in a file, of which it keeps hashes only.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use async_trait::async_trait;
use blake3::Hash;
use oma_core::{Clock as _, Error, ErrorKind, Result, SystemClock, Timestamp};

use super::access::{Authenticator, Principal, Role};

/// What a token begins with, so that a search for leaked secrets finds it.
const MARK: &str = "oma_";

/// A file with a line for each token: name, role, BLAKE3 of the token in hexadecimal digits and, of one that ends, until when it is
/// good, in milliseconds since 1970. It is read at each request: a line that is taken out lets nobody in any more.
///
/// A token is 32 random bytes, so a hash that is fast is no help to who finds the file.
#[derive(Clone, Debug)]
pub struct TokenFile(PathBuf);

/// A token that was just made: the only time that it can be read.
#[derive(Clone)]
pub struct NewToken(String);

impl NewToken {
    /// A new one: 244 random bits behind a mark that a search for leaked secrets finds.
    #[must_use]
    pub fn mint() -> Self {
        Self(format!("{MARK}{}", random()))
    }

    /// The token itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewToken(…)")
    }
}

/// A token of a file, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownToken {
    /// Whom it lets in.
    pub principal: Principal,
    /// Until when; for ever if it is not said.
    pub until: Option<Timestamp>,
}

/// A line of the file.
#[derive(Debug)]
struct Line {
    known: KnownToken,
    hash: Hash,
}

impl TokenFile {
    /// The file at this path; it need not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// All tokens, in the order of the file; also those that are good no more.
    ///
    /// # Errors
    /// `Corrupt` for a line that is none, by its number; what reading answers.
    pub async fn tokens(&self) -> Result<Vec<KnownToken>> {
        Ok(self.lines().await?.into_iter().map(|line| line.known).collect())
    }

    /// Makes a token for somebody, good until then, or until it is removed.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one of this name; `Invalid` for a name that is empty or has a space; what writing answers.
    pub async fn add(&self, name: &str, role: Role, until: Option<Timestamp>) -> Result<NewToken> {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::new(ErrorKind::Invalid, "name token", name)
                .because("a name has no space and is not empty"));
        }
        let _alone = self.alone().await?;
        let mut lines = self.lines().await?;
        if lines.iter().any(|line| line.known.principal.name == name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "make token", name)
                .because("there is one of this name; remove it first, or take another name"));
        }
        let token = NewToken::mint();
        let known = KnownToken { principal: Principal::new(name, role), until };
        lines.push(Line { known, hash: blake3::hash(token.reveal().as_bytes()) });
        self.write(&lines).await?;
        Ok(token)
    }

    /// Takes a token out. Idempotent; answers whether there was one.
    ///
    /// # Errors
    /// What reading and writing answer.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        let _alone = self.alone().await?;
        let mut lines = self.lines().await?;
        let before = lines.len();
        lines.retain(|line| line.known.principal.name != name);
        let was_there = lines.len() < before;
        if was_there {
            self.write(&lines).await?;
        }
        Ok(was_there)
    }
}

impl TokenFile {
    async fn lines(&self) -> Result<Vec<Line>> {
        let text = match tokio::fs::read_to_string(&self.0).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|error| failed("read tokens", &self.0, error))?,
        };
        let line = |(index, text): (usize, &str)| {
            text.parse().map_err(|BadLine| {
                Error::new(ErrorKind::Corrupt, "read tokens", self.0.display())
                    .because(format!("line {} is no `NAME ROLE HASH [UNTIL]`; take it out", index + 1))
            })
        };
        text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()).map(line).collect()
    }

    /// Keeps other processes from changing the file while this is held.
    async fn alone(&self) -> Result<File> {
        let path = self.0.with_extension("lock");
        let locked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
                file.lock().map(|()| file)
            }
        });
        let locked = locked.await.unwrap_or_else(|lost| Err(io::Error::other(lost)));
        locked.map_err(|error| failed("lock tokens", &path, error))
    }

    /// Takes the place of the file at once, or not at all.
    async fn write(&self, lines: &[Line]) -> Result<()> {
        let mut text = String::new();
        for Line { known: KnownToken { principal, until }, hash } in lines {
            let until = until.map(|until| format!(" {}", until.as_millis())).unwrap_or_default();
            // A `String` takes whatever it is given.
            let _ = writeln!(text, "{} {} {}{until}", principal.name, principal.role, hash.to_hex());
        }
        let path = self.0.clone();
        let written = tokio::task::spawn_blocking(move || replace(&path, text.as_bytes()));
        let written = written.await.unwrap_or_else(|lost| Err(io::Error::other(lost)));
        written.map_err(|error| failed("write tokens", &self.0, error))
    }
}

#[async_trait]
impl Authenticator for TokenFile {
    async fn principal(&self, token: &str) -> Result<Option<Principal>> {
        let hash = blake3::hash(token.as_bytes());
        // Hashes are compared in constant time.
        let found = self.lines().await?.into_iter().find(|line| line.hash == hash).map(|line| line.known);
        let is_good = |known: &KnownToken| known.until.is_none_or(|until| SystemClock.now() < until);
        Ok(found.filter(is_good).map(|known| known.principal))
    }
}

#[derive(Debug)]
struct BadLine;

impl FromStr for Line {
    type Err = BadLine;

    fn from_str(text: &str) -> Result<Self, BadLine> {
        let mut words = text.split_whitespace();
        let (Some(name), Some(role), Some(hash), until, None) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BadLine);
        };
        let role: Role = role.parse().map_err(|_| BadLine)?;
        let hash = Hash::from_hex(hash).map_err(|_| BadLine)?;
        let until = until.map(|millis| millis.parse().map(Timestamp::from_millis)).transpose();
        let until = until.map_err(|_| BadLine)?;
        Ok(Self { known: KnownToken { principal: Principal::new(name, role), until }, hash })
    }
}

/// 244 random bits.
fn random() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;

    let beside = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    // The name is durable with its folder.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, operation, path.display()).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn file() -> (tempfile::TempDir, TokenFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::new(folder.path().join("tokens"));
        (folder, file)
    }

    #[tokio::test]
    async fn a_token_lets_its_principal_in_until_it_is_removed() {
        let (_folder, file) = file();
        assert_eq!(file.principal("oma_x").await.unwrap(), None, "no file, nobody");
        let operator = file.add("web", Role::Operator, None).await.unwrap();
        let viewer = file.add("graphs", Role::Viewer, None).await.unwrap();
        assert_ne!(operator.reveal(), viewer.reveal());
        let found = file.principal(operator.reveal()).await.unwrap().unwrap();
        assert_eq!(found, Principal::new("web", Role::Operator));
        assert_eq!(file.tokens().await.unwrap().len(), 2);
        assert!(file.remove("web").await.unwrap());
        assert!(!file.remove("web").await.unwrap());
        assert_eq!(file.principal(operator.reveal()).await.unwrap(), None);
        assert!(file.principal(viewer.reveal()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_ends() {
        let (_folder, file) = file();
        let now = SystemClock.now();
        let good = file.add("web", Role::Admin, Some(now.after(Duration::from_hours(1)))).await.unwrap();
        let ended = file.add("old", Role::Admin, Some(now)).await.unwrap();
        assert!(file.principal(good.reveal()).await.unwrap().is_some());
        assert_eq!(file.principal(ended.reveal()).await.unwrap(), None);
        let known = file.tokens().await.unwrap();
        assert_eq!(known.iter().map(|known| known.until.is_some()).collect::<Vec<_>>(), [true, true]);
        // Every line is kept as it is when another one changes.
        file.remove("old").await.unwrap();
        assert_eq!(file.tokens().await.unwrap(), known[..1]);
    }

    #[tokio::test]
    async fn l29_the_file_holds_no_token_and_is_its_owners_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, file) = file();
        let token = file.add("web", Role::Admin, None).await.unwrap();
        let path = folder.path().join("tokens");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("web admin "), "{text}");
        assert!(!text.contains(token.reveal()) && !text.contains(&token.reveal()[MARK.len()..]));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{token:?}"), "NewToken(…)");
    }

    #[tokio::test]
    async fn tokens_that_are_made_at_once_are_all_there() {
        let (_folder, file) = file();
        let names: Vec<String> = (0..8).map(|number| format!("token-{number}")).collect();
        let made = names.iter().map(|name| file.add(name, Role::Viewer, None));
        futures_util::future::try_join_all(made).await.unwrap();
        assert_eq!(file.tokens().await.unwrap().len(), names.len());
    }

    #[tokio::test]
    async fn names_are_unique_and_have_no_space() {
        let (_folder, file) = file();
        file.add("web", Role::Viewer, None).await.unwrap();
        assert_eq!(file.add("web", Role::Admin, None).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        for name in ["", "a b", "a\nb", "a\u{1}"] {
            assert_eq!(
                file.add(name, Role::Viewer, None).await.unwrap_err().kind(),
                ErrorKind::Invalid,
                "{name:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_damaged_file_lets_nobody_in() {
        let (folder, file) = file();
        let token = file.add("web", Role::Viewer, None).await.unwrap();
        for damage in
            ["web\n", "web viewer xyz\n", "web owner 00\n", "a viewer 00 more\n", "a viewer 00 1 2\n"]
        {
            std::fs::write(folder.path().join("tokens"), damage).unwrap();
            let error = file.principal(token.reveal()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.chain().contains("line 1"), "{}", error.chain());
        }
    }
}
