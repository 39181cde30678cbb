//! The bounds of windows as scalar functions, for plans in which windows are plain expressions.
//!
//! This is written independently of the window operator, which is tested against it. Arithmetic wraps instead of
//! panicking; the plan filters out the rows for which it would wrap (see [`super::bounded()`]).

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, PrimitiveArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr::ScalarFunctionExpr;
use windrow_core::{CalendarUnit, StepUnit, WindowKind, WindowSpec};

use super::calendar_bounds::Grid;

/// What a [`BoundFunction`] computes of its timestamp argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bound {
    /// Start of the tumbling window of an event time.
    TumbleStart,
    /// End of the tumbling window of an event time.
    TumbleEnd,
    /// `window_time` of the tumbling window of an event time.
    TumbleTime,
    /// The ends of all windows of an event time, ascending, as a list.
    Ends,
    /// Start of the window with this end.
    StartOfEnd,
    /// `window_time` of the window with this end.
    TimeOfEnd,
    /// The first instant of the slice of an event time: no window begins or ends within a slice.
    Slice,
    /// The ends of all windows of the slice that begins at this time, ascending, as a list.
    SliceEnds,
}

/// A function of one timestamp that returns bounds of windows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundFunction {
    spec: WindowSpec,
    bound: Bound,
    signature: Signature,
}

/// `bound(argument)` for the windows `spec`.
pub(crate) fn bound(spec: WindowSpec, bound: Bound, argument: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::new_from_impl(BoundFunction { spec, bound, signature }).call(vec![argument])
}

/// Another bound of the windows of `call`; `None` if that is not a bound.
pub(crate) fn of_same_windows(call: &ScalarFunctionExpr, bound: Bound) -> Option<Arc<ScalarUDF>> {
    let known = call.fun().inner().downcast_ref::<BoundFunction>()?;
    let signature = known.signature.clone();
    let function = BoundFunction { spec: known.spec, bound, signature };
    Some(Arc::new(ScalarUDF::new_from_impl(function)))
}

/// The most windows that a row is in.
pub(crate) fn windows_per_row(spec: WindowSpec) -> i64 {
    if let (WindowKind::Cumulate { step, .. }, Some(calendar)) = (spec.kind(), spec.calendar()) {
        let step_unit = match calendar.step_unit {
            StepUnit::Tick => 1,
            StepUnit::Day => calendar.seconds(CalendarUnit::Day.seconds_max() / 2),
            StepUnit::Month => calendar.seconds(CalendarUnit::Month.seconds_max()),
        };
        return spec.size().div_euclid(step.saturating_mul(step_unit)).saturating_add(1);
    }
    match spec.kind() {
        WindowKind::Tumble { .. } => 1,
        WindowKind::Hop { slide, size } => {
            size.div_euclid(slide) + i64::from(size.rem_euclid(slide) > 0)
        }
        WindowKind::Cumulate { step, size } => size.div_euclid(step),
    }
}

impl ScalarUDFImpl for BoundFunction {
    fn name(&self) -> &'static str {
        match self.bound {
            Bound::TumbleStart | Bound::StartOfEnd => "window_start",
            Bound::TumbleEnd => "window_end",
            Bound::TumbleTime | Bound::TimeOfEnd => "window_time",
            Bound::Ends => "window_ends",
            Bound::Slice => "window_slice",
            Bound::SliceEnds => "window_slice_ends",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [time] = types else { return internal_err!("a bound is a function of one time") };
        Ok(match self.bound {
            Bound::Ends | Bound::SliceEnds => {
                DataType::List(Arc::new(Field::new_list_field(time.clone(), false)))
            }
            _ => time.clone(),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        // Rows without a time are filtered out below, so a bound is never computed for NULL.
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(times)] => Ok(ColumnarValue::Array(self.evaluate(times)?)),
            [ColumnarValue::Scalar(time)] => {
                let bounds = self.evaluate(&time.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&bounds, 0)?))
            }
            _ => internal_err!("a bound is a function of one time"),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // All bounds but the list are monotonic in the time.
        Ok(match inputs {
            [time] if !matches!(self.bound, Bound::Ends | Bound::SliceEnds) => time.sort_properties,
            _ => SortProperties::Unordered,
        })
    }
}

impl BoundFunction {
    fn evaluate(&self, times: &ArrayRef) -> Result<ArrayRef> {
        let DataType::Timestamp(unit, zone) = times.data_type() else {
            return exec_err!("windows go over timestamps, not {}", times.data_type());
        };
        match self.bound {
            Bound::Ends => return ends(self.spec, times, *unit, &self.spec.valid_times()),
            // The first instant of a slice may not be a valid event time, though another one of it is.
            Bound::SliceEnds => return ends(self.spec, times, *unit, &(i64::MIN..=i64::MAX)),
            _ => {}
        }
        let zone = zone.clone();
        Ok(match unit {
            TimeUnit::Second => {
                Arc::new(self.map::<TimestampSecondType>(times).with_timezone_opt(zone))
            }
            TimeUnit::Millisecond => {
                Arc::new(self.map::<TimestampMillisecondType>(times).with_timezone_opt(zone))
            }
            TimeUnit::Microsecond => {
                Arc::new(self.map::<TimestampMicrosecondType>(times).with_timezone_opt(zone))
            }
            TimeUnit::Nanosecond => {
                Arc::new(self.map::<TimestampNanosecondType>(times).with_timezone_opt(zone))
            }
        })
    }

    fn map<T: ArrowPrimitiveType<Native = i64>>(&self, times: &ArrayRef) -> PrimitiveArray<T> {
        let times = times.as_primitive::<T>();
        let spec = self.spec;
        if let Some(grid) = Grid::of(spec) {
            return PrimitiveArray::new(
                self.by_calendar(grid, times.values()),
                times.nulls().cloned(),
            );
        }
        let size = spec.size();
        let values: ScalarBuffer<i64> = match self.bound {
            Bound::TumbleStart => starts(spec, times.values(), 0),
            Bound::TumbleEnd => starts(spec, times.values(), size),
            Bound::TumbleTime => starts(spec, times.values(), size.wrapping_sub(1)),
            Bound::TimeOfEnd => times.values().iter().map(|end| end.wrapping_sub(1)).collect(),
            Bound::Slice => {
                let width = slice_width(spec);
                let slice = |time: &i64| floor(*time, width, spec.offset());
                times.values().iter().map(slice).collect()
            }
            Bound::StartOfEnd | Bound::Ends | Bound::SliceEnds => match spec.kind() {
                WindowKind::Cumulate { size, .. } => times
                    .values()
                    .iter()
                    .map(|end| floor(end.wrapping_sub(1), size, spec.offset()))
                    .collect(),
                _ => times.values().iter().map(|end| end.wrapping_sub(size)).collect(),
            },
        };
        PrimitiveArray::new(values, times.nulls().cloned())
    }
}

impl BoundFunction {
    /// A bound of calendar windows for each time.
    fn by_calendar(&self, mut grid: Grid, times: &[i64]) -> ScalarBuffer<i64> {
        let bound = |time: i64| match self.bound {
            Bound::TumbleStart => grid.last_window(time).0,
            Bound::TumbleEnd => grid.last_window(time).1,
            Bound::TumbleTime => grid.last_window(time).1.wrapping_sub(1),
            Bound::TimeOfEnd => time.wrapping_sub(1),
            Bound::Slice => grid.slice(time),
            Bound::StartOfEnd | Bound::Ends | Bound::SliceEnds => grid.start_of_end(time),
        };
        times.iter().copied().map(bound).collect()
    }
}

/// The greatest width of which all bounds of the windows are multiples, counted from the offset.
fn slice_width(spec: WindowSpec) -> i64 {
    match spec.kind() {
        WindowKind::Tumble { size } => size,
        WindowKind::Cumulate { step, .. } => step,
        WindowKind::Hop { slide, size } => {
            let (mut a, mut b) = (size, slide);
            while b != 0 {
                (a, b) = (b, a.rem_euclid(b));
            }
            a
        }
    }
}

/// The largest `k·period + offset` that is not above `time`.
fn floor(time: i64, period: i64, offset: i64) -> i64 {
    time.wrapping_sub(time.wrapping_sub(offset).rem_euclid(period))
}

/// The start of each time's tumbling window, plus `shift`. Neighbouring times are mostly in the same window, which
/// saves the division.
fn starts(spec: WindowSpec, times: &[i64], shift: i64) -> ScalarBuffer<i64> {
    let (size, offset) = (spec.size(), spec.offset());
    let mut start = times.first().map_or(0, |first| floor(*first, size, offset));
    let mut end = start.wrapping_add(size);
    times
        .iter()
        .map(|time| {
            if *time < start || *time >= end {
                start = floor(*time, size, offset);
                end = start.wrapping_add(size);
            }
            start.wrapping_add(shift)
        })
        .collect()
}

/// The ends of all windows of each time; none for a time that is NULL or not `valid`
/// ([`WindowSpec::valid_times`]).
fn ends(
    spec: WindowSpec,
    times: &ArrayRef,
    unit: TimeUnit,
    valid: &RangeInclusive<i64>,
) -> Result<ArrayRef> {
    let zone = match times.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        other => return exec_err!("windows go over timestamps, not {other}"),
    };
    let (values, nulls) = ticks(times, unit);
    let mut flat: Vec<i64> = Vec::with_capacity(values.len().saturating_mul(2));
    let mut offsets: Vec<i32> = Vec::with_capacity(values.len() + 1);
    offsets.push(0);
    let mut grid = Grid::of(spec);
    for (row, time) in values.iter().enumerate() {
        if valid.contains(time) && nulls.is_none_or(|n| n.is_valid(row)) {
            match &mut grid {
                Some(grid) => grid.push_ends(*time, &mut flat),
                None => push_ends(spec, *time, &mut flat),
            }
        }
        let Ok(end) = i32::try_from(flat.len()) else {
            return exec_err!("a batch has more than {} rows after windowing", i32::MAX);
        };
        offsets.push(end);
    }
    let flat: ArrayRef = match unit {
        TimeUnit::Second => Arc::new(TimestampSecondArray::from(flat).with_timezone_opt(zone)),
        TimeUnit::Millisecond => {
            Arc::new(TimestampMillisecondArray::from(flat).with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            Arc::new(TimestampMicrosecondArray::from(flat).with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            Arc::new(TimestampNanosecondArray::from(flat).with_timezone_opt(zone))
        }
    };
    let item = Arc::new(Field::new_list_field(flat.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets.into()), flat, None)?))
}

fn push_ends(spec: WindowSpec, time: i64, ends: &mut Vec<i64>) {
    match spec.kind() {
        WindowKind::Tumble { size } => ends.push(floor(time, size, spec.offset()) + size),
        WindowKind::Hop { slide, size } => {
            let last = floor(time, slide, spec.offset());
            // The first start above `time - size`, on the same grid as `last`.
            let back = (last - (time - size) - 1).div_euclid(slide);
            let mut end = last - back * slide + size;
            while end <= last + size {
                ends.push(end);
                end += slide;
            }
        }
        WindowKind::Cumulate { step, size } => {
            let start = floor(time, size, spec.offset());
            let mut end = start + ((time - start).div_euclid(step) + 1) * step;
            while end <= start + size {
                ends.push(end);
                end += step;
            }
        }
    }
}

/// The ticks of a timestamp column, and its NULLs.
pub(crate) fn ticks(times: &ArrayRef, unit: TimeUnit) -> (&[i64], Option<&NullBuffer>) {
    let values: &[i64] = match unit {
        TimeUnit::Second => times.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => times.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => times.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => times.as_primitive::<TimestampNanosecondType>().values(),
    };
    (values, times.nulls())
}
