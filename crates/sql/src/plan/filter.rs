//! The filter of plans that run once per micro-batch.
//!
//! DataFusion's filter collects the rows that pass, from many batches, into batches of the session's size, and reserves
//! their memory at once. In a plan that runs once per micro-batch there is nothing to collect: rows would be copied
//! once more, and a batch of a single row would hold the memory of thousands for as long as a stream keeps it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

/// Replaces the filters of a plan.
///
/// # Errors
/// When a node refuses its new inputs (a bug).
pub(super) fn batch_by_batch(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced = plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
        // With a limit, the rows of several batches belong together.
        Some(filter) if filter.fetch().is_none() => {
            Ok(Transformed::yes(Arc::new(FilterBatches::of(filter)) as _))
        }
        _ => Ok(Transformed::no(node)),
    });
    Ok(replaced?.data)
}

/// Returns the rows of each batch that satisfy a condition, as a batch of their own.
#[derive(Debug)]
struct FilterBatches {
    condition: Arc<dyn PhysicalExpr>,
    /// The columns that are returned; `None`: all.
    projection: Option<Vec<usize>>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl FilterBatches {
    fn of(filter: &FilterExec) -> Self {
        Self {
            condition: Arc::clone(filter.predicate()),
            projection: filter.projection().as_ref().map(|columns| columns.to_vec()),
            input: Arc::clone(filter.input()),
            properties: Arc::clone(filter.properties()),
        }
    }
}

/// Returns the rows of a batch that satisfy the condition.
fn passing(
    batch: &RecordBatch,
    condition: &dyn PhysicalExpr,
    projection: Option<&[usize]>,
) -> Result<RecordBatch> {
    let passes = condition.evaluate(batch)?.into_array(batch.num_rows())?;
    let passes = as_boolean_array(&passes)?;
    Ok(match projection {
        Some(columns) => filter_record_batch(&batch.project(columns)?, passes)?,
        None => filter_record_batch(batch, passes)?,
    })
}

impl DisplayAs for FilterBatches {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterBatches: {}", self.condition)
    }
}

impl ExecutionPlan for FilterBatches {
    fn name(&self) -> &'static str {
        "FilterBatches"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        f(&self.condition)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else {
            return internal_err!("a filter has one input");
        };
        let (condition, projection) = (Arc::clone(&self.condition), self.projection.clone());
        let properties = Arc::clone(&self.properties);
        Ok(Arc::new(Self { condition, projection, input, properties }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (condition, projection) = (Arc::clone(&self.condition), self.projection.clone());
        let rows = self
            .input
            .execute(partition, context)?
            .map(move |batch| passing(&batch?, condition.as_ref(), projection.as_deref()));
        let rows = rows.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
