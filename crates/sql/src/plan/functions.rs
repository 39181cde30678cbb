//! Functions whose result may be much larger than their arguments, or that need much time for it.
//!
//! `repeat`, `array_repeat`, `range`, `replace`, … turn a few bytes into gigabytes, at once and without yielding. An
//! analyzer rule wraps each of them in a [`Bounded`] of the same name, which is computed within bounds ([`pieces`]).
//! `||` is turned into such a function too ([`Joined`]). The value of a subquery is checked before it is repeated for
//! every row ([`Passed`]).
//!
//! Invariants: a wrapped function returns the same values as the inner one, and has the same name; a constant is
//! computed within the same bounds, because wrapping comes before simplifying.

use std::sync::Arc;

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
use windrow_core::{Error, budget};

use super::joined::Joined;
use super::pieces;

/// Functions that are wrapped.
pub(super) const WRAPPED: [&str; 51] = [
    "array_append",
    "array_concat",
    "array_distinct",
    "array_except",
    "array_has_all",
    "array_has_any",
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
    "digest",
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
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "split_part",
    "string_to_array",
    "strpos",
    "to_char",
    "translate",
    "upper",
];

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

pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Wraps one expression, whose children have been handled.
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
            let inner = Arc::new(ScalarUDF::new_from_impl(Joined::default()));
            let func = Arc::new(ScalarUDF::new_from_impl(Bounded { inner }));
            Transformed::yes(Expr::ScalarFunction(ScalarFunction {
                func,
                args: vec![*left, *right],
            }))
        }
        // A single value, which may be repeated for many rows.
        Expr::ScalarSubquery(query) if may_be_long(&query.subquery) => {
            Transformed::yes(passed(Expr::ScalarSubquery(query)))
        }
        other => Transformed::no(other),
    }
}

/// Whether the values of a query's column have a variable size.
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
        pieces::within_bounds(self.works(), args)
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

/// Returns its argument, after checking that the statement may hold it.
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
