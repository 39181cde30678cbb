//! Compares two multisets of rows: which rows does only one side have?
//!
//! Rows are compared by value: NULL equals NULL, NaN equals NaN, and the order does not count. Floating-point columns are equal
//! within a relative tolerance, because sums may be added up in another order: 1e-9 for `DOUBLE`, 1e-5 for shorter types.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use windrow_core::Result;

const TOLERANCE: f64 = 1e-9;
const TOLERANCE_SHORT: f64 = 1e-5;

/// The position of a row: index of the batch, row in the batch.
pub(super) type At = (usize, usize);

/// The values of a row that are compared with tolerance, and its position.
type Candidate = (Vec<Option<f64>>, At);

/// Rows without a match yet, by the values that are compared exactly, of both sides.
type Groups = BTreeMap<Vec<u8>, [Vec<Candidate>; 2]>;

/// Returns the rows that only `left` has and those that only `right` has. All batches have `schema`.
///
/// # Errors
/// When a column has a type whose values cannot be compared.
pub(super) fn differences(
    schema: &SchemaRef,
    left: &[RecordBatch],
    right: &[RecordBatch],
) -> Result<[Vec<At>; 2]> {
    let fields = schema.fields();
    let (floats, exact): (Vec<usize>, Vec<usize>) =
        (0..fields.len()).partition(|i| fields.get(*i).is_some_and(|f| is_float(f.data_type())));
    let tolerances: Vec<f64> = floats
        .iter()
        .map(|i| match schema.field(*i).data_type() {
            DataType::Float64 => TOLERANCE,
            _ => TOLERANCE_SHORT,
        })
        .collect();
    let sort = exact.iter().map(|i| SortField::new(schema.field(*i).data_type().clone()));
    let converter = RowConverter::new(sort.collect())?;
    let mut groups = Groups::new();
    for (side, batches) in [left, right].into_iter().enumerate() {
        for (number, batch) in batches.iter().enumerate() {
            add(&mut groups, (side, number), batch, (&converter, &exact, &floats))?;
        }
    }
    let mut only = [vec![], vec![]];
    for [left, right] in groups.into_values() {
        // Equal rows are matched first, so that a near one does not take the place of an equal one.
        let (mut left, right) = unequal(left, right);
        let right = unmatched(&mut left, right, &tolerances);
        for (side, rest) in [left, right].into_iter().enumerate() {
            if let Some(only) = only.get_mut(side) {
                only.extend(rest.into_iter().map(|(_, at)| at));
            }
        }
    }
    Ok(only)
}

/// Adds the rows of one batch to the groups.
fn add(
    groups: &mut Groups,
    (side, number): (usize, usize),
    batch: &RecordBatch,
    (converter, exact, floats): (&RowConverter, &[usize], &[usize]),
) -> Result<()> {
    let keys: Vec<ArrayRef> = exact.iter().map(|i| Arc::clone(batch.column(*i))).collect();
    let keys = if keys.is_empty() { None } else { Some(converter.convert_columns(&keys)?) };
    let values = floats
        .iter()
        .map(|i| cast(batch.column(*i), &DataType::Float64))
        .collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let key = keys.as_ref().map_or_else(Vec::new, |keys| keys.row(row).as_ref().to_vec());
        let value = |column: &ArrayRef| {
            let column = column.as_primitive::<Float64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        if let Some(rows) = groups.entry(key).or_default().get_mut(side) {
            rows.push((values.iter().map(value).collect(), (number, row)));
        }
    }
    Ok(())
}

/// Returns both sides without the pairs that are equal bit by bit.
fn unequal(left: Vec<Candidate>, right: Vec<Candidate>) -> (Vec<Candidate>, Vec<Candidate>) {
    let sorted = |mut rows: Vec<Candidate>| {
        rows.sort_by_cached_key(|(values, _)| bits(values));
        rows.into_iter().peekable()
    };
    let (mut left, mut right) = (sorted(left), sorted(right));
    let (mut left_rest, mut right_rest) = (vec![], vec![]);
    while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
        match bits(a).cmp(&bits(b)) {
            Ordering::Less => left_rest.extend(left.next()),
            Ordering::Greater => right_rest.extend(right.next()),
            Ordering::Equal => drop((left.next(), right.next())),
        }
    }
    left_rest.extend(left);
    right_rest.extend(right);
    (left_rest, right_rest)
}

/// Returns values as they are compared exactly: with one NaN and one zero.
fn bits(values: &[Option<f64>]) -> Vec<Option<u64>> {
    let of = |value: f64| match value {
        _ if value.is_nan() => f64::NAN.to_bits(),
        _ if value == 0.0 => 0,
        _ => value.to_bits(),
    };
    values.iter().map(|value| value.map(of)).collect()
}

/// Removes every pair of near rows from both sides; returns the rest of the right one.
fn unmatched(
    left: &mut Vec<Candidate>,
    right: Vec<Candidate>,
    tolerances: &[f64],
) -> Vec<Candidate> {
    let mut rest = vec![];
    for candidate in right {
        match left.iter().position(|(values, _)| near(values, &candidate.0, tolerances)) {
            Some(at) => drop(left.swap_remove(at)),
            None => rest.push(candidate),
        }
    }
    rest
}

/// Whether all values are within the tolerance of their column.
fn near(left: &[Option<f64>], right: &[Option<f64>], tolerances: &[f64]) -> bool {
    left.iter().zip(right).zip(tolerances).all(|(pair, tolerance)| match pair {
        (None, None) => true,
        (Some(a), Some(b)) if a.is_finite() && b.is_finite() => {
            (a - b).abs() <= tolerance * a.abs().max(b.abs())
        }
        (Some(a), Some(b)) => a.total_cmp(b).is_eq() || (a.is_nan() && b.is_nan()),
        _ => false,
    })
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};

    use super::*;

    fn batch(rows: &[(Option<&str>, Option<f64>)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.0)));
        let values: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1)));
        RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap()
    }

    fn only(left: &RecordBatch, right: &[RecordBatch]) -> [Vec<At>; 2] {
        differences(&left.schema(), std::slice::from_ref(left), right).unwrap()
    }

    #[test]
    fn order_and_batches_do_not_count_and_null_equals_null() {
        let left = batch(&[(Some("a"), Some(1.0)), (None, None), (Some("a"), Some(f64::NAN))]);
        let right =
            [batch(&[(Some("a"), Some(f64::NAN))]), batch(&[(None, None), (Some("a"), Some(1.0))])];
        assert_eq!(only(&left, &right), [vec![], vec![]]);
    }

    #[test]
    fn a_row_more_is_a_difference() {
        let left = batch(&[(Some("a"), Some(1.0)), (Some("a"), Some(1.0)), (Some("b"), None)]);
        let right = [batch(&[(Some("a"), Some(1.0)), (Some("b"), Some(0.0))])];
        let [left, right] = only(&left, &right);
        assert_eq!((left.len(), right), (2, vec![(0, 1)]));
    }

    #[test]
    fn sums_in_another_order_are_equal_and_others_are_not() {
        let left = batch(&[(Some("a"), Some(0.1 + 0.2 + 0.3)), (Some("b"), Some(1.0))]);
        let right = [batch(&[(Some("a"), Some(0.3 + 0.2 + 0.1)), (Some("b"), Some(1.000_001))])];
        assert_eq!(only(&left, &right), [vec![(0, 1)], vec![(0, 1)]]);
    }

    #[test]
    fn infinities_are_equal_to_themselves_only() {
        let left = batch(&[(None, Some(f64::INFINITY)), (Some("x"), Some(f64::INFINITY))]);
        let right = [batch(&[(None, Some(f64::INFINITY)), (Some("x"), Some(1.0))])];
        assert_eq!(only(&left, &right), [vec![(0, 1)], vec![(0, 1)]]);
    }
}
