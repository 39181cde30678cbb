//! What all sessions and queries of an engine share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use datafusion::catalog::CatalogProviderList;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::ScalarUDF;
use windrow_connectors::Files;
use windrow_query::parts::QueryParts;

use crate::session::planning::Planners;

/// What all sessions of an engine share, and through it what its queries do.
#[derive(Debug)]
pub(crate) struct Parts {
    /// What its queries share.
    pub(super) running: QueryParts,
    /// What remote users may touch.
    pub(crate) files: Files,
    /// Functions of the embedder.
    pub(super) functions: Vec<Arc<ScalarUDF>>,
    pub(super) next_statement: AtomicU64,
    /// Whether the views of the data directory stand where they stood before.
    pub(super) restored: AtomicBool,
    pub(super) catalogs: Arc<dyn CatalogProviderList>,
    pub(super) env: Arc<RuntimeEnv>,
    /// The threads that make plans.
    pub(crate) planners: Planners,
    /// Bytes that one statement may take, where nobody says how many.
    pub(crate) query_bytes_max: usize,
}

/// Sessions use limits, clock and threads as queries do.
impl Deref for Parts {
    type Target = QueryParts;

    fn deref(&self) -> &QueryParts {
        &self.running
    }
}

impl Parts {
    /// Whether all objects of the data directory are there again.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// A number for a statement in the log.
    pub(crate) fn next_statement(&self) -> u64 {
        self.next_statement.fetch_add(1, Ordering::Relaxed)
    }
}
