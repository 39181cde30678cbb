//! Rows that an operator repeats: whether there is room for what it makes of them.
//!
//! A join may repeat one row in all rows of a batch, `unnest` once per element, a window function likewise, and
//! a long constant stands in every row. Such a batch is made at once: nobody is asked in between. So the rows
//! that go in are measured first.
//!
//! Where smaller batches would fit, [`Room`] says so, and the plan may be run again with those.
//!
//! Invariant: the rows go through as they are; what is refused would not have fitted.

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

use crate::session::passing::{Gate, Look, PassingExec};

/// Constants that are shorter are not looked at.
const LONG_BYTES: usize = 1 << 10;

/// A batch of rows that are repeated takes at most this part of what the statement may hold.
const BATCH_PART: usize = 8;

/// What batches there would be room for, where those of a plan were too large.
#[derive(Debug)]
pub(super) struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl Room {
    /// There is room for batches of so many rows.
    fn is_for(&self, rows: usize) {
        self.0.fetch_min(rows, Ordering::Relaxed);
    }

    /// The rows of a batch with which a plan that was refused with batches of `rows` may fit.
    pub(super) fn smaller(&self, rows: usize) -> Option<usize> {
        let fits = self.0.load(Ordering::Relaxed);
        (0 < fits && fits < rows).then_some(fits)
    }
}

/// What becomes of the rows.
#[derive(Debug, Clone)]
enum Repeated {
    /// A batch may hold one of them in all its rows.
    Rows,
    /// Each is there once per element of its lists, which are in these columns.
    Elements(Vec<usize>),
    /// Constants of so many bytes are put into each.
    Constants(usize),
}

/// Lets rows pass if there is room for what is made of them.
#[derive(Debug)]
struct Measured {
    repeated: Repeated,
    room: Arc<Room>,
}

/// The same plan, which measures what goes into the operators that repeat it. Rows that might all be repeated
/// are only refused where `strict`: where somebody else set the limit.
///
/// # Errors
/// When the plan cannot be changed (our bug).
pub(super) fn with_room(
    plan: Arc<dyn ExecutionPlan>,
    strict: bool,
) -> windrow_core::Result<(Arc<dyn ExecutionPlan>, Arc<Room>)> {
    let room = Arc::new(Room::default());
    let roomy = plan.transform_up(|node| {
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
        let roomy = |input: &Arc<dyn ExecutionPlan>| {
            needed.iter().fold(Arc::clone(input), |input, repeated| {
                let (repeated, room) = (repeated.clone(), Arc::clone(&room));
                Arc::new(PassingExec::new(input, Measured { repeated, room }))
                    as Arc<dyn ExecutionPlan>
            })
        };
        let inputs = node.children().into_iter().map(roomy).collect();
        replace_children_if_necessary(node, inputs).map(Transformed::yes)
    });
    roomy.map(|roomy| (roomy.data, room)).map_err(from_datafusion)
}

/// Bytes of the long constants that an operator puts into each row. Those that a function takes are its matter,
/// and a filter compares with them where they are.
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
    /// Bytes that a batch of these rows may become.
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
                    // The operator cuts many short lists; a long one is made at once.
                    each = each.max(longest(list).max(batch_rows));
                    bytes = bytes.saturating_add(widest(list));
                }
                bytes.saturating_add(each.saturating_mul(beside))
            }
        }
    }

    fn check(&self, rows: &RecordBatch, batch_rows: usize, room: &Room) -> Result<()> {
        let bytes = self.bytes(rows, batch_rows);
        budget::check(bytes).map_err(|stop| {
            if let (Self::Rows, budget::Stop::Over { bytes_max, .. }) = (self, stop) {
                let each = (bytes / batch_rows.max(1)).max(1);
                room.is_for(bytes_max / BATCH_PART / each);
            }
            let error = match stop {
                budget::Stop::Ended => Error::from(stop),
                budget::Stop::Over { bytes_max, .. } => Error::new(
                    ErrorKind::Limit,
                    format!(
                        "rows are repeated that are so wide that one batch of them takes up to \
                         {bytes} bytes, more than the statement may hold (--query-memory, \
                         {bytes_max} bytes)"
                    ),
                )
                .with_hint("Leave out the long columns, or cut them (left, array_slice)."),
            };
            DataFusionError::External(Box::new(error))
        })
    }
}

/// Bytes of the largest value, as it is copied.
fn widest(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8 => longest_of(column.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => longest_of(column.as_string::<i64>().value_offsets()),
        DataType::Binary => longest_of(column.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => longest_of(column.as_binary::<i64>().value_offsets()),
        // Copies share what they show.
        DataType::Utf8View | DataType::BinaryView => 16,
        DataType::List(_) | DataType::LargeList(_) | DataType::Map(_, _) => {
            longest(column).saturating_mul(each_element(column))
        }
        DataType::Struct(_) => {
            let columns = column.as_struct().columns();
            columns.iter().map(widest).fold(0, usize::saturating_add)
        }
        other => other.primitive_width().unwrap_or_else(|| {
            // What is left is rare; a row of it is not more than all of it.
            column.get_array_memory_size()
        }),
    }
}

/// Elements of the longest list.
fn longest(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::List(_) => longest_of(column.as_list::<i32>().value_offsets()),
        DataType::LargeList(_) => longest_of(column.as_list::<i64>().value_offsets()),
        DataType::Map(_, _) => longest_of(column.as_map().value_offsets()),
        DataType::FixedSizeList(_, length) => usize::try_from(*length).unwrap_or_default(),
        _ => 1,
    }
}

/// Bytes of the largest element of a list.
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

impl Gate for Measured {
    fn name(&self) -> &'static str {
        "RoomExec"
    }

    fn begin(&self, context: &TaskContext) -> Look {
        let batch_rows = context.session_config().batch_size();
        let (repeated, room) = (self.repeated.clone(), Arc::clone(&self.room));
        Box::new(move |batch| repeated.check(batch, batch_rows, &room))
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
    fn rows_are_measured_by_what_is_made_of_them() {
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
