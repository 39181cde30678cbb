//! Sessions: runs of rows of one key whose neighbours are at most one gap apart.
//!
//! ```text
//! stores ─pieces of a slice─► waiting ─► chain: sessions of the previous slice ⟵ pieces of this one ─► closed ─► out
//! ```
//! Time is divided into slices of one gap, so rows of the same key and slice always belong to the same session: a slice
//! of a worker holds *pieces*, which are groups with their first and last time. A session whose last row is in one
//! slice continues in the next one or ends there. So it is enough to merge two neighbouring slices at a time
//! ([`chain`]), in order, and no index of open sessions is needed.
//!
//! A session closes when the operator's watermark, which is one tick behind that of its input, has reached its end: by
//! then all rows up to one gap after its last one, which would join it, have arrived. While more rows are on their way,
//! only complete slices are flushed for that; otherwise workers also flush an incomplete one, so that no result is
//! delayed.
//!
//! Invariants: `waiting` and the chain together have every row that was added and is in no closed session; the sessions
//! of the chain that end at the frontier or before are closed. The same segments from the start return the same
//! sessions, so that a checkpoint consists of segments and a frontier: those of the previous slice, merged, and the
//! pieces since.

mod chain;
mod closed;
mod large;
mod operator;
mod state;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use windrow_core::{Error, Result, Watermark};

use crate::lateness::{Behindness, NotOnTime, Tolerance, rows_behind};
use crate::port::WindowRows;
use crate::port::{CoordinatorPart, Finished};
use crate::segments::Body;
use crate::segments::kept::{BySlice, Cut, KeptSegment, SegmentId};
use crate::segments::spill::SpillSpace;
use crate::spec::{Columns, SessionOperatorSpec};
use crate::survey::Survey;
use crate::table::Frozen;
use crate::{Segment, Slicing};
use chain::Chain;
use closed::Closed;

/// The number of pieces of a slice without a checkpoint at which they are merged.
const FRESH_MAX: usize = 64;

/// A merger of the pieces of all workers, which closes sessions in order of their end.
#[derive(Debug)]
pub(crate) struct SessionMerger {
    columns: Arc<Columns>,
    slicing: Slicing,
    gap: i64,
    /// Segments that are not in the chain yet.
    waiting: BySlice,
    chain: Chain,
    /// The id of the previous slice in a checkpoint.
    before_id: Option<SegmentId>,
    /// The pieces that have entered the chain, for checkpoints.
    entered: Vec<KeptSegment>,
    closed: Closed,
    /// All sessions that end at this tick or before have been returned.
    frontier: i64,
    /// Everything up to this tick has been added.
    flushed: i64,
    /// All sessions that end at this tick or before have been removed from the chain.
    drained: i64,
    /// Whether memory was short; it then waits for complete slices.
    short: bool,
    cuts: bool,
    space: Option<Arc<dyn SpillSpace>>,
    next_id: u64,
    /// Scratch.
    groups: Vec<usize>,
}

/// Returns the rows that are late: those before the watermark. Whether their session is open does not matter, so that
/// lateness depends on the rows of the partition alone.
pub(crate) fn classify(times: &[i64], before: Watermark, tolerance: Tolerance) -> NotOnTime {
    rows_behind(times, before, tolerance, |_, _| Behindness::Late)
}

impl SessionMerger {
    pub(crate) fn new(spec: &SessionOperatorSpec) -> Self {
        let columns = spec.columns();
        Self {
            columns: Arc::clone(columns),
            slicing: *spec.slicing(),
            gap: spec.session().gap(),
            waiting: BTreeMap::new(),
            chain: Chain::new(columns, spec.session().gap()),
            before_id: None,
            entered: vec![],
            closed: Closed::new(columns),
            frontier: i64::MIN,
            flushed: i64::MIN,
            drained: i64::MIN,
            short: false,
            cuts: false,
            space: None,
            next_id: 0,
            groups: vec![],
        }
    }

    /// Returns the last tick of a slice.
    fn last_tick(&self, slice: i64) -> i64 {
        slice.saturating_add(self.gap - 1)
    }

    /// Returns a lower bound of the end of the next open session.
    fn earliest_end(&self) -> Option<i64> {
        let waiting = self.waiting.keys().next().map(|(slice, _)| slice.saturating_add(self.gap));
        self.closed
            .first_end()
            .or_else(|| self.chain.earliest_end().into_iter().chain(waiting).min())
    }

    /// Closes sessions that end at `to` or before, unless they have been returned already.
    fn advance(&mut self, to: i64) -> Result<()> {
        while to > self.drained && self.closed.is_empty() {
            self.drained = self.drain(to)?;
        }
        Ok(())
    }

    /// Drains up to `to`, or to the first complete slice that is read from disk; returns how far.
    fn drain(&mut self, to: i64) -> Result<i64> {
        loop {
            // An incomplete slice is always merged in memory.
            if self.is_large()
                && let Some(slice) = self.chain.before_slice().or_else(|| self.first_waiting())
                && to >= self.last_tick(slice.saturating_add(self.gap))
            {
                if !self.closed.is_empty() {
                    return Ok(self.last_tick(slice));
                }
                self.dissolve()?;
                self.pass(slice)?;
                if !self.closed.is_empty() {
                    return Ok(self.last_tick(slice.saturating_add(self.gap)));
                }
                continue;
            }
            if !self.chain.has_begun() {
                let Some(slice) = self.first_waiting() else { return Ok(to) };
                if to < self.last_tick(slice) {
                    return Ok(to);
                }
                let segments = self.waiting.remove(&(slice, i64::MIN)).unwrap_or_default();
                self.before_id = match segments.as_slice() {
                    [one] => one.id,
                    _ => None,
                };
                let pieces = segments.into_iter().filter_map(|kept| kept.body);
                let pieces = pieces.map(frozen).collect::<Result<_>>()?;
                self.chain.begin(slice, pieces)?;
            }
            let Some(slice) = self.chain.slice() else { return Ok(to) };
            self.enter(slice)?;
            if let Some(sessions) = self.chain.drain(to, self.frontier)? {
                self.closed.push(sessions)?;
            }
            if to < self.last_tick(slice) {
                return Ok(to);
            }
            self.chain.step()?;
            self.entered.clear();
            self.before_id = None;
            self.short = false;
        }
    }

    fn first_waiting(&self) -> Option<i64> {
        self.waiting.keys().next().map(|(slice, _)| *slice)
    }

    /// Moves the pieces of a slice that have arrived to the chain.
    fn enter(&mut self, slice: i64) -> Result<()> {
        let segments = self.waiting.remove(&(slice, i64::MIN)).unwrap_or_default();
        for KeptSegment { id, rows, times, body } in segments {
            let Some(body) = body else { continue };
            let piece = frozen(body)?;
            self.chain.absorb(&piece, rows)?;
            if self.cuts {
                let body = id.is_none().then_some(Body::Frozen(piece));
                self.entered.push(KeptSegment { id, rows, times, body });
            }
        }
        if self.entered.iter().filter(|kept| kept.id.is_none()).count() > FRESH_MAX {
            self.merge_entered()?;
        }
        Ok(())
    }
}

/// Returns the groups of a piece, in memory.
fn frozen(body: Body) -> Result<Frozen> {
    match body.in_memory()?.freeze()? {
        Body::Frozen(frozen) => Ok(frozen),
        _ => Err(Error::internal("a piece of a session holds no groups")),
    }
}

impl CoordinatorPart for SessionMerger {
    fn add(&mut self, _input: usize, segment: Segment) -> Result<()> {
        let Segment { slice, rows, times, body, .. } = segment;
        let too_late = match self.chain.slice() {
            Some(now) => slice < now,
            None => self.last_tick(slice) <= self.frontier,
        };
        if too_late {
            return Err(Error::internal(format!(
                "a piece of slice {slice} came when sessions up to {} are closed",
                self.frontier
            )));
        }
        let body = if self.space.is_some() { body } else { body.in_memory()? };
        let kept = KeptSegment { id: None, rows, times, body: Some(body) };
        self.waiting.entry((slice, i64::MIN)).or_default().push(kept);
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        let to = reached.ticks();
        if to <= self.flushed {
            return None;
        }
        // The end of the complete slices.
        let whole = if reached == Watermark::END {
            to
        } else {
            self.slicing.slice(to.saturating_add(1)).saturating_sub(1)
        };
        if whole > self.flushed {
            return Some(Watermark::at(whole));
        }
        let wanted = idle && !self.short && self.earliest_end().is_some_and(|end| end <= to);
        wanted.then_some(reached)
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed = self.flushed.max(to.ticks());
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        // Rows that have not been flushed are in slices in which nothing can end before `reached`.
        if self.earliest_end().is_some_and(|end| reached.closes(end)) {
            return reached.min(Watermark::at(self.flushed));
        }
        reached
    }

    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        if self.closed.first_end().is_none() {
            self.advance(to.ticks())?;
        }
        let next = self.closed.first_end();
        if next.is_none() {
            self.frontier = self.frontier.max(to.ticks());
        }
        Ok(next.filter(|end| to.closes(*end)))
    }

    fn close(&mut self, to: Watermark, rows_max: usize) -> Result<Option<Finished>> {
        if self.next_end(to)?.is_none() {
            return Ok(None);
        }
        let Some(given) = self.closed.give(to.ticks(), rows_max)? else { return Ok(None) };
        self.frontier = self.frontier.max(given.end);
        let rows = WindowRows::Whole(vec![given.rows].into_iter());
        Ok(Some(Finished { windows: given.sessions, rows }))
    }

    fn next_close(&self) -> Option<i64> {
        self.earliest_end()
    }

    fn keep_order(&mut self) -> bool {
        self.closed.keep_order()
    }

    fn keep_cuts(&mut self) {
        self.cuts = true;
    }

    fn cut(&mut self) -> Result<Cut> {
        self.save()
    }

    fn spill_to(&mut self, space: Arc<dyn SpillSpace>) {
        self.space = Some(space);
    }

    fn spill(&mut self) -> Result<()> {
        self.spill_pieces()
    }

    fn open_windows(&self) -> usize {
        let pieces = |kept: &KeptSegment| kept.body.as_ref().map_or(0, Body::len);
        self.chain.len() + self.waiting.values().flatten().map(pieces).sum::<usize>()
    }

    fn rows(&self) -> u64 {
        self.chain.rows() + self.waiting.values().flatten().map(|kept| kept.rows).sum::<u64>()
    }

    fn survey(&mut self, entries_max: usize) -> Result<Survey> {
        self.survey_sessions(entries_max)
    }

    fn size_bytes(&self) -> usize {
        let size = |kept: &KeptSegment| kept.body.as_ref().map_or(0, Body::size_bytes);
        let segments = self.waiting.values().flatten().chain(&self.entered);
        self.chain.size_bytes() + self.closed.size_bytes() + segments.map(size).sum::<usize>()
    }
}
