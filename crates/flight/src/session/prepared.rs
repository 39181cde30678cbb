//! The prepared statements of a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;
use windrow_core::{Error, ErrorKind};
use windrow_runtime::{Prepared, Values};

use crate::session::unguessable;
use crate::status::to_status;

/// Prepared statements of one session at most.
const STATEMENTS_MAX: usize = 1_000;

/// By handle. They live as long as the session, or until they are closed.
#[derive(Debug, Default)]
pub(crate) struct PreparedStatements(Mutex<BTreeMap<Vec<u8>, Arc<Statement>>>);

/// A prepared statement with the values that were bound last.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) prepared: Prepared,
    bound: Mutex<Vec<Values>>,
}

impl PreparedStatements {
    /// Keeps a statement; its handle.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when there are too many.
    pub(crate) fn add(&self, prepared: Prepared) -> Result<Vec<u8>, Status> {
        let mut all = self.0.lock();
        if all.len() >= STATEMENTS_MAX {
            let error = Error::new(
                ErrorKind::Limit,
                format!("the session has {STATEMENTS_MAX} prepared statements already"),
            );
            return Err(to_status(&error.with_hint("Close those that are not needed."), ""));
        }
        let handle = unguessable().into_bytes();
        let statement = Statement { prepared, bound: Mutex::default() };
        all.insert(handle.clone(), Arc::new(statement));
        Ok(handle)
    }

    /// The statement of a handle.
    ///
    /// # Errors
    /// NOT_FOUND when there is none in this session.
    pub(crate) fn get(&self, handle: &[u8]) -> Result<Arc<Statement>, Status> {
        self.0.lock().get(handle).cloned().ok_or_else(|| {
            let error = Error::new(ErrorKind::NotFound, "there is no such prepared statement")
                .with_hint(
                    "It was closed, its session is over, or it belongs to another connection. \
                     Prepare it again.",
                );
            to_status(&error, "")
        })
    }

    /// Forgets a statement; whether there was one.
    pub(crate) fn close(&self, handle: &[u8]) -> bool {
        self.0.lock().remove(handle).is_some()
    }
}

impl Statement {
    /// Remembers values for the next executions.
    pub(crate) fn bind(&self, values: Vec<Values>) {
        *self.bound.lock() = values;
    }

    /// The values of each execution: those that were bound, or none for a statement without
    /// parameters.
    pub(crate) fn bound(&self) -> Vec<Values> {
        let bound = self.bound.lock().clone();
        if bound.is_empty() { vec![Values::default()] } else { bound }
    }

    /// The values of a query, which is executed once.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when more than one row of values is bound.
    pub(crate) fn bound_once(&self) -> Result<Values, Status> {
        let mut bound = self.bound();
        match (bound.pop(), bound.len()) {
            (Some(values), 0) => Ok(values),
            (_, more) => {
                let error = Error::sql(format!(
                    "a query takes one row of parameters, {} are bound",
                    more + 1
                ));
                Err(to_status(&error.with_hint("Execute it once for each row."), ""))
            }
        }
    }
}
