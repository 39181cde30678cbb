//! ASOF joins as a node of a logical plan: each row of the left side with the one row of the right side that is closest to it
//! in time, before it or after it.
//!
//! The parser leaves a marker in ON ([`crate::parse`]): `a JOIN b ON "$asof"(a.ts >= b.ts) AND a.k = b.k`, or
//! `"$as_of"(a.ts)` of `FOR SYSTEM_TIME AS OF a.ts`. [`decide`] makes an [`AsofJoin`] of it, as soon as the statement has
//! been planned. It is *never* executed: the bounded form lowers it ([`super::asof_bounded`]), the continuous form makes an
//! operator of it ([`super::asof_join`]).
//!
//! Invariants: the bounds are exact in ticks of the times, and allow rows of one direction only; the output is the columns of
//! the left side, then those of the right one, NULL where an outer join has found nothing. Of several rows of the
//! right side at one time, the one with the greatest values counts, column by column, NULL being the smallest.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::tree_node::{
    Transformed, TransformedResult, TreeNode, TreeNodeRecursion,
};
use datafusion::common::{Column, DFSchemaRef, JoinType, Result, internal_err};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Extension, Join, LogicalPlan, Operator,
    UserDefinedLogicalNodeCore, build_join_schema,
};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use windrow_core::Error;

use super::interval::{self, Bound, Time};
use super::lineage::{self, Known};
use super::shape::refused;
use crate::diagnostics::place_of;
use crate::functions::{AS_OF, ASOF};

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
    /// Rows of the left side that match nothing are kept.
    pub(crate) is_outer: bool,
    schema: DFSchemaRef,
}

/// `lower <= left - right <= upper` in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct Bounds {
    /// `None`: a later row counts however late it is.
    pub(crate) lower: Option<i64>,
    /// `None`: an earlier row counts however old it is.
    pub(crate) upper: Option<i64>,
}

impl Bounds {
    /// Whether the row of the right side is the earlier one.
    pub(crate) fn look_back(self) -> bool {
        self.lower.is_some_and(|lower| lower >= 0)
    }
}

impl AsofJoin {
    fn try_new(
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

    /// The same with other keys.
    pub(crate) fn with_on(self, on: Vec<(Expr, Expr)>) -> Self {
        Self { on, ..self }
    }

    /// The columns of the output.
    pub(crate) fn columns(&self) -> &DFSchemaRef {
        &self.schema
    }
}

/// Puts nodes in the place of joins that the parser has marked.
///
/// # Errors
/// When a condition is none that an ASOF join has.
pub(crate) fn decide(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut marked = false;
    plan.apply_with_subqueries(|node| {
        marked |= node.expressions().iter().any(is_marked);
        Ok(if marked { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !marked {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(is_marked) => {
            Ok(Transformed::yes(of_join(&join)?.into_plan()))
        }
        node if node.expressions().iter().any(is_marked) => Err(refused(
            Error::sql("the condition of an ASOF join stands where there is none").with_hint(
                "Write it in ON, beside other conditions with AND: a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts.",
            ),
        )),
        node => Ok(Transformed::no(node)),
    })
    .data()
}

/// The arguments of a marker, if the expression is one.
fn marker(expr: &Expr) -> Option<(&str, &[Expr])> {
    match expr {
        Expr::ScalarFunction(call) => {
            let name = [ASOF, AS_OF].into_iter().find(|name| *name == call.func.name())?;
            Some((name, &call.args))
        }
        _ => None,
    }
}

fn is_marked(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(marker(expr).is_some())).unwrap_or(false)
}

/// What the conditions of a marked join say.
#[derive(Default)]
struct Conditions {
    on: Vec<(Expr, Expr)>,
    bounds: Vec<Bound>,
    /// The time as of which versions are read.
    as_of: Option<Expr>,
}

fn of_join(join: &Join) -> Result<AsofJoin> {
    let is_outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        other => {
            return Err(refused(
                Error::sql(format!("{other} ASOF JOIN is not supported"))
                    .with_hint("Use ASOF JOIN or ASOF LEFT JOIN, with the sides the other way round."),
            ));
        }
    };
    let mut found = Conditions::default();
    for condition in join.filter.iter().flat_map(split_conjunction) {
        match marker(condition) {
            Some((AS_OF, [time])) => found.as_of = Some(time.clone()),
            Some((_, args)) => {
                for condition in args.iter().flat_map(split_conjunction) {
                    read(join, condition, &mut found)?;
                }
            }
            None => read(join, condition, &mut found)?,
        }
    }
    found.on.extend(join.on.iter().cloned());
    let (times, bounds) = match found.as_of.take() {
        Some(time) => as_of(join, time, &found.bounds)?,
        None => closest(&found.bounds)?,
    };
    let sides = [join.left.as_ref().clone(), join.right.as_ref().clone()];
    AsofJoin::try_new(sides, found.on, times, bounds, is_outer)
}

/// Takes a condition as a bound of the times or as equal keys.
fn read(join: &Join, condition: &Expr, found: &mut Conditions) -> Result<()> {
    let bounds = match condition {
        // Times may be equal keys.
        Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }) => vec![],
        other => {
            let (left, right) = (timestamps(&join.left), timestamps(&join.right));
            interval::bounds_of(other, (&join.left, &left), (&join.right, &right))
        }
    };
    if !bounds.is_empty() {
        found.bounds.extend(bounds);
        return Ok(());
    }
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition {
        let of = |expr: &Expr, plan: &LogicalPlan| {
            let columns = expr.column_refs();
            !columns.is_empty()
                && columns.iter().all(|column| plan.schema().has_column(column))
        };
        let pair = if of(left, &join.left) && of(right, &join.right) {
            Some((left, right))
        } else if of(right, &join.left) && of(left, &join.right) {
            Some((right, left))
        } else {
            None
        };
        if let Some((left, right)) = pair {
            found.on.push(of_one_type(join, left, right)?);
            return Ok(());
        }
    }
    let e = Error::sql(format!("an ASOF join cannot have the condition {condition}"));
    let hint = "Its conditions are equal keys (a.k = b.k) and the order of two timestamps of the same precision (a.ts >= b.ts, \
                and a.ts <= b.ts + INTERVAL '1 minute'), with AND. Conditions of one side go into a subquery.";
    Err(refused(placed(e.with_hint(hint), condition)))
}

fn placed(error: Error, condition: &Expr) -> Error {
    let columns = condition.column_refs();
    let place = columns.into_iter().find_map(|column| place_of(column.spans().first()?));
    match place {
        Some(place) => error.with_place(place),
        None => error,
    }
}

/// Both keys in a type in which they can be compared.
fn of_one_type(join: &Join, left: &Expr, right: &Expr) -> Result<(Expr, Expr)> {
    let (of_left, of_right) =
        (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
    if of_left == of_right {
        return Ok((left.clone(), right.clone()));
    }
    let Some(common) = comparison_coercion(&of_left, &of_right) else {
        return Err(refused(placed(
            Error::sql(format!("{left} ({of_left}) cannot be compared with {right} ({of_right})"))
                .with_hint("Cast one of them to the type of the other."),
            left,
        )));
    };
    Ok((
        left.clone().cast_to(&common, join.left.schema())?,
        right.clone().cast_to(&common, join.right.schema())?,
    ))
}

/// All columns that are timestamps, as if they were event times: the bounded form compares any.
fn timestamps(plan: &LogicalPlan) -> Vec<Known> {
    let fields = plan.schema().fields().iter();
    let known = fields.map(|field| {
        let is_time = windrow_core::time::time_unit(field.data_type()).is_some();
        Known { to_end: None, lag: is_time.then_some(0) }
    });
    known.collect()
}

/// The times of an ASOF join, and its bounds.
fn closest(bounds: &[Bound]) -> Result<([Column; 2], Bounds)> {
    let Some(first) = bounds.first() else {
        return Err(refused(
            Error::sql("an ASOF join needs the order of two timestamps").with_hint(
                "Add it: … AND a.ts >= b.ts for the latest row of b before, a.ts <= b.ts for the next one.",
            ),
        ));
    };
    let same = |of: &Bound| of.left.column == first.left.column && of.right.column == first.right.column;
    if let Some(other) = bounds.iter().find(|bound| !same(bound)) {
        return Err(refused(
            Error::sql(format!(
                "an ASOF join compares \"{}\" with \"{}\", and also \"{}\" with \"{}\"",
                first.left.column, first.right.column, other.left.column, other.right.column
            ))
            .with_hint("It has one time on each side."),
        ));
    }
    let found = Bounds {
        lower: bounds.iter().filter_map(|bound| bound.lower).max(),
        upper: bounds.iter().filter_map(|bound| bound.upper).min(),
    };
    if !found.look_back() && found.upper.is_none_or(|upper| upper > 0) {
        return Err(refused(
            Error::sql(format!(
                "an ASOF join looks for an earlier or for a later row, but \"{}\" may be on both sides of \"{}\"",
                first.right.column, first.left.column
            ))
            .with_hint(
                "Compare the times themselves: a.ts >= b.ts or a.ts <= b.ts; a tolerance bounds the other direction.",
            ),
        ));
    }
    Ok(([first.left.column.clone(), first.right.column.clone()], found))
}

/// The times of a join with the versions of a stream as of a time.
fn as_of(join: &Join, time: Expr, bounds: &[Bound]) -> Result<([Column; 2], Bounds)> {
    let Expr::Column(left) = time else {
        let e = Error::sql(format!("FOR SYSTEM_TIME AS OF takes a column, not {time}"));
        return Err(refused(placed(e.with_hint("Write FOR SYSTEM_TIME AS OF a.ts."), &time)));
    };
    let known = lineage::columns(&join.right)?;
    let times = known.iter().enumerate().filter(|(_, known)| known.lag.is_some());
    let columns: Vec<Column> =
        times.map(|(i, _)| Column::from(join.right.schema().qualified_field(i))).collect();
    let [right] = columns.as_slice() else {
        return Err(refused(
            Error::sql(match columns.len() {
                0 => "FOR SYSTEM_TIME AS OF needs a stream, whose rows are versions by their event time".to_owned(),
                _ => "FOR SYSTEM_TIME AS OF of a relation with several event times is ambiguous".to_owned(),
            })
            .with_hint("Use ASOF JOIN … AND a.ts >= b.ts with the time that is meant; a table that does not change needs only JOIN."),
        ));
    };
    if !bounds.is_empty() {
        return Err(refused(
            Error::sql("FOR SYSTEM_TIME AS OF says which version counts: ON can have no further order of times")
                .with_hint("Use ASOF JOIN for a tolerance."),
        ));
    }
    let type_of = |plan: &LogicalPlan, column: &Column| {
        let index = plan.schema().maybe_index_of_column(column)?;
        interval::unit_of(plan, &Time { column: column.clone(), index, lag_ticks: 0 })
    };
    if type_of(&join.left, &left).is_none()
        || type_of(&join.left, &left) != type_of(&join.right, right)
    {
        return Err(refused(
            Error::sql(format!(
                "\"{left}\" and \"{right}\" are not timestamps of the same precision"
            ))
            .with_hint("Cast the time columns to the same timestamp type."),
        ));
    }
    Ok(([left, right.clone()], Bounds { lower: Some(0), upper: None }))
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
        let (direction, strict) = match (self.bounds.lower, self.bounds.upper) {
            (Some(lower), _) if lower >= 0 => (">=", lower),
            (_, upper) => ("<=", upper.unwrap_or(0)),
        };
        write!(f, "{kind} AsofJoin: {left} {direction} {right}")?;
        if strict != 0 {
            write!(f, " + {strict} ticks")?;
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

    /// Of the right side all columns: they decide between rows of one time.
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
