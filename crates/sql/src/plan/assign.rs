//! The window relation as a node of a logical plan.
//!
//! `WindowAssign` gives each row the bounds of each window that it belongs to. It is *never*
//! executed: [`bounded`](super::bounded()) lowers it, [`continuous`](super::continuous) makes window
//! operators of it.
//!
//! Invariant: the output is the input's columns without those called like a bound, then
//! `window_start`, `window_end` and `window_time`, of the time column's type and never NULL. Rows
//! whose time is NULL, or too near the ends of time, belong to no window.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, ExprSchema, Result, TableReference, internal_err, plan_err,
};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use windrow_core::{WindowKind, WindowSpec, time};

/// Name of the column with the first instant of the window.
pub const WINDOW_START: &str = "window_start";
/// Name of the column with the first instant after the window.
pub const WINDOW_END: &str = "window_end";
/// Name of the column with the last instant of the window: the event time of its result.
pub const WINDOW_TIME: &str = "window_time";

/// The three bounds, in the order of the output.
pub(crate) const BOUNDS: [&str; 3] = [WINDOW_START, WINDOW_END, WINDOW_TIME];

/// Gives each row of its input its windows.
#[derive(Debug, Clone)]
pub struct WindowAssign {
    input: LogicalPlan,
    time: Column,
    spec: WindowSpec,
    qualifier: Option<TableReference>,
    schema: DFSchemaRef,
}

impl WindowAssign {
    /// Windows `spec` over the column `time` of `input`. The bounds are qualified with the
    /// input's qualifier, where it has one only: `bid.window_end` works as `window_end` does.
    ///
    /// # Errors
    /// When the column does not exist or is not a timestamp.
    pub fn try_new(input: LogicalPlan, time: Column, spec: WindowSpec) -> Result<Self> {
        let first = input.schema().iter().next().and_then(|(qualifier, _)| qualifier.cloned());
        let qualifier =
            first.filter(|one| input.schema().iter().all(|(other, _)| other == Some(one)));
        Self::with_qualifier(input, time, spec, qualifier)
    }

    fn with_qualifier(
        input: LogicalPlan,
        time: Column,
        spec: WindowSpec,
        qualifier: Option<TableReference>,
    ) -> Result<Self> {
        let time_type = input.schema().field_from_column(&time)?.data_type().clone();
        if time::time_unit(&time_type).is_none() {
            return plan_err!("the time column of a window is {time_type}, not a timestamp");
        }
        let mut fields: Vec<_> = kept(input.schema())
            .map(|i| {
                let (qualifier, field) = input.schema().qualified_field(i);
                (qualifier.cloned(), Arc::clone(field))
            })
            .collect();
        for name in BOUNDS {
            let bound = Field::new(name, time_type.clone(), false);
            fields.push((qualifier.clone(), Arc::new(bound)));
        }
        let metadata = input.schema().as_arrow().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(Self { input, time, spec, qualifier, schema })
    }

    /// The node in `plan`, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// As a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The rows.
    pub fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// The time column, in the input.
    pub fn time(&self) -> &Column {
        &self.time
    }

    /// The windows.
    pub fn spec(&self) -> WindowSpec {
        self.spec
    }

    /// The qualifier of the bounds.
    pub fn qualifier(&self) -> Option<&TableReference> {
        self.qualifier.as_ref()
    }

    /// The indexes of the input's columns that pass through, in the order of the output.
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        kept(self.input.schema())
    }

    /// The type of the time column and so of the bounds.
    ///
    /// # Errors
    /// When the column is gone (our bug).
    pub fn time_type(&self) -> Result<(DataType, TimeUnit)> {
        let time_type = self.input.schema().field_from_column(&self.time)?.data_type().clone();
        match time::time_unit(&time_type) {
            Some(unit) => Ok((time_type, unit)),
            None => internal_err!("the time column of a window is {time_type}"),
        }
    }
}

fn kept(schema: &DFSchema) -> impl Iterator<Item = usize> + '_ {
    schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| !BOUNDS.contains(&field.name().as_str()))
        .map(|(i, _)| i)
}

/// The windows in words, lengths in ticks of `unit`.
pub(crate) fn describe(spec: WindowSpec, unit: TimeUnit) -> String {
    let length = |ticks: i64| Length { ticks, unit };
    let mut text = match spec.kind() {
        WindowKind::Tumble { size } => format!("TUMBLE size {}", length(size)),
        WindowKind::Hop { slide, size } => {
            format!("HOP slide {} size {}", length(slide), length(size))
        }
        WindowKind::Cumulate { step, size } => {
            format!("CUMULATE step {} size {}", length(step), length(size))
        }
    };
    if spec.offset() != 0 {
        text.push_str(&format!(" offset {}", length(spec.offset())));
    }
    text
}

/// A length of time for people: in seconds where it is whole.
struct Length {
    ticks: i64,
    unit: TimeUnit,
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = time::ticks_per_second(self.unit);
        if self.ticks % per_second == 0 {
            return write!(f, "{} s", self.ticks / per_second);
        }
        let unit = match self.unit {
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "µs",
            TimeUnit::Nanosecond => "ns",
        };
        write!(f, "{} {unit}", self.ticks)
    }
}

impl PartialEq for WindowAssign {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.time == other.time
            && self.spec == other.spec
            && self.qualifier == other.qualifier
    }
}

impl Eq for WindowAssign {}

impl Hash for WindowAssign {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.time.hash(state);
        self.spec.hash(state);
        self.qualifier.hash(state);
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let own = (&self.time, &self.spec, &self.qualifier);
        match own.partial_cmp(&(&other.time, &other.spec, &other.qualifier)) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &'static str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.time.clone())]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        BOUNDS.iter().map(ToString::to_string).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.time_type().map(|(_, unit)| unit).map_err(|_| fmt::Error)?;
        write!(f, "WindowAssign: {} on {}", describe(self.spec, unit), self.time)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(Expr::Column(time)), Some(input)) if exprs.is_empty() && inputs.is_empty() => {
                Self::with_qualifier(input, time, self.spec, self.qualifier.clone())
            }
            _ => internal_err!("WindowAssign takes one column and one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let kept: Vec<usize> = self.kept().collect();
        let time = self.input.schema().maybe_index_of_column(&self.time)?;
        let mut needed: Vec<usize> =
            output_columns.iter().filter_map(|i| kept.get(*i).copied()).collect();
        needed.push(time);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
