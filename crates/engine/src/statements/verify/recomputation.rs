//! The query that recomputes a view.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use windrow_core::{Result, Watermark};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::StreamRelation;
use windrow_stream::stream::table::LeftOut;

use super::refused::unknown_skipped;
use super::seen::{Notes, Seen};
use super::versions::with_versions;
use crate::catalog::{Catalog, Materialized, Object};
use crate::execution::context::StatementContext;

/// Returns the bounded form of the query of a view, over the rows that the view has consumed and not skipped.
///
/// # Errors
/// When it is not known which rows the view has skipped.
pub(super) fn recomputation(
    cx: &StatementContext,
    view: &Materialized,
    seen: &Seen,
    notes: &mut Notes,
) -> Result<LogicalPlan> {
    // The count is read before the list: a row that is counted is in the list, unless the list was full.
    let late = view.query.ledger.total().late;
    let places = cx.instance.parts.late_rows.places(view.query.id);
    let kept = places.len() as u64;
    let mut left_out: BTreeMap<String, LeftOut> = BTreeMap::new();
    for (stream, partition, offset) in places {
        notes.left_out +=
            u64::from(left_out.entry(stream).or_default().rows.insert((partition, offset)));
    }
    let skipped = view.query.ledger.skipped();
    let places = cx.instance.parts.bad_rows.places(view.query.id);
    if (places.len() as u64) < skipped {
        return Err(unknown_skipped(view, skipped - places.len() as u64));
    }
    for (stream, partition, offset) in places {
        notes.skipped +=
            u64::from(left_out.entry(stream).or_default().rows.insert((partition, offset)));
    }
    // A view that ended in an earlier run has consumed everything.
    for (name, rows) in seen.consumed.iter().filter(|_| seen.watermark != Watermark::END) {
        left_out.entry(name.clone()).or_default().from = Some(*rows);
    }
    for (name, rows) in &view.from {
        left_out.entry(name.clone()).or_default().before = Some(*rows);
    }
    for (stream, lost) in cx.catalog().lost() {
        for (lost, (_, to)) in lost.iter().flat_map(|lost| {
            lost.had.iter().filter(|had| had.0 == view.name).map(move |had| (lost, had))
        }) {
            let rows = (*to).min(lost.end).saturating_sub(lost.start);
            notes.reasons.push(format!(
                "the view has consumed {rows} rows that \"{stream}\" has lost since, from row {} on",
                lost.start
            ));
        }
    }
    if kept < late {
        notes.reasons.push(format!(
            "{} late rows are counted by the recomputation only: more than kept_rows_max came",
            late - kept
        ));
    }
    let partly = view.query.ledger.partly_late();
    if partly > 0 {
        notes.reasons.push(format!(
            "{partly} rows came too late for some of their windows: the recomputation counts \
             them in all"
        ));
    }
    let still_reads = seen.consumed.len() < view.reads.len() && !view.query.is_over();
    let reads_along = view.is_stateless || view.answer.is_some();
    if still_reads || (reads_along && !seen.settled) {
        notes.reasons.push(
            "the view has not consumed all rows of its streams: late ones among them are \
             counted by the recomputation only"
                .to_owned(),
        );
    }
    for name in &view.reads {
        if let [of, ..] = cx.catalog().reads(name).as_slice()
            && matches!(cx.catalog().get(name), Some(Object::Stream(_)))
        {
            notes.reasons.push(format!(
                "stream \"{name}\" replays what \"{of}\" holds now, the view has read what it held"
            ));
        }
    }
    let (plan, scans) = without(cx.catalog(), with_versions(view, view.plan.clone())?, &left_out)?;
    let several = scans.iter().find(|(stream, scans)| {
        **scans > 1 && left_out.get(*stream).is_some_and(|l| !l.rows.is_empty())
    });
    if let Some((stream, _)) = several {
        notes.reasons.push(format!(
            "stream \"{stream}\" is read more than once, and a row that was late or bad in one place \
             is left out in all"
        ));
    }
    Ok(plan)
}

/// Returns a plan whose streams lack some of their rows, and how often it reads each stream.
fn without(
    catalog: &Catalog,
    plan: LogicalPlan,
    left_out: &BTreeMap<String, LeftOut>,
) -> Result<(LogicalPlan, BTreeMap<String, usize>)> {
    let mut contents = BTreeMap::new();
    for (name, rows) in left_out {
        let stream = catalog.stream_to_read(name)?;
        contents.insert(name.as_str(), (stream, rows));
    }
    let mut scans: BTreeMap<String, usize> = BTreeMap::new();
    let plan = plan
        .transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
            let provider = source_as_provider(&scan.source).ok();
            let relation = provider.as_ref().and_then(|p| p.downcast_ref::<StreamRelation>());
            let Some(relation) = relation else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            *scans.entry(relation.name().to_owned()).or_default() += 1;
            let Some((stream, rows)) = contents.get(relation.name()) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            // With the columns that it had when the view was planned.
            let hidden = usize::from(relation.position().is_some());
            let stream = stream.as_of(relation.schema().fields().len() - hidden);
            let relation = relation.with_contents(stream.contents((*rows).clone()));
            let source = provider_as_source(Arc::new(relation));
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        })
        .data()
        .map_err(from_datafusion)?;
    Ok((plan, scans))
}
