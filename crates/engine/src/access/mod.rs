//! Access control: roles granted to a user by patterns of names, the limits that users of a server share, and which
//! settings a user may change.
//!
//! ```text
//! statement ─► what it creates, changes, drops ─► `Statement::authorize`, `plans` ─┐
//!    └─ what it reads ─► names resolved in `catalog/guarded` ──────────────────────┴─► Access
//! ```
//! Read access is checked where a name becomes a table, so it does not matter where in a statement the name occurs. The
//! plan of a view is resolved when the view is created: reading a view takes a grant on the view alone, its definition
//! runs with the rights of the user that created it.

pub(crate) mod admission;
pub(crate) mod plans;
pub(crate) mod settings;

use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result};

use self::admission::Admission;

/// What a user may do with an object. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// SELECT, SUBSCRIBE, VERIFY, EXPLAIN.
    Read,
    /// INSERT, ingest of batches; COPY to files.
    Write,
    /// CREATE, replace and DROP.
    Admin,
}

impl Role {
    /// All roles, from the weakest to the strongest.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            Error::config(format!("\"{text}\" is not a role"))
                .with_hint("Roles are read, write and admin.")
        })
    }
}

/// A role on all objects whose name matches a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    role: Role,
    pattern: glob::Pattern,
}

impl Grant {
    /// Grants `role` on the names that `pattern` matches: `*` matches any characters, `?` one character, `[…]` one of
    /// several. Objects outside of the schema `public` are named with their schema.
    ///
    /// # Errors
    /// When the pattern is malformed.
    pub fn new(role: Role, pattern: &str) -> Result<Self> {
        let pattern = glob::Pattern::new(pattern).map_err(|e| {
            Error::config(format!("\"{pattern}\" is not a pattern of names: {e}"))
                .with_hint("Write \"*\" for all objects, \"sales_*\" for those that begin so.")
        })?;
        Ok(Self { role, pattern })
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }
}

/// What the user of a session may do.
#[derive(Debug, Clone)]
pub struct Access {
    user: String,
    grants: Vec<Grant>,
    confined: bool,
    admission: Option<Arc<Admission>>,
}

impl Access {
    /// Full access, for the owner of the process.
    pub fn full() -> Self {
        Self {
            user: String::new(),
            grants: Grant::new(Role::Admin, "*").into_iter().collect(),
            confined: false,
            admission: None,
        }
    }

    /// Access of a remote user: what is granted, and files only below the roots of the engine
    /// ([`Files`](crate::Files)).
    pub fn remote(user: impl Into<String>, grants: Vec<Grant>) -> Self {
        Self { user: user.into(), grants, confined: true, admission: None }
    }

    /// The same access, within limits shared with other users.
    #[must_use]
    pub fn with_admission(mut self, admission: Arc<Admission>) -> Self {
        self.admission = Some(admission);
        self
    }

    /// The user's name; empty for the owner of the process.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether only files below the roots of the engine may be used.
    pub(crate) fn is_confined(&self) -> bool {
        self.confined
    }

    /// The limits of the server; `None` in an embedded engine.
    pub(crate) fn admission(&self) -> Option<&Arc<Admission>> {
        self.admission.as_ref()
    }

    /// Whether the user has the role on all objects.
    pub fn is_everything(&self, role: Role) -> bool {
        self.grants.iter().any(|g| g.role >= role && g.pattern() == "*")
    }

    /// Whether the user has the role on an object.
    pub fn has(&self, role: Role, name: &str) -> bool {
        self.grants.iter().any(|g| g.role >= role && g.pattern.matches(name))
    }

    /// Whether the user has the role on any object.
    fn has_somewhere(&self, role: Role) -> bool {
        self.grants.iter().any(|g| g.role >= role)
    }

    /// Requires the role on an object.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`]; the error does not reveal whether the object exists.
    pub fn need(&self, role: Role, name: &str) -> Result<()> {
        if self.has(role, name) {
            return Ok(());
        }
        let needed = role.as_str();
        Err(self
            .denied(format!("\"{name}\" needs the role {needed}"))
            .with_hint(format!("Ask an administrator for the role {needed} on \"{name}\".")))
    }

    /// Requires the role on any object.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub(crate) fn need_somewhere(&self, role: Role, what: &str) -> Result<()> {
        if self.has_somewhere(role) {
            return Ok(());
        }
        Err(self.denied(format!("{what} needs the role {}", role.as_str())))
    }

    /// Requires the role on all objects.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub(crate) fn need_everywhere(&self, role: Role, what: &str) -> Result<()> {
        if self.is_everything(role) {
            return Ok(());
        }
        Err(self.denied(format!("{what} needs the role {} on all objects", role.as_str())))
    }

    fn denied(&self, message: String) -> Error {
        let error = Error::new(ErrorKind::Denied, message);
        match self.user.as_str() {
            "" => error,
            user => error.with_detail(format!("You are logged in as \"{user}\".")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_by_role_and_pattern() {
        let grants = vec![
            Grant::new(Role::Read, "*").unwrap(),
            Grant::new(Role::Write, "sales_*").unwrap(),
            Grant::new(Role::Admin, "sales_tmp").unwrap(),
        ];
        let access = Access::remote("ann", grants);
        for (role, name, may) in [
            (Role::Read, "x", true),
            (Role::Write, "x", false),
            (Role::Write, "sales_1", true),
            (Role::Admin, "sales_1", false),
            (Role::Admin, "sales_tmp", true),
            (Role::Admin, "SALES_tmp", false),
        ] {
            assert_eq!(access.has(role, name), may, "{role:?} {name}");
        }
        let error = access.need(Role::Admin, "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.message(), "\"x\" needs the role admin");
        assert_eq!(error.detail(), Some("You are logged in as \"ann\"."));
        assert!(Grant::new(Role::Read, "[").is_err());
        assert_eq!("owner".parse::<Role>().unwrap_err().kind(), ErrorKind::Config);
    }
}
