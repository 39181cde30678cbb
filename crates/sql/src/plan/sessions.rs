//! Session keys: PARTITION BY of the function, or otherwise the other keys of the GROUP BY above it.
//!
//! The latter are known when the statement has been planned. They are set here, before anything else reads the plan.
//! `GROUP BY k, SESSION(ts, gap)` means sessions of the rows that reach GROUP BY: without those that WHERE removes, and
//! with those that joins add. The parser has put the window around the relation of `ts`; it moves up to the GROUP BY.
//! `FROM SESSION(t, ts, gap)` stays where it is, and means sessions of the rows of `t`.
//!
//! Invariant: the resulting plan has no undecided sessions. A GROUP BY only affects the sessions of its own SELECT, so
//! that a view or a subquery means the same wherever it is used.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::utils::{conjunction, grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, Filter, Join, LogicalPlan, SubqueryAlias};
use windrow_core::Error;

use super::assign::{BOUNDS, Keys, WindowAssign};
use super::lineage;
use super::shape::refused;
use crate::diagnostics::place_of;

/// Decides the session keys of `plan`.
///
/// # Errors
/// When a GROUP BY does not determine them.
pub(crate) fn decide(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut undecided = false;
    plan.apply_with_subqueries(|node| {
        undecided |= unknown(node).is_some();
        Ok(if undecided { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !undecided {
        return Ok(plan);
    }
    plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate),
        node => match unknown(&node) {
            // A node between it and its GROUP BY.
            Some((_, true)) => Err(cannot_tell(None)),
            // No GROUP BY above it: sessions of all rows.
            Some((assign, false)) => {
                Ok(Transformed::yes(assign.clone().with_keys(Keys::Of(vec![])).into_plan()))
            }
            None => Ok(Transformed::no(node)),
        },
    })
    .data()
}

/// The node, if it is a session window with undecided keys, and whether its sessions are those of the rows that reach
/// GROUP BY.
fn unknown(plan: &LogicalPlan) -> Option<(&WindowAssign, bool)> {
    let assign = WindowAssign::of(plan)?;
    match assign.keys() {
        Keys::Grouped { after } => Some((assign, *after)),
        Keys::Of(_) => None,
    }
}

/// Undecided sessions in a FROM.
struct Found<'a> {
    assign: &'a WindowAssign,
    after: bool,
    /// The names of its columns at the GROUP BY.
    schema: &'a DFSchema,
}

impl Found<'_> {
    /// Whether a column is one of the three bounds.
    fn is_bound(&self, column: &Column) -> bool {
        BOUNDS.contains(&column.name.as_str()) && self.schema.has_column(column)
    }
}

/// The undecided sessions in the FROM below a GROUP BY.
#[recursive::recursive]
fn find<'a>(plan: &'a LogicalPlan, into: &mut Vec<Found<'a>>) {
    match plan {
        LogicalPlan::Filter(filter) => find(&filter.input, into),
        LogicalPlan::Join(join) => {
            find(&join.left, into);
            find(&join.right, into);
        }
        LogicalPlan::SubqueryAlias(alias) => {
            if let Some((assign, after)) = unknown(&alias.input) {
                into.push(Found { assign, after, schema: &alias.schema });
            }
        }
        _ => {
            if let Some((assign, after)) = unknown(plan) {
                into.push(Found { assign, after, schema: plan.schema() });
            }
        }
    }
}

fn grouped(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut found = vec![];
    find(&aggregate.input, &mut found);
    let (input, keys) = match found.as_slice() {
        [] if is_hidden(&aggregate)? => return Err(cannot_tell(None)),
        [] => return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        [one] => match keys(&aggregate, one)? {
            // It does not group by windows: sessions of all rows.
            None => return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            Some(keys) if one.after => {
                let lifted = lift(&aggregate.input)?.ok_or_else(|| cannot_tell(None))?;
                (lifted.over(keys)?, None)
            }
            Some(keys) => {
                let keys = keys.into_iter().map(|key| inside(key, one)).collect::<Result<_>>()?;
                (Arc::unwrap_or_clone(Arc::clone(&aggregate.input)), Some(Keys::Of(keys)))
            }
        },
        _ => {
            return Err(refused(
                Error::sql("GROUP BY over more than one SESSION does not determine their keys")
                    .with_hint(
                        "Name the keys of each: SESSION(t PARTITION BY key, time column, gap).",
                    ),
            ));
        }
    };
    let input = match &keys {
        Some(keys) => with_keys(input, keys)?,
        None => input,
    };
    let aggregate = Aggregate::try_new(Arc::new(input), aggregate.group_expr, aggregate.aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// Whether a GROUP BY over sessions has keys from UNNEST: each row has one per element of a list, so they cannot be
/// session keys.
fn is_hidden(aggregate: &Aggregate) -> Result<bool> {
    let LogicalPlan::Unnest(_) = aggregate.input.as_ref() else { return Ok(false) };
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let mut columns = keys.into_iter().flat_map(Expr::column_refs);
    Ok(columns.any(|column| BOUNDS.contains(&column.name.as_str()))
        && aggregate.input.exists(|node| Ok(unknown(node).is_some()))?)
}

/// The keys of a GROUP BY other than the bounds of the sessions; `None` if those are not among its keys.
fn keys(aggregate: &Aggregate, found: &Found<'_>) -> Result<Option<Vec<Expr>>> {
    let sets = match lineage::grouping_sets(aggregate) {
        Some(sets) => sets,
        None => {
            let all = grouping_set_to_exprlist(&aggregate.group_expr)?;
            vec![all.into_iter().cloned().collect()]
        }
    };
    let (mut grouped, mut changing) = (false, false);
    let mut common: Option<Vec<Expr>> = None;
    for set in sets {
        let mut keys = vec![];
        for expr in set {
            let columns = expr.column_refs();
            let bounds = columns.iter().filter(|column| found.is_bound(column)).count();
            grouped |= bounds > 0;
            changing |= expr.is_volatile();
            if bounds == 0 && !matches!(expr, Expr::Literal(..)) {
                keys.push(expr.unalias());
            } else if bounds < columns.len() {
                return Err(mixed(&expr));
            }
        }
        match &common {
            None => common = Some(keys),
            Some(before) => {
                let same = |a: &[Expr], b: &[Expr]| a.iter().all(|key| b.contains(key));
                if !same(before, &keys) || !same(&keys, before) {
                    return Err(refused(
                        Error::sql("the grouping sets have different keys, so they do not determine those of SESSION")
                            .with_hint(PARTITION_HINT),
                    ));
                }
            }
        }
    }
    if grouped && changing {
        return Err(refused(
            Error::sql("a key of GROUP BY has another value each time it is computed, so it cannot be a key of SESSION")
                .with_hint("Compute it in a column of the stream."),
        ));
    }
    Ok(common.filter(|_| grouped))
}

const PARTITION_HINT: &str = "Name the keys of the sessions: FROM SESSION(t PARTITION BY key, time \
     column, gap), and group by window_start, window_end.";

fn mixed(expr: &Expr) -> datafusion::common::DataFusionError {
    refused(
        Error::sql(format!(
            "\"{expr}\" depends on a session and on its rows, so it cannot be one of its keys"
        ))
        .with_hint(PARTITION_HINT),
    )
}

/// The error for a key that is not a column of the input.
fn cannot_tell(column: Option<&Column>) -> datafusion::common::DataFusionError {
    let error = match column {
        Some(column) => Error::sql(format!(
            "GROUP BY does not determine the keys of SESSION: \"{}\" is not a column of its input",
            column.flat_name()
        )),
        None => Error::sql("GROUP BY does not determine the keys of SESSION"),
    };
    let error = error.with_hint(PARTITION_HINT);
    let place = column.and_then(|column| column.spans().first().and_then(place_of));
    refused(match place {
        Some(place) => error.with_place(place),
        None => error,
    })
}

/// A key over the columns of the sessions, in terms of their input.
fn inside(key: Expr, found: &Found<'_>) -> Result<Expr> {
    let kept: Vec<usize> = found.assign.kept().collect();
    key.transform(|part| match part {
        Expr::Column(column) => {
            let at = found.schema.maybe_index_of_column(&column);
            let at = at.and_then(|at| kept.get(at)).ok_or_else(|| cannot_tell(Some(&column)))?;
            let inner = Column::from(found.assign.input().schema().qualified_field(*at));
            Ok(Transformed::yes(Expr::Column(inner)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// The FROM below a GROUP BY, with its sessions decided.
#[recursive::recursive]
fn with_keys(plan: LogicalPlan, keys: &Keys) -> Result<LogicalPlan> {
    if let Some((assign, _)) = unknown(&plan) {
        return Ok(assign.clone().with_keys(keys.clone()).into_plan());
    }
    match &plan {
        LogicalPlan::Filter(_) | LogicalPlan::Join(_) => {}
        LogicalPlan::SubqueryAlias(alias) if unknown(&alias.input).is_some() => {}
        _ => return Ok(plan),
    }
    plan.map_children(|input| with_keys(input, keys).map(Transformed::yes)).data()
}

/// A FROM without its window, and the window.
struct Lifted<'a> {
    rows: LogicalPlan,
    time: Column,
    assign: &'a WindowAssign,
    qualifier: Option<TableReference>,
    /// Conditions on the window.
    conditions: Vec<Expr>,
}

impl Lifted<'_> {
    /// Puts the window over the whole FROM.
    fn over(self, keys: Vec<Expr>) -> Result<LogicalPlan> {
        let windows = self.assign.windows();
        let assign = WindowAssign::with_qualifier(self.rows, self.time, windows, self.qualifier)?;
        let plan = assign.with_keys(Keys::Of(keys)).into_plan();
        match conjunction(self.conditions) {
            None => Ok(plan),
            Some(all) => Filter::try_new(all, Arc::new(plan)).map(LogicalPlan::Filter),
        }
    }

    fn is_bound(&self, column: &Column) -> bool {
        BOUNDS.contains(&column.name.as_str())
            && (column.relation.is_none() || column.relation == self.qualifier)
    }

    /// Whether an expression refers to the window.
    fn mentions(&self, expr: &Expr) -> Result<bool> {
        let mut columns: HashSet<Column> = expr.column_refs().into_iter().cloned().collect();
        expr.apply(|part| {
            let subquery = match part {
                Expr::ScalarSubquery(subquery) => Some(subquery),
                Expr::Exists(exists) => Some(&exists.subquery),
                Expr::InSubquery(of) => Some(&of.subquery),
                Expr::SetComparison(of) => Some(&of.subquery),
                _ => None,
            };
            for outer in subquery.iter().flat_map(|subquery| &subquery.outer_ref_columns) {
                if let Expr::OuterReferenceColumn(_, column) = outer {
                    columns.insert(column.clone());
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(columns.iter().any(|column| self.is_bound(column)))
    }
}

/// Takes the window out of a FROM, if it has one that belongs above it.
#[recursive::recursive]
fn lift(plan: &LogicalPlan) -> Result<Option<Lifted<'_>>> {
    if let Some((assign, _)) = unknown(plan) {
        return Ok(Some(Lifted {
            rows: assign.input().clone(),
            time: assign.time().clone(),
            assign,
            qualifier: assign.qualifier().cloned(),
            conditions: vec![],
        }));
    }
    match plan {
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(mut below) = lift(&alias.input)? else { return Ok(None) };
            let at = below.rows.schema().index_of_column(&below.time)?;
            let rows = SubqueryAlias::try_new(Arc::new(below.rows), alias.alias.clone())?;
            below.time = Column::from(rows.schema.qualified_field(at));
            below.rows = LogicalPlan::SubqueryAlias(rows);
            below.qualifier = Some(alias.alias.clone());
            Ok(Some(below))
        }
        LogicalPlan::Filter(filter) => {
            let Some(mut below) = lift(&filter.input)? else { return Ok(None) };
            let mut of_rows = vec![];
            for condition in split_conjunction(&filter.predicate) {
                if below.mentions(condition)? {
                    below.conditions.push(condition.clone());
                } else {
                    of_rows.push(condition.clone());
                }
            }
            if let Some(all) = conjunction(of_rows) {
                below.rows = LogicalPlan::Filter(Filter::try_new(all, Arc::new(below.rows))?);
            }
            Ok(Some(below))
        }
        LogicalPlan::Join(join) => {
            if let Some(mut below) = lift(&join.left)? {
                let left = Arc::new(std::mem::take(&mut below.rows));
                return joined(join, below, left, Arc::clone(&join.right)).map(Some);
            }
            let Some(mut below) = lift(&join.right)? else { return Ok(None) };
            let right = Arc::new(std::mem::take(&mut below.rows));
            joined(join, below, Arc::clone(&join.left), right).map(Some)
        }
        _ => Ok(None),
    }
}

/// The same join over rows without the window.
fn joined<'a>(
    join: &Join,
    below: Lifted<'a>,
    left: Arc<LogicalPlan>,
    right: Arc<LogicalPlan>,
) -> Result<Lifted<'a>> {
    let conditions = join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter);
    for condition in conditions {
        if below.mentions(condition)? {
            return Err(refused(
                Error::sql(format!(
                    "\"{condition}\" refers to a session that is formed of the joined rows"
                ))
                .with_hint(
                    "Join a subquery of sessions: (SELECT … FROM SESSION(t PARTITION BY key, …)).",
                ),
            ));
        }
    }
    let joined = Join::try_new(
        left,
        right,
        join.on.clone(),
        join.filter.clone(),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    Ok(Lifted { rows: LogicalPlan::Join(joined), ..below })
}
