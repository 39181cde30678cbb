//! The window relation as a node of a logical plan.
//!
//! `WindowAssign` adds to each row the bounds of each window that it belongs to. It is *never* executed:
//! [`bounded`](super::bounded()) lowers it, [`continuous`](super::continuous) makes window operators of it.
//!
//! Invariant: the output is the input's columns without those that have the name of a bound, then `window_start`,
//! `window_end` and `window_time`, of the time column's type and never NULL. Rows whose time is NULL, or too near the
//! ends of time, belong to no window. Session keys are decided in every plan that leaves the planner
//! ([`super::sessions`]).

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
use windrow_core::{Windows, time};
use windrow_operators::describe_windows;

/// The name of the column with the first instant of the window.
pub const WINDOW_START: &str = "window_start";
/// The name of the column with the first instant after the window.
pub const WINDOW_END: &str = "window_end";
/// The name of the column with the last instant of the window, the event time of its result.
pub const WINDOW_TIME: &str = "window_time";

/// The three bounds, in the order of the output.
pub(crate) const BOUNDS: [&str; 3] = [WINDOW_START, WINDOW_END, WINDOW_TIME];

/// The keys of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum Keys {
    /// These values together, over the input; if empty, all rows have the same key. Aligned windows have none.
    Of(Vec<Expr>),
    /// The other keys of the GROUP BY above, which the planner has not seen yet.
    Grouped {
        /// Whether the sessions are those of the rows that reach GROUP BY, as in `GROUP BY SESSION(…)`, and not those
        /// of the input.
        after: bool,
    },
}

/// Adds its windows to each row of its input.
#[derive(Debug, Clone)]
pub struct WindowAssign {
    input: LogicalPlan,
    time: Column,
    windows: Windows,
    keys: Keys,
    qualifier: Option<TableReference>,
    schema: DFSchemaRef,
}

impl WindowAssign {
    /// Windows over the column `time` of `input`; sessions are of all rows. The bounds have the input's qualifier,
    /// if it has only one: `bid.window_end` works as `window_end` does.
    ///
    /// # Errors
    /// When the column does not exist or is not a timestamp.
    pub fn try_new(input: LogicalPlan, time: Column, windows: Windows) -> Result<Self> {
        let first = input.schema().iter().next().and_then(|(qualifier, _)| qualifier.cloned());
        let qualifier =
            first.filter(|one| input.schema().iter().all(|(other, _)| other == Some(one)));
        Self::with_qualifier(input, time, windows, qualifier)
    }

    /// Like [`try_new`](Self::try_new), with this qualifier for the bounds.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn with_qualifier(
        input: LogicalPlan,
        time: Column,
        windows: Windows,
        qualifier: Option<TableReference>,
    ) -> Result<Self> {
        let time_type = input.schema().field_from_column(&time)?.data_type().clone();
        if time::time_unit(&time_type).is_none() {
            return plan_err!("the time column of a window is {time_type}, not a timestamp");
        }
        let mut fields: Vec<_> = kept(input.schema(), qualifier.as_ref())
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
        Ok(Self { input, time, windows, keys: Keys::Of(vec![]), qualifier, schema })
    }

    /// The same node with these session keys.
    pub(crate) fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
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
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// The session keys.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The values that separate sessions, over the input.
    ///
    /// # Errors
    /// When they have not been decided (our bug).
    pub(crate) fn session_keys(&self) -> Result<Vec<Expr>> {
        match &self.keys {
            Keys::Of(keys) => Ok(keys.iter().cloned().map(Expr::unalias).collect()),
            Keys::Grouped { .. } => internal_err!("the keys of a session are not decided"),
        }
    }

    /// The qualifier of the bounds.
    pub fn qualifier(&self) -> Option<&TableReference> {
        self.qualifier.as_ref()
    }

    /// The indexes of the input's columns that pass through, in the order of the output.
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        kept(self.input.schema(), self.qualifier.as_ref())
    }

    /// The type of the time column, and so of the bounds.
    ///
    /// # Errors
    /// When the column does not exist (our bug).
    pub fn time_type(&self) -> Result<(DataType, TimeUnit)> {
        let time_type = self.input.schema().field_from_column(&self.time)?.data_type().clone();
        match time::time_unit(&time_type) {
            Some(unit) => Ok((time_type, unit)),
            None => internal_err!("the time column of a window is {time_type}"),
        }
    }
}

/// The columns that no bound replaces. (Bounds without a qualifier replace all columns of their name.)
fn kept<'a>(
    schema: &'a DFSchema,
    qualifier: Option<&'a TableReference>,
) -> impl Iterator<Item = usize> + 'a {
    schema
        .iter()
        .enumerate()
        .filter(move |(_, (of, field))| {
            let same = qualifier.is_none() || *of == qualifier;
            !(same && BOUNDS.contains(&field.name().as_str()))
        })
        .map(|(i, _)| i)
}

impl PartialEq for WindowAssign {
    fn eq(&self, other: &Self) -> bool {
        self.input == other.input
            && self.time == other.time
            && self.windows == other.windows
            && self.keys == other.keys
            && self.qualifier == other.qualifier
    }
}

impl Eq for WindowAssign {}

impl Hash for WindowAssign {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.time.hash(state);
        self.windows.hash(state);
        self.keys.hash(state);
        self.qualifier.hash(state);
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let own = (&self.time, &self.windows, &self.keys, &self.qualifier);
        match own.partial_cmp(&(&other.time, &other.windows, &other.keys, &other.qualifier)) {
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
        let keys = match &self.keys {
            Keys::Of(keys) => keys.as_slice(),
            Keys::Grouped { .. } => &[],
        };
        std::iter::once(Expr::Column(self.time.clone())).chain(keys.iter().cloned()).collect()
    }

    /// A condition on rows would change their sessions, unless it removes all rows of a key.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let bounds = BOUNDS.iter().map(ToString::to_string);
        let Windows::Session(_) = self.windows else { return bounds.collect() };
        let of_rows = self.kept().map(|i| self.input.schema().qualified_field(i));
        let is_key = |column: &Column| match &self.keys {
            Keys::Of(keys) => keys.iter().any(|key| matches!(key, Expr::Column(k) if k == column)),
            Keys::Grouped { .. } => false,
        };
        let others = of_rows.map(Column::from).filter(|column| !is_key(column));
        bounds.chain(others.map(|column| column.name)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.time_type().map(|(_, unit)| unit).map_err(|_| fmt::Error)?;
        write!(f, "WindowAssign: {}", describe_windows(self.windows, unit))?;
        if let Keys::Of(keys) = &self.keys
            && !keys.is_empty()
        {
            write!(
                f,
                " per [{}]",
                keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )?;
        }
        write!(f, " on {}", self.time)
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        match (exprs.next(), inputs.pop()) {
            (Some(Expr::Column(time)), Some(input)) if inputs.is_empty() => {
                let qualifier = self.qualifier.clone();
                let assign = Self::with_qualifier(input, time, self.windows, qualifier)?;
                Ok(assign.with_keys(match &self.keys {
                    Keys::Of(_) => Keys::Of(exprs.map(Expr::unalias).collect()),
                    undecided => undecided.clone(),
                }))
            }
            _ => internal_err!("WindowAssign takes a time column, keys and one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let kept: Vec<usize> = self.kept().collect();
        let time = self.input.schema().maybe_index_of_column(&self.time)?;
        let mut needed: Vec<usize> =
            output_columns.iter().filter_map(|i| kept.get(*i).copied()).collect();
        needed.push(time);
        if let Keys::Of(keys) = &self.keys {
            for column in keys.iter().flat_map(Expr::column_refs) {
                needed.push(self.input.schema().maybe_index_of_column(column)?);
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
