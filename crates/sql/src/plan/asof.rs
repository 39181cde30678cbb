//! ASOF joins as a node of a logical plan: each row of the left side with the one row of the right side that is closest
//! to it in time, before it, after it, or in either direction.
//!
//! The parser leaves a marker in ON, which [`super::asof_decide`] turns into an [`AsofJoin`]. It is *never* executed:
//! the bounded form lowers it ([`super::asof_bounded`]), the continuous form makes an operator of it
//! ([`super::asof_join`]).
//!
//! Invariants: the bounds are exact in ticks of the times, and both are set where they allow both directions; the
//! output is the columns of the left side, then those of the right one, NULL where an outer join has found nothing. Of
//! two rows that are equally far away, the earlier one counts; of several rows of the right side at one time, the one
//! with the greatest values, column by column, where NULL is the smallest.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, JoinType, Result, internal_err};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore, build_join_schema,
};

use super::known::Known;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AsofJoin {
    pub(crate) left: LogicalPlan,
    pub(crate) right: LogicalPlan,
    /// Equal keys; NULL matches nothing.
    pub(crate) on: Vec<(Expr, Expr)>,
    /// The times that are compared, columns of their sides.
    pub(crate) times: [Column; 2],
    pub(crate) bounds: Bounds,
    /// Whether rows of the left side that match nothing are returned.
    pub(crate) is_outer: bool,
    schema: DFSchemaRef,
}

/// `lower <= left - right <= upper` in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct Bounds {
    /// `None`: a later row counts, however much later it is.
    pub(crate) lower: Option<i64>,
    /// `None`: an earlier row counts, however much earlier it is.
    pub(crate) upper: Option<i64>,
}

impl Bounds {
    /// Whether the row of the right side is the earlier one.
    pub(crate) fn look_back(self) -> bool {
        self.lower.is_some_and(|lower| lower >= 0)
    }

    /// How far after and before the row of the right side may be, if it may be either.
    pub(crate) fn around(self) -> Option<(i64, i64)> {
        let (lower, upper) = self.lower.zip(self.upper)?;
        (lower < 0 && upper > 0).then_some((lower, upper))
    }
}

impl AsofJoin {
    pub(crate) fn try_new(
        [left, right]: [LogicalPlan; 2],
        on: Vec<(Expr, Expr)>,
        times: [Column; 2],
        bounds: Bounds,
        is_outer: bool,
    ) -> Result<Self> {
        let kind = if is_outer { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(Self { left, right, on, times, bounds, is_outer, schema })
    }

    /// The node in `plan`, if it is one.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// As a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The same join with other keys.
    pub(crate) fn with_on(self, on: Vec<(Expr, Expr)>) -> Self {
        Self { on, ..self }
    }

    /// The columns of the output.
    pub(crate) fn columns(&self) -> &DFSchemaRef {
        &self.schema
    }
}

/// The event times of an ASOF join: rows of the left side are returned with their time, or, where they wait for a later
/// row, later by as long as they may wait. In both directions, they always wait.
pub(crate) fn known(join: &AsofJoin) -> Vec<Known> {
    let mut known = vec![Known::default(); join.columns().fields().len()];
    let [left, right] = &join.times;
    let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
    let (left_lag, right_lag) = match (join.bounds.around(), join.bounds.look_back()) {
        (Some((lower, upper)), _) => {
            (Some(lower.saturating_neg()), Some(upper.saturating_sub(lower)))
        }
        (None, true) => (Some(0), join.bounds.upper),
        (None, false) => (join.bounds.lower.map(i64::saturating_neg), Some(0)),
    };
    let at = left_schema.maybe_index_of_column(left);
    if let Some(slot) = at.and_then(|at| known.get_mut(at)) {
        slot.lag = left_lag;
    }
    let at = right_schema.maybe_index_of_column(right).filter(|_| !join.is_outer);
    if let Some(slot) = at.and_then(|at| known.get_mut(left_schema.fields().len() + at)) {
        slot.lag = right_lag;
    }
    known
}

impl Hash for AsofJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
        self.on.hash(state);
        self.times.hash(state);
        self.bounds.hash(state);
        self.is_outer.hash(state);
    }
}

impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let own = (&self.on, &self.times, self.bounds, self.is_outer);
        match own.partial_cmp(&(&other.on, &other.times, other.bounds, other.is_outer)) {
            Some(Ordering::Equal) => match self.left.partial_cmp(&other.left) {
                Some(Ordering::Equal) => self.right.partial_cmp(&other.right),
                order => order,
            },
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &'static str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let times = self.times.iter().cloned().map(Expr::Column);
        let keys = self.on.iter().flat_map(|(left, right)| [left.clone(), right.clone()]);
        times.chain(keys).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_outer { "Left" } else { "Inner" };
        let [left, right] = &self.times;
        write!(f, "{kind} AsofJoin: {left} ")?;
        match (self.bounds.lower, self.bounds.upper) {
            (Some(lower), Some(upper)) if lower < 0 && upper > 0 => {
                write!(f, "nearest to {right}, from {lower} to {upper} ticks")?;
            }
            (Some(0), _) => write!(f, ">= {right}")?,
            (Some(lower), _) if lower > 0 => write!(f, ">= {right} + {lower} ticks")?,
            (_, None | Some(0)) => write!(f, "<= {right}")?,
            (_, Some(upper)) => write!(f, "<= {right} + {upper} ticks")?,
        }
        for (left, right) in &self.on {
            write!(f, ", {left} = {right}")?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter().map(Expr::unalias);
        let (Some(Expr::Column(left_time)), Some(Expr::Column(right_time))) =
            (exprs.next(), exprs.next())
        else {
            return internal_err!("an ASOF join takes two time columns");
        };
        let mut on = vec![];
        while let (Some(left), Some(right)) = (exprs.next(), exprs.next()) {
            on.push((left, right));
        }
        let Ok(sides) = <[LogicalPlan; 2]>::try_from(inputs) else {
            return internal_err!("an ASOF join takes two inputs");
        };
        Self::try_new(sides, on, [left_time, right_time], self.bounds, self.is_outer)
    }

    /// All columns of the right side, because they decide between rows of one time.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let [time, _] = &self.times;
        let left = self.left.schema();
        let columns = left.fields().len();
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|column| *column < columns).collect();
        needed.push(left.maybe_index_of_column(time)?);
        for column in self.on.iter().flat_map(|(key, _)| key.column_refs()) {
            needed.push(left.maybe_index_of_column(column)?);
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed, (0..self.right.schema().fields().len()).collect()])
    }
}
