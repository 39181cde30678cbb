//! Logical plans: from the syntax tree to a bounded or a continuous form.
//!
//! [`plan_query`] returns a logical plan whose window relations are [`WindowAssign`] nodes.
//! [`bounded()`] lowers these to ordinary DataFusion nodes: the truth. [`continuous`] optimises the
//! plan and splits it at the window boundary: *prepare* plans (stateless, per micro-batch), window
//! operators, *finish* plans (per closed window).
//!
//! Invariants: both forms return the same rows; what cannot run continuously is refused, with the clause named and a
//! way out; nothing here panics on any plan.

mod aggregate;
mod asof;
mod asof_bounded;
mod asof_decide;
mod asof_join;
mod assign;
mod bounded;
mod bounds;
mod calendar_bounds;
mod calls;
mod changing;
mod checked;
mod circuit;
mod circuit_nodes;
mod circuit_recompute;
mod correlated_limit;
mod display;
mod early;
mod exact;
mod fill;
mod fill_linear;
mod filter;
mod fingerprint;
mod flow;
mod function_sizes;
mod functions;
mod hoist;
mod interpolated;
mod interval;
mod interval_join;
mod joined;
mod keyed;
mod known;
mod lengths;
mod lineage;
mod names;
mod over;
mod over_bounded;
mod over_order;
mod own;
mod pace;
mod parameters;
mod pattern;
mod pattern_bounded;
mod pattern_clause;
mod pattern_compile;
mod pattern_slots;
mod pieces;
mod prediction;
mod projections;
mod ranges;
mod relation;
mod sample;
mod session;
mod session_bounds;
mod sessions;
mod shape;
mod size;
mod slices;
mod split;
mod start;
mod trace;
mod tvf;
mod type_names;
mod types;
mod user_function;
mod view_windows;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::sql::parser::{CopyToSource, Statement};
use sqlparser::ast;
use windrow_core::{Error, Result, budget};

pub use self::types::sql_type_of;
use crate::diagnostics::from_datafusion;
pub use assign::{WINDOW_END, WINDOW_START, WINDOW_TIME, WindowAssign};
pub use bounded::bounded;
pub use exact::{TIME_ZONE, is_text, loss, physical_expression};
pub use flow::{
    ContinuousPlan, Flow, Leaf, LeafSource, OperatorInput, OperatorNode, RowChanges, RowsFlow,
    Stage,
};
pub use keyed::{DELETED_COLUMN, KeyedTable, SEQUENCE_COLUMN};
pub use names::PlannerNames;
pub use pace::Pace;
use parameters::bind_rows;
pub use parameters::{Parameters, bind, parameters};
pub use prediction::prediction;
use relation::ContinuousScan;
pub use relation::{EventTime, POSITION_COLUMN, StreamRelation, ToEnd};
pub use sample::positions;
pub use session::{micro_batch_state, physical, run, session_state, stream};
pub use size::check_plan;
pub use split::{continuous, predicates};
pub use start::from_event_time;
pub use trace::ROW_COLUMN;
pub use user_function::{UserFunction, depends_on_arguments};

/// Plans a query: analysed, not optimised; window relations are [`WindowAssign`] nodes.
/// `columns` renames the output (as in `CREATE VIEW v (a, b) AS …`) unless it is empty; `values` are those of the
/// parameters.
///
/// # Errors
/// When the query does not fit the catalog, the number of `columns` differs from the query's, a parameter has no
/// value, or the plan would be too large.
pub async fn plan_query(
    state: &SessionState,
    query: ast::Query,
    columns: &[ast::Ident],
    values: &[ScalarValue],
) -> Result<LogicalPlan> {
    let plan = bind(unbound(state, query).await?, values)?;
    rename(state, analyzed(state, plan)?, columns)
}

/// Plans `VALUES (…)` of one row, once for all rows of `values`, whose columns are the parameters in order; `None` for
/// any other query.
///
/// # Errors
/// As [`plan_query`].
pub async fn plan_values(
    state: &SessionState,
    query: ast::Query,
    values: RecordBatch,
) -> Result<Option<LogicalPlan>> {
    let plan = bind_rows(unbound(state, query).await?, values)?;
    plan.map(|plan| analyzed(state, plan)).transpose()
}

fn analyzed(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})
        .map_err(from_datafusion)
}

/// Plans a query whose parameters have no values yet: see [`parameters()`].
///
/// # Errors
/// When the query does not fit the catalog.
pub async fn unbound(state: &SessionState, query: ast::Query) -> Result<LogicalPlan> {
    let query = ast::Statement::Query(Box::new(query));
    statement(state, Statement::Statement(Box::new(query))).await
}

/// Plans a statement of the underlying engine, whose parameters have no values.
///
/// # Errors
/// When it does not fit the catalog, calls a function with a clause that would be ignored, or its plan would be too
/// large.
pub async fn statement(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    calls::check_engine(state, &statement)?;
    size::check_statement(state, &statement).await?;
    budget::check(0)?;
    let mut statement = statement;
    if let Some(query) = queried(&mut statement) {
        if state.config().get_extension::<PlannerNames>().is_none() {
            names::name_columns(query);
        }
        own::name_apart(state, query).await?;
    }
    let plan = state.statement_to_plan(statement).await.map_err(from_datafusion)?;
    check_plan(&plan)?;
    budget::check(0)?;
    let plan = correlated_limit::decide(plan).map_err(from_datafusion)?;
    let plan = asof_decide::decide(plan).map_err(from_datafusion)?;
    let plan = sessions::decide(plan).map_err(from_datafusion)?;
    own::check(&plan).map_err(from_datafusion)?;
    Ok(plan)
}

/// The query in a statement.
fn queried(statement: &mut Statement) -> Option<&mut ast::Query> {
    match statement {
        Statement::Statement(statement) => match statement.as_mut() {
            ast::Statement::Query(query) => Some(query),
            ast::Statement::CreateTable(table) => table.query.as_deref_mut(),
            ast::Statement::Insert(insert) => insert.source.as_deref_mut(),
            _ => None,
        },
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => Some(query),
            CopyToSource::Relation(_) => None,
        },
        Statement::Explain(explain) => queried(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::Reset(_) => None,
    }
}

fn rename(state: &SessionState, plan: LogicalPlan, columns: &[ast::Ident]) -> Result<LogicalPlan> {
    if columns.is_empty() {
        return Ok(plan);
    }
    let found = plan.schema().fields().len();
    if columns.len() != found {
        return Err(Error::sql(format!(
            "{} column names are given, but the query has {found} columns",
            columns.len()
        ))
        .with_hint("Give one name per column of the query, or none at all."));
    }
    let fold = state.config_options().sql_parser.enable_ident_normalization;
    let exprs: Vec<Expr> = columns
        .iter()
        .zip(plan.schema().columns())
        .map(|(name, column)| {
            let folded = fold && name.quote_style.is_none();
            let name = if folded { name.value.to_lowercase() } else { name.value.clone() };
            Expr::Column(column).alias(name)
        })
        .collect();
    LogicalPlanBuilder::from(plan)
        .project(exprs)
        .and_then(LogicalPlanBuilder::build)
        .map_err(from_datafusion)
}

/// Refuses duplicate column names, for results whose columns become those of an object or of a file.
///
/// # Errors
/// When there is one; it names the first.
pub fn distinct_columns(plan: &LogicalPlan) -> Result<()> {
    let mut seen = HashSet::new();
    match plan.schema().fields().iter().find(|field| !seen.insert(field.name().as_str())) {
        None => Ok(()),
        Some(twice) => Err(Error::sql(format!("two columns are named \"{}\"", twice.name()))
            .with_hint("Give one of them another name with AS.")),
    }
}

/// Whether a plan reads a stream or a view, including in subqueries.
pub fn is_streaming(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::TableScan(scan) if stream_of(scan).is_some());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.is_ok() && found
}

/// The stream that a scan reads, if it reads one.
fn stream_of(scan: &TableScan) -> Option<Arc<StreamRelation>> {
    let provider = source_as_provider(&scan.source).ok()?;
    if let Some(scan) = provider.downcast_ref::<ContinuousScan>() {
        return Some(Arc::clone(&scan.0));
    }
    provider.downcast_ref::<StreamRelation>().map(|relation| Arc::new(relation.clone()))
}

#[cfg(test)]
mod tests;
