//! Sums compared with 128-bit arithmetic: any division into batches, states and frames returns the same result, or the
//! same error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{AggregateUDF, EmitTo};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn function(udaf: Arc<AggregateUDF>, of: &DataType, distinct: bool) -> AggregateFunctionExpr {
    let schema = Arc::new(Schema::new(vec![Field::new("v", of.clone(), true)]));
    AggregateExprBuilder::new(udaf, vec![Arc::new(Column::new("v", 0))])
        .schema(schema)
        .alias("s")
        .with_distinct(distinct)
        .build()
        .unwrap()
}

/// Values near the ends of the type's range, so that most sums leave it in between.
fn value(rng: &mut StdRng) -> Option<i64> {
    match rng.random_range(0..6) {
        0 => None,
        1 | 2 => Some(i64::MAX - rng.random_range(0..3)),
        3 | 4 => Some(i64::MIN + rng.random_range(0..3)),
        _ => Some(rng.random_range(-5..5)),
    }
}

fn values(rng: &mut StdRng, rows: usize) -> Vec<Option<i64>> {
    (0..rows).map(|_| value(rng)).collect()
}

fn column(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// `None` in `Ok` is NULL; an error means that the sum does not fit.
type Expected = Result<Option<i64>, ()>;

fn expected(values: impl Iterator<Item = Option<i64>>) -> Expected {
    let mut sum = None;
    for value in values.flatten() {
        *sum.get_or_insert(0) += i128::from(value);
    }
    sum.map(|sum: i128| i64::try_from(sum).map_err(drop)).transpose()
}

/// The groups of one accumulator, numbered in the order of arrival, as in every operator: an accumulator treats a group
/// that it was never passed as one with values.
#[derive(Default)]
struct Numbered(Vec<usize>);

impl Numbered {
    fn number(&mut self, group: usize) -> usize {
        self.0.iter().position(|known| *known == group).unwrap_or_else(|| {
            self.0.push(group);
            self.0.len() - 1
        })
    }

    fn numbers(&mut self, groups: &[usize]) -> Vec<usize> {
        groups.iter().map(|group| self.number(*group)).collect()
    }
}

/// Groups arrive in batches, are split at random times, and are merged in any order.
#[test]
fn any_cut_gives_the_same_sums() {
    let sum = function(sum_udaf(), &DataType::Int64, false);
    let (mut fitting, mut without_values) = (0, 0);
    for seed in 0..400 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let groups = rng.random_range(1..4);
        let mut rows: Vec<(usize, Option<i64>)> = vec![];
        let mut states: Vec<(Vec<ArrayRef>, Vec<usize>)> = vec![];
        let fresh = || (sum.create_groups_accumulator().unwrap(), Numbered::default());
        let mut open = fresh();
        for _ in 0..rng.random_range(1..8) {
            let count = rng.random_range(0..5);
            let batch = values(rng, count);
            let at: Vec<usize> = batch.iter().map(|_| rng.random_range(0..groups)).collect();
            let keep: Option<BooleanArray> = rng
                .random_bool(0.3)
                .then(|| batch.iter().map(|_| rng.random_bool(0.7).then_some(true)).collect());
            let kept = |row: usize| keep.as_ref().is_none_or(|keep| keep.is_valid(row));
            let passed = |(row, value): (usize, &Option<i64>)| value.filter(|_| kept(row));
            rows.extend(at.iter().copied().zip(batch.iter().enumerate().map(passed)));
            if rng.random_bool(0.2) {
                let alone = sum.create_groups_accumulator().unwrap();
                let state = alone.convert_to_state(&[column(&batch)], keep.as_ref()).unwrap();
                states.push((state, at));
                continue;
            }
            let (accumulator, numbered) = &mut open;
            let numbers = numbered.numbers(&at);
            let all = numbered.0.len();
            accumulator.update_batch(&[column(&batch)], &numbers, keep.as_ref(), all).unwrap();
            if rng.random_bool(0.5) {
                let (mut full, Numbered(all)) = std::mem::replace(&mut open, fresh());
                let (first, rest) = all.split_at(rng.random_range(0..=all.len()));
                states.push((full.state(EmitTo::First(first.len())).unwrap(), first.to_vec()));
                states.push((full.state(EmitTo::All).unwrap(), rest.to_vec()));
            }
        }
        let (mut merged, mut numbered) = open;
        while !states.is_empty() {
            let (state, at) = states.swap_remove(rng.random_range(0..states.len()));
            let numbers = numbered.numbers(&at);
            merged.merge_batch(&state, &numbers, numbered.0.len()).unwrap();
        }
        let wanted = numbered.0.iter().map(|group| {
            expected(rows.iter().filter(|(g, _)| g == group).map(|(_, value)| *value))
        });
        match wanted.collect::<Result<Vec<_>, _>>() {
            Ok(sums) => {
                fitting += 1;
                without_values += sums.iter().filter(|sum| sum.is_none()).count();
                let found = merged.evaluate(EmitTo::All).unwrap();
                let found: Vec<_> = found.as_primitive::<Int64Type>().iter().collect();
                assert_eq!(found, sums, "seed {seed}");
            }
            Err(()) => {
                let error = merged.evaluate(EmitTo::All).unwrap_err().to_string();
                assert!(error.contains("\"sum\" is out of range for BIGINT"), "{error}");
            }
        }
    }
    assert!((50..350).contains(&fitting), "{fitting} of 400 cases fit");
    assert!(without_values > 20, "{without_values} groups have no values");
}

/// A sum over a sliding frame, with and without DISTINCT, and merged from states.
#[test]
fn frames_and_states_give_the_same_sum() {
    for (seed, distinct) in (0..300).flat_map(|seed| [(seed, false), (seed, true)]) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let sum = function(sum_udaf(), &DataType::Int64, distinct);
        let rows = values(rng, 30);
        let of = |rows: &[Option<i64>]| {
            let mut rows: Vec<_> = rows.to_vec();
            if distinct {
                rows.sort_unstable();
                rows.dedup();
            }
            expected(rows.into_iter())
        };
        let mut frame = sum.create_sliding_accumulator().unwrap();
        let (mut from, mut to) = (0, 0);
        while to < rows.len() {
            let (gone, come) = (rng.random_range(from..=to), rng.random_range(to..=rows.len()));
            frame.retract_batch(&[column(&rows[from..gone])]).unwrap();
            frame.update_batch(&[column(&rows[to..come])]).unwrap();
            (from, to) = (gone, come);
            let found = frame.evaluate().map_err(drop);
            assert_eq!(found, of(&rows[from..to]).map(ScalarValue::Int64), "seed {seed}");
        }
        let mut whole = sum.create_accumulator().unwrap();
        for part in rows.chunks(7) {
            let mut one = sum.create_accumulator().unwrap();
            one.update_batch(&[column(part)]).unwrap();
            let state: Vec<ArrayRef> =
                one.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        assert_eq!(whole.evaluate().map_err(drop), of(&rows).map(ScalarValue::Int64));
    }
}

/// If no sum has wrapped, the second column of the state is all NULL.
#[test]
fn the_state_of_small_sums_has_no_turns() {
    let sum = function(sum_udaf(), &DataType::Int64, false);
    let mut groups = sum.create_groups_accumulator().unwrap();
    groups.update_batch(&[column(&[Some(1), None])], &[0, 1], None, 2).unwrap();
    let state = groups.state(EmitTo::All).unwrap();
    assert_eq!(state[1].null_count(), 2);
    let types: Vec<_> = sum.state_fields().unwrap().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, state.iter().map(|s| s.data_type().clone()).collect::<Vec<_>>());
}
