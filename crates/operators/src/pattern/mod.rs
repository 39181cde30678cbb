//! MATCH_RECOGNIZE: matches successive rows of a key with a pattern.
//!
//! ```text
//! rows ─in order of time─► per key: an attempt from one row on ─decided─► measures ─► results, in order of their ends
//!                                       ▲                         │
//!                                       └─────── the next row ◄───┘
//! ```
//! There is one attempt at a time per key ([`attempt`]): where the next one begins depends on where a match ends. When
//! it has been decided, the next one begins with the rows that have already arrived. An attempt is decided by the row
//! after which it has no threads left, when its time is over (WITHIN), or at the end of all rows. A match ends one tick
//! after the time of the row that decided it, or at the time at which WITHIN is over, which no row can precede; so
//! results do not depend on when rows arrived.
//!
//! Rows of the same time and key are ordered by further columns, so that no answer depends on which arrived first. A
//! row that is behind the watermark of its partition is late: rows after it may have been matched.
//!
//! Everything around the table of keys is in [`in_order`](crate::in_order). The state of a key is its rows from the
//! beginning of the attempt, and some before it that PREV can see. Attempts are not saved: they are repeated from the
//! rows.

mod attempt;
mod formula;
mod output;
mod program;
mod rules;
mod skip;
mod store;
mod table;
mod whole;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use windrow_core::{Error, Result, Watermark, time};

use crate::describe::{Length, names};
use crate::in_order::{InOrder, OrderedSpec, OrderedWorker, RowOrder};
use crate::lateness::{Behindness, NotOnTime, Tolerance, rows_behind};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::segments::kept::SavedState;
pub use formula::{Condition, Formula, Read, RowOf, Slot, slot_schema};
pub use program::Pattern;
use rules::Rules;
use table::Table;

/// The most variables of a pattern: each is a bit.
pub const VARIABLES_MAX: usize = 64;

/// Where the search continues after a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// After its last row.
    PastLastRow,
    /// At the row after its first one.
    ToNextRow,
    /// At the first row of these variables, as bits.
    ToFirst(u64),
    /// At the last row of these variables, as bits.
    ToLast(u64),
}

/// A column of the result.
#[derive(Debug, Clone)]
pub enum Output {
    /// A column of the row that the result stands for: the last one of the match, or each.
    Column(usize),
    /// A value of the match.
    Measure(Formula),
}

/// The clause, as planned.
#[derive(Debug, Clone)]
pub struct PatternPlan {
    /// The columns of the input.
    pub input: SchemaRef,
    /// The columns of PARTITION BY.
    pub keys: Vec<usize>,
    /// The order of the rows of a key, beginning with the event time; ties are ordered by all other columns.
    pub order: Vec<(usize, SortOptions)>,
    /// The pattern; it matches at least one row.
    pub pattern: Pattern,
    /// The names of the variables.
    pub names: Vec<String>,
    /// The condition for each variable.
    pub conditions: Vec<Condition>,
    /// The columns of the result.
    pub outputs: Vec<Output>,
    /// Whether a match returns all its rows instead of one.
    pub all_rows: bool,
    /// Where the search continues after a match.
    pub skip: Skip,
    /// The length of WITHIN in ticks: each row of a match is less than this after the first one.
    pub within: Option<i64>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct PatternSpec {
    plan: PatternPlan,
    rules: Arc<Rules>,
    key_schema: SchemaRef,
    state_schema: SchemaRef,
    output_schema: SchemaRef,
    /// The unit of the first column of the order, if that is a time.
    time_unit: Option<TimeUnit>,
    ties: Vec<(usize, SortOptions)>,
    counts_matches: bool,
}

impl PatternPlan {
    fn formulas(&self) -> impl Iterator<Item = &Formula> {
        let conditions = self.conditions.iter();
        let conditions = conditions.flat_map(|c| c.row.iter().chain(&c.history));
        conditions.chain(self.outputs.iter().filter_map(|output| match output {
            Output::Measure(formula) => Some(formula),
            Output::Column(_) => None,
        }))
    }

    /// The distances at which rows before and after others are read.
    fn shifts(&self) -> impl Iterator<Item = i32> {
        self.formulas().flat_map(|formula| &formula.reads).filter_map(|read| match &read.slot {
            Slot::Value { row, .. } => Some(row.shift),
            _ => None,
        })
    }

    /// Whether anything depends on rows after the match.
    pub fn looks_ahead(&self) -> bool {
        self.shifts().any(|shift| shift > 0)
    }

    fn rows_before(&self) -> usize {
        let least = self.shifts().min().unwrap_or(0).min(0);
        usize::try_from(least.unsigned_abs()).unwrap_or(usize::MAX)
    }

    /// How far the time of a match's rows may lie behind the watermark when it is returned, in ticks; `None`: any
    /// distance.
    pub fn lag(&self) -> Option<i64> {
        let of_rows = self.conditions.iter().all(|condition| condition.history.is_none());
        let prompt = self.pattern.is_fixed() || self.pattern.is_prompt() && of_rows;
        if prompt && !self.all_rows { Some(0) } else { self.within }
    }

    fn column(&self, at: usize) -> Result<&Field> {
        let field = self.input.fields().get(at).map(AsRef::as_ref);
        field.ok_or_else(|| Error::internal("MATCH_RECOGNIZE reads a column that does not exist"))
    }
}

impl PatternSpec {
    /// The columns of the output are called `m0…`.
    ///
    /// # Errors
    /// When the pattern has too many steps; Internal when a column does not exist, or parts do not fit together.
    pub fn try_new(plan: PatternPlan) -> Result<Self> {
        let (first, _) = plan.order.first().ok_or_else(|| Error::internal("rows have no order"))?;
        let time_unit = time::time_unit(plan.column(*first)?.data_type());
        if plan.names.len() != plan.conditions.len() || plan.names.len() > VARIABLES_MAX {
            return Err(Error::internal("variables of a pattern without conditions"));
        }
        let keys = plan.keys.iter().map(|key| {
            let field = plan.column(*key)?;
            Ok(Field::new(field.name(), field.data_type().clone(), true))
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let mut outputs = vec![];
        for (i, output) in plan.outputs.iter().enumerate() {
            let data_type = match output {
                Output::Column(column) => plan.column(*column)?.data_type().clone(),
                Output::Measure(formula) => formula.data_type()?,
            };
            outputs.push(Field::new(format!("m{i}"), data_type, true));
        }
        let mut ties = plan.order.clone();
        for column in 0..plan.input.fields().len() {
            if ties.iter().all(|(known, _)| *known != column) {
                ties.push((column, SortOptions::default()));
            }
        }
        let nullable = plan.input.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
        let counts = |read: &Read| matches!(read.slot, Slot::MatchNumber);
        let counts_matches = plan.formulas().any(|formula| formula.reads.iter().any(counts));
        Ok(Self {
            rules: Arc::new(Rules::of(&plan)?),
            key_schema: Arc::new(Schema::new(keys)),
            state_schema: Arc::new(Schema::new(nullable.collect::<Vec<_>>())),
            output_schema: Arc::new(Schema::new(outputs)),
            time_unit,
            ties,
            counts_matches,
            plan,
        })
    }

    /// The clause, as planned.
    pub fn plan(&self) -> &PatternPlan {
        &self.plan
    }

    /// The type of a result as a single value.
    pub fn output_type(&self) -> DataType {
        DataType::Struct(self.output_schema.fields().clone())
    }
}

impl StatefulOperator for PatternSpec {
    fn name(&self) -> &'static str {
        "pattern"
    }

    fn inputs(&self) -> Vec<&SchemaRef> {
        vec![&self.plan.input]
    }

    fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn time_unit(&self) -> TimeUnit {
        self.time_unit.unwrap_or(TimeUnit::Nanosecond)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = &self.plan.input;
        write!(f, "keys [{}], pattern ", names(input, &self.plan.keys))?;
        self.plan.pattern.describe(f, &self.plan.names)?;
        if let Some(ticks) = self.plan.within {
            write!(f, " within {}", Length { ticks, unit: self.time_unit() })?;
        }
        write!(f, ", keeps the rows of open matches")?;
        if self.plan.within.is_none() {
            write!(f, ", however long")?;
        }
        match self.plan.rows_before() {
            0 => {}
            rows => write!(f, ", and the last {rows} rows of each key")?,
        }
        if self.counts_matches {
            write!(f, ", and the number of matches per key")?;
        }
        Ok(())
    }

    fn reach(&self) -> i64 {
        match (self.plan.within, self.plan.rows_before()) {
            (Some(within), 0) if !self.counts_matches => within,
            _ => i64::MAX,
        }
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        let reach = self.plan.within.unwrap_or(0).saturating_add(1);
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

impl OrderedSpec for PatternSpec {
    type Table = Table;

    fn state_schema(&self) -> &SchemaRef {
        &self.state_schema
    }

    fn returned(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn key_columns(&self) -> &[usize] {
        &self.plan.keys
    }

    fn returned_order(&self) -> Option<RowOrder> {
        let fields = self.output_schema.fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).ok()?;
        Some(RowOrder { converter, columns: (0..self.output_schema.fields().len()).collect() })
    }

    fn returns_unordered(&self) -> bool {
        true
    }

    fn wait_ticks(&self) -> i64 {
        0
    }

    fn all_advance(&self) -> bool {
        self.plan.within.is_some()
    }

    fn useless_before(&self, frontier: i64) -> i64 {
        match (self.plan.within, self.plan.rows_before()) {
            (Some(within), 0) => frontier.saturating_sub(within),
            _ => i64::MIN,
        }
    }
}
