//! Sums that count how often they wrap: the type's own wrapping arithmetic, and the number of times that the sum has
//! left the range of the type at the upper end minus those at the lower (its *turns*).
//!
//! Invariant: the true sum is `sum + turns × 2^bits`, so it fits the type exactly when `turns` is zero.

use std::fmt::Debug;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, AsArray, Int16Array, PrimitiveArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type,
    Decimal256Type, Int16Type, i256,
};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::EmitTo;
use windrow_core::{Error, sql_type};

/// A number with wrapping addition.
pub(super) trait Cyclic: ArrowNativeType + Hash + Eq + Debug {
    /// Returns the wrapped sum, and its turns: 1, 0 or -1.
    fn plus(self, other: Self) -> (Self, i16);

    /// Returns the wrapped difference, likewise.
    fn minus(self, other: Self) -> (Self, i16);
}

macro_rules! signed {
    ($($native:ty),*) => {$(
        impl Cyclic for $native {
            #[inline]
            fn plus(self, other: Self) -> (Self, i16) {
                let (sum, round) = self.overflowing_add(other);
                (sum, if round { if other < 0 { -1 } else { 1 } } else { 0 })
            }

            #[inline]
            fn minus(self, other: Self) -> (Self, i16) {
                let (difference, round) = self.overflowing_sub(other);
                (difference, if round { if other < 0 { 1 } else { -1 } } else { 0 })
            }
        }
    )*};
}

signed!(i32, i64, i128);

impl Cyclic for u64 {
    #[inline]
    fn plus(self, other: Self) -> (Self, i16) {
        let (sum, round) = self.overflowing_add(other);
        (sum, i16::from(round))
    }

    #[inline]
    fn minus(self, other: Self) -> (Self, i16) {
        let (difference, round) = self.overflowing_sub(other);
        (difference, -i16::from(round))
    }
}

impl Cyclic for i256 {
    fn plus(self, other: Self) -> (Self, i16) {
        match self.checked_add(other) {
            Some(sum) => (sum, 0),
            None => (self.wrapping_add(other), if other.is_negative() { -1 } else { 1 }),
        }
    }

    fn minus(self, other: Self) -> (Self, i16) {
        match self.checked_sub(other) {
            Some(difference) => (difference, 0),
            None => (self.wrapping_sub(other), if other.is_negative() { 1 } else { -1 }),
        }
    }
}

/// A single sum, exact.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Total<N> {
    pub(super) sum: N,
    pub(super) turns: i64,
}

impl<N: Cyclic> Total<N> {
    pub(super) fn add(&mut self, value: N) {
        let (sum, turn) = self.sum.plus(value);
        self.sum = sum;
        self.turns += i64::from(turn);
    }

    pub(super) fn subtract(&mut self, value: N) {
        let (sum, turn) = self.sum.minus(value);
        self.sum = sum;
        self.turns += i64::from(turn);
    }

    /// Returns the sum, if it fits its type.
    pub(super) fn fits(&self) -> Option<N> {
        (self.turns == 0).then_some(self.sum)
    }
}

/// The sums of many groups. Memory for turns is allocated only when a sum wraps.
#[derive(Debug, Default)]
pub(super) struct Totals<N> {
    sums: Vec<N>,
    turns: Turns,
}

/// The turns of many groups.
#[derive(Debug, Default)]
struct Turns {
    /// May be shorter than the sums; missing ones are zero.
    counts: Vec<i16>,
    /// Whether the turns of a group have overflowed.
    lost: bool,
}

impl Turns {
    #[cold]
    fn count(&mut self, group: usize, turn: i16) {
        if self.counts.len() <= group {
            self.counts.resize(group + 1, 0);
        }
        if let Some(turns) = self.counts.get_mut(group) {
            match turns.checked_add(turn) {
                Some(sum) => *turns = sum,
                None => self.lost = true,
            }
        }
    }
}

/// Adds values to the sums of groups. It borrows the sums as a slice, so that a loop over it need not read the vector's
/// pointer for each value.
pub(super) struct Adder<'a, N> {
    sums: &'a mut [N],
    turns: &'a mut Turns,
}

impl<N: Cyclic> Adder<'_, N> {
    #[inline(always)]
    pub(super) fn add(&mut self, group: usize, value: N) {
        if let Some(sum) = self.sums.get_mut(group) {
            let (new, turn) = sum.plus(value);
            *sum = new;
            if turn != 0 {
                self.turns.count(group, turn);
            }
        }
    }
}

impl<N: Cyclic> Totals<N> {
    /// Makes room for `groups` groups, and returns the adder.
    pub(super) fn adder(&mut self, groups: usize) -> Adder<'_, N> {
        self.sums.resize(groups, N::default());
        Adder { sums: &mut self.sums, turns: &mut self.turns }
    }

    /// Merges the turns of a state, one per group.
    pub(super) fn add_turns(&mut self, groups: &[usize], turns: &ArrayRef) {
        // Usually there are none.
        if turns.null_count() == turns.len() {
            return;
        }
        for (group, turn) in groups.iter().zip(turns.as_primitive::<Int16Type>()) {
            if let Some(turn) = turn.filter(|turn| *turn != 0) {
                self.turns.count(*group, turn);
            }
        }
    }

    /// Removes and returns groups: their sums and turns; the turns may be shorter or empty if they are zero.
    pub(super) fn take(&mut self, emit_to: EmitTo) -> Result<(Vec<N>, Vec<i16>)> {
        if self.turns.lost {
            return Err(ours(Error::data("a sum is beyond all bounds")));
        }
        let sums = emit_to.take_needed(&mut self.sums);
        let counts = &mut self.turns.counts;
        let rest = counts.split_off(sums.len().min(counts.len()));
        Ok((sums, std::mem::replace(counts, rest)))
    }

    pub(super) fn size(&self) -> usize {
        self.sums.capacity() * size_of::<N>() + self.turns.counts.capacity() * size_of::<i16>()
    }
}

/// Builds the turns column of a state: NULL for zero, so that merging needs no check.
pub(super) fn turns_column(mut turns: Vec<i16>, groups: usize) -> ArrayRef {
    if turns.iter().all(|turn| *turn == 0) {
        // Zeroed by the allocator, without touching memory.
        return new_null_array(&DataType::Int16, groups);
    }
    turns.resize(groups, 0);
    std::sync::Arc::new(Int16Array::from(turns))
}

/// Builds a column of `data_type` from sums.
///
/// # Errors
/// When a sum does not fit.
pub(super) fn sums_column<T>(
    sums: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
{
    let column = PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(data_type.clone());
    let column: ArrayRef = std::sync::Arc::new(column);
    if fits_digits(&column) { Ok(column) } else { Err(beyond("sum", data_type)) }
}

/// Whether no decimal has more digits than its type allows, as a computed one may.
pub fn fits_digits(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Decimal32(digits, _) => {
            column.as_primitive::<Decimal32Type>().validate_decimal_precision(*digits).is_ok()
        }
        DataType::Decimal64(digits, _) => {
            column.as_primitive::<Decimal64Type>().validate_decimal_precision(*digits).is_ok()
        }
        DataType::Decimal128(digits, _) => {
            column.as_primitive::<Decimal128Type>().validate_decimal_precision(*digits).is_ok()
        }
        DataType::Decimal256(digits, _) => {
            column.as_primitive::<Decimal256Type>().validate_decimal_precision(*digits).is_ok()
        }
        _ => true,
    }
}

/// Returns the error for a result of `function` that does not fit its type.
pub(crate) fn beyond(function: &str, data_type: &DataType) -> DataFusionError {
    let hint = match data_type {
        DataType::Int64 | DataType::UInt64 => "Use CAST(… AS DECIMAL(38, 0)) within it.",
        DataType::Duration(_) | DataType::Interval(_) => {
            "Use date_part('epoch', …), the seconds as a number, within it."
        }
        _ => "Use CAST(… AS DOUBLE) within it, or a DECIMAL with fewer digits after the point.",
    };
    let message = format!("\"{function}\" is out of range for {}", sql_type(data_type));
    ours(Error::data(message).with_hint(hint))
}

pub(super) fn ours(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
