//! Numbers times intervals: `n * INTERVAL '1 second'`, `INTERVAL '1 hour' / 4`.
//!
//! Whole numbers are exact; with fractions, parts of a month become days, of which it has 30, and parts of a day become
//! nanoseconds, as in PostgreSQL. A result that does not fit is an error.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::planner::{PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast as cast_expr,
};
use sqlparser::ast::BinaryOperator;
use windrow_core::{Error, ErrorKind};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Plans `number * interval`, `interval * number` and `interval / number`.
pub(super) fn plan(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let divides = match expr.op {
        BinaryOperator::Multiply => false,
        BinaryOperator::Divide => true,
        _ => return Ok(PlannerResult::Original(expr)),
    };
    let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
        return Ok(PlannerResult::Original(expr));
    };
    let span = |t: &DataType| matches!(t, DataType::Interval(_) | DataType::Duration(_));
    let (span, number, number_type) = match (span(&left), span(&right)) {
        (true, false) if right.is_numeric() => (expr.left, expr.right, right),
        (false, true) if left.is_numeric() && !divides => (expr.right, expr.left, left),
        _ => return Ok(PlannerResult::Original(expr)),
    };
    let number = match number_type.is_integer() {
        true => cast_expr(number, DataType::Int64),
        false => cast_expr(number, DataType::Float64),
    };
    let function = ScalarUDF::from(Times::new(divides));
    Ok(PlannerResult::Planned(function.call(vec![cast_expr(span, INTERVAL), number])))
}

/// `interval_times(interval, number)` and `interval_by(interval, number)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Times {
    divides: bool,
    signature: Signature,
}

impl Times {
    fn new(divides: bool) -> Self {
        Self { divides, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn computed(&self, spans: &ArrayRef, numbers: &ArrayRef) -> Result<ArrayRef> {
        let spans = cast(spans, &INTERVAL)?;
        let spans = spans.as_primitive::<IntervalMonthDayNanoType>().iter();
        let whole = numbers.data_type() == &DataType::Int64 && !self.divides;
        let computed: IntervalMonthDayNanoArray = if whole {
            let numbers = numbers.as_primitive::<Int64Type>().iter();
            spans
                .zip(numbers)
                .map(|(span, n)| span.zip(n).map(|(span, n)| exact(span, n)).transpose())
                .collect::<Result<_>>()?
        } else {
            let numbers = cast(numbers, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>().iter();
            spans
                .zip(numbers)
                .map(|(span, n)| span.zip(n).map(|(span, n)| self.scaled(span, n)).transpose())
                .collect::<Result<_>>()?
        };
        Ok(Arc::new(computed))
    }

    fn scaled(&self, span: IntervalMonthDayNano, number: f64) -> Result<IntervalMonthDayNano> {
        if self.divides && number == 0.0 {
            return Err(outside("an interval is divided by zero"));
        }
        let scale = |value: f64| if self.divides { value / number } else { value * number };
        let months = scale(f64::from(span.months));
        let days = scale(f64::from(span.days)) + months.fract() * 30.0;
        let nanos = scale(span.nanoseconds as f64) + days.fract() * 86_400e9;
        let (months, days, nanos) = (months.trunc(), days.trunc(), nanos.round());
        let fits = |value: f64, max: f64| value.abs() <= max;
        let all = fits(months, f64::from(i32::MAX))
            && fits(days, f64::from(i32::MAX))
            && fits(nanos, 9.2e18);
        if !all {
            return Err(outside("an interval is out of range"));
        }
        // They have been checked to fit.
        Ok(IntervalMonthDayNano::new(months as i32, days as i32, nanos as i64))
    }
}

fn exact(span: IntervalMonthDayNano, number: i64) -> Result<IntervalMonthDayNano> {
    let small = |value: i32| {
        i64::from(value).checked_mul(number).and_then(|product| i32::try_from(product).ok())
    };
    let parts = small(span.months).zip(small(span.days)).zip(span.nanoseconds.checked_mul(number));
    match parts {
        Some(((months, days), nanos)) => Ok(IntervalMonthDayNano::new(months, days, nanos)),
        None => Err(outside("an interval is out of range")),
    }
}

fn outside(message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::new(ErrorKind::Data, message)))
}

impl ScalarUDFImpl for Times {
    fn name(&self) -> &str {
        if self.divides { "interval_by" } else { "interval_times" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(INTERVAL)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [span, number] = args.args.as_slice() else {
            return internal_err!("{} takes an interval and a number", self.name());
        };
        if let (ColumnarValue::Scalar(span), ColumnarValue::Scalar(number)) = (span, number) {
            let one = self.computed(&span.to_array()?, &number.to_array()?)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?));
        }
        let (span, number) = (span.to_array(args.number_rows)?, number.to_array(args.number_rows)?);
        Ok(ColumnarValue::Array(self.computed(&span, &number)?))
    }
}
