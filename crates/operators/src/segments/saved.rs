//! Segments as Arrow batches, and back. Restored batches are not trusted: their columns and types are checked before an
//! accumulator sees them.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::logical_expr::EmitTo;
use windrow_core::{Error, ErrorKind, Result};

use super::Body;
use crate::extents;
use crate::spec::{AggregateCall, Columns};
use crate::table::Frozen;

/// The types of the state columns, per aggregate.
#[derive(Debug)]
pub(crate) struct StateTypes(Vec<Vec<DataType>>);

impl StateTypes {
    pub(crate) fn of(spec: &Columns) -> Result<Self> {
        let calls = spec.calls().iter().map(|call| state_types(spec, call));
        let mut types = calls.collect::<Result<Vec<_>>>()?;
        types.extend(spec.holds_extents().then(|| vec![DataType::Int64; extents::COLUMNS]));
        Ok(Self(types))
    }
}

/// Determined by the accumulator, since a function may declare other types than those it returns.
fn state_types(spec: &Columns, call: &AggregateCall) -> Result<Vec<DataType>> {
    let fields = spec.input_schema().fields();
    let arguments = call.arguments.iter().filter_map(|c| fields.get(*c));
    let nulls: Vec<ArrayRef> = match &spec.layout().packed {
        Some(fields) => vec![new_null_array(&DataType::Struct(fields.clone()), 1)],
        None => arguments.map(|f| new_null_array(f.data_type(), 1)).collect(),
    };
    let mut accumulator = call.accumulator()?;
    let states = accumulator
        .update_batch(&nulls, &[0], None, 1)
        .and_then(|()| accumulator.state(EmitTo::All));
    Ok(match states {
        Ok(states) => states.iter().map(|s| s.data_type().clone()).collect(),
        // The accumulator refuses NULL.
        Err(_) => {
            let fields = call.function.state_fields().map_err(crate::failure::engine)?;
            fields.iter().map(|f| f.data_type().clone()).collect()
        }
    })
}

/// Returns the batches of a frozen body.
pub(crate) fn encode(body: &Body) -> Result<Vec<RecordBatch>> {
    match body {
        Body::Rows(batches) => Ok(batches.clone()),
        Body::Frozen(frozen) => Ok(vec![frozen_batch(frozen)?]),
        Body::Spilled(_) => Err(Error::internal("what is on disk is saved from there")),
        Body::Live(_) => Err(Error::internal("a live slice cannot be saved")),
    }
}

/// Returns keys, then states, in one batch.
pub(crate) fn frozen_batch(frozen: &Frozen) -> Result<RecordBatch> {
    let keys = frozen.keys.iter().enumerate().map(|(i, key)| (format!("k{i}"), key));
    let states = frozen.states.iter().enumerate().flat_map(|(aggregate, columns)| {
        let columns = columns.iter().enumerate();
        columns.map(move |(i, state)| (format!("s{aggregate}_{i}"), state))
    });
    let (mut fields, mut columns) = (vec![], vec![]);
    for (name, column) in keys.chain(states) {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(Arc::clone(column));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(frozen.groups));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// Reverses [`encode`]; `rows` is the number of input rows.
///
/// # Errors
/// Corrupt when it cannot have been a segment of `spec`.
pub(crate) fn decode(
    spec: &Columns,
    types: &StateTypes,
    rows: u64,
    batches: Vec<RecordBatch>,
) -> Result<Body> {
    if spec.holds_rows() {
        return decode_rows(spec, rows, batches).map(Body::Rows);
    }
    let Some(first) = batches.first() else { return Err(corrupt("no batches")) };
    if batches.len() == 1 {
        return decode_frozen(spec, types, first).map(Body::Frozen);
    }
    // It was written in pieces.
    for batch in &batches {
        decode_frozen(spec, types, batch)?;
    }
    let batch = concat_batches(&first.schema(), &batches)?;
    decode_frozen(spec, types, &batch).map(Body::Frozen)
}

fn decode_rows(spec: &Columns, rows: u64, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let found: u64 = batches.iter().map(|b| b.num_rows() as u64).sum();
    if found != rows {
        return Err(corrupt(format!("{found} rows instead of {rows}")));
    }
    let schema = spec.input_schema();
    let again = batches.into_iter().map(|batch| {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|e| corrupt("other columns").with_source(e))
    });
    again.collect()
}

fn decode_frozen(spec: &Columns, types: &StateTypes, batch: &RecordBatch) -> Result<Frozen> {
    let key_schema = spec.key_schema();
    let expected = key_schema.fields().iter().map(|f| f.data_type());
    let expected: Vec<_> = expected.chain(types.0.iter().flatten()).collect();
    let found: Vec<_> = batch.columns().iter().map(|c| c.data_type()).collect();
    let alike = expected.len() == found.len()
        && expected.iter().zip(&found).all(|(a, b)| a.equals_datatype(b));
    if !alike {
        return Err(corrupt("other columns"));
    }
    let mut columns = batch.columns().iter().cloned();
    let keys = columns.by_ref().take(key_schema.fields().len()).collect();
    let states = types.0.iter().map(|types| columns.by_ref().take(types.len()).collect());
    Ok(Frozen { keys, states: states.collect(), groups: batch.num_rows() })
}

fn corrupt(found: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a segment has {}", found.into()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, TimestampSecondArray};
    use arrow::compute::cast;
    use arrow::datatypes::TimeUnit;
    use datafusion::functions_aggregate::all_default_aggregate_functions;
    use datafusion::logical_expr::AggregateUDF;
    use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::Column;
    use windrow_core::{WindowKind, WindowSpec};

    use super::*;
    use crate::{Mode, OperatorSpec, SliceStore};

    /// Counts three groups with one function over `arguments` columns; `None` if the function takes others.
    fn segment(
        function: &Arc<AggregateUDF>,
        argument: &DataType,
        arguments: usize,
    ) -> Option<(OperatorSpec, Frozen)> {
        let field = Arc::new(Field::new("x", argument.clone(), true));
        let given: Vec<_> = std::iter::repeat_n(field, arguments).collect();
        let coerced = fields_with_udf(&given, function.as_ref()).ok()?;
        if coerced.iter().any(|field| field.data_type() != argument) {
            return None;
        }
        let time = DataType::Timestamp(TimeUnit::Second, None);
        let mut fields = vec![Field::new("ts", time, false)];
        fields.push(Field::new("k", DataType::Float64, true));
        fields.extend(["x", "y"].map(|name| Field::new(name, argument.clone(), true)));
        let schema = Arc::new(Schema::new(fields));
        let columns = (2..2 + arguments)
            .map(|c| Arc::new(Column::new(schema.field(c).name(), c)) as _)
            .collect();
        let function = AggregateExprBuilder::new(Arc::clone(function), columns)
            .schema(Arc::clone(&schema))
            .alias("a")
            .build()
            .ok()?;
        let arguments = (2..2 + arguments).collect();
        let call = AggregateCall { function: Arc::new(function), arguments, filter: None };
        let aggregates = vec![call];
        let mode = Mode::Aggregate { keys: vec![1], grouping_sets: None, aggregates };
        let window = WindowSpec::try_new(WindowKind::Tumble { size: 10 }, 0).unwrap();
        let spec = OperatorSpec::try_new(window, 0, Arc::clone(&schema), mode).ok()?;
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(3.0)]));
        let times = Arc::new(TimestampSecondArray::from(vec![1; 3]));
        let values = cast(&numbers, argument).unwrap();
        let columns: Vec<ArrayRef> = vec![times, numbers, Arc::clone(&values), values];
        let mut store = SliceStore::new(&spec);
        store.update(&RecordBatch::try_new(schema, columns).unwrap()).ok()?;
        match store.flush_all().unwrap().remove(0).body.freeze().unwrap() {
            Body::Frozen(frozen) => Some((spec, frozen)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_states_of_every_aggregate_come_back() {
        let (mut tried, mut adapters) = (0, 0);
        let types = [DataType::Float64, DataType::Int64, DataType::Utf8View, DataType::Boolean];
        for function in all_default_aggregate_functions() {
            for (argument, arguments) in types.iter().flat_map(|t| [(t, 1), (t, 2)]) {
                let Some((spec, frozen)) = segment(&function, argument, arguments) else {
                    continue;
                };
                let call = &spec.columns().calls()[0].function;
                assert_eq!(
                    frozen.states[0].len(),
                    call.state_fields().unwrap().len(),
                    "{}",
                    function.name()
                );
                tried += 1;
                adapters += usize::from(!call.groups_accumulator_supported());
                let types = StateTypes::of(spec.columns()).unwrap();
                let batches = encode(&Body::Frozen(frozen.clone())).unwrap();
                let back = decode(spec.columns(), &types, 3, batches).unwrap();
                let Body::Frozen(back) = back else { panic!("{back:?}") };
                assert_eq!(back.keys[0].as_ref(), frozen.keys[0].as_ref());
                for (a, b) in back.states[0].iter().zip(&frozen.states[0]) {
                    assert_eq!(a.as_ref(), b.as_ref(), "{}", function.name());
                }
            }
        }
        assert!(tried >= 20 && adapters >= 5, "{tried} functions, {adapters} adapters");
    }
}
