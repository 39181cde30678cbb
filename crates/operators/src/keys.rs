//! Numbering of keys of one integer-like column (integers, dates, times, timestamps, durations): an open-addressing
//! table with the key beside its number, so that finding a key is one memory access.
//!
//! Invariant: `values[table[i].number] == table[i].key` for each occupied slot; at least a quarter of the slots is
//! empty, so that probing ends.

use std::hash::{BuildHasher, RandomState};

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use windrow_core::{Error, ErrorKind, Result};

/// The number that marks an empty slot.
const EMPTY: u32 = u32::MAX;
/// The slots of a new table: few, because a slice may hold a single key.
const PLACES_MIN: usize = 16;

/// The number of keys whose slots are read before the first is compared.
const LOOKED_AHEAD: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Place {
    key: i64,
    number: u32,
}

/// Distinct integers, numbered from 0 in the order of arrival.
#[derive(Debug)]
pub(crate) struct IntegerKeys {
    data_type: DataType,
    width: usize,
    /// A power of two.
    table: Vec<Place>,
    values: Vec<i64>,
    null: Option<usize>,
    seed: u64,
}

impl IntegerKeys {
    /// Returns a table for keys of `data_type`, if they are integers of up to 64 bits in memory.
    pub(crate) fn for_type(data_type: &DataType) -> Option<Self> {
        use DataType as D;
        let integer = matches!(data_type, D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_))
            || matches!(data_type, D::Timestamp(..) | D::Duration(_))
            || data_type.is_integer();
        let width = data_type.primitive_width().filter(|w| integer && *w <= 8)?;
        Some(Self {
            data_type: data_type.clone(),
            width,
            table: vec![],
            values: vec![],
            null: None,
            // Random, so that senders of keys cannot make all of them collide. Numbers do not depend on it.
            seed: RandomState::new().hash_one(0) | 1,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.table.capacity() * size_of::<Place>() + self.values.capacity() * size_of::<i64>()
    }

    /// Reserves room for this many keys.
    pub(crate) fn expect(&mut self, keys: usize) {
        let places = (keys / 3 * 5 + 1).next_power_of_two().max(PLACES_MIN);
        if places > self.table.len() {
            self.grow(places);
        }
    }

    /// Returns the numbers of `column`'s keys.
    pub(crate) fn intern(&mut self, column: &ArrayRef, numbers: &mut Vec<usize>) -> Result<()> {
        let data = column.to_data();
        numbers.clear();
        numbers.reserve(data.len());
        match self.width {
            1 => self.intern_native::<i8>(&data, i64::from, numbers),
            2 => self.intern_native::<i16>(&data, i64::from, numbers),
            4 => self.intern_native::<i32>(&data, i64::from, numbers),
            _ => self.intern_native::<i64>(&data, |key| key, numbers),
        }
    }

    fn intern_native<T: ArrowNativeType>(
        &mut self,
        data: &ArrayData,
        widen: impl Fn(T) -> i64,
        numbers: &mut Vec<usize>,
    ) -> Result<()> {
        if self.values.len() + data.len() >= EMPTY as usize {
            return Err(Error::new(ErrorKind::Limit, "a slice has more than 4 billion groups"));
        }
        self.expect(0);
        let keys: &[T] = data.buffer::<T>(0).get(..data.len()).unwrap_or_default();
        match data.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => {
                for keys in keys.chunks(LOOKED_AHEAD) {
                    self.intern_chunk(keys, &widen, numbers);
                }
            }
            Some(nulls) => {
                for (&key, valid) in keys.iter().zip(nulls) {
                    let number = if valid {
                        self.number(widen(key))
                    } else {
                        *self.null.get_or_insert_with(|| {
                            self.values.push(0);
                            self.values.len() - 1
                        })
                    };
                    numbers.push(number);
                }
            }
        }
        Ok(())
    }

    /// Reads the slots where the keys should be first, then compares: memory accesses overlap, and a mispredicted
    /// branch does not wait for one. The slots read remain valid: an occupied slot keeps its key and number, and an
    /// empty one is read again.
    #[inline(always)]
    fn intern_chunk<T: ArrowNativeType>(
        &mut self,
        keys: &[T],
        widen: &impl Fn(T) -> i64,
        numbers: &mut Vec<usize>,
    ) {
        let mut looked_at = [Place { key: 0, number: EMPTY }; LOOKED_AHEAD];
        let table = self.table.as_slice();
        let mask = table.len() - 1;
        for (place, &key) in looked_at.iter_mut().zip(keys) {
            *place = table[spread(widen(key), self.seed) & mask];
        }
        for (place, &key) in looked_at.iter().zip(keys) {
            let key = widen(key);
            numbers.push(if place.key == key && place.number != EMPTY {
                place.number as usize
            } else {
                self.number(key)
            });
        }
    }

    fn number(&mut self, key: i64) -> usize {
        let table = self.table.as_mut_slice();
        let mask = table.len() - 1;
        let mut at = spread(key, self.seed) & mask;
        loop {
            let place = &mut table[at & mask];
            if place.key == key && place.number != EMPTY {
                return place.number as usize;
            }
            if place.number == EMPTY {
                let number = self.values.len();
                *place = Place { key, number: number as u32 };
                self.values.push(key);
                if number + number / 4 >= mask / 4 * 3 {
                    self.grow((mask + 1) * 2);
                }
                return number;
            }
            at += 1;
        }
    }

    #[cold]
    fn grow(&mut self, places: usize) {
        let mask = places - 1;
        let old = std::mem::replace(&mut self.table, vec![Place { key: 0, number: EMPTY }; places]);
        for place in old.iter().filter(|place| place.number != EMPTY) {
            let mut at = spread(place.key, self.seed) & mask;
            while self.table[at & mask].number != EMPTY {
                at += 1;
            }
            self.table[at & mask] = *place;
        }
    }

    /// Takes the keys out, by number; the table is empty afterwards.
    pub(crate) fn take(&mut self) -> Result<ArrayRef> {
        self.table = vec![];
        let values = std::mem::take(&mut self.values);
        let null = self.null.take();
        let nulls = null.map(|null| (0..values.len()).map(|i| i != null).collect::<NullBuffer>());
        self.array(values, nulls)
    }

    /// Returns some keys, by their numbers.
    pub(crate) fn pick(&self, numbers: &[u32]) -> Result<ArrayRef> {
        let values = numbers.iter().map(|number| self.values.get(*number as usize).copied());
        let nulls = self.null.map(|null| {
            numbers.iter().map(|number| *number as usize != null).collect::<NullBuffer>()
        });
        match values.collect::<Option<Vec<i64>>>() {
            Some(values) => self.array(values, nulls),
            None => Err(Error::internal("a key that has not been numbered")),
        }
    }

    fn array(&self, values: Vec<i64>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let len = values.len();
        let buffer = match self.width {
            1 => narrow(&values, |key| key as i8),
            2 => narrow(&values, |key| key as i16),
            4 => narrow(&values, |key| key as i32),
            _ => ScalarBuffer::<i64>::from(values).into_inner(),
        };
        let data = ArrayData::builder(self.data_type.clone()).len(len).add_buffer(buffer);
        Ok(make_array(data.nulls(nulls).build()?))
    }
}

fn narrow<T: ArrowNativeType>(values: &[i64], cut: impl Fn(i64) -> T) -> Buffer {
    values.iter().map(|key| cut(*key)).collect::<Vec<T>>().into()
}

/// Combines both halves of a wide product, so that each bit of the key reaches the low bits.
#[inline(always)]
fn spread(key: i64, seed: u64) -> usize {
    let product = u128::from(key as u64 ^ seed) * u128::from(seed ^ 0x9E37_79B9_7F4A_7C15);
    (product as u64 ^ (product >> 64) as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Date32Array, Int8Array, TimestampSecondArray, UInt64Array};

    use super::*;

    /// Interns two slices of a column and returns the keys.
    fn round(column: &ArrayRef) -> (Vec<usize>, ArrayRef) {
        let mut keys = IntegerKeys::for_type(column.data_type()).unwrap();
        let (mut all, mut numbers) = (vec![], vec![]);
        let half = column.len() / 2;
        for part in [column.slice(0, half), column.slice(half, column.len() - half)] {
            keys.intern(&part, &mut numbers).unwrap();
            all.extend(&numbers);
        }
        assert_eq!(keys.len(), all.iter().max().unwrap() + 1);
        let last = keys.len() as u32 - 1;
        let picked = keys.pick(&[last, 0]).unwrap();
        let taken = keys.take().unwrap();
        assert_eq!(picked.slice(0, 1).as_ref(), taken.slice(last as usize, 1).as_ref());
        assert_eq!(picked.slice(1, 1).as_ref(), taken.slice(0, 1).as_ref());
        (all, taken)
    }

    #[test]
    fn keys_come_back_by_number_in_their_type() {
        let columns: [ArrayRef; 4] = [
            Arc::new(Int8Array::from(vec![Some(-1), None, Some(-1), Some(127), None, Some(0)])),
            Arc::new(Date32Array::from(vec![Some(-1), Some(i32::MIN), None, Some(-1), None])),
            Arc::new(UInt64Array::from(vec![u64::MAX, 0, u64::MAX, 1 << 63, 0])),
            Arc::new(TimestampSecondArray::from(vec![5, 6, 5, 7]).with_timezone("UTC")),
        ];
        for column in columns {
            let (numbers, keys) = round(&column);
            assert_eq!(keys.data_type(), column.data_type());
            for (row, number) in numbers.iter().enumerate() {
                assert_eq!(keys.slice(*number, 1).as_ref(), column.slice(row, 1).as_ref());
            }
        }
    }

    #[test]
    fn many_keys_are_found_again_after_growing() {
        let column: ArrayRef =
            Arc::new(UInt64Array::from_iter_values((0..50_000).map(|k| k << 40)));
        let mut keys = IntegerKeys::for_type(column.data_type()).unwrap();
        let mut numbers = vec![];
        for _ in 0..2 {
            keys.intern(&column, &mut numbers).unwrap();
            assert!(numbers.iter().copied().eq(0..50_000));
        }
    }

    #[test]
    fn floats_and_wide_keys_are_for_others() {
        for other in [DataType::Float64, DataType::Decimal128(38, 0), DataType::Utf8] {
            assert!(IntegerKeys::for_type(&other).is_none());
        }
    }
}
