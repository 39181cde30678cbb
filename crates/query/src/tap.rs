//! A tap: the point at which one query takes rows from a scan.
//!
//! ```text
//! scanned batch ─► late? ─► prepare plan ─► this worker's part of an operator (a windowed query)
//!                    │             └──────► output                         (a stateless one)
//!                    └─► late rows: counted, kept, LATE DATA TO
//! ```
//! The ledger follows the order of the query's text: a row that WHERE removes is filtered, even if it is late.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use windrow_core::{BadRow, Behind, Error, PartitionId, Result, Split, Watermark};
use windrow_operators::StatefulOperator;
use windrow_operators::lateness::{NotOnTime, Tolerance};
use windrow_sql::leaf::LeafId;
use windrow_stream::intake::{TakenIn, display_micros, render_row, ticks};
use windrow_stream::kept::{BadRows, Late, LateRows};
use windrow_stream::memory::{MeasuredStore, OperatorMemory};
use windrow_stream::push::PushStream;
use windrow_stream::stream::table::with_positions;

use crate::ledger::{Entry, passed};
use crate::numbered::number_rows;
use crate::output::Output;
use crate::runner::PlanRunner;
use crate::shared::Shared;
use crate::skipping::{Skipped, run_rows};
use crate::tap_state::TapState;
use crate::versions::{Inputs, VersionedLeaf, event_micros, picked};

/// The parts of all workers that feed one stateful operator.
pub(crate) type Stores = Arc<Mutex<Vec<Arc<Mutex<MeasuredStore>>>>>;

/// One query's interest in one scan; shared by the scan's workers.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stream: String,
    pub(crate) leaf: LeafId,
    /// The indexes of the leaf's columns among the scanned ones.
    pub(crate) projection: Vec<usize>,
    /// Whether the leaf has the positions of its rows as a last column.
    pub(crate) positions: bool,
    /// The index of the event-time column among the scanned ones.
    pub(crate) time: Option<usize>,
    pub(crate) plan: PreparePlan,
    pub(crate) state: SessionState,
    pub(crate) sink: Sink,
    pub(crate) late_rows: Arc<LateRows>,
    /// The stream for late rows (`LATE DATA TO`).
    pub(crate) late_to: Option<Arc<PushStream>>,
    /// The store for rows on which expressions fail; `None`: the query then fails.
    pub(crate) skipped: Option<Arc<BadRows>>,
    /// Its position in the stream.
    pub(crate) at: Arc<TapState>,
}

/// The stateless part of a query, as physical plans.
#[derive(Debug, Clone)]
pub(crate) struct PreparePlan {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// The same plan, with the number of the input row as a last column.
    pub(crate) traced: Arc<dyn ExecutionPlan>,
    /// Whether each input row has at most one output row (no join, no unnest), so that counting needs no tracing.
    pub(crate) row_preserving: bool,
    /// The scans of refreshed tables in both.
    pub(crate) tables: Vec<VersionedLeaf>,
}

/// The destination of prepared rows.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A stateful operator.
    Operator {
        operator: Arc<dyn StatefulOperator>,
        /// The number of the operator's input.
        input: usize,
        tolerance: Tolerance,
        stores: Stores,
        memory: Option<Arc<OperatorMemory>>,
    },
    /// The output: the query is stateless.
    Rows {
        output: Output,
        /// The delay of the stream's watermark behind its event times, in ticks.
        delay: i64,
    },
}

impl Sink {
    fn delay(&self) -> i64 {
        match self {
            Self::Operator { tolerance, .. } => tolerance.delay,
            Self::Rows { delay, .. } => *delay,
        }
    }
}

/// The tap of one worker, with its own plans and state.
#[derive(Debug)]
pub(crate) struct TapWorker {
    pub(crate) tap: Arc<Tap>,
    runner: PlanRunner,
    traced: PlanRunner,
    store: Option<Arc<Mutex<MeasuredStore>>>,
}

impl Tap {
    /// Records that a split is about to be read from its start, and requests a checkpoint if that is new: its identity
    /// must be durable before windows with its rows are archived, because the file may have another name after a
    /// restart.
    pub(crate) fn begins(&self, partition: &str, split: &Split, place: &Arc<str>) {
        if self.at.positions.lock().begin(partition, split, place) {
            self.shared.ask_checkpoint();
        }
    }
}

/// The origin of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) partition: PartitionId,
    /// The partition's name.
    pub(crate) name: &'a str,
    pub(crate) split: &'a Split,
    /// The partition's watermark just before the batch.
    pub(crate) before: Watermark,
    /// One past the batch's last offset.
    pub(crate) consumed: u64,
    /// The reader's description of that position.
    pub(crate) place: Option<&'a Arc<str>>,
    /// The largest event time of the lane, this batch included, in ticks.
    pub(crate) max: Option<i64>,
}

/// Rows of a micro-batch, or some of them, as the input of a plan.
struct Rows<'a> {
    taken: &'a TakenIn,
    origin: Origin<'a>,
    /// The columns that the plan reads.
    input: RecordBatch,
    /// Their numbers in the batch; `None`: they are all rows.
    at: Option<&'a [usize]>,
}

impl Rows<'_> {
    /// Returns those with the numbers `at`, of all rows.
    fn some<'a>(&'a self, at: &'a [usize]) -> Result<Rows<'a>> {
        let &Rows { taken, origin, .. } = self;
        Ok(Rows { taken, origin, input: pick(&self.input, at)?, at: Some(at) })
    }
}

/// The output of a traced plan: rows, and for each the number of its input row.
struct Traced {
    batches: Vec<RecordBatch>,
    from: Vec<Vec<u64>>,
    /// The number of input rows on which it failed.
    skipped: u64,
}

impl TapWorker {
    /// Returns the tap of a new worker, and registers its store.
    pub(crate) fn new(tap: Arc<Tap>) -> Self {
        let store = match &tap.sink {
            Sink::Operator { operator, input, stores, memory, .. } => {
                let store = MeasuredStore::new(operator.worker(*input), memory.as_ref());
                let store = Arc::new(Mutex::new(store));
                stores.lock().push(Arc::clone(&store));
                Some(store)
            }
            Sink::Rows { .. } => None,
        };
        let runner = PlanRunner::new(Arc::clone(&tap.plan.plan), &tap.state);
        let traced = PlanRunner::new(Arc::clone(&tap.plan.traced), &tap.state);
        Self { tap, runner, traced, store }
    }

    /// The name of the query in errors.
    pub(crate) fn preparing(&self) -> String {
        format!("query \"{}\"", self.tap.shared.name)
    }

    /// Processes a batch in the taps of a query, so that the coordinator sees it in all of them or in none. On return, its
    /// rows are in the state or have been sent; only then may the watermark move past them.
    pub(crate) async fn take_together(
        taps: &[Self],
        taken: &TakenIn,
        origin: Origin<'_>,
    ) -> Result<()> {
        let mut unread = Vec::with_capacity(taps.len());
        for tap in taps {
            unread.extend(tap.not_yet_read(taken, origin).map(|of| (tap, of)));
        }
        let Some((first, _)) = unread.first() else { return Ok(()) };
        let shared = Arc::clone(&first.tap.shared);
        shared.wait_for_room(unread.len()).await?;
        let _inside = shared.gate.read().await;
        for (tap, (taken, origin)) in &unread {
            tap.take_inside(taken.as_ref(), *origin).await?;
        }
        Ok(())
    }

    async fn take_inside(&self, taken: &TakenIn, mut origin: Origin<'_>) -> Result<()> {
        // The hold moves only while no worker is inside.
        origin.before = origin.before.advance(self.tap.at.hold());
        let began = self.tap.shared.clock.now_micros();
        let mut entry = Entry {
            rows_in: taken.rows.num_rows() as u64 + taken.bad.len() as u64 + taken.skipped,
            bad: taken.bad.len() as u64,
            filtered: taken.skipped,
            ..Entry::default()
        };
        if taken.rows.num_rows() > 0 {
            self.take_rows(taken, origin, &mut entry).await?;
        }
        if !entry.is_balanced() {
            return Err(Error::internal(format!(
                "rows of query \"{}\" are unaccounted for: {entry:?}",
                self.tap.shared.name
            )));
        }
        self.tap.shared.ledger.add(entry);
        let mut positions = self.tap.at.positions.lock();
        let read = (origin.consumed, origin.place);
        positions.advance(origin.name, origin.split, read, origin.max);
        drop(positions);
        let micros = self.tap.shared.clock.now_micros().saturating_sub(began);
        self.tap.shared.latency.add(micros.unsigned_abs());
        self.tap.shared.batch_done();
        Ok(())
    }

    /// Returns the part of a batch that the query had not read before a restart. (Another query may need all of it.)
    fn not_yet_read<'a, 'b>(
        &self,
        taken: &'a TakenIn,
        mut origin: Origin<'b>,
    ) -> Option<(Cow<'a, TakenIn>, Origin<'b>)> {
        let Some(read) = self.tap.at.from.of(origin.name, origin.split.number) else {
            return Some((Cow::Borrowed(taken), origin));
        };
        if read.done || origin.consumed <= read.consumed {
            return None;
        }
        if let Some(max) = read.max {
            let reached = Watermark::at(max).delayed(self.tap.sink.delay());
            origin.before = origin.before.advance(reached);
        }
        let offsets = &taken.row_offsets;
        let rows = taken.rows.num_rows();
        let read_rows = (0..rows).take_while(|row| offsets.offset(*row) < read.consumed).count();
        let read_bad = taken.bad.iter().any(|bad| bad.offset < read.consumed);
        if read_rows == 0 && !read_bad {
            return Some((Cow::Borrowed(taken), origin));
        }
        Some((Cow::Owned(taken.after(read_rows, read.consumed)), origin))
    }

    async fn take_rows(
        &self,
        taken: &TakenIn,
        origin: Origin<'_>,
        entry: &mut Entry,
    ) -> Result<()> {
        let mut input = taken.rows.project(&self.tap.projection)?;
        if self.tap.positions {
            input = with_positions(&input, origin.name, |row| taken.row_offsets.offset(row))?;
        }
        let all = Rows { taken, origin, input, at: None };
        let Some(store) = &self.store else {
            return self.pass_on(all, entry).await;
        };
        let not_on_time = self.not_on_time(taken, origin)?;
        if not_on_time.is_empty() {
            return self.aggregate(store, all, entry).await;
        }
        let apart: Vec<usize> = not_on_time
            .late
            .iter()
            .copied()
            .chain(not_on_time.partly.iter().map(|p| p.0))
            .collect();
        let mut on_time = vec![true; all.input.num_rows()];
        for row in &apart {
            if let Some(slot) = on_time.get_mut(*row) {
                *slot = false;
            }
        }
        let at: Vec<usize> =
            (0..on_time.len()).filter(|row| on_time.get(*row) == Some(&true)).collect();
        let rest = filter_record_batch(&all.input, &BooleanArray::from(on_time))?;
        let rest = Rows { taken, origin, input: rest, at: Some(&at) };
        self.aggregate(store, rest, entry).await?;
        self.take_late(store, &all, &not_on_time, entry).await
    }

    /// Returns the rows of the batch that are not on time. For most batches, no single row is examined.
    fn not_on_time(&self, taken: &TakenIn, origin: Origin<'_>) -> Result<NotOnTime> {
        if !taken.behind.is_empty() || taken.times.is_none() {
            return self.not_on_time_of_view(taken, origin.before);
        }
        let (Sink::Operator { operator, input, tolerance, .. }, Some((min, max)), Some(time)) =
            (&self.tap.sink, taken.times, self.tap.time)
        else {
            return Ok(NotOnTime::default());
        };
        let behind = tolerance.delay.saturating_add(tolerance.allowed_lateness);
        let closed = origin.before.delayed(tolerance.allowed_lateness).ticks();
        if min >= closed && min >= max.saturating_sub(behind) {
            return Ok(NotOnTime::default());
        }
        let times = ticks(taken.rows.column(time))?;
        Ok(operator.classify(*input, times, origin.before, *tolerance))
    }

    /// The same for rows of a view, which marks those that arrived behind a watermark. The others are on time, except
    /// those before `hold`, up to which the query has advanced while the view was idle.
    fn not_on_time_of_view(&self, taken: &TakenIn, hold: Watermark) -> Result<NotOnTime> {
        let mut found = NotOnTime::default();
        let (Sink::Operator { operator, input, tolerance, .. }, Some(time)) =
            (&self.tap.sink, self.tap.time)
        else {
            return Ok(found);
        };
        let behind = behind_or_held(taken, time, hold.delayed(tolerance.allowed_lateness))?;
        let times = ticks(taken.rows.column(time))?;
        for Behind { row, watermark } in behind {
            let time = times.get(row).map(std::slice::from_ref).unwrap_or_default();
            let one = operator.classify(*input, time, watermark.advance(hold), *tolerance);
            found.late.extend(one.late.iter().map(|_| row));
            found.partly.extend(one.partly.iter().map(|(_, end)| (row, *end)));
        }
        Ok(found)
    }

    /// Runs a stateless query over the rows, and sends the output.
    async fn pass_on(&self, all: Rows<'_>, entry: &mut Entry) -> Result<()> {
        let Sink::Rows { output, .. } = &self.tap.sink else { return Ok(()) };
        let tells = output.tells_behind();
        let behind = if tells { self.behind(all.taken, all.origin)? } else { vec![] };
        if behind.is_empty() {
            for rows in self.prepare(all, entry).await? {
                let new = output.pass(rows, &[]).await?;
                self.tap.shared.ledger.add_rows_out(new);
            }
            return Ok(());
        }
        let rows_in = all.input.num_rows() as u64;
        let Traced { batches, from, skipped } = self.trace(all, entry).await?;
        passed(entry, rows_in - skipped, &from);
        for (rows, from) in batches.into_iter().zip(from) {
            let mark = |(row, from): (usize, &u64)| {
                let at = behind.binary_search_by_key(from, |b| b.row as u64).ok()?;
                behind.get(at).map(|b| Behind { row, ..*b })
            };
            let marks: Vec<Behind> = from.iter().enumerate().filter_map(mark).collect();
            let new = output.pass(rows, &marks).await?;
            self.tap.shared.ledger.add_rows_out(new);
        }
        Ok(())
    }

    /// Returns the rows of the batch that arrived behind the watermark of their partition. For most batches, no single
    /// row is examined.
    fn behind(&self, taken: &TakenIn, origin: Origin<'_>) -> Result<Vec<Behind>> {
        let (Some((min, max)), Some(time)) = (taken.times, self.tap.time) else {
            return match self.tap.time {
                Some(time) => behind_or_held(taken, time, origin.before),
                None => Ok(taken.behind.clone()),
            };
        };
        let delay = self.tap.sink.delay();
        let mut before = origin.before;
        if min >= before.ticks() && min >= max.saturating_sub(delay) {
            return Ok(vec![]);
        }
        let mut behind = Vec::new();
        for (row, time) in ticks(taken.rows.column(time))?.iter().enumerate() {
            if *time < before.ticks() {
                behind.push(Behind { row, watermark: before });
            }
            before = before.advance(Watermark::at(*time).delayed(delay));
        }
        Ok(behind)
    }

    async fn aggregate(
        &self,
        store: &Mutex<MeasuredStore>,
        rows: Rows<'_>,
        entry: &mut Entry,
    ) -> Result<()> {
        if rows.input.num_rows() == 0 {
            return Ok(());
        }
        let prepared = self.prepare(rows, entry).await?;
        let mut store = store.lock();
        prepared.iter().try_for_each(|rows| {
            store.update(rows)?;
            store.grown(rows)
        })
    }

    /// Runs the prepare plan, and counts its rows in `entry`.
    async fn prepare(&self, rows: Rows<'_>, entry: &mut Entry) -> Result<Vec<RecordBatch>> {
        let rows_in = rows.input.num_rows() as u64;
        if !self.tap.plan.row_preserving {
            let Traced { batches, from, skipped } = self.trace(rows, entry).await?;
            passed(entry, rows_in - skipped, &from);
            return Ok(batches);
        }
        let input = rows.input.clone();
        let (out, skipped) = self.run(&self.runner, input, &rows, entry).await?;
        let passed: u64 = out.iter().map(|b| b.num_rows() as u64).sum();
        entry.aggregated += passed;
        entry.filtered += (rows_in - skipped).saturating_sub(passed);
        Ok(out)
    }

    /// Runs a plan over `input`, which is `rows` or these with their numbers. Returns the output, and the number of
    /// rows that were skipped as bad because the plan fails on them (where the view skips such rows).
    async fn run(
        &self,
        runner: &PlanRunner,
        input: RecordBatch,
        rows: &Rows<'_>,
        entry: &mut Entry,
    ) -> Result<(Vec<RecordBatch>, u64)> {
        if self.tap.plan.tables.is_empty() {
            let done = self.run_piece(runner, input, &vec![]).await?;
            let skipped = self.keep_skipped(done.failed, rows, entry)?;
            return Ok((done.out, skipped));
        }
        let (Some(versions), Some(time)) = (self.tap.shared.versions.get(), self.tap.time) else {
            return Err(Error::internal("a refreshed table is joined with rows without times"));
        };
        let times = event_micros(rows.taken.rows.column(time), rows.at)?;
        let (mut out, mut failed) = (vec![], vec![]);
        for (beside, at) in versions.divide(&self.tap.plan.tables, &times).await? {
            let done = self.run_piece(runner, picked(&input, &at)?, &beside).await?;
            out.extend(done.out);
            let number = |(row, why): (usize, String)| Some((*at.get(row)?, why));
            failed.extend(done.failed.into_iter().filter_map(number));
        }
        let skipped = self.keep_skipped(failed, rows, entry)?;
        Ok((out, skipped))
    }

    /// Runs a plan over some rows; `beside`: the rows of its other leaves.
    async fn run_piece(
        &self,
        runner: &PlanRunner,
        input: RecordBatch,
        beside: &Inputs,
    ) -> Result<Skipped> {
        if self.tap.skipped.is_some() {
            return run_rows(runner, (self.tap.leaf, input), beside).await;
        }
        runner.beside(beside.clone());
        Ok(Skipped { out: runner.run_one(self.tap.leaf, input).await?, failed: vec![] })
    }

    /// Keeps the rows on which a plan has failed as bad rows; returns their number.
    fn keep_skipped(
        &self,
        failed: Vec<(usize, String)>,
        rows: &Rows<'_>,
        entry: &mut Entry,
    ) -> Result<u64> {
        let Some(kept) = self.tap.skipped.as_ref().filter(|_| !failed.is_empty()) else {
            return Ok(0);
        };
        let mut bad = Vec::with_capacity(failed.len());
        for (row, reason) in failed {
            let row = rows.at.map_or(Some(row), |at| at.get(row).copied());
            let row =
                row.ok_or_else(|| Error::internal("a row that failed is not in its batch"))?;
            let offset = rows.taken.row_offsets.offset(row);
            bad.push(BadRow { offset, reason, raw: render_row(&rows.taken.rows, row)? });
        }
        let (query, place) = (
            (self.tap.shared.name.as_str(), self.tap.shared.id),
            (rows.origin.partition, rows.origin.name),
        );
        kept.keep_skipped(query, &self.tap.stream, place, &bad);
        // Counted within the micro-batch, because cuts are made between two.
        self.tap.shared.ledger.add_skipped(bad.len() as u64);
        entry.bad += bad.len() as u64;
        Ok(bad.len() as u64)
    }

    /// Runs the traced plan.
    async fn trace(&self, input: Rows<'_>, entry: &mut Entry) -> Result<Traced> {
        let numbered = number_rows(&input.input, 0)?;
        let mut batches = Vec::new();
        let mut rows = Vec::new();
        let (out, skipped) = self.run(&self.traced, numbered, &input, entry).await?;
        for mut batch in out {
            let last = batch.num_columns().saturating_sub(1);
            let column = batch.remove_column(last);
            let numbers = column
                .as_primitive_opt::<UInt64Type>()
                .ok_or_else(|| Error::internal("the row number of a traced plan is lost"))?;
            rows.push(numbers.values().to_vec());
            batches.push(batch);
        }
        Ok(Traced { batches, from: rows, skipped })
    }

    /// Processes the rows that are late for some or all of their windows.
    async fn take_late(
        &self,
        store: &Mutex<MeasuredStore>,
        all: &Rows<'_>,
        not_on_time: &NotOnTime,
        entry: &mut Entry,
    ) -> Result<()> {
        let partly: Vec<usize> = not_on_time.partly.iter().map(|(row, _)| *row).collect();
        if !partly.is_empty() {
            let rows = all.some(&partly)?;
            let Traced { batches, from, skipped } = self.trace(rows, entry).await?;
            let mut seen = vec![false; partly.len()];
            for (batch, rows) in batches.iter().zip(&from) {
                let mut from = Vec::with_capacity(rows.len());
                for row in rows {
                    let at = usize::try_from(*row).unwrap_or(usize::MAX);
                    let (_, end) = not_on_time.partly.get(at).ok_or_else(|| {
                        Error::internal("the row number of a traced plan is wrong")
                    })?;
                    from.push(*end);
                    if let Some(seen) = seen.get_mut(at) {
                        *seen = true;
                    }
                }
                let mut store = store.lock();
                store.update_partly_late(batch, &from)?;
                store.grown(batch)?;
            }
            let passed = seen.iter().filter(|s| **s).count() as u64;
            self.tap.shared.ledger.add_partly_late(passed);
            entry.aggregated += passed;
            entry.filtered += partly.len() as u64 - passed - skipped;
        }
        if not_on_time.late.is_empty() {
            return Ok(());
        }
        let rows = all.some(&not_on_time.late)?;
        let Traced { from, skipped, .. } = self.trace(rows, entry).await?;
        let mut late: Vec<usize> = from
            .iter()
            .flatten()
            .filter_map(|at| not_on_time.late.get(usize::try_from(*at).ok()?).copied())
            .collect();
        late.sort_unstable();
        late.dedup();
        entry.late += late.len() as u64;
        entry.filtered += not_on_time.late.len() as u64 - late.len() as u64 - skipped;
        self.keep_late(all.taken, &late, all.origin)
    }

    fn keep_late(&self, taken: &TakenIn, late: &[usize], origin: Origin<'_>) -> Result<()> {
        if let Some(to) = &self.tap.late_to {
            to.append_whole(pick(&taken.rows, late)?)?;
        }
        let (Some(time), room) = (self.tap.time, self.tap.late_rows.room()) else { return Ok(()) };
        let column = taken.rows.column(time);
        let times = ticks(column)?;
        let delay = self.tap.sink.delay();
        let mut kept = Vec::new();
        let mut before = origin.before;
        let mut seen = 0;
        for &row in late.iter().take(room) {
            let earlier = times.get(seen..row).unwrap_or_default().iter().max();
            // The watermark of a view does not follow from event times.
            if let Some(max) = earlier.filter(|_| taken.times.is_some()) {
                before = before.advance(Watermark::at(*max).delayed(delay));
            }
            seen = row;
            // A view marks its rows with the watermark that they were behind.
            let told = taken.behind.binary_search_by_key(&row, |b| b.row).ok();
            let told = told.and_then(|at| taken.behind.get(at)).map(|b| b.watermark);
            kept.push(Late {
                query: self.tap.shared.name.clone(),
                query_id: self.tap.shared.id,
                stream: self.tap.stream.clone(),
                partition: origin.partition,
                partition_name: origin.name.to_owned(),
                offset: taken.row_offsets.offset(row),
                event_time_micros: times
                    .get(row)
                    .and_then(|t| display_micros(*t, column.data_type()))
                    .unwrap_or_default(),
                watermark_micros: display_micros(
                    told.map_or(before, |told| told.advance(before)).ticks(),
                    column.data_type(),
                ),
                row: render_row(&taken.rows, row)?,
                saved: false,
            });
        }
        self.tap.late_rows.keep(kept);
        Ok(())
    }
}

/// Returns the marked rows of a view, and those with event times up to `hold` (a window may end there), with the
/// greater of both watermarks.
fn behind_or_held(taken: &TakenIn, time: usize, hold: Watermark) -> Result<Vec<Behind>> {
    if hold == Watermark::NONE {
        return Ok(taken.behind.clone());
    }
    let mut marked = taken.behind.iter().peekable();
    let mut behind = Vec::new();
    let column = taken.rows.column(time);
    for (row, time) in ticks(column)?.iter().enumerate() {
        let mark = marked.next_if(|mark| mark.row == row).map(|mark| mark.watermark);
        let held = (*time <= hold.ticks() && column.is_valid(row)).then_some(hold);
        if let Some(watermark) = mark.max(held) {
            behind.push(Behind { row, watermark });
        }
    }
    Ok(behind)
}

/// Returns the rows of a batch with these numbers.
fn pick(batch: &RecordBatch, rows: &[usize]) -> Result<RecordBatch> {
    let rows: UInt32Array =
        rows.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)).collect();
    Ok(take_record_batch(batch, &rows)?)
}
