//! Early results of windows: `EMIT CHANGES`, `EMIT ON UPDATE` and `EMIT EVERY` over windows.
//!
//! ```text
//! filters, projections ◄─ changed groups ─ windows ◄─ rows            (a group of a window is a row of the result)
//! anything ◄─ whole windows ─ windows ◄─ rows                         (the results of a window are compared)
//! ```
//! The plan is that of `EMIT FINAL` over one window operator, which is exchanged for one with early results.
//!
//! Invariant: a plan that cannot have early results is refused by name, with an alternative.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::{LogicalPlan, Sort};
use windrow_core::{Error, time};
use windrow_operators::{
    EarlySpec, Mode, OperatorSpec, SessionOperatorSpec, StatefulOperator, early_fields,
};

use super::changing::{origin, with_changes};
use super::flow::{RowChanges, Stage};
use super::lineage;
use super::shape::refused;
use super::split::{Operators, Splitter, is_row_wise};
use crate::parse::Tail;

/// A window operator, before it is known whether it has early results.
#[derive(Debug, Clone)]
pub(super) enum WindowOperator {
    Aligned(OperatorSpec),
    Sessions(SessionOperatorSpec),
}

impl WindowOperator {
    /// The operator whose windows are emitted when they close.
    pub(super) fn of_closed(self) -> Arc<dyn StatefulOperator> {
        match self {
            Self::Aligned(spec) => Arc::new(spec),
            Self::Sessions(spec) => Arc::new(spec),
        }
    }

    /// The columns of finished rows.
    pub(super) fn output_schema(&self) -> &SchemaRef {
        match self {
            Self::Aligned(spec) => spec.output_schema(),
            Self::Sessions(spec) => spec.output_schema(),
        }
    }
}

/// The columns of early results with these columns.
///
/// # Errors
/// When one of them has the name of a column that is added.
pub(super) fn with_marks(schema: &Schema, stage: &Stage) -> Result<SchemaRef, Error> {
    let revisions = stage.early_results().is_some_and(|early| early.revisions);
    let added = early_fields(revisions);
    if let Some(taken) = added.iter().find(|f| schema.column_with_name(f.name()).is_some()) {
        let e = format!("a column is named \"{}\", like one that early results have", taken.name());
        return Err(Error::sql(e).with_hint("Give it another name with AS."));
    }
    let changes = with_changes(schema)?;
    let fields = changes.fields().iter().map(|field| field.as_ref().clone()).chain(added);
    Ok(Arc::new(Schema::new(fields.collect::<Vec<Field>>())))
}

impl Splitter<'_> {
    /// `plan`, which needs windows, as a stage that also emits open windows.
    pub(super) fn early_stage(&mut self, plan: &LogicalPlan, tail: &Tail) -> Result<Stage> {
        check_order(plan, tail)?;
        let mut operators = Operators::default();
        let finish = self.finish(plan, &mut operators)?;
        let finish = self.optimize(finish)?;
        let (mut nodes, windows) = (operators.nodes, operators.windows);
        let ([node], [(leaf, window)]) = (nodes.as_mut_slice(), windows.as_slice()) else {
            return Err(at_tail(tail, several()));
        };
        if node.leaf != *leaf {
            return Err(at_tail(tail, several()));
        }
        let row_wise = is_row_wise(&finish);
        let (early, row_wise) = self.early(window, row_wise, tail)?;
        let changes = match row_wise.then(|| key(plan)).transpose()?.flatten() {
            Some(key) => RowChanges::Upsert { key },
            None => RowChanges::Retracting,
        };
        node.operator = Arc::new(early);
        Ok(Stage {
            operators: nodes,
            finish,
            row_wise,
            keeps_order: row_wise,
            changes: Some(changes),
        })
    }

    /// The operator with early results, and whether it returns changed groups.
    fn early(
        &self,
        window: &WindowOperator,
        row_wise: bool,
        tail: &Tail,
    ) -> Result<(EarlySpec, bool)> {
        let corrected = tail.lateness.is_some();
        let made = match window {
            WindowOperator::Aligned(spec) => {
                if row_wise && matches!(spec.mode(), Mode::Aggregate { .. }) {
                    let correct_for = tail.lateness.map_or(0, |interval| interval.nanos);
                    let correct_for = time::nanos_to_ticks(correct_for, spec.time_unit());
                    EarlySpec::of_groups(spec.clone(), correct_for.map_err(refused)?)
                        .map(|early| (early, true))
                } else if corrected {
                    return Err(at_tail(
                        tail,
                        uncorrected("a ranking, a join or a LIMIT of windows"),
                    ));
                } else {
                    Ok((EarlySpec::of_whole_windows(spec.clone()), false))
                }
            }
            WindowOperator::Sessions(_) if corrected => {
                return Err(at_tail(tail, uncorrected("sessions")));
            }
            WindowOperator::Sessions(spec) => {
                if !row_wise || matches!(spec.mode(), Mode::Rows) {
                    let e = Error::sql("early results of sessions are groups by the keys of the sessions")
                        .with_hint(
                            "GROUP BY the session and its PARTITION BY columns, with nothing but expressions, WHERE and HAVING above; or use EMIT FINAL.",
                        );
                    return Err(at_tail(tail, e));
                }
                EarlySpec::of_sessions(spec.clone()).map(|early| (early, true))
            }
        };
        made.map_err(refused)
    }
}

/// Refuses an order of rows that are changes.
fn check_order(plan: &LogicalPlan, tail: &Tail) -> Result<()> {
    match plan {
        LogicalPlan::Sort(Sort { fetch: None, .. }) => {
            let e = Error::sql("ORDER BY without LIMIT has no meaning for early results, which are changes")
                .with_hint(
                    "Remove it, add LIMIT for the first rows of each window, or order a view of the results when it is read.",
                );
            Err(at_tail(tail, e))
        }
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().map_or(Ok(()), |input| check_order(input, tail))
        }
        _ => Ok(()),
    }
}

/// The error for a query over several window operators.
fn several() -> Error {
    Error::sql("early results of a query over several windows, joins or patterns are not possible").with_hint(
        "Use EMIT FINAL, or make the closed windows below a materialized view, and emit early results above it.",
    )
}

/// The error for a query that cannot correct closed windows.
fn uncorrected(what: &str) -> Error {
    Error::sql(format!(
        "{what} with early results cannot be corrected after the windows have closed"
    ))
    .with_hint("Use WITH DELAY in place of ALLOW LATENESS: windows then close that much later.")
}

fn at_tail(tail: &Tail, e: Error) -> datafusion::error::DataFusionError {
    refused(match tail.place {
        Some(place) => e.with_place(place),
        None => e,
    })
}

/// The columns of `plan` that identify a row: a bound that determines the window, and all keys of its groups; `None` when
/// one of them is not among its columns.
fn key(plan: &LogicalPlan) -> Result<Option<Vec<usize>>> {
    let Some(grouped) = grouped(plan) else { return Ok(None) };
    let LogicalPlan::Aggregate(aggregate) = grouped else { return Ok(None) };
    let known = lineage::columns(grouped)?;
    let groups = grouped.schema().fields().len() - aggregate.aggr_expr.len();
    let is_bound = |group: usize| known.get(group).is_some_and(|known| known.to_end.is_some());
    let columns = plan.schema().fields().len();
    let origins: Vec<Option<usize>> = (0..columns).map(|column| origin(plan, column)).collect();
    let place = |group: usize| origins.iter().position(|origin| *origin == Some(group));
    let (mut key, mut bound) = (vec![], false);
    for group in 0..groups {
        match place(group) {
            Some(column) => {
                bound |= is_bound(group);
                key.push(column);
            }
            None if is_bound(group) => {}
            None => return Ok(None),
        }
    }
    Ok(bound.then_some(key))
}

/// The aggregate below filters and projections.
fn grouped(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Aggregate(_) => Some(plan),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().and_then(|input| grouped(input))
        }
        _ => None,
    }
}
