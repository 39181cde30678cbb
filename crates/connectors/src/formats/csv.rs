//! CSV (RFC 4180, with other delimiters, quotes and escapes where configured).
//!
//! Columns are found by the names in the header, or by position where there is none; a column missing from the header
//! is NULL. An empty field is NULL. Every record has as many fields as the header (or the first record). All declared
//! columns that can be invalid are decoded, whatever a query reads.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use regex::Regex;
use windrow_core::{Error, Result, sql_type};

use super::convert::NumberRules;
use super::decode::{Decode, Looks, finish_column};
use super::records::Framing;

/// The CSV style of the files of a stream.
#[derive(Debug, Clone)]
pub(crate) struct CsvStyle {
    /// The delimiter; `None`: a tab in `.tsv` files, else a comma.
    pub delimiter: Option<u8>,
    /// Whether the first record names the columns.
    pub header: bool,
    /// Opens and closes a field.
    pub quote: u8,
    /// Removes the special meaning of the next character in a quoted field.
    pub escape: Option<u8>,
    /// The text that means NULL besides the empty field.
    pub null: Option<String>,
}

/// The style of one file.
#[derive(Debug, Clone)]
pub(crate) struct CsvDialect {
    delimiter: u8,
    /// Whether the first record names the columns.
    pub header: bool,
    quote: u8,
    escape: Option<u8>,
    null: Option<Regex>,
}

impl CsvStyle {
    /// Returns the style of one file; `tab`: its fields are separated by tabs unless the options say otherwise.
    ///
    /// # Errors
    /// When the text for NULL cannot be used.
    pub(crate) fn of_file(&self, tab: bool) -> Result<CsvDialect> {
        let null = self.null.as_ref().map(|word| {
            Regex::new(&format!("^({})?$", regex::escape(word)))
                .map_err(|e| Error::config(format!("option \"null\" cannot be used: {e}")))
        });
        Ok(CsvDialect {
            delimiter: self.delimiter.unwrap_or(if tab { b'\t' } else { b',' }),
            header: self.header,
            quote: self.quote,
            escape: self.escape,
            null: null.transpose()?,
        })
    }
}

impl CsvDialect {
    /// How records are delimited.
    pub(crate) fn framing(&self) -> Framing {
        let Self { quote, escape, delimiter, .. } = *self;
        Framing::Quoted { quote, escape, delimiter }
    }

    fn builder(&self, schema: SchemaRef) -> ReaderBuilder {
        let mut builder = ReaderBuilder::new(schema)
            .with_delimiter(self.delimiter)
            .with_quote(self.quote)
            .with_header(false);
        if let Some(escape) = self.escape {
            builder = builder.with_escape(escape);
        }
        if let Some(null) = &self.null {
            builder = builder.with_null_regex(null.clone());
        }
        builder
    }

    /// Splits one record into its fields as text.
    ///
    /// # Errors
    /// When it is not a single record, as a sentence for messages.
    pub(crate) fn split(&self, record: &[u8]) -> Result<Vec<Option<String>>, String> {
        let reader = csv_reader(self, record);
        let mut found = None;
        for row in reader {
            let row = row?;
            if found.replace(row).is_some() {
                return Err("the line holds more than one record".to_owned());
            }
        }
        found.ok_or_else(|| "the record is empty".to_owned())
    }
}

/// Splits text into records of any number of fields. For headers, inference and bad rows only.
fn csv_reader<'a>(
    dialect: &'a CsvDialect,
    text: &'a [u8],
) -> impl Iterator<Item = Result<Vec<Option<String>>, String>> + 'a {
    let mut builder = csv_core::ReaderBuilder::new();
    builder.delimiter(dialect.delimiter).quote(dialect.quote).escape(dialect.escape);
    let mut reader = builder.build();
    let mut rest = text;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut fields: Vec<Vec<u8>> = vec![vec![]];
        let mut out = [0_u8; 1024];
        loop {
            let (result, read, written) = reader.read_field(rest, &mut out);
            rest = rest.get(read..).unwrap_or_default();
            if let Some(field) = fields.last_mut() {
                field.extend_from_slice(out.get(..written).unwrap_or_default());
            }
            match result {
                csv_core::ReadFieldResult::InputEmpty | csv_core::ReadFieldResult::OutputFull => {}
                csv_core::ReadFieldResult::Field { record_end: false } => fields.push(vec![]),
                csv_core::ReadFieldResult::Field { record_end: true } => break,
                csv_core::ReadFieldResult::End => {
                    ended = true;
                    return None;
                }
            }
        }
        let text = |field: Vec<u8>| {
            String::from_utf8(field).map_err(|_| "the record is not valid UTF-8".to_owned())
        };
        let is_null = |s: &String| match &dialect.null {
            Some(null) => null.is_match(s),
            None => s.is_empty(),
        };
        let fields = fields.into_iter().map(|f| text(f).map(|s| (!is_null(&s)).then_some(s)));
        Some(fields.collect())
    })
}

/// The positions of the declared columns in a file.
#[derive(Debug, Clone)]
pub(crate) struct CsvColumns {
    /// Fields in each record.
    pub count: usize,
    /// For each declared column, its field; `None`: missing from the file.
    pub fields: Vec<Option<usize>>,
}

impl CsvColumns {
    /// Finds the declared columns in the first record (as text) of file `name`. Where the columns were inferred from
    /// several files, a file without header may have fewer.
    ///
    /// # Errors
    /// When it is not a record, when it lacks a column that is declared NOT NULL, and when it has no header and too few
    /// fields.
    pub(crate) fn of_first(
        declared: &Schema,
        dialect: &CsvDialect,
        (first, inferred): (&[u8], bool),
        name: &str,
    ) -> Result<Self> {
        let first = dialect
            .split(first)
            .map_err(|why| Error::data(format!("the header of file \"{name}\" is wrong: {why}")))?;
        let wanted = declared.fields();
        let count = first.len();
        if !dialect.header {
            if count < wanted.len() && !inferred {
                return Err(Error::data(format!(
                    "file \"{name}\" has {count} fields in its first record, {} columns are declared",
                    wanted.len()
                ))
                .with_hint("Without header, columns are found by position."));
            }
            let fields = (0..wanted.len()).map(|at| (at < count).then_some(at)).collect();
            return Ok(Self { count, fields });
        }
        let names: Vec<&str> =
            first.iter().map(|f| f.as_deref().unwrap_or_default().trim()).collect();
        let find = |wanted: &str| {
            let same = |n: &&str| **n == *wanted;
            let nearly =
                |n: &&str| n.eq_ignore_ascii_case(wanted) && declared.column_with_name(n).is_none();
            names.iter().position(same).or_else(|| names.iter().position(nearly))
        };
        let fields = wanted.iter().map(|field| match find(field.name()) {
            None if !field.is_nullable() => Err(missing_column(name, field.name(), &names)),
            found => Ok(found),
        });
        Ok(Self { count, fields: fields.collect::<Result<_>>()? })
    }
}

/// Returns the error for a file that lacks a declared column.
pub(crate) fn missing_column(file: &str, column: &str, known: &[&str]) -> Error {
    Error::data(format!("file \"{file}\" has no column \"{column}\""))
        .with_hint(format!("Its columns are: {}.", known.join(", ")))
}

/// Checks that CSV fields can be converted to these types.
///
/// # Errors
/// When they cannot.
pub(crate) fn check_types(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|f| f.data_type().is_nested()) {
        None => Ok(()),
        Some(field) => Err(Error::config(format!(
            "column \"{}\" is {}, which CSV cannot hold",
            field.name(),
            sql_type(field.data_type())
        ))
        .with_hint("Declare it as VARCHAR.")),
    }
}

/// A decoder of CSV records.
pub(crate) struct CsvDecoder {
    dialect: CsvDialect,
    columns: CsvColumns,
    rules: NumberRules,
    declared: SchemaRef,
    wanted: SchemaRef,
    projection: Vec<usize>,
    /// The file's fields, and those that are read, ascending.
    file_schema: SchemaRef,
    read: Vec<usize>,
    rows_max: usize,
    decoder: Option<(usize, Decoder)>,
}

/// Rows that the small decoder takes, which exists for finding bad rows.
const FEW: usize = 32;

impl CsvDecoder {
    pub(crate) fn new(
        dialect: CsvDialect,
        (columns, rules): (CsvColumns, NumberRules),
        declared: SchemaRef,
        (projection, wanted): (Vec<usize>, SchemaRef),
        rows_max: usize,
    ) -> Self {
        let mut types = vec![DataType::Utf8View; columns.count];
        let mut read = vec![];
        for (index, (field, at)) in declared.fields().iter().zip(&columns.fields).enumerate() {
            let Some(at) = *at else { continue };
            if !goes_by_text(field.data_type(), rules.inferred)
                && let Some(slot) = types.get_mut(at)
            {
                *slot = field.data_type().clone();
            }
            if may_be_wrong(field) || projection.contains(&index) {
                read.push(at);
            }
        }
        if read.is_empty() {
            // At least one field must be read to validate the records.
            read.push(0);
        }
        read.sort_unstable();
        read.dedup();
        let field = |(i, t): (usize, DataType)| Field::new(format!("{i}"), t, true);
        let fields: Vec<Field> = types.into_iter().enumerate().map(field).collect();
        let file_schema = Arc::new(Schema::new(fields));
        Self {
            dialect,
            columns,
            rules,
            declared,
            wanted,
            projection,
            file_schema,
            read,
            rows_max,
            decoder: None,
        }
    }

    fn read(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String> {
        let room = if rows < FEW { FEW } else { self.rows_max.max(rows) + 1 };
        let (_, mut decoder) = match self.decoder.take() {
            Some((has, decoder)) if has == room => (has, decoder),
            _ => {
                let builder = self.dialect.builder(self.file_schema.clone());
                let builder = builder.with_batch_size(room).with_projection(self.read.clone());
                (room, builder.build_decoder())
            }
        };
        let mut rest = text;
        while !rest.is_empty() {
            let used = decoder.decode(rest).map_err(|e| plain(&e))?;
            if used == 0 {
                break;
            }
            rest = rest.get(used..).unwrap_or_default();
        }
        if !text.ends_with(b"\n") {
            decoder.decode(b"\n").map_err(|e| plain(&e))?;
        }
        let batch = decoder.flush().map_err(|e| plain(&e))?.ok_or("the record is empty")?;
        if !rest.is_empty() || batch.num_rows() != rows {
            return Err("the line is not exactly one record".to_owned());
        }
        self.decoder = Some((room, decoder));
        Ok(batch)
    }

    /// Returns the declared column `index` of a decoded batch.
    fn column(&self, batch: &RecordBatch, index: usize) -> Result<ArrayRef, String> {
        let field = self.declared.fields().get(index).ok_or("no such column")?;
        let Some(at) = self.columns.fields.get(index).ok_or("no such column")? else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        let place = self.read.binary_search(at).map_err(|_| "a column was not read")?;
        let read = batch.columns().get(place).ok_or("a column was not read")?;
        finish_column(read, field, &self.rules)
    }
}

impl Decode for CsvDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.wanted
    }

    fn looks(&self, record: &[u8]) -> Looks {
        match record {
            [b'\r' | b'\n', ..] if record.iter().all(|b| matches!(b, b'\r' | b'\n')) => {
                Looks::Blank
            }
            [] => Looks::Blank,
            [inner @ .., _] if memchr::memchr(b'\n', inner).is_some() => {
                if self.dialect.framing().is_well_quoted(record) {
                    Looks::Whole
                } else {
                    Looks::Runaway
                }
            }
            _ => Looks::Whole,
        }
    }

    fn decode(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String> {
        let batch = self.read(text, rows)?;
        let mut wanted: Vec<ArrayRef> = Vec::with_capacity(self.projection.len());
        for index in 0..self.declared.fields().len() {
            let asked = self.projection.contains(&index);
            if asked || self.declared.fields().get(index).is_some_and(|f| may_be_wrong(f.as_ref()))
            {
                let column = self.column(&batch, index)?;
                if asked {
                    wanted.push(column);
                }
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.wanted.clone(), wanted, &options)
            .map_err(|e| e.to_string())
    }

    fn fields(&mut self, record: &[u8]) -> Result<Vec<Result<ArrayRef, String>>, String> {
        let texts = self.dialect.split(record)?;
        if texts.len() != self.columns.count {
            return Err(format!(
                "the record has {} fields, not {}",
                texts.len(),
                self.columns.count
            ));
        }
        let mut values = vec![];
        for index in 0..self.declared.fields().len() {
            let value = self.field(record, &texts, index);
            let nullable = self.declared.fields().get(index).is_some_and(|f| f.is_nullable());
            if self.projection.contains(&index) {
                values.push(value);
            } else if !nullable && let Err(reason) = value {
                return Err(reason);
            }
        }
        Ok(values)
    }
}

impl CsvDecoder {
    /// Returns the value of one column of one record.
    fn field(
        &self,
        record: &[u8],
        texts: &[Option<String>],
        index: usize,
    ) -> Result<ArrayRef, String> {
        let at = self.columns.fields.get(index).copied().flatten();
        let Some(at) = at else {
            let field = self.declared.fields().get(index).ok_or("no such column")?;
            return Ok(new_null_array(field.data_type(), 1));
        };
        let alone = Self {
            dialect: self.dialect.clone(),
            columns: self.columns.clone(),
            rules: self.rules.clone(),
            declared: self.declared.clone(),
            wanted: self.wanted.clone(),
            projection: vec![],
            file_schema: self.file_schema.clone(),
            read: vec![at],
            rows_max: 1,
            decoder: None,
        };
        let mut alone = alone;
        alone.read(record, 1).and_then(|batch| alone.column(&batch, index)).map_err(|why| {
            let Some(field) = self.declared.fields().get(index) else { return why };
            match texts.get(at) {
                Some(Some(text)) if !why.starts_with("column") => format!(
                    "column \"{}\": '{text}' is not {}",
                    field.name(),
                    sql_type(field.data_type())
                ),
                _ => why,
            }
        })
    }
}

/// Whether a column of this type is read as text first and converted by Windrow's own rules: times, decimals, and
/// inferred numbers, whose text carries more than their value.
fn goes_by_text(data_type: &DataType, inferred: bool) -> bool {
    let is_found = matches!(data_type, DataType::Int64 | DataType::UInt64 | DataType::Float64);
    matches!(data_type, DataType::Timestamp(..) | DataType::Decimal128(..))
        || (inferred && is_found)
}

/// Whether a field can be invalid. A nullable text field cannot: it is read only when it is wanted.
fn may_be_wrong(field: &Field) -> bool {
    !field.is_nullable() || !is_text(field.data_type())
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn plain(e: &arrow::error::ArrowError) -> String {
    let text = e.to_string();
    text.strip_prefix("Csv error: ").unwrap_or(&text).to_owned()
}
