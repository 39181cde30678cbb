//! `skewness(x)` and `kurtosis(x)`: the shape of a distribution, corrected for samples, as DuckDB computes them.
//!
//! The state of a group is its number of values, their mean, and their second to fourth central moments, which are updated
//! and merged without losing digits to large means (Pébay, 2008).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

/// What is computed of the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Skewness,
    Kurtosis,
}

/// The aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ShapeOf {
    shape: Shape,
    signature: Signature,
}

impl ShapeOf {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ShapeOf {
    fn name(&self) -> &str {
        match self.shape {
            Shape::Skewness => "skewness",
            Shape::Kurtosis => "kurtosis",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [of] if of.is_numeric() || of.is_null() => Ok(vec![DataType::Float64]),
            _ => plan_err!("{} takes numbers", self.name()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let state = |name: &str| {
            Arc::new(Field::new(format!("{}[{name}]", args.name), DataType::Float64, false))
        };
        Ok(["count", "mean", "m2", "m3", "m4"].map(state).to_vec())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Moments { shape: self.shape, sum: Sum::default() }))
    }
}

/// The number of values, their mean, and sums of powers of their distances from it.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: f64,
    mean: f64,
    m2: f64,
    m3: f64,
    m4: f64,
}

impl Sum {
    fn of(x: f64) -> Self {
        Self { count: 1.0, mean: x, ..Self::default() }
    }

    fn plus(self, other: Self) -> Self {
        if self.count == 0.0 {
            return other;
        }
        if other.count == 0.0 {
            return self;
        }
        let (a, b) = (self.count, other.count);
        let n = a + b;
        let d = other.mean - self.mean;
        let d2 = d * d;
        Self {
            count: n,
            mean: self.mean + d * b / n,
            m2: self.m2 + other.m2 + d2 * a * b / n,
            m3: self.m3
                + other.m3
                + d2 * d * a * b * (a - b) / (n * n)
                + 3.0 * d * (a * other.m2 - b * self.m2) / n,
            m4: self.m4
                + other.m4
                + d2 * d2 * a * b * (a * a - a * b + b * b) / (n * n * n)
                + 6.0 * d2 * (a * a * other.m2 + b * b * self.m2) / (n * n)
                + 4.0 * d * (a * other.m3 - b * self.m3) / n,
        }
    }

    /// NULL for too few values, NaN where all are equal.
    fn shape(self, shape: Shape) -> Option<f64> {
        let n = self.count;
        match shape {
            Shape::Skewness if n > 2.0 => {
                let biased = n.sqrt() * self.m3 / self.m2.powf(1.5);
                Some(biased * (n * (n - 1.0)).sqrt() / (n - 2.0))
            }
            Shape::Kurtosis if n > 3.0 => {
                let biased = n * self.m4 / (self.m2 * self.m2) - 3.0;
                Some((n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * biased + 6.0))
            }
            Shape::Skewness | Shape::Kurtosis => None,
        }
    }
}

#[derive(Debug)]
struct Moments {
    shape: Shape,
    sum: Sum,
}

impl Accumulator for Moments {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return internal_err!("other than one value") };
        for x in values.as_primitive::<Float64Type>().iter().flatten() {
            self.sum = self.sum.plus(Sum::of(x));
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [count, mean, m2, m3, m4] = states else {
            return internal_err!("other than five states");
        };
        let [count, mean, m2, m3, m4] =
            [count, mean, m2, m3, m4].map(|state| state.as_primitive::<Float64Type>().values());
        for ((((count, mean), m2), m3), m4) in count.iter().zip(mean).zip(m2).zip(m3).zip(m4) {
            let other = Sum { count: *count, mean: *mean, m2: *m2, m3: *m3, m4: *m4 };
            self.sum = self.sum.plus(other);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.sum.shape(self.shape)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let Sum { count, mean, m2, m3, m4 } = self.sum;
        Ok([count, mean, m2, m3, m4].map(|state| ScalarValue::Float64(Some(state))).to_vec())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
