//! Joins in time: rows of two inputs with equal keys whose event times are within an interval of each other,
//! `lower <= left - right <= upper`. Interval joins match all such rows, ASOF joins the closest one.
//!
//! ```text
//! left  ─► workers ─pieces─► waiting ─┐ in order of time   ┌─ table: the rows of both inputs ─┐
//! right ─► workers ─pieces─► waiting ─┴───────────────────►┤  that can still match            ├─► pairs
//!                                                          └─ or, when memory is short, disk ─┘
//! ```
//! The event time of a pair is the greater of its rows' times. When the watermark has passed a time, all rows up to it
//! have arrived, so the pairs of that time are final: rows of both inputs are processed together in order of time, each
//! looks for its partners among the rows before it ([`table`]), and pairs are returned in order of their event time.
//! Two kinds of rows are no longer needed and are dropped: those that no row at or after the watermark can match, and
//! rows with a NULL in their key.
//!
//! All other results of a join ([`kind`], [`outcome`]) have a time, too. That a row matches nothing is known at the
//! last time of a row that it could match, or at its own, whichever is later, and it is returned with the results of
//! that time. A row that matches something (a semi join) is returned with its first match. So each of the inputs' times
//! lies behind the time of a result by at most its bound, with or without a partner.
//!
//! A row that is behind the watermark `W` of its partition can no longer be part of pairs whose event time is before
//! `W`, since those may have been returned. If a row at or after `W` can still match it, it counts from `W` on (it is
//! partly late); otherwise it is late. So each row has a *position*: its time, or the watermark from which it counts. A
//! row that is partly late does not search for partners; it can only be found. Positions order everything here; they
//! are the last column of the state's batches. If a result says that something matches nothing, or is a first match, no
//! row is partly late: whether it had matched before `W` cannot be known, so it is entirely late, and results are exact
//! for the other rows.
//!
//! An ASOF join that looks back (`lower >= 0`) needs, of the right input and per key, the latest row before the
//! frontier and those after it: rows are versions, and one that is followed by another is dropped. In a join that looks
//! forward (`upper <= 0`), pairs are made when the right row arrives: all waiting rows of its key take it. In a join
//! that looks both ways, a pair is made when no nearer row can arrive: each row of the left input waits as long as the
//! bounds say, and then takes the nearest.
//!
//! Checkpoints do not record whether a row has matched: restoring replays the rows since the earliest one on which that
//! depends, without returning results again.
//!
//! Invariants: rows before the frontier have been processed, and all pairs before it have been computed. A segment
//! holds rows of one input in order of their positions; its two times are the first and the last of them.

mod buckets;
mod closest;
mod coordinator;
mod kind;
mod outcome;
mod piece;
mod rows;
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
pub use kind::{JoinFilter, JoinKind, Matching};
use worker::JoinWorker;

/// The number of the left input.
const LEFT: usize = 0;
/// The number of the right input.
const RIGHT: usize = 1;
/// The name of the last column of the state's batches.
const POSITION: &str = "position";

/// A join in time: its inputs, the bounds of the difference of times, and what it returns.
#[derive(Debug, Clone)]
pub struct IntervalJoinSpec {
    sides: [Side; 2],
    /// The smallest value of `left - right`.
    lower: i64,
    /// The greatest value of `left - right`.
    upper: i64,
    /// Whether NULL is equal to NULL.
    null_equals: bool,
    kind: JoinKind,
    matching: Matching,
    filter: Option<JoinFilter>,
    key_schema: SchemaRef,
    output_schema: SchemaRef,
    time_unit: TimeUnit,
}

/// An input of a join, as planned.
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
    /// Returns the inner join of rows with equal keys whose times satisfy `lower <= left - right <= upper`, in ticks.
    /// `null_equals`: NULL is a key like others; otherwise rows with a NULL in their key match nothing. The output has
    /// the columns of the left input as `l0…`, then those of the right one as `r0…`.
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
        let output_schema = output_schema(&inputs, JoinKind::Inner);
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
            kind: JoinKind::Inner,
            matching: Matching::All,
            filter: None,
            key_schema: Arc::new(Schema::new(left_keys)),
            output_schema,
            time_unit,
        })
    }

    /// Returns the same join of another kind. Its output has the columns of the inputs that it returns; those of an
    /// input without which a row may be returned are nullable.
    pub fn with_kind(self, kind: JoinKind) -> Self {
        let inputs = self.sides.each_ref().map(|side| side.input.clone());
        Self { kind, output_schema: output_schema(&inputs, kind), ..self }
    }

    /// Returns the same join restricted to pairs that satisfy a condition.
    ///
    /// # Errors
    /// Internal for an ASOF join: which row is the closest does not depend on conditions.
    pub fn with_filter(self, filter: JoinFilter) -> Result<Self> {
        match self.matching {
            Matching::All => Ok(Self { filter: Some(filter), ..self }),
            Matching::Closest => Err(Error::internal("an ASOF join with a condition")),
        }
    }

    /// Returns the ASOF join: each row of the left input matches the closest row of the right input within the bounds;
    /// of two equally close ones, the earlier. An upper bound of `i64::MAX` means none, if only earlier rows are
    /// allowed.
    ///
    /// # Errors
    /// Internal when the join would wait for ever, for a kind other than inner and left, and with a condition.
    pub fn closest(self) -> Result<Self> {
        let bounded = self.lower >= 0 || (self.upper < i64::MAX && self.lower > i64::MIN);
        let kind = matches!(self.kind, JoinKind::Inner | JoinKind::Left);
        if !bounded || !kind || self.filter.is_some() {
            return Err(Error::internal("an ASOF join that waits for ever, or that is not one"));
        }
        Ok(Self { matching: Matching::Closest, ..self })
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

    /// How long a row of `side` waits for others, beyond its own time.
    fn wait(&self, side: usize) -> i64 {
        match side {
            LEFT => self.lower.saturating_neg().max(0),
            _ => self.upper.max(0),
        }
    }

    /// Whether each row of the left input matches at most one row of the right input, an earlier one.
    fn looks_back(&self) -> bool {
        self.matching == Matching::Closest && self.lower >= 0
    }

    /// Whether each row of the left input matches at most one row of the right input, a later one.
    fn looks_forward(&self) -> bool {
        self.matching == Matching::Closest && self.lower < 0 && self.upper <= 0
    }

    /// Whether each row of the left input matches the nearest row of the right input, in either direction.
    fn looks_around(&self) -> bool {
        self.matching == Matching::Closest && self.lower < 0 && self.upper > 0
    }

    /// Whether rows of `side` have results when nothing can match them any more.
    fn expires(&self, side: usize) -> bool {
        self.kind.has_unmatched(side) || (side == LEFT && self.looks_around())
    }

    /// Whether pairs are the only results: nothing depends on what a row has matched before.
    fn is_plain(&self) -> bool {
        self.kind == JoinKind::Inner && self.matching == Matching::All && self.filter.is_none()
    }

    /// Whether it must be recorded which rows of `side` have matched.
    fn tracks(&self, side: usize) -> bool {
        self.kind.has_unmatched(side)
            || self.kind.has_matched(side)
            || (side == LEFT && self.looks_forward())
    }

    /// Whether rows of `side` with a NULL in their key are kept, because they are returned as unmatched.
    fn keeps_nulls(&self, side: usize) -> bool {
        self.null_equals || self.kind.has_unmatched(side)
    }

    /// Whether exact results require that rows of `side` count entirely or not at all.
    fn is_exact(&self, side: usize) -> bool {
        match self.matching {
            Matching::All => self.tracks(LEFT) || self.tracks(RIGHT),
            Matching::Closest => side == LEFT || self.looks_around(),
        }
    }

    /// Returns the time before which rows of `side` are not needed to replay results at or after `frontier`, since
    /// whether a row has matched depends on the rows before.
    fn replay_before(&self, side: usize, frontier: i64) -> i64 {
        let tracks = self.tracks(LEFT) || self.tracks(RIGHT);
        match tracks && !self.looks_back() {
            true if frontier < i64::MAX => {
                frontier.saturating_sub(self.wait(LEFT)).saturating_sub(self.wait(RIGHT))
            }
            _ => self.useless_before(side, frontier),
        }
    }

    /// How long rows of `side` are kept beyond the watermark, in ticks.
    fn kept_ticks(&self, side: usize) -> i64 {
        let matched = self.useless_before(side, 0).saturating_neg();
        if self.kind.has_unmatched(side) { matched.max(self.wait(side)) } else { matched }
    }

    /// Returns the time before which rows of `side` are no longer needed once rows before `frontier` have been
    /// processed.
    fn useless_before(&self, side: usize, frontier: i64) -> i64 {
        if frontier == i64::MAX {
            return frontier;
        }
        let time = match side {
            LEFT => frontier.saturating_add(self.lower),
            // It takes the nearest row at the end of its wait.
            _ if self.looks_around() => {
                frontier.saturating_add(self.lower).saturating_sub(self.upper)
            }
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
        if self.matching == Matching::Closest {
            write!(f, "ASOF ")?;
        }
        write!(f, "{} from {}", self.kind.name(), length(self.lower))?;
        match self.upper {
            i64::MAX => write!(f, " on")?,
            upper => write!(f, " to {}", length(upper))?,
        }
        let [left, right] = &self.sides;
        let (left, right) = (&left.input, &right.input);
        let (l, r) = (names(&left.schema, &left.keys), names(&right.schema, &right.keys));
        write!(f, ", keys [{l}] = [{r}]")?;
        if let Some(filter) = &self.filter {
            write!(f, ", where {}", filter.expr)?;
        }
        let kept = [LEFT, RIGHT].map(|side| self.kept_ticks(side));
        if self.looks_back() && self.upper == i64::MAX {
            return write!(f, ", keeps the latest row of each key");
        }
        match kept {
            [left, right] if left == right => write!(f, ", keeps rows of {}", length(left)),
            [left, right] => write!(f, ", keeps rows of {} and {}", length(left), length(right)),
        }
    }

    fn reach(&self) -> i64 {
        let pairs = self.lower.saturating_abs().max(self.upper.saturating_abs());
        match self.is_exact(LEFT) {
            true => pairs.max(self.wait(LEFT).saturating_add(self.wait(RIGHT))),
            false => pairs,
        }
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        let reach = match self.upper {
            i64::MAX => self.lower.saturating_abs(),
            _ => self.reach(),
        };
        let reach = reach.saturating_add(1);
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
            (_, last) if last < closed || self.is_exact(input) => Behindness::Late,
            // A pair ends one tick after its event time.
            _ => Behindness::Partly { from: closed.saturating_add(1) },
        })
    }

    fn worker(&self, input: usize) -> Box<dyn WorkerPart> {
        Box::new(JoinWorker::new(self.side(input).clone(), self.keeps_nulls(input)))
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(IntervalJoin::new(Arc::new(self.clone())))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(IntervalJoin::restore(Arc::new(self.clone()), state)?))
    }
}

/// The columns of the inputs that a join of this kind returns, named `l0…` and `r0…`.
fn output_schema([left, right]: &[JoinInput; 2], kind: JoinKind) -> SchemaRef {
    let mut output = vec![];
    for (side, input, name) in [(LEFT, left, "l"), (RIGHT, right, "r")] {
        if !kind.has_columns(side) {
            continue;
        }
        let other = if side == LEFT { RIGHT } else { LEFT };
        let may_miss = kind.has_pairs() && kind.has_unmatched(other);
        for (i, field) in input.schema.fields().iter().enumerate() {
            let field = field.as_ref().clone().with_name(format!("{name}{i}"));
            let nullable = field.is_nullable() || may_miss;
            output.push(field.with_nullable(nullable));
        }
    }
    Arc::new(Schema::new(output))
}
