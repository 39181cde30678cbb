//! Passwords: hashing, and checks that do not delay other work. A check takes tens of milliseconds and 19 MiB by
//! design, so few run concurrently, and few may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use argon2::Params;
use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use windrow_core::{Error, ErrorKind, Result};

/// Concurrent checks.
const CHECKS_MAX: usize = 2;
/// Logins that may wait for a check; more are refused.
const LOGIN_QUEUE_MAX: usize = 64;
/// A longer password is refused, not hashed.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// Hashes a password, with its own salt, in the PHC format.
///
/// # Errors
/// When it is empty or too long.
pub fn hash(password: &str) -> Result<String> {
    hash_with(password, Params::default())
}

/// As [`hash`], with a given cost.
///
/// # Errors
/// As [`hash`].
pub fn hash_with(password: &str, cost: Params) -> Result<String> {
    if password.is_empty() {
        return Err(Error::config("the password is empty"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        let message = format!("the password is longer than {PASSWORD_BYTES_MAX} bytes");
        return Err(Error::config(message));
    }
    let failed = |e| Error::internal(format!("the password cannot be hashed: {e}"));
    let salt: [u8; 16] = rand::random();
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cost);
    Ok(argon2.hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

/// A checker of passwords with limited concurrency.
#[derive(Debug)]
pub(crate) struct Checks {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Checks {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(CHECKS_MAX)), waiting: AtomicUsize::new(0) }
    }
}

impl Checks {
    /// Checks a password against a hash. It runs on a thread that may block.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when too many logins wait.
    pub(crate) async fn check(&self, password: String, hash: String) -> Result<bool> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let _waiting = Waiting::enter(&self.waiting).ok_or_else(|| {
            Error::new(ErrorKind::Limit, format!("{LOGIN_QUEUE_MAX} logins wait already"))
                .with_hint("Try again later; use the bearer token that a login returns.")
        })?;
        let running = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|e| Error::internal("the queue of logins is closed").with_source(e))?;
        let check = tokio::task::spawn_blocking(move || {
            // A client that disconnects does not free the slot before the check ends.
            let _running = running;
            PasswordHash::new(&hash).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            })
        });
        check.await.map_err(|e| Error::internal("checking a password stopped").with_source(e))
    }
}

/// Counted as waiting or running until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let more = |n| (n < LOGIN_QUEUE_MAX).then_some(n + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Params {
        Params::new(8, 1, 1, None).unwrap()
    }

    #[tokio::test]
    async fn only_the_password_fits_its_hash() {
        let hashed = hash_with("geheim", cheap()).unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hashed}");
        assert_ne!(hash_with("geheim", cheap()).unwrap(), hashed);
        let checks = Checks::default();
        for (password, hash, fits) in [
            ("geheim", hashed.as_str(), true),
            ("Geheim", &hashed, false),
            ("", &hashed, false),
            ("geheim", "no hash", false),
            (&"x".repeat(1 << 20), &hashed, false),
        ] {
            assert_eq!(checks.check(password.into(), hash.into()).await.unwrap(), fits);
        }
        assert!(hash_with("", cheap()).is_err());
    }

    #[tokio::test]
    async fn a_flood_of_logins_is_refused_in_words() {
        let hashed = hash_with("geheim", cheap()).unwrap();
        let checks = Checks::default();
        let all = Arc::clone(&checks.running).acquire_many_owned(2).await.unwrap();
        let logins: Vec<_> =
            (0..LOGIN_QUEUE_MAX).map(|_| checks.check("x".into(), hashed.clone())).collect();
        let mut logins: Vec<_> = logins.into_iter().map(Box::pin).collect();
        for login in &mut logins {
            assert!(futures::poll!(login.as_mut()).is_pending());
        }
        let refused = checks.check("geheim".into(), hashed.clone()).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.message()),
            (ErrorKind::Limit, "64 logins wait already")
        );
        drop((logins, all));
        assert!(checks.check("geheim".into(), hashed).await.unwrap());
    }
}
