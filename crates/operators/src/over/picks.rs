//! Functions that return a value of one row of the frame: the first, the last, the n-th; LAG and LEAD are the first of a
//! frame of one row.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use windrow_core::Result;

use super::frames::{ENTER, EVALUATE, event};
use super::functions::{Function, column, integers, kept};
use super::history::{History, Logged, NONE, Numbers};
use super::{FrameRow, OverCall, OverFunction};
use crate::failure;

/// Retained values are compacted when there are this many, and more than twice as many as keys.
const PINNED_MIN: usize = 64 << 10;

/// A row of a frame that rows leave, or the current one.
#[derive(Debug)]
pub(super) struct Pick {
    column: usize,
    which: FrameRow,
    ignore_nulls: bool,
    /// The value if the frame has no such row.
    default: Option<ScalarValue>,
    keys: Vec<Span>,
    /// The keys that have rows in their frames, and perhaps others: where the history is forgotten after each batch, only those of the
    /// batch are looked at.
    begun: Vec<u32>,
}

/// The rows in the frame of a key, without those that are skipped.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u32,
    last: u32,
    rows: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { first: NONE, last: NONE, rows: 0 }
    }
}

impl Pick {
    pub(super) fn new(
        column: usize,
        which: FrameRow,
        ignore_nulls: bool,
        default: Option<ScalarValue>,
    ) -> Self {
        let default = default.filter(|default| !default.is_null());
        Self { column, which, ignore_nulls, default, keys: vec![], begun: vec![] }
    }
}

impl Function for Pick {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.keys.resize(keys.max(self.keys.len()), Span::default());
        let column = &rows.columns[self.column];
        let all = !self.ignore_nulls || column.all_valid();
        let next = |row: u32| rows.entries[row as usize].next;
        // The first row from `row` to `last` that is not skipped.
        let counting = |mut row: u32, last: u32| {
            while !all && row != last && !column.is_valid(row) {
                row = next(row);
            }
            row
        };
        let mut out = Vec::with_capacity(evaluated.len());
        for (what, row) in events.iter().copied().map(event) {
            let key = rows.entries[row as usize].key;
            let span = &mut self.keys[key as usize];
            match what {
                EVALUATE => out.push(match self.which {
                    FrameRow::First => span.first,
                    FrameRow::Last => span.last,
                    FrameRow::Nth(n) if n > span.rows => NONE,
                    FrameRow::Nth(n) => {
                        (1..n).fold(span.first, |row, _| counting(next(row), span.last))
                    }
                }),
                _ if !all && !column.is_valid(row) => {}
                ENTER => {
                    if span.first == NONE {
                        span.first = row;
                        self.begun.push(key);
                    }
                    span.last = row;
                    span.rows += 1;
                }
                _ if span.last == row => *span = Span::default(),
                _ => {
                    span.first = counting(next(row), span.last);
                    span.rows -= 1;
                }
            }
        }
        let values = column.gather(&out)?;
        let Some(default) = self.default.as_ref().filter(|_| out.contains(&NONE)) else {
            return Ok(values);
        };
        let none: BooleanArray = out.iter().map(|row| Some(*row == NONE)).collect();
        let default = default.to_scalar().map_err(failure::engine)?;
        Ok(zip(&none, &default, &values)?)
    }

    fn renumber(&mut self, _kept: &[u32], numbers: &Numbers) {
        let mut begun = std::mem::take(&mut self.begun);
        // A key that has begun several times is renumbered once.
        begun.sort_unstable();
        begun.dedup();
        begun.retain(|key| {
            let Some(span) = self.keys.get_mut(*key as usize) else { return false };
            (span.first, span.last) = (numbers.of(span.first), numbers.of(span.last));
            span.first != NONE
        });
        self.begun = begun;
    }

    fn keep_keys(&mut self, keys: &[u32]) {
        self.keys = kept(&self.keys, keys);
        let begun = self.keys.iter().zip(0_u32..).filter(|(span, _)| span.first != NONE);
        self.begun = begun.map(|(_, key)| key).collect();
    }

    fn size_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Span>() + self.begun.capacity() * size_of::<u32>()
    }
}

/// A row of a frame that begins with the first row: its value is retained, so the row need not be.
#[derive(Debug)]
pub(super) struct Pinned {
    column: usize,
    which: FrameRow,
    ignore_nulls: bool,
    values: Logged,
    keys: Vec<Pin>,
}

/// The state of a key.
#[derive(Debug, Clone, Copy)]
struct Pin {
    rows: i64,
    /// The index of the value.
    at: u32,
}

impl Default for Pin {
    fn default() -> Self {
        Self { rows: 0, at: NONE }
    }
}

impl Pinned {
    /// Whether the value of a call may be that of a row that is no longer in the history.
    pub(super) fn is_needed(call: &OverCall) -> bool {
        let OverFunction::Value { which, ignore_nulls, .. } = &call.function else { return false };
        let current = *which == FrameRow::Last && call.frame.end() == 0 && !ignore_nulls;
        call.frame.start().is_none() && !current
    }

    pub(super) fn new(
        column: usize,
        which: FrameRow,
        ignore_nulls: bool,
        data_type: DataType,
    ) -> Self {
        Self { column, which, ignore_nulls, values: Logged::new(data_type), keys: vec![] }
    }

    /// Drops values that no key refers to any more.
    fn put_together(&mut self) -> Result<()> {
        if self.values.len() < PINNED_MIN || self.values.len() / 2 < self.keys.len() {
            return Ok(());
        }
        let places: Vec<u32> =
            self.keys.iter().map(|pin| pin.at).filter(|at| *at != NONE).collect();
        self.values.keep(&places)?;
        let places = self.keys.iter_mut().filter(|pin| pin.at != NONE);
        places.zip(0..).for_each(|(pin, at)| pin.at = at);
        Ok(())
    }
}

impl Function for Pinned {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.keys.resize(keys.max(self.keys.len()), Pin::default());
        let column = &rows.columns[self.column];
        let mut pinned = vec![];
        let mut out = Vec::with_capacity(evaluated.len());
        let before = self.values.len();
        for (what, row) in events.iter().copied().map(event) {
            let pin = &mut self.keys[rows.entries[row as usize].key as usize];
            if what == EVALUATE {
                out.push(pin.at);
            } else if !self.ignore_nulls || column.is_valid(row) {
                pin.rows += 1;
                let is_it = match self.which {
                    FrameRow::First => pin.rows == 1,
                    FrameRow::Last => true,
                    FrameRow::Nth(n) => pin.rows as u64 == n,
                };
                if is_it {
                    pin.at = (before + pinned.len()) as u32;
                    pinned.push(row);
                }
            }
        }
        self.values.append(&column.gather(&pinned)?)?;
        let values = self.values.gather(&out)?;
        self.put_together()?;
        Ok(values)
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.keys = kept(&self.keys, keys);
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        let pins = kept(&self.keys, keys);
        let places: Vec<u32> = pins.iter().map(|pin| pin.at).collect();
        let rows = Int64Array::from_iter_values(pins.iter().map(|pin| pin.rows));
        Ok(vec![Arc::new(rows), self.values.gather(&places)?])
    }

    fn state_columns(&self) -> usize {
        2
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.keys.resize(total.max(self.keys.len()), Pin::default());
        let (rows, values) = (integers(state, 0, keys.len())?, column(state, 1, keys.len())?);
        if values.data_type() != self.values.data_type() {
            return Err(windrow_core::Error::internal("a state of OVER is of another type"));
        }
        let wanted = match self.which {
            FrameRow::First | FrameRow::Last => 1,
            FrameRow::Nth(n) => n,
        };
        let before = self.values.len();
        self.values.append(values)?;
        for (place, (key, rows)) in keys.iter().zip(rows).enumerate() {
            let has = u64::try_from(*rows).is_ok_and(|rows| rows >= wanted);
            let at = if has { (before + place) as u32 } else { NONE };
            self.keys[*key] = Pin { rows: *rows, at };
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Pin>() + self.values.size_bytes()
    }
}
