//! The parts that the sessions and queries of an engine share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use datafusion::catalog::CatalogProviderList;
use datafusion::execution::runtime_env::RuntimeEnv;
use windrow_connectors::Files;
use windrow_query::parts::QueryParts;

use super::planners::Planners;
use super::program_functions::ProgramFunctions;

/// The parts that the sessions of an engine share; it includes those of queries.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The parts that queries share.
    pub(crate) query_parts: QueryParts,
    /// The files that remote users may use.
    pub(crate) files: Files,
    /// Functions of the embedding program.
    pub(crate) functions: ProgramFunctions,
    /// The number of the next statement in the log.
    pub(crate) next_statement: AtomicU64,
    /// Whether all objects of the data directory are open.
    pub(crate) restored: AtomicBool,
    /// DataFusion's catalogs.
    pub(crate) catalogs: Arc<dyn CatalogProviderList>,
    /// DataFusion's memory and disk.
    pub(crate) env: Arc<RuntimeEnv>,
    /// Limits planning.
    pub(crate) planners: Planners,
    /// Maximum memory of one statement in bytes, where admission sets no other.
    pub(crate) query_bytes_max: usize,
}

/// Sessions use the same limits, clock and threads as queries.
impl Deref for Parts {
    type Target = QueryParts;

    fn deref(&self) -> &QueryParts {
        &self.query_parts
    }
}

impl Parts {
    /// Whether all objects of the data directory are open.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// Returns the number of a new statement, for the log.
    pub(crate) fn next_statement(&self) -> u64 {
        self.next_statement.fetch_add(1, Ordering::Relaxed)
    }
}
