//! `sum`: exact, or an error. Its result has DataFusion's type (BIGINT for integers, at most DECIMAL(38)).
//!
//! States: the wrapped sum, and its turns (NULL for none); with DISTINCT the values.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Field, FieldRef, Int16Type, Int64Type, IntervalUnit, IntervalYearMonthType, TimeUnit,
    UInt64Type,
};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::sum::Sum as Plain;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    ReversedUDAF, SetMonotonicity, Signature,
};
use datafusion::physical_expr::NullState;

use super::intervals::{self, IntervalSum};
use super::total::{Cyclic, Total, Totals, beyond, sums_column, turns_column};

/// The aggregate function.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sum {
    plain: Plain,
}

/// Returns `sum`, shared.
pub fn sum_udaf() -> Arc<AggregateUDF> {
    static SUM: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(AggregateUDF::new_from_impl(Sum::default())));
    Arc::clone(&SUM)
}

/// Expands to `$make::<T>($arguments)` for a type whose sums can wrap, else `$other`.
macro_rules! by_type {
    ($data_type:expr, $make:ident, $argument:expr, $other:expr) => {
        match $data_type {
            DataType::Int64 => Ok($make::<Int64Type>($argument)),
            DataType::UInt64 => Ok($make::<UInt64Type>($argument)),
            DataType::Decimal32(..) => Ok($make::<Decimal32Type>($argument)),
            DataType::Decimal64(..) => Ok($make::<Decimal64Type>($argument)),
            DataType::Decimal128(..) => Ok($make::<Decimal128Type>($argument)),
            DataType::Decimal256(..) => Ok($make::<Decimal256Type>($argument)),
            DataType::Duration(TimeUnit::Second) => Ok($make::<DurationSecondType>($argument)),
            DataType::Duration(TimeUnit::Millisecond) => {
                Ok($make::<DurationMillisecondType>($argument))
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                Ok($make::<DurationMicrosecondType>($argument))
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                Ok($make::<DurationNanosecondType>($argument))
            }
            DataType::Interval(IntervalUnit::YearMonth) => {
                Ok($make::<IntervalYearMonthType>($argument))
            }
            _ => $other,
        }
    };
}

/// Whether sums of the type have no turns: floating point, which has infinity.
fn is_float(data_type: &DataType) -> bool {
    data_type.is_floating() || data_type.is_null()
}

fn is_interval(data_type: &DataType) -> bool {
    use IntervalUnit::{DayTime, MonthDayNano};
    matches!(data_type, DataType::Interval(DayTime | MonthDayNano))
}

fn groups<T>(args: &AccumulatorArgs<'_>) -> Box<dyn GroupsAccumulator>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Cyclic,
{
    Box::new(GroupSums::<T> {
        totals: Totals::default(),
        seen: NullState::new(),
        data_type: args.return_field.data_type().clone(),
    })
}

fn single<T>(args: &AccumulatorArgs<'_>) -> Box<dyn Accumulator>
where
    T: ArrowPrimitiveType + Debug + Send + Sync,
    T::Native: Cyclic,
{
    let data_type = args.return_field.data_type().clone();
    if args.is_distinct {
        return Box::new(DistinctSum::<T> {
            counts: HashMap::new(),
            total: Total::default(),
            data_type,
        });
    }
    Box::new(SingleSum::<T> { total: Total::default(), values: 0, data_type })
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        if is_interval(&data_type) {
            return Ok(Box::new(IntervalSum::new(&data_type, args.is_distinct)));
        }
        by_type!(data_type, single, &args, self.plain.accumulator(args))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        if is_float(args.return_field.data_type()) {
            return self.plain.create_sliding_accumulator(args);
        }
        self.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let data_type = args.return_type().clone();
        if args.is_distinct || is_float(&data_type) {
            return self.plain.state_fields(args);
        }
        if is_interval(&data_type) {
            return Ok(intervals::state_fields(args.name));
        }
        let field = |name, data_type| {
            Arc::new(Field::new(format_state_name(args.name, name), data_type, true))
        };
        Ok(vec![field("sum", data_type), field("turns", DataType::Int16)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct && !is_interval(args.return_field.data_type())
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        by_type!(
            args.return_field.data_type(),
            groups,
            &args,
            self.plain.create_groups_accumulator(args)
        )
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.plain.set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.documentation()
    }
}

/// The sums of groups.
#[derive(Debug)]
struct GroupSums<T: ArrowPrimitiveType> {
    totals: Totals<T::Native>,
    seen: NullState,
    data_type: DataType,
}

impl<T> GroupsAccumulator for GroupSums<T>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Cyclic,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let mut adder = self.totals.adder(total_num_groups);
        if let Some(values) = values.first() {
            self.seen.accumulate(
                group_indices,
                values.as_primitive::<T>(),
                opt_filter,
                total_num_groups,
                move |group, value| adder.add(group, value),
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
        self.update_batch(values, group_indices, None, total_num_groups)?;
        if let Some(turns) = values.get(1) {
            self.totals.add_turns(group_indices, turns);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, turns) = self.totals.take(emit_to)?;
        let nulls = self.seen.build(emit_to);
        if turns.iter().any(|turn| *turn != 0) {
            return Err(beyond("sum", &self.data_type));
        }
        sums_column::<T>(sums, nulls, &self.data_type)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, turns) = self.totals.take(emit_to)?;
        let nulls = self.seen.build(emit_to);
        let groups = sums.len();
        let sums =
            PrimitiveArray::<T>::new(sums.into(), nulls).with_data_type(self.data_type.clone());
        Ok(vec![Arc::new(sums), turns_column(turns, groups)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut state = vec![];
        if let Some(values) = values.first() {
            let values = values.as_primitive::<T>();
            let passed = opt_filter.map(|filter| match filter.nulls() {
                Some(nulls) => NullBuffer::new(nulls.inner() & filter.values()),
                None => NullBuffer::new(filter.values().clone()),
            });
            let nulls = NullBuffer::union(values.nulls(), passed.as_ref());
            let sums = PrimitiveArray::<T>::new(values.values().clone(), nulls)
                .with_data_type(self.data_type.clone());
            let rows = sums.len();
            state = vec![Arc::new(sums) as ArrayRef, turns_column(vec![], rows)];
        }
        Ok(state)
    }

    fn size(&self) -> usize {
        self.totals.size() + self.seen.size()
    }
}

/// One sum; also over a sliding frame.
#[derive(Debug)]
struct SingleSum<T: ArrowPrimitiveType> {
    total: Total<T::Native>,
    /// The number of values that are not NULL.
    values: u64,
    data_type: DataType,
}

/// Calls `each` for every value that is not NULL; returns their number.
fn for_each<T: ArrowPrimitiveType>(values: &ArrayRef, mut each: impl FnMut(T::Native)) -> u64 {
    let values = values.as_primitive::<T>();
    if values.null_count() == 0 {
        values.values().iter().for_each(|value| each(*value));
    } else {
        values.iter().flatten().for_each(each);
    }
    (values.len() - values.null_count()) as u64
}

/// Returns the only value of an aggregate's result.
fn evaluated<T>(
    total: &Total<T::Native>,
    is_empty: bool,
    data_type: &DataType,
) -> Result<ScalarValue>
where
    T: ArrowPrimitiveType,
    T::Native: Cyclic,
{
    if is_empty {
        return ScalarValue::try_from(data_type);
    }
    let sum = total.fits().ok_or_else(|| beyond("sum", data_type))?;
    ScalarValue::try_from_array(&sums_column::<T>(vec![sum], None, data_type)?, 0)
}

impl<T> Accumulator for SingleSum<T>
where
    T: ArrowPrimitiveType + Debug + Send + Sync,
    T::Native: Cyclic,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let total = &mut self.total;
        self.values += values.first().map_or(0, |v| for_each::<T>(v, |value| total.add(value)));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let total = &mut self.total;
        let gone = values.first().map_or(0, |v| for_each::<T>(v, |value| total.subtract(value)));
        self.values = self.values.saturating_sub(gone);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)?;
        if let Some(turns) = states.get(1) {
            let sum = turns.as_primitive::<Int16Type>().iter().flatten().map(i64::from);
            self.total.turns += sum.sum::<i64>();
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.values > 0).then_some(self.total.sum);
        let turns = i16::try_from(self.total.turns).map_err(|_| beyond("sum", &self.data_type))?;
        let sum = ScalarValue::new_primitive::<T>(sum, &self.data_type)?;
        Ok(vec![sum, ScalarValue::Int16((turns != 0).then_some(turns))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        evaluated::<T>(&self.total, self.values == 0, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sum of distinct values; also over a sliding frame.
#[derive(Debug)]
struct DistinctSum<T: ArrowPrimitiveType> {
    /// Each value, with the number of its occurrences.
    counts: HashMap<T::Native, u64>,
    total: Total<T::Native>,
    data_type: DataType,
}

impl<T> DistinctSum<T>
where
    T: ArrowPrimitiveType + Send,
    T::Native: Cyclic,
{
    fn enter(&mut self, values: &ArrayRef) {
        let (counts, total) = (&mut self.counts, &mut self.total);
        for_each::<T>(values, |value| {
            let count = counts.entry(value).or_insert(0);
            if *count == 0 {
                total.add(value);
            }
            *count += 1;
        });
    }
}

impl<T> Accumulator for DistinctSum<T>
where
    T: ArrowPrimitiveType + Debug + Send + Sync,
    T::Native: Cyclic,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values.iter().take(1).for_each(|values| self.enter(values));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (counts, total) = (&mut self.counts, &mut self.total);
        if let Some(values) = values.first() {
            for_each::<T>(values, |value| {
                if let Some(count) = counts.get_mut(&value) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&value);
                        total.subtract(value);
                    }
                }
            });
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states.iter().take(1).flat_map(|s| s.as_list::<i32>().iter().flatten()) {
            self.enter(&values);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<T>::from_iter_values(self.counts.keys().copied());
        let values = Arc::new(values.with_data_type(self.data_type.clone()));
        Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        evaluated::<T>(&self.total, self.counts.is_empty(), &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * size_of::<(T::Native, u64)>()
    }
}
