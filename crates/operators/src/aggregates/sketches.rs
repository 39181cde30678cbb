//! Sketches: states of approximate aggregates as values, which can be stored and merged, and estimated at last.
//!
//! `hll_accumulate(x)` is a HyperLogLog of different values, `approx_percentile_accumulate(x)` a t-digest of numbers, both
//! BINARY; `hll_combine` and `approx_percentile_combine` merge them. The names are Snowflake's. Each hour's sketch gives the
//! day's: no rows are read again.
//!
//! A HyperLogLog has 16,384 bytes, one for each register (Flajolet et al., 2007), and depends on the values alone. A t-digest
//! (Dunning, 2019) has a few hundred numbers, and may differ a little with the order of the rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::compute::{cast, filter, is_not_null};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion_functions_aggregate_common::tdigest::{Centroid, TDigest};
use windrow_core::{Error, ErrorKind};

/// The bytes of a HyperLogLog.
const REGISTERS: usize = 1 << 14;
/// The greatest value of a register.
const REGISTER_MAX: u8 = 51;
/// The centroids that a t-digest has at most.
const CENTROIDS: usize = 100;

/// What a function returns a sketch of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sketch {
    /// The number of different values.
    Distinct,
    /// Percentiles.
    Percentiles,
}

/// A function that returns a sketch.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Sketching {
    sketch: Sketch,
    /// Whether its values are sketches.
    combines: bool,
    signature: Signature,
}

impl Sketching {
    pub(super) fn all() -> [Self; 4] {
        let of = |sketch, combines| Self {
            sketch,
            combines,
            signature: Signature::user_defined(Volatility::Immutable),
        };
        [
            of(Sketch::Distinct, false),
            of(Sketch::Distinct, true),
            of(Sketch::Percentiles, false),
            of(Sketch::Percentiles, true),
        ]
    }
}

impl AggregateUDFImpl for Sketching {
    fn name(&self) -> &str {
        match (self.sketch, self.combines) {
            (Sketch::Distinct, false) => "hll_accumulate",
            (Sketch::Distinct, true) => "hll_combine",
            (Sketch::Percentiles, false) => "approx_percentile_accumulate",
            (Sketch::Percentiles, true) => "approx_percentile_combine",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let [of] = arg_types else { return plan_err!("{} takes one value", self.name()) };
        match (self.sketch, self.combines) {
            (_, true)
                if !matches!(
                    of,
                    DataType::Binary
                        | DataType::LargeBinary
                        | DataType::BinaryView
                        | DataType::Null
                ) =>
            {
                plan_err!("{} takes sketches, which are BINARY", self.name())
            }
            (_, true) => Ok(vec![DataType::Binary]),
            // Equal values have equal texts, so that sketches of an INT and of a BIGINT can be combined.
            (Sketch::Distinct, false) => Ok(vec![DataType::Utf8]),
            (Sketch::Percentiles, false) if of.is_numeric() || of.is_null() => {
                Ok(vec![DataType::Float64])
            }
            (Sketch::Percentiles, false) => plan_err!("{} takes numbers", self.name()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let combines = self.combines;
        Ok(match self.sketch {
            Sketch::Distinct => {
                let of = if combines { DataType::Binary } else { DataType::Utf8 };
                Box::new(Distinct { inner: hyperloglog(&of)?, combines, any: false })
            }
            Sketch::Percentiles => {
                Box::new(Percentiles { digest: TDigest::new(CENTROIDS), combines })
            }
        })
    }
}

/// An accumulator of DataFusion's `approx_distinct`: its state is a HyperLogLog.
fn hyperloglog(of: &DataType) -> Result<Box<dyn Accumulator>> {
    let field = Arc::new(Field::new("x", of.clone(), true));
    let schema = Schema::new(vec![Arc::clone(&field)]);
    let exprs: [Arc<dyn PhysicalExpr>; 1] = [Arc::new(Column::new("x", 0))];
    approx_distinct_udaf().accumulator(AccumulatorArgs {
        return_field: Arc::new(Field::new("n", DataType::UInt64, true)),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: "hll",
        is_distinct: false,
        exprs: &exprs,
        expr_fields: &[field],
    })
}

/// Sketches without NULL, and all of them valid.
fn sketches(states: &[ArrayRef], check: impl Fn(&[u8]) -> Result<()>) -> Result<BinaryArray> {
    let [states] = states else { return internal_err!("other than one state") };
    let states = cast(&filter(states, &is_not_null(states)?)?, &DataType::Binary)?;
    let states = states.as_binary::<i32>().clone();
    states.iter().flatten().try_for_each(check)?;
    Ok(states)
}

fn is_hyperloglog(bytes: &[u8]) -> Result<()> {
    match bytes.len() == REGISTERS && bytes.iter().all(|register| *register <= REGISTER_MAX) {
        true => Ok(()),
        false => Err(no_sketch("hll_accumulate")),
    }
}

fn no_sketch(of: &str) -> DataFusionError {
    let error = Error::new(ErrorKind::Data, format!("a value is no sketch of {of}"));
    DataFusionError::External(Box::new(
        error.with_hint(format!("Sketches are what {of}(x) returns.")),
    ))
}

/// A HyperLogLog of one group; NULL without values.
#[derive(Debug)]
struct Distinct {
    inner: Box<dyn Accumulator>,
    combines: bool,
    any: bool,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.combines {
            return self.merge_batch(values);
        }
        self.any |= values.iter().any(|values| values.null_count() < values.len());
        self.inner.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = sketches(states, is_hyperloglog)?;
        self.any |= !states.is_empty();
        self.inner.merge_batch(&[Arc::new(states)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.any {
            false => Ok(ScalarValue::Binary(None)),
            true => match self.inner.state()?.pop() {
                Some(state) => state.cast_to(&DataType::Binary),
                None => internal_err!("approx_distinct without a state"),
            },
        }
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// A t-digest of one group; NULL without values.
#[derive(Debug)]
struct Percentiles {
    digest: TDigest,
    combines: bool,
}

impl Accumulator for Percentiles {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.combines {
            return self.merge_batch(values);
        }
        let [values] = values else { return internal_err!("other than one value") };
        // NaN has no place in the order.
        let values = values.as_primitive::<Float64Type>().iter().flatten().filter(|x| !x.is_nan());
        let values: Vec<f64> = values.collect();
        if !values.is_empty() {
            self.digest = self.digest.merge_unsorted_f64(values);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = sketches(states, |_| Ok(()))?;
        let digests = states.iter().flatten().map(digest).collect::<Result<Vec<_>>>()?;
        if !digests.is_empty() {
            let all = digests.iter().chain([&self.digest]).filter(|digest| digest.count() > 0.0);
            self.digest = TDigest::merge_digests(all);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary((self.digest.count() > 0.0).then(|| bytes(&self.digest))))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.digest.size()
    }
}

/// A t-digest as numbers in little-endian order: sum, count, greatest and smallest value, then mean and weight of each
/// centroid.
fn bytes(digest: &TDigest) -> Vec<u8> {
    let head = [digest.sum(), digest.count(), digest.max(), digest.min()];
    let centroids = digest.centroids().iter().flat_map(|c| [c.mean(), c.weight()]);
    head.into_iter().chain(centroids).flat_map(f64::to_le_bytes).collect()
}

fn digest(bytes: &[u8]) -> Result<TDigest> {
    let invalid = || no_sketch("approx_percentile_accumulate");
    let (numbers, rest) = bytes.as_chunks::<8>();
    let numbers: Vec<f64> = numbers.iter().map(|number| f64::from_le_bytes(*number)).collect();
    let ([sum, count, max, min], centroids) =
        numbers.split_first_chunk::<4>().ok_or_else(invalid)?;
    let is_whole = rest.is_empty() && centroids.len().is_multiple_of(2) && !centroids.is_empty();
    if !is_whole || numbers.iter().any(|number| number.is_nan()) || *count <= 0.0 {
        return Err(invalid());
    }
    let centroids = centroids.chunks_exact(2).filter_map(|pair| match pair {
        [mean, weight] => Some(Centroid::new(*mean, *weight)),
        _ => None,
    });
    TDigest::try_from_parts(CENTROIDS, *sum, *count, *max, *min, centroids.collect())
        .map_err(|_| invalid())
}

/// Returns the number of different values of a sketch of `hll_accumulate`.
///
/// # Errors
/// Data when it is none.
pub fn hll_estimate(sketch: &[u8]) -> Result<i64> {
    is_hyperloglog(sketch)?;
    let mut inner = hyperloglog(&DataType::Binary)?;
    inner.merge_batch(&[Arc::new(BinaryArray::from_vec(vec![sketch]))])?;
    match inner.evaluate()?.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(count)) => Ok(count),
        _ => internal_err!("approx_distinct without a count"),
    }
}

/// Returns a percentile of a sketch of `approx_percentile_accumulate`; `p`: from 0 to 1.
///
/// # Errors
/// Data when it is none, or `p` is out of range.
pub fn approx_percentile_estimate(sketch: &[u8], p: f64) -> Result<f64> {
    if !(0.0..=1.0).contains(&p) {
        let error = Error::new(ErrorKind::Data, format!("{p} is no percentile"));
        let error = error.with_hint("Percentiles are from 0 to 1; the median is 0.5.");
        return Err(DataFusionError::External(Box::new(error)));
    }
    Ok(digest(sketch)?.estimate_quantile(p))
}
