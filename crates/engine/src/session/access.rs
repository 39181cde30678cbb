//! Who may do what: the roles of a user, per pattern of names, and what each statement needs.
//!
//! ```text
//! statement ─► what it makes, changes, drops ─► `check_statement`, `check_plan` ─┐
//!    └─ what it reads ─► names resolved in `guarded` schemas ────────────────────┴─► Access
//! ```
//! Reading is checked where a name becomes a table, so that it does not matter where in a statement
//! the name stands. The plan of a view was resolved when the view was made: whoever reads a view needs
//! the view alone, its definition runs with the right of who made it.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement as PlanStatement};
use sqlparser::ast::ObjectName;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ContinuousQuery, DropKind, Explained, Statement};
use windrow_stream::stream::table::outside;

use crate::catalog::plain_name;
use crate::engine::{CATALOG, SCHEMA};
use crate::session::Session;
use crate::session::admission::Admission;
use crate::session::file_tables::file_named;
use crate::session::settings::{check_range, may_set};

/// What a user may do with an object; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read: SELECT, SUBSCRIBE, VERIFY, EXPLAIN.
    Read,
    /// Put in rows: INSERT, ingest; write files: COPY.
    Write,
    /// Make, replace and drop objects.
    Admin,
}

impl Role {
    /// All roles, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// The word for it.
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

/// A role on all objects whose name fits a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    role: Role,
    pattern: glob::Pattern,
}

impl Grant {
    /// `role` on the names that `pattern` fits: `*` stands for any characters, `?` for one, `[…]` for
    /// one of some. Objects outside of the schema `public` are named with their schema.
    ///
    /// # Errors
    /// When the pattern is none.
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
    /// Everything, everywhere: whoever controls the process has that anyway.
    pub fn full() -> Self {
        Self {
            user: String::new(),
            grants: Grant::new(Role::Admin, "*").into_iter().collect(),
            confined: false,
            admission: None,
        }
    }

    /// That of a remote user: what is granted, and files only below the roots of the engine
    /// ([`Files`](crate::Files)).
    pub fn remote(user: impl Into<String>, grants: Vec<Grant>) -> Self {
        Self { user: user.into(), grants, confined: true, admission: None }
    }

    /// The same, with limits that are shared with others.
    #[must_use]
    pub fn with_admission(mut self, admission: Arc<Admission>) -> Self {
        self.admission = Some(admission);
        self
    }

    /// The user's name; empty for whoever controls the process.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether files are only to be touched below the roots.
    pub(crate) fn is_confined(&self) -> bool {
        self.confined
    }

    /// The limits of the server, where there is one.
    pub(crate) fn admission(&self) -> Option<&Arc<Admission>> {
        self.admission.as_ref()
    }

    /// Whether nothing is hidden from the user.
    pub fn is_everything(&self, role: Role) -> bool {
        self.grants.iter().any(|g| g.role >= role && g.pattern() == "*")
    }

    /// Whether the user has the role on an object.
    pub fn has(&self, role: Role, name: &str) -> bool {
        self.grants.iter().any(|g| g.role >= role && g.pattern.matches(name))
    }

    /// Whether the user has the role on anything.
    fn has_somewhere(&self, role: Role) -> bool {
        self.grants.iter().any(|g| g.role >= role)
    }

    /// Refuses a user without the role on an object.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`]; it does not tell whether there is such an object.
    pub fn need(&self, role: Role, name: &str) -> Result<()> {
        if self.has(role, name) {
            return Ok(());
        }
        let needed = role.as_str();
        Err(self
            .denied(format!("\"{name}\" needs the role {needed}"))
            .with_hint(format!("Ask an administrator for the role {needed} on \"{name}\".")))
    }

    /// Refuses a user without the role anywhere.
    pub(crate) fn need_somewhere(&self, role: Role, what: &str) -> Result<()> {
        if self.has_somewhere(role) {
            return Ok(());
        }
        Err(self.denied(format!("{what} needs the role {}", role.as_str())))
    }

    /// Refuses a user without the role on everything.
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

impl Session {
    /// What the user may do.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Refuses what a statement makes, changes or names beside its query, if the user may not. What
    /// the query reads is checked when it is planned, and what DataFusion's own statements do when
    /// they are ([`check_plan`](Self::check_plan)).
    pub(super) fn check_statement(&self, statement: &Statement) -> Result<()> {
        let need = |role, name: &ObjectName| self.access.need(role, &shown(name));
        match statement {
            Statement::CreateStream(create) => need(Role::Admin, &create.name),
            Statement::CreateView(create) => {
                need(Role::Admin, &create.name)?;
                self.check_tail(&create.query)
            }
            Statement::Query(query) => self.check_tail(query),
            Statement::Insert(insert) => {
                need(Role::Write, &insert.target)?;
                self.check_tail(&insert.query)
            }
            Statement::Subscribe { view, .. } | Statement::WaitFor { view, .. } => {
                need(Role::Read, view)
            }
            Statement::Verify(verify) => need(Role::Read, &verify.view),
            Statement::Explain(explain) => match &explain.what {
                Explained::WhyNot(view) => need(Role::Read, view),
                Explained::Statement(inner) if explain.analyze => self.check_statement(inner),
                // It is planned only.
                Explained::Statement(_) => Ok(()),
            },
            // Reading files has rules of its own.
            Statement::Describe(name) if file_named(name).is_some() => Ok(()),
            Statement::ShowCreate(name) | Statement::Describe(name) => need(Role::Read, name),
            Statement::Summarize(query) => self.check_tail(query),
            Statement::CopyOut(copy) => self.check_tail(&copy.query),
            Statement::CopyFrom(copy) => need(Role::Write, &copy.target),
            Statement::Drop(drop) => drop.names.iter().try_for_each(|name| {
                need(Role::Admin, name)?;
                self.check_dropped(name, drop.kind, drop.cascade)
            }),
            Statement::Show(_) | Statement::Set(_) | Statement::DataFusion(_) => Ok(()),
        }
    }

    /// Late rows go to a stream, which is made when it is not there.
    fn check_tail(&self, query: &ContinuousQuery) -> Result<()> {
        let Some(name) = &query.tail.late_data_to else { return Ok(()) };
        let name = plain_name(name)?;
        let role = if self.engine.catalog.exists(&name) { Role::Write } else { Role::Admin };
        self.access.need(role, &name)
    }

    /// CASCADE drops what reads the object as well.
    fn check_dropped(&self, name: &ObjectName, _: DropKind, cascade: bool) -> Result<()> {
        if !cascade || self.access.is_everything(Role::Admin) {
            return Ok(());
        }
        let mut todo = vec![plain_name(name)?];
        while let Some(name) = todo.pop() {
            self.access.need(Role::Admin, &name)?;
            todo.extend(self.engine.catalog.readers(&name));
        }
        Ok(())
    }

    /// Refuses what a plan of DataFusion's does, if the user may not.
    pub(super) fn check_plan(&self, plan: &LogicalPlan) -> Result<()> {
        plan.apply_with_subqueries(|node| {
            self.check_node(node).map_err(outside)?;
            Ok(TreeNodeRecursion::Continue)
        })
        .map(|_| ())
        .map_err(from_datafusion)
    }

    fn check_node(&self, node: &LogicalPlan) -> Result<()> {
        let access = &self.access;
        let need = |role, name: &TableReference| access.need(role, &resolved(name));
        match node {
            LogicalPlan::Dml(dml) => need(Role::Write, &dml.table_name),
            LogicalPlan::Copy(_) => access.need_somewhere(Role::Write, "COPY"),
            LogicalPlan::Ddl(ddl) => match ddl {
                DdlStatement::CreateExternalTable(create) => need(Role::Admin, &create.name),
                DdlStatement::CreateMemoryTable(create) => need(Role::Admin, &create.name),
                DdlStatement::CreateView(create) => need(Role::Admin, &create.name),
                DdlStatement::CreateIndex(create) => need(Role::Admin, &create.table),
                DdlStatement::DropTable(drop) => need(Role::Admin, &drop.name),
                DdlStatement::DropView(drop) => need(Role::Admin, &drop.name),
                DdlStatement::CreateCatalogSchema(_)
                | DdlStatement::CreateCatalog(_)
                | DdlStatement::DropCatalogSchema(_)
                | DdlStatement::CreateFunction(_)
                | DdlStatement::DropFunction(_) => access.need_everywhere(Role::Admin, ddl.name()),
            },
            LogicalPlan::Statement(PlanStatement::SetVariable(set)) => {
                may_set(access, "SET", &set.variable)?;
                check_range(&set.variable, &set.value)
            }
            LogicalPlan::Statement(PlanStatement::ResetVariable(reset)) => {
                may_set(access, "RESET", &reset.variable)
            }
            _ => Ok(()),
        }
    }
}

/// The name of an object as patterns see it.
fn shown(name: &ObjectName) -> String {
    plain_name(name).unwrap_or_else(|_| {
        let parts: Vec<String> = name
            .0
            .iter()
            .filter_map(|part| part.as_ident())
            .map(|i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() })
            .collect();
        qualified(&parts)
    })
}

/// The same of one that DataFusion resolved.
fn resolved(name: &TableReference) -> String {
    let name = name.clone().resolve(CATALOG, SCHEMA);
    qualified(&[name.catalog.to_string(), name.schema.to_string(), name.table.to_string()])
}

/// Parts of a name without the catalog and schema that are meant anyway.
fn qualified(parts: &[String]) -> String {
    let parts = match parts {
        [catalog, rest @ ..] if catalog == CATALOG && rest.len() == 2 => rest,
        parts => parts,
    };
    let parts = match parts {
        [schema, name] if schema == SCHEMA => std::slice::from_ref(name),
        parts => parts,
    };
    parts.join(".")
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

    #[test]
    fn names_are_as_patterns_see_them() {
        let name =
            |parts: &[&str]| qualified(&parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(name(&["datafusion", "public", "s"]), "s");
        assert_eq!(name(&["public", "s"]), "s");
        assert_eq!(name(&["windrow", "streams"]), "windrow.streams");
        assert_eq!(name(&["datafusion", "windrow", "streams"]), "windrow.streams");
        assert_eq!(name(&["other", "public", "s"]), "other.public.s");
    }
}
