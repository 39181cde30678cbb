//! JSON lines and CSV.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use windrow_core::Result;

use super::Encoder;
use super::packed::{Packed, Packing};

/// How CSV is written.
#[derive(Debug, Clone)]
pub(crate) struct CsvStyle {
    /// The separator of fields.
    pub(crate) delimiter: u8,
    /// Whether the first record names the columns.
    pub(crate) header: bool,
    /// What NULL is written as.
    pub(crate) null: Arc<str>,
}

#[derive(Debug)]
enum Form {
    Json,
    Csv { style: CsvStyle, header_due: bool },
}

/// An encoder of a text file.
#[derive(Debug)]
pub(super) struct TextEncoder {
    form: Form,
    out: Packed,
}

impl TextEncoder {
    /// Returns an encoder of JSON lines.
    ///
    /// # Errors
    /// When the compressor cannot be created.
    pub(super) fn json(packing: Packing) -> Result<Self> {
        Ok(Self { form: Form::Json, out: Packed::new(packing)? })
    }

    /// Returns an encoder of CSV.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub(super) fn csv(style: CsvStyle, packing: Packing) -> Result<Self> {
        let header_due = style.header;
        Ok(Self { form: Form::Csv { style, header_due }, out: Packed::new(packing)? })
    }
}

impl Encoder for TextEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match &mut self.form {
            Form::Json => write_json(rows, &mut self.out)?,
            Form::Csv { style, header_due } => {
                let writer = arrow::csv::WriterBuilder::new()
                    .with_delimiter(style.delimiter)
                    .with_header(std::mem::take(header_due))
                    .with_null(style.null.to_string());
                writer.build(&mut self.out).write(rows)?;
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.out.size()
    }

    fn finish(self: Box<Self>) -> Result<Bytes> {
        self.out.finish()
    }
}

/// Returns each row as a JSON object with all of its columns.
///
/// # Errors
/// When JSON does not have the type of a column.
pub(crate) fn json_lines(rows: &RecordBatch) -> Result<Vec<Bytes>> {
    let mut text = Vec::new();
    write_json(rows, &mut text)?;
    let text = Bytes::from(text);
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| text.slice_ref(line)).collect())
}

fn write_json(rows: &RecordBatch, out: impl std::io::Write) -> Result<()> {
    let writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = writer.build::<_, arrow::json::writer::LineDelimited>(out);
    writer.write(rows)?;
    writer.finish()?;
    Ok(())
}
