//! The tokens issued at login: random, in memory, with a limited lifetime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use windrow_core::Clock;

use super::credentials::hash_of;

/// Tokens of one user; the oldest is dropped for a new one.
const TOKENS_OF_USER_MAX: usize = 1_000;
/// Tokens of all users; the oldest is dropped for a new one.
const TOKENS_MAX: usize = 100_000;

/// The tokens that are valid.
#[derive(Debug)]
pub(crate) struct Bearers {
    clock: Arc<dyn Clock>,
    lifetime: Duration,
    tokens: Mutex<Tokens>,
}

#[derive(Debug, Default)]
struct Tokens {
    by_hash: HashMap<[u8; 32], Bearer>,
    next: u64,
}

/// The user to whom a token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) user: String,
    /// The hash of the password with which the user logged in.
    pub(crate) password: String,
    ends_micros: i64,
    number: u64,
}

impl Bearers {
    /// Creates a store of tokens that are valid for `lifetime`.
    pub(crate) fn new(clock: Arc<dyn Clock>, lifetime: Duration) -> Self {
        Self { clock, lifetime, tokens: Mutex::default() }
    }

    /// Issues a new token to a user.
    pub(crate) fn give(&self, user: &str, password: &str) -> String {
        let secret: [u8; 32] = rand::random();
        let token = URL_SAFE_NO_PAD.encode(secret);
        let now = self.clock.now_micros();
        let lifetime = i64::try_from(self.lifetime.as_micros()).unwrap_or(i64::MAX);
        let mut tokens = self.tokens.lock();
        tokens.make_room(user, now);
        let number = tokens.next;
        tokens.next += 1;
        let bearer = Bearer {
            user: user.to_owned(),
            password: password.to_owned(),
            ends_micros: now.saturating_add(lifetime),
            number,
        };
        tokens.by_hash.insert(hash_of(&token), bearer);
        token
    }

    /// Finds the user of a token: `None` when it is unknown, `Some(None)` when it has expired.
    pub(crate) fn find(&self, token: &str) -> Option<Option<Bearer>> {
        let now = self.clock.now_micros();
        let tokens = self.tokens.lock();
        let bearer = tokens.by_hash.get(&hash_of(token))?;
        Some((now < bearer.ends_micros).then(|| bearer.clone()))
    }
}

impl Tokens {
    /// When there are too many tokens, drops the expired ones, and otherwise the oldest one: of this user, unless the
    /// total is reached.
    fn make_room(&mut self, user: &str, now: i64) {
        let of_user = self.by_hash.values().filter(|b| b.user == user).count();
        if self.by_hash.len() < TOKENS_MAX && of_user < TOKENS_OF_USER_MAX {
            return;
        }
        // Expired tokens are retained until then, so that their users learn that they have expired.
        self.by_hash.retain(|_, bearer| now < bearer.ends_micros);
        let full = self.by_hash.len() >= TOKENS_MAX;
        let of_user = self.by_hash.values().filter(|b| b.user == user).count();
        if full || of_user >= TOKENS_OF_USER_MAX {
            let candidates = self.by_hash.iter().filter(|(_, b)| full || b.user == user);
            let oldest = candidates.min_by_key(|(_, b)| b.number).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest {
                self.by_hash.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::ManualClock;

    use super::*;

    #[test]
    fn tokens_end() {
        let clock = ManualClock::default();
        let bearers = Bearers::new(Arc::new(clock.clone()), Duration::from_secs(60));
        let token = bearers.give("ann", "hash");
        assert_eq!(bearers.find(&token).unwrap().unwrap().user, "ann");
        assert_eq!(bearers.find(&format!("{token}x")), None);
        clock.advance(Duration::from_secs(60));
        assert_eq!(bearers.find(&token), Some(None));
    }

    #[test]
    fn who_logs_in_for_ever_pushes_out_nobody_else() {
        let bearers = Bearers::new(Arc::new(ManualClock::default()), Duration::from_secs(60));
        let ann = bearers.give("ann", "hash");
        let first = bearers.give("bob", "hash");
        for _ in 0..TOKENS_OF_USER_MAX {
            bearers.give("bob", "hash");
        }
        assert!(bearers.find(&ann).is_some());
        assert!(bearers.find(&first).is_none());
    }
}
