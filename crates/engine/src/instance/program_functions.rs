//! The functions of the embedding program: Rust code that SQL calls by name.
//!
//! Invariant: no two functions have the same name, those of the engine included.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::execution::{FunctionRegistry as _, SessionState};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;

use crate::access::{Access, Role};

/// The functions of the embedding program.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramFunctions {
    /// Functions of the values of a row.
    pub(crate) scalars: Vec<Arc<ScalarUDF>>,
    /// Functions of the rows of a group.
    pub(crate) aggregates: Vec<Arc<AggregateUDF>>,
}

impl ProgramFunctions {
    /// Checks that the names of the functions, aliases included, are theirs alone and can be called without quotes. `is_taken`:
    /// whether the engine has a function of a name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that SQL could not call, [`ErrorKind::Exists`] for one that is taken.
    pub(crate) fn check(&self, is_taken: impl Fn(&str) -> bool) -> Result<()> {
        let mut known = BTreeSet::new();
        let scalars = self.scalars.iter().map(|f| (f.name(), f.aliases()));
        let aggregates = self.aggregates.iter().map(|f| (f.name(), f.aliases()));
        let names = scalars.chain(aggregates);
        for name in names.flat_map(|(name, aliases)| {
            std::iter::once(name).chain(aliases.iter().map(String::as_str))
        }) {
            let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !begins || !name.chars().all(is_plain) {
                let message = format!("a function of the program is called \"{name}\"");
                return Err(Error::config(message).with_hint(
                    "Use lower-case letters, digits and \"_\" only: SQL folds names to lower case.",
                ));
            }
            if is_taken(name) || !known.insert(name) {
                let message = format!("function \"{name}\" of the program exists already");
                return Err(Error::new(ErrorKind::Exists, message)
                    .with_hint("Give the function of the program another name."));
            }
        }
        Ok(())
    }

    /// Registers the functions that a user may call.
    ///
    /// # Errors
    /// When the planner refuses one (a bug).
    pub(crate) fn register(&self, state: &mut SessionState, access: &Access) -> Result<()> {
        for function in self.scalars.iter().filter(|f| access.has(Role::Read, f.name())) {
            state.register_udf(Arc::clone(function)).map_err(from_datafusion)?;
        }
        for function in self.aggregates.iter().filter(|f| access.has(Role::Read, f.name())) {
            state.register_udaf(Arc::clone(function)).map_err(from_datafusion)?;
        }
        Ok(())
    }
}
