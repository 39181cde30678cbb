//! A stage at run time: has its operators put together what the workers gathered and close it in order of its end, and
//! runs the finish plan on each end.
//!
//! ```text
//! parts of the workers ─flush─► part of the coordinator ─close─► finish plan ─► rows
//! nested stage ─rows─► prepare ─► a worker's part of its own ─┘
//! ```
//! Windows that memory has no room for are made piece by piece while the finish plan reads them, and
//! its rows leave as they come.
//!
//! A stage never waits for rows: it is stepped by the coordinator, which hands the rows on.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use windrow_core::{Result, Watermark};
use windrow_operators::{CoordinatorPart, Finished, StatefulOperator, WindowRows};
use windrow_sql::leaf::LeafId;
use windrow_stream::memory::{MeasuredStore, OperatorMemory, Part, sorted};

use crate::runner::PlanRunner;
use crate::tap::Stores;
use crate::tap_state::TapState;

/// Windows of a row-wise stage go through its finish plan together until there are this many
/// rows.
pub(crate) const FINISH_ROWS: usize = 8_192;

/// The windows that a leaf of the finish plan reads.
type LeafWindows = (LeafId, Vec<WindowRows>);

/// A stage, running.
pub(crate) struct StageRun {
    pub(crate) inputs: Vec<InputRun>,
    pub(crate) finish: PlanRunner,
    /// What rows that do not fit into memory are put in order with, where the output wants them so.
    pub(crate) sorted: Option<Arc<OperatorMemory>>,
    pub(crate) row_wise: bool,
    /// Something that could be finished waits until no rows are on their way.
    pub(crate) holds_back: bool,
    /// Its operator gives rows in one order, whatever came when: they need not be put in order.
    pub(crate) in_order: bool,
    /// Windows closed so far.
    pub(crate) closed: u64,
    /// Windows that end here or before are in the archive already: they are closed once more and
    /// given to nobody.
    pub(crate) archived: Watermark,
    /// The rows that are still to come of windows which do not fit into memory.
    pub(crate) open: Option<BoxStream<'static, Result<RecordBatch>>>,
}

impl fmt::Debug for StageRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageRun").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

/// One stateful operator of a stage, running.
#[derive(Debug)]
pub(crate) struct InputRun {
    pub(crate) leaf: LeafId,
    pub(crate) operator: Box<dyn CoordinatorPart>,
    /// Where the streams stand that feed it.
    pub(crate) taps: Vec<Arc<TapState>>,
    pub(crate) stores: Stores,
    pub(crate) nested: Vec<NestedRun>,
    pub(crate) lag_ticks: i64,
    pub(crate) lateness_ticks: i64,
    /// Windows up to here are being or have been closed.
    pub(crate) watermark: Watermark,
    /// What the coordinator's part holds, if there is a limit of memory.
    memory: Option<(Arc<OperatorMemory>, Part)>,
}

/// A stage that feeds a leaf: a window over windows.
#[derive(Debug)]
pub(crate) struct NestedRun {
    pub(crate) leaf: LeafId,
    pub(crate) stage: Box<StageRun>,
    pub(crate) prepare: Arc<PlanRunner>,
    pub(crate) store: MeasuredStore,
}

impl InputRun {
    /// An input that nothing feeds yet.
    pub(crate) fn new(
        leaf: LeafId,
        operator: &dyn StatefulOperator,
        memory: Option<Arc<OperatorMemory>>,
    ) -> Self {
        let memory = memory.map(|memory| {
            let part = memory.part();
            (memory, part)
        });
        let mut run = Self {
            leaf,
            operator: operator.coordinator(),
            memory,
            taps: vec![],
            stores: Stores::default(),
            nested: vec![],
            lag_ticks: 0,
            lateness_ticks: 0,
            watermark: Watermark::NONE,
        };
        run.limit();
        run
    }

    /// The state of before a restart.
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

    /// The coordinator's part has grown or shrunk: when memory is short now, it goes to disk.
    pub(crate) fn measure(&mut self) -> Result<()> {
        if let Some((_, part)) = &self.memory
            && part.tell(self.operator.size_bytes())
        {
            self.operator.spill()?;
            part.tell(self.operator.size_bytes());
        }
        Ok(())
    }

    fn next_close(&self) -> Option<i64> {
        let stores = self.stores.lock();
        let live = stores.iter().filter_map(|store| store.lock().next_close());
        let nested = self.nested.iter().filter_map(|n| n.store.next_close());
        let own = live.chain(nested).chain(self.operator.next_close()).min();
        let own =
            own.map(|at| at.saturating_add(self.lag_ticks).saturating_add(self.lateness_ticks));
        own.into_iter().chain(self.nested.iter().filter_map(|n| n.stage.next_close())).min()
    }

    /// Takes in what has become final and moves the watermark there. `idle`: no rows are on their way. Returns whether
    /// something is held back until then.
    async fn gather(&mut self, idle: bool) -> Result<bool> {
        let mut low = Watermark::END;
        for tap in &self.taps {
            low = low.min(tap.watermark());
        }
        for nested in &mut self.nested {
            // A nested stage gives all its closed windows at once: each is one merged batch.
            while let Some(rows) = Box::pin(nested.stage.next(idle)).await? {
                for prepared in nested.prepare.run(vec![(nested.leaf, rows)]).await? {
                    nested.store.update(&prepared)?;
                    nested.store.grown(&prepared)?;
                }
            }
            low = low.min(nested.stage.watermark());
        }
        let reached = low.delayed(self.lag_ticks).delayed(self.lateness_ticks);
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
        Ok(self.watermark < reached || self.nested.iter().any(|nested| nested.stage.holds_back))
    }

    /// Brings what the workers have gathered for `to` to the coordinator's part.
    fn flush(&mut self, to: Watermark) -> Result<()> {
        for nested in &mut self.nested {
            for segment in nested.store.flush(to)? {
                self.operator.add(segment)?;
            }
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
            for segment in segments {
                self.operator.add(segment)?;
            }
        }
        Ok(())
    }
}

impl StageRun {
    /// The stage's watermark: what it gave out is complete up to there.
    pub(crate) fn watermark(&self) -> Watermark {
        self.inputs.iter().map(|i| i.watermark).min().unwrap_or(Watermark::END)
    }

    /// Takes in what has become final in all inputs. Windows that can close then leave by
    /// [`StageRun::pop`].
    /// `idle`: no rows are on their way, so that nothing has to wait for more.
    pub(crate) async fn gather(&mut self, idle: bool) -> Result<()> {
        self.holds_back = false;
        for input in &mut self.inputs {
            self.holds_back |= input.gather(idle).await?;
        }
        Ok(())
    }

    /// Gathers, then gives the next rows; `None` when nothing more can close now.
    async fn next(&mut self, idle: bool) -> Result<Option<Vec<RecordBatch>>> {
        self.gather(idle).await?;
        self.pop().await
    }

    /// The next finished rows: those of one end, of several ends of a row-wise stage, or a piece
    /// of them; `None` when nothing more can close.
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
            let mut rows = windows.iter().flat_map(|(_, rows)| rows);
            if rows.all(|rows| rows.rows_in_memory().is_some()) {
                let mut whole = Vec::with_capacity(windows.len());
                for (leaf, rows) in windows {
                    whole.push((leaf, rows.into_iter().flatten().collect::<Result<_>>()?));
                }
                return Ok(Some(self.finish.run(whole).await?));
            }
            let rows = self.finish.stream(windows)?;
            self.open = Some(match &self.sorted {
                Some(memory) => sorted(rows, self.finish.schema(), Arc::clone(memory)),
                None => rows,
            });
        }
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

    /// Releases files that the windows were in.
    fn forget_inputs(&self) {
        self.finish.clear();
    }

    /// Closes the windows of the next end, or of several ends in a row-wise stage.
    fn close_next(&mut self) -> Result<Option<Vec<LeafWindows>>> {
        let watermark = self.watermark();
        let mut windows: Vec<LeafWindows> = self.inputs.iter().map(|i| (i.leaf, vec![])).collect();
        let mut count = 0;
        let mut any = false;
        // Rows of one input need not wait for those of others with the same end.
        let together = self.row_wise && self.inputs.len() == 1;
        while let Some(end) = self.next_end(watermark)? {
            if self.archived.closes(end) {
                self.leave_out(end)?;
                continue;
            }
            let (to, rows_max) =
                if together { (watermark, FINISH_ROWS) } else { (Watermark::at(end), 1) };
            for (input, (_, windows)) in self.inputs.iter_mut().zip(&mut windows) {
                if let Some(Finished { windows: closed, rows }) =
                    input.operator.close(to, rows_max)?
                {
                    self.closed += closed;
                    count += rows.rows_in_memory().unwrap_or(FINISH_ROWS);
                    windows.push(rows);
                }
                input.measure()?;
            }
            any = true;
            if !self.row_wise || count >= FINISH_ROWS {
                break;
            }
        }
        Ok(any.then_some(windows))
    }

    /// Closes the windows of this end without giving them to anybody.
    fn leave_out(&mut self, end: i64) -> Result<()> {
        for input in &mut self.inputs {
            if let Some(finished) = input.operator.close(Watermark::at(end), 1)? {
                self.closed += finished.windows;
            }
        }
        Ok(())
    }

    /// The smallest watermark of its streams at which a window may close, as far as that can be told.
    pub(crate) fn next_close(&self) -> Option<i64> {
        self.inputs.iter().filter_map(InputRun::next_close).min()
    }

    /// The end of the next finished rows, if that is at `to` or before.
    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        let mut next: Option<i64> = None;
        for input in &mut self.inputs {
            next = next.into_iter().chain(input.operator.next_end(to)?).min();
        }
        Ok(next)
    }

    /// Bytes of state, and open windows: those of the coordinator's part, and those that a worker still fills.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.inputs.iter().fold((0, 0), |(bytes, open), input| {
            let (stores, slices) = input.stores.lock().iter().fold((0, 0), |(bytes, open), s| {
                let store = s.lock();
                (bytes + store.size_bytes(), open.max(store.open_windows()))
            });
            let (nested_bytes, nested_open) = input
                .nested
                .iter()
                .map(|n| n.stage.size())
                .fold((0, 0), |(b, o), (nb, no)| (b + nb, o + no));
            (
                bytes + stores + input.operator.size_bytes() + nested_bytes,
                open + slices + input.operator.open_windows() + nested_open,
            )
        })
    }
}
