//! `VERIFY VIEW view [FROM TIMESTAMP '…'] [TO TIMESTAMP '…']`: what a view holds beside what the
//! bounded form of its query gives over what its streams hold now.
//!
//! ```text
//! view's rows ────────────────────────────────► finished, in range ─┐
//! streams, less late rows and what the view                         ├─► compare
//! has not taken in yet ─► bounded plan ───────► finished, in range ─┘
//! ```
//! Invariants: the recomputation shares no code with the window operator; only rows are compared
//! that can no longer change; the watermark is read before the rows, and the rows before the
//! list of late ones, so that a row that comes meanwhile makes no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use futures::TryStreamExt;
use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{Error, Result, Watermark};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::Verify;
use windrow_sql::plan::StreamRelation;
use windrow_stream::Feed;
use windrow_stream::intake::{display_micros, ticks};
use windrow_stream::log::Contents;
use windrow_stream::stream::table::LeftOut;

use crate::catalog::{Materialized, Object, plain_name};
use crate::session::compare::{At, differences};
use crate::session::outcome::ready;
use crate::session::verify_refused::unknown_skipped;
use crate::session::{Outcome, Session};

/// Differing rows that are shown.
const SHOWN_MAX: usize = 20;
/// How often a view whose rows pass one by one is looked at until none is on its way.
const LOOKS_MAX: usize = 100;

/// Which rows are compared, by the view's event-time column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// The column; `None`: the view has none, all rows are compared.
    pub(super) column: Option<usize>,
    /// Only rows below this many ticks are finished; `None`: all are.
    finished: Option<i64>,
    pub(super) from_micros: Option<i64>,
    to_micros: Option<i64>,
}

/// A view at one moment.
#[derive(Debug)]
struct Seen {
    watermark: Watermark,
    rows: Contents,
    /// Per stream and view with a log: how far the view has taken it in.
    consumed: BTreeMap<String, u64>,
    /// No row was on its way from a log into the view.
    settled: bool,
}

/// What the recomputation cannot do as the view did it.
#[derive(Debug, Default)]
struct Notes {
    /// Late rows that are left out of the recomputation.
    left_out: u64,
    /// Rows that an expression of the view failed on, likewise.
    skipped: u64,
    /// Why the two may differ although both are right.
    reasons: Vec<String>,
    /// What cannot be compared, and why.
    gone: Option<String>,
}

/// What came of the comparison.
#[derive(Debug)]
struct Compared {
    /// Different event times on both sides together.
    times: BTreeSet<i64>,
    /// Rows of the view.
    rows: usize,
    /// Rows of the view, and of the recomputation, that the other does not have: event time in
    /// µs, and the row as JSON.
    only: [Vec<(Option<i64>, String)>; 2],
}

impl Session {
    pub(super) async fn verify(&self, verify: Verify) -> Result<Outcome> {
        let name = plain_name(&verify.view)?;
        let view = self.engine.catalog.materialized(&name)?;
        view.check()?;
        self.refuse_incomparable(&view).await?;
        let seen = self.look(&view).await?;
        let mut range = self.range(&view, seen.watermark, verify)?;
        let mut notes = Notes::default();
        let plan = self.recomputation(&view, &seen, &mut notes)?;
        let schema = view.log.schema();
        let mut held = within(&seen.rows.batches().await?, range)?;
        let Outcome::Rows(mut result) = self.bounded(plan).await? else {
            return Err(Error::internal("a query gave no rows"));
        };
        let mut again = vec![];
        while let Some(batch) = result.try_next().await? {
            again.extend(within(&[with_schema(&batch, schema)?], range)?);
        }
        // Asked last: what was dropped until now is told.
        if let Some(gone) = self.gone(&view)? {
            notes.gone = Some(gone.note());
            range = gone.leave_out(&view, range)?;
            held = within(&held, range)?;
            again = within(&again, range)?;
        }
        let compared = compare(schema, &held, &again, range)?;
        answer(&view, range, &seen, &notes, compared).await
    }

    /// The view as it is now. Rows that pass one by one are in the view a moment before they
    /// count as taken in; then it looks again.
    async fn look(&self, view: &Materialized) -> Result<Seen> {
        let mut passes = view.query.watch_passes();
        let mut looks = 0;
        loop {
            let over = view.query.is_over();
            let before = self.consumed(view)?;
            let watermark = view.query.state.lock().watermark;
            let rows = view.log.contents();
            let consumed = self.consumed(view)?;
            let settled = before == consumed && self.is_caught_up(view, &consumed)?;
            looks += 1;
            if settled || over || !view.row_by_row || looks == LOOKS_MAX {
                return Ok(Seen { watermark, rows, consumed, settled });
            }
            // Whichever way it ended, there is one more look to take.
            tokio::select! {
                changed = passes.changed() => drop(changed),
                ended = view.query.ended() => drop(ended),
            }
        }
    }

    /// How far the view has taken in the streams and views that have a log.
    fn consumed(&self, view: &Materialized) -> Result<BTreeMap<String, u64>> {
        let mut consumed = BTreeMap::new();
        for name in &view.reads {
            if matches!(self.engine.catalog.stream_to_read(name)?.feed, Feed::Source(_)) {
                continue;
            }
            consumed.insert(name.clone(), view.consumed(name));
        }
        Ok(consumed)
    }

    /// Whether nothing is left to take in.
    fn is_caught_up(&self, view: &Materialized, consumed: &BTreeMap<String, u64>) -> Result<bool> {
        for name in &view.reads {
            let rows = match &self.engine.catalog.stream_to_read(name)?.feed {
                Feed::Push(push) => push.log.state().rows,
                Feed::View(log) => log.state().rows,
                Feed::Source(_) => continue,
            };
            if consumed.get(name) != Some(&rows) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn range(&self, view: &Materialized, watermark: Watermark, verify: Verify) -> Result<Range> {
        let micros = |literal, clause| match literal {
            Some(literal) => self.micros(literal, clause).map(Some),
            None => Ok(None),
        };
        let from_micros = micros(verify.from, "VERIFY VIEW … FROM")?;
        let to_micros = micros(verify.to, "VERIFY VIEW … TO")?;
        if let (Some(from), Some(to)) = (from_micros, to_micros)
            && from >= to
        {
            return Err(Error::sql("the range of VERIFY VIEW is empty: FROM is not before TO")
                .with_place(verify.place)
                .with_hint("FROM is the first time that is compared, TO the first that is not."));
        }
        let Some(time) = view.event_time else {
            if from_micros.or(to_micros).is_some() {
                return Err(Error::sql(format!("view \"{}\" has no event time", view.name))
                    .with_place(verify.place)
                    .with_hint("Leave FROM and TO out, or select window_end in the view."));
            }
            if !view.row_by_row && watermark != Watermark::END {
                return Err(Error::sql(format!(
                    "view \"{}\" has no event time that tells which of its windows are finished",
                    view.name
                ))
                .with_hint("Select window_end in the view."));
            }
            return Ok(Range { column: None, finished: None, from_micros, to_micros });
        };
        let below = watermark.delayed(time.lag_ticks).ticks();
        let finished = match watermark {
            Watermark::END => None,
            Watermark::NONE => Some(i64::MIN),
            _ => Some(below.saturating_add(i64::from(time.closes))),
        };
        Ok(Range { column: Some(time.column), finished, from_micros, to_micros })
    }

    /// The view's query over the rows that the view has counted.
    fn recomputation(
        &self,
        view: &Materialized,
        seen: &Seen,
        notes: &mut Notes,
    ) -> Result<LogicalPlan> {
        // The count is read before the list: what is counted is in the list, if it was kept.
        let late = view.query.ledger.total().late;
        let places = self.engine.parts.late_rows.places(view.query.id);
        let kept = places.len() as u64;
        let mut left_out: BTreeMap<String, LeftOut> = BTreeMap::new();
        for (stream, partition, offset) in places {
            notes.left_out +=
                u64::from(left_out.entry(stream).or_default().rows.insert((partition, offset)));
        }
        let skipped = view.query.ledger.skipped();
        let places = self.engine.parts.bad_rows.places(view.query.id);
        if (places.len() as u64) < skipped {
            return Err(unknown_skipped(view, skipped - places.len() as u64));
        }
        for (stream, partition, offset) in places {
            notes.skipped +=
                u64::from(left_out.entry(stream).or_default().rows.insert((partition, offset)));
        }
        // A view that ended in an earlier run has taken in everything.
        for (name, rows) in seen.consumed.iter().filter(|_| seen.watermark != Watermark::END) {
            left_out.entry(name.clone()).or_default().from = Some(*rows);
        }
        for (name, rows) in &view.from {
            left_out.entry(name.clone()).or_default().before = Some(*rows);
        }
        for (stream, lost) in self.engine.catalog.lost() {
            for (lost, (_, to)) in lost.iter().flat_map(|lost| {
                lost.had.iter().filter(|had| had.0 == view.name).map(move |had| (lost, had))
            }) {
                let rows = (*to).min(lost.end).saturating_sub(lost.start);
                notes.reasons.push(format!(
                    "the view has taken in {rows} rows that \"{stream}\" has lost since, from row {} on",
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
        if still_reads || (view.row_by_row && !seen.settled) {
            notes.reasons.push(
                "the view has not taken in all rows of its streams: late ones among them are \
                 counted by the recomputation only"
                    .to_owned(),
            );
        }
        for name in &view.reads {
            if let [of, ..] = self.engine.catalog.reads(name).as_slice()
                && matches!(self.engine.catalog.get(name), Some(Object::Stream(_)))
            {
                notes.reasons.push(format!(
                    "stream \"{name}\" replays what \"{of}\" holds now, the view has read what it held"
                ));
            }
        }
        let (plan, scans) = self.without(view.plan.clone(), &left_out)?;
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

    /// A plan whose streams lack some of their rows, and how often it reads each stream.
    fn without(
        &self,
        plan: LogicalPlan,
        left_out: &BTreeMap<String, LeftOut>,
    ) -> Result<(LogicalPlan, BTreeMap<String, usize>)> {
        let mut contents = BTreeMap::new();
        for (name, rows) in left_out {
            let stream = self.engine.catalog.stream_to_read(name)?;
            contents.insert(name.as_str(), stream.contents(rows.clone()));
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
                let Some(rows) = contents.get(relation.name()) else {
                    return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
                };
                let relation = relation.with_contents(Arc::clone(rows));
                let source = provider_as_source(Arc::new(relation));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            })
            .data()
            .map_err(from_datafusion)?;
        Ok((plan, scans))
    }
}

/// The batch with exactly the columns of the view.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    // Whether a column may be NULL does not matter here, only whether it is.
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let fields: Vec<_> = schema.fields().iter().map(nullable).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The rows that are compared.
fn within(batches: &[RecordBatch], range: Range) -> Result<Vec<RecordBatch>> {
    let Some(index) = range.column else { return Ok(batches.to_vec()) };
    let mut kept = vec![];
    for batch in batches {
        let column = batch.column(index);
        let times = ticks(column)?;
        let unit = time_unit(column.data_type());
        let all = range.finished.or(range.from_micros).or(range.to_micros).is_none();
        let keep = times.iter().enumerate().map(|(row, time)| {
            let finished = range.finished.is_none_or(|end| *time < end);
            let micros = unit.map_or(*time, |unit| ticks_to_micros(*time, unit));
            let inside = range.from_micros.is_none_or(|from| micros >= from)
                && range.to_micros.is_none_or(|to| micros < to);
            Some(if column.is_null(row) { all } else { finished && inside })
        });
        let rows = filter_record_batch(batch, &BooleanArray::from_iter(keep))?;
        if rows.num_rows() > 0 {
            kept.push(rows);
        }
    }
    Ok(kept)
}

fn compare(
    schema: &SchemaRef,
    held: &[RecordBatch],
    again: &[RecordBatch],
    range: Range,
) -> Result<Compared> {
    let mut times = BTreeSet::new();
    if let Some(column) = range.column {
        for batch in held.iter().chain(again) {
            times.extend(ticks(batch.column(column))?);
        }
    }
    let [left, right] = differences(schema, held, again)?;
    let described = |batches: &[RecordBatch], rows: Vec<At>| -> Result<Vec<_>> {
        let mut described = rows
            .into_iter()
            .filter_map(|(batch, row)| Some((batches.get(batch)?, row)))
            .map(|(batch, row)| {
                let time = range.column.map(|c| batch.column(c));
                let time = match time {
                    Some(column) => ticks(column)?
                        .get(row)
                        .and_then(|ticks| display_micros(*ticks, column.data_type())),
                    None => None,
                };
                Ok((time, json(batch, row)?))
            })
            .collect::<Result<Vec<_>>>()?;
        described.sort_unstable();
        Ok(described)
    };
    let only = [described(held, left)?, described(again, right)?];
    let rows = held.iter().map(RecordBatch::num_rows).sum();
    Ok(Compared { times, rows, only })
}

/// One row as JSON, NULLs written out.
fn json(batch: &RecordBatch, row: usize) -> Result<String> {
    let mut line = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(&mut line);
    writer.write(&batch.slice(row, 1))?;
    writer.finish()?;
    drop(writer);
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// A row of the answer: status, side, event time in µs, the row as JSON.
type Line = (String, Option<&'static str>, Option<i64>, Option<String>);

/// The summary, why the two may differ, and the first rows that do.
async fn answer(
    view: &Materialized,
    range: Range,
    seen: &Seen,
    notes: &Notes,
    compared: Compared,
) -> Result<Outcome> {
    let mut lines: Vec<Line> =
        vec![(summary(view, range, seen, notes, &compared), None, None, None)];
    lines.extend(notes.gone.iter().map(|note| (format!("note: {note}"), None, None, None)));
    let [held, again] = compared.only;
    if !held.is_empty() || !again.is_empty() {
        lines.extend(notes.reasons.iter().map(|note| (format!("note: {note}"), None, None, None)));
    }
    let mut differing: Vec<_> = [("view", held), ("recomputed", again)]
        .into_iter()
        .enumerate()
        .flat_map(|(order, (side, rows))| {
            rows.into_iter().map(move |(time, row)| (time, order, side, row))
        })
        .collect();
    differing.sort_unstable();
    let more = differing.len().saturating_sub(SHOWN_MAX);
    let shown = differing.into_iter().take(SHOWN_MAX);
    lines.extend(
        shown.map(|(time, _, side, row)| ("differs".to_owned(), Some(side), time, Some(row))),
    );
    if more > 0 {
        lines.push((format!("note: {more} more rows differ"), None, None, None));
    }
    let status: ArrayRef = Arc::new(StringArray::from_iter_values(lines.iter().map(|l| &l.0)));
    let side: ArrayRef = Arc::new(StringArray::from_iter(lines.iter().map(|l| l.1)));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter(lines.iter().map(|l| l.2)));
    let row: ArrayRef = Arc::new(StringArray::from_iter(lines.iter().map(|l| l.3.as_deref())));
    let batch = RecordBatch::try_new(columns(), vec![status, side, time, row])?;
    Ok(Outcome::Rows(ready(columns(), vec![batch]).await))
}

/// The columns of the answer.
pub(super) fn columns() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("status", DataType::Utf8, false),
        Field::new("side", DataType::Utf8, true),
        Field::new("event_time", time, true),
        Field::new("row", DataType::Utf8, true),
    ]))
}

/// What was compared and what came of it, in one line.
fn summary(
    view: &Materialized,
    range: Range,
    seen: &Seen,
    notes: &Notes,
    compared: &Compared,
) -> String {
    let mut said = vec![];
    if range.column.is_some() && !view.row_by_row {
        said.push(format!("{} windows", compared.times.len()));
    }
    said.push(format!("{} rows", compared.rows));
    if notes.left_out > 0 {
        said.push(format!("{} late rows left out", notes.left_out));
    }
    if notes.skipped > 0 {
        said.push(format!("{} skipped rows left out", notes.skipped));
    }
    if seen.watermark == Watermark::NONE && range.column.is_some() {
        said.push("no watermark yet".to_owned());
    }
    let said = said.join(", ");
    match &compared.only {
        [held, again] if held.is_empty() && again.is_empty() => format!("equal: {said}"),
        [held, again] => format!(
            "differs: {said}; {} rows only in the view, {} only in the recomputation",
            held.len(),
            again.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;
    use crate::engine::{Engine, EngineConfig};
    use crate::session::SessionOptions;

    const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, k, \
                        sum(x) AS total FROM TUMBLE(s, ts, INTERVAL '10 seconds') \
                        GROUP BY window_start, window_end, k";

    /// The text of the first and the third column: status, and whether there is a side.
    async fn verify(session: &Session) -> Vec<(String, String)> {
        let Outcome::Rows(rows) = session.run("VERIFY VIEW v").await.unwrap() else { panic!() };
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        let text = |batch: &RecordBatch, column: usize, row: usize| {
            let column = batch.column(column).as_string::<i32>();
            if column.is_null(row) { String::new() } else { column.value(row).to_owned() }
        };
        let lines = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)));
        lines.map(|(b, row)| (text(b, 0, row), text(b, 1, row) + &text(b, 3, row))).collect()
    }

    async fn session(engine: &Engine, view: &str) -> Session {
        let session = engine.session(SessionOptions { push_ends: true }).unwrap();
        for sql in [
            "CREATE STREAM s (k TEXT, x DOUBLE, ts TIMESTAMP, WATERMARK FOR ts)",
            view,
            "INSERT INTO s VALUES ('a', 0.1, '2026-01-01 00:00:01'), \
             ('a', 0.2, '2026-01-01 00:00:02'), ('b', 1, '2026-01-01 00:00:11'), \
             ('b', 5, '2026-01-01 00:00:25')",
            "WAIT FOR v",
        ] {
            session.run(sql).await.unwrap();
        }
        session
    }

    #[test]
    fn a_row_too_many_in_the_view_is_found() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        futures::executor::block_on(async {
            let session = session(&engine, VIEW).await;
            let first = verify(&session).await;
            assert_eq!(first, [("equal: 2 windows, 2 rows".to_owned(), String::new())]);
            let log = Arc::clone(&session.engine.catalog.materialized("v").unwrap().log);
            log.append(log.contents().tail_in_memory().unwrap()[0].slice(0, 1)).unwrap();
            let [summary, row] = <[_; 2]>::try_from(verify(&session).await).unwrap();
            assert!(
                summary.0.starts_with("differs: 2 windows, 3 rows; 1 rows only in the view, 0")
            );
            assert!(row.1.starts_with("view{") && row.1.contains(r#""k":"a""#), "{row:?}");
        });
        engine.shutdown();
    }

    #[test]
    fn a_row_that_never_was_in_a_view_without_windows_is_found() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        futures::executor::block_on(async {
            let view = "CREATE MATERIALIZED VIEW v AS SELECT k, x FROM s WHERE x < 3";
            let session = session(&engine, view).await;
            let first = verify(&session).await;
            assert_eq!(first, [("equal: 3 rows".to_owned(), String::new())]);
            let log = Arc::clone(&session.engine.catalog.materialized("v").unwrap().log);
            let other = log.contents().tail_in_memory().unwrap()[0].slice(0, 1);
            let k: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
            let k = cast(&k, other.schema().field(0).data_type()).unwrap();
            let columns = vec![k, Arc::clone(other.column(1))];
            log.append(RecordBatch::try_new(other.schema(), columns).unwrap()).unwrap();
            let [_, row] = <[_; 2]>::try_from(verify(&session).await).unwrap();
            assert_eq!(row.1, r#"view{"k":null,"x":0.1}"#);
        });
        engine.shutdown();
    }
}
