//! Functions that DataFusion lacks, or supports in part: patterns of times, parts of intervals, numbers times
//! intervals, hashes, JSON.
//!
//! A function that is registered here replaces DataFusion's of the same name.

mod date_part;
mod differences;
mod format;
mod hash;
mod intervals;
mod json;
mod markers;
mod parse;
mod patterns;
mod sketches;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::functions::datetime;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, create_udf};

use self::date_part::DatePart;
use self::differences::{Counted, Difference};
use self::format::Format;
use self::hash::HashOf;
use self::json::Json;
pub use self::json::not_json;
pub(crate) use self::markers::{AS_OF, ASOF};
use self::parse::Parse;
use self::patterns::Family;

/// Functions that have another name in PostgreSQL, DuckDB, Flink or MySQL.
const SCALAR_ALIASES: &[(&str, &str)] = &[
    ("ceil", "ceiling"),
    ("trunc", "truncate"),
    ("signum", "sign"),
    ("character_length", "len"),
    ("upper", "ucase"),
    ("lower", "lcase"),
    ("string_to_array", "string_split"),
    ("string_to_array", "split"),
    ("regexp_like", "regexp_matches"),
    ("starts_with", "startswith"),
    ("ends_with", "endswith"),
    ("to_char", "strftime"),
    ("to_unixtime", "unix_timestamp"),
];
/// The same for aggregates.
const AGGREGATE_ALIASES: &[(&str, &str)] = &[
    ("var", "variance"),
    ("approx_distinct", "approx_count_distinct"),
    ("string_agg", "listagg"),
    ("bool_and", "every"),
    ("array_agg", "list"),
    ("array_agg", "collect"),
    ("array_agg", "collect_list"),
];

/// Registers all of them.
///
/// # Errors
/// When the session accepts no functions (our bug).
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    let to_char = datetime::to_char();
    state.register_udf(Arc::new(ScalarUDF::from(Format::new(
        "to_char",
        Family::Postgres,
        Arc::clone(&to_char),
    ))))?;
    let date_format = Format::new("date_format", Family::Java, to_char);
    state.register_udf(Arc::new(ScalarUDF::from(date_format)))?;
    for name in [
        "to_date",
        "to_timestamp",
        "to_timestamp_seconds",
        "to_timestamp_millis",
        "to_timestamp_micros",
        "to_timestamp_nanos",
    ] {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Parse::new(inner))))?;
    }
    let date_part = DatePart::new(datetime::date_part());
    state.register_udf(Arc::new(ScalarUDF::from(date_part)))?;
    for difference in [
        Difference::new("date_diff", &["datediff"], Counted::Bounds),
        Difference::new("timestampdiff", &[], Counted::Units),
    ] {
        state.register_udf(Arc::new(ScalarUDF::from(difference)))?;
    }
    state.register_udf(Arc::new(ScalarUDF::from(HashOf::default())))?;
    for estimate in sketches::estimates() {
        state.register_udf(Arc::new(estimate))?;
    }
    for json in Json::all() {
        state.register_udf(Arc::new(ScalarUDF::from(json)))?;
    }
    state.register_udf(Arc::new(version()))?;
    for (name, alias) in SCALAR_ALIASES {
        let function = state.udf(name)?.as_ref().clone().with_aliases([*alias]);
        state.register_udf(Arc::new(function))?;
    }
    for (name, alias) in AGGREGATE_ALIASES {
        let function = state.udaf(name)?.as_ref().clone().with_aliases([*alias]);
        state.register_udaf(Arc::new(function))?;
    }
    for marker in markers::markers() {
        state.register_udf(Arc::new(marker))?;
    }
    Ok(())
}

/// `version()`: the version of Windrow, and of the engine within.
fn version() -> ScalarUDF {
    let text = format!(
        "Windrow {} (DataFusion {})",
        env!("CARGO_PKG_VERSION"),
        datafusion::DATAFUSION_VERSION
    );
    let given =
        move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(text.as_str())));
    create_udf("version", vec![], DataType::Utf8, Volatility::Immutable, Arc::new(given))
}

/// Plans operators and EXTRACT with these functions.
#[derive(Debug)]
pub(crate) struct Operators;

impl ExprPlanner for Operators {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let date_part = ScalarUDF::from(DatePart::new(datetime::date_part()));
        Ok(PlannerResult::Planned(date_part.call(args)))
    }

    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        intervals::plan(expr, schema)
    }
}
