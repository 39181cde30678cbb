//! Numbers as SQL defines them, where DataFusion's plans differ.
//!
//! - `+ - *` and unary minus of integers wrap there, and decimals get more digits than their type has. Here each
//!   becomes a function that fails instead ([`arithmetic`]). It is a function because DataFusion's optimiser folds
//!   constants, and leaves those that fail to be executed.
//! - 0.0 and -0.0 are equal, and so are all NaN, except where DataFusion compares bits or sorts: PARTITION BY, ORDER BY
//!   and its peers, IN, CASE, nullif, DISTINCT within aggregates. There they are made the same ([`floats`]); so are NaN
//!   in GROUP BY, DISTINCT, joins, equalities and session keys ([`keys`]).
//! - An INSERT that would truncate a value is an error ([`assignment`]).
//! - Text becomes a time with zone in the session's time zone ([`zones`]), also without seconds ([`minutes`]).
//!
//! All are analyzer rules after type coercion, so that every plan has them: bounded, continuous, DML, and a plan that
//! is analysed again. They are idempotent.

mod arithmetic;
mod assignment;
mod floats;
mod keys;
mod minutes;
mod zones;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, SortExpr, WriteOp};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::function_rewrite::ApplyFunctionRewrites;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use windrow_core::Error;

use crate::diagnostics::from_datafusion;

pub use assignment::loss;
pub(super) use floats::canonical_in_place;
pub use zones::{TIME_ZONE, is_text};

/// The rules, which must come after all others.
pub(super) fn rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    vec![
        Arc::new(ApplyFunctionRewrites::new(vec![Arc::new(ExactNumbers)])),
        Arc::new(OneZeroInOrder),
        Arc::new(OneNanInKeys),
        Arc::new(WholeInserts),
    ]
}

/// A physical expression outside of a plan, such as that of a generated column, with the same rules as in plans.
///
/// # Errors
/// When it does not fit the columns.
pub fn physical_expression(
    state: &SessionState,
    expr: Expr,
    schema: &DFSchema,
) -> Result<Arc<dyn PhysicalExpr>, Error> {
    let exact = || {
        let expr = coerced(expr, schema, state.config_options())?;
        state.create_physical_expr(expr, schema)
    };
    exact().map_err(from_datafusion)
}

/// An expression outside of a plan, with the types and the exactness of plans.
pub(super) fn coerced(expr: Expr, schema: &DFSchema, config: &Arc<ConfigOptions>) -> Result<Expr> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(config))
        .build();
    let expr = ExprSimplifier::new(context).coerce(expr, schema)?;
    expr.transform_up(|expr| exact_expr(expr, schema, config)).data()
}

/// Handles the expressions of every node.
#[derive(Debug)]
struct ExactNumbers;

impl FunctionRewrite for ExactNumbers {
    fn name(&self) -> &str {
        "exact_numbers"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        exact_expr(expr, schema, config)
    }
}

/// Handles an expression, whose operands have been handled.
fn exact_expr(
    expr: Expr,
    schema: &dyn ExprSchema,
    config: &ConfigOptions,
) -> Result<Transformed<Expr>> {
    match &expr {
        Expr::Cast(_) | Expr::TryCast(_) => minutes::whole_minutes(expr, schema)?
            .transform_data(|e| zones::in_zone(e, schema, config)),
        Expr::BinaryExpr(binary) if binary.op.supports_propagation() => keys::equal(expr, schema),
        Expr::BinaryExpr(_) | Expr::Negative(_) => arithmetic::checked(expr, schema),
        Expr::InSubquery(_) => keys::in_subquery(expr, schema),
        Expr::InList(_)
        | Expr::Case(_)
        | Expr::ScalarFunction(_)
        | Expr::AggregateFunction(_)
        | Expr::WindowFunction(_) => floats::one_zero(expr, schema),
        _ => Ok(Transformed::no(expr)),
    }
}

/// Handles ORDER BY where it is not an expression.
#[derive(Debug)]
struct OneZeroInOrder;

impl AnalyzerRule for OneZeroInOrder {
    fn name(&self) -> &str {
        "one_zero_in_order"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Sort(mut sort) => {
                    let changed = one_zero(&mut sort.expr, sort.input.schema().as_ref())?;
                    Transformed::new_transformed(LogicalPlan::Sort(sort), changed)
                }
                LogicalPlan::Distinct(Distinct::On(mut on)) => {
                    let schema = Arc::clone(on.input.schema());
                    let mut changed = match &mut on.sort_expr {
                        Some(sort) => one_zero(sort, schema.as_ref())?,
                        None => false,
                    };
                    // They are the first keys of the order.
                    for key in &mut on.on_expr {
                        changed |= canonical_in_place(key, schema.as_ref())?;
                    }
                    Transformed::new_transformed(LogicalPlan::Distinct(Distinct::On(on)), changed)
                }
                other => Transformed::no(other),
            })
        })
        .data()
    }
}

/// Handles keys that are compared by their bits.
#[derive(Debug)]
struct OneNanInKeys;

impl AnalyzerRule for OneNanInKeys {
    fn name(&self) -> &str {
        "one_nan_in_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(keys::one_nan).data()
    }
}

/// Handles INSERT into one of DataFusion's tables.
#[derive(Debug)]
struct WholeInserts;

impl AnalyzerRule for WholeInserts {
    fn name(&self) -> &str {
        "whole_inserts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_down(|node| match node {
            LogicalPlan::Dml(mut dml) if matches!(dml.op, WriteOp::Insert(_)) => {
                let query = Arc::unwrap_or_clone(dml.input);
                let query = assignment::whole_casts(query)?;
                dml.input = Arc::new(query.data);
                Ok(Transformed::new_transformed(LogicalPlan::Dml(dml), query.transformed))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()
    }
}

fn one_zero(sort: &mut [SortExpr], schema: &dyn ExprSchema) -> Result<bool> {
    let mut changed = false;
    for key in sort {
        changed |= canonical_in_place(&mut key.expr, schema)?;
    }
    Ok(changed)
}
