//! Aggregate functions in place of DataFusion's where those give another number without a word: sums that
//! wrap, and percentiles that round.
//!
//! [`functions`] has all of them; names, arguments and result types are DataFusion's. They serve both forms
//! of a query, so their states travel in segments.
//!
//! Invariant: what does not fit the result's type is an error, and whether it fits depends on the rows alone,
//! not on their order: a sum that leaves the range of its type on the way and comes back is right.

mod average;
mod intervals;
mod percentile;
mod sum;
#[cfg(test)]
mod tests;
mod total;

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

pub use sum::sum_udaf;
pub use total::{fits_digits, sql_type};

/// All of them, to be registered over DataFusion's of the same names.
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        sum_udaf(),
        Arc::new(AggregateUDF::new_from_impl(average::Average::default())),
        Arc::new(AggregateUDF::new_from_impl(percentile::Percentile::default())),
    ]
}
