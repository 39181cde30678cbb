//! `interpolated(a, b, part, whole)`: the value `part / whole` of the way from `a` to `b`, for FILL. No text can name it.
//!
//! Invariant: integers and decimals are exact, rounded half away from zero to the scale of their type; NULL gives NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal256Array, Float64Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Float64Type, Int64Type, i256,
};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Interpolated {
    signature: Signature,
}

impl Interpolated {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(4, Volatility::Immutable) }
    }
}

/// Whether values of a type can be interpolated.
pub(super) fn is_number(of: &DataType) -> bool {
    of.is_numeric()
}

/// The type in which values of a number type are computed.
fn computed_in(of: &DataType) -> DataType {
    match of {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale),
        _ => DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0),
    }
}

/// The exact value, rounded half away from zero; `None`: it has too many digits on the way.
fn exact(a: i256, b: i256, part: i64, whole: i64) -> Option<i256> {
    let whole = i256::from(whole);
    let scaled = b.checked_sub(a)?.checked_mul(i256::from(part))?;
    let mut step = scaled.checked_div(whole)?;
    let rest = scaled.checked_rem(whole)?.checked_abs()?;
    if rest.checked_add(rest)? >= whole {
        let one = if scaled.is_negative() { i256::MINUS_ONE } else { i256::ONE };
        step = step.checked_add(one)?;
    }
    a.checked_add(step)
}

fn interpolated(values: [&ArrayRef; 2], parts: [&ArrayRef; 2]) -> Result<ArrayRef> {
    let [a, b] = values;
    let (of, within) = (a.data_type().clone(), computed_in(a.data_type()));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let (a, b) =
        (cast_with_options(a, &within, &options)?, cast_with_options(b, &within, &options)?);
    let [Some(part), Some(whole)] = parts.map(|p| p.as_primitive_opt::<Int64Type>()) else {
        return internal_err!("interpolated takes numbers of windows");
    };
    let steps =
        part.iter().zip(whole.iter()).map(|(part, whole)| Some((part?, whole.filter(|w| *w > 0)?)));
    let result: ArrayRef = if within == DataType::Float64 {
        let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
        let each = a.iter().zip(b).zip(steps).map(|((a, b), steps)| {
            let (a, b, (part, whole)) = (a?, b?, steps?);
            #[expect(clippy::cast_precision_loss, reason = "numbers of windows are small")]
            let (part, whole) = (part as f64, whole as f64);
            Some(a + (b - a) * part / whole)
        });
        Arc::new(each.collect::<Float64Array>())
    } else {
        let (a, b) = (a.as_primitive::<Decimal256Type>(), b.as_primitive::<Decimal256Type>());
        let mut out = Vec::with_capacity(a.len());
        for ((a, b), steps) in a.iter().zip(b).zip(steps) {
            out.push(match (a, b, steps) {
                (Some(a), Some(b), Some((part, whole))) => match exact(a, b, part, whole) {
                    Some(value) => Some(value),
                    None => return exec_err!("a value between two rows has too many digits"),
                },
                _ => None,
            });
        }
        Arc::new(Decimal256Array::from(out).with_data_type(within))
    };
    Ok(cast_with_options(&result, &of, &options)?)
}

impl ScalarUDFImpl for Interpolated {
    fn name(&self) -> &'static str {
        "interpolated"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [of, other, _, _] if of == other && is_number(of) => Ok(of.clone()),
            _ => internal_err!("interpolated takes two numbers of one type"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [a, b, part, whole] = columns.as_slice() else {
            return internal_err!("interpolated takes four arguments");
        };
        Ok(ColumnarValue::Array(interpolated([a, b], [part, whole])?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int64Array};

    use super::*;

    fn of([a, b]: [ArrayRef; 2], part: i64, whole: i64) -> ArrayRef {
        let steps = |n: i64| Arc::new(Int64Array::from(vec![n; a.len()])) as ArrayRef;
        interpolated([&a, &b], [&steps(part), &steps(whole)]).unwrap()
    }

    #[test]
    fn integers_and_decimals_are_exact() {
        let a = Arc::new(Int64Array::from(vec![Some(0), Some(10), Some(i64::MIN), None]));
        let b = Arc::new(Int64Array::from(vec![Some(5), Some(3), Some(i64::MAX), Some(1)]));
        let half = of([a, b], 1, 2);
        let half: Vec<_> = half.as_primitive::<Int64Type>().iter().collect();
        // 2.5, 6.5 and -0.5; the step from `a` is rounded.
        assert_eq!(half, [Some(3), Some(6), Some(0), None]);
        let cents = |v: i128| -> ArrayRef {
            let values = Decimal128Array::from(vec![v]);
            Arc::new(values.with_precision_and_scale(38, 2).unwrap())
        };
        let third = of([cents(100), cents(200)], 1, 3);
        assert_eq!(third.as_ref(), cents(133).as_ref());
    }

    #[test]
    fn floats_are_on_the_line() {
        let a = Arc::new(Float64Array::from(vec![1.0]));
        let b = Arc::new(Float64Array::from(vec![4.0]));
        assert_eq!(of([a, b], 1, 3).as_primitive::<Float64Type>().value(0), 2.0);
    }
}
