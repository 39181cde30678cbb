//! The files that define users and tokens: one JSON object per line; empty lines and lines beginning with `#` are
//! ignored.
//!
//! ```text
//! users   {"name":"ann","grants":[{"role":"write","on":["sales_*"]}],"password":"$argon2id$…"}
//! tokens  {"name":"ci","grants":[{"role":"read","on":["*"]}],"token":"sha256:…","expires":"2027-01-01T00:00:00Z"}
//! ```
//! A file is replaced as a whole, readable by its owner only. A server rereads it when it changes; while it cannot be
//! read, its last valid contents apply.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_engine::Grant;

/// How often a file is checked.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// The prefix of the hash of a token.
const SHA256: &str = "sha256:";

/// A role on names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantLine {
    /// `read`, `write` or `admin`.
    pub role: String,
    /// Patterns of names.
    #[serde(default = "all")]
    pub on: Vec<String>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// A line of the users file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserLine {
    /// Unique.
    pub name: String,
    /// What the user may do.
    pub grants: Vec<GrantLine>,
    /// The hash of the password, in the PHC format.
    pub password: String,
}

/// A line of the tokens file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLine {
    /// Unique.
    pub name: String,
    /// What the bearer of the token may do.
    pub grants: Vec<GrantLine>,
    /// `sha256:` and the hash of the token in hexadecimal digits.
    pub token: String,
    /// When it expires (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A line with a name that can be validated.
pub trait Line: Serialize + DeserializeOwned + Clone {
    /// The name.
    fn name(&self) -> &str;

    /// The grants.
    fn grants(&self) -> &[GrantLine];

    /// Validates the remaining fields.
    ///
    /// # Errors
    /// When a field is invalid.
    fn check(&self) -> Result<()>;
}

impl Line for UserLine {
    fn name(&self) -> &str {
        &self.name
    }

    fn grants(&self) -> &[GrantLine] {
        &self.grants
    }

    fn check(&self) -> Result<()> {
        argon2::PasswordHash::new(&self.password).map(|_| ()).map_err(|e| {
            let message =
                format!("the password of user \"{}\" is not a valid hash: {e}", self.name);
            Error::config(message).with_hint("Use windrow user add.")
        })
    }
}

impl Line for TokenLine {
    fn name(&self) -> &str {
        &self.name
    }

    fn grants(&self) -> &[GrantLine] {
        &self.grants
    }

    fn check(&self) -> Result<()> {
        let digits = self.token.strip_prefix(SHA256).unwrap_or_default();
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let message = format!("the token \"{}\" is not a valid hash", self.name);
            return Err(Error::config(message).with_hint("Use windrow token add."));
        }
        self.expires_micros().map(|_| ())
    }
}

impl TokenLine {
    /// When the token expires, in µs since the Unix epoch.
    ///
    /// # Errors
    /// When it is not a valid time.
    pub fn expires_micros(&self) -> Result<Option<i64>> {
        let Some(text) = &self.expires else { return Ok(None) };
        let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|e| {
            let message = format!(
                "the expiry \"{text}\" of token \"{}\" is not a valid time: {e}",
                self.name
            );
            Error::config(message).with_hint("Write 2027-01-01T00:00:00Z.").with_source(e)
        })?;
        Ok(Some(time.timestamp_micros()))
    }
}

/// Parses the grants of a line.
///
/// # Errors
/// For an unknown role or an invalid pattern.
pub fn grants(line: &impl Line) -> Result<Vec<Grant>> {
    let mut grants = Vec::new();
    for grant in line.grants() {
        let role = grant.role.parse()?;
        for pattern in &grant.on {
            grants.push(Grant::new(role, pattern)?);
        }
    }
    Ok(grants)
}

/// Creates a token; returns the token, which is shown once, and its hash as stored in the file.
pub fn new_token() -> (String, String) {
    let secret: [u8; 32] = rand::random();
    let token = format!("wr_{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = format!("{SHA256}{}", hex(&hash_of(&token)));
    (token, hash)
}

/// The hash by which tokens are stored and compared.
pub(crate) fn hash_of(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The hash of a token as written in the file.
pub(crate) fn written_hash(token: &str) -> String {
    format!("{SHA256}{}", hex(&hash_of(token)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads all lines of a file; none when the file does not exist.
///
/// # Errors
/// When it cannot be read, or a line is invalid; the error has the number of the line, not its text.
pub fn read<L: Line>(path: &Path) -> Result<Vec<L>> {
    understood(path, &text(path)?)
}

/// Reads the text of a file; empty when the file does not exist.
fn text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|e| unusable(path, "read", e)),
    }
}

/// Parses the lines of a file with this text.
fn understood<L: Line>(path: &Path, text: &str) -> Result<Vec<L>> {
    let mut lines: Vec<L> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong =
            |why: &str| Error::config(format!("line {} of \"{}\": {why}", at + 1, path.display()));
        // serde's message about an invalid value may contain the value.
        let line: L = serde_json::from_str(line).map_err(|e| {
            wrong(&format!("not a valid entry (column {})", e.column()))
                .with_hint("docs/security.md describes the file.")
        })?;
        line.check().and_then(|()| grants(&line)).map_err(|e| wrong(e.message()))?;
        if lines.iter().any(|l| l.name() == line.name()) {
            return Err(wrong(&format!("\"{}\" is defined twice", line.name())));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Replaces a file atomically. Its comments are lost.
///
/// # Errors
/// When it cannot be written; the file is then unchanged.
pub fn write<L: Line>(path: &Path, lines: &[L]) -> Result<()> {
    let failed = |e: std::io::Error| unusable(path, "write", e);
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable by its owner only.
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    for line in lines {
        let json = serde_json::to_string(line).map_err(|e| {
            Error::internal(format!("an entry cannot be encoded: {e}")).with_source(e)
        })?;
        writeln!(file, "{json}").map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn unusable(path: &Path, what: &str, e: std::io::Error) -> Error {
    let message = format!("cannot {what} \"{}\": {e}", path.display());
    Error::new(ErrorKind::Unavailable, message).with_source(e)
}

/// A file that is reread when it has changed.
#[derive(Debug)]
pub(crate) struct Watched<L> {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<Seen<L>>,
}

#[derive(Debug)]
struct Seen<L> {
    lines: Arc<Vec<L>>,
    /// The text as last read. (Time and length may be unchanged after a change.)
    text: String,
    looked_micros: i64,
}

impl<L: Line> Watched<L> {
    /// Opens and reads a file.
    ///
    /// # Errors
    /// As [`read`]; and when the file does not exist.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        if !path.exists() {
            let message = format!("\"{}\" does not exist", path.display());
            return Err(Error::new(ErrorKind::NotFound, message)
                .with_hint("windrow user add and windrow token add create such files."));
        }
        let text = text(path)?;
        let lines = Arc::new(understood(path, &text)?);
        let looked_micros = clock.now_micros();
        let state = Mutex::new(Seen { lines, text, looked_micros });
        Ok(Self { path: path.to_owned(), clock, state })
    }

    /// The current lines of the file.
    pub(crate) fn lines(&self) -> Arc<Vec<L>> {
        let mut seen = self.state.lock();
        let now = self.clock.now_micros();
        let age = now.saturating_sub(seen.looked_micros);
        if u128::from(age.unsigned_abs()) < LOOKED_AT_EVERY.as_micros() {
            return Arc::clone(&seen.lines);
        }
        seen.looked_micros = now;
        let changed = text(&self.path).and_then(|text| {
            if text != seen.text {
                let lines = understood(&self.path, &text);
                seen.text = text;
                seen.lines = Arc::new(lines?);
            }
            Ok(())
        });
        if let Err(error) = changed {
            tracing::error!("{error}; the last valid contents remain in effect");
        }
        Arc::clone(&seen.lines)
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::ManualClock;

    use super::*;

    fn token(name: &str, expires: Option<&str>) -> TokenLine {
        TokenLine {
            name: name.into(),
            grants: vec![GrantLine { role: "read".into(), on: all() }],
            token: new_token().1,
            expires: expires.map(str::to_owned),
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("tokens");
        let clock = ManualClock::default();
        let gone = Watched::<TokenLine>::open(&path, Arc::new(clock.clone())).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        write(&path, &[token("a", None)]).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let watched = Watched::<TokenLine>::open(&path, Arc::new(clock.clone())).unwrap();
        let two = [token("a", None), token("b", Some("2027-01-01T00:00:00Z"))];
        write(&path, &two).unwrap();
        assert_eq!(watched.lines().len(), 1);
        clock.advance(LOOKED_AT_EVERY);
        assert_eq!(*watched.lines(), two);
        // An invalid file changes nothing.
        std::fs::write(&path, "{").unwrap();
        clock.advance(LOOKED_AT_EVERY);
        assert_eq!(watched.lines().len(), 2);
    }

    #[test]
    fn wrong_lines_are_named_without_their_text() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("users");
        for wrong in [
            r#"{"name":"ann","grants":[],"password":"secret"}"#,
            r#"{"name":"ann","password":"secret"}"#,
            r#"{"name":"ann","grants":[{"role":"god"}],"password":"secret"}"#,
            "secret",
        ] {
            std::fs::write(&path, format!("# users\n\n{wrong}\n")).unwrap();
            let error = read::<UserLine>(&path).unwrap_err();
            assert!(error.message().starts_with("line 3 of "), "{error}");
            assert!(!error.message().contains("secret"), "{error}");
        }
        std::fs::write(&path, "").unwrap();
        assert!(read::<UserLine>(&path).unwrap().is_empty());
    }

    #[test]
    fn times_and_tokens_are_checked() {
        assert_eq!(token("a", None).expires_micros().unwrap(), None);
        let at = token("a", Some("1970-01-01T00:00:01Z")).expires_micros().unwrap();
        assert_eq!(at, Some(1_000_000));
        assert!(token("a", Some("tomorrow")).check().is_err());
        let (secret, hash) = new_token();
        assert_eq!(written_hash(&secret), hash);
        assert_ne!(new_token().0, secret);
    }
}
