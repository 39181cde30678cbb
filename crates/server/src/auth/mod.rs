//! Who calls: users with passwords, tokens, and what they may do.
//!
//! ```text
//! call ─► Door ─┬─ Basic  ─► users file ─► argon2, off the reactor ─► Identity, a new bearer token
//!               └─ Bearer ─► tokens given at login │ tokens file   ─► Identity
//! Identity (which the wire keeps beside the request) ─► Access of the session
//! ```
//! Invariants: who is unknown and who has the wrong password get the same answer after the same work;
//! tokens are compared by their hash; a user who is removed, or has another password, has no tokens
//! any more; no secret is logged, and none but hashes are kept.

mod bearer;
mod credentials;
pub mod login;
pub mod password;

use std::sync::Arc;

use windrow_engine::{Access, Admission, Grant, Role};

/// Who made a call.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name of the user or token; empty where the server asks for none.
    pub name: String,
    /// What it may do.
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

    /// Everybody, where nobody has to log in.
    fn anybody(admission: &Arc<Admission>) -> Self {
        let grants: Vec<Grant> = Grant::new(Role::Admin, "*").into_iter().collect();
        Self::new("", &grants, admission)
    }

    /// The limits that its calls share with all others.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// What a session of this user may do.
    pub fn access(&self) -> Access {
        Access::remote(self.name.clone(), self.grants.to_vec())
            .with_admission(Arc::clone(&self.admission))
    }
}
