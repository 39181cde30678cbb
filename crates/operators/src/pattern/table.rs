//! The state of MATCH_RECOGNIZE in memory: keys, their rows, and the current attempt of each.
//!
//! Invariants: rows are processed in order of time, all rows of one time together; keys are numbered from 0. An attempt
//! has taken all rows of its key so far.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, budget};

use super::PatternSpec;
use super::attempt::{Attempt, Scratch, View};
use super::formula::{Formula, Slot};
use super::output::{Found, Matches};
use super::program::bit;
use super::skip::next;
use super::store::{NONE, Store};
use crate::in_order::{Evaluated, OrderedTable, Ties};
use crate::survey::Times;
use crate::table::Interner;

/// Rows and keys that are no longer needed are kept until there are this many, and at least as many as needed ones.
const USELESS_MIN: usize = 64;
/// The number of rows after which the table checks whether the query has been cancelled.
const ROWS_BETWEEN_CHECKS: usize = 1 << 12;

/// See the module.
pub(crate) struct Table {
    spec: Arc<PatternSpec>,
    /// `None` while there are no rows.
    keys: Option<Interner>,
    states: Vec<KeyState>,
    pub(super) store: Store,
    ties: Ties,
    /// The ends of open attempts by WITHIN; may include some of decided attempts.
    deadlines: BinaryHeap<Reverse<(i64, u32)>>,
    touched: Option<Touched>,
    scratch: Scratch,
    /// A decided attempt, for reuse.
    spare: Option<Box<Attempt>>,
    /// The number of rows that are needed.
    live: usize,
    attempts_bytes: usize,
    /// Scratch.
    numbers: Vec<usize>,
}

/// The state of a key.
#[derive(Debug)]
struct KeyState {
    /// The rows before the attempt that may still be read, then those from its beginning.
    rows: VecDeque<u32>,
    /// The number of rows before the attempt.
    start: usize,
    attempt: Option<Box<Attempt>>,
    matches: i64,
    /// When the last attempt was decided.
    decided: i64,
}

impl Default for KeyState {
    fn default() -> Self {
        Self { rows: VecDeque::new(), start: 0, attempt: None, matches: 0, decided: i64::MIN }
    }
}

/// The keys whose state has changed since the last checkpoint.
#[derive(Debug, Default)]
struct Touched {
    is: Vec<bool>,
    keys: Vec<u32>,
}

impl Touched {
    fn touch(&mut self, key: usize) {
        if self.is.len() <= key {
            self.is.resize(key + 1, false);
        }
        if !std::mem::replace(&mut self.is[key], true) {
            self.keys.push(key as u32);
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rows", &self.live).finish_non_exhaustive()
    }
}

impl Table {
    /// Adds rows of one partition, in order, and finds all matches.
    ///
    /// # Errors
    /// When an expression fails.
    pub(super) fn whole(&mut self, rows: RecordBatch, matches: &mut Matches<'_>) -> Result<()> {
        let timed = self.spec.time_unit.is_some();
        self.states.resize_with(1, KeyState::default);
        let numbers = vec![0; rows.num_rows()];
        self.add(rows, &numbers, timed)?;
        self.advance(0, matches)?;
        self.expire(i64::MAX, matches)?;
        self.end(matches)
    }

    /// Adds rows in order; `numbers`: those of their keys.
    fn add(&mut self, batch: RecordBatch, numbers: &[usize], timed: bool) -> Result<()> {
        let first = self.store.add(batch, timed)?;
        let mut places = Vec::with_capacity(numbers.len());
        for (row, key) in (first..).zip(numbers) {
            let rows = &mut self.states[*key].rows;
            places.push(rows.len());
            rows.push_back(row);
        }
        self.live += numbers.len();
        let spec = Arc::clone(&self.spec);
        for (variable, formula) in &spec.rules.of_rows {
            let holds = self.holds(formula, first, (numbers, &places))?;
            for (row, holds) in holds.into_iter().enumerate() {
                if !holds {
                    self.store.restrict(first as usize + row, !bit(*variable));
                }
            }
        }
        Ok(())
    }

    /// Whether a condition on rows and their neighbours is true for the rows from `first` on, with their keys and their
    /// indexes among the rows of the keys.
    fn holds(
        &self,
        formula: &Formula,
        first: u32,
        (numbers, places): (&[usize], &[usize]),
    ) -> Result<Vec<bool>> {
        let mut columns = vec![];
        for read in &formula.reads {
            let Slot::Value { row, column } = &read.slot else {
                return Err(Error::internal(
                    "a condition on rows reads a column that does not exist",
                ));
            };
            let neighbour = |(key, place): (&usize, &usize)| {
                let at = i64::try_from(*place).ok()? + i64::from(row.shift);
                let rows = &self.states[*key].rows;
                usize::try_from(at).ok().and_then(|at| rows.get(at)).copied()
            };
            let rows: Vec<u32> = match row.shift {
                0 => (first..).take(numbers.len()).collect(),
                _ => {
                    numbers.iter().zip(places).map(|pair| neighbour(pair).unwrap_or(NONE)).collect()
                }
            };
            columns.push(self.store.gather(*column, &rows)?);
        }
        let holds = formula.holds(columns, numbers.len())?;
        Ok((0..holds.len()).map(|row| holds.is_valid(row) && holds.value(row)).collect())
    }

    /// Takes the rows of a key that its attempt has not taken.
    fn advance(&mut self, key: usize, matches: &mut Matches<'_>) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let rules = &spec.rules;
        let before = self.states[key].attempt.as_ref().map_or(0, |attempt| attempt.size_bytes());
        let mut steps = 0_usize;
        loop {
            steps += 1;
            if steps.is_multiple_of(ROWS_BETWEEN_CHECKS) {
                budget::check(0)?;
            }
            let state = &mut self.states[key];
            let Some(attempt) = &mut state.attempt else {
                let Some(row) = state.rows.get(state.start) else { break };
                if self.store.variables(*row) & rules.program.first_variables == 0 {
                    let end = self.store.time(*row).saturating_add(1);
                    state.decided = state.decided.max(end);
                    state.start += 1;
                    continue;
                }
                let attempt = match self.spare.take() {
                    Some(mut spare) => {
                        spare.begin(rules)?;
                        spare
                    }
                    None => Box::new(Attempt::new(rules)?),
                };
                state.attempt = Some(attempt);
                continue;
            };
            let Some(row) = state.rows.get(state.start + attempt.rows) else { break };
            let time = self.store.time(*row);
            if let Some(over) = deadline(&spec, &self.store, state).filter(|over| time >= *over) {
                self.decide(key, over, matches)?;
                continue;
            }
            let view = View {
                store: &self.store,
                rows: &state.rows,
                start: state.start,
                number: state.matches + 1,
            };
            let Some(attempt) = &mut state.attempt else { break };
            attempt.take(rules, view, &mut self.scratch)?;
            if attempt.is_decided() {
                self.decide(key, time.saturating_add(1), matches)?;
            }
        }
        let state = &mut self.states[key];
        let useless = state.start.saturating_sub(rules.before);
        state.rows.drain(..useless);
        state.start -= useless;
        self.live -= useless;
        if let Some(over) = deadline(&spec, &self.store, state) {
            self.deadlines.push(Reverse((over, key as u32)));
        }
        let after = state.attempt.as_ref().map_or(0, |attempt| attempt.size_bytes());
        self.attempts_bytes = (self.attempts_bytes + after).saturating_sub(before);
        if let Some(touched) = &mut self.touched {
            touched.touch(key);
        }
        Ok(())
    }

    /// Ends the attempt of a key: its match is returned, and the next one begins later.
    fn decide(&mut self, key: usize, end: i64, matches: &mut Matches<'_>) -> Result<()> {
        let state = &mut self.states[key];
        let Some(attempt) = state.attempt.take() else { return Ok(()) };
        state.decided = state.decided.max(end);
        match attempt.best() {
            None => state.start += 1,
            Some(labels) => {
                let number = state.matches + 1;
                let found = Found {
                    rows: &state.rows,
                    start: state.start,
                    labels: &labels,
                    number,
                    end: state.decided,
                };
                matches.add(&self.store, &found)?;
                state.matches = number;
                state.start += next(&self.spec, &labels)?;
            }
        }
        self.spare = Some(attempt);
        Ok(())
    }

    /// Decides the attempts whose time is over at `to`.
    fn expire(&mut self, to: i64, matches: &mut Matches<'_>) -> Result<()> {
        while let Some(Reverse((over, key))) = self.deadlines.peek().copied() {
            if over > to {
                break;
            }
            self.deadlines.pop();
            let key = key as usize;
            let state = &self.states[key];
            if deadline(&self.spec, &self.store, state) == Some(over) {
                self.forget_bytes(key);
                self.decide(key, over, matches)?;
                self.advance(key, matches)?;
            }
        }
        Ok(())
    }

    /// Decides all attempts, since no more rows arrive.
    fn end(&mut self, matches: &mut Matches<'_>) -> Result<()> {
        for key in 0..self.states.len() {
            while self.states[key].attempt.is_some() {
                self.forget_bytes(key);
                self.decide(key, i64::MAX, matches)?;
                self.advance(key, matches)?;
            }
        }
        Ok(())
    }

    /// Subtracts the bytes of a key's attempt, which is about to end.
    fn forget_bytes(&mut self, key: usize) {
        let bytes = self.states[key].attempt.as_ref().map_or(0, |attempt| attempt.size_bytes());
        self.attempts_bytes = self.attempts_bytes.saturating_sub(bytes);
    }

    /// Adds rows of any keys, those of one time in their order; returns the numbers of their keys.
    fn append(&mut self, mut batch: RecordBatch) -> Result<Vec<usize>> {
        let mut numbers = std::mem::take(&mut self.numbers);
        let keys = self.spec.plan.keys.iter().filter_map(|key| batch.columns().get(*key).cloned());
        self.intern(&keys.collect::<Vec<_>>(), batch.num_rows(), &mut numbers)?;
        let total = self.states.len();
        if let Some(order) = self.ties.order(&batch, (&numbers, total))? {
            numbers = order.iter().map(|row| numbers[*row as usize]).collect();
            batch = take_record_batch(&batch, &UInt32Array::from(order))?;
        }
        self.add(batch, &numbers, true)?;
        Ok(numbers)
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize, numbers: &mut Vec<usize>) -> Result<()> {
        let mut interner = match self.keys.take() {
            Some(interner) => interner,
            None => Interner::of(&self.spec.key_schema, 0)?,
        };
        interner.intern(keys, rows, numbers)?;
        self.states.resize_with(interner.len(), KeyState::default);
        self.keys = Some(interner);
        Ok(())
    }

    /// Drops rows that are no longer needed, once they are the larger part.
    fn prune(&mut self) -> Result<()> {
        let useless = self.store.len() - self.live;
        if useless > USELESS_MIN && useless > self.live || self.live == 0 && useless > 0 {
            let kept = self.needed();
            let mut numbers = vec![NONE; self.store.len()];
            for (new, old) in (0..).zip(&kept) {
                numbers[*old as usize] = new;
            }
            self.store.keep(&kept)?;
            for row in self.states.iter_mut().flat_map(|state| &mut state.rows) {
                *row = numbers[*row as usize];
            }
        }
        self.prune_keys()
    }

    /// The rows that are needed, in order.
    fn needed(&self) -> Vec<u32> {
        let mut rows: Vec<u32> =
            self.states.iter().flat_map(|state| &state.rows).copied().collect();
        rows.sort_unstable();
        rows
    }

    /// Whether a key needs no state.
    fn is_useless(&self, state: &KeyState) -> bool {
        state.rows.is_empty() && (state.matches == 0 || !self.spec.counts_matches)
    }

    /// Drops keys that need no state, if no checkpoint has state of them.
    fn prune_keys(&mut self) -> Result<()> {
        let total = self.states.len();
        let is_touched = |key: usize| {
            let touched = self.touched.as_ref();
            touched.is_some_and(|touched| touched.is.get(key).copied().unwrap_or(false))
        };
        let needed =
            |(key, state): &(usize, &KeyState)| is_touched(*key) || !self.is_useless(state);
        let kept: Vec<u32> = match total {
            0 => return Ok(()),
            _ => self.states.iter().enumerate().filter(needed).map(|(key, _)| key as u32).collect(),
        };
        let useless = total - kept.len();
        if useless == 0 || (!kept.is_empty() && (useless < USELESS_MIN || useless < kept.len())) {
            return Ok(());
        }
        if let Some(mut interner) = self.keys.take().filter(|_| !kept.is_empty()) {
            let rows = UInt32Array::from(kept.clone());
            let keys = interner.take_keys()?;
            let keys =
                keys.iter().map(|key| take(key, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            let mut fresh = Interner::of(&self.spec.key_schema, kept.len())?;
            fresh.intern(&keys, kept.len(), &mut self.numbers)?;
            self.keys = Some(fresh);
        }
        let mut states: Vec<KeyState> = vec![];
        let mut numbers = vec![NONE; total];
        for (new, old) in (0..).zip(&kept) {
            states.push(std::mem::take(&mut self.states[*old as usize]));
            numbers[*old as usize] = new;
        }
        self.states = states;
        let deadlines = std::mem::take(&mut self.deadlines).into_vec().into_iter();
        let deadlines = deadlines.filter_map(|Reverse((over, key))| {
            let key = numbers[key as usize];
            (key != NONE).then_some(Reverse((over, key)))
        });
        self.deadlines = deadlines.collect();
        if let Some(touched) = &mut self.touched {
            let keys = std::mem::take(touched).keys;
            keys.iter().for_each(|key| touched.touch(numbers[*key as usize] as usize));
        }
        Ok(())
    }

    /// The columns of some keys.
    fn key_values(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        let Some(mut interner) = self.keys.take() else { return Ok(vec![]) };
        let total = interner.len();
        let all = interner.take_keys()?;
        // Interned in the same order, they get the same numbers again.
        let mut fresh = Interner::of(&self.spec.key_schema, total)?;
        fresh.intern(&all, total, &mut self.numbers)?;
        self.keys = Some(fresh);
        let rows = UInt32Array::from(keys.to_vec());
        Ok(all.iter().map(|key| take(key, &rows, None)).collect::<Result<_, _>>()?)
    }

    /// Restores the state of keys; returns, for each, how many of their last rows are needed, and how many of those the
    /// attempt has.
    fn load_states(&mut self, states: &[RecordBatch]) -> Result<Vec<(usize, usize)>> {
        let mut needed = vec![];
        for batch in states {
            let keys = self.spec.plan.keys.len();
            let types = self.spec.key_schema.fields().iter().map(|field| field.data_type());
            let same = types.zip(batch.columns()).all(|(of, column)| of == column.data_type());
            let (Some(columns), [matches, rows, open]) =
                (batch.columns().get(..keys), batch.columns().get(keys..).unwrap_or_default())
            else {
                return Err(Error::internal("a state of a pattern has other columns"));
            };
            if !same {
                return Err(Error::internal("a state of a pattern has other keys"));
            }
            let mut numbers = std::mem::take(&mut self.numbers);
            self.intern(columns, batch.num_rows(), &mut numbers)?;
            needed.resize(self.states.len(), (0, 0));
            let values = counts(matches)?.iter().zip(counts(rows)?).zip(counts(open)?);
            for (key, ((matches, rows), open)) in numbers.iter().zip(values) {
                let count = |count: &i64| {
                    usize::try_from(*count).map_err(|_| Error::internal("a count is negative"))
                };
                self.states[*key].matches = *matches;
                needed[*key] = (count(rows)?, count(open)?);
            }
            self.numbers = numbers;
        }
        Ok(needed)
    }
}

fn counts(column: &ArrayRef) -> Result<&[i64]> {
    let counts = column.as_primitive_opt::<Int64Type>();
    let counts = counts.ok_or_else(|| Error::internal("a state of a pattern has no counts"))?;
    Ok(counts.values())
}

/// When the time of a key's attempt is over.
fn deadline(spec: &PatternSpec, store: &Store, state: &KeyState) -> Option<i64> {
    let within = spec.rules.within?;
    state.attempt.as_ref()?;
    let first = state.rows.get(state.start)?;
    Some(store.time(*first).saturating_add(within))
}

impl OrderedTable for Table {
    type Spec = PatternSpec;

    fn new(spec: &Arc<PatternSpec>, _ordered: bool) -> Result<Self> {
        Ok(Self {
            keys: None,
            states: vec![],
            store: Store::new(Arc::clone(&spec.state_schema)),
            ties: Ties::new(&spec.plan.input, spec.ties.clone(), (false, false)),
            deadlines: BinaryHeap::new(),
            touched: None,
            scratch: Scratch::default(),
            spare: None,
            live: 0,
            attempts_bytes: 0,
            numbers: vec![],
            spec: Arc::clone(spec),
        })
    }

    fn keep_order(&mut self) {}

    fn remember_touched(&mut self) {
        self.touched.get_or_insert_default();
    }

    fn touch_all(&mut self) {
        if let Some(touched) = &mut self.touched {
            (0..self.states.len()).for_each(|key| touched.touch(key));
        }
    }

    fn process(
        &mut self,
        rows: Option<RecordBatch>,
        to: i64,
        last: bool,
    ) -> Result<Option<Evaluated>> {
        let spec = Arc::clone(&self.spec);
        let mut matches = Matches::new(&spec);
        if let Some(rows) = rows {
            let mut keys = self.append(rows)?;
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                self.advance(key, &mut matches)?;
            }
        }
        self.expire(to, &mut matches)?;
        if last {
            self.end(&mut matches)?;
        }
        let results = matches.finish(&self.store)?;
        self.prune()?;
        Ok(results.map(|(results, _)| results))
    }

    fn load(
        &mut self,
        rows: Option<RecordBatch>,
        states: &[RecordBatch],
        _frontier: i64,
    ) -> Result<()> {
        let mut needed = self.load_states(states)?;
        if let Some(rows) = rows {
            self.append(rows)?;
        }
        needed.resize(self.states.len(), (0, 0));
        let spec = Arc::clone(&self.spec);
        let mut matches = Matches::new(&spec);
        for (key, (rows, open)) in needed.into_iter().enumerate() {
            let state = &mut self.states[key];
            let useless = state.rows.len().checked_sub(rows);
            let (Some(useless), Some(start)) = (useless, rows.checked_sub(open)) else {
                return Err(Error::internal("rows of a pattern are missing"));
            };
            state.rows.drain(..useless);
            state.start = start;
            self.live -= useless;
            self.advance(key, &mut matches)?;
        }
        if !matches.is_empty() {
            return Err(Error::internal("rows of a pattern were a match already"));
        }
        if let Some(touched) = &mut self.touched {
            *touched = Touched::default();
        }
        self.prune()
    }

    fn rows(&mut self) -> Result<Option<RecordBatch>> {
        match self.needed() {
            rows if rows.is_empty() => Ok(None),
            rows => self.store.rows(&rows).map(Some),
        }
    }

    fn states(&mut self, all: bool) -> Result<Option<RecordBatch>> {
        let touched = self.touched.as_mut().map(|touched| std::mem::take(touched).keys);
        let keys = if all {
            let states = self.states.iter().enumerate();
            states.filter(|(_, s)| !self.is_useless(s)).map(|(key, _)| key as u32).collect()
        } else {
            touched.unwrap_or_default()
        };
        if keys.is_empty() {
            return Ok(None);
        }
        let mut columns = self.key_values(&keys)?;
        let states = || keys.iter().map(|key| &self.states[*key as usize]);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let counts = [
            states().map(|state| state.matches).collect::<Int64Array>(),
            states().map(|state| count(state.rows.len())).collect(),
            states().map(|state| count(state.rows.len() - state.start)).collect(),
        ];
        columns.extend(counts.map(|counts| Arc::new(counts) as ArrayRef));
        let fields = columns.iter().enumerate();
        let fields = fields.map(|(i, c)| Field::new(format!("s{i}"), c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }

    fn len(&self) -> usize {
        self.live
    }

    fn times(&self) -> Times {
        self.store.times()
    }

    fn keys_len(&self) -> usize {
        self.states.len()
    }

    fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    fn waits_at(&self) -> Option<i64> {
        self.deadlines.peek().map(|Reverse((over, _))| over.saturating_sub(1))
    }

    fn needed_from(&self) -> i64 {
        let first = self.states.iter().filter_map(|state| state.rows.front());
        first.map(|row| self.store.time(*row)).min().unwrap_or(i64::MAX)
    }

    fn size_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let keys = self.keys.as_ref().map_or(0, Interner::size_bytes);
        let touched = self.touched.as_ref().map_or(0, |t| t.is.capacity() + t.keys.capacity() * 4);
        keys + touched
            + self.store.size_bytes()
            + self.states.capacity() * size_of::<KeyState>()
            + self.live * size_of::<u32>()
            + self.deadlines.len() * 16
            + self.attempts_bytes
    }
}
