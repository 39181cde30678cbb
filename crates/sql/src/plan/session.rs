//! The DataFusion sessions in which plans are made and run.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, execution_plan::reset_plan_states,
};
use datafusion::prelude::SessionConfig;
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use windrow_core::Error;
use windrow_operators::aggregates;

use super::pattern_clause::RowPatterns;
use super::sample::Samples;
use super::tvf::WindowRelations;
use super::types::ArrowTypes;
use super::{checked, exact, filter};
use crate::diagnostics::from_datafusion;
use crate::functions::{self, Operators};
use crate::leaf::LeafInputs;

/// The rows of a batch within plans that run per micro-batch: a micro-batch is not split.
const MICRO_BATCH_ROWS: usize = 65_536;

/// A session with the window functions and the JSON functions, whose planning and functions stay within the budget of
/// their statement ([`windrow_core::budget`]).
///
/// # Errors
/// When functions cannot be registered (our bug).
pub fn session_state(
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
) -> Result<SessionState, Error> {
    let mut builder = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_type_planner(Arc::new(ArrowTypes))
        .with_relation_planners(vec![
            Arc::new(Samples),
            Arc::new(WindowRelations),
            Arc::new(RowPatterns),
        ])
        .with_analyzer_rules(checked::analyzer())
        .with_optimizer_rules(checked::optimizer())
        .with_physical_optimizer_rules(checked::physical());
    // Before DataFusion's, which would plan the same operators.
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(Operators));
    for rule in exact::rules() {
        builder = builder.with_analyzer_rule(rule);
    }
    let mut state = builder.build();
    for function in aggregates::functions() {
        state.register_udaf(function).map_err(from_datafusion)?;
    }
    datafusion_functions_json::register_all(&mut state).map_err(from_datafusion)?;
    functions::register(&mut state).map_err(from_datafusion)?;
    // After the functions have been created: `now()` and `to_timestamp` then have no time zone, like the columns that
    // they are compared with.
    state.config_mut().options_mut().execution.time_zone = Some(exact::TIME_ZONE.to_owned());
    Ok(state)
}

/// The settings for plans that run once per micro-batch or closed window: one partition, no tasks of their own, and
/// nothing that assumes a single execution.
pub fn micro_batch_state(state: &SessionState) -> SessionState {
    let mut config =
        state.config().clone().with_target_partitions(1).with_batch_size(MICRO_BATCH_ROWS);
    {
        let options = config.options_mut();
        options.execution.collect_statistics = false;
        let optimizer = &mut options.optimizer;
        optimizer.enable_round_robin_repartition = false;
        optimizer.repartition_aggregations = false;
        optimizer.repartition_joins = false;
        optimizer.repartition_windows = false;
        optimizer.repartition_sorts = false;
        optimizer.repartition_file_scans = false;
        optimizer.enable_dynamic_filter_pushdown = false;
        optimizer.enable_topk_dynamic_filter_pushdown = false;
        optimizer.enable_join_dynamic_filter_pushdown = false;
        optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    }
    // Not with a builder, which would create a new, empty default catalog in the shared list.
    let mut state = state.clone();
    *state.config_mut() = config;
    state
}

/// The physical form of an optimised plan (a prepare or finish plan), for a state from [`micro_batch_state`]. It may be
/// executed repeatedly, each time by [`run`] or after `reset_plan_states`.
///
/// # Errors
/// When DataFusion cannot plan it.
pub async fn physical(
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let plan = state.query_planner().create_physical_plan(plan, state).await;
    plan.and_then(filter::batch_by_batch).map_err(from_datafusion)
}

/// Runs a physical plan once: resets it, executes every output partition in order on this task, and collects the
/// batches that are not empty. Its leaves read from the [`LeafInputs`] of `context`, which are cleared at the end.
///
/// # Errors
/// When an expression fails on the data.
pub async fn run(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<Vec<RecordBatch>, Error> {
    let rows = stream(plan, context)?.try_filter(|batch| ready(batch.num_rows() > 0));
    let batches = rows.try_collect().await?;
    if let Some(inputs) = context.session_config().get_extension::<LeafInputs>() {
        inputs.clear();
    }
    Ok(batches)
}

/// As [`run`], batch by batch. The leaves' inputs are not cleared.
///
/// # Errors
/// When the plan cannot be executed.
pub fn stream(
    plan: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<BoxStream<'static, Result<RecordBatch, Error>>, Error> {
    // Without a reset, joins and sorts keep their old rows, and metrics grow for ever.
    let plan = reset_plan_states(Arc::clone(plan)).map_err(from_datafusion)?;
    let context = Arc::clone(context);
    let partitions = 0..plan.output_partitioning().partition_count();
    let rows = partitions.map(move |p| plan.execute(p, Arc::clone(&context)));
    Ok(futures::stream::iter(rows).try_flatten().map_err(from_datafusion).boxed())
}
