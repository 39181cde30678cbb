//! The nodes of a circuit: what was planned, and what runs.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use windrow_core::{Error, Result};

use super::delta::Delta;
use super::grouped::{Growing, Shrinking};
use super::join::{Join, PairSpec, Returned};
use super::recomputed::{Recomputed, RecomputedSpec};
use super::top::{Top, TopSpec};
use crate::changing::ChangingSpec;
use crate::failure;

/// What a node does with the changes of the nodes that it reads.
#[derive(Debug, Clone)]
pub enum Step {
    /// Takes the rows of an input of the operator.
    Input(usize),
    /// Passes the rows that satisfy a condition.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes the columns.
    Project(Vec<Arc<dyn PhysicalExpr>>),
    /// Passes the rows of all nodes that it reads.
    Union,
    /// Groups rows.
    Aggregate(ChangingSpec),
    /// Joins two nodes.
    Join(Box<PairSpec>),
    /// Passes the first rows in an order.
    Top(TopSpec),
    /// Computes functions over all rows of each partition.
    Recompute(RecomputedSpec),
}

/// A node of a circuit.
#[derive(Debug, Clone)]
pub struct CircuitNode {
    /// What it does.
    pub step: Step,
    /// The numbers of the nodes that it reads.
    pub inputs: Vec<usize>,
    /// The columns of its rows.
    pub schema: SchemaRef,
    /// Whether its rows are append-only: none is ever removed.
    pub grows: bool,
    /// What it does, in words, for EXPLAIN.
    pub text: String,
}

impl fmt::Display for CircuitNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        for (at, input) in self.inputs.iter().enumerate() {
            write!(f, "{}{input}", if at == 0 { " ◄ " } else { ", " })?;
        }
        f.write_str(if self.grows { "; append-only" } else { "; updating" })
    }
}

/// A node that runs.
#[derive(Debug)]
pub(super) enum Node {
    Input(usize),
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>),
    Union,
    Growing(Box<Growing>),
    Shrinking(Box<Shrinking>),
    Join(Box<Join>),
    Top(Box<Top>),
    Recomputed(Box<Recomputed>),
}

impl Node {
    /// Builds a node; `inputs`: the nodes that it reads.
    ///
    /// # Errors
    /// When rows cannot be compared.
    pub(super) fn new(planned: &CircuitNode, inputs: &[&CircuitNode]) -> Result<Self> {
        let missing = || Error::internal("a node of a circuit without its inputs");
        Ok(match &planned.step {
            Step::Input(number) => Self::Input(*number),
            Step::Filter(condition) => Self::Filter(Arc::clone(condition)),
            Step::Project(exprs) => Self::Project(exprs.clone()),
            Step::Union => Self::Union,
            Step::Aggregate(spec) => match inputs.first().ok_or_else(missing)?.grows {
                true => Self::Growing(Box::new(Growing::new(spec))),
                false => Self::Shrinking(Box::new(Shrinking::new(spec)?)),
            },
            Step::Join(spec) => {
                let [left, right] = inputs else { return Err(missing()) };
                let schemas = [&left.schema, &right.schema];
                Self::Join(Box::new(Join::new(spec, schemas, &planned.schema)?))
            }
            Step::Top(spec) => {
                let input = inputs.first().ok_or_else(missing)?;
                Self::Top(Box::new(Top::new(spec, &input.schema)?))
            }
            Step::Recompute(spec) => {
                let input = inputs.first().ok_or_else(missing)?;
                Self::Recomputed(Box::new(Recomputed::new(spec, &input.schema, &planned.schema)?))
            }
        })
    }

    /// Takes the changes of the nodes that it reads, with their columns; returns the changes of its own rows.
    ///
    /// # Errors
    /// When an expression or an aggregate fails.
    pub(super) fn run(
        &mut self,
        planned: &CircuitNode,
        inputs: Vec<(Delta, SchemaRef)>,
    ) -> Result<Delta> {
        let missing = || Error::internal("a node of a circuit without its inputs");
        if matches!(self, Self::Union) {
            let parts = inputs.into_iter().map(|(delta, _)| delta).collect();
            return Delta::together(&planned.schema, parts);
        }
        let mut inputs = inputs.into_iter();
        let (delta, schema) = inputs.next().ok_or_else(missing)?;
        match self {
            Self::Input(_) | Self::Union => Ok(delta),
            Self::Filter(condition) => filtered(condition, delta, &schema),
            Self::Project(exprs) => projected(exprs, delta, &schema),
            Self::Growing(aggregate) => aggregate.run(&delta),
            Self::Shrinking(aggregate) => aggregate.run(&delta),
            Self::Join(join) => join.run(delta, inputs.next().ok_or_else(missing)?.0),
            Self::Top(top) => top.run(&delta),
            Self::Recomputed(functions) => functions.run(&delta),
        }
    }

    /// The number of rows or groups that it keeps.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Growing(aggregate) => aggregate.rows(),
            Self::Shrinking(aggregate) => aggregate.rows(),
            Self::Join(join) => join.rows(),
            Self::Top(top) => top.rows(),
            Self::Recomputed(functions) => functions.rows(),
            Self::Input(_) | Self::Filter(_) | Self::Project(_) | Self::Union => 0,
        }
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Growing(aggregate) => aggregate.size_bytes(),
            Self::Shrinking(aggregate) => aggregate.size_bytes(),
            Self::Join(join) => join.size_bytes(),
            Self::Top(top) => top.size_bytes(),
            Self::Recomputed(functions) => functions.size_bytes(),
            Self::Input(_) | Self::Filter(_) | Self::Project(_) | Self::Union => 0,
        }
    }
}

fn batch(delta: &Delta, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(delta.rows()));
    let (schema, columns) = (Arc::clone(schema), delta.columns.clone());
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn column(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    let value = expr.evaluate(batch).map_err(failure::engine)?;
    value.into_array(batch.num_rows()).map_err(failure::engine)
}

fn filtered(condition: &Arc<dyn PhysicalExpr>, delta: Delta, schema: &SchemaRef) -> Result<Delta> {
    let kept = column(condition, &batch(&delta, schema)?)?;
    let kept = kept.as_boolean_opt();
    let kept = kept.ok_or_else(|| Error::internal("a filter is no condition"))?;
    if kept.null_count() == 0 && kept.true_count() == delta.rows() {
        return Ok(delta);
    }
    let rows = (0_u32..).zip(kept).filter(|(_, kept)| *kept == Some(true));
    delta.take(&rows.map(|(row, _)| row).collect::<Vec<_>>())
}

fn projected(exprs: &[Arc<dyn PhysicalExpr>], delta: Delta, schema: &SchemaRef) -> Result<Delta> {
    let batch = batch(&delta, schema)?;
    let columns = exprs.iter().map(|expr| column(expr, &batch)).collect::<Result<_>>()?;
    Ok(Delta { columns, weights: delta.weights })
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: usize| if side == 0 { "left" } else { "right" };
        match self {
            Self::Pairs { unmatched: [false, false] } => f.write_str("inner"),
            Self::Pairs { unmatched: [true, false] } => f.write_str("left"),
            Self::Pairs { unmatched: [false, true] } => f.write_str("right"),
            Self::Pairs { unmatched: [true, true] } => f.write_str("full"),
            Self::Matching(of) => write!(f, "{} semi", side(*of)),
            Self::Unmatched(of) => write!(f, "{} anti", side(*of)),
            Self::Marked(of) => write!(f, "{} mark", side(*of)),
            Self::NotIn => f.write_str("NOT IN"),
        }
    }
}
