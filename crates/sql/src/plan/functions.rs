//! Functions whose result may be much larger than what they are given, or that take long over it.
//!
//! `repeat`, `array_repeat`, `range`, `replace`, … make gigabytes of a few bytes, at once and without
//! yielding. An analyzer rule puts each of them into a [`Bounded`] of the same name, which asks the statement's
//! budget for the size of the result before it is made. What is large is made piece by piece, so that a
//! statement that is over stops between two of them, while other tasks of the thread go on elsewhere.
//!
//! `||` is an operator: its result is looked at when it is there ([`Passed`]). It is at most as large as both
//! sides, which were within the budget. So is the value of a subquery, before it stands in every row.
//!
//! Invariants: a wrapped function gives what the inner one gives, value by value, and is called the same; a
//! constant is worked out within the same bounds, because wrapping comes before simplifying.

use std::sync::Arc;

use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, ExpressionPlacement, LogicalPlan, Operator,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use windrow_core::budget::{self, Budget, Stop};
use windrow_core::{Error, ErrorKind};

use super::function_sizes::{held, result};

/// Functions that are wrapped.
const WRAPPED: [&str; 44] = [
    "array_append",
    "array_concat",
    "array_distinct",
    "array_except",
    "array_intersect",
    "array_prepend",
    "array_repeat",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_resize",
    "array_sort",
    "array_to_string",
    "array_union",
    "arrays_zip",
    "concat",
    "concat_ws",
    "encode",
    "flatten",
    "generate_series",
    "initcap",
    "levenshtein",
    "lower",
    "lpad",
    "make_array",
    "map",
    "md5",
    "overlay",
    "range",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "rpad",
    "split_part",
    "string_to_array",
    "strpos",
    "to_char",
    "translate",
    "upper",
];

/// What is looked through many times, or with much work per byte.
const SLOW: [&str; 9] = [
    "initcap",
    "levenshtein",
    "md5",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "translate",
];
/// A byte of these counts as so many.
const SLOWNESS: usize = 16;
/// What is made in one piece, in bytes.
const PIECE_BYTES: usize = 16 << 20;

/// Wraps functions in the plan that it analyses.
#[derive(Debug)]
pub(super) struct BoundFunctions;

impl AnalyzerRule for BoundFunctions {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        budget::check(0).map_err(|stop| external(stop.into()))?;
        let wrapped = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| expr.transform_up(|part| Ok(wrapped(part))))
        });
        wrapped.map(|wrapped| wrapped.data)
    }

    fn name(&self) -> &'static str {
        "bound_functions"
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// One expression, whose parts have been seen to.
fn wrapped(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => {
            if func.inner().is::<Passed>()
                && let [Expr::ScalarFunction(below)] = args.as_slice()
                && below.func.inner().is::<Passed>()
            {
                return Transformed::yes(args.swap_remove(0));
            }
            if func.inner().is::<Bounded>() || !WRAPPED.contains(&func.name()) {
                return Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }));
            }
            let func = Arc::new(ScalarUDF::new_from_impl(Bounded { inner: func }));
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let joined = Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right });
            Transformed::yes(passed(joined))
        }
        // One value, that may come to stand in many rows.
        Expr::ScalarSubquery(query) if may_be_long(&query.subquery) => {
            Transformed::yes(passed(Expr::ScalarSubquery(query)))
        }
        other => Transformed::no(other),
    }
}

/// Whether the values of a query's column have no size of their own.
fn may_be_long(query: &LogicalPlan) -> bool {
    let fields = query.schema().fields();
    fields.first().is_some_and(|field| field.data_type().primitive_width().is_none())
}

fn passed(expr: Expr) -> Expr {
    let func = Arc::new(ScalarUDF::new_from_impl(Passed::default()));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![expr] })
}

/// A function whose results are bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
}

impl Bounded {
    fn works(&self) -> &dyn ScalarUDFImpl {
        self.inner.inner().as_ref()
    }

    /// The error of a result that is too large.
    fn told(&self, bytes: usize, stop: Stop) -> DataFusionError {
        let name = self.inner.name();
        external(match stop {
            Stop::Ended => stop.into(),
            Stop::Over { bytes_max, wanted } => Error::new(
                ErrorKind::Limit,
                format!(
                    "the result of {name} takes up to {bytes} bytes, and the statement would hold \
                     {wanted} bytes at once, more than it may (--query-memory, {bytes_max} bytes)"
                ),
            )
            .with_hint("Ask for less at once, or raise --query-memory."),
        })
    }

    fn in_pieces(&self, args: &ScalarFunctionArgs, work: usize) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let pieces = work.div_ceil(PIECE_BYTES).clamp(1, rows.max(1));
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        if pieces == 1 || constant {
            return self.works().invoke_with_args(args.clone());
        }
        let step = rows.div_ceil(pieces);
        let mut made = Vec::with_capacity(pieces);
        for from in (0..rows).step_by(step) {
            budget::check(0).map_err(|stop| self.told(0, stop))?;
            let count = step.min(rows - from);
            let part = |arg: &ColumnarValue| match arg {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, count)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let piece = ScalarFunctionArgs {
                args: args.args.iter().map(part).collect(),
                number_rows: count,
                ..args.clone()
            };
            made.push(self.works().invoke_with_args(piece)?.into_array(count)?);
        }
        let bytes = made.iter().map(|piece| piece.get_array_memory_size()).sum();
        budget::check(bytes).map_err(|stop| self.told(bytes, stop))?;
        let made: Vec<_> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&made)?))
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.works().name()
    }

    fn aliases(&self) -> &[String] {
        self.works().aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.works().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.works().signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.works().return_type(arg_types)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.works().with_updated_config(config)?);
        Some(ScalarUDF::new_from_impl(Self { inner }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.works().return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.works().is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = result(self.name(), &args).map_err(external)?;
        budget::check(bytes).map_err(|stop| self.told(bytes, stop))?;
        let slowness = if SLOW.contains(&self.name()) { SLOWNESS } else { 1 };
        let work = held(&args).saturating_mul(slowness).saturating_add(bytes);
        if work <= PIECE_BYTES || Budget::current().is_none() {
            return self.works().invoke_with_args(args);
        }
        aside(|| self.in_pieces(&args, work))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.works().simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) => {
                let again = expr.transform_up(|part| Ok(wrapped(part)))?;
                ExprSimplifyResult::Simplified(again.data)
            }
            original @ ExprSimplifyResult::Original(_) => original,
        })
    }

    fn preimage(
        &self,
        args: &[Expr],
        lit_expr: &Expr,
        info: &SimplifyContext,
    ) -> Result<PreimageResult> {
        self.works().preimage(args, lit_expr, info)
    }

    fn short_circuits(&self) -> bool {
        self.works().short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.works().conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.works().evaluate_bounds(input)
    }

    fn propagate_constraints(
        &self,
        interval: &Interval,
        inputs: &[&Interval],
    ) -> Result<Option<Vec<Interval>>> {
        self.works().propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.works().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.works().preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.works().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.works().coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.works().documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.works().placement(args)
    }
}

/// Long work of a thread that has other tasks: they go on elsewhere.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The same value, once the statement may hold it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Passed {
    signature: Signature,
}

impl Default for Passed {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Passed {
    fn name(&self) -> &'static str {
        "within_limits"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let given = arg_types.first().cloned();
        given.ok_or_else(|| external(Error::internal("within_limits takes one value")))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let given = args.arg_fields.first().map(Arc::clone);
        given.ok_or_else(|| external(Error::internal("within_limits takes one value")))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given = args.args.pop();
        let bytes = match &given {
            Some(ColumnarValue::Scalar(value)) => value.size().saturating_mul(args.number_rows),
            _ => 0,
        };
        budget::check(bytes).map_err(|stop| external(stop.into()))?;
        given.ok_or_else(|| external(Error::internal("within_limits takes one value")))
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::runtime_env::RuntimeEnv;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::diagnostics::from_datafusion;
    use crate::parse::{Statement, parse_one};
    use crate::plan::{session_state, unbound};

    /// Runs a query with a budget of so many bytes, as text.
    async fn run(sql: &str, bytes: usize) -> Result<String, Error> {
        let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default()))?;
        let context = SessionContext::new_with_state(state);
        let sql = sql.to_owned();
        let work = async move {
            let rows = context.sql(&sql).await?.collect().await?;
            Ok::<_, DataFusionError>(pretty_format_batches(&rows)?.to_string())
        };
        Budget::new(bytes).within(Box::pin(work)).await.map_err(from_datafusion)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_would_be_much_is_refused_before_it_is_made() {
        let mut refused = 0;
        for sql in [
            "SELECT repeat('x', 20000000)".to_owned(),
            "SELECT concat(repeat('x', 6000000), repeat('y', 6000000))".to_owned(),
            "SELECT cardinality(range(1, 1000000000))".to_owned(),
            "SELECT generate_series(TIMESTAMP '2020-01-01', TIMESTAMP '2021-01-01', INTERVAL '1 second')".to_owned(),
            "SELECT cardinality(array_repeat(array_repeat(1, 100000), 100000))".to_owned(),
            "SELECT levenshtein(repeat('ab', 100000), repeat('ba', 100000))".to_owned(),
        ] {
            // What can be made piece by piece has an answer.
            let Err(error) = run(&sql, 10 << 20).await else { continue };
            let beyond_arrow = error.to_string().contains("offset overflow");
            assert!(error.kind() == ErrorKind::Limit || beyond_arrow, "{sql}: {error}");
            refused += 1;
        }
        assert!(refused > 3, "{refused} are refused");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_fits_is_the_same_in_pieces() {
        // 40 MB of texts, so that functions work piece by piece.
        let t =
            "(SELECT value AS n, repeat(CAST(value AS VARCHAR), 1000) AS s FROM range(1, 10000)) t";
        let sql = format!(
            "SELECT sum(length(concat(s, '-', s))), max(md5(s)), min(reverse(upper(s))), \
             sum(length(replace(s, '1', 'one'))), sum(length(s || s)), sum(cardinality(range(0, n))), \
             sum(length(lpad(s, 5, '0'))), count(*) FILTER (WHERE regexp_like(s, '^7')) FROM {t}"
        );
        assert_eq!(run(&sql, 4 << 30).await.unwrap(), unbounded(&sql).await);
    }

    /// The same without a budget: nothing is cut.
    async fn unbounded(sql: &str) -> String {
        let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default())).unwrap();
        let context = SessionContext::new_with_state(state);
        let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&rows).unwrap().to_string()
    }

    #[tokio::test]
    async fn a_statement_that_is_over_stops() {
        let budget = Budget::new(1 << 30);
        budget.end();
        let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default())).unwrap();
        let Statement::Query(query) = parse_one("SELECT 1").unwrap().statement else {
            panic!("no query")
        };
        let work = async move { unbound(&state, *query.query).await };
        let error = budget.within(Box::pin(work)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn the_lists_are_sorted_so_that_one_is_found() {
        assert!(WRAPPED.is_sorted() && SLOW.is_sorted());
        assert!(SLOW.iter().all(|name| WRAPPED.contains(name)));
    }
}
