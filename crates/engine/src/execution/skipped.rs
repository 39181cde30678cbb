//! Rows that a bounded statement does not read and that its client is informed of: bad rows of the connectors that it
//! reads, late and bad rows of the views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use parking_lot::Mutex;
use windrow_core::Result;
use windrow_query::shared::Shared;
use windrow_stream::reads::{BoundedReads, ReadProgress};

use crate::catalog::{Catalog, Object, streams_read};
use crate::execution::outcome::UnusedRows;

/// The late and bad rows that one statement skips.
#[derive(Debug, Default)]
pub(crate) struct SkippedRows {
    /// The readings of connectors, with the bad rows that scans find.
    pub(super) scans: Arc<BoundedReads>,
    /// The queries of the views that are read, by their ids.
    views: Mutex<BTreeMap<u64, Arc<Shared>>>,
}

impl SkippedRows {
    /// Adds the views that a plan reads, and those that they read in turn.
    ///
    /// # Errors
    /// When one of them has failed: those that read it fail too, if they have not yet.
    pub(crate) fn add_reads(&self, plan: &LogicalPlan, catalog: &Catalog) -> Result<()> {
        let mut names: Vec<String> = streams_read(plan)?;
        let mut known = BTreeSet::new();
        while let Some(name) = names.pop() {
            if known.insert(name.clone())
                && let Some(Object::Materialized(view)) = catalog.get(&name)
            {
                view.check()?;
                self.views.lock().insert(view.query.id, Arc::clone(&view.query));
                names.extend(view.reads.iter().cloned());
            }
        }
        Ok(())
    }

    /// Returns how much has been read.
    pub(crate) fn read_progress(&self) -> ReadProgress {
        self.scans.progress()
    }

    /// Returns the current counts.
    pub(crate) fn total(&self) -> UnusedRows {
        let bad = self.scans.bad_rows();
        self.views.lock().values().map(|query| query.ledger.total()).fold(
            UnusedRows { late: 0, bad },
            |sum, rows| UnusedRows { late: sum.late + rows.late, bad: sum.bad + rows.bad },
        )
    }
}

impl UnusedRows {
    /// Returns a remark in parentheses for the message of a statement without rows; empty if there are none.
    pub fn aside(self) -> String {
        let count = |rows: u64, kind: &str| match rows {
            0 => None,
            1 => Some(format!("1 {kind} row was left out, see windrow.{kind}_rows")),
            _ => Some(format!("{rows} {kind} rows were left out, see windrow.{kind}_rows")),
        };
        let told = [count(self.late, "late"), count(self.bad, "bad")];
        let told: Vec<String> = told.into_iter().flatten().collect();
        if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) }
    }
}
