//! Sums of intervals: each part separately, with more bits than in an interval.
//!
//! States: months, days, and the rest as DECIMAL(38, 0); with DISTINCT the values.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, IntervalDayTimeArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Int64Type, IntervalDayTime, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::utils::format_state_name;

use super::total::beyond;

/// The digits of the DECIMAL state.
const DIGITS: u8 = 38;

/// The parts of an interval: months, days, and milliseconds or nanoseconds.
type Parts = (i32, i32, i64);

/// The sum of intervals of days and times, or of months, days and nanoseconds.
#[derive(Debug)]
pub(super) struct IntervalSum {
    months: i64,
    days: i64,
    rest: i128,
    values: u64,
    /// With DISTINCT: each value, with the number of its occurrences.
    counts: Option<HashMap<Parts, u64>>,
    data_type: DataType,
}

/// The states without DISTINCT.
pub(super) fn state_fields(name: &str) -> Vec<FieldRef> {
    let field =
        |part, data_type| Arc::new(Field::new(format_state_name(name, part), data_type, true));
    vec![
        field("months", DataType::Int64),
        field("days", DataType::Int64),
        field("rest", DataType::Decimal128(DIGITS, 0)),
    ]
}

impl IntervalSum {
    pub(super) fn new(data_type: &DataType, is_distinct: bool) -> Self {
        Self {
            months: 0,
            days: 0,
            rest: 0,
            values: 0,
            counts: is_distinct.then(HashMap::new),
            data_type: data_type.clone(),
        }
    }

    fn has_nanos(&self) -> bool {
        matches!(self.data_type, DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn parts(&self, values: &ArrayRef) -> Vec<Parts> {
        if self.has_nanos() {
            let values = values.as_primitive::<IntervalMonthDayNanoType>().iter().flatten();
            values.map(|v| (v.months, v.days, v.nanoseconds)).collect()
        } else {
            let values = values.as_primitive::<IntervalDayTimeType>().iter().flatten();
            values.map(|v| (0, v.days, i64::from(v.milliseconds))).collect()
        }
    }

    /// Adds a value, or removes it.
    fn count(&mut self, value: Parts, comes: bool) {
        if let Some(counts) = &mut self.counts {
            let count = counts.entry(value).or_insert(0);
            let before = *count;
            *count = if comes { before + 1 } else { before.saturating_sub(1) };
            let after = *count;
            if after == 0 {
                counts.remove(&value);
            }
            if (before == 0) == (after == 0) {
                return;
            }
        }
        let (months, days, rest) = value;
        let sign = if comes { 1 } else { -1 };
        self.months += sign * i64::from(months);
        self.days += sign * i64::from(days);
        self.rest += i128::from(sign) * i128::from(rest);
        self.values = if comes { self.values + 1 } else { self.values.saturating_sub(1) };
    }

    fn fitting(&self) -> Option<ScalarValue> {
        let days = i32::try_from(self.days).ok()?;
        Some(if self.has_nanos() {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
                i32::try_from(self.months).ok()?,
                days,
                i64::try_from(self.rest).ok()?,
            )))
        } else {
            let rest = i32::try_from(self.rest).ok()?;
            ScalarValue::IntervalDayTime(Some(IntervalDayTime::new(days, rest)))
        })
    }
}

impl Accumulator for IntervalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for values in values.iter().take(1) {
            self.parts(values).into_iter().for_each(|value| self.count(value, true));
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for values in values.iter().take(1) {
            self.parts(values).into_iter().for_each(|value| self.count(value, false));
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        match states {
            [months, days, rest] => {
                self.months += arrow::compute::sum(months.as_primitive::<Int64Type>()).unwrap_or(0);
                self.days += arrow::compute::sum(days.as_primitive::<Int64Type>()).unwrap_or(0);
                let rest = rest.as_primitive::<Decimal128Type>();
                self.rest += rest.iter().flatten().sum::<i128>();
                self.values += (rest.len() - rest.null_count()) as u64;
            }
            lists => {
                for values in lists.iter().flat_map(|l| l.as_list::<i32>().iter().flatten()) {
                    self.update_batch(&[values])?;
                }
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        if let Some(counts) = &self.counts {
            let values = counts.keys();
            let values: ArrayRef = if self.has_nanos() {
                let values = values.map(|(m, d, n)| Some(IntervalMonthDayNano::new(*m, *d, *n)));
                Arc::new(values.collect::<IntervalMonthDayNanoArray>())
            } else {
                let values = values.map(|(_, d, ms)| {
                    Some(IntervalDayTime::new(*d, i32::try_from(*ms).unwrap_or_default()))
                });
                Arc::new(values.collect::<IntervalDayTimeArray>())
            };
            return Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()]);
        }
        let some = self.values > 0;
        Ok(vec![
            ScalarValue::Int64(some.then_some(self.months)),
            ScalarValue::Int64(some.then_some(self.days)),
            ScalarValue::Decimal128(some.then_some(self.rest), DIGITS, 0),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.values == 0 {
            return ScalarValue::try_from(&self.data_type);
        }
        self.fitting().ok_or_else(|| beyond("sum", &self.data_type))
    }

    fn size(&self) -> usize {
        let counts = self.counts.as_ref().map_or(0, HashMap::capacity);
        size_of_val(self) + counts * size_of::<(Parts, u64)>()
    }
}
