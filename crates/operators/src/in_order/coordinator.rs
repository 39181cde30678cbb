//! The coordinator's part: brings the rows of all workers into order of time and processes them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use super::piece::{merged, time_after, times};
use super::state::{Part, Saved, of_part};
use super::{Evaluated, OrderedSpec, OrderedTable, RowOrder};
use crate::batches;
use crate::leaving::{self, Flushed, Leaving};
use crate::port::{CoordinatorPart, Finished};
use crate::segments::Segment;
use crate::segments::kept::Cut;
use crate::segments::ordered::Piece;
use crate::segments::spill::SpillSpace;
use crate::survey::{OpenState, Survey, cover};

/// The approximate number of rows that are processed together.
const CHUNK_ROWS: usize = 64 << 10;
/// State on disk is loaded again when it takes less than this share of the bytes that may be read at a time.
const LOADED_SHARE: usize = 2;

/// See the module.
pub(crate) struct InOrder<S: OrderedSpec> {
    pub(super) spec: Arc<S>,
    /// The state, unless memory is short.
    pub(super) table: Option<S::Table>,
    /// The state by the hash of the key, when memory is short.
    pub(super) parts: Vec<Part>,
    /// Rows that have not been processed, by their first time.
    pub(super) waiting: Waiting,
    /// Rows that have not been returned.
    pub(super) ready: Leaving,
    /// Rows before it have been processed.
    pub(super) frontier: i64,
    flushed: Flushed,
    ordered: bool,
    pub(super) space: Option<Arc<dyn SpillSpace>>,
    pub(super) saved: Saved,
}

/// Pieces by their first time; several may have the same.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) pieces: BTreeMap<(i64, u64), Piece>,
    next: u64,
}

impl<S: OrderedSpec> fmt::Debug for InOrder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrder").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Waiting {
    pub(super) fn push(&mut self, piece: Piece) {
        self.pieces.insert((piece.first, self.next), piece);
        self.next += 1;
    }

    /// The first time.
    pub(super) fn first(&self) -> Option<i64> {
        self.pieces.keys().next().map(|key| key.0)
    }

    pub(super) fn rows(&self) -> usize {
        self.pieces.values().map(|piece| piece.rows).sum()
    }

    fn bytes_in_memory(&self) -> usize {
        self.pieces.values().map(Piece::bytes_in_memory).sum()
    }

    /// Returns the time before which there are about `bytes_max` bytes and `CHUNK_ROWS` rows, at most `to`; `None`
    /// without rows before `to`.
    fn chunk_end(&self, to: i64, bytes_max: usize) -> Result<Option<i64>> {
        let Some(first) = self.first().filter(|first| *first < to) else { return Ok(None) };
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        for ((at, _), piece) in self.pieces.range(..(to, 0)) {
            if (rows >= CHUNK_ROWS || bytes >= bytes_max) && *at > first {
                return Ok(Some(*at));
            }
            let left = bytes_max.saturating_sub(bytes);
            if let Some(cut) = time_after(piece, left)?.filter(|cut| *cut > first) {
                return Ok(Some(cut.min(to)));
            }
            rows += piece.rows;
            bytes = bytes.saturating_add(piece.bytes_in_memory());
        }
        Ok(Some(to))
    }

    /// Removes and returns the rows before `end`.
    fn take_before(&mut self, end: i64) -> Result<Vec<RecordBatch>> {
        let mut taken = vec![];
        let later = self.pieces.split_off(&(end, 0));
        for (_, piece) in std::mem::replace(&mut self.pieces, later) {
            let (before, rest) = piece.split(end)?;
            taken.extend(before);
            rest.into_iter().for_each(|piece| self.push(piece));
        }
        Ok(taken)
    }
}

impl<S: OrderedSpec> InOrder<S> {
    pub(crate) fn new(spec: Arc<S>) -> Self {
        Self {
            spec,
            table: None,
            parts: vec![],
            waiting: Waiting::default(),
            ready: Leaving::default(),
            frontier: i64::MIN,
            flushed: Flushed::default(),
            ordered: false,
            space: None,
            saved: Saved::default(),
        }
    }

    /// Whether the state is on disk.
    pub(super) fn is_short(&self) -> bool {
        !self.parts.is_empty()
    }

    pub(super) fn fresh_table(&self) -> Result<S::Table> {
        let mut table = S::Table::new(&self.spec, self.ordered)?;
        if self.saved.keeps() {
            table.remember_touched();
        }
        Ok(table)
    }

    fn pass_bytes(&self) -> usize {
        self.space.as_ref().map_or(usize::MAX, |space| space.pass_bytes())
    }

    /// Processes rows before `to`, if there are any, until some of them can be returned.
    fn advance(&mut self, to: i64) -> Result<()> {
        while self.ready.is_empty() && self.frontier < to {
            self.load()?;
            let bytes_max = if self.is_short() { self.pass_bytes() } else { usize::MAX };
            let end = self.waiting.chunk_end(to, bytes_max)?;
            let new = self.waiting.take_before(end.unwrap_or(to))?;
            let rows = merged(self.spec.as_ref(), &new)?;
            let last = to == i64::MAX && end.is_none();
            let to = match end {
                // Rows that wait for the end are processed alone.
                Some(end) if end == i64::MAX => times_end(rows.as_ref())?,
                Some(end) => end,
                None => to,
            };
            if self.is_short() {
                self.pass(rows, to, last)?;
            } else if rows.is_some() || self.table.is_some() {
                let mut table = match self.table.take() {
                    Some(table) => table,
                    None => self.fresh_table()?,
                };
                let evaluated = table.process(rows, to, last)?;
                self.table = (!last && !table.is_empty()).then_some(table);
                let unordered = self.spec.returns_unordered();
                evaluated.map_or(Ok(()), |evaluated| self.push_ready(evaluated, unordered))?;
            }
            self.frontier = to;
            self.saved.processed();
        }
        Ok(())
    }

    /// Loads the state from disk, unless it is too large.
    fn load(&mut self) -> Result<()> {
        let bytes: usize = self.parts.iter().map(Part::bytes_in_memory).sum();
        if !self.is_short() || bytes > self.pass_bytes() / LOADED_SHARE {
            return Ok(());
        }
        let mut table = self.fresh_table()?;
        let (mut rows, mut states) = (vec![], vec![]);
        for part in std::mem::take(&mut self.parts) {
            let (own_rows, own_states) = part.read()?;
            rows.extend(own_rows);
            states.extend(own_states);
        }
        table.load(merged(self.spec.as_ref(), &rows)?, &states, self.frontier)?;
        table.touch_all();
        self.saved.stale = true;
        self.table = (!table.is_empty()).then_some(table);
        Ok(())
    }

    /// Processes rows while the state is on disk: part by part.
    fn pass(&mut self, rows: Option<RecordBatch>, to: i64, last: bool) -> Result<()> {
        let Some(space) = self.space.clone() else {
            return Err(Error::internal("state on disk without a place"));
        };
        // The passing of time may change the rows of every part.
        let all = last || self.spec.all_advance();
        let count = self.parts.len();
        let mut divided = match rows {
            Some(rows) => of_part(self.spec.as_ref(), &rows, count)?,
            None => vec![None; count],
        };
        let mut made = vec![];
        for at in 0..count {
            let own = divided.get_mut(at).and_then(Option::take);
            let Some(part) = self.parts.get_mut(at).filter(|_| own.is_some() || all) else {
                continue;
            };
            let (own_rows, own_states) = std::mem::take(part).read()?;
            let mut table = self.fresh_table()?;
            table.load(merged(self.spec.as_ref(), &own_rows)?, &own_states, self.frontier)?;
            made.extend(table.process(own, to, last)?);
            if let Some(error) = space.refuses(table.size_bytes()) {
                return Err(error);
            }
            if !last && let Some(part) = self.parts.get_mut(at) {
                *part = Part::write::<S>(space.as_ref(), &mut table)?;
            }
        }
        if last {
            self.parts = vec![];
        }
        self.divide_further(space.as_ref())?;
        if made.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(self.spec.returned(), made.iter().map(|made| &made.rows))?;
        // The parts share strings, which would be counted in each of them.
        let rows = batches::compact(&rows)?;
        if let Some(error) = space.refuses(rows.get_array_memory_size()) {
            return Err(error);
        }
        let ends: Vec<i64> = made.into_iter().flat_map(|made| made.ends).collect();
        let mut order: Vec<u32> = (0..ends.len() as u32).collect();
        order.sort_by_key(|at| ends[*at as usize]);
        let ends = order.iter().map(|at| ends[*at as usize]).collect();
        let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        self.push_ready(Evaluated { rows, ends }, true)
    }

    /// Adds rows, which are ready. `unordered`: if an order was requested, those of one end are not in it yet.
    fn push_ready(&mut self, evaluated: Evaluated, unordered: bool) -> Result<()> {
        let Evaluated { mut rows, ends } = evaluated;
        if self.space.is_some() {
            // They would otherwise count the history's strings as theirs.
            rows = batches::compact(&rows)?;
        }
        if self.ordered
            && unordered
            && let Some(RowOrder { converter, columns }) = self.spec.returned_order()
        {
            let columns = columns.iter().filter_map(|c| rows.columns().get(*c).cloned());
            let columns: Vec<_> = columns.collect();
            rows = leaving::ordered(&rows, &ends, (&converter, &columns))?;
        }
        self.ready.push(rows, ends);
        Ok(())
    }
}

/// One tick after the last time.
fn times_end(rows: Option<&RecordBatch>) -> Result<i64> {
    let last = rows.map(times).transpose()?.and_then(|times| times.last().copied());
    Ok(last.map_or(i64::MIN, |last| last.saturating_add(1)))
}

impl<S: OrderedSpec> CoordinatorPart for InOrder<S> {
    fn add(&mut self, _input: usize, segment: Segment) -> Result<()> {
        let piece = Piece::of_segment(segment, times)?;
        if piece.first < self.frontier {
            return Err(Error::internal(format!(
                "rows at {} came when those up to {} had been processed",
                piece.first, self.frontier
            )));
        }
        self.saved.add(&piece);
        self.waiting.push(piece);
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        self.flushed.ask(reached, idle)
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed.note(to);
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        let many = || self.waiting.bytes_in_memory() >= self.pass_bytes();
        self.flushed.complete_to(reached, self.frontier, self.is_short(), many)
    }

    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        self.advance(to.ticks())?;
        Ok(self.ready.next_end().filter(|end| to.closes(*end)))
    }

    fn close(&mut self, to: Watermark, rows_max: usize) -> Result<Option<Finished>> {
        match self.next_end(to)? {
            None => Ok(None),
            Some(_) => Ok(self.ready.close(to, rows_max)),
        }
    }

    fn next_close(&self) -> Option<i64> {
        let own = self.waiting.first().into_iter();
        let own = own.chain(self.table.as_ref().and_then(OrderedTable::waits_at)).min();
        let wait = self.spec.wait_ticks().saturating_add(1);
        self.ready.next_end().or_else(|| own.map(|time| time.saturating_add(wait)))
    }

    fn keep_order(&mut self) -> bool {
        self.ordered = self.spec.returned_order().is_some();
        if self.ordered
            && let Some(table) = &mut self.table
        {
            table.keep_order();
        }
        self.ordered
    }

    fn keep_cuts(&mut self) {
        self.saved.keep();
    }

    fn cut(&mut self) -> Result<Cut> {
        self.save()
    }

    fn spill_to(&mut self, space: Arc<dyn SpillSpace>) {
        self.space = Some(space);
    }

    fn spill(&mut self) -> Result<()> {
        self.spill_all()
    }

    fn open_windows(&self) -> usize {
        let held = self.table.as_ref().map_or(0, OrderedTable::len);
        let parts: usize = self.parts.iter().map(Part::rows).sum();
        self.waiting.rows() + held + parts
    }

    fn survey(&mut self, _entries_max: usize) -> Result<Survey> {
        let kept = self.table.as_ref().and_then(OrderedTable::times);
        let waiting = self.waiting.pieces.values().map(|piece| Some((piece.first, piece.last)));
        let state = OpenState {
            rows: self.rows(),
            bytes: self.size_bytes() as u64,
            times: if self.is_short() { None } else { waiting.fold(kept, cover) },
            ..OpenState::default()
        };
        Ok(Survey::of_rows(vec![state]))
    }

    fn size_bytes(&self) -> usize {
        let waiting: usize = self.waiting.pieces.values().map(Piece::size_bytes).sum();
        let table = self.table.as_ref().map_or(0, OrderedTable::size_bytes);
        table + waiting + self.ready.size_bytes() + self.saved.size_bytes()
    }
}
