//! Errors for people: the engine's errors as ours, and near matches for unknown names.

mod near;

pub use near::{did_you_mean, nearest};

use datafusion::error::DataFusionError;
use windrow_core::Error;

/// An error of the engine underneath as one for people.
pub fn from_datafusion(error: DataFusionError) -> Error {
    Error::internal(error.to_string())
}
