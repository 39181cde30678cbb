//! Rows as bytes: the formats in which sinks write. Decoding is in [`crate::formats`].
//!
//! ```text
//! Encoding (format, compression, style) ─ begin ─► Encoder ─ write … write ─ finish ─► the bytes of one file
//! ```
//! Invariant: what [`Encoding::check`] accepts can be encoded, whatever the values.

mod avro;
mod columnar;
mod packed;
mod text;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use windrow_core::{Error, Result};

use self::avro::AvroEncoder;
pub(crate) use self::avro::AvroPacking;
use self::columnar::ParquetEncoder;
pub(crate) use self::columnar::ParquetPacking;
pub(crate) use self::packed::Packing;
use self::text::TextEncoder;
pub(crate) use self::text::{CsvStyle, json_lines};

/// An encoder of one file.
pub(crate) trait Encoder: Debug + Send {
    /// Adds rows.
    ///
    /// # Errors
    /// When a value has no form in the format.
    fn write(&mut self, rows: &RecordBatch) -> Result<()>;

    /// The size of the file so far, in bytes, as far as it is known.
    fn size(&self) -> usize;

    /// Returns the file.
    ///
    /// # Errors
    /// When the format refuses to be ended (a bug).
    fn finish(self: Box<Self>) -> Result<Bytes>;
}

/// How rows are written.
#[derive(Debug, Clone)]
pub(crate) enum Encoding {
    /// One JSON object per line.
    Json(Packing),
    /// Separated values with a header.
    Csv(CsvStyle, Packing),
    /// Apache Parquet.
    Parquet(ParquetPacking),
    /// An object container file of Avro.
    Avro(AvroPacking),
}

impl Encoding {
    /// The ending of file names, from its first dot on.
    pub(crate) fn ending(&self) -> String {
        match self {
            Self::Json(packing) => format!(".ndjson{}", packing.ending()),
            Self::Csv(_, packing) => format!(".csv{}", packing.ending()),
            Self::Parquet(_) => ".parquet".to_owned(),
            Self::Avro(_) => ".avro".to_owned(),
        }
    }

    /// Begins a file.
    ///
    /// # Errors
    /// When the format does not have the type of a column.
    pub(crate) fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        Ok(match self {
            Self::Json(packing) => Box::new(TextEncoder::json(*packing)?),
            Self::Csv(style, packing) => Box::new(TextEncoder::csv(style.clone(), *packing)?),
            Self::Parquet(packing) => Box::new(ParquetEncoder::new(schema, *packing)?),
            Self::Avro(packing) => Box::new(AvroEncoder::new(schema, *packing)?),
        })
    }

    /// Checks that the format has the types of all columns.
    ///
    /// # Errors
    /// The first column whose type it does not have.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        for field in schema.fields() {
            let field = Arc::new(field.as_ref().clone().with_nullable(true));
            let one = Arc::new(Schema::new(vec![Arc::clone(&field)]));
            let null = new_null_array(field.data_type(), 1);
            let encoded = RecordBatch::try_new(Arc::clone(&one), vec![null])
                .map_err(Error::from)
                .and_then(|row| {
                    let mut encoder = self.begin(&one)?;
                    encoder.write(&row)?;
                    encoder.finish()
                });
            if let Err(error) = encoded {
                if let Self::Avro(_) = self
                    && error.message().ends_with("is no name in Avro")
                {
                    return Err(Error::sql(format!(
                        "column \"{}\" has a name that Avro does not allow",
                        field.name()
                    ))
                    .with_hint("A name has letters, digits and _; give it another one with AS.")
                    .with_source(error));
                }
                let (name, kind) = (field.name(), windrow_core::sql_type(field.data_type()));
                let what = self.name();
                return Err(Error::sql(format!(
                    "column \"{name}\" has the type {kind}, which {what} files do not have"
                ))
                .with_hint(format!("Leave it out, or convert it: CAST({name} AS VARCHAR)."))
                .with_source(error));
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Json(_) => "JSON",
            Self::Csv(..) => "CSV",
            Self::Parquet(_) => "Parquet",
            Self::Avro(_) => "Avro",
        }
    }
}

#[cfg(test)]
mod tests;
