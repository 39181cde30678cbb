//! `avg`: DataFusion's, except for durations, whose sum easily overflows 64 bits: some 107,000 days in nanoseconds do.
//! (DataFusion averages integers as DOUBLE, and decimals with a sum that has room for a billion rows.)
//!
//! States: the count, the wrapped sum, and its turns (NULL for none).

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, UInt64Array};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Field, FieldRef, Int16Type, TimeUnit, UInt64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    Signature,
};
use datafusion::physical_expr::NullState;

use super::total::{Total, Totals, beyond, turns_column};

/// The aggregate function.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Average {
    plain: Avg,
}

/// Expands to `$make::<T>()` for a duration, else `$other`.
macro_rules! by_unit {
    ($data_type:expr, $make:ident, $other:expr) => {
        match $data_type {
            DataType::Duration(TimeUnit::Second) => Ok($make::<DurationSecondType>()),
            DataType::Duration(TimeUnit::Millisecond) => Ok($make::<DurationMillisecondType>()),
            DataType::Duration(TimeUnit::Microsecond) => Ok($make::<DurationMicrosecondType>()),
            DataType::Duration(TimeUnit::Nanosecond) => Ok($make::<DurationNanosecondType>()),
            _ => $other,
        }
    };
}

fn groups<T: ArrowPrimitiveType<Native = i64> + Send>() -> Box<dyn GroupsAccumulator> {
    Box::new(GroupAverages::<T> {
        totals: Totals::default(),
        counts: vec![],
        seen: NullState::new(),
        unit: std::marker::PhantomData,
    })
}

fn single<T: ArrowPrimitiveType<Native = i64> + Debug + Send + Sync>() -> Box<dyn Accumulator> {
    Box::new(SingleAverage::<T> {
        total: Total::default(),
        count: 0,
        unit: std::marker::PhantomData,
    })
}

/// Divides a wrapped sum by the count.
fn divided(sum: i64, turns: i64, count: u64) -> Option<i64> {
    let sum = i128::from(sum) + (i128::from(turns) << 64);
    i64::try_from(sum.checked_div(i128::from(count))?).ok()
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn aliases(&self) -> &[String] {
        self.plain.aliases()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.plain.accumulator(args);
        }
        by_unit!(args.return_field.data_type(), single, self.plain.accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = args.name.to_owned();
        let has_turns =
            matches!(args.return_field.data_type(), DataType::Duration(_)) && !args.is_distinct;
        let mut fields = self.plain.state_fields(args)?;
        if has_turns {
            let name = format_state_name(&name, "turns");
            fields.push(Arc::new(Field::new(name, DataType::Int16, true)));
        }
        Ok(fields)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.plain.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        by_unit!(args.return_field.data_type(), groups, self.plain.create_groups_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.documentation()
    }
}

/// The averages of groups.
#[derive(Debug)]
struct GroupAverages<T> {
    totals: Totals<i64>,
    counts: Vec<u64>,
    seen: NullState,
    unit: std::marker::PhantomData<T>,
}

impl<T: ArrowPrimitiveType<Native = i64> + Send> GroupsAccumulator for GroupAverages<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let mut adder = self.totals.adder(total_num_groups);
        self.counts.resize(total_num_groups, 0);
        let counts = self.counts.as_mut_slice();
        if let Some(values) = values.first() {
            self.seen.accumulate(
                group_indices,
                values.as_primitive::<T>(),
                opt_filter,
                total_num_groups,
                move |group, value| {
                    adder.add(group, value);
                    if let Some(count) = counts.get_mut(group) {
                        *count += 1;
                    }
                },
            );
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        let [counts, sums, turns] = values else {
            return datafusion::common::internal_err!("the state of avg has other columns");
        };
        let mut adder = self.totals.adder(total_num_groups);
        self.counts.resize(total_num_groups, 0);
        let sums = sums.as_primitive::<T>();
        self.seen.accumulate(group_indices, sums, None, total_num_groups, move |group, value| {
            adder.add(group, value);
        });
        self.totals.add_turns(group_indices, turns);
        for (group, more) in group_indices.iter().zip(counts.as_primitive::<UInt64Type>()) {
            if let Some(count) = self.counts.get_mut(*group) {
                *count += more.unwrap_or(0);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, turns) = self.totals.take(emit_to)?;
        let counts = emit_to.take_needed(&mut self.counts);
        let nulls = self.seen.build(emit_to);
        let turns = turns.into_iter().map(i64::from).chain(std::iter::repeat(0));
        let averages = sums.into_iter().zip(turns).zip(counts).map(|((sum, turns), count)| {
            if count == 0 { Some(0) } else { divided(sum, turns, count) }
        });
        let averages: Option<Vec<i64>> = averages.collect();
        let averages = averages.ok_or_else(|| beyond("avg", &T::DATA_TYPE))?;
        Ok(Arc::new(PrimitiveArray::<T>::new(averages.into(), nulls)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, turns) = self.totals.take(emit_to)?;
        let counts = emit_to.take_needed(&mut self.counts);
        let nulls = self.seen.build(emit_to);
        let groups = sums.len();
        Ok(vec![
            Arc::new(UInt64Array::new(counts.into(), nulls.clone())),
            Arc::new(PrimitiveArray::<T>::new(sums.into(), nulls)),
            turns_column(turns, groups),
        ])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, Array::len);
        let each: Vec<usize> = (0..rows).collect();
        let mut rows_as_groups = Self {
            totals: Totals::default(),
            counts: vec![],
            seen: NullState::new(),
            unit: std::marker::PhantomData,
        };
        rows_as_groups.update_batch(values, &each, opt_filter, rows)?;
        rows_as_groups.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.totals.size() + self.counts.capacity() * size_of::<u64>() + self.seen.size()
    }
}

/// One average; also over a sliding frame.
#[derive(Debug)]
struct SingleAverage<T> {
    total: Total<i64>,
    count: u64,
    unit: std::marker::PhantomData<T>,
}

impl<T: ArrowPrimitiveType<Native = i64> + Debug + Send + Sync> Accumulator for SingleAverage<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values.iter().take(1).flat_map(AsArray::as_primitive::<T>).flatten() {
            self.total.add(value);
            self.count += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values.iter().take(1).flat_map(AsArray::as_primitive::<T>).flatten() {
            self.total.subtract(value);
            self.count = self.count.saturating_sub(1);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [counts, sums, turns] = states else {
            return datafusion::common::internal_err!("the state of avg has other columns");
        };
        sums.as_primitive::<T>().iter().flatten().for_each(|sum| self.total.add(sum));
        self.count += counts.as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        let turns = turns.as_primitive::<Int16Type>().iter().flatten().map(i64::from);
        self.total.turns += turns.sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.count > 0).then_some(self.total.sum);
        let turns = i16::try_from(self.total.turns).map_err(|_| beyond("avg", &T::DATA_TYPE))?;
        Ok(vec![
            ScalarValue::UInt64(Some(self.count)),
            ScalarValue::new_primitive::<T>(sum, &T::DATA_TYPE)?,
            ScalarValue::Int16((turns != 0).then_some(turns)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let average = match self.count {
            0 => None,
            count => Some(
                divided(self.total.sum, self.total.turns, count)
                    .ok_or_else(|| beyond("avg", &T::DATA_TYPE))?,
            ),
        };
        ScalarValue::new_primitive::<T>(average, &T::DATA_TYPE)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
