//! `TABLESAMPLE`: which rows of a stream or a view are in a sample.
//!
//! That depends on a hash of the seed and of the row's position: the name of its partition, and its offset there. So
//! the same statement returns the same rows each time, in both forms and for any batches. Without REPEATABLE the seed
//! is 0, so that no answer depends on chance.
//!
//! ```text
//! scan with a hidden column (`POSITION_COLUMN`) ─► filter ─► projection without it
//! ```

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, UInt64Type};
use datafusion::common::{Column, Result, ScalarValue, internal_err};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use sqlparser::ast::{self, Spanned, TableFactor, TableSample, TableSampleKind, Value};
use sqlparser::tokenizer::Span;
use windrow_core::Error;

use super::relation::POSITION_COLUMN;
use super::stream_of;
use super::tvf::error;

const HINT: &str =
    "Write FROM stream TABLESAMPLE BERNOULLI (10) REPEATABLE (1) for 10 percent of the rows.";

/// Plans relations with a sample; leaves every other relation to the next planner.
#[derive(Debug)]
pub(crate) struct Samples;

impl RelationPlanner for Samples {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { sample: Some(_), .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let span = relation.span();
        let mut relation = relation;
        let (mut called, mut wanted) = (None, None);
        if let TableFactor::Table { alias, sample, .. } = &mut relation {
            called = alias.take();
            wanted = sample.take();
        }
        let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
            match wanted {
                Some(sample) => sample,
                None => return internal_err!("a sample is lost"),
            };
        let (percent, seed) = size(&sample, span)?;
        let plan = sampled(&context.plan(relation)?, percent, seed, span)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, called))))
    }
}

/// The percentage and the seed.
fn size(sample: &TableSample, span: Span) -> Result<(f64, u64)> {
    let wrong = |message: &str, span| error(Error::sql(message).with_hint(HINT), Some(span));
    let number = |expr: &ast::Expr| match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse::<f64>().ok(),
            _ => None,
        },
        _ => None,
    };
    let Some(quantity) = &sample.quantity else {
        return Err(wrong("a sample needs a size", span));
    };
    let percent = number(&quantity.value).filter(|p| (0.0..=100.0).contains(p));
    let Some(percent) = percent else {
        let at = quantity.value.span();
        let at = if at == Span::empty() { span } else { at };
        return Err(wrong("the size of a sample is a number of percent from 0 to 100", at));
    };
    let seed = match sample.seed.as_ref().map(|s| &s.value.value) {
        None => Some(0),
        Some(Value::Number(number, _)) => number.parse().ok(),
        Some(_) => None,
    };
    match seed {
        Some(seed) => Ok((percent, seed)),
        None => Err(wrong("the seed of a sample is a whole number from 0", span)),
    }
}

fn sampled(plan: &LogicalPlan, percent: f64, seed: u64, span: Span) -> Result<LogicalPlan> {
    let (name, relation) = match plan {
        LogicalPlan::TableScan(scan) => (scan.table_name.clone(), stream_of(scan)),
        _ => return Err(unsampled(span)),
    };
    let Some(relation) = relation else { return Err(unsampled(span)) };
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let source = provider_as_source(Arc::new(relation.with_positions()));
    let position = Expr::Column(Column::new(Some(name.clone()), POSITION_COLUMN));
    let function = ScalarUDF::from(Sampled::new());
    let taken = function.call(vec![position, lit(seed), lit(percent)]);
    LogicalPlanBuilder::scan(name, source, None)?.filter(taken)?.project(columns)?.build()
}

fn unsampled(span: Span) -> datafusion::common::DataFusionError {
    let e = Error::sql("only a stream or a materialized view can be sampled").with_hint(
        "Its rows have places that stay; of others take some with WHERE random() < 0.1.",
    );
    error(e, Some(span))
}

/// The positions of rows for the hidden column: hashes of the partition's name and of the offset.
pub fn positions(partition: &str, offsets: impl Iterator<Item = u64>) -> UInt64Array {
    let partition = partition.bytes().fold(0, |hash, byte| mixed(hash ^ u64::from(byte)));
    offsets.map(|offset| mixed(partition.wrapping_add(offset))).collect()
}

/// A permutation of 64 bits, in which each bit depends on all others (the last step of SplitMix64).
fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `sampled(position, seed, percent)`: whether the row is in the sample.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sampled {
    signature: Signature,
}

impl Sampled {
    fn new() -> Self {
        let types = vec![DataType::UInt64, DataType::UInt64, DataType::Float64];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Sampled {
    fn name(&self) -> &'static str {
        "sampled"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            position,
            ColumnarValue::Scalar(ScalarValue::UInt64(Some(seed))),
            ColumnarValue::Scalar(ScalarValue::Float64(Some(percent))),
        ] = args.args.as_slice()
        else {
            return internal_err!("a sample takes a position, a seed and a size");
        };
        let position = position.to_array(args.number_rows)?;
        let Some(position) = position.as_primitive_opt::<UInt64Type>() else {
            return internal_err!("a position is {}", position.data_type());
        };
        // A double represents integers of 53 bits exactly.
        let limit = percent / 100.0 * (1_u64 << 53) as f64;
        let seed = mixed(*seed);
        let taken = |position: &u64| ((mixed(position ^ seed) >> 11) as f64) < limit;
        let taken: BooleanArray = position.values().iter().map(|p| Some(taken(p))).collect();
        Ok(ColumnarValue::Array(Arc::new(taken)))
    }
}
