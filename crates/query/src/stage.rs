//! A stage at run time: its operators merge the segments of the workers and return finished rows in order of their
//! ends; the finish plan runs on each end.
//!
//! ```text
//! parts of the workers, per input ─flush─► part of the coordinator ─close─► finish plan ─► rows
//! nested stage ─rows─► prepare ─► a worker's part of its own ─┘
//! ```
//! Windows that do not fit in memory are read back piece by piece while the finish plan runs, and its rows are returned
//! as it produces them.
//!
//! A stage never waits for rows: the coordinator steps it, and sends the rows.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use windrow_core::{Error, Result, Watermark};
use windrow_operators::{
    CoordinatorPart, Differences, EarlyResults, Finished, Segment, StatefulOperator, WindowRows,
    normalised, normalised_windows,
};
use windrow_sql::leaf::LeafId;
use windrow_stream::memory::{MeasuredStore, OperatorMemory, Part, sorted};

use crate::numbered::{in_order_of_numbers, number_rows};
use crate::runner::PlanRunner;
use crate::shared::Shared;
use crate::survey::OperatorSize;
use crate::tap::Stores;
use crate::tap_state::TapState;
use crate::versions::{VersionedLeaf, micros, rows_at};

/// Windows of a row-wise stage are finished together until they have this many rows.
pub(crate) const FINISH_ROWS: usize = 8_192;

/// The windows that a leaf of the finish plan reads.
type LeafWindows = (LeafId, Vec<WindowRows>);

/// A stage at run time.
pub(crate) struct StageRun {
    pub(crate) operators: Vec<OperatorRun>,
    pub(crate) finish: PlanRunner,
    /// The memory for sorting rows of windows that do not fit in memory, where the output is ordered.
    pub(crate) sorted: Option<Arc<OperatorMemory>>,
    pub(crate) row_wise: bool,
    /// Whether the finish plan passes a hidden column with the numbers of its rows, by which they are put in order.
    pub(crate) numbered: bool,
    /// `Some` for an updating result, which does not wait for the watermark: whether its rows have a change column.
    pub(crate) changes: Option<bool>,
    /// The early results of its windows, if they are emitted while they are open.
    pub(crate) early: Option<EarlyResults>,
    /// The last results of open windows that are emitted as a whole.
    pub(crate) differences: Option<Differences>,
    /// The end of the window that was taken last from the operator, and whether it has closed.
    pub(crate) window: (i64, bool),
    /// Whether results that could be finished are held back while rows are on their way.
    pub(crate) holds_back: bool,
    /// Whether its rows must not be sorted: they are changes, or their order does not depend on timing.
    pub(crate) in_order: bool,
    /// Windows closed so far.
    pub(crate) closed: u64,
    /// Windows that end at this watermark or before are archived already: they are closed and not returned.
    pub(crate) archived: Watermark,
    /// The scans of refreshed tables in the finish plan, and the query with their versions.
    pub(crate) tables: Vec<VersionedLeaf>,
    pub(crate) query: Arc<Shared>,
    /// The remaining rows of windows that do not fit in memory.
    pub(crate) open: Option<BoxStream<'static, Result<RecordBatch>>>,
}

impl fmt::Debug for StageRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageRun").field("operators", &self.operators).finish_non_exhaustive()
    }
}

/// One stateful operator of a stage, at run time.
#[derive(Debug)]
pub(crate) struct OperatorRun {
    pub(crate) leaf: LeafId,
    pub(crate) operator: Box<dyn CoordinatorPart>,
    pub(crate) inputs: Vec<InputRun>,
    /// The watermark up to which rows are being, or have been, closed.
    pub(crate) watermark: Watermark,
    /// Its name and its leaf.
    name: Arc<str>,
    /// The same, with what it does, as EXPLAIN shows it.
    pub(crate) described: Arc<str>,
    pub(crate) time_unit: TimeUnit,
    /// The memory of the coordinator's part, if there is a memory limit.
    memory: Option<(Arc<OperatorMemory>, Part)>,
    /// Bytes that the stage keeps of its results.
    beside: usize,
}

/// One input of an operator, at run time.
#[derive(Debug, Default)]
pub(crate) struct InputRun {
    /// The taps that feed it.
    pub(crate) taps: Vec<Arc<TapState>>,
    pub(crate) stores: Stores,
    pub(crate) nested: Vec<NestedRun>,
    pub(crate) lag_ticks: i64,
    pub(crate) lateness_ticks: i64,
}

/// A stage that feeds an input of another operator.
#[derive(Debug)]
pub(crate) struct NestedRun {
    pub(crate) leaf: LeafId,
    pub(crate) stage: Box<StageRun>,
    pub(crate) prepare: Arc<PlanRunner>,
    pub(crate) store: MeasuredStore,
}

impl InputRun {
    /// The smallest watermark of its streams at which rows may finish; `at`: that of the coordinator's part.
    fn next_close(&self, at: Option<i64>) -> Option<i64> {
        let stores = self.stores.lock();
        let live = stores.iter().filter_map(|store| store.lock().next_close());
        let nested = self.nested.iter().filter_map(|n| n.store.next_close());
        let own = live.chain(nested).chain(at).min();
        let own =
            own.map(|at| at.saturating_add(self.lag_ticks).saturating_add(self.lateness_ticks));
        own.into_iter().chain(self.nested.iter().filter_map(|n| n.stage.next_close())).min()
    }

    /// Adds the rows of nested stages to their store; returns the watermark that the input has reached.
    async fn gather(&mut self, idle: bool) -> Result<Watermark> {
        let mut low = Watermark::END;
        for tap in &self.taps {
            low = low.min(tap.watermark());
        }
        for nested in &mut self.nested {
            // All closed windows of a nested stage are taken at once: each is one merged batch.
            while let Some(rows) = Box::pin(nested.stage.next(idle)).await? {
                for prepared in nested.prepare.run(vec![(nested.leaf, rows)]).await? {
                    nested.store.update(&prepared)?;
                    nested.store.grown(&prepared)?;
                }
            }
            low = low.min(nested.stage.watermark());
        }
        Ok(low.delayed(self.lag_ticks).delayed(self.lateness_ticks))
    }

    /// Passes the segments that the workers flush at `to` to `add`.
    fn flush(&mut self, to: Watermark, add: &mut dyn FnMut(Segment) -> Result<()>) -> Result<()> {
        for nested in &mut self.nested {
            nested.store.flush(to)?.into_iter().try_for_each(&mut *add)?;
            nested.store.shrunk();
        }
        let stores: Vec<_> = self.stores.lock().clone();
        for store in stores {
            let mut store = store.lock();
            let segments = store.flush(to)?;
            if !segments.is_empty() {
                store.shrunk();
            }
            drop(store);
            segments.into_iter().try_for_each(&mut *add)?;
        }
        Ok(())
    }

    /// Adds what its workers hold.
    fn add_size(&self, size: &mut OperatorSize) {
        let mut open = 0;
        for store in self.stores.lock().iter() {
            let store = store.lock();
            size.bytes += store.size_bytes();
            size.rows += store.rows();
            open = open.max(store.open_windows());
        }
        size.open += open;
        for nested in &self.nested {
            size.bytes += nested.store.size_bytes();
            size.rows += nested.store.rows();
        }
    }
}

impl OperatorRun {
    /// Returns an operator without inputs.
    pub(crate) fn new(
        leaf: LeafId,
        operator: &dyn StatefulOperator,
        memory: Option<Arc<OperatorMemory>>,
    ) -> Self {
        let memory = memory.map(|memory| {
            let part = memory.part();
            (memory, part)
        });
        let name = format!("{} {leaf}", operator.name());
        let mut run = Self {
            leaf,
            described: format!("{name}: {}", Described(operator)).into(),
            name: name.into(),
            time_unit: operator.time_unit(),
            operator: operator.coordinator(),
            inputs: vec![],
            watermark: Watermark::NONE,
            memory,
            beside: 0,
        };
        run.limit();
        run
    }

    /// Resumes from the state before a restart.
    pub(crate) fn resume(&mut self, operator: Box<dyn CoordinatorPart>) -> Result<()> {
        self.operator = operator;
        self.limit();
        self.measure()
    }

    fn limit(&mut self) {
        if let Some((memory, _)) = &self.memory {
            self.operator.spill_to(Arc::clone(memory) as _);
        }
    }

    /// Measures the coordinator's part, and spills it if memory is short.
    pub(crate) fn measure(&mut self) -> Result<()> {
        if let Some((_, part)) = &self.memory
            && part.report(self.operator.size_bytes() + self.beside)
        {
            self.operator.spill()?;
            part.report(self.operator.size_bytes() + self.beside);
        }
        Ok(())
    }

    fn next_close(&self) -> Option<i64> {
        let at = self.operator.next_close();
        self.inputs.iter().filter_map(|input| input.next_close(at)).min()
    }

    /// Gathers what has become final and advances the watermark. `idle`: no rows are on their way. Returns whether
    /// results are held back until that is so.
    async fn gather(&mut self, idle: bool) -> Result<bool> {
        let mut reached = Watermark::END;
        for input in &mut self.inputs {
            reached = reached.min(input.gather(idle).await?);
        }
        let mut any = false;
        while let Some(to) = self.operator.flush_to(reached, idle) {
            self.flush(to)?;
            self.operator.flushed(to);
            any = true;
        }
        self.watermark = self.watermark.advance(self.operator.complete_to(reached));
        if any {
            self.measure()?;
        }
        let mut nested = self.inputs.iter().flat_map(|input| &input.nested);
        let holds_back = self.watermark < reached || self.operator.holds_back();
        Ok(holds_back || nested.any(|nested| nested.stage.holds_back))
    }

    /// Whether workers hold rows that have not been flushed to the coordinator's part.
    fn has_rows(&self) -> bool {
        self.inputs.iter().any(|input| {
            let stores = input.stores.lock();
            let nested = input.nested.iter().map(|nested| nested.store.rows());
            stores.iter().map(|store| store.lock().rows()).chain(nested).any(|rows| rows > 0)
        })
    }

    /// Adds the segments that the workers flush at `to` to the coordinator's part.
    fn flush(&mut self, to: Watermark) -> Result<()> {
        let operator = &mut self.operator;
        for (number, input) in self.inputs.iter_mut().enumerate() {
            input.flush(to, &mut |segment| operator.add(number, segment))?;
        }
        Ok(())
    }

    /// What it keeps: the coordinator's part, and what workers still fill.
    fn size(&self) -> OperatorSize {
        let mut size = OperatorSize {
            operator: Arc::clone(&self.name),
            bytes: self.operator.size_bytes() + self.beside,
            open: self.operator.open_windows(),
            rows: self.operator.rows(),
        };
        self.inputs.iter().for_each(|input| input.add_size(&mut size));
        size
    }
}

impl StageRun {
    /// The watermark of the stage: its closed windows are complete up to it.
    pub(crate) fn watermark(&self) -> Watermark {
        self.operators.iter().map(|o| o.watermark).min().unwrap_or(Watermark::END)
    }

    /// Gathers what has become final in all operators; [`StageRun::pop`] then returns it. `idle`: no rows are on their
    /// way, so that no result need wait for more.
    pub(crate) async fn gather(&mut self, idle: bool) -> Result<()> {
        self.holds_back = false;
        for operator in &mut self.operators {
            self.holds_back |= operator.gather(idle).await?;
            // Changes do not wait for the watermark, so it does not tell whether some are still to come.
            self.holds_back |= self.changes.is_some() && operator.has_rows();
        }
        Ok(())
    }

    /// Gathers, then returns the next rows; `None` when nothing more can close now.
    async fn next(&mut self, idle: bool) -> Result<Option<Vec<RecordBatch>>> {
        self.gather(idle).await?;
        self.pop().await
    }

    /// Returns the next finished rows: those of one end, of several ends of a row-wise stage, or a piece of them;
    /// `None` when nothing more can close.
    pub(crate) async fn pop(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(rows) = open.try_next().await? {
                    return Ok(Some(vec![rows]));
                }
                self.open = None;
                self.forget_inputs();
            }
            let Some(windows) = self.close_next()? else { return Ok(None) };
            self.choose_versions().await?;
            let mut rows = windows.iter().flat_map(|(_, rows)| rows);
            if self.numbered || rows.all(|rows| rows.rows_in_memory().is_some()) {
                return self.finish_whole(windows).await.map(Some);
            }
            let rows = self.finish.stream(windows)?;
            self.open = Some(match &self.sorted {
                Some(memory) => sorted(rows, self.finish.schema(), Arc::clone(memory)),
                None => rows,
            });
        }
    }

    /// Sets the rows of refreshed tables for the window end that was closed last: the versions that count just before it.
    async fn choose_versions(&mut self) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        let (Some(versions), Some(first)) = (self.query.versions.get(), self.operators.first())
        else {
            return Err(Error::internal("a refreshed table is joined without its versions"));
        };
        let at = micros(self.window.0.saturating_sub(1), first.time_unit);
        let tables = versions.up_to(at).await?;
        self.finish.beside(rows_at(&self.tables, &tables, at));
        Ok(())
    }

    /// Runs the finish plan over rows in memory.
    async fn finish_whole(&mut self, windows: Vec<LeafWindows>) -> Result<Vec<RecordBatch>> {
        let mut whole = Vec::with_capacity(windows.len());
        let mut number = 0;
        for (leaf, rows) in windows {
            let mut batches = Vec::new();
            for batch in rows.into_iter().flatten() {
                let batch = batch?;
                let first = number;
                number += batch.num_rows() as u64;
                batches.push(if self.numbered { number_rows(&batch, first)? } else { batch });
            }
            whole.push((leaf, batches));
        }
        let rows = self.finish.run(whole).await?;
        if let Some(differences) = &mut self.differences {
            let (end, is_final) = self.window;
            let changes = differences.of(end, &rows, &self.finish.schema(), is_final)?;
            if let Some(run) = self.operators.first_mut() {
                run.beside = differences.size_bytes();
                run.measure()?;
            }
            let changes = changes.map(|rows| normalised_windows(&[rows], false)).transpose()?;
            return Ok(changes.flatten().into_iter().collect());
        }
        Ok(match self.changes {
            Some(_) if let Some(early) = self.early => {
                normalised_windows(&rows, early.revisions)?.into_iter().collect()
            }
            Some(shown) => normalised(&rows, shown)?.into_iter().collect(),
            None if self.numbered => in_order_of_numbers(&rows)?.into_iter().collect(),
            None => rows,
        })
    }

    /// As [`pop`](Self::pop), but never a piece.
    pub(crate) async fn pop_whole(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        let Some(mut rows) = self.pop().await? else { return Ok(None) };
        while let Some(open) = &mut self.open {
            match open.try_next().await? {
                Some(more) => rows.push(more),
                None => self.open = None,
            }
        }
        self.forget_inputs();
        Ok(Some(rows))
    }

    /// Releases the files of windows that have been read.
    fn forget_inputs(&self) {
        self.finish.clear();
    }

    /// Closes the windows of the next end, or of several ends in a row-wise stage.
    fn close_next(&mut self) -> Result<Option<Vec<LeafWindows>>> {
        let watermark = self.watermark();
        let mut windows: Vec<LeafWindows> =
            self.operators.iter().map(|o| (o.leaf, vec![])).collect();
        let mut count = 0;
        let mut any = false;
        // A single operator need not close one end at a time for the sake of others.
        let together = self.row_wise && self.operators.len() == 1;
        while let Some(end) = self.next_end(watermark)? {
            if self.archived.closes(end) {
                self.leave_out(end)?;
                continue;
            }
            let (to, rows_max) =
                if together { (watermark, FINISH_ROWS) } else { (Watermark::at(end), 1) };
            for (run, (_, windows)) in self.operators.iter_mut().zip(&mut windows) {
                if let Some(Finished { windows: closed, rows }) =
                    run.operator.close(to, rows_max)?
                {
                    self.closed += closed;
                    self.window = (end, closed > 0);
                    count += rows.rows_in_memory().unwrap_or(FINISH_ROWS);
                    windows.push(rows);
                }
                run.measure()?;
            }
            any = true;
            if !self.row_wise || count >= FINISH_ROWS {
                break;
            }
        }
        Ok(any.then_some(windows))
    }

    /// Closes the windows of this end without returning them.
    fn leave_out(&mut self, end: i64) -> Result<()> {
        for run in &mut self.operators {
            if let Some(finished) = run.operator.close(Watermark::at(end), 1)? {
                self.closed += finished.windows;
            }
        }
        Ok(())
    }

    /// The smallest watermark of its streams at which a window may close, if any is known.
    pub(crate) fn next_close(&self) -> Option<i64> {
        self.operators.iter().filter_map(OperatorRun::next_close).min()
    }

    /// The end of the next finished rows, if it is at `to` or before.
    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        let mut next: Option<i64> = None;
        for run in &mut self.operators {
            next = next.into_iter().chain(run.operator.next_end(to)?).min();
        }
        Ok(next)
    }

    /// Adds what its operators keep, those of nested stages first.
    pub(crate) fn sizes(&self, into: &mut Vec<OperatorSize>) {
        for operator in &self.operators {
            for nested in operator.inputs.iter().flat_map(|input| &input.nested) {
                nested.stage.sizes(into);
            }
            into.push(operator.size());
        }
    }
}

/// An operator as EXPLAIN describes it.
struct Described<'a>(&'a dyn StatefulOperator);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}
