//! Shared parts of the oracles' cases: columns, aggregates, and segments as they are written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::functions_aggregate as functions;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::scalar::ScalarValue;
use windrow_operators::{AggregateCall, SavedSegment};

use crate::naive;

/// Columns of the prepared batch: id, time, key1, key2, key3, value, float, flag.
pub(crate) const TIME: usize = 1;
pub(crate) const KEYS: [usize; 3] = [2, 3, 4];
const VALUE: usize = 5;
const FLOAT: usize = 6;
const FLAG: usize = 7;

pub(crate) fn schema(text: &DataType) -> SchemaRef {
    let a = Field::new("a", DataType::Int64, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("k1", DataType::Int64, true),
        Field::new("k2", text.clone(), true),
        Field::new("k3", DataType::Struct(vec![a].into()), true),
        Field::new("v", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
    ]))
}

fn call(
    schema: &SchemaRef,
    function: Arc<AggregateUDF>,
    arguments: &[usize],
    distinct: bool,
    filter: Option<usize>,
) -> AggregateCall {
    let columns =
        arguments.iter().map(|c| Arc::new(Column::new(schema.field(*c).name(), *c)) as _).collect();
    let name = format!("{}{arguments:?}{distinct}{filter:?}", function.name());
    let function = AggregateExprBuilder::new(function, columns)
        .schema(Arc::clone(schema))
        .alias(name)
        .with_distinct(distinct)
        .build()
        .unwrap();
    AggregateCall { function: Arc::new(function), arguments: arguments.to_vec(), filter }
}

/// Returns the aggregates in the order in which [`naive`] computes them.
pub(crate) fn aggregates(schema: &SchemaRef) -> Vec<AggregateCall> {
    use functions::{array_agg, average, count, min_max, regr};
    vec![
        call(schema, count::count_udaf(), &[TIME], false, None),
        call(schema, windrow_operators::aggregates::sum_udaf(), &[VALUE], false, None),
        call(schema, min_max::min_udaf(), &[VALUE], false, None),
        call(schema, min_max::max_udaf(), &[3], false, None),
        call(schema, average::avg_udaf(), &[FLOAT], false, None),
        call(schema, count::count_udaf(), &[VALUE], true, None),
        call(schema, array_agg::array_agg_udaf(), &[VALUE], false, None),
        call(schema, count::count_udaf(), &[VALUE], false, Some(FLAG)),
        call(schema, regr::regr_count_udaf(), &[FLOAT, FLOAT], false, None),
    ]
}

pub(crate) fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let text = ScalarValue::try_from_array(array, row).unwrap().to_string();
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(items) => naive::sorted_list(items.split(", ").map(str::to_owned).collect()),
        None => text,
    }
}

/// Writes a segment as an Arrow IPC stream and reads it back.
pub(crate) fn through_ipc(segment: &SavedSegment) -> SavedSegment {
    let mut file = vec![];
    let pieces: Vec<_> = segment.pieces().map(|piece| piece.unwrap()).collect();
    assert_eq!(pieces.len(), segment.pieces_len());
    let mut writer = StreamWriter::try_new(&mut file, &pieces[0].schema()).unwrap();
    pieces.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let batches = StreamReader::try_new(file.as_slice(), None).unwrap();
    SavedSegment {
        batches: batches.map(|batch| batch.unwrap()).collect(),
        spilled: None,
        ..*segment
    }
}
