//! Protobuf: messages decoded with a descriptor that the stream names ([`options`]), each one row.
//!
//! ```text
//! bytes ─ framing ─► record ─ prost-reflect ─► DynamicMessage ─ columns ─► Arrow with the types of the descriptor ─ typed ─► row
//! ```

pub(crate) mod columns;
pub(crate) mod options;

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use windrow_core::{BadRow, Result};

use self::columns::Column;
use super::convert::NumberRules;
use super::decode::{Decoded, OnBadRow, Origin, readable, refuse};
use super::typed::{DecodeRecords, Same, Typed, Wrong, decode_messages};

/// The descriptor and framing of messages.
#[derive(Debug)]
pub(crate) struct Described {
    descriptor: MessageDescriptor,
    columns: Vec<Column>,
    schema: SchemaRef,
    /// Whether each begins with 00, a schema id and the message indexes (Confluent's wire format).
    is_framed: bool,
    /// The expected message indexes.
    place: Vec<i64>,
}

impl Described {
    /// # Errors
    /// When a field has a type that no column has.
    pub(crate) fn new(descriptor: MessageDescriptor, is_framed: bool) -> Result<Self, String> {
        let columns = Column::of_message(&descriptor, &mut vec![])?;
        let fields: Vec<_> = columns.iter().map(|column| Arc::clone(&column.field)).collect();
        let place = place_of(&descriptor);
        Ok(Self { descriptor, columns, schema: Arc::new(Schema::new(fields)), is_framed, place })
    }

    /// The columns of a stream with all fields.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Removes the framing.
    fn open<'a>(&self, message: &'a [u8]) -> Result<&'a [u8], String> {
        if !self.is_framed {
            return Ok(message);
        }
        let Some(([0, _, _, _, _], mut rest)) = message.split_first_chunk::<5>() else {
            return Err(
                "the message does not begin with 00 and the id of a schema (schema registry)"
                    .to_owned(),
            );
        };
        let cut = || "the place of the message in its schema is cut off".to_owned();
        let count = varint(&mut rest).ok_or_else(cut)?;
        let mut place = vec![];
        for _ in 0..count.min(64) {
            place.push(varint(&mut rest).ok_or_else(cut)?);
        }
        if count == 0 {
            place.push(0);
        }
        if place != self.place {
            return Err(format!(
                "the message is of type {place:?} in its schema, and \"{}\" is {:?}",
                self.descriptor.full_name(),
                self.place
            ));
        }
        Ok(rest)
    }
}

/// Reads a zigzag varint.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// The message indexes of a message: its path in the file, from the outermost message.
fn place_of(descriptor: &MessageDescriptor) -> Vec<i64> {
    // As in a descriptor: field 4 of a file are its messages, field 3 of a message those in it.
    descriptor.path().iter().skip(1).step_by(2).map(|number| i64::from(*number)).collect()
}

/// A decoder of messages.
#[derive(Debug)]
pub(crate) struct ProtobufMessages {
    decoder: Decoder,
    typed: Typed,
    on_bad: OnBadRow,
}

#[derive(Debug)]
struct Decoder(Arc<Described>);

impl ProtobufMessages {
    /// # Errors
    /// When the descriptor does not have the declared columns.
    pub(crate) fn new(
        described: Arc<Described>,
        (declared, projection): (&SchemaRef, Vec<usize>),
        (rules, on_bad): (&NumberRules, OnBadRow),
    ) -> Result<Self> {
        let of = format!("message \"{}\"", described.descriptor.full_name());
        let fields = described.schema.fields();
        let typed = Typed::new(fields, (declared, projection), (rules, on_bad), &of)?;
        Ok(Self { decoder: Decoder(described), typed, on_bad })
    }

    /// Decodes messages that have values.
    ///
    /// # Errors
    /// For the first bad one when the stream says `on_bad_row = 'fail'`.
    pub(crate) fn decode(
        &mut self,
        messages: &[&[u8]],
        offsets: &[u64],
        origin: Origin<'_>,
        into: &mut Decoded,
    ) -> Result<()> {
        let (mut records, mut of) = (vec![], vec![]);
        for (message, offset) in messages.iter().zip(offsets) {
            match self.decoder.0.open(message) {
                Ok(record) => {
                    records.push(record);
                    of.push(*offset);
                }
                Err(reason) => {
                    let bad = BadRow { offset: *offset, reason, raw: readable(message) };
                    refuse(bad, self.on_bad, origin, into)?;
                }
            }
        }
        let same = Same { records: &records, offsets: &of };
        decode_messages(&mut self.decoder, same, &self.typed, origin, into)
    }
}

impl DecodeRecords for Decoder {
    fn records(&mut self, records: &[&[u8]]) -> Result<RecordBatch, Wrong> {
        let mut messages = Vec::with_capacity(records.len());
        for (number, record) in records.iter().enumerate() {
            let message = DynamicMessage::decode(self.0.descriptor.clone(), *record);
            let message = message.map_err(|e| {
                Wrong::At(
                    number,
                    format!("the message is not a \"{}\": {e}", self.0.descriptor.full_name()),
                )
            })?;
            messages.push(message);
        }
        let present: Vec<Option<&DynamicMessage>> = messages.iter().map(Some).collect();
        let columns = self.0.columns.iter().map(|column| column.values(&present));
        let columns = columns.collect::<Result<Vec<_>, String>>().map_err(Wrong::Any)?;
        let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.0.schema), columns, &options)
            .map_err(|e| Wrong::Any(e.to_string()))
    }
}

#[cfg(test)]
mod tests;
