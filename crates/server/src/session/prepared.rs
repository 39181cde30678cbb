//! The prepared statements of a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::{Prepared, Values};

use crate::session::unguessable;

/// Prepared statements of one session at most.
const STATEMENTS_MAX: usize = 1_000;

/// The prepared statements by handle. They live as long as the session, or until they are closed.
#[derive(Debug, Default)]
pub struct PreparedStatements(Mutex<BTreeMap<Vec<u8>, Arc<Statement>>>);

/// A prepared statement with the values that were bound last.
#[derive(Debug)]
pub struct Statement {
    /// The statement.
    pub prepared: Prepared,
    bound: Mutex<Vec<Values>>,
}

impl PreparedStatements {
    /// Stores a statement and returns its handle.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when there are too many.
    pub fn add(&self, prepared: Prepared) -> Result<Vec<u8>> {
        let mut all = self.0.lock();
        if all.len() >= STATEMENTS_MAX {
            let error = Error::new(
                ErrorKind::Limit,
                format!("the session has {STATEMENTS_MAX} prepared statements already"),
            );
            return Err(error.with_hint("Close those that are not needed."));
        }
        let handle = unguessable().into_bytes();
        let statement = Statement { prepared, bound: Mutex::default() };
        all.insert(handle.clone(), Arc::new(statement));
        Ok(handle)
    }

    /// Returns the statement of a handle.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none in this session.
    pub fn get(&self, handle: &[u8]) -> Result<Arc<Statement>> {
        self.0.lock().get(handle).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such prepared statement").with_hint(
                "It was closed, its session has ended, or it belongs to another connection. \
                 Prepare it again.",
            )
        })
    }

    /// Removes a statement; returns whether there was one.
    pub fn close(&self, handle: &[u8]) -> bool {
        self.0.lock().remove(handle).is_some()
    }
}

impl Statement {
    /// Binds values for the next executions.
    pub fn bind(&self, values: Vec<Values>) {
        *self.bound.lock() = values;
    }

    /// The values of each execution: those that were bound, or one empty row for a statement without parameters.
    pub fn bound(&self) -> Vec<Values> {
        let bound = self.bound.lock().clone();
        if bound.is_empty() { vec![Values::default()] } else { bound }
    }

    /// The values of a query, which is executed once.
    ///
    /// # Errors
    /// [`ErrorKind::Sql`] when more than one row of values is bound.
    pub fn bound_once(&self) -> Result<Values> {
        let mut bound = self.bound();
        match (bound.pop(), bound.len()) {
            (Some(values), 0) => Ok(values),
            (_, more) => {
                let error = Error::sql(format!(
                    "a query takes one row of parameters, {} are bound",
                    more + 1
                ));
                Err(error.with_hint("Execute it once for each row."))
            }
        }
    }
}
