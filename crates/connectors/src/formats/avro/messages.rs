//! Avro messages, each one record.
//!
//! Invariant: a record whose schema is not known yet is never a bad row: the reader fetches the schema first.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::reader::Decoder;
use windrow_core::{BadRow, Result};

use super::schema::WriterSchema;
use super::{decode_first, flush};
use crate::formats::convert::NumberRules;
use crate::formats::decode::{Decoded, OnBadRow, Origin, readable, refuse};
use crate::formats::typed::{DecodeRecords, Same, Typed, Wrong, decode_messages, refuse_all};

/// How a message identifies its writer's schema.
#[derive(Debug, Clone)]
pub(crate) enum Framing {
    /// It does not: all messages have this one.
    None(Arc<WriterSchema>),
    /// By fingerprint, which must be that of this one (single-object encoding).
    SingleObject(Arc<WriterSchema>),
    /// By its id in a schema registry (Confluent's wire format).
    Registry(Arc<dyn Schemas>),
}

/// The known schemas by id.
pub(crate) trait Schemas: Debug + Send + Sync {
    /// Returns a schema, or why it cannot be used; `None` if it is not known yet.
    fn known(&self, id: u32) -> Option<Result<Arc<WriterSchema>, String>>;
}

/// The id of the schema where there is only one.
const ONLY: u32 = 0;

impl Framing {
    /// Returns the schema id of a message, and its record.
    ///
    /// # Errors
    /// When its prefix is invalid.
    pub(crate) fn open<'a>(&self, message: &'a [u8]) -> Result<(u32, &'a [u8]), String> {
        match self {
            Self::None(_) => Ok((ONLY, message)),
            Self::SingleObject(schema) => {
                let Some((head, record)) = message.split_first_chunk::<10>() else {
                    return Err(
                        "the message is too short for the single-object encoding".to_owned()
                    );
                };
                let [0xC3, 0x01, fingerprint @ ..] = *head else {
                    return Err(
                        "the message does not begin with C3 01 (single-object encoding)".to_owned()
                    );
                };
                let fingerprint = u64::from_le_bytes(fingerprint);
                if fingerprint != schema.fingerprint() {
                    return Err(format!(
                        "the message is of a schema with the fingerprint {fingerprint:016x}, and the stream's has {:016x}",
                        schema.fingerprint()
                    ));
                }
                Ok((ONLY, record))
            }
            Self::Registry(_) => {
                let head = message.split_first_chunk::<5>();
                let Some(([0, id @ ..], record)) = head else {
                    return Err("the message does not begin with 00 and the id of a schema (schema registry)".to_owned());
                };
                Ok((u32::from_be_bytes(*id), record))
            }
        }
    }

    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, String> {
        match self {
            Self::None(schema) | Self::SingleObject(schema) => Ok(Arc::clone(schema)),
            Self::Registry(schemas) => {
                schemas.known(id).unwrap_or_else(|| Err(format!("schema {id} is not known")))
            }
        }
    }
}

/// A decoder of messages.
#[derive(Debug)]
pub(crate) struct AvroMessages {
    framing: Framing,
    declared: SchemaRef,
    projection: Vec<usize>,
    rules: NumberRules,
    on_bad: OnBadRow,
    /// By schema id: how its records are decoded, or why they cannot be.
    known: BTreeMap<u32, Result<(OfSchema, Typed), String>>,
}

impl AvroMessages {
    pub(crate) fn new(
        framing: Framing,
        (declared, projection): (SchemaRef, Vec<usize>),
        (rules, on_bad): (NumberRules, OnBadRow),
    ) -> Self {
        Self { framing, declared, projection, rules, on_bad, known: BTreeMap::new() }
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
        let (mut records, mut of, mut now) = (vec![], vec![], ONLY);
        for (message, offset) in messages.iter().zip(offsets) {
            let opened = self.framing.open(message);
            let goes_on = opened.as_ref().is_ok_and(|(id, _)| *id == now);
            if !goes_on {
                self.same(now, Same { records: &records, offsets: &of }, origin, into)?;
                records.clear();
                of.clear();
            }
            match opened {
                Ok((id, record)) => {
                    now = id;
                    records.push(record);
                    of.push(*offset);
                }
                Err(reason) => {
                    let bad = BadRow { offset: *offset, reason, raw: readable(message) };
                    refuse(bad, self.on_bad, origin, into)?;
                }
            }
        }
        self.same(now, Same { records: &records, offsets: &of }, origin, into)
    }

    fn same(
        &mut self,
        id: u32,
        messages: Same<'_>,
        origin: Origin<'_>,
        into: &mut Decoded,
    ) -> Result<()> {
        if messages.records.is_empty() {
            return Ok(());
        }
        if !self.known.contains_key(&id) {
            let made = self.of_schema(id);
            self.known.insert(id, made);
        }
        match self.known.get_mut(&id) {
            Some(Ok((schema, typed))) => decode_messages(schema, messages, typed, origin, into),
            Some(Err(reason)) => {
                refuse_all(messages, reason, self.on_bad, origin, into)?;
                // It may be registered later.
                self.known.remove(&id);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn of_schema(&self, id: u32) -> Result<(OfSchema, Typed), String> {
        let schema = self.framing.schema(id)?;
        let of = match self.framing {
            Framing::Registry(_) => format!("schema {id}"),
            Framing::None(_) | Framing::SingleObject(_) => "the schema".to_owned(),
        };
        let asked = (&self.declared, self.projection.clone());
        let typed = Typed::new(schema.fields(), asked, (&self.rules, self.on_bad), &of);
        let typed = typed.map_err(|error| error.message().to_owned())?;
        Ok((OfSchema { schema, decoder: None }, typed))
    }
}

/// How the records of one schema are decoded.
#[derive(Debug)]
struct OfSchema {
    schema: Arc<WriterSchema>,
    /// `None` before the first record, and after one that could not be decoded.
    decoder: Option<Decoder>,
}

impl DecodeRecords for OfSchema {
    fn records(&mut self, records: &[&[u8]]) -> Result<RecordBatch, Wrong> {
        let decoder = self.decoder.take().map_or_else(|| self.schema.decoder(usize::MAX >> 1), Ok);
        let mut decoder = decoder.map_err(Wrong::Any)?;
        for (number, record) in records.iter().enumerate() {
            match decode_first(&mut decoder, record) {
                Ok(length) if length == record.len() => {}
                Ok(_) => {
                    return Err(Wrong::At(number, "there are bytes after the record".to_owned()));
                }
                Err(reason) => return Err(Wrong::At(number, reason)),
            }
        }
        let rows = flush(&mut decoder).map_err(Wrong::Any)?;
        self.decoder = Some(decoder);
        Ok(rows)
    }
}
