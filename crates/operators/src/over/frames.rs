//! The changes of a frame as rows arrive: rows enter it, leave it, and are evaluated.
//!
//! ```text
//! new rows ─► frame ─► events: enter 7 · leave 2 · evaluate 7 · … ─► each function over this frame
//! ```
//! A frame of ROWS moves in steps of one row of its key: three cursors per key point to the row that enters, leaves and
//! is evaluated next. A frame of RANGE moves with the time for all keys at once: three pointers into the history. Rows
//! leave it as soon as no further row can see them, whether their key has new rows or not.
//!
//! Invariants: every row is evaluated once, those of one key in their order; the frame of the row being evaluated
//! consists of the rows that have entered and not left.

use super::history::{Entry, History, NONE, Numbers};

/// The row enters the frame of its key.
pub(super) const ENTER: u32 = 0;
/// The row leaves the frame of its key.
pub(super) const LEAVE: u32 = 1 << 30;
/// The function is evaluated for the row.
pub(super) const EVALUATE: u32 = 2 << 30;
/// The bits of an event that hold the row.
const ROW: u32 = (1 << 30) - 1;

/// Splits an event into its kind and the row.
#[inline(always)]
pub(super) fn event(event: u32) -> (u32, u32) {
    (event & !ROW, event & ROW)
}

/// A frame around the current row: from `start` to `end`, in rows or ticks relative to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverFrame {
    /// Rows of the key.
    Rows {
        /// The first; `None`: the first row of the key.
        start: Option<i64>,
        /// The last.
        end: i64,
    },
    /// Rows of the key whose times are within the bounds. A frame has all rows of the same time or none of them.
    Range {
        /// The smallest difference of the times; `None`: no lower bound.
        start: Option<i64>,
        /// The greatest.
        end: i64,
    },
}

impl OverFrame {
    /// The start; `None`: the first row.
    pub fn start(self) -> Option<i64> {
        match self {
            Self::Rows { start, .. } | Self::Range { start, .. } => start,
        }
    }

    /// The end.
    pub fn end(self) -> i64 {
        match self {
            Self::Rows { end, .. } | Self::Range { end, .. } => end,
        }
    }
}

/// A moving frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) of: OverFrame,
    /// The number of rows of its key, or ticks, by which the evaluation of a row is delayed.
    wait: i64,
    /// ROWS: the cursors of each key.
    cursors: Vec<Cursors>,
    /// ROWS: the number of rows that are no longer needed here: the last of their events (to enter, to leave or to be
    /// evaluated) has occurred.
    passed: usize,
    /// RANGE: the next rows to enter, to leave and to be evaluated.
    enter: usize,
    leave: usize,
    evaluate: usize,
    pub(super) events: Vec<u32>,
    /// ROWS: for each evaluation, the row that it waited for; NONE: the end of the input.
    pub(super) waited_for: Vec<u32>,
}

/// The next row to enter, to leave, to be evaluated; NONE: the next one that arrives.
#[derive(Debug, Clone, Copy)]
struct Cursors {
    /// The number of rows that have arrived, saturating.
    came: u32,
    enter: u32,
    leave: u32,
    evaluate: u32,
}

const FRESH: Cursors = Cursors { came: 0, enter: NONE, leave: NONE, evaluate: NONE };

impl Frame {
    /// A frame whose rows are evaluated `wait` rows of their key, or ticks, later: at least as many as it reaches
    /// forward.
    pub(super) fn new(of: OverFrame, wait: i64) -> Self {
        Self {
            of,
            wait,
            cursors: vec![],
            passed: 0,
            enter: 0,
            leave: 0,
            evaluate: 0,
            events: vec![],
            waited_for: vec![],
        }
    }

    /// Makes the events of the rows from `new` on. All rows before `to` have arrived; `last`: no more will.
    pub(super) fn advance(
        &mut self,
        history: &History,
        new: usize,
        keys: usize,
        (to, last): (i64, bool),
    ) {
        self.events.clear();
        self.waited_for.clear();
        match self.of {
            OverFrame::Rows { start, end } => {
                self.cursors.resize(keys.max(self.cursors.len()), FRESH);
                for row in new..history.len() {
                    self.row_comes(&history.entries, row as u32, (start, end));
                }
                if last && self.wait > 0 {
                    self.evaluate_rest(&history.entries, (start, end));
                }
            }
            OverFrame::Range { start, end } => {
                self.time_goes_on(&history.entries, (start, end), (to, last));
            }
        }
    }

    fn row_comes(&mut self, entries: &[Entry], row: u32, (start, end): (Option<i64>, i64)) {
        let cursors = &mut self.cursors[entries[row as usize].key as usize];
        cursors.came = cursors.came.saturating_add(1);
        let came = i64::from(cursors.came);
        for cursor in [&mut cursors.enter, &mut cursors.leave, &mut cursors.evaluate] {
            if *cursor == NONE {
                *cursor = row;
            }
        }
        // In order of the rows of the key, counted from 1: those that enter, leave and are evaluated now.
        let at = came.saturating_sub(self.wait);
        if at.saturating_add(end) >= 1 {
            self.events.push(ENTER | step(entries, &mut cursors.enter));
            self.passed += usize::from(start.is_none() && end < 0);
        }
        if let Some(start) = start
            && at.saturating_add(start) >= 2
        {
            self.events.push(LEAVE | step(entries, &mut cursors.leave));
            self.passed += usize::from(start <= 0);
        }
        if at >= 1 {
            self.events.push(EVALUATE | step(entries, &mut cursors.evaluate));
            self.passed += usize::from(start.map_or(end >= 0, |start| start > 0));
            if self.wait > 0 {
                self.waited_for.push(row);
            }
        }
    }

    /// Evaluates the rows that waited for others, since no more rows arrive.
    fn evaluate_rest(&mut self, entries: &[Entry], (start, end): (Option<i64>, i64)) {
        for (row, entry) in entries.iter().enumerate() {
            let cursors = &mut self.cursors[entry.key as usize];
            if cursors.evaluate != row as u32 {
                continue;
            }
            // At the end of the input, as if the further rows that this one waits for had arrived.
            let before = i64::from(cursors.came).saturating_sub(self.wait);
            let at = before.max(0) + 1;
            cursors.came = u32::try_from(at.saturating_add(self.wait)).unwrap_or(u32::MAX);
            for _ in before.saturating_add(end).max(0)..at.saturating_add(end) {
                if cursors.enter == NONE {
                    break;
                }
                self.events.push(ENTER | step(entries, &mut cursors.enter));
            }
            let start = start.map_or(i64::MIN, |start| start.saturating_sub(1));
            for _ in before.saturating_add(start).max(0)..at.saturating_add(start) {
                if cursors.leave == NONE {
                    break;
                }
                self.events.push(LEAVE | step(entries, &mut cursors.leave));
            }
            self.events.push(EVALUATE | step(entries, &mut cursors.evaluate));
            self.waited_for.push(NONE);
        }
    }

    fn time_goes_on(
        &mut self,
        entries: &[Entry],
        (start, end): (Option<i64>, i64),
        (to, last): (i64, bool),
    ) {
        let time = |row: usize| entries.get(row).map(|entry| entry.time);
        while let Some(now) = time(self.evaluate) {
            if !last && now.saturating_add(self.wait) >= to {
                break;
            }
            while time(self.enter).is_some_and(|time| time <= now.saturating_add(end)) {
                self.events.push(ENTER | self.enter as u32);
                self.enter += 1;
            }
            self.leave_before(entries, start.map(|start| now.saturating_add(start)));
            while time(self.evaluate) == Some(now) {
                self.events.push(EVALUATE | self.evaluate as u32);
                self.evaluate += 1;
            }
        }
        if start.is_none() {
            // All further frames have these; so the rows that have entered depend on `to` alone, and not on which rows
            // were evaluated.
            let all = to.saturating_sub(self.wait).saturating_add(end);
            while time(self.enter).is_some_and(|time| time <= all) {
                self.events.push(ENTER | self.enter as u32);
                self.enter += 1;
            }
        }
        let next = time(self.evaluate).unwrap_or(if last { i64::MAX } else { to });
        let first = start.map(|start| next.saturating_add(start));
        self.leave_before(entries, first);
        // Rows that are in no further frame need not enter.
        while self.leave == self.enter && time(self.enter).is_some_and(|time| Some(time) < first) {
            self.enter += 1;
            self.leave += 1;
        }
    }

    fn leave_before(&mut self, entries: &[Entry], first: Option<i64>) {
        let Some(first) = first else { return };
        while self.leave < self.enter && entries.get(self.leave).is_some_and(|e| e.time < first) {
            self.events.push(LEAVE | self.leave as u32);
            self.leave += 1;
        }
    }

    /// The time of the first row that waits to be evaluated.
    pub(super) fn waits_at(&self, history: &History) -> Option<i64> {
        match self.of {
            OverFrame::Rows { .. } => None,
            OverFrame::Range { .. } => history.entries.get(self.evaluate).map(|entry| entry.time),
        }
    }

    /// The first row that a frame of RANGE may still need.
    fn first_needed(&self) -> usize {
        let first = self.evaluate.min(self.enter);
        if self.of.start().is_some() { first.min(self.leave) } else { first }
    }

    /// The number of `rows` that it may still need, approximately.
    pub(super) fn needed(&self, rows: usize) -> usize {
        match self.of {
            OverFrame::Rows { .. } => rows.saturating_sub(self.passed),
            OverFrame::Range { .. } => rows.saturating_sub(self.first_needed()),
        }
    }

    /// Marks the rows that it may still need.
    pub(super) fn mark(&self, history: &History, needed: &mut [bool]) {
        match self.of {
            OverFrame::Range { .. } => {
                needed.iter_mut().skip(self.first_needed()).for_each(|needed| *needed = true);
            }
            OverFrame::Rows { start, end } => {
                for (row, (entry, needed)) in history.entries.iter().zip(needed).enumerate() {
                    let Some(cursors) = self.cursors.get(entry.key as usize) else { continue };
                    let mut first = cursors.evaluate;
                    if end < self.wait {
                        first = first.min(cursors.enter);
                    }
                    if start.is_some() {
                        first = first.min(cursors.leave);
                    }
                    // NONE is greater than any row.
                    *needed |= row as u32 >= first;
                }
            }
        }
    }

    /// Updates the row numbers after all but the `kept` rows have been dropped.
    pub(super) fn renumber(&mut self, kept: &[u32], numbers: &Numbers) {
        for cursors in &mut self.cursors {
            for cursor in [&mut cursors.enter, &mut cursors.leave, &mut cursors.evaluate] {
                *cursor = numbers.of(*cursor);
            }
        }
        self.passed = 0;
        for pointer in [&mut self.enter, &mut self.leave, &mut self.evaluate] {
            *pointer = kept.partition_point(|row| (*row as usize) < *pointer);
        }
    }

    /// Updates the row numbers after all rows have been dropped.
    pub(super) fn forget_rows(&mut self) {
        if self.of.start().is_some() || self.of.end() != 0 || self.wait != 0 {
            return self.renumber(&[], &Numbers::new(&[], 0));
        }
        // The cursors of ROWS are all at rows that have not arrived.
        (self.passed, self.enter, self.leave, self.evaluate) = (0, 0, 0, 0);
    }

    /// Updates the keys after all but the `kept` ones have been dropped.
    pub(super) fn keep_keys(&mut self, kept: &[u32]) {
        let cursors = kept.iter().map(|key| self.cursors.get(*key as usize));
        self.cursors = cursors.map(|cursors| cursors.copied().unwrap_or(FRESH)).collect();
    }

    pub(super) fn size_bytes(&self) -> usize {
        let events = self.events.capacity() + self.waited_for.capacity();
        self.cursors.capacity() * size_of::<Cursors>() + events * size_of::<u32>()
    }
}

/// Moves a cursor to the next row of the key; returns its previous row.
#[inline(always)]
fn step(entries: &[Entry], cursor: &mut u32) -> u32 {
    let row = *cursor;
    *cursor = entries[row as usize].next;
    row
}
