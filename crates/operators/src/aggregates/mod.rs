//! Aggregate functions that replace DataFusion's where those silently return wrong numbers (sums that wrap, and
//! percentiles that are rounded), and those that DataFusion lacks: `max_by`, `min_by`, `mode`, `percentile_disc`,
//! `approx_top_k`, `skewness`, `kurtosis`, and sketches, which can be stored and merged.
//!
//! [`functions`] returns all of them; names, arguments and result types of the former are DataFusion's. They serve both
//! forms of a query, so their states are stored in segments.
//!
//! Invariant: a result that does not fit its type is an error, and whether it fits depends on the rows alone, not on
//! their order: a sum may leave the range of its type and return to it.

mod average;
mod counted;
mod extreme;
mod intervals;
mod percentile;
mod shape;
mod sketches;
mod sum;
#[cfg(test)]
mod tests;
mod total;

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

pub use sketches::{approx_percentile_estimate, hll_estimate};
pub use sum::sum_udaf;
pub(crate) use total::beyond;
pub use total::fits_digits;

/// Returns all of them, to be registered in place of DataFusion's functions of the same names.
pub fn functions() -> Vec<Arc<AggregateUDF>> {
    let sketches = sketches::Sketching::all().map(AggregateUDF::new_from_impl).map(Arc::new);
    let mut functions = vec![
        sum_udaf(),
        Arc::new(AggregateUDF::new_from_impl(average::Average::default())),
        Arc::new(AggregateUDF::new_from_impl(percentile::Percentile::default())),
        Arc::new(AggregateUDF::new_from_impl(extreme::ByExtreme::new(extreme::Extreme::Greatest))),
        Arc::new(AggregateUDF::new_from_impl(extreme::ByExtreme::new(extreme::Extreme::Smallest))),
        Arc::new(AggregateUDF::new_from_impl(counted::Counted::new(counted::Of::Mode))),
        Arc::new(AggregateUDF::new_from_impl(counted::Counted::new(counted::Of::Percentile))),
        Arc::new(AggregateUDF::new_from_impl(counted::Counted::new(counted::Of::Top))),
        Arc::new(AggregateUDF::new_from_impl(shape::ShapeOf::new(shape::Shape::Skewness))),
        Arc::new(AggregateUDF::new_from_impl(shape::ShapeOf::new(shape::Shape::Kurtosis))),
    ];
    functions.extend(sketches);
    functions
}
