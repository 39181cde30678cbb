//! Functions in Rust that SQL calls: a scalar one, and an aggregate whose states merge.
//!
//! ```text
//! cargo run --workspace --example functions
//! ```
//! They are given to the engine when it is opened, because views of a data directory call them from the start. `datafusion`
//! and `arrow` must be the versions that Windrow is built with.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, UInt64Type};
use datafusion::common::{Result as PlannerResult, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ScalarUDF, Signature, Volatility,
    create_udf,
};
use futures::TryStreamExt;
use windrow_engine::{Engine, EngineConfig, Outcome, SessionOptions};

/// `dew_point(temperature, humidity)`: the temperature in °C at which air of this temperature and relative humidity in percent
/// is saturated (Magnus formula). It computes a whole column at a time; NULL in either gives NULL.
fn dew_point() -> ScalarUDF {
    let each = |args: &[ColumnarValue]| -> PlannerResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(args)?;
        let (degrees, humidity) =
            (columns[0].as_primitive::<Float64Type>(), columns[1].as_primitive::<Float64Type>());
        let one = |degrees: f64, percent: f64| {
            let gamma = (percent / 100.0).ln() + 17.62 * degrees / (243.12 + degrees);
            243.12 * gamma / (17.62 - gamma)
        };
        let points: Float64Array = arrow::compute::binary(degrees, humidity, one)?;
        Ok(ColumnarValue::Array(Arc::new(points)))
    };
    let double = DataType::Float64;
    let takes = vec![double.clone(), double.clone()];
    create_udf("dew_point", takes, double, Volatility::Immutable, Arc::new(each))
}

/// `geometric_mean(x)`: the n-th root of the product of n positive numbers.
#[derive(Debug, PartialEq, Eq, Hash)]
struct GeometricMean {
    signature: Signature,
}

impl AggregateUDFImpl for GeometricMean {
    fn name(&self) -> &str {
        "geometric_mean"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlannerResult<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> PlannerResult<Box<dyn Accumulator>> {
        Ok(Box::new(Logarithms::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> PlannerResult<Vec<FieldRef>> {
        let field = |part: &str, data_type| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), data_type, false))
        };
        Ok(vec![field("sum", DataType::Float64), field("count", DataType::UInt64)])
    }
}

/// The state: it fits in two columns, and two states add up to the state of all their rows. That is what lets a window be
/// merged from slices, divided among threads, written to a checkpoint and moved to disk.
#[derive(Debug, Default)]
struct Logarithms {
    sum: f64,
    count: u64,
}

impl Accumulator for Logarithms {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> PlannerResult<()> {
        for x in columns[0].as_primitive::<Float64Type>().iter().flatten() {
            self.sum += x.ln();
            self.count += 1;
        }
        Ok(())
    }

    fn state(&mut self) -> PlannerResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::from(self.sum), ScalarValue::from(self.count)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> PlannerResult<()> {
        let (sums, counts) =
            (states[0].as_primitive::<Float64Type>(), states[1].as_primitive::<UInt64Type>());
        self.sum += sums.iter().flatten().sum::<f64>();
        self.count += counts.iter().flatten().sum::<u64>();
        Ok(())
    }

    fn evaluate(&mut self) -> PlannerResult<ScalarValue> {
        let mean = (self.count > 0).then(|| (self.sum / self.count as f64).exp());
        Ok(ScalarValue::Float64(mean))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// An engine with both functions.
fn engine() -> windrow_core::Result<Engine> {
    let takes = Signature::exact(vec![DataType::Float64], Volatility::Immutable);
    Engine::open(EngineConfig {
        functions: vec![Arc::new(dew_point())],
        aggregates: vec![Arc::new(AggregateUDF::from(GeometricMean { signature: takes }))],
        ..EngineConfig::default()
    })
}

/// Windows of a stream in which both are called, as text.
fn windows() -> windrow_core::Result<String> {
    let session = engine()?.session(SessionOptions { push_ends: true })?;
    let rows = futures::executor::block_on(async {
        session
            .run("CREATE STREAM air (ts TIMESTAMP, degrees DOUBLE, humidity DOUBLE, particles DOUBLE, WATERMARK FOR ts)")
            .await?;
        session
            .run(
                "INSERT INTO air VALUES ('2026-01-01 00:00:10', 20, 50, 2), ('2026-01-01 00:00:20', 25, 60, 8), \
                 ('2026-01-01 00:01:10', 30, NULL, 5), ('2026-01-01 00:01:20', 10, 100, NULL)",
            )
            .await?;
        let sql = "SELECT window_end, round(max(dew_point(degrees, humidity)), 2) AS dew_point, \
                          round(geometric_mean(particles), 2) AS particles \
                   FROM HOP(air, ts, INTERVAL '1 minute', INTERVAL '2 minutes') \
                   GROUP BY window_start, window_end EMIT FINAL";
        match session.run(sql).await? {
            Outcome::Rows(rows) => rows.try_collect::<Vec<_>>().await,
            Outcome::Done(_) => Ok(vec![]),
        }
    })?;
    Ok(arrow::util::pretty::pretty_format_batches(&rows)?.to_string())
}

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> windrow_core::Result<()> {
    println!("{}", windows()?);
    Ok(())
}

/// The first and the last window have the rows of one minute, the one between is merged from both.
#[test]
fn windows_have_the_values_of_both() {
    let shown = windows().unwrap();
    let expected = [
        "| window_end          | dew_point | particles |",
        "| 2026-01-01T00:01:00 | 16.69     | 4.0       |",
        "| 2026-01-01T00:02:00 | 16.69     | 4.31      |",
        "| 2026-01-01T00:03:00 | 10.0      | 5.0       |",
    ];
    for line in expected {
        assert!(shown.contains(line), "no {line} in\n{shown}");
    }
}
