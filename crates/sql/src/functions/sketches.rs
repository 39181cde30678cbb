//! `hll_estimate(sketch)` and `approx_percentile_estimate(sketch, p)`: what the sketches of aggregates say.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use windrow_operators::aggregates::{approx_percentile_estimate, hll_estimate};

/// Both functions.
pub(super) fn estimates() -> [ScalarUDF; 2] {
    let pure = Volatility::Immutable;
    let (binary, double) = (DataType::Binary, DataType::Float64);
    [
        create_udf("hll_estimate", vec![binary.clone()], DataType::Int64, pure, Arc::new(counts)),
        create_udf(
            "approx_percentile_estimate",
            vec![binary, double.clone()],
            double,
            pure,
            Arc::new(percentiles),
        ),
    ]
}

fn counts(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    each(args, |arrays| {
        let [sketches] = arrays else { return internal_err!("hll_estimate takes a sketch") };
        let counts = sketches.as_binary::<i32>().iter();
        let counts = counts.map(|sketch| sketch.map(hll_estimate).transpose());
        Ok(Arc::new(counts.collect::<Result<Int64Array>>()?))
    })
}

fn percentiles(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    each(args, |arrays| {
        let [sketches, ps] = arrays else {
            return internal_err!("approx_percentile_estimate takes a sketch and a number");
        };
        let ps = ps.as_primitive::<Float64Type>().iter();
        let values = sketches.as_binary::<i32>().iter().zip(ps).map(|(sketch, p)| {
            sketch.zip(p).map(|(sketch, p)| approx_percentile_estimate(sketch, p)).transpose()
        });
        Ok(Arc::new(values.collect::<Result<Float64Array>>()?))
    })
}

/// Computes a value per row, or one of single values.
fn each(
    args: &[ColumnarValue],
    compute: impl Fn(&[ArrayRef]) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let values = compute(&ColumnarValue::values_to_arrays(args)?)?;
    Ok(match args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}
