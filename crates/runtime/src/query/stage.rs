//! A stage at run time: merges what the workers froze, closes windows in order of their end, and
//! runs the finish plan on each.
//!
//! ```text
//! slice stores of the workers ─flush─► merger ─close─► finish plan ─► rows
//! nested stage ─rows─► prepare ─► its own store ─┘
//! ```
//! A stage never waits for rows: it is stepped by the coordinator, which hands the rows on.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};
use windrow_sql::leaf::LeafId;
use windrow_window::{ClosedWindow, OperatorSpec, SliceStore, WindowMerger};

use crate::query::progress::SharedProgress;
use crate::query::runner::PlanRunner;
use crate::query::tap::Stores;

/// Windows of a row-wise stage go through its finish plan together until there are this many
/// rows.
const FINISH_ROWS: usize = 8_192;

/// A stage, running.
#[derive(Debug)]
pub(crate) struct StageRun {
    pub(crate) inputs: Vec<InputRun>,
    pub(crate) finish: PlanRunner,
    pub(crate) row_wise: bool,
    /// Windows closed so far.
    pub(crate) closed: u64,
    /// Windows that end here or before are in the archive already: they are closed once more and
    /// given to nobody.
    pub(crate) archived: Watermark,
}

/// One window operator of a stage, running.
#[derive(Debug)]
pub(crate) struct InputRun {
    pub(crate) leaf: LeafId,
    pub(crate) merger: WindowMerger,
    /// The scans that feed it.
    pub(crate) scans: Vec<SharedProgress>,
    pub(crate) stores: Stores,
    pub(crate) nested: Vec<NestedRun>,
    pub(crate) lag_ticks: i64,
    pub(crate) lateness_ticks: i64,
    /// Windows up to here are being or have been closed.
    pub(crate) watermark: Watermark,
}

/// A stage that feeds a leaf: a window over windows.
#[derive(Debug)]
pub(crate) struct NestedRun {
    pub(crate) leaf: LeafId,
    pub(crate) stage: Box<StageRun>,
    pub(crate) prepare: Arc<PlanRunner>,
    pub(crate) store: SliceStore,
}

impl InputRun {
    /// An input that nothing feeds yet.
    pub(crate) fn new(leaf: LeafId, operator: &Arc<OperatorSpec>) -> Self {
        Self {
            leaf,
            merger: WindowMerger::new(Arc::clone(operator)),
            scans: vec![],
            stores: Stores::default(),
            nested: vec![],
            lag_ticks: 0,
            lateness_ticks: 0,
            watermark: Watermark::NONE,
        }
    }

    /// Takes in what has become final and moves the watermark there.
    async fn gather(&mut self) -> Result<()> {
        let mut low = Watermark::END;
        for scan in &self.scans {
            low = low.min(scan.lock().watermark());
        }
        for nested in &mut self.nested {
            // A nested stage gives all its closed windows at once: each is one merged batch.
            while let Some(rows) = Box::pin(nested.stage.next()).await? {
                for prepared in nested.prepare.run(vec![(nested.leaf, rows)]).await? {
                    nested.store.update(&prepared)?;
                }
            }
            low = low.min(nested.stage.watermark());
        }
        let to = low.delayed(self.lag_ticks).delayed(self.lateness_ticks);
        if to > self.watermark {
            self.watermark = to;
            for nested in &mut self.nested {
                for segment in nested.store.flush(to)? {
                    self.merger.add(segment)?;
                }
            }
            let stores: Vec<_> = self.stores.lock().clone();
            for store in stores {
                let segments = store.lock().flush(to)?;
                for segment in segments {
                    self.merger.add(segment)?;
                }
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
    pub(crate) async fn gather(&mut self) -> Result<()> {
        for input in &mut self.inputs {
            input.gather().await?;
        }
        Ok(())
    }

    /// Gathers, then gives the next rows; `None` when nothing more can close now.
    async fn next(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        self.gather().await?;
        self.pop().await
    }

    /// The finished rows of the next windows (one end, or several ends of a row-wise stage);
    /// `None` when nothing more can close.
    pub(crate) async fn pop(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        let watermark = self.watermark();
        let mut rows: Vec<(LeafId, Vec<RecordBatch>)> =
            self.inputs.iter().map(|i| (i.leaf, vec![])).collect();
        let mut count = 0;
        let mut any = false;
        while let Some(end) = self.next_end().filter(|end| watermark.closes(*end)) {
            if self.archived.closes(end) {
                self.leave_out(end)?;
                continue;
            }
            for (input, (_, rows)) in self.inputs.iter_mut().zip(&mut rows) {
                let closed = &mut self.closed;
                input.merger.close(Watermark::at(end), &mut |window: ClosedWindow| {
                    *closed += 1;
                    for batch in window.rows {
                        let batch = batch?;
                        count += batch.num_rows();
                        rows.push(batch);
                    }
                    Ok(())
                })?;
            }
            any = true;
            if !self.row_wise || count >= FINISH_ROWS {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        Ok(Some(self.finish.run(rows).await?))
    }

    /// Closes the windows of this end without giving them to anybody.
    fn leave_out(&mut self, end: i64) -> Result<()> {
        let closed = &mut self.closed;
        for input in &mut self.inputs {
            input.merger.close(Watermark::at(end), &mut |_| {
                *closed += 1;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn next_end(&self) -> Option<i64> {
        self.inputs.iter().filter_map(|i| i.merger.next_end()).min()
    }

    /// Bytes of window state, and open windows: those of the merger, and the slices that a worker
    /// still fills.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.inputs.iter().fold((0, 0), |(bytes, open), input| {
            let (stores, slices) = input.stores.lock().iter().fold((0, 0), |(bytes, open), s| {
                let store = s.lock();
                (bytes + store.size_bytes(), open.max(store.open_slices()))
            });
            let (nested_bytes, nested_open) = input
                .nested
                .iter()
                .map(|n| n.stage.size())
                .fold((0, 0), |(b, o), (nb, no)| (b + nb, o + no));
            (
                bytes + stores + input.merger.size_bytes() + nested_bytes,
                open + slices + input.merger.open_windows() + nested_open,
            )
        })
    }
}
