//! Merges segments and closes windows, in ascending order of their end.
//!
//! Invariants: the frontier (all windows that end at it or before are closed) never moves back. A segment that belongs
//! to a closed window is refused, so that no window is ever closed twice or without a row that belongs to it. Windows
//! without rows do not appear, and time without rows costs nothing.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use super::open::OpenSegments;
use super::survey::Added;
use super::{Part, Windows, new_windows};
use crate::bounds::Bounds;
use crate::port::WindowRows;
use crate::segments::kept::{Cut, SavedState};
use crate::segments::spill::SpillSpace;
use crate::segments::{Body, Segment};
use crate::spec::OperatorSpec;
use crate::survey::Survey;

/// A finished window.
#[derive(Debug)]
pub struct ClosedWindow {
    /// First tick of the window.
    pub start: i64,
    /// One past the last tick of the window.
    pub end: i64,
    /// Its rows, by [`OperatorSpec::output_schema`]; at least one.
    pub rows: WindowRows,
}

/// Merges the segments of all workers and closes windows.
///
/// # Contract
/// Before [`close`](Self::close) at a watermark, every worker has been flushed at that watermark or a later one, and
/// its segments have been added. Rows that arrive later for a slice whose first window is closed are tagged (see
/// [`lateness`](crate::lateness)).
#[derive(Debug)]
pub struct WindowMerger {
    spec: Arc<OperatorSpec>,
    windows: Box<dyn Windows>,
    /// With cuts or spilling: holds segments until the first of their windows closes.
    open: Option<OpenSegments>,
    frontier: i64,
    /// All workers have been flushed up to this watermark.
    flushed: Watermark,
    /// The rows and bytes added by slice, until the last window of the slice has closed.
    added: Added,
}

impl WindowMerger {
    /// Returns an empty merger.
    pub fn new(spec: Arc<OperatorSpec>) -> Self {
        let windows = new_windows(&spec);
        let (frontier, flushed) = (i64::MIN, Watermark::NONE);
        Self { spec, windows, open: None, frontier, flushed, added: Added::default() }
    }

    /// Retains what checkpoints need from now on (off by default: it costs memory). Segments added before are not
    /// retained: [`cut`](Self::cut) fails as long as they are needed.
    pub fn keep_cuts(&mut self) {
        self.open().keep_cuts();
    }

    /// Retains all segments from now on until their last window closes, so that [`spill`](Self::spill) can write them
    /// to `space`. Must be called before anything is added.
    pub fn spill_to(&mut self, space: Arc<dyn SpillSpace>) {
        self.open().spill_to(space);
    }

    fn open(&mut self) -> &mut OpenSegments {
        let missed = self.windows.last_slice();
        self.open.get_or_insert_with(|| OpenSegments::new(missed))
    }

    /// Writes everything in memory to disk; it is read back and merged when windows close. Without
    /// [`spill_to`](Self::spill_to) nothing happens.
    ///
    /// # Errors
    /// When it cannot be written, and when an aggregate cannot return its state.
    pub fn spill(&mut self) -> Result<()> {
        match &mut self.open {
            Some(open) => open.spill(&self.spec, &mut self.windows),
            None => Ok(()),
        }
    }

    /// Returns what a checkpoint needs of the current state.
    ///
    /// # Errors
    /// Internal without [`keep_cuts`](Self::keep_cuts); when an aggregate cannot return its state.
    pub fn cut(&mut self) -> Result<Cut> {
        match &mut self.open {
            Some(open) => open.cut(&self.spec, self.frontier),
            None => Err(Error::internal("a cut of a merger that keeps none")),
        }
    }

    /// Restores a merger from a cut. It [retains cuts](Self::keep_cuts).
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    pub fn restore(spec: Arc<OperatorSpec>, state: SavedState<'_>) -> Result<Self> {
        let frontier = state.frontier;
        let open = OpenSegments::restore(&spec, state)?;
        let mut added = Added::default();
        for (key, kept) in open.waiting() {
            let bytes = kept.body.as_ref().map_or(0, Body::size_bytes);
            added.add(*key, (kept.rows, bytes), kept.times);
        }
        Ok(Self { open: Some(open), frontier, added, ..Self::new(spec) })
    }

    /// Adds a segment.
    ///
    /// # Errors
    /// Internal when one of its windows has been closed already; when an aggregate cannot merge.
    pub fn add(&mut self, segment: Segment) -> Result<()> {
        let slicing = self.spec.slicing();
        let first = slicing.first_end(segment.slice).max(segment.counts_from);
        if first <= self.frontier {
            return Err(Error::internal(format!(
                "a segment of slice {} came for the window that ends at {first}, which is closed",
                segment.slice
            )));
        }
        let key = (segment.slice, segment.counts_from);
        self.added.add(key, (segment.rows, segment.size_bytes()), segment.times);
        match &mut self.open {
            Some(open) => open.add(segment),
            None => {
                let body = segment.body.in_memory()?;
                self.windows.add(&self.spec, Segment { body, ..segment })
            }
        }
    }

    /// Closes all windows that end at `watermark` or before; empty ones do not appear. (With ALLOW LATENESS,
    /// `watermark` is behind by that.)
    ///
    /// # Errors
    /// When an aggregate fails, and those of `output`; the merger must then not be used further.
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
            let divided = match &mut self.open {
                Some(open) => open.enter(&self.spec, end, &mut self.windows)?,
                None => None,
            };
            let rows = match divided {
                Some(rows) => WindowRows::Divided(Box::new(rows)),
                None => {
                    let parts = self.windows.close(&self.spec, end)?;
                    WindowRows::Whole(whole(&self.spec, start, end, parts)?.into_iter())
                }
            };
            self.frontier = end;
            self.added.forget(self.spec.slicing(), end);
            if let Some(open) = &mut self.open {
                open.forget(&self.spec, end);
            }
            if !matches!(&rows, WindowRows::Whole(rows) if rows.len() == 0) {
                output(ClosedWindow { start, end, rows })?;
            }
        }
        self.frontier = self.frontier.max(watermark.ticks());
        Ok(())
    }

    /// Returns the end of the next window that has rows.
    pub fn next_end(&self) -> Option<i64> {
        let waiting = self.open.as_ref().and_then(|k| k.next_end(&self.spec, self.frontier));
        let windows = self.windows.next_end(&self.spec, self.frontier);
        windows.into_iter().chain(waiting).min()
    }

    /// All windows that end at this time or before are closed; `i64::MIN` before any.
    pub fn frontier(&self) -> i64 {
        self.frontier
    }

    /// All workers have been flushed up to this watermark.
    pub(crate) fn flushed_to(&self) -> Watermark {
        self.flushed
    }

    pub(crate) fn set_flushed(&mut self, to: Watermark) {
        self.flushed = self.flushed.advance(to);
    }

    /// The number of open windows with rows in the merger; if rows are sparse, this also counts the empty windows
    /// between them.
    pub fn open_windows(&self) -> usize {
        let slicing = self.spec.slicing();
        let waiting = self.open.as_ref().and_then(OpenSegments::last_slice);
        match (self.next_end(), self.windows.last_slice().max(waiting)) {
            (Some(next), Some(last)) => {
                let windows = slicing.windows_between(next, slicing.last_end(last).max(next));
                usize::try_from(windows).unwrap_or(usize::MAX).saturating_add(1)
            }
            _ => 0,
        }
    }

    /// The number of rows in open windows.
    pub fn rows(&self) -> u64 {
        self.added.rows()
    }

    /// Returns the open windows in order of their end, `windows_max` at most.
    pub(crate) fn survey_windows(&self, windows_max: usize) -> Survey {
        let bytes = |key, added| {
            let open = self.open.as_ref();
            let waiting = open.and_then(|open| open.slice_bytes(key));
            let entered = match (waiting, open.is_some_and(OpenSegments::is_divided)) {
                (_, true) => 0,
                (Some(_), _) => self.windows.slice_bytes(key).unwrap_or(0),
                (None, _) => self.windows.slice_bytes(key).unwrap_or(added),
            };
            waiting.unwrap_or(0) + entered
        };
        self.added.survey(&self.spec, self.frontier, bytes, windows_max)
    }

    /// Bytes of memory; visits each slice.
    pub fn size_bytes(&self) -> usize {
        let kept = self.open.as_ref().map_or(0, |open| open.size_bytes(&self.spec));
        self.windows.size_bytes() + kept
    }
}

/// Returns the batches of a window that is in memory.
fn whole(spec: &OperatorSpec, start: i64, end: i64, parts: Vec<Part>) -> Result<Vec<RecordBatch>> {
    let mut bounds = Bounds::new(spec, start, end);
    let parts = parts.into_iter().filter(|(_, rows)| *rows > 0);
    parts.map(|(columns, rows)| bounds.batch(spec, columns, rows)).collect()
}
