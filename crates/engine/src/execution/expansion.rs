//! Checks the memory of operators that repeat values: whether the batches that they produce fit into the memory of the
//! statement.
//!
//! A join can repeat one row in all rows of a batch, `unnest` repeats it once per element, so does a window function, and a
//! long constant is in every row. Such a batch is allocated at once, without asking for memory. So the rows that go into
//! the operator are measured first.
//!
//! Where smaller batches would fit, [`BatchFit`] tells, and the plan can be retried with those.
//!
//! Invariant: rows pass through unchanged; what is refused would not have fitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::unnest::UnnestExec;
use windrow_core::{Error, ErrorKind, budget};
use windrow_sql::diagnostics::from_datafusion;

use crate::execution::pass_through::{Inspect, InspectBatch, PassThroughExec};

/// Shorter constants are ignored.
const LONG_BYTES: usize = 1 << 10;

/// A batch of repeated rows takes at most the memory of the statement divided by this.
const BATCH_PART: usize = 8;

/// The size of batches that would fit, where those of a plan did not.
#[derive(Debug)]
pub(super) struct BatchFit(AtomicUsize);

impl Default for BatchFit {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl BatchFit {
    /// Batches of up to `rows` rows would fit.
    fn limit(&self, rows: usize) {
        self.0.fetch_min(rows, Ordering::Relaxed);
    }

    /// Returns the rows per batch with which a plan may fit that did not with `rows`; `None`: it does not fit.
    pub(super) fn smaller(&self, rows: usize) -> Option<usize> {
        let fits = self.0.load(Ordering::Relaxed);
        (0 < fits && fits < rows).then_some(fits)
    }
}

/// How an operator repeats its input.
#[derive(Debug, Clone)]
enum Repeated {
    /// A batch may repeat one row in all its rows.
    Rows,
    /// Each row is repeated once per element of its lists, which are in these columns.
    Elements(Vec<usize>),
    /// Constants that are added to each row: their size in bytes.
    Constants(usize),
}

/// Fails when what an operator makes of its input would not fit.
#[derive(Debug)]
struct ExpansionCheck {
    repeated: Repeated,
    fit: Arc<BatchFit>,
}

/// Adds checks to a plan in front of the operators that repeat their input. `strict`: also where it is only possible that
/// all rows are repeated, as on a server, whose limit protects others.
///
/// # Errors
/// When the plan cannot be rewritten (a bug).
pub(super) fn check_expansion(
    plan: Arc<dyn ExecutionPlan>,
    strict: bool,
) -> windrow_core::Result<(Arc<dyn ExecutionPlan>, Arc<BatchFit>)> {
    let fit = Arc::new(BatchFit::default());
    let checked = plan.transform_up(|node| {
        let mut needed = vec![];
        if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
            let lists = unnest.list_column_indices().iter().map(|list| list.index_in_input_schema);
            needed.push(Repeated::Elements(lists.collect()));
        } else if strict && ["Join", "Window"].iter().any(|kind| node.name().contains(kind)) {
            needed.push(Repeated::Rows);
        }
        let constants = constants(node.as_ref())?;
        if constants > 0 && !node.children().is_empty() {
            needed.push(Repeated::Constants(constants));
        }
        if needed.is_empty() {
            return Ok(Transformed::no(node));
        }
        let check = |input: &Arc<dyn ExecutionPlan>| {
            needed.iter().fold(Arc::clone(input), |input, repeated| {
                let (repeated, fit) = (repeated.clone(), Arc::clone(&fit));
                Arc::new(PassThroughExec::new(input, ExpansionCheck { repeated, fit }))
                    as Arc<dyn ExecutionPlan>
            })
        };
        let inputs = node.children().into_iter().map(check).collect();
        replace_children_if_necessary(node, inputs).map(Transformed::yes)
    });
    checked.map(|checked| (checked.data, fit)).map_err(from_datafusion)
}

/// Returns the bytes of the long constants that an operator adds to each row. Arguments of functions are not copied into
/// rows, and a filter compares with its constants in place.
fn constants(node: &dyn ExecutionPlan) -> Result<usize> {
    let mut bytes = 0_usize;
    if node.downcast_ref::<FilterExec>().is_some() {
        return Ok(0);
    }
    node.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            if part.downcast_ref::<ScalarFunctionExpr>().is_some() {
                return Ok(TreeNodeRecursion::Jump);
            }
            if let Some(constant) = part.downcast_ref::<Literal>() {
                let size = constant.value().size();
                bytes = bytes.saturating_add(if size < LONG_BYTES { 0 } else { size });
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(bytes)
}

impl Repeated {
    /// Returns the bytes that a batch may expand to.
    fn bytes(&self, rows: &RecordBatch, batch_rows: usize) -> usize {
        match self {
            Self::Rows => {
                let width = rows.columns().iter().map(widest).fold(0, usize::saturating_add);
                width.saturating_mul(batch_rows)
            }
            Self::Constants(bytes) => bytes.saturating_mul(rows.num_rows()),
            Self::Elements(lists) => {
                let columns = rows.columns().iter().enumerate();
                let beside = columns.filter(|(at, _)| !lists.contains(at)).map(|(_, c)| widest(c));
                let beside = beside.fold(0, usize::saturating_add);
                let lists = lists.iter().filter_map(|at| rows.columns().get(*at));
                let (mut each, mut bytes) = (0_usize, 0_usize);
                for list in lists {
                    // The operator splits many short lists into batches; a long one becomes one batch.
                    each = each.max(longest(list).max(batch_rows));
                    bytes = bytes.saturating_add(widest(list));
                }
                bytes.saturating_add(each.saturating_mul(beside))
            }
        }
    }

    fn check(&self, rows: &RecordBatch, batch_rows: usize, fit: &BatchFit) -> Result<()> {
        let bytes = self.bytes(rows, batch_rows);
        budget::check(bytes).map_err(|stop| {
            if let (Self::Rows, budget::Stop::Over { bytes_max, .. }) = (self, stop) {
                let each = (bytes / batch_rows.max(1)).max(1);
                fit.limit(bytes_max / BATCH_PART / each);
            }
            let error = match stop {
                budget::Stop::Ended => Error::from(stop),
                budget::Stop::Over { bytes_max, .. } => Error::new(
                    ErrorKind::Limit,
                    format!(
                        "rows that are repeated are so wide that one batch takes up to {bytes} bytes, \
                         more than the statement may hold (--query-memory, {bytes_max} bytes)"
                    ),
                )
                .with_hint("Omit the long columns, or shorten them (left, array_slice)."),
            };
            DataFusionError::External(Box::new(error))
        })
    }
}

/// Returns the bytes of the largest value of a column when it is copied.
fn widest(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8 => longest_of(column.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => longest_of(column.as_string::<i64>().value_offsets()),
        DataType::Binary => longest_of(column.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => longest_of(column.as_binary::<i64>().value_offsets()),
        // Copies share the data.
        DataType::Utf8View | DataType::BinaryView => 16,
        DataType::List(_) | DataType::LargeList(_) | DataType::Map(_, _) => {
            longest(column).saturating_mul(each_element(column))
        }
        DataType::Struct(_) => {
            let columns = column.as_struct().columns();
            columns.iter().map(widest).fold(0, usize::saturating_add)
        }
        other => other.primitive_width().unwrap_or_else(|| {
            // Other types are rare; one value is at most the whole array.
            column.get_array_memory_size()
        }),
    }
}

/// Returns the number of elements of the longest list.
fn longest(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::List(_) => longest_of(column.as_list::<i32>().value_offsets()),
        DataType::LargeList(_) => longest_of(column.as_list::<i64>().value_offsets()),
        DataType::Map(_, _) => longest_of(column.as_map().value_offsets()),
        DataType::FixedSizeList(_, length) => usize::try_from(*length).unwrap_or_default(),
        _ => 1,
    }
}

/// Returns the bytes of the largest element of a list.
fn each_element(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::List(_) => widest(column.as_list::<i32>().values()),
        DataType::LargeList(_) => widest(column.as_list::<i64>().values()),
        DataType::Map(_, _) => {
            let entries: ArrayRef = Arc::new(column.as_map().entries().clone());
            widest(&entries)
        }
        _ => 1,
    }
}

fn longest_of<O: OffsetSizeTrait>(offsets: &[O]) -> usize {
    let lengths = offsets.windows(2).map(|pair| match pair {
        [from, to] => to.as_usize() - from.as_usize(),
        _ => 0,
    });
    lengths.max().unwrap_or_default()
}

impl Inspect for ExpansionCheck {
    fn name(&self) -> &'static str {
        "ExpansionCheckExec"
    }

    fn begin(&self, context: &TaskContext) -> InspectBatch {
        let batch_rows = context.session_config().batch_size();
        let (repeated, fit) = (self.repeated.clone(), Arc::clone(&self.fit));
        Box::new(move |batch| repeated.check(batch, batch_rows, &fit))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn rows_are_measured_by_what_they_expand_to() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("four"), None, Some("a")]));
        let lists = [Some(vec![Some(1), Some(2), Some(3)]), None, Some(vec![])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let rows = batch(vec![("n", numbers), ("s", texts), ("l", lists)]);
        assert_eq!(Repeated::Rows.bytes(&rows, 100), (8 + 4 + 3 * 8) * 100);
        assert_eq!(Repeated::Constants(1_000).bytes(&rows, 100), 3_000);
        // The others once per element, at least for a batch.
        assert_eq!(Repeated::Elements(vec![2]).bytes(&rows, 2), 3 * 8 + 3 * (8 + 4));
        assert_eq!(Repeated::Elements(vec![2]).bytes(&rows, 10), 3 * 8 + 10 * (8 + 4));
    }
}
