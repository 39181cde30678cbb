//! A continuous plan: the planner's result, which the runtime executes.
//!
//! ```text
//! stream ─► leaf ─► prepare plan ─► operator ─► leaf ─► finish plan ─┬─► output
//!                   (RowsFlow)      (OperatorNode)      (Stage)      └─► leaf ─► prepare plan ─► operator ─► …
//! ```
//! A plan is a tree, of any depth: stateless plans alternate with stateful operators. An operator has one
//! input or several, each with a prepare plan of its own; the leaf of a prepare plan reads a stream or the finished rows
//! of another stage.
//!
//! Invariants: every leaf of the whole plan has its own [`LeafId`]; a prepare plan treats rows one by one (its result
//! over a batch is the union of its results over the rows); a finish plan runs once per *end* of finished rows, over
//! the rows of all its operators for that end.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use windrow_core::{Error, Predicate, Result};
use windrow_operators::{EarlyResults, StatefulOperator};

use super::pace::Pace;
use super::relation::{EventTime, StreamRelation};
use crate::diagnostics::from_datafusion;
use crate::leaf::{LeafId, LeafTable};

/// A query that runs as long as its streams do.
#[derive(Debug, Clone)]
pub struct ContinuousPlan {
    /// What computes the output rows.
    pub root: Flow,
    /// The columns of the output.
    pub schema: SchemaRef,
    /// The columns of the output that carry event time.
    pub event_times: Vec<EventTime>,
    /// How long after its end a window still accepts rows, in nanoseconds (`ALLOW LATENESS`).
    pub lateness_nanos: i128,
    /// When an updating result is emitted.
    pub pace: Pace,
}

impl ContinuousPlan {
    /// Returns the plan with other stateless plans: `map` is called for each.
    ///
    /// # Errors
    /// Those of `map`.
    pub fn map_plans(
        mut self,
        map: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>,
    ) -> Result<Self> {
        match &mut self.root {
            Flow::Rows(flow) => flow.map_plans(map)?,
            Flow::Stage(stage) => stage.map_plans(map)?,
        }
        Ok(self)
    }

    /// How long a row of a stream may affect results, in ticks: the sum over the operators that it passes. `i64::MAX`
    /// when there is no limit.
    pub fn reach_ticks(&self) -> i64 {
        match &self.root {
            Flow::Rows(flow) => flow.reach_ticks(),
            Flow::Stage(stage) => stage.reach_ticks(),
        }
    }

    /// The kind of changelog that its rows are.
    pub fn changes(&self) -> &RowChanges {
        match &self.root {
            Flow::Stage(stage) => stage.changes.as_ref().unwrap_or(&RowChanges::AppendOnly),
            Flow::Rows(_) => &RowChanges::AppendOnly,
        }
    }

    /// Whether its result is that of windows, which are also emitted while they are open.
    pub fn has_early_results(&self) -> bool {
        match &self.root {
            Flow::Stage(stage) => stage.early_results().is_some(),
            Flow::Rows(_) => false,
        }
    }

    /// Whether it can resume from a checkpoint: all its operators can.
    pub fn is_resumable(&self) -> bool {
        match &self.root {
            Flow::Stage(stage) => stage.is_resumable(),
            Flow::Rows(flow) => flow.is_resumable(),
        }
    }

    /// Whether it is an updating result, whose rows are emitted without waiting for the watermark.
    pub fn comes_at_once(&self) -> bool {
        matches!(&self.root, Flow::Stage(stage) if stage.changes.is_some())
    }

    /// Refuses an updating result for a consumer (`what`, such as `a sink`) that needs append-only rows.
    ///
    /// # Errors
    /// When the result is updating.
    pub fn check_append_only(&self, what: &str) -> Result<()> {
        match self.changes() {
            RowChanges::AppendOnly => Ok(()),
            RowChanges::Upsert { .. } | RowChanges::Retracting => {
                let (result, hint) = match self.has_early_results() {
                    true => (
                        "windows with early results have",
                        "Use EMIT FINAL, whose results do not change.",
                    ),
                    false => (
                        "the query has",
                        "Use windows, and joins with a bound in time, whose results are final: FROM TUMBLE(…) GROUP BY window_start, window_end, …",
                    ),
                };
                let e = format!("{what} needs append-only rows, and {result} an updating result");
                Err(Error::sql(e).with_hint(hint))
            }
        }
    }
}

/// The kind of changelog that the rows of a result are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChanges {
    /// Rows never change.
    AppendOnly,
    /// A row replaces the one with the same key. The rows carry a [`Change`](windrow_core::Change).
    Upsert {
        /// The key columns, numbered without the change column. Empty: there is one row.
        key: Vec<usize>,
    },
    /// Rows are removed by value. The rows carry a [`Change`](windrow_core::Change).
    Retracting,
}

/// How output rows are computed.
#[derive(Debug, Clone)]
pub enum Flow {
    /// Row by row: each micro-batch returns its output at once.
    Rows(RowsFlow),
    /// By stateful operators, as the watermark passes.
    Stage(Box<Stage>),
}

/// A stateless plan over micro-batches.
///
/// With several leaves, a micro-batch of one leaf passes while the others are empty.
#[derive(Debug, Clone)]
pub struct RowsFlow {
    /// Optimised; its leaves are [`LeafTable`] scans and tables that do not stream.
    pub plan: LogicalPlan,
    /// The leaves that read streams or stages.
    pub leaves: Vec<Leaf>,
}

impl RowsFlow {
    fn map_plans(&mut self, map: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>) -> Result<()> {
        self.plan = map(std::mem::take(&mut self.plan))?;
        for leaf in &mut self.leaves {
            if let LeafSource::Stage(stage) = &mut leaf.from {
                stage.map_plans(map)?;
            }
        }
        Ok(())
    }

    fn is_resumable(&self) -> bool {
        self.leaves.iter().all(|leaf| match &leaf.from {
            LeafSource::Stream { .. } => true,
            LeafSource::Stage(stage) => stage.is_resumable(),
        })
    }

    fn reach_ticks(&self) -> i64 {
        let below = self.leaves.iter().filter_map(|leaf| match &leaf.from {
            LeafSource::Stream { .. } => None,
            LeafSource::Stage(stage) => Some(stage.reach_ticks()),
        });
        below.max().unwrap_or(0)
    }

    /// Whether each input row returns at most one output row, in the order of the input.
    ///
    /// # Errors
    /// Never in practice: the plan is only looked at.
    pub fn is_row_preserving(&self) -> Result<bool> {
        let mut preserving = true;
        let mut leaves = Vec::new();
        self.plan
            .apply(|node| {
                preserving &= matches!(
                    node,
                    LogicalPlan::Projection(_)
                        | LogicalPlan::Filter(_)
                        | LogicalPlan::SubqueryAlias(_)
                        | LogicalPlan::TableScan(_)
                        | LogicalPlan::Union(_)
                        | LogicalPlan::EmptyRelation(_)
                );
                if let LogicalPlan::TableScan(scan) = node
                    && let Ok(provider) = source_as_provider(&scan.source)
                    && let Some(leaf) = provider.downcast_ref::<LeafTable>()
                {
                    leaves.push(leaf.id());
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .map_err(from_datafusion)?;
        // A union that reads the same leaf twice duplicates its rows.
        let count = leaves.len();
        leaves.sort_unstable();
        leaves.dedup();
        Ok(preserving && leaves.len() == count)
    }

    /// Whether the same rows, however they are batched, always return the same rows in the same order.
    ///
    /// # Errors
    /// Never in practice: the plan is only looked at.
    pub fn is_repeatable(&self) -> Result<bool> {
        let mut immutable = true;
        self.plan
            .apply(|node| {
                node.apply_expressions(|expr| {
                    immutable &= !expr.exists(|e| {
                        Ok(matches!(e, Expr::ScalarFunction(call)
                            if call.func.signature().volatility != Volatility::Immutable))
                    })?;
                    Ok(TreeNodeRecursion::Continue)
                })
            })
            .map_err(from_datafusion)?;
        Ok(immutable && self.is_row_preserving()?)
    }
}

/// Where rows enter a plan.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Its id in [`LeafInputs`](crate::leaf::LeafInputs).
    pub id: LeafId,
    /// The columns that its batches must have.
    pub schema: SchemaRef,
    /// The source of the batches.
    pub from: LeafSource,
}

impl Leaf {
    /// Whether its rows are those of a stream or a view.
    pub fn is_stream(&self) -> bool {
        matches!(self.from, LeafSource::Stream { .. })
    }
}

/// The source of a leaf's rows.
#[derive(Debug, Clone)]
pub enum LeafSource {
    /// A stream or a view.
    Stream {
        /// The stream or view.
        relation: Arc<StreamRelation>,
        /// The columns that the leaf reads: indexes into the relation's schema, ascending; they
        /// include the event-time columns that windows use.
        projection: Vec<usize>,
        /// Conditions that every row that affects the result satisfies. The plan checks them again, so a source may
        /// ignore them.
        predicates: Vec<Predicate>,
    },
    /// The finished rows of a stage: an operator over operators. The watermark of the leaf is the
    /// stage's.
    Stage(Box<Stage>),
}

/// Stateful operators, and the plan for their finished rows.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The operators. All have the same unit of event time.
    pub operators: Vec<OperatorNode>,
    /// The plan that runs per end; its leaves are the operators' and tables that do not stream.
    pub finish: LogicalPlan,
    /// Whether `finish` treats rows one by one, so that it may run over many ends at once.
    pub row_wise: bool,
    /// Whether it also returns rows in the order in which it reads them, because it only filters and projects.
    pub keeps_order: bool,
    /// The kind of changelog of an updating result; `None`: its rows are final, and are emitted when the watermark has
    /// passed.
    pub changes: Option<RowChanges>,
}

impl Stage {
    /// The early results of its windows, if they are emitted while they are open.
    pub fn early_results(&self) -> Option<EarlyResults> {
        self.operators.iter().find_map(|node| node.operator.early_results())
    }

    fn map_plans(&mut self, map: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>) -> Result<()> {
        self.finish = map(std::mem::take(&mut self.finish))?;
        let mut inputs = self.operators.iter_mut().flat_map(|node| &mut node.inputs);
        inputs.try_for_each(|input| input.flow.map_plans(map))
    }

    fn is_resumable(&self) -> bool {
        let inputs = |node: &OperatorNode| node.inputs.iter().all(|i| i.flow.is_resumable());
        self.operators.iter().all(|node| node.operator.is_resumable() && inputs(node))
    }

    fn reach_ticks(&self) -> i64 {
        let operators = self.operators.iter().map(|node| {
            let below = node.inputs.iter().map(|input| input.flow.reach_ticks()).max();
            node.operator.reach().saturating_add(below.unwrap_or(0))
        });
        operators.max().unwrap_or(0)
    }
}

/// One stateful operator of a stage.
#[derive(Debug, Clone)]
pub struct OperatorNode {
    /// Where its finished rows enter the finish plan.
    pub leaf: LeafId,
    /// The operator.
    pub operator: Arc<dyn StatefulOperator>,
    /// What feeds it: one for each of `operator.inputs()`.
    pub inputs: Vec<OperatorInput>,
}

/// One input of an operator.
#[derive(Debug, Clone)]
pub struct OperatorInput {
    /// The plan that prepares its rows: it returns exactly the operator's columns of this input.
    pub flow: RowsFlow,
    /// How far the time column may lie behind the watermark of `flow`'s leaves; the operator's watermark is theirs less
    /// this. 0 except for windows over another window's start; sessions add one tick, for a row that is exactly one gap
    /// after the last one and may still come.
    pub lag_ticks: i64,
    /// How long after its end a window still accepts rows. 0 for finished rows of another stage.
    pub lateness_ticks: i64,
}
