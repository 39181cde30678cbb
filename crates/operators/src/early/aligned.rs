//! Open aligned windows, each with its groups.
//!
//! Invariants: `open` has every window with rows that is neither closed nor, where windows are corrected, past its
//! correction; the windows that end at `closed` or before have been returned as final; `changed` has the ends of the
//! windows with rows that are in no emission.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use super::returned::{Content, GroupChanges, Marks, Returned};
use super::{EarlySpec, Emits, group_schema, no_checkpoints, too_large};
use crate::OperatorSpec;
use crate::bounds::Bounds;
use crate::changing::emission::Emission;
use crate::changing::{Mark, Totals};
use crate::port::{CoordinatorPart, Finished, WindowRows};
use crate::segments::kept::Cut;
use crate::segments::spill::SpillSpace;
use crate::segments::{Body, Segment};
use crate::spec::Mode;
use crate::survey::{OpenState, Survey, Times, cover};

/// The open windows.
#[derive(Debug)]
pub(super) struct EarlyWindows {
    windows: OperatorSpec,
    emits: Emits,
    /// The columns of an emission, and those of the returned rows.
    schemas: (SchemaRef, SchemaRef),
    /// By end.
    open: BTreeMap<i64, OpenWindow>,
    changed: BTreeSet<i64>,
    returned: VecDeque<Returned>,
    /// All windows that end at this tick or before have been dropped.
    dropped: i64,
    /// All windows that end at this tick or before have been returned as final.
    closed: i64,
    flushed: Watermark,
    /// Whether the workers have been flushed in this pass.
    asked: bool,
    /// Whether windows that stay open are emitted now.
    emitting: bool,
    /// The number of groups returned so far.
    groups: u32,
    spills: bool,
}

/// A window that may still change.
#[derive(Debug)]
struct OpenWindow {
    rows: u64,
    times: Times,
    content: Kept,
    /// The revision of each group that has been corrected.
    revisions: BTreeMap<u32, u32>,
}

/// What a window keeps.
#[derive(Debug)]
enum Kept {
    Groups(Box<Totals>),
    Rows(Vec<RecordBatch>),
}

impl OpenWindow {
    fn new(windows: &OperatorSpec, groups: &SchemaRef) -> Self {
        let content = match windows.mode() {
            Mode::Rows => Kept::Rows(vec![]),
            Mode::Aggregate { .. } => {
                Kept::Groups(Box::new(Totals::new(windows.columns(), groups)))
            }
        };
        Self { rows: 0, times: None, content, revisions: BTreeMap::new() }
    }

    fn add(&mut self, segment: Segment) -> Result<()> {
        self.rows += segment.rows;
        self.times = cover(self.times, segment.times);
        match (&mut self.content, segment.body) {
            (Kept::Groups(groups), body) => groups.add(0, Segment { body, ..segment }),
            (Kept::Rows(rows), Body::Rows(more)) => {
                rows.extend(more);
                Ok(())
            }
            (Kept::Rows(_), _) => Err(Error::internal("a window of rows gets groups")),
        }
    }

    /// All rows of the window.
    fn whole(&mut self, windows: &OperatorSpec, end: i64) -> Result<Vec<RecordBatch>> {
        let mut bounds = Bounds::new(windows, windows.slicing().start_of(end), end);
        match &mut self.content {
            Kept::Groups(groups) => {
                let (columns, rows) = groups.all()?;
                Ok(vec![bounds.batch(windows, columns, rows)?])
            }
            Kept::Rows(rows) => rows
                .iter()
                .map(|rows| bounds.batch(windows, rows.columns().to_vec(), rows.num_rows()))
                .collect(),
        }
    }

    /// The marks of groups of a closed window that have changed, by their numbers.
    fn correct(&mut self, numbers: &[u32]) -> Result<Marks> {
        let mut marks = Vec::with_capacity(numbers.len());
        for number in numbers {
            let revision = self.revisions.entry(*number).or_default();
            let before = Mark::corrected(*revision);
            *revision = Mark::next_revision(*revision)?;
            marks.push((before, Mark::corrected(*revision)));
        }
        Ok(Marks::Each(marks))
    }

    fn groups(&self) -> usize {
        match &self.content {
            Kept::Groups(groups) => groups.open_windows(),
            Kept::Rows(_) => self.rows as usize,
        }
    }

    fn size_bytes(&self) -> usize {
        let content = match &self.content {
            Kept::Groups(groups) => groups.size_bytes(),
            Kept::Rows(rows) => rows.iter().map(RecordBatch::get_array_memory_size).sum(),
        };
        content + self.revisions.len() * size_of::<(u32, u32)>()
    }
}

impl EarlyWindows {
    pub(super) fn new(spec: &EarlySpec, windows: &OperatorSpec) -> Self {
        Self {
            windows: windows.clone(),
            emits: spec.emits,
            schemas: (group_schema(windows.columns()), Arc::clone(&spec.output_schema)),
            open: BTreeMap::new(),
            changed: BTreeSet::new(),
            returned: VecDeque::new(),
            dropped: i64::MIN,
            closed: i64::MIN,
            flushed: Watermark::NONE,
            asked: false,
            emitting: false,
            groups: 0,
            spills: false,
        }
    }

    /// The tick at which windows close when the operator's watermark is at `reached`.
    fn on_time(&self, reached: Watermark) -> i64 {
        match self.emits {
            Emits::Changes { correct_for } => reached.ticks().saturating_add(correct_for),
            Emits::Windows => reached.ticks(),
        }
    }

    /// Whether a window may close, or end being corrected, between two watermarks.
    fn is_passed(&self, from: Watermark, to: Watermark) -> bool {
        let ends = |from: i64, to: i64| self.windows.slicing().end_after(from, from) <= to;
        to > from
            && (from == Watermark::NONE
                || to == Watermark::END
                || ends(from.ticks(), to.ticks())
                || ends(self.on_time(from), self.on_time(to)))
    }

    /// The end of the next window to emit.
    fn next_window(&self, to: Watermark) -> Option<i64> {
        let first = self.open.keys().next().copied().filter(|end| to.closes(*end));
        let closes = || {
            let after = self.closed.saturating_add(1);
            let next = self.open.range(after..).next().map(|(end, _)| *end);
            next.filter(|end| *end <= self.on_time(to))
        };
        let changed = || self.changed.first().copied().filter(|_| self.emitting);
        first.or_else(closes).or_else(changed)
    }

    /// Emits a window, and drops it if nothing changes it at `to`.
    fn emit(&mut self, end: i64, to: Watermark) -> Result<()> {
        let was_closed = end <= self.closed;
        let closes = !was_closed && end <= self.on_time(to);
        let has_changed = self.changed.remove(&end);
        let drops = to.closes(end);
        if closes {
            self.closed = end;
        }
        if has_changed || closes {
            self.return_window(end, (was_closed, closes))?;
        }
        if drops {
            self.open.remove(&end);
            self.dropped = end;
        }
        Ok(())
    }

    fn return_window(&mut self, end: i64, (was_closed, closes): (bool, bool)) -> Result<()> {
        let Some(window) = self.open.get_mut(&end) else { return Ok(()) };
        if self.emits == Emits::Windows {
            let content = Content::Whole(window.whole(&self.windows, end)?);
            self.returned.push_back(Returned { end, closes, content });
            return Ok(());
        }
        let Kept::Groups(groups) = &mut window.content else {
            return Err(Error::internal("changes of windows that hold rows"));
        };
        let changes = groups.changes()?;
        let rest = match closes {
            false => None,
            true => {
                let mut known = vec![false; groups.open_windows()];
                if let Some((emission, numbers)) = &changes {
                    for at in emission.changed() {
                        let number = numbers.get(at).and_then(|n| known.get_mut(*n as usize));
                        number.into_iter().for_each(|known| *known = true);
                    }
                }
                groups.unchanged(&known)?
            }
        };
        let of_all = |after| Marks::All { before: Mark::EARLY, after };
        if let Some((emission, numbers)) = changes {
            let marks = match (was_closed, closes) {
                (true, _) => window.correct(&numbers)?,
                (false, true) => of_all(Mark::FINAL),
                (false, false) => of_all(Mark::EARLY),
            };
            self.push(end, emission, marks);
        }
        if let Some(emission) = rest {
            self.push(end, emission, of_all(Mark::FINAL));
        }
        if closes && let Some(last) = self.returned.back_mut() {
            last.closes = true;
        }
        Ok(())
    }

    fn push(&mut self, end: i64, emission: Emission, marks: Marks) {
        let bounds = Bounds::new(&self.windows, self.windows.slicing().start_of(end), end);
        let first = self.groups;
        let groups = u32::try_from(emission.groups()).unwrap_or(u32::MAX);
        self.groups = self.groups.wrapping_add(groups);
        let changes = GroupChanges { bounds, emission, marks, first };
        let content = Content::Changes(Box::new(changes));
        self.returned.push_back(Returned { end, closes: false, content });
    }
}

impl CoordinatorPart for EarlyWindows {
    fn add(&mut self, _input: usize, segment: Segment) -> Result<()> {
        let slicing = *self.windows.slicing();
        let (slice, from) = (segment.slice, segment.counts_from);
        let last = slicing.last_end(slice);
        let mut end = slicing.end_after(slice, slice.max(from.saturating_sub(1)));
        if end <= self.dropped {
            return Err(Error::internal(format!(
                "a segment of slice {slice} came for the window that ends at {end}, which is closed"
            )));
        }
        let Segment { rows, times, body, .. } = segment;
        let mut body = body.in_memory()?;
        if slicing.end_after(slice, end) <= last {
            body = body.freeze()?;
        }
        while end <= last {
            let next = slicing.end_after(slice, end);
            let (here, left) =
                if next <= last { body.share()? } else { (body, Body::Rows(vec![])) };
            body = left;
            let window = self.open.entry(end);
            let window = window.or_insert_with(|| OpenWindow::new(&self.windows, &self.schemas.0));
            window.add(Segment { slice, counts_from: from, rows, times, body: here })?;
            self.changed.insert(end);
            end = next;
        }
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        if std::mem::take(&mut self.asked) {
            return None;
        }
        self.emitting |= idle;
        (idle || self.is_passed(self.flushed, reached)).then_some(reached.max(self.flushed))
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed = self.flushed.advance(to);
        self.asked = true;
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        match self.is_passed(self.flushed, reached) {
            true => reached.min(self.flushed),
            false => reached,
        }
    }

    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        while self.returned.is_empty() {
            match self.next_window(to) {
                Some(end) => self.emit(end, to)?,
                None => {
                    self.emitting = false;
                    self.closed = self.closed.max(self.on_time(to));
                    self.dropped = self.dropped.max(to.ticks());
                    return Ok(None);
                }
            }
        }
        Ok(self.returned.front().map(|returned| returned.end))
    }

    fn close(&mut self, _to: Watermark, rows_max: usize) -> Result<Option<Finished>> {
        let Some(first) = self.returned.front_mut() else { return Ok(None) };
        let schemas = (&self.schemas.0, &self.schemas.1);
        let (rows, is_last) = first.next(schemas, &self.windows, rows_max)?;
        let windows = u64::from(is_last && first.closes);
        if is_last {
            self.returned.pop_front();
        }
        Ok(Some(Finished { windows, rows: WindowRows::Whole(rows.into_iter()) }))
    }

    fn next_close(&self) -> Option<i64> {
        let dropped = self.open.keys().next().copied();
        let behind = self.on_time(Watermark::at(0));
        let after = self.closed.saturating_add(1);
        let closed = self.open.range(after..).next().map(|(end, _)| end.saturating_sub(behind));
        dropped.into_iter().chain(closed).min()
    }

    fn holds_back(&self) -> bool {
        !self.changed.is_empty()
    }

    fn keep_order(&mut self) -> bool {
        false
    }

    fn keep_cuts(&mut self) {}

    fn cut(&mut self) -> Result<Cut> {
        Err(no_checkpoints())
    }

    fn spill_to(&mut self, _space: Arc<dyn SpillSpace>) {
        self.spills = true;
    }

    /// Refused: any group may be needed at the next emission.
    fn spill(&mut self) -> Result<()> {
        match self.spills {
            true => Err(too_large(self.open.values().map(OpenWindow::groups).sum())),
            false => Ok(()),
        }
    }

    fn open_windows(&self) -> usize {
        self.open.len()
    }

    fn rows(&self) -> u64 {
        self.open.values().map(|window| window.rows).sum()
    }

    fn size_bytes(&self) -> usize {
        let windows: usize = self.open.values().map(OpenWindow::size_bytes).sum();
        windows + self.returned.iter().map(Returned::size_bytes).sum::<usize>()
    }

    fn survey(&mut self, entries_max: usize) -> Result<Survey> {
        let slicing = self.windows.slicing();
        let state = |(end, window): (&i64, &OpenWindow)| OpenState {
            bounds: Some((slicing.start_of(*end), *end)),
            rows: window.rows,
            bytes: window.size_bytes() as u64,
            times: window.times,
            ..OpenState::default()
        };
        let states = self.open.iter().take(entries_max).map(state).collect();
        Ok(Survey { states, truncated: self.open.len() > entries_max })
    }
}
