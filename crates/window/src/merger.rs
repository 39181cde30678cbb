//! Closes windows, in ascending order of their end.
//!
//! Invariants: the frontier (all windows that end at it or before are closed) never moves back. A
//! segment that belongs to a closed window is refused, so that no window is ever closed twice or
//! without a row that was owed to it. Windows without rows do not appear, and time without rows
//! costs nothing.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark, WindowKind};

use crate::bounds::Bounds;
use crate::cut::{Cut, Keeper, SavedSegment};
use crate::overlapping::Overlapping;
use crate::rows::RowWindows;
use crate::tumbling::Tumbling;
use crate::{Mode, OperatorSpec, Segment};

/// A finished window.
#[derive(Debug, Clone)]
pub struct ClosedWindow {
    /// First tick.
    pub start: i64,
    /// One past the last tick.
    pub end: i64,
    /// Its rows, by [`OperatorSpec::output_schema`]; at least one.
    pub rows: Vec<RecordBatch>,
}

/// Merges the segments of all workers and closes windows.
///
/// # Contract
/// Before [`close`](Self::close) at a watermark, every worker has been flushed at that watermark or
/// a later one, and its segments have been added. Rows that come later for a slice whose first
/// window is closed are tagged (see [`lateness`](crate::lateness)).
#[derive(Debug)]
pub struct WindowMerger {
    spec: Arc<OperatorSpec>,
    windows: Box<dyn Windows>,
    /// With cuts only: segments wait in it until the first of their windows closes.
    keeper: Option<Keeper>,
    frontier: i64,
}

/// Columns (without bounds) of some rows of a window, and their number.
pub(crate) type Part = (Vec<ArrayRef>, usize);

/// The state behind a kind of window.
pub(crate) trait Windows: Debug + Send {
    /// Takes a segment some of whose windows end after `frontier`.
    fn add(&mut self, spec: &OperatorSpec, segment: Segment) -> Result<()>;

    /// End of the first window after `frontier` that has rows.
    fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64>;

    /// The rows of the window that ends at `end`, which is the next; forgets what no later
    /// window needs.
    fn close(&mut self, spec: &OperatorSpec, end: i64) -> Result<Vec<Part>>;

    /// Start of the last slice that has rows.
    fn last_slice(&self) -> Option<i64>;

    fn size_bytes(&self) -> usize;
}

impl WindowMerger {
    /// An empty merger.
    pub fn new(spec: Arc<OperatorSpec>) -> Self {
        let window = spec.window();
        let windows: Box<dyn Windows> = match (spec.mode(), window.kind()) {
            (Mode::Rows, _) => Box::new(RowWindows::default()),
            (_, WindowKind::Tumble { .. }) => Box::new(Tumbling::default()),
            (_, WindowKind::Hop { slide, size }) if slide == size => Box::new(Tumbling::default()),
            (_, WindowKind::Cumulate { step, size }) if step == size => {
                Box::new(Tumbling::default())
            }
            _ => Box::new(Overlapping::default()),
        };
        Self { spec, windows, keeper: None, frontier: i64::MIN }
    }

    /// Remembers from now on what a checkpoint needs (off by default: it costs memory). Segments
    /// that have been added before are not remembered: [`cut`](Self::cut) fails while they matter.
    pub fn keep_cuts(&mut self) {
        if self.keeper.is_none() {
            self.keeper = Some(Keeper::new(self.windows.last_slice()));
        }
    }

    /// What a checkpoint needs of the state as it is.
    ///
    /// # Errors
    /// Internal without [`keep_cuts`](Self::keep_cuts); what an aggregate says when it cannot
    /// give its state.
    pub fn cut(&mut self) -> Result<Cut> {
        match &mut self.keeper {
            Some(keeper) => keeper.cut(&self.spec, self.frontier),
            None => Err(Error::internal("a cut of a merger that keeps none")),
        }
    }

    /// A merger as it was at a cut: `segments` are exactly those it needed, in any order. It
    /// [keeps cuts](Self::keep_cuts).
    ///
    /// # Errors
    /// Corrupt when a segment cannot be one of such a cut.
    pub fn restore(
        spec: Arc<OperatorSpec>,
        frontier: i64,
        next_id: u64,
        segments: Vec<SavedSegment>,
    ) -> Result<Self> {
        let keeper = Some(Keeper::restore(&spec, frontier, next_id, segments)?);
        Ok(Self { keeper, frontier, ..Self::new(spec) })
    }

    /// Takes a segment.
    ///
    /// # Errors
    /// Internal when a window that it belongs to has been closed already; what an aggregate
    /// says when it cannot merge.
    pub fn add(&mut self, segment: Segment) -> Result<()> {
        let slicing = self.spec.slicing();
        let first = slicing.first_end(segment.slice).max(segment.counts_from);
        if first <= self.frontier {
            return Err(Error::internal(format!(
                "a segment of slice {} came for the window that ends at {first}, which is closed",
                segment.slice
            )));
        }
        match &mut self.keeper {
            Some(keeper) => keeper.add(segment),
            None => self.windows.add(&self.spec, segment)?,
        }
        Ok(())
    }

    /// Closes all windows that end at `watermark` or before; empty ones do not appear.
    /// (With ALLOW LATENESS, `watermark` runs behind by that much.)
    ///
    /// # Errors
    /// When an aggregate fails, or what `output` returns: the merger is then not to be used
    /// further.
    pub fn close(
        &mut self,
        watermark: Watermark,
        output: &mut dyn FnMut(ClosedWindow) -> Result<()>,
    ) -> Result<()> {
        while let Some(end) = self.next_end() {
            if !watermark.closes(end) {
                break;
            }
            let start = self.spec.slicing().start_of(end);
            if let Some(keeper) = &mut self.keeper {
                keeper.enter(&self.spec, end, self.windows.as_mut())?;
            }
            let parts = self.windows.close(&self.spec, end)?;
            self.frontier = end;
            let mut bounds = Bounds::new(&self.spec, start, end);
            let rows = parts
                .into_iter()
                .filter(|(_, rows)| *rows > 0)
                .map(|(columns, rows)| bounds.batch(&self.spec, columns, rows))
                .collect::<Result<Vec<_>>>()?;
            if !rows.is_empty() {
                output(ClosedWindow { start, end, rows })?;
            }
        }
        self.frontier = self.frontier.max(watermark.ticks());
        if let Some(keeper) = &mut self.keeper {
            keeper.forget(&self.spec, self.frontier);
        }
        Ok(())
    }

    /// End of the next window that has rows.
    pub fn next_end(&self) -> Option<i64> {
        let waiting = self.keeper.as_ref().and_then(|k| k.next_end(&self.spec, self.frontier));
        let windows = self.windows.next_end(&self.spec, self.frontier);
        windows.into_iter().chain(waiting).min()
    }

    /// All windows that end at this time or before are closed; `i64::MIN` before any.
    pub fn frontier(&self) -> i64 {
        self.frontier
    }

    /// Windows that have rows here and are not closed; where time is sparse this counts the empty
    /// ones between them too.
    pub fn open_windows(&self) -> usize {
        let slicing = self.spec.slicing();
        let waiting = self.keeper.as_ref().and_then(Keeper::last_slice);
        match (self.next_end(), self.windows.last_slice().max(waiting)) {
            (Some(next), Some(last)) => {
                let ticks = slicing.last_end(last).max(next).abs_diff(next);
                let windows = ticks / slicing.advance().unsigned_abs();
                usize::try_from(windows).unwrap_or(usize::MAX).saturating_add(1)
            }
            _ => 0,
        }
    }

    /// Bytes of state; looks at each slice.
    pub fn size_bytes(&self) -> usize {
        self.windows.size_bytes() + self.keeper.as_ref().map_or(0, Keeper::size_bytes)
    }
}
