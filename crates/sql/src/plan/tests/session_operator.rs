//! Sessions as simply as can be: all rows in order of time, key by key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, filter, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use windrow_operators::{AggregateCall, Mode, SessionOperatorSpec};

/// The sessions of all rows with their ends.
pub(super) fn sessions(
    operator: &SessionOperatorSpec,
    rows: &[RecordBatch],
) -> Vec<(i64, RecordBatch)> {
    let all = concat_batches(operator.input_schema(), rows).unwrap();
    let times = cast(all.column(operator.time()), &DataType::Int64).unwrap();
    let times = times.as_primitive::<Int64Type>();
    let mut by_key: BTreeMap<Vec<String>, Vec<(i64, u64)>> = BTreeMap::new();
    for row in 0..all.num_rows() {
        let key = values(&all, operator.keys(), row);
        by_key.entry(key).or_default().push((times.value(row), row as u64));
    }
    let mut closed = vec![];
    for mut rows in by_key.into_values() {
        rows.sort_unstable();
        let gap = operator.session().gap();
        for session in rows.chunk_by(|(one, _), (next, _)| next - one <= gap) {
            let (start, end) = (session[0].0, session[session.len() - 1].0 + gap);
            let indices = UInt64Array::from_iter_values(session.iter().map(|(_, row)| *row));
            let rows = take_record_batch(&all, &indices).unwrap();
            let columns = kept(operator, &rows);
            closed.push((end, with_bounds(operator, columns, [start, end, end - 1])));
        }
    }
    closed
}

fn values(rows: &RecordBatch, columns: &[usize], row: usize) -> Vec<String> {
    let value = |column: &usize| {
        let column = rows.column(*column);
        match column.is_null(row) {
            true => "NULL".to_owned(),
            false => format!("={}", array_value_to_string(column, row).unwrap()),
        }
    };
    columns.iter().map(value).collect()
}

fn with_bounds(
    operator: &SessionOperatorSpec,
    mut columns: Vec<ArrayRef>,
    bounds: [i64; 3],
) -> RecordBatch {
    let schema = operator.output_schema();
    let rows = columns.first().map_or(1, Array::len);
    for bound in bounds {
        let of = schema.field(columns.len()).data_type();
        let value = ScalarValue::Int64(Some(bound)).cast_to(of).unwrap();
        columns.push(value.to_array_of_size(rows).unwrap());
    }
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// What is kept of the rows of one session: them, or the row of its group.
fn kept(operator: &SessionOperatorSpec, rows: &RecordBatch) -> Vec<ArrayRef> {
    let Mode::Aggregate { keys, grouping_sets: None, aggregates } = operator.mode() else {
        return rows.columns().to_vec();
    };
    let keys = keys.iter().map(|key| rows.column(*key).slice(0, 1));
    keys.chain(aggregates.iter().map(|call| aggregate(call, rows))).collect()
}

fn aggregate(call: &AggregateCall, rows: &RecordBatch) -> ArrayRef {
    let mut arguments: Vec<ArrayRef> =
        call.arguments.iter().map(|column| Arc::clone(rows.column(*column))).collect();
    if let Some(condition) = call.filter {
        let condition = rows.column(condition).as_boolean();
        arguments = arguments.iter().map(|a| filter(a, condition).unwrap()).collect();
    }
    let mut accumulator = call.function.create_accumulator().unwrap();
    accumulator.update_batch(&arguments).unwrap();
    accumulator.evaluate().unwrap().to_array().unwrap()
}
