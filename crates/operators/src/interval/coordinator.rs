//! The coordinator's part of a join: brings the rows of all workers into order of time and computes the results.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use windrow_core::{Error, Result, Watermark};

use super::buckets::{Buckets, in_order};
use super::piece::{self, merged, positions};
use super::state::Saved;
use super::table::{Matched, Table};
use super::{IntervalJoinSpec, LEFT, RIGHT};
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
/// The approximate number of pairs that are computed together.
const PAIRS: usize = 8192;
/// If rows on disk are rewritten in each pass, this many times the bytes that may be read at a time are new rows.
const REWRITING_FACTOR: usize = 2;
/// Rows on disk are loaded again when they take less than this share of the bytes that may be read at a time.
const LOADED_SHARE: usize = 2;

/// See the module.
pub(super) struct IntervalJoin {
    pub(super) spec: Arc<IntervalJoinSpec>,
    /// Rows that have been processed, and those that are being processed.
    pub(super) table: Table,
    /// For plain pairs: processed rows that are not in the table, because memory is short.
    pub(super) past: [Vec<Piece>; 2],
    /// The same, for all other joins.
    pub(super) buckets: Buckets,
    /// Rows that have not been processed, by their first position.
    pub(super) waiting: Waiting,
    /// Results that have not been returned.
    pub(super) ready: Leaving,
    /// Rows before it have been processed.
    pub(super) frontier: i64,
    /// Rows before it are in the table, processed or not.
    pub(super) entered: i64,
    /// Results before it had been returned before a restart: they are computed again, and dropped.
    pub(super) returned: i64,
    flushed: Flushed,
    order: Option<RowConverter>,
    pub(super) space: Option<Arc<dyn SpillSpace>>,
    pub(super) saved: Saved,
}

/// Pieces by their first position; several may have the same.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) pieces: [BTreeMap<(i64, u64), Piece>; 2],
    next: u64,
}

impl fmt::Debug for IntervalJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntervalJoin").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Waiting {
    pub(super) fn push(&mut self, side: usize, piece: Piece) {
        let [left, right] = &mut self.pieces;
        let pieces = if side == LEFT { left } else { right };
        pieces.insert((piece.first, self.next), piece);
        self.next += 1;
    }

    /// The first position.
    pub(super) fn first(&self) -> Option<i64> {
        self.pieces.iter().filter_map(|pieces| pieces.keys().next()).map(|key| key.0).min()
    }

    fn all(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().flat_map(BTreeMap::values)
    }

    /// Returns the position before which there are about `bytes_max` bytes and `CHUNK_ROWS` rows, at most `to`; `None`
    /// without rows before `to`.
    fn chunk_end(&self, to: i64, bytes_max: usize) -> Option<i64> {
        let pieces = self.pieces.iter().flat_map(|pieces| pieces.range(..(to, 0)));
        let mut pieces: Vec<_> =
            pieces.map(|(key, piece)| (key.0, piece.rows, piece.bytes_in_memory())).collect();
        pieces.sort_unstable();
        let first = pieces.first()?.0;
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        for (at, piece_rows, piece_bytes) in pieces {
            if (rows >= CHUNK_ROWS || bytes >= bytes_max) && at > first {
                return Some(at);
            }
            rows += piece_rows;
            bytes = bytes.saturating_add(piece_bytes);
        }
        Some(to)
    }

    /// Removes and returns the rows before `end`.
    fn take_before(&mut self, end: i64) -> Result<[Vec<RecordBatch>; 2]> {
        let mut taken = [vec![], vec![]];
        for (side, taken) in [LEFT, RIGHT].into_iter().zip(&mut taken) {
            let [left, right] = &mut self.pieces;
            let pieces = if side == LEFT { left } else { right };
            let later = pieces.split_off(&(end, 0));
            for (_, piece) in std::mem::replace(pieces, later) {
                let (before, rest) = piece.split(end)?;
                taken.extend(before);
                rest.into_iter().for_each(|piece| self.push(side, piece));
            }
        }
        Ok(taken)
    }
}

impl IntervalJoin {
    pub(super) fn new(spec: Arc<IntervalJoinSpec>) -> Self {
        let table = Table::new(&spec);
        Self {
            spec,
            table,
            past: Default::default(),
            buckets: Buckets::default(),
            waiting: Waiting::default(),
            ready: Leaving::default(),
            frontier: i64::MIN,
            entered: i64::MIN,
            returned: i64::MIN,
            flushed: Flushed::default(),
            order: None,
            space: None,
            saved: Saved::default(),
        }
    }

    /// Whether processed rows are on disk.
    fn is_short(&self) -> bool {
        self.past.iter().any(|pieces| !pieces.is_empty()) || !self.buckets.is_empty()
    }

    /// The bytes of new rows that are joined at a time with those on disk; more if these are rewritten each time.
    fn chunk_bytes(&self) -> usize {
        match self.spec.is_plain() {
            true => self.pass_bytes(),
            false => self.pass_bytes().saturating_mul(REWRITING_FACTOR),
        }
    }

    pub(super) fn pass_bytes(&self) -> usize {
        self.space.as_ref().map_or(usize::MAX, |space| space.pass_bytes())
    }

    /// Computes the next results from rows before `to`, if there are any.
    fn advance(&mut self, to: i64) -> Result<()> {
        while self.ready.is_empty() {
            if let Some(matched) = self.table.run(PAIRS, self.entered)? {
                self.push_ready(matched)?;
            }
            if let Some(next) = self.table.next_position() {
                self.frontier = self.frontier.max(next);
                continue;
            }
            self.frontier = self.frontier.max(self.entered);
            if !self.ready.is_empty() {
                return Ok(());
            }
            self.load()?;
            self.table.prune(self.frontier)?;
            let bytes_max = if self.is_short() { self.chunk_bytes() } else { usize::MAX };
            let chunk = self.waiting.chunk_end(to, bytes_max);
            let end = self.table.expiry_end(chunk.unwrap_or(to), CHUNK_ROWS);
            let end = self.expiry_end_of_buckets(end);
            if chunk.is_none() && self.next_expiry().is_none_or(|time| time >= end) {
                self.frontier = self.frontier.max(to);
                self.entered = self.frontier;
                self.drop_useless();
                return self.table.prune(self.frontier);
            }
            let new = self.waiting.take_before(end)?;
            self.entered = end;
            if self.is_short() {
                match self.spec.is_plain() {
                    true => self.pass(new)?,
                    false => self.pass_buckets(&new, end)?,
                }
                self.frontier = end;
            } else {
                let [left, right] = new;
                self.table.add(LEFT, left)?;
                self.table.add(RIGHT, right)?;
            }
        }
        Ok(())
    }

    /// When the next row expires.
    fn next_expiry(&self) -> Option<i64> {
        self.table.next_expiry().into_iter().chain(self.buckets.next_expiry()).min()
    }

    /// Loads the processed rows into the table, unless they are too many.
    fn load(&mut self) -> Result<()> {
        if !self.is_short() {
            return Ok(());
        }
        self.drop_useless();
        if !self.spec.is_plain() {
            return self.load_buckets(self.pass_bytes() / LOADED_SHARE);
        }
        let bytes: usize = self.past.iter().flatten().map(Piece::bytes_in_memory).sum();
        if bytes > self.pass_bytes() / LOADED_SHARE {
            return Ok(());
        }
        let past = std::mem::take(&mut self.past);
        for (side, pieces) in past.into_iter().enumerate() {
            let batches: Vec<_> = pieces.iter().map(Piece::read).collect::<Result<_>>()?;
            self.table.add_processed(side, batches.into_iter().flatten().collect(), &[])?;
        }
        Ok(())
    }

    fn drop_useless(&mut self) {
        for (side, pieces) in self.past.iter_mut().enumerate() {
            let before = self.spec.useless_before(side, self.frontier);
            pieces.retain(|piece| piece.last >= before);
        }
        self.buckets.drop_useless(&self.spec, self.frontier);
    }

    /// Computes the pairs of new rows, and those with rows on disk, a few pieces of which are read at a time.
    fn pass(&mut self, new: [Vec<RecordBatch>; 2]) -> Result<()> {
        let [left, right] = new;
        let left = merged(&self.spec.side(LEFT).state_schema, &left)?;
        let right = merged(&self.spec.side(RIGHT).state_schema, &right)?;
        let new = [left, right];
        let mut made = vec![];
        let mut table = Table::new(&self.spec);
        for (side, rows) in new.iter().enumerate() {
            table.add(side, rows.iter().cloned().collect())?;
        }
        run_all(&mut table, i64::MAX, &mut made)?;
        for (side, pieces) in self.past.iter().enumerate() {
            let other = if side == LEFT { RIGHT } else { LEFT };
            let Some(Some(rows)) = new.get(other) else { continue };
            for pieces in together(pieces, self.pass_bytes()) {
                let old = pieces.iter().map(Piece::read).collect::<Result<Vec<_>>>()?;
                let mut table = Table::new(&self.spec);
                table.add_processed(side, old.into_iter().flatten().collect(), &[])?;
                table.add(other, vec![rows.clone()])?;
                run_all(&mut table, i64::MAX, &mut made)?;
            }
        }
        for (pieces, rows) in self.past.iter_mut().zip(new) {
            if let Some(rows) = rows {
                pieces.extend(piece::of(rows)?);
            }
        }
        self.push_made(made)
    }

    /// Adds the results of several tables, which are ready.
    pub(super) fn push_made(&mut self, made: Vec<Matched>) -> Result<()> {
        let bytes = made.iter().map(|m| m.rows.get_array_memory_size()).sum();
        if let Some(error) = self.space.as_ref().and_then(|space| space.refuses(bytes)) {
            return Err(error);
        }
        match in_order(&self.spec.output_schema, made)? {
            Some(matched) => self.push_ready(matched),
            None => Ok(()),
        }
    }

    /// Adds results, which are ready; if an order was requested, sorts those of one time.
    fn push_ready(&mut self, matched: Matched) -> Result<()> {
        let Matched { mut rows, mut times } = matched;
        let returned = times.partition_point(|time| *time < self.returned);
        if returned > 0 {
            times.drain(..returned);
            rows = rows.slice(returned, times.len());
        }
        if times.is_empty() {
            return Ok(());
        }
        if self.space.is_some() {
            // They would otherwise count the table's strings as theirs.
            rows = batches::compact(&rows)?;
        }
        if let Some(order) = &self.order {
            rows = leaving::ordered(&rows, &times, (order, rows.columns()))?;
        }
        // A result leaves one tick after its time.
        times.iter_mut().for_each(|time| *time = time.saturating_add(1));
        self.ready.push(rows, times);
        Ok(())
    }
}

/// Processes all rows of a table, which are all before `until`. The results retain no bytes of other rows.
pub(super) fn run_all(table: &mut Table, until: i64, made: &mut Vec<Matched>) -> Result<()> {
    loop {
        if let Some(Matched { rows, times }) = table.run(PAIRS, until)? {
            made.push(Matched { rows: batches::compact(&rows)?, times });
        }
        if table.is_done() {
            return Ok(());
        }
    }
}

/// Groups pieces of about `bytes_max` bytes, at least one in each.
fn together(mut pieces: &[Piece], bytes_max: usize) -> impl Iterator<Item = &[Piece]> {
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let full = |piece: &Piece| {
            bytes = bytes.saturating_add(piece.bytes_in_memory());
            bytes > bytes_max
        };
        let len = pieces.iter().position(full).unwrap_or(pieces.len()).max(1);
        let (group, rest) = pieces.split_at_checked(len)?;
        pieces = rest;
        Some(group)
    })
}

impl CoordinatorPart for IntervalJoin {
    fn add(&mut self, input: usize, segment: Segment) -> Result<()> {
        let piece = Piece::of_segment(segment, positions)?;
        if piece.first < self.entered {
            return Err(Error::internal(format!(
                "rows at {} came when a join had gone on to {}",
                piece.first, self.entered
            )));
        }
        self.saved.add(input, &piece);
        self.waiting.push(input, piece);
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        self.flushed.ask(reached, idle)
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed.note(to);
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        let bytes = || self.waiting.all().map(Piece::bytes_in_memory).sum::<usize>();
        let many = || bytes() >= self.chunk_bytes();
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
        let next = self.table.next_position().into_iter().chain(self.waiting.first());
        let next = next.chain(self.next_expiry()).min().map(|time| time.max(self.returned));
        self.ready.next_end().or_else(|| next.map(|time| time.saturating_add(1)))
    }

    fn keep_order(&mut self) -> bool {
        let fields = self.spec.output_schema.fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        self.order = RowConverter::new(fields.collect()).ok();
        self.order.is_some()
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
        let past = self.past.iter().flatten().chain(self.buckets.pieces()).map(|piece| piece.rows);
        self.table.len() + self.waiting.all().map(|piece| piece.rows).chain(past).sum::<usize>()
    }

    fn survey(&mut self, _entries_max: usize) -> Result<Survey> {
        let inputs = self.table.sides.iter().zip(&self.waiting.pieces).zip(&self.past).enumerate();
        let states = inputs.map(|(input, ((table, waiting), past))| {
            let pieces = || waiting.values().chain(past).chain(self.buckets.pieces_on(input));
            let rows: usize = pieces().map(|piece| piece.rows).sum();
            let bytes: usize = pieces().map(Piece::size_bytes).sum();
            let times = pieces().map(|piece| Some((piece.first, piece.last)));
            OpenState {
                input: Some(input),
                rows: (table.len() + rows) as u64,
                // Half of the keys: they are those of both inputs.
                bytes: (table.size_bytes() + bytes + self.table.keys_bytes() / 2) as u64,
                times: times.fold(table.times(), cover),
                ..OpenState::default()
            }
        });
        Ok(Survey::of_rows(states.collect()))
    }

    fn size_bytes(&self) -> usize {
        let past = self.past.iter().flatten().chain(self.buckets.pieces());
        let pieces = self.waiting.all().chain(past);
        let pieces = pieces.map(Piece::size_bytes).sum::<usize>();
        self.table.size_bytes() + pieces + self.ready.size_bytes() + self.saved.size_bytes()
    }
}
