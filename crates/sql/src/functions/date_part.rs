//! `date_part` and EXTRACT of intervals and durations, with their fractions.
//!
//! For a duration, which is a number of nanoseconds, `epoch`, `millisecond`, `microsecond` and `nanosecond` return all
//! of it. An interval also has months and days: as in PostgreSQL, its seconds are those beyond the minute.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationNanosecondType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// DataFusion's `date_part`, except for parts of spans below a second.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DatePart {
    inner: Arc<ScalarUDF>,
}

impl DatePart {
    pub(super) fn new(inner: Arc<ScalarUDF>) -> Self {
        Self { inner }
    }
}

/// The parts that have fractions, or would not fit into 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Epoch,
    Milli,
    Micro,
    Nano,
}

/// The part of a span, if it is one of those.
fn part(name: Option<&str>, of: &DataType) -> Option<Part> {
    if !matches!(of, DataType::Interval(_) | DataType::Duration(_)) {
        return None;
    }
    let name = name?.trim_matches(['\'', '"']).to_lowercase();
    Some(match name.as_str() {
        "epoch" => Part::Epoch,
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" => {
            Part::Milli
        }
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" => {
            Part::Micro
        }
        "nanosecond" | "nanoseconds" | "ns" | "nsec" | "nsecs" | "nsecond" | "nseconds" => {
            Part::Nano
        }
        _ => return None,
    })
}

fn literal(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

const MINUTE: i64 = 60_000_000_000;

fn computed(part: Part, spans: &ArrayRef) -> Result<ArrayRef> {
    // Divided by powers of ten, not multiplied by their inverses, which a double cannot represent.
    if let DataType::Duration(_) = spans.data_type() {
        let nanos = cast(spans, &DataType::Duration(TimeUnit::Nanosecond))?;
        let nanos = nanos.as_primitive::<DurationNanosecondType>();
        return Ok(match part {
            Part::Epoch => {
                Arc::new(nanos.unary::<_, arrow::datatypes::Float64Type>(|n| n as f64 / 1e9))
            }
            Part::Milli => {
                Arc::new(nanos.unary::<_, arrow::datatypes::Float64Type>(|n| n as f64 / 1e6))
            }
            Part::Micro => {
                Arc::new(nanos.unary::<_, arrow::datatypes::Float64Type>(|n| n as f64 / 1e3))
            }
            Part::Nano => Arc::new(nanos.unary::<_, arrow::datatypes::Int64Type>(|n| n)),
        });
    }
    let spans = cast(spans, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let spans = spans.as_primitive::<IntervalMonthDayNanoType>();
    let seconds =
        |of: f64| -> Float64Array { spans.unary(|span| (span.nanoseconds % MINUTE) as f64 / of) };
    Ok(match part {
        Part::Epoch => {
            // A month has 30 days, as in PostgreSQL.
            let epoch: Float64Array = spans.unary(|span| {
                let days = f64::from(span.months) * 30.0 + f64::from(span.days);
                days * 86_400.0 + span.nanoseconds as f64 / 1e9
            });
            Arc::new(epoch)
        }
        Part::Milli => Arc::new(seconds(1e6)),
        Part::Micro => Arc::new(seconds(1e3)),
        Part::Nano => {
            let nanos: Int64Array = spans.unary(|span| span.nanoseconds % MINUTE);
            Arc::new(nanos)
        }
    })
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let name = args.scalar_arguments.first().copied().flatten().and_then(literal);
        if let [_, of] = args.arg_fields
            && let Some(part) = part(name, of.data_type())
        {
            let data_type = match part {
                Part::Nano => DataType::Int64,
                Part::Epoch | Part::Milli | Part::Micro => DataType::Float64,
            };
            return Ok(Field::new(self.name(), data_type, of.is_nullable()).into());
        }
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [ColumnarValue::Scalar(name), of] = args.args.as_slice()
            && let Some(part) = part(literal(name), &of.data_type())
        {
            return Ok(match of {
                ColumnarValue::Array(spans) => ColumnarValue::Array(computed(part, spans)?),
                ColumnarValue::Scalar(span) => {
                    let one = computed(part, &span.to_array()?)?;
                    ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?)
                }
            });
        }
        self.inner.invoke_with_args(args)
    }

    fn preimage(
        &self,
        args: &[Expr],
        literal: &Expr,
        info: &SimplifyContext,
    ) -> Result<PreimageResult> {
        self.inner.preimage(args, literal, info)
    }
}
