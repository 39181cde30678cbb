//! Authentication and authorisation: users with passwords, tokens, and their rights.
//!
//! ```text
//! call ─► Authenticator ─┬─ Basic  ─► users file ─► argon2, off the reactor ─► Identity, a new bearer token
//!               └─ Bearer ─► tokens given at login │ tokens file   ─► Identity
//! Identity (which the wire keeps beside the request) ─► Access of the session
//! ```
//! Invariants: an unknown user and a wrong password get the same answer after the same work; tokens are compared by
//! their hash; the tokens of a user who is removed, or whose password changes, become invalid; no secret is logged, and
//! only hashes are stored.

mod bearer;
mod credentials;
pub mod login;
pub mod password;

use std::sync::Arc;

use windrow_engine::{Access, Admission, Grant, Role};

/// The identity of a caller.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name of the user or token; empty where the server needs no login.
    pub name: String,
    /// The rights of the caller.
    pub grants: Arc<[Grant]>,
    admission: Arc<Admission>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.grants == other.grants
    }
}

impl Identity {
    fn new(name: impl Into<String>, grants: &[Grant], admission: &Arc<Admission>) -> Self {
        Self { name: name.into(), grants: grants.into(), admission: Arc::clone(admission) }
    }

    /// Returns the identity of every caller, where no login is needed.
    fn anybody(admission: &Arc<Admission>) -> Self {
        let grants: Vec<Grant> = Grant::new(Role::Admin, "*").into_iter().collect();
        Self::new("", &grants, admission)
    }

    /// The limits that its calls share with those of all others.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The rights of a session of this caller.
    pub fn access(&self) -> Access {
        Access::remote(self.name.clone(), self.grants.to_vec())
            .with_admission(Arc::clone(&self.admission))
    }
}
