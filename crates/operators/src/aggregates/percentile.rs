//! `percentile_cont`, alias `quantile_cont`: values are stored as in DataFusion, but interpolated in full precision
//! (DataFusion rounds the fraction of the gap to a millionth).

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::functions_aggregate::percentile_cont::PercentileCont;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, Signature,
};

/// The aggregate function.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Percentile {
    plain: PercentileCont,
}

/// The requested percentile.
#[derive(Debug, Clone)]
struct Wanted {
    fraction: f64,
    descending: bool,
    /// FLOAT or DOUBLE.
    data_type: DataType,
}

impl Wanted {
    fn new(args: &AccumulatorArgs<'_>) -> Result<Self> {
        let Some(fraction) = args.exprs.get(1) else {
            return plan_err!("percentile_cont needs a fraction between 0 and 1");
        };
        let nothing = RecordBatch::new_empty(Arc::new(args.schema.clone()));
        let fraction = fraction.evaluate(&nothing)?.into_array(1)?;
        let fraction = ScalarValue::try_from_array(&fraction, 0)?.cast_to(&DataType::Float64)?;
        let ScalarValue::Float64(Some(fraction)) = fraction else {
            return plan_err!("the fraction of percentile_cont is NULL");
        };
        let descending = args.order_bys.first().is_some_and(|sort| sort.options.descending);
        let data_type = args.return_field.data_type().clone();
        Ok(Self { fraction, descending, data_type })
    }

    /// Computes the percentile of values that are not NULL, in any order.
    fn of(&self, values: &ArrayRef) -> Result<Option<f64>> {
        let values = cast(values, &DataType::Float64)?;
        let mut values: Vec<f64> = values.as_primitive::<Float64Type>().iter().flatten().collect();
        let Some(last) = values.len().checked_sub(1) else { return Ok(None) };
        let order = |a: &f64, b: &f64| -> Ordering {
            if self.descending { b.total_cmp(a) } else { a.total_cmp(b) }
        };
        let place = self.fraction * last as f64;
        let below = (place.floor() as usize).min(last);
        let weight = place - below as f64;
        let (_, low, above) = values.select_nth_unstable_by(below, order);
        let low = *low;
        let high = above.iter().copied().min_by(order);
        Ok(Some(match high {
            Some(high) if weight > 0.0 => between(low, high, weight),
            _ => low,
        }))
    }
}

/// Returns the value at `weight` of the way from `low` to `high`.
fn between(low: f64, high: f64, weight: f64) -> f64 {
    let gap = high - low;
    if low == high {
        low
    } else if gap.is_finite() {
        low + gap * weight
    } else {
        low * (1.0 - weight) + high * weight
    }
}

impl AggregateUDFImpl for Percentile {
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

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.plain.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.expr_fields.first().is_none_or(|field| field.data_type().is_null()) {
            return self.plain.accumulator(args);
        }
        let wanted = Wanted::new(&args)?;
        let keeps_state = args.is_distinct;
        Ok(Box::new(SinglePercentile {
            values: self.plain.accumulator(args)?,
            wanted,
            keeps_state,
        }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.plain.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let wanted = Wanted::new(&args)?;
        Ok(Box::new(GroupPercentiles {
            values: self.plain.create_groups_accumulator(args)?,
            wanted,
        }))
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.plain.simplify()
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.documentation()
    }
}

/// The percentiles of groups.
struct GroupPercentiles {
    values: Box<dyn GroupsAccumulator>,
    wanted: Wanted,
}

impl GroupsAccumulator for GroupPercentiles {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.values.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.values.merge_batch(values, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let state = self.values.state(emit_to)?;
        let [lists] = state.as_slice() else {
            return internal_err!("the state of percentile_cont has other columns");
        };
        let lists = lists.as_list::<i32>().iter();
        let found = lists.map(|values| values.map_or(Ok(None), |v| self.wanted.of(&v)));
        let found: Float64Array = found.collect::<Result<_>>()?;
        Ok(cast(&found, &self.wanted.data_type)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.values.state(emit_to)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.values.convert_to_state(values.get(..1).unwrap_or_default(), opt_filter)
    }

    fn size(&self) -> usize {
        self.values.size()
    }
}

/// One percentile; also over a sliding frame.
#[derive(Debug)]
struct SinglePercentile {
    values: Box<dyn Accumulator>,
    wanted: Wanted,
    /// Whether the values are retained when their state is taken, as those of DISTINCT are.
    keeps_state: bool,
}

impl Accumulator for SinglePercentile {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.values.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.values.state()?;
        let [ScalarValue::List(list)] = state.as_slice() else {
            return internal_err!("the state of percentile_cont is no list");
        };
        if !self.keeps_state {
            let list: ArrayRef = Arc::clone(list) as ArrayRef;
            self.values.merge_batch(&[list])?;
        }
        let found = if list.is_empty() { None } else { self.wanted.of(&list.value(0))? };
        ScalarValue::Float64(found).cast_to(&self.wanted.data_type)
    }

    fn size(&self) -> usize {
        self.values.size()
    }
}
