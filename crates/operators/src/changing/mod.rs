//! Aggregates over all rows so far, without windows: an updating result.
//!
//! ```text
//! rows ─► Partial (one per worker) ─flush─► groups with states ─► Totals ─close─► changes of these groups
//! ```
//! A worker aggregates the rows since the last flush. The coordinator merges that into the states of the groups, which
//! are columns ([`states`]), and returns each group whose values differ from before ([`emission`]). [`normalised`] corrects
//! changes after filters and projections; [`Answer`] holds the current rows, folded from changes.
//!
//! Invariants: folding all changes so far produces the result over all rows flushed so far; the two halves of an update are
//! adjacent; no row is ever late, and nothing depends on the watermark.

mod answer;
pub(crate) mod emission;
mod equal;
mod mark;
mod normal;
pub(crate) mod states;
#[cfg(test)]
mod tests;
mod totals;
mod worker;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use windrow_core::{Result, Watermark};

pub use self::answer::Answer;
pub(crate) use self::emission::{code, decode};
pub(crate) use self::equal::same_rows;
pub(crate) use self::mark::Mark;
pub use self::mark::{IS_FINAL, REVISION, early_fields};
pub use self::normal::{normalised, normalised_windows};
pub(crate) use self::totals::Totals;
use self::worker::Partial;
pub(crate) use self::worker::segment;
use crate::describe::describe_aggregate;
use crate::lateness::{NotOnTime, Tolerance};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::segments::kept::SavedState;
use crate::spec::{AggregateCall, Columns, GroupingSets};

/// The last column of the rows that the operator returns (`UInt64`, not NULL): the number of the row's group within
/// this emission, and its [`Change`](windrow_core::Change) in the lowest two bits.
pub const CHANGE_CODE: &str = "__change";

/// An aggregate over all rows so far: the contract between the planner and the operator.
#[derive(Debug, Clone)]
pub struct ChangingSpec {
    columns: Arc<Columns>,
    output_schema: SchemaRef,
}

impl ChangingSpec {
    /// Checks columns and types, and that each aggregate can be built. Column 0 is never NULL; `keys` may be empty: there
    /// is one group then, from the start.
    ///
    /// # Errors
    /// Internal when the planner named a column that does not exist; the aggregate's own error when it cannot be built.
    pub fn try_new(
        input_schema: SchemaRef,
        keys: Vec<usize>,
        grouping_sets: Option<GroupingSets>,
        aggregates: Vec<AggregateCall>,
    ) -> Result<Self> {
        let columns = Columns::of_all_rows(input_schema, keys, grouping_sets, aggregates)?;
        let mut fields = columns.output_schema().fields().to_vec();
        fields.push(Arc::new(Field::new(CHANGE_CODE, DataType::UInt64, false)));
        Ok(Self { columns: Arc::new(columns), output_schema: Arc::new(Schema::new(fields)) })
    }

    /// Keys, grouping id, aggregates: the columns of the result, without [`CHANGE_CODE`].
    pub fn answer_schema(&self) -> &SchemaRef {
        self.columns.output_schema()
    }

    /// The columns of its input and of its result.
    pub(crate) fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// Whether rows of the result never change, because they have keys and no aggregate.
    pub fn is_append_only(&self) -> bool {
        self.columns.calls().is_empty()
    }
}

impl StatefulOperator for ChangingSpec {
    fn inputs(&self) -> Vec<&SchemaRef> {
        vec![self.columns.input_schema()]
    }

    fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn time_unit(&self) -> TimeUnit {
        TimeUnit::Microsecond
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all rows so far")?;
        describe_aggregate(f, self.columns.input_schema(), self.columns.mode())?;
        match self.columns.key_schema().fields().is_empty() {
            true => f.write_str(", keeps one value"),
            false => f.write_str(", keeps a value per key"),
        }
    }

    fn reach(&self) -> i64 {
        i64::MAX
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        i64::MIN..=i64::MAX
    }

    fn classify(&self, _: usize, _: &[i64], _: Watermark, _: Tolerance) -> NotOnTime {
        NotOnTime::default()
    }

    fn worker(&self, _input: usize) -> Box<dyn WorkerPart> {
        Box::new(Partial::new(&self.columns))
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(Totals::new(&self.columns, &self.output_schema))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(Totals::restored(&self.columns, &self.output_schema, state)?))
    }
}
