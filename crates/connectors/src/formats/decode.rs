//! Decodes records to a batch, so that no good row is lost and every bad one is reported.
//!
//! A run of records is decoded at once. When that fails, the run is divided into sixteen, and so on down to the bad
//! records. Whether a record is bad never depends on its neighbours, on the division, or on what a query reads.

use std::ops::Range;

use arrow::array::{
    ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use windrow_core::time::time_unit;
use windrow_core::{BadRow, Error, Result, sql_type};

use super::convert::{
    NumberRules, from_text, is_more_than_its_value, is_rounded_by_double, keeps_promise,
};

/// The treatment of rows that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnBadRow {
    /// They become dead letters.
    DeadLetter,
    /// The query fails.
    Fail,
    /// Fields that cannot be decoded become NULL; a row that is not a record at all is a dead letter.
    Null,
}

/// Characters of a bad row that are retained for inspection.
const RAW_CHARS_MAX: usize = 1_000;
/// Number of parts into which a run with a bad row is divided.
const CUT: usize = 16;

/// A decoder of records of one format; its batches have the wanted columns.
pub(crate) trait Decode: Send {
    /// The wanted columns.
    fn schema(&self) -> &SchemaRef;

    /// Classifies a record at first sight.
    fn looks(&self, record: &[u8]) -> Looks;

    /// Decodes exactly `rows` records.
    ///
    /// # Errors
    /// When any of them is bad, as a sentence for messages (which matters for a single record only).
    fn decode(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String>;

    /// Returns the value of each wanted column of a record, or what is wrong with it.
    ///
    /// # Errors
    /// When it is not a record at all.
    fn fields(&mut self, record: &[u8]) -> Result<Vec<Result<ArrayRef, String>>, String>;
}

/// What a record of text is. Each ends with its separator, except possibly the last one of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A line of a file.
    Line,
    /// A message of a broker, which may contain line ends.
    Message,
}

impl Unit {
    /// What follows a record. No good record of text contains the one of messages.
    pub(crate) fn separator(self) -> u8 {
        match self {
            Self::Line => b'\n',
            // RFC 7464: JSON text has no raw control characters but line ends and tabs.
            Self::Message => b'\x1E',
        }
    }

    /// Its name in messages for users.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Message => "message",
        }
    }
}

/// The class of a record at first sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// Blank: skipped.
    Blank,
    /// Possibly good: decoded together with its neighbours.
    Whole,
    /// Possibly extends into its neighbours: decoded alone.
    Odd,
    /// Several lines that a stray quote joined into one record: the first is bad, the others are cut again.
    Runaway,
}

/// Records of one piece of text.
pub(crate) struct Run<'a> {
    /// The buffer that contains them.
    pub text: &'a [u8],
    /// Their ranges in it, ascending.
    pub records: &'a [Range<usize>],
    /// The offsets of the records.
    pub offsets: Offsets<'a>,
    /// Whether the records were cut from running text, so that a record of several lines may be a wrong cut.
    pub was_cut: bool,
}

impl<'a> Run<'a> {
    /// The records one by one.
    pub(crate) fn values(&self) -> Vec<&'a [u8]> {
        let value = |range: &Range<usize>| self.text.get(range.clone()).unwrap_or_default();
        self.records.iter().map(value).collect()
    }
}

/// How the offsets of records follow from their positions in a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offsets<'a> {
    /// The position of the record's first byte, plus this.
    From(u64),
    /// Given for each record, in order.
    Of(&'a [u64]),
}

impl<'a> Offsets<'a> {
    /// Adds the offsets of all `records` to `to`.
    fn extend(self, records: &[Range<usize>], to: &mut Vec<u64>) {
        match self {
            Self::From(base) => to.extend(records.iter().map(|r| base + r.start as u64)),
            Self::Of(offsets) => to.extend(offsets.iter().take(records.len())),
        }
    }

    /// The offset of the first of `records`.
    fn first(self, record: &Range<usize>) -> u64 {
        match self {
            Self::From(base) => base + record.start as u64,
            Self::Of(offsets) => offsets.first().copied().unwrap_or(u64::MAX),
        }
    }

    /// The offsets of the records from number `start` on.
    fn after(self, start: usize) -> Self {
        match self {
            Self::From(base) => Self::From(base),
            Self::Of(offsets) => Self::Of(offsets.get(start..).unwrap_or_default()),
        }
    }
}

/// Where the rows of a decoder come from, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The kind of thing: "file".
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The unit of its offsets: "byte".
    pub unit: &'a str,
}

impl<'a> Origin<'a> {
    /// Returns the origin of text in a file.
    pub(crate) fn text_of(file: &'a str) -> Self {
        Self { kind: "file", name: file, unit: "byte" }
    }
}

/// The result of decoding a run.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Good rows, in order.
    pub pieces: Vec<RecordBatch>,
    /// The offset of each good row.
    pub offsets: Vec<u64>,
    /// The bad rows.
    pub bad: Vec<BadRow>,
    /// Set when quotes joined several lines into one invalid record: its first line is among the bad rows, and
    /// everything from this position of the text on is to be cut again.
    pub recut: Option<usize>,
}

impl Decoded {
    /// Concatenates all good rows into one batch.
    pub(crate) fn into_batch(
        mut self,
        schema: &SchemaRef,
    ) -> Result<(RecordBatch, Vec<u64>, Vec<BadRow>)> {
        let rows = match self.pieces.len() {
            0 => empty(schema, 0)?,
            1 => self.pieces.remove(0),
            // Batches without columns cannot be concatenated.
            _ if schema.fields().is_empty() => empty(schema, self.offsets.len())?,
            _ => concat_batches(schema, &self.pieces)?,
        };
        Ok((rows, self.offsets, self.bad))
    }
}

fn empty(schema: &SchemaRef, rows: usize) -> Result<RecordBatch> {
    if schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        return Ok(RecordBatch::try_new_with_options(schema.clone(), vec![], &options)?);
    }
    Ok(RecordBatch::new_empty(schema.clone()))
}

/// Decodes a run of records, none of them blank.
///
/// # Errors
/// For the first bad row when the stream says `on_bad_row = 'fail'`.
pub(crate) fn decode_run(
    decoder: &mut dyn Decode,
    run: &Run<'_>,
    on_bad: OnBadRow,
    origin: Origin<'_>,
    into: &mut Decoded,
) -> Result<()> {
    let (Some(first), Some(last)) = (run.records.first(), run.records.last()) else {
        return Ok(());
    };
    let text = run.text.get(first.start..last.end).unwrap_or_default();
    let reason = match decoder.decode(text, run.records.len()) {
        Ok(rows) => {
            run.offsets.extend(run.records, &mut into.offsets);
            into.pieces.push(rows);
            return Ok(());
        }
        Err(reason) => reason,
    };
    if run.records.len() > 1 {
        let size = run.records.len().div_ceil(CUT);
        for (number, records) in run.records.chunks(size).enumerate() {
            if into.recut.is_some() {
                break;
            }
            let part = Run { records, offsets: run.offsets.after(number * size), ..*run };
            decode_run(decoder, &part, on_bad, origin, into)?;
        }
        return Ok(());
    }
    let offset = run.offsets.first(first);
    let reason = match decoder.fields(text) {
        Err(reason) => {
            let line = memchr::memchr(b'\n', text.trim_ascii_end()).filter(|_| run.was_cut);
            if let Some(line) = line {
                into.recut = Some(first.start + line + 1);
                let raw = readable(text.get(..line).unwrap_or_default());
                return refuse(BadRow { offset, reason, raw }, on_bad, origin, into);
            }
            reason
        }
        Ok(fields) if on_bad == OnBadRow::Null => match with_nulls(decoder.schema(), fields) {
            Ok(row) => {
                into.offsets.push(offset);
                into.pieces.push(row);
                return Ok(());
            }
            Err(reason) => reason,
        },
        Ok(fields) => fields.into_iter().find_map(Result::err).unwrap_or(reason),
    };
    refuse(BadRow { offset, reason, raw: readable(text) }, on_bad, origin, into)
}

/// Records a bad row, or fails because of it.
///
/// # Errors
/// When the stream says `on_bad_row = 'fail'`.
pub(crate) fn refuse(
    bad: BadRow,
    on_bad: OnBadRow,
    origin: Origin<'_>,
    into: &mut Decoded,
) -> Result<()> {
    if on_bad == OnBadRow::Fail {
        return Err(bad_row(&bad, origin));
    }
    into.bad.push(bad);
    Ok(())
}

/// Returns the error for a bad row.
pub(crate) fn bad_row(bad: &BadRow, origin: Origin<'_>) -> Error {
    let BadRow { offset, reason, raw } = bad;
    let Origin { kind, name, unit } = origin;
    Error::data(format!("{kind} \"{name}\" has a bad row at {unit} {offset}: {reason}"))
        .with_detail(format!("The row is: {raw}"))
        .with_hint("Use on_bad_row = 'dead_letter' to set bad rows aside and continue.")
}

/// Builds one row of the fields, NULL where they are bad.
fn with_nulls(
    schema: &SchemaRef,
    fields: Vec<Result<ArrayRef, String>>,
) -> Result<RecordBatch, String> {
    let mut columns = Vec::with_capacity(fields.len());
    for (field, value) in schema.fields().iter().zip(fields) {
        columns.push(match value {
            Ok(value) => value,
            Err(_) if field.is_nullable() => new_null_array(field.data_type(), 1),
            Err(reason) => return Err(reason),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|e| e.to_string())
}

/// Converts a column from the type in which it was read to the declared type.
///
/// # Errors
/// For the first value that does not fit, naming the column.
pub(crate) fn finish_column(
    read: &ArrayRef,
    field: &Field,
    rules: &NumberRules,
) -> Result<ArrayRef, String> {
    let (name, to) = (field.name(), field.data_type());
    let column = if read.data_type() == to {
        read.clone()
    } else {
        let text = read.as_string_view_opt().ok_or_else(|| {
            format!("column \"{name}\": read as {}, declared as {to}", read.data_type())
        })?;
        let unit = time_unit(to).unwrap_or(TimeUnit::Nanosecond);
        let found = if rules.inferred { check_inferred(text, to) } else { Ok(()) };
        found
            .and_then(|()| from_text(text, to, rules.of(name, unit)))
            .map_err(|why| format!("column \"{name}\": {why}"))?
    };
    keeps_promise(&column, field)?;
    Ok(column)
}

/// Checks that no text contradicts the inferred type, even where it could be converted.
fn check_inferred(text: &StringViewArray, to: &DataType) -> Result<(), String> {
    let contradicts: fn(&str) -> bool = match to {
        DataType::Int64 | DataType::UInt64 | DataType::Decimal128(_, 0) => is_more_than_its_value,
        DataType::Float64 => is_rounded_by_double,
        _ => return Ok(()),
    };
    match text.iter().flatten().find(|value| contradicts(value)) {
        None => Ok(()),
        Some(value) => Err(format!(
            "'{value}' would lose information as {}, the type of the first rows; declare the column, or raise infer_rows",
            sql_type(to)
        )),
    }
}

/// Returns a bad row as shown to users: without line ends, invalid UTF-8 replaced, truncated to a readable length.
pub(crate) fn readable(record: &[u8]) -> String {
    let head = record.get(..RAW_CHARS_MAX * 4).unwrap_or(record);
    let text = String::from_utf8_lossy(head);
    let text = text.trim_end_matches(['\r', '\n']);
    match text.char_indices().nth(RAW_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or(text)),
        None if head.len() < record.len() => format!("{text}…"),
        None => text.to_owned(),
    }
}
