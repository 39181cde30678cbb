//! The rows that frames can still reach, in order of time: their times, their keys, and the columns that functions read.
//!
//! Rows of one key are linked from older to newer. Columns of integers and floats are held as vectors, so that reading
//! one value is one access; all others as arrays.
//!
//! Invariants: `entries` is in order of time; all columns have as many values as there are entries; `newest` has an
//! entry per key.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, make_array,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::{concat, interleave};
use arrow::datatypes::{ArrowNativeType, DataType, Float32Type, Float64Type};
use windrow_core::{Error, ErrorKind, Result};

/// No row.
pub(super) const NONE: u32 = u32::MAX;
/// The most rows that can be numbered: the two highest bits of a number hold the kind of an event.
const ROWS_MAX: usize = 1 << 30;

/// A row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) key: u32,
    /// The next newer row of the key.
    pub(super) next: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) entries: Vec<Entry>,
    /// The newest row of each key.
    newest: Vec<u32>,
    pub(super) columns: Vec<Logged>,
}

impl History {
    pub(super) fn new(types: impl Iterator<Item = DataType>) -> Self {
        Self { columns: types.map(Logged::new).collect(), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds rows that are not before the existing ones. `keys`: the number of each row's key, out of `total`.
    ///
    /// # Errors
    /// When there are too many rows.
    pub(super) fn append(
        &mut self,
        times: &[i64],
        (keys, total): (&[usize], usize),
        columns: &[ArrayRef],
    ) -> Result<()> {
        if self.entries.len() + times.len() >= ROWS_MAX {
            return Err(Error::new(ErrorKind::Limit, "OVER holds more than a billion rows")
                .with_hint("Use shorter frames, or more partitions with fewer rows each."));
        }
        self.newest.resize(total.max(self.newest.len()), NONE);
        self.entries.reserve(times.len());
        for (time, key) in times.iter().zip(keys) {
            let row = self.entries.len() as u32;
            let before = std::mem::replace(&mut self.newest[*key], row);
            if let Some(before) = self.entries.get_mut(before as usize) {
                before.next = row;
            }
            self.entries.push(Entry { time: *time, key: *key as u32, next: NONE });
        }
        for (logged, column) in self.columns.iter_mut().zip(columns) {
            logged.append(column)?;
        }
        Ok(())
    }

    /// Drops all but the `kept` rows, in their order.
    pub(super) fn keep(&mut self, kept: &[u32], numbers: &Numbers) -> Result<()> {
        let entries = kept.iter().filter_map(|row| self.entries.get(*row as usize));
        self.entries =
            entries.map(|entry| Entry { next: numbers.of(entry.next), ..*entry }).collect();
        self.newest.iter_mut().for_each(|row| *row = numbers.of(*row));
        self.columns.iter_mut().try_for_each(|column| column.keep(kept))
    }

    /// Drops all rows.
    pub(super) fn clear(&mut self) {
        for entry in self.entries.drain(..) {
            if let Some(newest) = self.newest.get_mut(entry.key as usize) {
                *newest = NONE;
            }
        }
        self.columns.iter_mut().for_each(Logged::clear);
    }

    /// Drops all but the `kept` keys, in a new order; the dropped ones have no rows.
    pub(super) fn keep_keys(&mut self, kept: &[u32], numbers: &Numbers) {
        self.newest =
            kept.iter().filter_map(|key| self.newest.get(*key as usize)).copied().collect();
        self.entries.iter_mut().for_each(|entry| entry.key = numbers.of(entry.key));
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.newest.capacity() * size_of::<u32>()
            + self.columns.iter().map(Logged::size_bytes).sum::<usize>()
    }
}

/// The new numbers of rows or keys after some have been dropped.
#[derive(Debug)]
pub(super) struct Numbers(Vec<u32>);

impl Numbers {
    /// The new numbers of `total` old ones of which `kept` remain.
    pub(super) fn new(kept: &[u32], total: usize) -> Self {
        let mut numbers = vec![NONE; total];
        for (new, old) in kept.iter().enumerate() {
            if let Some(number) = numbers.get_mut(*old as usize) {
                *number = new as u32;
            }
        }
        Self(numbers)
    }

    /// The new number of an old one; [`NONE`] if it has been dropped.
    pub(super) fn of(&self, old: u32) -> u32 {
        self.0.get(old as usize).copied().unwrap_or(NONE)
    }
}

/// A column of rows.
#[derive(Debug)]
pub(super) struct Logged {
    data_type: DataType,
    values: Values,
    /// Whether each value is not NULL; empty as long as none is NULL.
    valid: Vec<bool>,
    len: usize,
}

#[derive(Debug)]
enum Values {
    /// Types that are integers in memory, and booleans.
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    /// Arrays, each less than about half as long as the previous one, and the first row of each.
    Any(Vec<ArrayRef>, Vec<usize>),
}

/// The width of a type whose values are integers in memory, and whether it is signed.
fn integer(data_type: &DataType) -> Option<(usize, bool)> {
    use DataType as D;
    let signed = !data_type.is_unsigned_integer();
    let integer = data_type.is_integer()
        || matches!(data_type, D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_))
        || matches!(data_type, D::Timestamp(..) | D::Duration(_));
    data_type.primitive_width().filter(|width| integer && *width <= 8).map(|w| (w, signed))
}

/// Whether values are held as integers with the same order, or as floats.
pub(super) fn compares_as_number(data_type: &DataType) -> bool {
    let float = matches!(data_type, DataType::Float32 | DataType::Float64);
    float || (integer(data_type).is_some() && *data_type != DataType::UInt64)
}

impl Logged {
    pub(super) fn new(data_type: DataType) -> Self {
        let values = match &data_type {
            DataType::Boolean => Values::Ints(vec![]),
            DataType::Float32 | DataType::Float64 => Values::Floats(vec![]),
            other if integer(other).is_some() => Values::Ints(vec![]),
            _ => Values::Any(vec![], vec![]),
        };
        Self { data_type, values, valid: vec![], len: 0 }
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The values as integers; empty if they are not held so. The value for NULL is arbitrary.
    pub(super) fn ints(&self) -> &[i64] {
        if let Values::Ints(values) = &self.values { values } else { &[] }
    }

    /// The values as floats, likewise.
    pub(super) fn floats(&self) -> &[f64] {
        if let Values::Floats(values) = &self.values { values } else { &[] }
    }

    /// Whether a value is not NULL.
    #[inline]
    pub(super) fn is_valid(&self, row: u32) -> bool {
        self.valid.is_empty() || self.valid[row as usize]
    }

    /// Whether no value is NULL.
    pub(super) fn all_valid(&self) -> bool {
        self.valid.is_empty()
    }

    pub(super) fn append(&mut self, column: &ArrayRef) -> Result<()> {
        let nulls = column.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        match (&nulls, self.valid.is_empty()) {
            (None, true) => {}
            (None, false) => self.valid.resize(self.len + column.len(), true),
            (Some(nulls), _) => {
                self.valid.resize(self.len, true);
                self.valid.extend(nulls.iter());
            }
        }
        match &mut self.values {
            Values::Ints(values) if self.data_type == DataType::Boolean => {
                values.extend(column.as_boolean().values().iter().map(i64::from));
            }
            Values::Ints(values) => widen(&column.to_data(), values),
            Values::Floats(values) => match column.data_type() {
                DataType::Float32 => values.extend(
                    column.as_primitive::<Float32Type>().values().iter().copied().map(f64::from),
                ),
                _ => values.extend_from_slice(column.as_primitive::<Float64Type>().values()),
            },
            Values::Any(arrays, starts) => {
                let mut array = Arc::clone(column);
                while let Some(before) = arrays.pop_if(|before| before.len() <= array.len() * 2) {
                    starts.pop();
                    array = concat(&[&before, &array])?;
                }
                starts.push(self.len + column.len() - array.len());
                arrays.push(array);
            }
        }
        self.len += column.len();
        Ok(())
    }

    /// Returns some values; NULL for [`NONE`].
    pub(super) fn gather(&self, rows: &[u32]) -> Result<ArrayRef> {
        match &self.values {
            Values::Ints(values) => {
                let ints = rows.iter().map(|row| values.get(*row as usize).copied().unwrap_or(0));
                ints_array(&self.data_type, ints.collect(), self.nulls(rows))
            }
            Values::Floats(values) => {
                let floats =
                    rows.iter().map(|row| values.get(*row as usize).copied().unwrap_or(0.0));
                Ok(floats_array(&self.data_type, floats.collect(), self.nulls(rows)))
            }
            Values::Any(arrays, starts) => {
                let null = new_null_array(&self.data_type, 1);
                let mut parts: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
                parts.push(null.as_ref());
                let place = |row: &u32| {
                    let row = *row as usize;
                    if row >= self.len {
                        return (arrays.len(), 0);
                    }
                    let part = starts.partition_point(|start| *start <= row).saturating_sub(1);
                    (part, row - starts.get(part).copied().unwrap_or(0))
                };
                let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
                Ok(interleave(&parts, &places)?)
            }
        }
    }

    fn nulls(&self, rows: &[u32]) -> Option<NullBuffer> {
        if self.valid.is_empty() && !rows.contains(&NONE) {
            return None;
        }
        let valid = |row: &u32| {
            (*row as usize) < self.len && self.valid.get(*row as usize).copied().unwrap_or(true)
        };
        Some(NullBuffer::new(BooleanBuffer::collect_bool(rows.len(), |i| valid(&rows[i]))))
    }

    pub(super) fn keep(&mut self, kept: &[u32]) -> Result<()> {
        if !self.valid.is_empty() {
            self.valid = kept.iter().map(|row| self.valid[*row as usize]).collect();
            if self.valid.iter().all(|valid| *valid) {
                self.valid = vec![];
            }
        }
        match &mut self.values {
            Values::Ints(values) => {
                *values = kept.iter().map(|row| values[*row as usize]).collect();
            }
            Values::Floats(values) => {
                *values = kept.iter().map(|row| values[*row as usize]).collect();
            }
            Values::Any(..) => {
                let all = self.gather(kept)?;
                // The strings of dropped rows must not be retained.
                let all = crate::batches::alone(&all)?;
                self.values = if kept.is_empty() {
                    Values::Any(vec![], vec![])
                } else {
                    Values::Any(vec![all], vec![0])
                };
            }
        }
        self.len = kept.len();
        Ok(())
    }

    fn clear(&mut self) {
        match &mut self.values {
            Values::Ints(values) => values.clear(),
            Values::Floats(values) => values.clear(),
            Values::Any(arrays, starts) => (*arrays, *starts) = (vec![], vec![]),
        }
        self.valid.clear();
        self.len = 0;
    }

    pub(super) fn size_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Ints(values) => values.capacity() * size_of::<i64>(),
            Values::Floats(values) => values.capacity() * size_of::<f64>(),
            Values::Any(arrays, _) => arrays.iter().map(Array::get_array_memory_size).sum(),
        };
        values + self.valid.capacity()
    }
}

fn widen(data: &ArrayData, into: &mut Vec<i64>) {
    fn all<T: ArrowNativeType>(data: &ArrayData, into: &mut Vec<i64>, widen: impl Fn(T) -> i64) {
        let values = data.buffer::<T>(0).get(..data.len()).unwrap_or_default();
        into.extend(values.iter().map(|value| widen(*value)));
    }
    match integer(data.data_type()) {
        Some((1, true)) => all::<i8>(data, into, i64::from),
        Some((1, false)) => all::<u8>(data, into, i64::from),
        Some((2, true)) => all::<i16>(data, into, i64::from),
        Some((2, false)) => all::<u16>(data, into, i64::from),
        Some((4, true)) => all::<i32>(data, into, i64::from),
        Some((4, false)) => all::<u32>(data, into, i64::from),
        _ => all::<i64>(data, into, |value| value),
    }
}

/// Returns a column of a type whose values are integers in memory, or booleans.
///
/// # Errors
/// Internal when it is another type.
pub(super) fn ints_array(
    data_type: &DataType,
    values: Vec<i64>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    if *data_type == DataType::Boolean {
        let values = BooleanBuffer::collect_bool(values.len(), |i| values[i] != 0);
        return Ok(Arc::new(BooleanArray::new(values, nulls)));
    }
    let len = values.len();
    let buffer = match integer(data_type).map_or(8, |(width, _)| width) {
        1 => narrow(&values, |value| value as i8),
        2 => narrow(&values, |value| value as i16),
        4 => narrow(&values, |value| value as i32),
        _ => ScalarBuffer::<i64>::from(values).into_inner(),
    };
    let data = ArrayData::builder(data_type.clone()).len(len).add_buffer(buffer);
    Ok(make_array(data.nulls(nulls).build()?))
}

fn narrow<T: ArrowNativeType>(values: &[i64], cut: impl Fn(i64) -> T) -> Buffer {
    values.iter().map(|value| cut(*value)).collect::<Vec<T>>().into()
}

/// Returns a column of floats of the type.
pub(super) fn floats_array(
    data_type: &DataType,
    values: Vec<f64>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    match data_type {
        DataType::Float32 => {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            Arc::new(Float32Array::new(values.into(), nulls))
        }
        _ => Arc::new(Float64Array::new(values.into(), nulls)),
    }
}
