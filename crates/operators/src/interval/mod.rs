//! The inner interval join: pairs of rows of two inputs with equal keys whose event times are within a fixed interval of
//! each other, `lower <= left - right <= upper`.
//!
//! ```text
//! left  ─► workers ─pieces─► waiting ─┐ in order of time   ┌─ table: the rows of both inputs ─┐
//! right ─► workers ─pieces─► waiting ─┴───────────────────►┤  that can still match            ├─► pairs
//!                                                          └─ or, when memory is short, disk ─┘
//! ```
//! The event time of a pair is the greater of its rows' times. When the watermark has passed a time, all rows up to it
//! have arrived, and so the pairs of that time are final: rows of both inputs are processed together in order of time,
//! each looks for its partners among the rows before it ([`table`]), and pairs come out in order of their event time.
//! Two kinds of rows are of no use any more and are dropped: those that no row at or after the watermark can match, and
//! rows with a NULL in their key.
//!
//! A row that is behind the watermark `W` of its partition can no longer be part of pairs whose event time is before `W`, since
//! those may have been returned. If a row at or after `W` can still match it, it counts from `W` on (it is partly late);
//! otherwise it is late. So each row has a *position*: its time, or the watermark from which it counts. A row that is partly
//! late only waits to be found. Positions order everything here; they are the last column of the state's batches.
//!
//! Invariants: rows before the frontier have been processed, and all pairs before it have been made. A segment holds
//! rows of one input in order of their positions; its two times are the first and the last of them.

mod coordinator;
mod piece;
mod state;
mod table;
mod worker;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use windrow_core::{Error, Result, Watermark, time};

use crate::describe::{Length, names};
use crate::lateness::{Behindness, NotOnTime, Tolerance, rows_behind};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::segments::kept::SavedState;
use coordinator::IntervalJoin;
use worker::JoinWorker;

/// The number of the left input.
const LEFT: usize = 0;
/// The number of the right input.
const RIGHT: usize = 1;
/// The name of the last column of the state's batches.
const POSITION: &str = "position";

/// An inner interval join: its inputs, and how far apart the times of a pair may be.
#[derive(Debug, Clone)]
pub struct IntervalJoinSpec {
    sides: [Side; 2],
    /// The smallest value of `left - right`.
    lower: i64,
    /// The greatest value of `left - right`.
    upper: i64,
    /// NULL is equal to NULL.
    null_equals: bool,
    key_schema: SchemaRef,
    output_schema: SchemaRef,
    time_unit: TimeUnit,
}

/// An input of a join, as the planner gives it.
#[derive(Debug, Clone)]
pub struct JoinInput {
    /// The columns of a prepared batch. The first is the event time: a timestamp, never NULL.
    pub schema: SchemaRef,
    /// The columns that are compared with those of the other input, pair by pair.
    pub keys: Vec<usize>,
}

/// An input of a join, and the columns of its state.
#[derive(Debug, Clone)]
struct Side {
    input: JoinInput,
    state_schema: SchemaRef,
}

impl IntervalJoinSpec {
    /// Joins rows with equal keys whose times satisfy `lower <= left - right <= upper`, in ticks. `null_equals`: NULL is
    /// a key like others; otherwise rows with a NULL in their key match nothing. The output has the columns of the left
    /// input as `l0…`, then those of the right one as `r0…`.
    ///
    /// # Errors
    /// Internal when a column does not exist, the keys are of different types, or a time is not a timestamp of the
    /// unit of the other.
    pub fn try_new(
        inputs: [JoinInput; 2],
        (lower, upper): (i64, i64),
        null_equals: bool,
    ) -> Result<Self> {
        let [left, right] = &inputs;
        let unit = |input: &JoinInput| {
            input.schema.fields().first().and_then(|field| time::time_unit(field.data_type()))
        };
        let time_unit = match (unit(left), unit(right)) {
            (Some(left), Some(right)) if left == right => left,
            _ => return Err(Error::internal("the times of a join are of different types")),
        };
        let key_fields = |input: &JoinInput| -> Result<Vec<Field>> {
            let fields = input.keys.iter().map(|key| {
                let field = input.schema.fields().get(*key);
                let field = field.ok_or_else(|| Error::internal("a key of a join is missing"))?;
                Ok(Field::new(field.name(), field.data_type().clone(), true))
            });
            fields.collect()
        };
        let (left_keys, right_keys) = (key_fields(left)?, key_fields(right)?);
        let types = |fields: &[Field]| -> Vec<DataType> {
            fields.iter().map(|field| field.data_type().clone()).collect()
        };
        if types(&left_keys) != types(&right_keys) {
            return Err(Error::internal("the keys of a join are of different types"));
        }
        let renamed = |input: &JoinInput, side: &'static str| -> Vec<Field> {
            let fields = input.schema.fields().iter().enumerate();
            fields.map(|(i, f)| f.as_ref().clone().with_name(format!("{side}{i}"))).collect()
        };
        let mut output = renamed(left, "l");
        output.extend(renamed(right, "r"));
        let sides = inputs.map(|input| {
            let mut fields = input.schema.fields().to_vec();
            fields.push(Arc::new(Field::new(POSITION, DataType::Int64, false)));
            Side { input, state_schema: Arc::new(Schema::new(fields)) }
        });
        Ok(Self {
            sides,
            lower,
            upper,
            null_equals,
            key_schema: Arc::new(Schema::new(left_keys)),
            output_schema: Arc::new(Schema::new(output)),
            time_unit,
        })
    }

    fn side(&self, side: usize) -> &Side {
        let [left, right] = &self.sides;
        if side == LEFT { left } else { right }
    }

    /// Returns the first and the last time of the other input that a row of `side` at `time` matches.
    fn partners(&self, side: usize, time: i64) -> (i64, i64) {
        match side {
            LEFT => (time.saturating_sub(self.upper), time.saturating_sub(self.lower)),
            _ => (time.saturating_add(self.lower), time.saturating_add(self.upper)),
        }
    }

    /// Returns the time before which rows of `side` are of no use when rows before `frontier` have been processed.
    fn useless_before(&self, side: usize, frontier: i64) -> i64 {
        let time = match side {
            LEFT => frontier.saturating_add(self.lower),
            _ => frontier.saturating_sub(self.upper),
        };
        time.min(frontier)
    }
}

impl StatefulOperator for IntervalJoinSpec {
    fn name(&self) -> &'static str {
        "join"
    }

    fn inputs(&self) -> Vec<&SchemaRef> {
        self.sides.iter().map(|side| &side.input.schema).collect()
    }

    fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn time_unit(&self) -> TimeUnit {
        self.time_unit
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |ticks| Length { ticks, unit: self.time_unit };
        write!(f, "INNER from {} to {}", length(self.lower), length(self.upper))?;
        let [left, right] = &self.sides;
        let (left, right) = (&left.input, &right.input);
        let (l, r) = (names(&left.schema, &left.keys), names(&right.schema, &right.keys));
        write!(f, ", keys [{l}] = [{r}]")
    }

    fn reach(&self) -> i64 {
        self.lower.saturating_abs().max(self.upper.saturating_abs())
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        let reach = self.reach().saturating_add(1);
        i64::MIN.saturating_add(reach)..=i64::MAX.saturating_sub(reach)
    }

    fn classify(
        &self,
        input: usize,
        times: &[i64],
        before: Watermark,
        tolerance: Tolerance,
    ) -> NotOnTime {
        rows_behind(times, before, tolerance, |time, closed| match self.partners(input, time) {
            (_, last) if last < closed => Behindness::Late,
            // A pair ends one tick after its event time.
            _ => Behindness::Partly { from: closed.saturating_add(1) },
        })
    }

    fn worker(&self, input: usize) -> Box<dyn WorkerPart> {
        Box::new(JoinWorker::new(self.side(input).clone(), self.null_equals))
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(IntervalJoin::new(Arc::new(self.clone())))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(IntervalJoin::restore(Arc::new(self.clone()), state)?))
    }
}
