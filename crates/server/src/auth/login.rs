//! Authentication: from the credentials of a call to an identity.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_engine::Admission;

use super::Identity;
use super::bearer::Bearers;
pub use super::credentials::{
    GrantLine, Line, TokenLine, UserLine, grants, new_token, read, write,
};
use super::credentials::{Watched, written_hash};
use super::password::{Checks, hash};

/// Some clients omit the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The configuration of logins.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// The users file.
    pub users: Option<PathBuf>,
    /// The tokens file.
    pub tokens: Option<PathBuf>,
    /// How long a token issued at login is valid.
    pub token_lifetime: Duration,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self { users: None, tokens: None, token_lifetime: Duration::from_secs(24 * 60 * 60) }
    }
}

impl LoginConfig {
    /// Whether clients must log in.
    pub fn is_needed(&self) -> bool {
        self.users.is_some() || self.tokens.is_some()
    }
}

/// The authenticator: decides which clients may enter, and as which identity.
#[derive(Debug)]
pub struct Authenticator {
    users: Option<Watched<UserLine>>,
    tokens: Option<Watched<TokenLine>>,
    bearers: Bearers,
    checks: Checks,
    clock: Arc<dyn Clock>,
    admission: Arc<Admission>,
    failed: AtomicU64,
    /// The hash against which the password of an unknown user is checked.
    nobody: String,
}

/// An authenticated client, with its token for subsequent calls.
#[derive(Debug)]
pub struct LoggedIn {
    /// The identity of the client.
    pub identity: Identity,
    /// `None`: the credentials that were presented remain valid.
    pub token: Option<String>,
}

impl Authenticator {
    /// Opens the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(
        config: &LoginConfig,
        clock: &Arc<dyn Clock>,
        admission: Arc<Admission>,
    ) -> Result<Self> {
        let users = config.users.as_deref().map(|path| Watched::open(path, Arc::clone(clock)));
        let tokens = config.tokens.as_deref().map(|path| Watched::open(path, Arc::clone(clock)));
        let users: Option<Watched<UserLine>> = users.transpose()?;
        let nobody = match users.as_ref().and_then(|u| u.lines().first().cloned()) {
            // As expensive as the hashes of the others.
            Some(user) => user.password,
            None if users.is_some() => hash("nobody")?,
            None => String::new(),
        };
        Ok(Self {
            users,
            tokens: tokens.transpose()?,
            bearers: Bearers::new(Arc::clone(clock), config.token_lifetime),
            checks: Checks::default(),
            clock: Arc::clone(clock),
            admission,
            failed: AtomicU64::new(0),
            nobody,
        })
    }

    /// The number of logins and tokens refused.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Authenticates the bearer of this HTTP `authorization` header; a wire without headers calls
    /// [`login`](Self::login).
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`]; [`ErrorKind::Limit`] when there are too many logins.
    pub async fn enter(&self, header: Option<&str>) -> Result<LoggedIn> {
        if self.is_open() {
            return Ok(self.anybody());
        }
        let entered = match header.map(str::trim) {
            None => Err(nobody_logged_in()),
            Some(header) => match header.split_once(' ') {
                Some((kind, value)) if kind.eq_ignore_ascii_case("basic") => {
                    match basic(value.trim()) {
                        Some((user, password)) => self.by_password(&user, password).await,
                        None => Err(malformed()),
                    }
                }
                Some((kind, value)) if kind.eq_ignore_ascii_case("bearer") => {
                    self.bearer(value.trim())
                }
                _ => Err(malformed()),
            },
        };
        // A client without credentials is about to log in.
        if header.is_some() && entered.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// Authenticates a user by password.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub async fn login(&self, name: &str, password: String) -> Result<LoggedIn> {
        if self.is_open() {
            return Ok(self.anybody());
        }
        let entered = self.by_password(name, password).await;
        if entered.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// The same, without counting those that are refused.
    async fn by_password(&self, name: &str, password: String) -> Result<LoggedIn> {
        let users = self.users.as_ref().map(Watched::lines).unwrap_or_default();
        let user = users.iter().find(|u| u.name == name);
        let hash = user.map_or_else(|| self.nobody.clone(), |u| u.password.clone());
        let fits = self.checks.check(password, hash).await?;
        let Some(user) = user.filter(|_| fits) else {
            tracing::warn!(user = name, "a login was refused");
            return Err(Error::new(ErrorKind::Unauthenticated, "user or password is wrong"));
        };
        let token = self.bearers.give(name, &user.password);
        let identity = Identity::new(name, &grants(user)?, &self.admission);
        Ok(LoggedIn { identity, token: Some(token) })
    }

    /// Whether clients need no login.
    fn is_open(&self) -> bool {
        self.users.is_none() && self.tokens.is_none()
    }

    fn anybody(&self) -> LoggedIn {
        LoggedIn { identity: Identity::anybody(&self.admission), token: None }
    }

    fn bearer(&self, token: &str) -> Result<LoggedIn> {
        let refused = |why: &str| Error::new(ErrorKind::Unauthenticated, why);
        match self.bearers.find(token) {
            Some(Some(bearer)) => {
                let users = self.users.as_ref().map(Watched::lines).unwrap_or_default();
                let same = |u: &&UserLine| u.name == bearer.user && u.password == bearer.password;
                let user = users.iter().find(same).ok_or_else(|| {
                    refused("the login is no longer valid: the user has changed")
                        .with_hint("Log in again.")
                })?;
                let identity = Identity::new(&bearer.user, &grants(user)?, &self.admission);
                return Ok(LoggedIn { identity, token: None });
            }
            Some(None) => {
                return Err(refused("the login has expired").with_hint("Log in again."));
            }
            None => {}
        }
        let hash = written_hash(token);
        let tokens = self.tokens.as_ref().map(Watched::lines).unwrap_or_default();
        let Some(found) = tokens.iter().find(|t| t.token.eq_ignore_ascii_case(&hash)) else {
            return Err(refused("the token is not known")
                .with_hint("Logins do not outlive the server: log in again."));
        };
        if found.expires_micros()?.is_some_and(|ends| ends <= self.clock.now_micros()) {
            let message = format!("the token \"{}\" has expired", found.name);
            return Err(refused(&message).with_hint("Ask an administrator for a new one."));
        }
        let identity = Identity::new(&found.name, &grants(found)?, &self.admission);
        Ok(LoggedIn { identity, token: None })
    }
}

fn nobody_logged_in() -> Error {
    Error::new(ErrorKind::Unauthenticated, "nobody is logged in")
        .with_hint("Log in with user and password, or send a token: authorization: Bearer ….")
}

fn malformed() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the header \"authorization\" cannot be read")
        .with_hint("It is \"Basic …\" with Base64 of user:password, or \"Bearer …\" with a token.")
}

/// Parses user and password.
fn basic(value: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(value).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use argon2::Params;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use windrow_core::ManualClock;
    use windrow_engine::{QueryLimits, Role};

    use super::super::password::hash_with;
    use super::*;

    struct Fixture {
        _tmp: tempfile::TempDir,
        clock: ManualClock,
        config: LoginConfig,
        door: Authenticator,
        token: String,
    }

    fn line(name: &str, password: &str, role: &str) -> UserLine {
        let cost = Params::new(8, 1, 1, None).unwrap();
        UserLine {
            name: name.into(),
            grants: vec![GrantLine { role: role.into(), on: vec!["*".into()] }],
            password: hash_with(password, cost).unwrap(),
        }
    }

    fn fixture() -> Fixture {
        let tmp = tempfile::tempdir().unwrap();
        let config = LoginConfig {
            users: Some(tmp.path().join("users")),
            tokens: Some(tmp.path().join("tokens")),
            ..LoginConfig::default()
        };
        write(config.users.as_ref().unwrap(), &[line("ann", "ge:heim", "write")]).unwrap();
        let (token, hash) = new_token();
        let grants = vec![GrantLine { role: "read".into(), on: vec!["*".into()] }];
        let expires = Some("1970-01-03T00:00:00Z".to_owned());
        let ci = TokenLine { name: "ci".into(), grants, token: hash, expires };
        write(config.tokens.as_ref().unwrap(), &[ci]).unwrap();
        let clock = ManualClock::default();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let admission = Arc::new(Admission::new(QueryLimits::default()));
        let door = Authenticator::open(&config, &shared, admission).unwrap();
        Fixture { _tmp: tmp, clock, config, door, token }
    }

    #[tokio::test]
    async fn a_login_gives_a_token_that_ends() {
        let f = fixture();
        for encoded in [STANDARD.encode("ann:ge:heim"), STANDARD_NO_PAD.encode("ann:ge:heim")] {
            let header = format!("basic  {encoded}");
            let entered = f.door.enter(Some(&header)).await.unwrap();
            assert_eq!(entered.identity.name, "ann");
            assert!(entered.identity.access().has(Role::Write, "s"));
            assert!(!entered.identity.access().has(Role::Admin, "s"));
            let bearer = format!("Bearer {}", entered.token.unwrap());
            assert_eq!(f.door.enter(Some(&bearer)).await.unwrap().identity.name, "ann");
        }
        let header = format!("Basic {}", STANDARD.encode("ann:ge:heim"));
        let token = f.door.enter(Some(&header)).await.unwrap().token.unwrap();
        f.clock.advance(Duration::from_secs(24 * 60 * 60));
        let error = f.door.enter(Some(&format!("Bearer {token}"))).await.unwrap_err();
        assert_eq!(error.message(), "the login has expired");
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert_eq!(f.door.failed(), 1);
    }

    #[tokio::test]
    async fn the_unknown_and_the_wrong_get_the_same_answer() {
        let f = fixture();
        let mut said = vec![];
        for wrong in ["ann:wrong", "bob:ge:heim", "ann:", ":"] {
            let header = format!("Basic {}", STANDARD.encode(wrong));
            let error = f.door.enter(Some(&header)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
            said.push(error.render(""));
        }
        said.dedup();
        assert_eq!(said, ["user or password is wrong"]);
        for malformed in ["", "Basic", "Basic !!", "Basic YW5u", "Digest x", "Bearer"] {
            let error = f.door.enter(Some(malformed)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{malformed}");
        }
        assert_eq!(f.door.enter(None).await.unwrap_err().message(), "nobody is logged in");
        assert_eq!(f.door.failed(), 10);
        // A wire without headers logs in by itself.
        let error = f.door.login("ann", "wrong".to_owned()).await.unwrap_err();
        assert_eq!(error.message(), "user or password is wrong");
        f.door.login("ann", "ge:heim".to_owned()).await.unwrap();
        assert_eq!(f.door.failed(), 11);
    }

    #[tokio::test]
    async fn who_is_removed_or_has_another_password_is_out() {
        let f = fixture();
        let header = format!("Basic {}", STANDARD.encode("ann:ge:heim"));
        let token = f.door.enter(Some(&header)).await.unwrap().token.unwrap();
        let bearer = format!("Bearer {token}");
        let users = f.config.users.as_ref().unwrap();
        let mut ann = read::<UserLine>(users).unwrap();
        ann[0].grants[0].role = "admin".into();
        write(users, &ann).unwrap();
        f.clock.advance(Duration::from_secs(2));
        let entered = f.door.enter(Some(&bearer)).await.unwrap();
        assert!(entered.identity.access().has(Role::Admin, "s"));
        write(users, &[line("ann", "other", "write"), line("bob", "b", "read")]).unwrap();
        f.clock.advance(Duration::from_secs(2));
        let error = f.door.enter(Some(&bearer)).await.unwrap_err();
        assert_eq!(error.message(), "the login is no longer valid: the user has changed");
    }

    #[tokio::test]
    async fn tokens_of_the_file_end_too() {
        let f = fixture();
        let bearer = format!("Bearer {}", f.token);
        let entered = f.door.enter(Some(&bearer)).await.unwrap();
        assert_eq!((entered.identity.name.as_str(), entered.token), ("ci", None));
        f.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
        let error = f.door.enter(Some(&bearer)).await.unwrap_err();
        assert_eq!(error.message(), "the token \"ci\" has expired");
        let error = f.door.enter(Some("Bearer guess")).await.unwrap_err();
        assert_eq!(error.message(), "the token is not known");
    }
}
