//! OVER in event time: functions over frames of rows around each row, per key, in order of time.
//!
//! ```text
//! rows ─► workers ─pieces─► waiting ─in order of time─► history ─► frames ─events─► functions ─┬─► rows with their values
//!                                                       (the rows that frames can still reach)  │   in order of time
//! ```
//! When the watermark has passed a time, all rows up to it have arrived, so the frames of the rows of that time are
//! final, unless they reach forward. A row is returned once its frames are final: one tick after its time, or after the
//! time up to which a frame of RANGE reaches forward, or when as many rows of its key have arrived as a frame of ROWS
//! reaches forward.
//!
//! A row is appended to the history ([`history`]) with the columns that functions read; for each frame, events say
//! which rows enter it, leave it and are evaluated ([`frames`]); each function processes these events of all keys in
//! one loop. Rows that no frame can reach are dropped. A frame that begins with the first row keeps no rows: its
//! functions keep state per key, and so does `row_number() = 1`, which deduplicates.
//!
//! A row that is behind the watermark of its partition is late: its own frame may have been returned, and so may those
//! in which it would have been.
//!
//! If a function distinguishes rows of the same time and key, these are ordered by their columns, so that the answer
//! does not depend on which arrived first.
//!
//! Everything around the table of keys is in [`in_order`](crate::in_order).

mod extremes;
mod frames;
mod functions;
mod general;
mod history;
mod picks;
mod running;
mod table;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::row::RowConverter;
use datafusion::scalar::ScalarValue;
use windrow_core::{Error, Result, Watermark, time};

use crate::describe::{Length, names};
use crate::in_order::{InOrder, OrderedSpec, OrderedWorker, RowOrder, Ties, sort_fields};
use crate::lateness::{Behindness, NotOnTime, Tolerance, rows_behind};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::segments::kept::SavedState;
use crate::spec::AggregateCall;
pub use frames::OverFrame;
use table::Table;

/// A function over a frame, as planned.
#[derive(Debug, Clone)]
pub struct OverCall {
    /// The function.
    pub function: OverFunction,
    /// The rows that it sees; `row_number`, `rank` and `dense_rank` see all up to the current one.
    pub frame: OverFrame,
    /// Type of the result, and whether it may be NULL.
    pub result: (DataType, bool),
}

/// The kind of a function.
#[derive(Debug, Clone)]
pub enum OverFunction {
    /// The number of the row, from 1.
    RowNumber,
    /// The number of the first row of the same time.
    Rank,
    /// The rank of the row's time among the distinct times.
    DenseRank,
    /// The value of one row of the frame.
    Value {
        /// The column.
        column: usize,
        /// Which row.
        which: FrameRow,
        /// Whether rows with NULL in the column are skipped.
        ignore_nulls: bool,
        /// The value if the frame has no such row; `None`: NULL.
        default: Option<ScalarValue>,
    },
    /// An aggregate of the frame.
    Aggregate(AggregateCall),
}

/// A row of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRow {
    /// The first.
    First,
    /// The last.
    Last,
    /// The n-th, from 1.
    Nth(u64),
}

/// Functions over frames of the rows of each key.
#[derive(Debug, Clone)]
pub struct OverSpec {
    input: SchemaRef,
    keys: Vec<usize>,
    calls: Vec<OverCall>,
    wait: Wait,
    key_schema: SchemaRef,
    state_schema: SchemaRef,
    output_schema: SchemaRef,
    time_unit: TimeUnit,
    logging: Logging,
    ties: Vec<(usize, SortOptions)>,
    /// Whether rows of one time are always sorted.
    orders: bool,
}

/// What a row waits for after the watermark has passed its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// The watermark must be this number of ticks further.
    Ticks(i64),
    /// This number of further rows of its key.
    Rows(i64),
}

/// The columns of a row that are in the history.
#[derive(Debug, Clone, Default)]
struct Logging {
    /// Columns of the input, ascending.
    columns: Vec<usize>,
    types: Vec<DataType>,
}

impl Logging {
    fn new(input: &SchemaRef, mut columns: Vec<usize>) -> Result<Self> {
        columns.sort_unstable();
        columns.dedup();
        let types = columns.iter().map(|column| {
            let field = input.fields().get(*column);
            let field =
                field.ok_or_else(|| Error::internal("OVER reads a column that does not exist"))?;
            Ok(field.data_type().clone())
        });
        let types = types.collect::<Result<_>>()?;
        Ok(Self { columns, types })
    }

    /// The index of a column in the history.
    fn place(&self, column: usize) -> Result<usize> {
        let place = self.columns.binary_search(&column);
        place.map_err(|_| Error::internal("OVER reads a column that it does not keep"))
    }

    fn data_type(&self, place: usize) -> DataType {
        self.types.get(place).cloned().unwrap_or(DataType::Null)
    }
}

impl OverCall {
    /// Whether it has state of a key that does not follow from the rows that its frame can reach.
    fn keeps_state(&self) -> bool {
        match &self.function {
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => true,
            OverFunction::Value { .. } => picks::Pinned::is_needed(self),
            OverFunction::Aggregate(_) => self.frame.start().is_none(),
        }
    }

    /// Whether the rows that it sees depend on its frame.
    fn has_frame(&self) -> bool {
        !matches!(
            self.function,
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank
        )
    }

    fn columns(&self) -> Vec<usize> {
        match &self.function {
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => vec![],
            OverFunction::Value { column, .. } => vec![*column],
            OverFunction::Aggregate(call) => {
                call.arguments.iter().copied().chain(call.filter).collect()
            }
        }
    }
}

fn wait_of(calls: &[OverCall]) -> Result<Wait> {
    let (mut rows, mut ticks) = (None, None);
    for call in calls.iter().filter(|call| call.has_frame()) {
        let (start, end) = (call.frame.start(), call.frame.end());
        if start.is_some_and(|start| start > end) {
            return Err(Error::internal("a frame begins after its end"));
        }
        let wait = match call.frame {
            OverFrame::Rows { .. } => &mut rows,
            OverFrame::Range { .. } => &mut ticks,
        };
        *wait = Some(wait.unwrap_or(0).max(end));
    }
    match (rows, ticks) {
        (None | Some(0), None | Some(0)) => Ok(Wait::Nothing),
        (Some(rows), None) => Ok(Wait::Rows(rows)),
        (None, Some(ticks)) => Ok(Wait::Ticks(ticks)),
        (Some(_), Some(_)) => Err(Error::internal("frames of one OVER end at different times")),
    }
}

impl OverSpec {
    /// Computes `calls` for each row of `input`, whose first column is the event time: a timestamp, never NULL. `keys`:
    /// the columns of PARTITION BY. `order`: the columns that order rows of one time, if the query has any. If a frame
    /// reaches forward, all must be of the same kind, ROWS or RANGE. The output has the columns of the input as `c0…`,
    /// then the results as `w0…`.
    ///
    /// # Errors
    /// When an aggregate cannot be computed over a frame that rows leave; Internal when a column does not exist, or
    /// frames cannot be combined.
    pub fn try_new(
        input: SchemaRef,
        keys: Vec<usize>,
        order: Vec<(usize, SortOptions)>,
        calls: Vec<OverCall>,
    ) -> Result<Self> {
        let time = input.fields().first().and_then(|field| time::time_unit(field.data_type()));
        let time_unit = time.ok_or_else(|| Error::internal("OVER without a time"))?;
        let wait = wait_of(&calls)?;
        let key_fields = keys.iter().map(|key| {
            let field = input.fields().get(*key);
            let field = field.ok_or_else(|| Error::internal("a key of OVER is missing"))?;
            Ok(Field::new(field.name(), field.data_type().clone(), true))
        });
        let key_fields = key_fields.collect::<Result<Vec<_>>>()?;
        let fields = input.fields().iter().enumerate();
        let mut output: Vec<Field> =
            fields.map(|(i, f)| f.as_ref().clone().with_name(format!("c{i}"))).collect();
        output.extend(calls.iter().enumerate().map(|(i, call)| {
            let (data_type, nullable) = &call.result;
            Field::new(format!("w{i}"), data_type.clone(), *nullable)
        }));
        let all = 0..input.fields().len();
        let logged: Vec<usize> = match wait {
            Wait::Nothing => {
                let read = calls.iter().flat_map(OverCall::columns);
                read.chain(order.iter().map(|(column, _)| *column)).collect()
            }
            Wait::Ticks(_) | Wait::Rows(_) => all.clone().collect(),
        };
        let logging = Logging::new(&input, logged)?;
        let orders = !order.is_empty();
        // The columns of the history come first: the others are lost when a checkpoint is rewritten.
        let mut ties = order;
        for column in logging.columns.iter().copied().chain(all) {
            if ties.iter().all(|(known, _)| *known != column) {
                ties.push((column, SortOptions::default()));
            }
        }
        let nullable = input.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let spec = Self {
            state_schema: Arc::new(Schema::new(nullable.collect::<Vec<_>>())),
            key_schema: Arc::new(Schema::new(key_fields)),
            output_schema: Arc::new(Schema::new(output)),
            input,
            keys,
            calls,
            wait,
            time_unit,
            logging,
            ties,
            orders,
        };
        // Fails for calls that cannot be computed.
        for call in &spec.calls {
            functions::function(call, &spec.logging)?;
        }
        Ok(spec)
    }

    /// Whether functions have state of a key that does not follow from the rows that frames can reach.
    fn keeps_state(&self) -> bool {
        self.calls.iter().any(OverCall::keeps_state)
    }

    /// Whether rows enter the state of their key some time after they have arrived.
    fn enters_later(&self) -> bool {
        let framed = self.calls.iter().filter(|call| call.has_frame());
        framed
            .map(|call| call.frame)
            .any(|frame| matches!(frame, OverFrame::Range { start: None, end } if end < 0))
    }

    /// The order of rows of one time.
    fn ties(&self, ordered: bool) -> Ties {
        let always = ordered || self.orders;
        let never = !always && !self.calls.iter().any(functions::minds_order);
        Ties::new(&self.input, self.ties.clone(), (always, never))
    }
}

impl OrderedSpec for OverSpec {
    type Table = Table;

    fn state_schema(&self) -> &SchemaRef {
        &self.state_schema
    }

    fn returned(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn key_columns(&self) -> &[usize] {
        &self.keys
    }

    /// The columns of the input come first in a result.
    fn returned_order(&self) -> Option<RowOrder> {
        let converter = RowConverter::new(sort_fields(&self.input, &self.ties)).ok()?;
        Some(RowOrder { converter, columns: self.ties.iter().map(|(column, _)| *column).collect() })
    }

    fn returns_unordered(&self) -> bool {
        matches!(self.wait, Wait::Rows(_))
    }

    fn wait_ticks(&self) -> i64 {
        if let Wait::Ticks(ticks) = self.wait { ticks } else { 0 }
    }

    fn all_advance(&self) -> bool {
        self.wait != Wait::Nothing || self.enters_later()
    }

    fn useless_before(&self, frontier: i64) -> i64 {
        let framed = self.calls.iter().filter(|call| call.has_frame());
        let frames = framed.map(|call| match call.frame {
            OverFrame::Range { start: Some(start), .. } => Some(start.min(0)),
            OverFrame::Range { start: None, end } | OverFrame::Rows { start: None, end } => {
                (end == 0).then_some(0)
            }
            OverFrame::Rows { start: Some(start), end } => (start == 0 && end == 0).then_some(0),
        });
        let first = frames.reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b)));
        match (self.wait, first.unwrap_or(Some(0))) {
            (Wait::Rows(_), _) | (_, None) => i64::MIN,
            _ if frontier == i64::MIN => frontier,
            (_, Some(first)) => frontier.saturating_sub(self.wait_ticks()).saturating_add(first),
        }
    }
}

impl StatefulOperator for OverSpec {
    fn name(&self) -> &'static str {
        "over"
    }

    fn inputs(&self) -> Vec<&SchemaRef> {
        vec![&self.input]
    }

    fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn time_unit(&self) -> TimeUnit {
        self.time_unit
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys [{}], [", names(&self.input, &self.keys))?;
        for (i, call) in self.calls.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{}", DescribedCall { spec: self, call })?;
        }
        write!(f, "], ")?;
        match self.wait {
            Wait::Nothing => {}
            Wait::Ticks(ticks) => {
                write!(f, "rows wait {}, ", Length { ticks, unit: self.time_unit })?;
            }
            Wait::Rows(rows) => {
                write!(f, "rows wait for {rows} more of their key, however long, ")?;
            }
        }
        self.describe_state(f)
    }

    fn reach(&self) -> i64 {
        match self.useless_before(0) {
            i64::MIN => i64::MAX,
            _ if self.keeps_state() => i64::MAX,
            first => first.saturating_neg(),
        }
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        let reach = self.useless_before(0).saturating_neg();
        let reach = if reach == i64::MAX { 1 } else { reach.saturating_add(1) };
        i64::MIN.saturating_add(reach)..=i64::MAX.saturating_sub(reach)
    }

    fn classify(
        &self,
        _input: usize,
        times: &[i64],
        before: Watermark,
        tolerance: Tolerance,
    ) -> NotOnTime {
        rows_behind(times, before, tolerance, |_, _| Behindness::Late)
    }

    fn worker(&self, _input: usize) -> Box<dyn WorkerPart> {
        Box::new(OrderedWorker::new(Arc::new(self.clone())))
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(InOrder::new(Arc::new(self.clone())))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(InOrder::restore(Arc::new(self.clone()), state)?))
    }
}

impl OverSpec {
    /// Writes what is kept in state.
    fn describe_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let framed = || self.calls.iter().filter(|call| call.has_frame()).map(|call| call.frame);
        let rows = framed().filter_map(|frame| match frame {
            OverFrame::Rows { start, end } => {
                let back = start.unwrap_or(end).min(0).saturating_neg();
                Some(back.saturating_add(end.max(0))).filter(|rows| *rows > 0)
            }
            OverFrame::Range { .. } => None,
        });
        let ticks = framed().filter_map(|frame| match frame {
            OverFrame::Range { start: Some(start), end } => {
                Some(end.max(0).saturating_sub(start.min(0)))
            }
            OverFrame::Range { .. } | OverFrame::Rows { .. } => None,
        });
        write!(f, "keeps")?;
        let mut comma = "";
        if let Some(rows) = rows.max() {
            write!(f, " the last {rows} rows of each key")?;
            comma = ",";
        }
        if let Some(ticks) = ticks.max() {
            let length = Length { ticks, unit: self.time_unit };
            write!(f, "{comma} the rows of the last {length}")?;
            comma = ",";
        }
        if self.keeps_state() {
            write!(f, "{comma} a result per key")?;
        } else if comma.is_empty() {
            write!(f, " nothing")?;
        }
        Ok(())
    }
}

/// The description of a call.
struct DescribedCall<'a> {
    spec: &'a OverSpec,
    call: &'a OverCall,
}

impl fmt::Display for DescribedCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = &self.spec.input;
        match &self.call.function {
            OverFunction::RowNumber => return write!(f, "row_number()"),
            OverFunction::Rank => return write!(f, "rank()"),
            OverFunction::DenseRank => return write!(f, "dense_rank()"),
            OverFunction::Value { column, which, .. } => {
                let column = names(input, &[*column]);
                match which {
                    FrameRow::First => write!(f, "first_value({column})")?,
                    FrameRow::Last => write!(f, "last_value({column})")?,
                    FrameRow::Nth(n) => write!(f, "nth_value({column}, {n})")?,
                }
            }
            OverFunction::Aggregate(call) => {
                let distinct = if call.function.is_distinct() { "distinct " } else { "" };
                let arguments = names(input, &call.arguments);
                write!(f, "{}({distinct}{arguments})", call.function.fun().name())?;
                if let Some(filter) = call.filter {
                    write!(f, " filter {}", names(input, &[filter]))?;
                }
            }
        }
        let (kind, unit) = match self.call.frame {
            OverFrame::Rows { .. } => ("ROWS", None),
            OverFrame::Range { .. } => ("RANGE", Some(self.spec.time_unit)),
        };
        let start = self.call.frame.start().map(|at| Bound { at, unit });
        let end = Bound { at: self.call.frame.end(), unit };
        match start {
            None => write!(f, " {kind} UNBOUNDED PRECEDING to {end}"),
            Some(start) => write!(f, " {kind} {start} to {end}"),
        }
    }
}

/// The description of a bound of a frame.
struct Bound {
    at: i64,
    unit: Option<TimeUnit>,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at == 0 {
            return write!(f, "CURRENT ROW");
        }
        let ticks = self.at.saturating_abs();
        match self.unit {
            Some(unit) => write!(f, "{}", Length { ticks, unit })?,
            None => write!(f, "{ticks}")?,
        }
        write!(f, " {}", if self.at < 0 { "PRECEDING" } else { "FOLLOWING" })
    }
}
