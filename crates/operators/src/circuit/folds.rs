//! What each aggregate of a group keeps, so that rows can be taken away: a count, an exact sum, the values in order, or
//! all rows.
//!
//! Invariant: the state of a group depends on its rows, and not on the order in which they came and went.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt64Array,
};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Float64Type, Int64Type, UInt64Type,
    i256,
};
use windrow_core::{Error, Result};

use super::delta::{Codec, Encoded, added};
use super::exact_sum::ExactSum;
use super::kept::Kept;
use crate::aggregates::{beyond, fits_digits};
use crate::failure;
use crate::spec::AggregateCall;

/// How an aggregate is computed.
#[derive(Debug)]
pub(super) enum Fold {
    /// `count(x)`.
    Count,
    /// `sum(x)` of integers or decimals.
    Whole(DataType),
    /// `sum(x)` or `avg(x)` of DOUBLE.
    Float {
        /// Whether it is the average.
        average: bool,
    },
    /// `min(x)` or `max(x)`: the values of all groups, in order.
    Extreme { codec: Codec, values: Kept, greatest: bool },
    /// `count(DISTINCT x)`: the values of all groups.
    Distinct { codec: Codec, values: Kept },
    /// Any other: computed again from all rows of the group.
    Again,
}

/// The state of an aggregate for one group.
#[derive(Debug, Clone)]
pub(super) enum State {
    Count(i64),
    Whole {
        count: i64,
        sum: i256,
    },
    Float(ExactSum),
    /// It is elsewhere.
    None,
}

impl State {
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Float(sum) => size_of::<Self>() + sum.size_bytes(),
            _ => size_of::<Self>(),
        }
    }
}

/// The argument of an aggregate in a batch of changes.
pub(super) struct Argument<'a> {
    values: &'a ArrayRef,
    filter: Option<&'a BooleanArray>,
    encoded: Encoded,
}

impl Fold {
    /// The way to compute a call over columns of these types.
    ///
    /// # Errors
    /// When the values cannot be compared.
    pub(super) fn of(call: &AggregateCall, argument: Option<&DataType>) -> Result<Self> {
        let returned = call.function.field().data_type().clone();
        let (name, distinct) = (call.function.fun().name(), call.function.is_distinct());
        let (Some(argument), [_]) = (argument, call.arguments.as_slice()) else {
            return Ok(Self::Again);
        };
        Ok(match (name, distinct) {
            ("count", false) => Self::Count,
            ("count", true) if is_ordered(argument) => {
                Self::Distinct { codec: Codec::new([argument])?, values: Kept::default() }
            }
            ("sum", false) if whole(argument) && is_sum(&returned) => Self::Whole(returned),
            ("sum", false) if argument == &DataType::Float64 => Self::Float { average: false },
            ("avg", false) if argument == &DataType::Float64 => Self::Float { average: true },
            ("min" | "max", _) if is_ordered(argument) => Self::Extreme {
                codec: Codec::new([argument])?,
                values: Kept::default(),
                greatest: name == "max",
            },
            _ => Self::Again,
        })
    }

    /// The state of a group without rows.
    pub(super) fn nothing(&self) -> State {
        match self {
            Self::Count | Self::Distinct { .. } => State::Count(0),
            Self::Whole(_) => State::Whole { count: 0, sum: i256::ZERO },
            Self::Float { .. } => State::Float(ExactSum::default()),
            Self::Extreme { .. } | Self::Again => State::None,
        }
    }

    /// The argument of its call among the columns of changes.
    ///
    /// # Errors
    /// When it cannot be compared; Internal when it does not exist.
    pub(super) fn argument<'a>(
        &self,
        call: &AggregateCall,
        columns: &'a [ArrayRef],
        rows: usize,
    ) -> Result<Option<Argument<'a>>> {
        if matches!(self, Self::Again) {
            return Ok(None);
        }
        let values = call.arguments.first().and_then(|column| columns.get(*column));
        let values = values.ok_or_else(|| Error::internal("an argument that does not exist"))?;
        let filter = call.filter.and_then(|column| columns.get(column)).map(AsArray::as_boolean);
        let encoded = match self {
            Self::Extreme { codec, .. } | Self::Distinct { codec, .. } => {
                codec.encode(std::slice::from_ref(values), rows)?
            }
            _ => Encoded::Nothing,
        };
        Ok(Some(Argument { values, filter, encoded }))
    }

    /// Adds a row to the state of its group `weight` times, or takes it away.
    ///
    /// # Errors
    /// Limit when there are more rows than can be counted; Internal when the argument has another type.
    pub(super) fn add(
        &mut self,
        (state, key): (&mut State, &[u8]),
        argument: &Argument<'_>,
        (row, weight): (usize, i64),
    ) -> Result<()> {
        let passes = argument.filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        if !passes || argument.values.is_null(row) {
            return Ok(());
        }
        match (self, state) {
            (Self::Count, State::Count(count)) => *count = added(*count, weight)?,
            (Self::Whole(_), State::Whole { count, sum }) => {
                let value = whole_value(argument.values, row)?;
                *count = added(*count, weight)?;
                *sum = sum.wrapping_add(value.wrapping_mul(i256::from_i128(i128::from(weight))));
            }
            (Self::Float { .. }, State::Float(sum)) => {
                sum.add(argument.values.as_primitive::<Float64Type>().value(row), weight)?;
            }
            (Self::Extreme { values, .. }, _) => {
                values.add(&[key, argument.encoded.row(row)].concat(), weight)?;
            }
            (Self::Distinct { values, .. }, State::Count(count)) => {
                let (before, after) =
                    values.add(&[key, argument.encoded.row(row)].concat(), weight)?;
                *count += i64::from(after > 0) - i64::from(before > 0);
            }
            _ => return Err(Error::internal("the state of another aggregate")),
        }
        Ok(())
    }

    /// The values of groups, given as their keys and states; `None`: they are computed from their rows.
    ///
    /// # Errors
    /// When one does not fit its type.
    pub(super) fn values<'a>(
        &self,
        groups: impl Iterator<Item = (&'a [u8], &'a State)>,
    ) -> Result<Option<ArrayRef>> {
        let values: ArrayRef = match self {
            Self::Again => return Ok(None),
            Self::Count | Self::Distinct { .. } => {
                let count = |(_, state): (&[u8], &State)| match state {
                    State::Count(count) => *count,
                    _ => 0,
                };
                Arc::new(groups.map(count).map(Some).collect::<Int64Array>())
            }
            Self::Whole(returned) => {
                let sum = |(_, state): (&[u8], &State)| match state {
                    State::Whole { count, sum } if *count > 0 => Some(*sum),
                    _ => None,
                };
                sums(groups.map(sum), returned)?
            }
            Self::Float { average } => {
                let sum = |(_, state): (&[u8], &State)| match state {
                    State::Float(sum) if sum.count > 0 && *average => {
                        Some(sum.value() / sum.count as f64)
                    }
                    State::Float(sum) if sum.count > 0 => Some(sum.value()),
                    _ => None,
                };
                Arc::new(groups.map(sum).collect::<Float64Array>())
            }
            Self::Extreme { codec, values, greatest } => {
                let null = codec.encode_null()?;
                let found: Vec<&[u8]> = groups
                    .map(|(key, _)| {
                        let mut rows = values.of(key);
                        let row = if *greatest { rows.next_back() } else { rows.next() };
                        row.and_then(|(row, _)| row.get(key.len()..)).unwrap_or(null.row(0))
                    })
                    .collect();
                let mut columns = codec.decode(found.into_iter())?;
                columns.pop().ok_or_else(|| Error::internal("an extreme without values"))?
            }
        };
        Ok(Some(values))
    }

    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Extreme { values, .. } | Self::Distinct { values, .. } => values.size_bytes(),
            _ => 0,
        }
    }
}

/// Whether the order of rows as bytes is that of `min` and `max`, for values of this type.
fn is_ordered(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Date32
                | DataType::Date64
                | DataType::Time32(_)
                | DataType::Time64(_)
                | DataType::Timestamp(..)
                | DataType::Duration(_)
                | DataType::Decimal32(..)
                | DataType::Decimal64(..)
                | DataType::Decimal128(..)
        )
}

/// Whether values of this type are whole numbers, of some unit.
fn whole(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64
            | DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
    )
}

fn is_sum(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..))
}

fn whole_value(values: &ArrayRef, row: usize) -> Result<i256> {
    let value = match values.data_type() {
        DataType::Int64 => i128::from(values.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => i128::from(values.as_primitive::<UInt64Type>().value(row)),
        DataType::Decimal32(..) => i128::from(values.as_primitive::<Decimal32Type>().value(row)),
        DataType::Decimal64(..) => i128::from(values.as_primitive::<Decimal64Type>().value(row)),
        DataType::Decimal128(..) => values.as_primitive::<Decimal128Type>().value(row),
        _ => return Err(Error::internal("a sum of other values")),
    };
    Ok(i256::from_i128(value))
}

/// A column of sums.
fn sums(sums: impl Iterator<Item = Option<i256>>, returned: &DataType) -> Result<ArrayRef> {
    let out = || failure::engine(beyond("sum", returned));
    let mut values: Vec<Option<i128>> = vec![];
    for sum in sums {
        values.push(match sum {
            Some(sum) => Some(sum.to_i128().ok_or_else(out)?),
            None => None,
        });
    }
    let column: ArrayRef = match returned {
        DataType::Int64 => {
            let fits = |value: Option<i128>| match value.map(i64::try_from) {
                Some(Ok(value)) => Ok(Some(value)),
                Some(Err(_)) => Err(out()),
                None => Ok(None),
            };
            Arc::new(values.into_iter().map(fits).collect::<Result<Int64Array>>()?)
        }
        DataType::UInt64 => {
            let fits = |value: Option<i128>| match value.map(u64::try_from) {
                Some(Ok(value)) => Ok(Some(value)),
                Some(Err(_)) => Err(out()),
                None => Ok(None),
            };
            Arc::new(values.into_iter().map(fits).collect::<Result<UInt64Array>>()?)
        }
        _ => {
            let column: Decimal128Array = values.into_iter().collect();
            Arc::new(column.with_data_type(returned.clone()))
        }
    };
    if fits_digits(&column) { Ok(column) } else { Err(out()) }
}
