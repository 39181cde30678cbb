//! Aggregates in a circuit: over rows that only ever come, as outside of a circuit; over rows that come and go, with
//! [states](super::folds) from which rows can be taken away.
//!
//! Invariant: what has been returned of a group, summed, is its current row, or nothing if it has no rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use windrow_core::{Error, Result, Watermark};

use super::delta::{Codec, Delta, added, pick, types};
use super::folds::{Argument, Fold, State};
use super::kept::{Kept, check_weight};
use crate::changing::{ChangingSpec, decode};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::spec::{AggregateCall, Columns, Mode};
use crate::table::{Accumulators, GroupTable};

/// The rows that are aggregated again at a time.
const AGAIN_ROWS: usize = 8192;

/// An aggregate over rows that only ever come.
#[derive(Debug)]
pub(super) struct Growing {
    worker: Box<dyn WorkerPart>,
    totals: Box<dyn CoordinatorPart>,
    spec: ChangingSpec,
}

impl Growing {
    pub(super) fn new(spec: &ChangingSpec) -> Self {
        Self { worker: spec.worker(0), totals: spec.coordinator(), spec: spec.clone() }
    }

    /// Adds rows; returns the changes of their groups.
    pub(super) fn run(&mut self, rows: &Delta) -> Result<Delta> {
        if !rows.is_empty() {
            self.add(rows)?;
            for segment in self.worker.flush(Watermark::END)? {
                self.totals.add(0, segment)?;
            }
        }
        let mut changes = vec![];
        while self.totals.next_end(Watermark::END)?.is_some() {
            let Some(finished) = self.totals.close(Watermark::END, AGAIN_ROWS)? else { break };
            for batch in finished.rows {
                let mut columns = batch?.columns().to_vec();
                let codes = columns.pop();
                let codes = codes.ok_or_else(|| Error::internal("changes without codes"))?;
                let codes = codes.as_primitive::<UInt64Type>().values();
                let weight = |code: &u64| if decode(*code).1.adds() { 1 } else { -1 };
                changes.push(Delta { columns, weights: codes.iter().map(weight).collect() });
            }
        }
        Delta::together(self.spec.answer_schema(), changes)
    }

    /// Adds rows, each as often as its weight says.
    fn add(&mut self, rows: &Delta) -> Result<()> {
        if rows.weights.iter().all(|weight| *weight == 1) {
            return self.update(rows.clone());
        }
        let mut at: Vec<u32> = Vec::with_capacity(AGAIN_ROWS);
        for (row, weight) in (0_u32..).zip(&rows.weights) {
            check_weight(*weight)?;
            let mut left = weight.unsigned_abs();
            while left > 0 {
                // Few at a time: a join may return a row very often.
                let room = AGAIN_ROWS - at.len();
                let more = usize::try_from(left).map_or(room, |left| left.min(room));
                at.extend(std::iter::repeat_n(row, more));
                left -= more as u64;
                if at.len() == AGAIN_ROWS {
                    self.update(rows.take(&at)?)?;
                    at.clear();
                }
            }
        }
        match at.is_empty() {
            true => Ok(()),
            false => self.update(rows.take(&at)?),
        }
    }

    fn update(&mut self, rows: Delta) -> Result<()> {
        let schema = Arc::clone(self.spec.columns().input_schema());
        self.worker.update(&RecordBatch::try_new(schema, rows.columns)?)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.totals.size_bytes()
    }

    pub(super) fn rows(&self) -> usize {
        self.totals.open_windows()
    }
}

/// An aggregate over rows that come and go.
#[derive(Debug)]
pub(super) struct Shrinking {
    columns: Arc<Columns>,
    key: Codec,
    key_columns: Vec<usize>,
    /// The values of a group, as they are returned.
    values: Codec,
    folds: Vec<Fold>,
    again: Option<Again>,
    groups: BTreeMap<Box<[u8]>, Group>,
    bytes: usize,
    begun: bool,
}

/// The aggregates that are computed again from all rows of a group.
#[derive(Debug)]
struct Again {
    columns: Arc<Columns>,
    codec: Codec,
    kept: Kept,
}

#[derive(Debug)]
struct Group {
    /// The number of its rows.
    rows: i64,
    states: Vec<State>,
    /// The values that have been returned.
    shown: Option<Box<[u8]>>,
}

impl Group {
    fn size_bytes(&self, key: &[u8]) -> usize {
        let states: usize = self.states.iter().map(State::size_bytes).sum();
        states + key.len() + self.shown.as_ref().map_or(0, |shown| shown.len()) + size_of::<Self>()
    }
}

impl Shrinking {
    /// Without groups.
    ///
    /// # Errors
    /// When values cannot be compared.
    pub(super) fn new(spec: &ChangingSpec) -> Result<Self> {
        let columns = Arc::clone(spec.columns());
        let input = columns.input_schema();
        if columns.grouping_sets().is_some() {
            return Err(Error::internal("grouping sets over changes"));
        }
        let key_columns = match columns.mode() {
            Mode::Aggregate { keys, .. } => keys.clone(),
            Mode::Rows => vec![],
        };
        let mut folds = vec![];
        for call in columns.calls() {
            let argument = call.arguments.first().and_then(|at| input.fields().get(*at));
            folds.push(Fold::of(call, argument.map(|field| field.data_type()))?);
        }
        let of_rows: Vec<AggregateCall> = columns
            .calls()
            .iter()
            .zip(&folds)
            .filter(|(_, fold)| matches!(fold, Fold::Again))
            .map(|(call, _)| call.clone())
            .collect();
        let again = match of_rows.is_empty() {
            true => None,
            false => {
                let keys = key_columns.clone();
                let again = Columns::of_all_rows(Arc::clone(input), keys, None, of_rows)?;
                let codec = Codec::new(types(input, &again.layout().columns)?)?;
                Some(Again { columns: Arc::new(again), codec, kept: Kept::default() })
            }
        };
        let returned: Vec<_> = columns.calls().iter().map(|call| call.function.field()).collect();
        Ok(Self {
            key: Codec::new(types(input, &key_columns)?)?,
            values: Codec::new(returned.iter().map(|field| field.data_type()))?,
            key_columns,
            folds,
            again,
            groups: BTreeMap::new(),
            bytes: 0,
            begun: false,
            columns,
        })
    }

    /// Adds and removes rows; returns the changes of their groups.
    ///
    /// # Errors
    /// When an aggregate fails; Internal when a row is removed that does not exist.
    pub(super) fn run(&mut self, rows: &Delta) -> Result<Delta> {
        let keys = pick(&rows.columns, &self.key_columns)?;
        let keys = self.key.encode(&keys, rows.rows())?;
        let mut changed: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for row in 0..rows.rows() {
            changed.entry(keys.row(row)).or_default().push(row);
        }
        if !std::mem::replace(&mut self.begun, true) && self.key_columns.is_empty() {
            changed.entry(&[]).or_default();
        }
        self.count(rows, &changed)?;
        let changed: Vec<&[u8]> = changed.into_keys().collect();
        self.changes(&changed)
    }

    /// Adds rows to the states of their groups.
    fn count(&mut self, rows: &Delta, changed: &BTreeMap<&[u8], Vec<usize>>) -> Result<()> {
        let mut arguments: Vec<Option<Argument<'_>>> = vec![];
        for (fold, call) in self.folds.iter().zip(self.columns.calls()) {
            arguments.push(fold.argument(call, &rows.columns, rows.rows())?);
        }
        let packed = match &self.again {
            Some(again) => {
                let packed = pick(&rows.columns, &again.columns.layout().columns)?;
                Some(again.codec.encode(&packed, rows.rows())?)
            }
            None => None,
        };
        for (key, members) in changed {
            let nothing = || self.folds.iter().map(Fold::nothing).collect();
            let group = self.groups.entry((*key).into()).or_insert_with(|| Group {
                rows: 0,
                states: nothing(),
                shown: None,
            });
            self.bytes = self.bytes.saturating_sub(group.size_bytes(key));
            for row in members {
                let weight = rows.weights.get(*row).copied().unwrap_or(0);
                group.rows = added(group.rows, weight)?;
                let folds = self.folds.iter_mut().zip(&mut group.states).zip(&arguments);
                for ((fold, state), argument) in folds {
                    if let Some(argument) = argument {
                        fold.add((state, key), argument, (*row, weight))?;
                    }
                }
                if let (Some(again), Some(packed)) = (&mut self.again, &packed) {
                    again.kept.add(&[key, packed.row(*row)].concat(), weight)?;
                }
            }
            check_weight(group.rows)?;
            self.bytes += group.size_bytes(key);
        }
        Ok(())
    }

    /// The changes of these groups since they were last returned.
    fn changes(&mut self, changed: &[&[u8]]) -> Result<Delta> {
        let has_key = !self.key_columns.is_empty();
        let exists =
            |key: &&&[u8]| self.groups.get(**key).is_some_and(|group| group.rows > 0) || !has_key;
        let alive: Vec<&[u8]> = changed.iter().filter(exists).copied().collect();
        let values = self.current(&alive)?;
        let encoded = self.values.encode(&values, alive.len())?;
        let mut alive = alive.into_iter().enumerate().peekable();
        let (mut keys, mut shown, mut weights) = (vec![], vec![], vec![]);
        for key in changed {
            let now = alive.next_if(|(_, alive)| alive == key).map(|(row, _)| encoded.row(row));
            let Some(group) = self.groups.get_mut(*key) else { continue };
            self.bytes = self.bytes.saturating_sub(group.size_bytes(key));
            if group.shown.as_deref() != now || group.shown.is_some() != now.is_some() {
                if let Some(old) = group.shown.take() {
                    keys.push(*key);
                    shown.push(old);
                    weights.push(-1);
                }
                if let Some(now) = now {
                    keys.push(*key);
                    shown.push(now.into());
                    weights.push(1);
                    group.shown = Some(now.into());
                }
            }
            match group.rows == 0 && has_key {
                true => drop(self.groups.remove(*key)),
                false => self.bytes += group.size_bytes(key),
            }
        }
        let mut columns = self.key.decode(keys.into_iter())?;
        columns.extend(self.values.decode(shown.iter().map(AsRef::as_ref))?);
        Ok(Delta { columns, weights })
    }

    /// The values of groups that have rows, or of the only one.
    fn current(&self, alive: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let only = match alive {
            [only] if self.key_columns.is_empty() => self.groups.get(*only),
            _ => None,
        };
        if only.is_some_and(|group| group.rows == 0) {
            return Ok(GroupTable::of_no_rows(&self.columns)?.evaluate()?.0);
        }
        let mut again = match &self.again {
            Some(again) => again.values(alive)?.into_iter(),
            None => vec![].into_iter(),
        };
        let mut columns = Vec::with_capacity(self.folds.len());
        for (call, fold) in self.folds.iter().enumerate() {
            let states = alive
                .iter()
                .filter_map(|key| Some((*key, self.groups.get(*key)?.states.get(call)?)));
            let values = fold.values(states)?.or_else(|| again.next());
            columns.push(values.ok_or_else(|| Error::internal("an aggregate without values"))?);
        }
        Ok(columns)
    }

    pub(super) fn size_bytes(&self) -> usize {
        let folds: usize = self.folds.iter().map(Fold::size_bytes).sum();
        let again = self.again.as_ref().map_or(0, |again| again.kept.size_bytes());
        self.bytes + folds + again + self.groups.len() * 32
    }

    pub(super) fn rows(&self) -> usize {
        self.groups.len()
    }
}

impl Again {
    /// The values of its aggregates for groups that have rows.
    fn values(&self, groups: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        let mut accumulators = Accumulators::new(&self.columns)?;
        let (mut rows, mut numbers): (Vec<&[u8]>, Vec<usize>) = (vec![], vec![]);
        for (number, key) in groups.iter().enumerate() {
            for (row, held) in self.kept.of(key) {
                check_weight(held.weight)?;
                for _ in 0..held.weight {
                    rows.push(row.get(key.len()..).unwrap_or_default());
                    numbers.push(number);
                    if rows.len() == AGAIN_ROWS {
                        let columns = self.codec.decode(rows.drain(..))?;
                        accumulators.update(&self.columns, &columns, &numbers, number + 1)?;
                        numbers.clear();
                    }
                }
            }
        }
        if !rows.is_empty() {
            let columns = self.codec.decode(rows.into_iter())?;
            accumulators.update(&self.columns, &columns, &numbers, groups.len())?;
        }
        match groups.is_empty() {
            true => Ok(self
                .columns
                .calls()
                .iter()
                .map(|call| arrow::array::new_empty_array(call.function.field().data_type()))
                .collect()),
            false => accumulators.take_values(),
        }
    }
}
