//! Early results: windows whose results are emitted as changes while they are open, then once more, marked final, when
//! they close, and corrected afterwards where late rows are allowed.
//!
//! ```text
//! rows ─► slices (one store per worker) ─flush─► open windows, each with its groups ─close─► changes with marks
//! ```
//! At an emission, workers return what they have counted since the last one, however far their windows are from closing.
//! That is merged into each of its windows, whose groups have states that are columns, as those of an aggregate without
//! windows do ([`Totals`](crate::changing::Totals)). So an emission costs as much as the groups that have changed, and not
//! as much as all open groups.
//!
//! A plan above the operator that needs the whole window (a ranking, a join) gets the whole window at each of its
//! emissions, and [`Differences`] compares its results with the last ones.
//!
//! Invariants: folding the changes so far produces the result over the rows flushed so far; the rows that are marked
//! final for the first time are those of the same operator without early results; after that a window changes only by
//! corrections, which have higher revisions.

mod aligned;
mod differences;
mod joined;
mod returned;
mod session_changes;
mod sessions;
mod worker;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use windrow_core::{Error, ErrorKind, Result, Watermark};

use self::aligned::EarlyWindows;
pub use self::differences::Differences;
use self::sessions::EarlySessions;
use self::worker::EarlyStore;
use crate::changing::CHANGE_CODE;
use crate::lateness::{NotOnTime, Tolerance};
use crate::port::{CoordinatorPart, EarlyResults, StatefulOperator, WorkerPart};
use crate::segments::kept::SavedState;
use crate::spec::{Columns, Mode, OperatorSpec, SessionOperatorSpec};
use crate::store::SliceStore;

/// Windows with early results: the contract between the planner and the operator.
#[derive(Debug, Clone)]
pub struct EarlySpec {
    windows: Kind,
    emits: Emits,
    output_schema: SchemaRef,
}

/// The windows that have early results.
#[derive(Debug, Clone)]
enum Kind {
    Aligned(OperatorSpec),
    Sessions(SessionOperatorSpec),
}

/// What is emitted of a window that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emits {
    /// The groups that have changed, with [`CHANGE_CODE`]. A window is corrected for this many ticks after it has closed.
    Changes { correct_for: i64 },
    /// All of it.
    Windows,
}

impl EarlySpec {
    /// Aligned windows of groups, which are emitted as changes. `correct_for`: for how many ticks after its end a window
    /// is corrected; the watermark of the operator is behind by that.
    ///
    /// # Errors
    /// Internal when the windows hold rows.
    pub fn of_groups(windows: OperatorSpec, correct_for: i64) -> Result<Self> {
        if matches!(windows.mode(), Mode::Rows) {
            return Err(Error::internal("changes of windows that hold rows"));
        }
        let output_schema = with_code(windows.output_schema());
        let emits = Emits::Changes { correct_for };
        Ok(Self { windows: Kind::Aligned(windows), emits, output_schema })
    }

    /// Sessions of groups, which are emitted as changes.
    ///
    /// # Errors
    /// Internal when the sessions hold rows.
    pub fn of_sessions(sessions: SessionOperatorSpec) -> Result<Self> {
        if matches!(sessions.mode(), Mode::Rows) {
            return Err(Error::internal("changes of sessions that hold rows"));
        }
        let output_schema = with_code(sessions.output_schema());
        let emits = Emits::Changes { correct_for: 0 };
        Ok(Self { windows: Kind::Sessions(sessions), emits, output_schema })
    }

    /// Aligned windows that are emitted as a whole whenever they have changed.
    pub fn of_whole_windows(windows: OperatorSpec) -> Self {
        let output_schema = Arc::clone(windows.output_schema());
        Self { windows: Kind::Aligned(windows), emits: Emits::Windows, output_schema }
    }

    fn of(&self) -> &dyn StatefulOperator {
        match &self.windows {
            Kind::Aligned(spec) => spec,
            Kind::Sessions(spec) => spec,
        }
    }

    /// For how many ticks after its end a window is corrected.
    fn correct_for(&self) -> i64 {
        match self.emits {
            Emits::Changes { correct_for } => correct_for,
            Emits::Windows => 0,
        }
    }
}

/// The columns of rows with a code.
fn with_code(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(CHANGE_CODE, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// The columns of keys and aggregates, without bounds, and the code.
fn group_schema(columns: &Columns) -> SchemaRef {
    let mut fields = columns.output_schema().fields().to_vec();
    fields.truncate(fields.len().saturating_sub(3));
    with_code(&Arc::new(Schema::new(fields)))
}

impl StatefulOperator for EarlySpec {
    fn inputs(&self) -> Vec<&SchemaRef> {
        self.of().inputs()
    }

    fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn name(&self) -> &'static str {
        self.of().name()
    }

    fn time_unit(&self) -> TimeUnit {
        self.of().time_unit()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of().describe(f)?;
        f.write_str(match self.emits {
            Emits::Changes { correct_for: 0 } => ", emits the groups that have changed",
            Emits::Changes { .. } => ", emits the groups that have changed, and corrects them",
            Emits::Windows => ", emits the windows that have changed",
        })
    }

    fn early_results(&self) -> Option<EarlyResults> {
        let (whole, revisions) = (self.emits == Emits::Windows, self.correct_for() > 0);
        Some(EarlyResults { whole, revisions })
    }

    fn reach(&self) -> i64 {
        self.of().reach()
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        self.of().valid_times()
    }

    fn classify(
        &self,
        input: usize,
        times: &[i64],
        before: Watermark,
        tolerance: Tolerance,
    ) -> NotOnTime {
        self.of().classify(input, times, before, tolerance)
    }

    fn is_resumable(&self) -> bool {
        false
    }

    fn worker(&self, _input: usize) -> Box<dyn WorkerPart> {
        Box::new(match &self.windows {
            Kind::Aligned(spec) => EarlyStore::new(SliceStore::new(spec), self.correct_for()),
            Kind::Sessions(spec) => EarlyStore::new(SliceStore::of_sessions(spec), 0),
        })
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        match &self.windows {
            Kind::Aligned(spec) => Box::new(EarlyWindows::new(self, spec)),
            Kind::Sessions(spec) => Box::new(EarlySessions::new(spec, &self.output_schema)),
        }
    }

    fn restore(&self, _: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Err(no_checkpoints())
    }
}

/// The error for calls that the planner rules out.
fn no_checkpoints() -> Error {
    Error::internal("windows with early results have no checkpoints")
}

/// The error when the open windows do not fit in memory.
fn too_large(groups: usize) -> Error {
    let message =
        format!("windows with early results keep {groups} groups, more than their share of memory");
    Error::new(ErrorKind::Limit, message)
        .with_detail("They keep all open windows in memory, since the next emission may need any of their groups.")
        .with_hint(
            "Raise the limit (--memory-limit), group by fewer values, use shorter windows, or EMIT FINAL, whose windows go to disk.",
        )
}
