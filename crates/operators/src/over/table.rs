//! The state of OVER in memory: keys, the history, frames and functions.
//!
//! Invariants: rows are processed in order of time, all rows of one time together; keys are numbered from 0.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result};

use super::frames::{EVALUATE, Frame, event};
use super::functions::{Function, function};
use super::history::{History, Numbers, ints_array};
use super::{OverSpec, Wait};
use crate::in_order::piece::times;
use crate::in_order::{Evaluated, OrderedSpec, OrderedTable, Ties};
use crate::survey::Times;
use crate::table::Interner;

/// Rows and keys that are no longer needed are kept until there are this many, and at least as many as needed ones.
const USELESS_MIN: usize = 64;

/// See the module.
pub(crate) struct Table {
    spec: Arc<OverSpec>,
    /// `None` while there are no rows.
    keys: Option<Interner>,
    history: History,
    frames: Vec<Frame>,
    functions: Vec<Call>,
    ties: Ties,
    touched: Option<Touched>,
    /// Scratch.
    numbers: Vec<usize>,
}

/// A function with its frame.
struct Call {
    function: Box<dyn Function>,
    /// Its frame, if it has one.
    frame: Option<usize>,
    keeps_state: bool,
}

/// The keys with state that no checkpoint has.
#[derive(Debug, Default)]
struct Touched {
    is: Vec<bool>,
    keys: Vec<u32>,
}

impl Touched {
    fn touch(&mut self, key: u32) {
        let at = key as usize;
        if self.is.len() <= at {
            self.is.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is[at], true) {
            self.keys.push(key);
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rows", &self.history.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Restores rows that had been processed before `to`; the restored state of functions is not changed.
    fn replay(&mut self, batch: RecordBatch, to: i64) -> Result<()> {
        let new = self.history.len();
        // Rows that wait are returned in the order in which they are held.
        let always = self.ties.always;
        self.ties.always |= self.spec.wait != Wait::Nothing;
        self.append(batch)?;
        self.ties.always = always;
        self.advance(new, (to, false));
        let evaluated = self.evaluated(new);
        let keys = self.keys_len();
        for call in self.functions.iter_mut().filter(|call| !call.keeps_state) {
            let events = call.frame.and_then(|at| self.frames.get(at)).map(|f| f.events.as_slice());
            call.function.run(events.unwrap_or_default(), &evaluated, &self.history, keys)?;
        }
        self.prune()
    }

    /// Appends rows to the history, those of one time in their order; returns them.
    fn append(&mut self, mut batch: RecordBatch) -> Result<RecordBatch> {
        let mut numbers = std::mem::take(&mut self.numbers);
        let columns = self.spec.keys.iter().filter_map(|key| batch.columns().get(*key).cloned());
        self.intern(&columns.collect::<Vec<_>>(), batch.num_rows(), &mut numbers)?;
        let total = self.keys_len();
        if let Some(order) = self.ties.order(&batch, (&numbers, total))? {
            numbers = order.iter().map(|row| numbers[*row as usize]).collect();
            batch = take_record_batch(&batch, &UInt32Array::from(order))?;
        }
        let logged = self.spec.logging.columns.iter();
        let logged: Vec<ArrayRef> =
            logged.filter_map(|column| batch.columns().get(*column).cloned()).collect();
        self.history.append(times(&batch)?, (&numbers, total), &logged)?;
        self.numbers = numbers;
        Ok(batch)
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize, numbers: &mut Vec<usize>) -> Result<()> {
        let mut interner = match self.keys.take() {
            Some(interner) => interner,
            None => Interner::of(&self.spec.key_schema, 0)?,
        };
        interner.intern(keys, rows, numbers)?;
        self.keys = Some(interner);
        Ok(())
    }

    fn advance(&mut self, new: usize, to: (i64, bool)) {
        let keys = self.keys_len();
        for frame in &mut self.frames {
            frame.advance(&self.history, new, keys, to);
        }
    }

    /// The rows whose frames are final, in order of their ends.
    fn evaluated(&self, new: usize) -> Vec<u32> {
        match (self.spec.wait, self.frames.first()) {
            (Wait::Nothing, _) | (_, None) => (new as u32..self.history.len() as u32).collect(),
            (Wait::Ticks(_) | Wait::Rows(_), Some(frame)) => {
                let events = frame.events.iter().copied().map(event);
                events.filter(|(what, _)| *what == EVALUATE).map(|(_, row)| row).collect()
            }
        }
    }

    fn touch(&mut self, evaluated: &[u32]) {
        let Some(touched) = &mut self.touched else { return };
        let key = |row: &u32| self.history.entries[*row as usize].key;
        evaluated.iter().map(key).for_each(|key| touched.touch(key));
        for frame in self.frames.iter().filter(|frame| frame.of.start().is_none()) {
            let rows = frame.events.iter().map(|of| event(*of).1);
            rows.for_each(|row| touched.touch(key(&row)));
        }
    }

    /// The evaluated rows with the values.
    fn returned(
        &self,
        batch: Option<RecordBatch>,
        (evaluated, new): (&[u32], usize),
        values: Vec<ArrayRef>,
    ) -> Result<Evaluated> {
        let time = |row: &u32| self.history.entries[*row as usize].time;
        let (mut columns, ends): (Vec<ArrayRef>, Vec<i64>) = match (self.spec.wait, batch) {
            (Wait::Nothing, Some(batch)) => {
                let ends = self.history.entries.iter().skip(new);
                let ends = ends.map(|entry| entry.time.saturating_add(1));
                (batch.columns().to_vec(), ends.collect())
            }
            (wait, _) => {
                let columns = self.history.columns.iter().map(|column| column.gather(evaluated));
                let columns = columns.collect::<Result<_>>()?;
                let ends = match wait {
                    Wait::Nothing | Wait::Ticks(_) => {
                        let wait = self.spec.wait_ticks().saturating_add(1);
                        evaluated.iter().map(|row| time(row).saturating_add(wait)).collect()
                    }
                    Wait::Rows(_) => self.ends_by_rows(),
                };
                (columns, ends)
            }
        };
        columns.extend(values);
        let options = RecordBatchOptions::new().with_row_count(Some(ends.len()));
        let schema = Arc::clone(&self.spec.output_schema);
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Evaluated { rows, ends })
    }

    /// The ends of rows that waited for others: one tick after the time of the last of those.
    fn ends_by_rows(&self) -> Vec<i64> {
        let rows = self.frames.iter().take(1).flat_map(|frame| &frame.waited_for);
        let end = |row: &u32| {
            // If no more rows arrive, it ends with the input.
            let came = self.history.entries.get(*row as usize);
            came.map_or(i64::MAX, |entry| entry.time.saturating_add(1))
        };
        rows.map(end).collect()
    }

    /// Drops what frames cannot reach any more, once that is the larger part.
    fn prune(&mut self) -> Result<()> {
        let rows = self.history.len();
        let needed = self.frames.iter().map(|frame| frame.needed(rows)).max().unwrap_or(0);
        let useless = rows.saturating_sub(needed);
        if needed == 0 && rows > 0 {
            self.history.clear();
            let nothing = Numbers::new(&[], 0);
            self.frames.iter_mut().for_each(Frame::forget_rows);
            self.functions.iter_mut().for_each(|call| call.function.renumber(&[], &nothing));
            return self.prune_keys();
        }
        if useless < USELESS_MIN || useless * 2 < rows {
            return Ok(());
        }
        let mut marks = vec![false; rows];
        self.frames.iter().for_each(|frame| frame.mark(&self.history, &mut marks));
        let kept = marks.iter().zip(0_u32..).filter(|(needed, _)| **needed).map(|(_, row)| row);
        let kept: Vec<u32> = kept.collect();
        let numbers = Numbers::new(&kept, rows);
        self.history.keep(&kept, &numbers)?;
        self.frames.iter_mut().for_each(|frame| frame.renumber(&kept, &numbers));
        self.functions.iter_mut().for_each(|call| call.function.renumber(&kept, &numbers));
        self.prune_keys()
    }

    /// Drops keys without rows, if they have no other state.
    fn prune_keys(&mut self) -> Result<()> {
        if self.spec.keeps_state() {
            return Ok(());
        }
        let total = self.keys_len();
        let mut has_rows = vec![false; total];
        for entry in &self.history.entries {
            has_rows[entry.key as usize] = true;
        }
        let kept = has_rows.iter().zip(0_u32..).filter(|(has, _)| **has).map(|(_, key)| key);
        let kept: Vec<u32> = kept.collect();
        let useless = total - kept.len();
        if useless == 0 || (!kept.is_empty() && (useless < USELESS_MIN || useless < kept.len())) {
            return Ok(());
        }
        if let Some(mut interner) = self.keys.take().filter(|_| !kept.is_empty()) {
            let rows = UInt32Array::from(kept.clone());
            let keys = interner.take_keys()?;
            let keys =
                keys.iter().map(|key| take(key, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            let mut numbers = vec![];
            let mut fresh = Interner::of(&self.spec.key_schema, kept.len())?;
            fresh.intern(&keys, kept.len(), &mut numbers)?;
            self.keys = Some(fresh);
        }
        self.history.keep_keys(&kept, &Numbers::new(&kept, total));
        self.frames.iter_mut().for_each(|frame| frame.keep_keys(&kept));
        self.functions.iter_mut().for_each(|call| call.function.keep_keys(&kept));
        Ok(())
    }

    /// The columns of some keys.
    fn key_values(&mut self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        match &mut self.keys {
            Some(keys) => keys.pick_keys(&self.spec.key_schema, numbers),
            None => Ok(vec![]),
        }
    }
}

impl OrderedTable for Table {
    type Spec = OverSpec;

    fn new(spec: &Arc<OverSpec>, ordered: bool) -> Result<Self> {
        let mut frames: Vec<Frame> = vec![];
        let mut functions = vec![];
        let wait = match spec.wait {
            Wait::Nothing => 0,
            Wait::Ticks(wait) | Wait::Rows(wait) => wait,
        };
        for call in &spec.calls {
            let place = || {
                frames.iter().position(|frame| frame.of == call.frame).unwrap_or_else(|| {
                    frames.push(Frame::new(call.frame, wait));
                    frames.len() - 1
                })
            };
            functions.push(Call {
                frame: call.has_frame().then(place),
                function: function(call, &spec.logging)?,
                keeps_state: call.keeps_state(),
            });
        }
        Ok(Self {
            spec: Arc::clone(spec),
            keys: None,
            history: History::new(spec.logging.types.iter().cloned()),
            frames,
            functions,
            ties: spec.ties(ordered),
            touched: None,
            numbers: vec![],
        })
    }

    fn keep_order(&mut self) {
        self.ties.always = true;
    }

    fn remember_touched(&mut self) {
        if self.spec.keeps_state() && self.touched.is_none() {
            self.touched = Some(Touched::default());
        }
    }

    fn touch_all(&mut self) {
        let keys = self.keys_len();
        if let Some(touched) = &mut self.touched {
            (0..keys).filter_map(|key| u32::try_from(key).ok()).for_each(|key| touched.touch(key));
        }
    }

    fn keys_len(&self) -> usize {
        self.keys.as_ref().map_or(0, Interner::len)
    }

    fn is_empty(&self) -> bool {
        self.keys.is_none()
    }

    fn waits_at(&self) -> Option<i64> {
        match self.spec.wait {
            Wait::Ticks(_) => self.frames.first()?.waits_at(&self.history),
            Wait::Nothing | Wait::Rows(_) => None,
        }
    }

    fn process(
        &mut self,
        batch: Option<RecordBatch>,
        to: i64,
        last: bool,
    ) -> Result<Option<Evaluated>> {
        let new = self.history.len();
        let batch = batch.map(|batch| self.append(batch)).transpose()?;
        self.advance(new, (to, last));
        let evaluated = self.evaluated(new);
        let mut values = Vec::with_capacity(self.functions.len());
        let keys = self.keys_len();
        for call in &mut self.functions {
            let events = call.frame.and_then(|at| self.frames.get(at)).map(|f| f.events.as_slice());
            let events = events.unwrap_or_default();
            values.push(call.function.run(events, &evaluated, &self.history, keys)?);
        }
        self.touch(&evaluated);
        let rows = if evaluated.is_empty() {
            None
        } else {
            Some(self.returned(batch, (&evaluated, new), values)?)
        };
        self.prune()?;
        Ok(rows)
    }

    fn rows(&mut self) -> Result<Option<RecordBatch>> {
        let rows = self.history.len();
        if rows == 0 {
            return Ok(None);
        }
        let owners: Vec<u32> = self.history.entries.iter().map(|entry| entry.key).collect();
        let keys = self.key_values(&owners)?;
        let all: Vec<u32> = (0..rows as u32).collect();
        let spec = &self.spec;
        let mut columns = Vec::with_capacity(spec.state_schema.fields().len());
        for (at, field) in spec.state_schema.fields().iter().enumerate() {
            let key = spec.keys.iter().position(|key| *key == at).and_then(|key| keys.get(key));
            columns.push(match (at, key, spec.logging.columns.binary_search(&at)) {
                (0, ..) => {
                    let times = self.history.entries.iter().map(|entry| entry.time);
                    ints_array(field.data_type(), times.collect(), None)?
                }
                (_, Some(key), _) => Arc::clone(key),
                (_, None, Ok(place)) => match self.history.columns.get(place) {
                    Some(column) => column.gather(&all)?,
                    None => return Err(Error::internal("a column of OVER is lost")),
                },
                (_, None, Err(_)) => new_null_array(field.data_type(), rows),
            });
        }
        Ok(Some(RecordBatch::try_new(Arc::clone(&spec.state_schema), columns)?))
    }

    fn states(&mut self, all: bool) -> Result<Option<RecordBatch>> {
        let keys: Vec<u32> = match &mut self.touched {
            Some(touched) => {
                let keys = std::mem::take(&mut touched.keys);
                keys.iter().for_each(|key| touched.is[*key as usize] = false);
                keys
            }
            None => vec![],
        };
        let keys = if all { (0..self.keys_len() as u32).collect() } else { keys };
        if keys.is_empty() || !self.spec.keeps_state() {
            return Ok(None);
        }
        let mut columns = self.key_values(&keys)?;
        for call in self.functions.iter_mut().filter(|call| call.keeps_state) {
            columns.extend(call.function.state(&keys)?);
        }
        let fields = columns.iter().enumerate();
        let fields = fields.map(|(i, c)| Field::new(format!("s{i}"), c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }

    fn load(
        &mut self,
        rows: Option<RecordBatch>,
        states: &[RecordBatch],
        frontier: i64,
    ) -> Result<()> {
        for batch in states {
            let keys = self.spec.keys.len();
            let wanted: usize = self
                .functions
                .iter()
                .filter(|call| call.keeps_state)
                .map(|call| call.function.state_columns())
                .sum();
            let types = self.spec.key_schema.fields().iter().map(|field| field.data_type());
            let same = types.zip(batch.columns()).all(|(of, column)| of == column.data_type());
            if batch.num_columns() != keys + wanted || !same {
                return Err(Error::internal("a state of OVER has other columns"));
            }
            let mut numbers = std::mem::take(&mut self.numbers);
            let columns = batch.columns();
            self.intern(&columns[..keys], batch.num_rows(), &mut numbers)?;
            let (total, mut at) = (self.keys_len(), keys);
            for call in self.functions.iter_mut().filter(|call| call.keeps_state) {
                let own = call.function.state_columns();
                call.function.restore(&numbers, total, &columns[at..at + own])?;
                at += own;
            }
            self.numbers = numbers;
        }
        rows.map_or(Ok(()), |rows| self.replay(rows, frontier))
    }

    fn size_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let keys = self.keys.as_ref().map_or(0, Interner::size_bytes);
        let touched = self.touched.as_ref().map_or(0, |t| t.is.capacity() + t.keys.capacity() * 4);
        keys + touched
            + self.history.size_bytes()
            + self.numbers.capacity() * size_of::<usize>()
            + self.frames.iter().map(Frame::size_bytes).sum::<usize>()
            + self.functions.iter().map(|call| call.function.size_bytes()).sum::<usize>()
    }

    fn len(&self) -> usize {
        self.history.len()
    }

    fn times(&self) -> Times {
        let entries = &self.history.entries;
        entries.first().zip(entries.last()).map(|(first, last)| (first.time, last.time))
    }

    fn needed_from(&self) -> i64 {
        i64::MIN
    }
}
