//! Live aggregate state: groups and their accumulators.
//!
//! Invariant: every group of a table has been passed at least one row or one state, as DataFusion's accumulators expect
//! (a group without any would count as present).

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, StructArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use windrow_core::{Error, Result};

use crate::extents::Extents;
use crate::failure;
use crate::keys::IntegerKeys;
use crate::spec::{AggregateCall, Columns, GroupingSets, ticks};

/// An interner that assigns each distinct key a number, dense from 0 in the order of arrival.
pub(crate) enum Interner {
    /// No keys: a single group, once there is a row.
    Nothing { any: bool },
    /// One column of integers.
    Integers(IntegerKeys),
    /// All other keys.
    Any(Box<dyn GroupValues>),
}

impl Interner {
    /// Returns an interner of the keys of `spec`, sized for `expected` of them.
    pub(crate) fn new(spec: &Columns, expected: usize) -> Result<Self> {
        Self::of(spec.key_schema(), expected)
    }

    /// Returns an interner of keys with these columns, sized for `expected` of them.
    pub(crate) fn of(schema: &SchemaRef, expected: usize) -> Result<Self> {
        let schema = Arc::clone(schema);
        if let [field] = schema.fields().as_ref()
            && let Some(mut keys) = IntegerKeys::for_type(field.data_type())
        {
            keys.expect(expected);
            return Ok(Self::Integers(keys));
        }
        if schema.fields().is_empty() {
            return Ok(Self::Nothing { any: false });
        }
        new_group_values(schema, &GroupOrdering::None).map(Self::Any).map_err(failure::engine)
    }

    /// Returns the numbers of the keys of `rows` rows.
    pub(crate) fn intern(
        &mut self,
        keys: &[ArrayRef],
        rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        match (self, keys) {
            (Self::Nothing { any }, _) => {
                *any |= rows > 0;
                groups.clear();
                groups.resize(rows, 0);
                Ok(())
            }
            (Self::Integers(integers), [keys]) => integers.intern(keys, groups),
            (Self::Integers(_), _) => Err(Error::internal("a single key has several columns")),
            (Self::Any(values), _) => values.intern(keys, groups).map_err(failure::engine),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nothing { any } => usize::from(*any),
            Self::Integers(keys) => keys.len(),
            Self::Any(values) => values.len(),
        }
    }

    /// Returns some keys, by their numbers. Unless they are integers, this takes as long as numbering all keys.
    pub(crate) fn pick_keys(
        &mut self,
        schema: &SchemaRef,
        numbers: &[u32],
    ) -> Result<Vec<ArrayRef>> {
        if let Self::Integers(keys) = self {
            return Ok(vec![keys.pick(numbers)?]);
        }
        let total = self.len();
        let all = self.take_keys()?;
        // Interned in the same order, they get the same numbers again.
        *self = Self::of(schema, total)?;
        self.intern(&all, total, &mut vec![])?;
        let rows = UInt32Array::from(numbers.to_vec());
        Ok(all.iter().map(|key| take(key, &rows, None)).collect::<Result<_, _>>()?)
    }

    /// Takes the keys out; the interner is empty afterwards.
    pub(crate) fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        match self {
            Self::Nothing { any } => {
                *any = false;
                Ok(vec![])
            }
            Self::Integers(keys) => Ok(vec![keys.take()?]),
            Self::Any(values) => values.emit(EmitTo::All).map_err(failure::engine),
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Nothing { .. } => 0,
            Self::Integers(keys) => keys.size_bytes(),
            Self::Any(values) => values.size(),
        }
    }
}

/// The accumulators of a spec's aggregates, and the first and last time of each group if those are held.
pub(crate) struct Accumulators {
    calls: Vec<Box<dyn GroupsAccumulator>>,
    extents: Option<Extents>,
}

impl Accumulators {
    pub(crate) fn new(spec: &Columns) -> Result<Self> {
        let calls = spec.calls().iter().map(AggregateCall::accumulator).collect::<Result<_>>()?;
        Ok(Self { calls, extents: spec.holds_extents().then(Extents::default) })
    }

    /// The first and last time of each group.
    ///
    /// # Errors
    /// Internal where they are not held.
    pub(crate) fn extents(&self) -> Result<&Extents> {
        self.extents.as_ref().ok_or_else(|| Error::internal("groups without times"))
    }

    /// Counts rows; `columns` are packed by the spec's layout.
    pub(crate) fn update(
        &mut self,
        spec: &Columns,
        columns: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        let layout = spec.layout();
        let calls = layout.arguments.iter().zip(&layout.filters);
        for (accumulator, (arguments, filter)) in self.calls.iter_mut().zip(calls) {
            let mut values: Vec<ArrayRef> =
                arguments.iter().filter_map(|c| columns.get(*c).cloned()).collect();
            if let Some(fields) = &layout.packed {
                values = vec![Arc::new(StructArray::try_new(fields.clone(), values, None)?)];
            }
            let filter = filter.and_then(|c| columns.get(c)).map(AsArray::as_boolean);
            accumulator.update_batch(&values, groups, filter, total).map_err(failure::engine)?;
        }
        if let (Some(extents), Some(times)) =
            (&mut self.extents, layout.time.and_then(|c| columns.get(c)))
        {
            extents.update(ticks(times)?, groups, total);
        }
        Ok(())
    }

    /// Makes one group without rows; `columns` have one row, which a filter removes: accumulators take a batch without a
    /// filter for one in which each group has a row.
    fn update_nothing(&mut self, spec: &Columns, columns: &[ArrayRef]) -> Result<()> {
        let filter = BooleanArray::from(vec![false]);
        for (accumulator, arguments) in self.calls.iter_mut().zip(&spec.layout().arguments) {
            let values: Vec<ArrayRef> =
                arguments.iter().filter_map(|c| columns.get(*c).cloned()).collect();
            accumulator.update_batch(&values, &[0], Some(&filter), 1).map_err(failure::engine)?;
        }
        Ok(())
    }

    /// Merges one state row into each of `groups`. Each of `total` groups is among them, or has been before.
    pub(crate) fn merge(
        &mut self,
        states: &[Vec<ArrayRef>],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        for (accumulator, state) in self.calls.iter_mut().zip(states) {
            accumulator.merge_batch(state, groups, total).map_err(failure::engine)?;
        }
        match (&mut self.extents, states.get(self.calls.len())) {
            (Some(extents), Some(state)) => extents.merge(state, groups, total),
            (None, None) => Ok(()),
            _ => Err(Error::internal("states of other groups")),
        }
    }

    /// Takes the states out.
    pub(crate) fn take_states(&mut self) -> Result<Vec<Vec<ArrayRef>>> {
        let states = self.calls.iter_mut().map(|a| a.state(EmitTo::All));
        let mut states = states.collect::<Result<Vec<_>, _>>().map_err(failure::engine)?;
        states.extend(self.extents.as_mut().map(Extents::take));
        Ok(states)
    }

    /// Takes the results out.
    pub(crate) fn take_values(&mut self) -> Result<Vec<ArrayRef>> {
        let values = self.calls.iter_mut().map(|a| a.evaluate(EmitTo::All));
        values.collect::<Result<_, _>>().map_err(failure::engine)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let calls: usize = self.calls.iter().map(|a| a.size()).sum();
        calls + self.extents.as_ref().map_or(0, Extents::size_bytes)
    }
}

/// A frozen table: one row per group.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) keys: Vec<ArrayRef>,
    /// The state columns of each aggregate.
    pub(crate) states: Vec<Vec<ArrayRef>>,
    pub(crate) groups: usize,
}

impl Frozen {
    /// Selects some of the groups.
    pub(crate) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let keys = self.keys.iter().map(|key| take(key, rows, None));
        let keys = keys.collect::<Result<_, _>>()?;
        Ok(Self { keys, states: self.take_states(rows)?, groups: rows.len() })
    }

    /// Selects the states of some of the groups.
    pub(crate) fn take_states(&self, rows: &UInt32Array) -> Result<Vec<Vec<ArrayRef>>> {
        let pick = |columns: &Vec<ArrayRef>| {
            columns.iter().map(|c| take(c, rows, None)).collect::<Result<Vec<_>, _>>()
        };
        Ok(self.states.iter().map(pick).collect::<Result<_, _>>()?)
    }

    /// Keys and extents alone.
    pub(crate) fn outline(&self) -> Self {
        let states = self.states.last().cloned().into_iter().collect();
        Self { keys: self.keys.clone(), states, groups: self.groups }
    }

    /// The first and last times, if they are held: the last state.
    pub(crate) fn extents(&self) -> &[ArrayRef] {
        self.states.last().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn size_bytes(&self) -> usize {
        arrays_bytes(&self.keys) + states_bytes(&self.states)
    }
}

pub(crate) fn arrays_bytes(arrays: &[ArrayRef]) -> usize {
    arrays.iter().map(Array::get_array_memory_size).sum()
}

pub(crate) fn states_bytes(states: &[Vec<ArrayRef>]) -> usize {
    states.iter().map(|s| arrays_bytes(s)).sum()
}

/// A growing table of groups and their aggregates.
pub(crate) struct GroupTable {
    interner: Interner,
    accumulators: Accumulators,
}

impl fmt::Debug for GroupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupTable").field("groups", &self.len()).finish_non_exhaustive()
    }
}

impl GroupTable {
    /// Returns a table with room for `expected` keys.
    pub(crate) fn new(spec: &Columns, expected: usize) -> Result<Self> {
        Ok(Self {
            interner: Interner::new(spec, expected)?,
            accumulators: Accumulators::new(spec)?,
        })
    }

    /// Returns the group of an aggregate without keys over no rows.
    pub(crate) fn of_no_rows(spec: &Columns) -> Result<Self> {
        let mut table = Self::new(spec, 1)?;
        let mut columns = Vec::with_capacity(spec.layout().columns.len());
        for column in &spec.layout().columns {
            let field = spec.input_schema().fields().get(*column);
            let field = field.ok_or_else(|| Error::internal("an argument that does not exist"))?;
            columns.push(new_null_array(field.data_type(), 1));
        }
        table.accumulators.update_nothing(spec, &columns)?;
        table.interner = Interner::Nothing { any: true };
        Ok(table)
    }

    pub(crate) fn len(&self) -> usize {
        self.interner.len()
    }

    /// Counts rows; `columns` are packed by the spec's layout. `groups` is scratch.
    pub(crate) fn update(
        &mut self,
        spec: &Columns,
        columns: &[ArrayRef],
        rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        let layout = spec.layout();
        let mut keys: Vec<ArrayRef> =
            layout.keys.iter().filter_map(|c| columns.get(*c).cloned()).collect();
        let Some(sets) = spec.grouping_sets() else {
            self.interner.intern(&keys, rows, groups)?;
            return self.accumulators.update(spec, columns, groups, self.interner.len());
        };
        let plain = keys.clone();
        for (mask, id) in sets.masks().iter().zip(sets.ids()) {
            keys.clear();
            keys.extend(plain.iter().zip(mask).map(|(key, null)| {
                if *null { new_null_array(key.data_type(), rows) } else { Arc::clone(key) }
            }));
            keys.push(grouping_id(sets, *id, rows)?);
            self.interner.intern(&keys, rows, groups)?;
            self.accumulators.update(spec, columns, groups, self.interner.len())?;
        }
        Ok(())
    }

    /// Merges the groups of another table.
    pub(crate) fn merge(&mut self, other: &Frozen, groups: &mut Vec<usize>) -> Result<()> {
        self.interner.intern(&other.keys, other.groups, groups)?;
        self.accumulators.merge(&other.states, groups, self.interner.len())
    }

    /// Converts to keys and states.
    pub(crate) fn freeze(mut self) -> Result<Frozen> {
        let groups = self.len();
        let keys = self.interner.take_keys()?;
        Ok(Frozen { keys, states: self.accumulators.take_states()?, groups })
    }

    /// Converts to result columns (keys, then values) and their number of rows.
    pub(crate) fn evaluate(mut self) -> Result<(Vec<ArrayRef>, usize)> {
        let groups = self.len();
        let mut columns = self.interner.take_keys()?;
        columns.extend(self.accumulators.take_values()?);
        Ok((columns, groups))
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.interner.size_bytes() + self.accumulators.size_bytes()
    }
}

/// Builds a column with a single grouping id.
fn grouping_id(sets: &GroupingSets, id: u64, rows: usize) -> Result<ArrayRef> {
    let narrow = |_| Error::internal("a grouping id is wider than its type");
    Ok(match sets.id_field().data_type() {
        DataType::UInt8 => {
            Arc::new(UInt8Array::from(vec![u8::try_from(id).map_err(narrow)?; rows]))
        }
        DataType::UInt16 => {
            Arc::new(UInt16Array::from(vec![u16::try_from(id).map_err(narrow)?; rows]))
        }
        DataType::UInt32 => {
            Arc::new(UInt32Array::from(vec![u32::try_from(id).map_err(narrow)?; rows]))
        }
        _ => Arc::new(UInt64Array::from(vec![id; rows])),
    })
}
