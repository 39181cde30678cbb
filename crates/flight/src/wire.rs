//! Rows as they are sent: types that every client supports, messages of a size that clients accept, the metadata beside
//! them.
//!
//! Dictionaries and string views become plain arrays: a view of a few rows would carry the whole buffer that it points
//! into, and not every client supports them.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::{FlightData, SchemaAsIpc};

/// Approximate bytes of a message of rows: well below the 4 MiB that gRPC clients accept by default.
const MESSAGE_BYTES: usize = 2 << 20;

/// The columns as they are sent.
pub(crate) fn schema(schema: &SchemaRef) -> SchemaRef {
    let sent: Fields = schema.fields().iter().map(field).collect();
    if sent == *schema.fields() {
        return Arc::clone(schema);
    }
    Arc::new(Schema::new_with_metadata(sent, schema.metadata().clone()))
}

fn field(field: &FieldRef) -> FieldRef {
    let sent = data_type(field.data_type());
    match sent == *field.data_type() {
        true => Arc::clone(field),
        false => {
            let sent = Field::new(field.name(), sent, field.is_nullable());
            Arc::new(sent.with_metadata(field.metadata().clone()))
        }
    }
}

fn data_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => self::data_type(values),
        DataType::RunEndEncoded(_, values) => self::data_type(values.data_type()),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(inner) | DataType::ListView(inner) => DataType::List(field(inner)),
        DataType::LargeList(inner) | DataType::LargeListView(inner) => {
            DataType::LargeList(field(inner))
        }
        DataType::FixedSizeList(inner, size) => DataType::FixedSizeList(field(inner), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// An encoder of the messages of one stream.
pub(crate) struct Encoder {
    schema: SchemaRef,
    generator: IpcDataGenerator,
    tracker: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Returns an encoder of rows with these columns.
    pub(crate) fn new(columns: &SchemaRef) -> Self {
        Self {
            schema: schema(columns),
            generator: IpcDataGenerator::default(),
            tracker: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        }
    }

    /// Returns the first message, with the schema.
    pub(crate) fn head(&self) -> FlightData {
        SchemaAsIpc::new(&self.schema, &self.options).into()
    }

    /// Splits a batch into pieces that are sent one by one, in order, in the types that are sent. A batch without rows
    /// is one piece.
    pub(crate) fn pieces(&self, rows: &RecordBatch) -> Result<Vec<RecordBatch>, ArrowError> {
        let rows = self.sent(rows)?;
        let bytes = rows.columns().iter().map(|c| c.to_data().get_slice_memory_size());
        let bytes = bytes.sum::<Result<usize, _>>()?;
        let count = rows.num_rows();
        if bytes <= MESSAGE_BYTES || count < 2 {
            return Ok(vec![rows]);
        }
        let step = count.div_ceil(bytes.div_ceil(MESSAGE_BYTES)).max(1);
        let starts = (0..count).step_by(step);
        Ok(starts.map(|start| rows.slice(start, step.min(count - start))).collect())
    }

    /// Encodes a piece as a message.
    pub(crate) fn message(&mut self, piece: &RecordBatch) -> Result<FlightData, ArrowError> {
        let (dictionaries, rows) =
            self.generator.encode(piece, &mut self.tracker, &self.options, &mut self.context)?;
        debug_assert!(dictionaries.is_empty(), "dictionaries are sent as plain arrays");
        Ok(rows.into())
    }

    fn sent(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if rows.schema_ref().fields() == self.schema.fields() {
            return Ok(rows.clone());
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let columns = self.schema.fields().iter().zip(rows.columns());
        let columns = columns
            .map(|(field, column)| match field.data_type() == column.data_type() {
                true => Ok(Arc::clone(column)),
                false => cast_with_options(column, field.data_type(), &strict),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use arrow_flight::utils::flight_data_to_batches;

    use super::*;

    #[test]
    fn long_batches_go_in_pieces_and_come_back_whole() {
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..400_000));
        let text = (0..400_000).map(|n| format!("a text longer than twelve, {n}"));
        let text: ArrayRef = Arc::new(StringViewArray::from_iter_values(text));
        let rows = RecordBatch::try_from_iter([("n", n), ("text", text)]).unwrap();
        let mut encoder = Encoder::new(&rows.schema());
        let pieces = encoder.pieces(&rows).unwrap();
        assert!(pieces.len() > 5, "{}", pieces.len());
        let mut messages = vec![encoder.head()];
        for piece in &pieces {
            let message = encoder.message(piece).unwrap();
            assert!(message.data_body.len() < 3 << 20, "{}", message.data_body.len());
            messages.push(message);
        }
        let back = flight_data_to_batches(&messages).unwrap();
        assert_eq!(back.iter().map(RecordBatch::num_rows).sum::<usize>(), 400_000);
        let back = arrow::compute::concat_batches(&back[0].schema(), &back).unwrap();
        assert_eq!(back, encoder.sent(&rows).unwrap());
    }
}
