//! Results as text: a table for people, CSV or JSON lines for programs.

mod expanded;
mod table;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use self::table::Table;
pub(crate) use self::table::{cut, visible};
use crate::command::Expanded;
use crate::failure::Failure;
use crate::values::Format;

/// The layout of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// Rows are shown as they arrive; the layout follows the first of them.
    pub(crate) continuous: bool,
    /// The width of the terminal, if the output is one.
    pub(crate) width_max: Option<usize>,
    /// Its height.
    pub(crate) height: Option<usize>,
    /// One value per line instead.
    pub(crate) expanded: Expanded,
    /// With colours.
    pub(crate) colour: bool,
    /// What NULL is shown as; `None`: as usual.
    pub(crate) null: Option<String>,
}

/// A printer of one result.
pub(crate) struct Printer {
    form: Form,
    schema: SchemaRef,
}

enum Form {
    Table(Table),
    Csv { header_due: bool, null: Option<String> },
    Ndjson,
}

impl Printer {
    /// Returns a printer for rows of `schema`.
    pub(crate) fn new(format: Format, schema: SchemaRef, layout: &Layout) -> Self {
        let form = match format {
            Format::Table => Form::Table(Table::new(&schema, layout)),
            Format::Csv => Form::Csv { header_due: true, null: layout.null.clone() },
            Format::Ndjson => Form::Ndjson,
        };
        Self { form, schema }
    }

    /// A notice about how it was printed; empty where everything is shown.
    pub(crate) fn notice(&self) -> String {
        match &self.form {
            Form::Table(table) => table.notice(),
            Form::Csv { .. } | Form::Ndjson => String::new(),
        }
    }

    /// Prints a batch.
    ///
    /// # Errors
    /// When it cannot be written, or a value cannot be formatted.
    pub(crate) fn batch(
        &mut self,
        out: &mut impl Write,
        batch: &RecordBatch,
    ) -> Result<(), Failure> {
        match &mut self.form {
            Form::Table(table) => table.batch(out, batch),
            Form::Csv { header_due, null } => {
                let header = std::mem::take(header_due);
                let batch = with_flat_columns(batch)?;
                let null = null.clone().unwrap_or_default();
                let writer = arrow::csv::WriterBuilder::new().with_header(header).with_null(null);
                let written = writer.build(&mut *out).write(&batch);
                written.map_err(|e| from_arrow(e, out))
            }
            Form::Ndjson => {
                let writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = writer.build::<_, arrow::json::writer::LineDelimited>(&mut *out);
                let written = writer.write(&with_own_names(batch)?).and_then(|()| writer.finish());
                drop(writer);
                written.map_err(|e| from_arrow(e, out))
            }
        }
    }

    /// Closes a result that ended before its time: a table of which something is shown gets its last line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn close(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        if let Form::Table(table) = &mut self.form {
            table.close(out)?;
        }
        Ok(out.flush()?)
    }

    /// Prints what is left at the end of the rows: a table's end, the header of an empty result.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn end(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        match &mut self.form {
            Form::Table(table) => table.end(out)?,
            Form::Csv { header_due: true, .. } => {
                let nothing = RecordBatch::new_empty(Arc::clone(&self.schema));
                self.batch(out, &nothing)?;
            }
            Form::Csv { .. } | Form::Ndjson => {}
        }
        out.flush()?;
        Ok(())
    }
}

/// Arrow's writers wrap the system's error; writing again reveals whether the reader has left.
fn from_arrow(e: arrow::error::ArrowError, out: &mut impl Write) -> Failure {
    match (e, out.flush()) {
        (arrow::error::ArrowError::IoError(_, e), _) | (_, Err(e)) => e.into(),
        (e, Ok(())) => windrow_core::Error::from(e).into(),
    }
}

/// The format of values for people: as in CSV, but NULL is visible.
pub(crate) fn format_options() -> FormatOptions<'static> {
    FormatOptions::new().with_null("NULL")
}

/// Appends `_1`, `_2`, … to the names of columns that repeat an earlier name: a JSON object has each key once.
fn with_own_names(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let fields = batch.schema_ref().fields();
    let names: HashSet<&str> = fields.iter().map(|f| f.name().as_str()).collect();
    if names.len() == fields.len() {
        return Ok(batch.clone());
    }
    let mut seen: HashSet<String> = HashSet::new();
    let mut renamed = vec![];
    for field in fields {
        let mut name = field.name().clone();
        let mut number = 0;
        while seen.contains(&name) || (number > 0 && names.contains(name.as_str())) {
            number += 1;
            name = format!("{}_{number}", field.name());
        }
        seen.insert(name.clone());
        renamed.push(field.as_ref().clone().with_name(name));
    }
    let (schema, options) = (
        Arc::new(Schema::new(renamed)),
        RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
    );
    let named = RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options);
    Ok(named.map_err(windrow_core::Error::from)?)
}

/// Converts nested columns of `batch` to text, because CSV has no others.
fn with_flat_columns(batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let is_flat = |t: &DataType| !t.is_nested();
    if batch.schema_ref().fields().iter().all(|f| is_flat(f.data_type())) {
        return Ok(batch.clone());
    }
    let options = format_options();
    let mut fields = vec![];
    let mut columns = vec![];
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if is_flat(field.data_type()) {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let cells = ArrayFormatter::try_new(column, &options).map_err(windrow_core::Error::from)?;
        let texts: StringArray = (0..column.len())
            .map(|row| column.is_valid(row).then(|| cells.value(row).to_string()))
            .collect();
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        columns.push(Arc::new(texts) as ArrayRef);
    }
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new(schema, columns).map_err(windrow_core::Error::from)?)
}

#[cfg(test)]
mod tests {
    use std::io;

    use arrow::array::{
        Float64Array, Int64Array, ListArray, StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    pub(super) fn sample() -> RecordBatch {
        let columns: [(&str, ArrayRef); 4] = [
            ("k", Arc::new(Int64Array::from(vec![Some(1), None, Some(-30)]))),
            ("name", Arc::new(StringViewArray::from(vec![Some("a,b"), Some("zwei\nlines"), None]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000, -1]))),
            ("x", Arc::new(Float64Array::from(vec![0.5, 2.0, 1e20]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap()
    }

    pub(super) fn print(
        format: Format,
        continuous: bool,
        width_max: Option<usize>,
        schema: SchemaRef,
        batches: &[RecordBatch],
    ) -> String {
        let layout = Layout { continuous, width_max, ..Layout::default() };
        print_as(format, &layout, schema, batches)
    }

    pub(super) fn print_as(
        format: Format,
        layout: &Layout,
        schema: SchemaRef,
        batches: &[RecordBatch],
    ) -> String {
        let mut out = vec![];
        let mut printer = Printer::new(format, schema, layout);
        for batch in batches {
            printer.batch(&mut out, batch).unwrap();
        }
        printer.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_has_its_header_once() {
        let batch = sample();
        let text = print(Format::Csv, true, None, batch.schema(), &[batch.slice(0, 1), batch]);
        assert_eq!(
            text,
            "k,name,at,x\n\
             1,\"a,b\",1970-01-01T00:00:00,0.5\n\
             1,\"a,b\",1970-01-01T00:00:00,0.5\n\
             ,\"zwei\nlines\",1970-01-01T00:00:01.500,2.0\n\
             -30,,1969-12-31T23:59:59.999999,1e20\n"
        );
        assert_eq!(print(Format::Csv, false, None, sample().schema(), &[]), "k,name,at,x\n");
    }

    #[test]
    fn csv_shows_nested_values_as_text() {
        let list =
            ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let batch = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]).unwrap();
        let text = print(Format::Csv, false, None, batch.schema(), &[batch]);
        assert_eq!(text, "l\n\"[1, NULL]\"\n\n".replace("\n\n", "\n\"\"\n"));
    }

    #[test]
    fn ndjson_says_null() {
        let batch = sample().slice(1, 1);
        let text = print(Format::Ndjson, false, None, batch.schema(), &[batch]);
        assert_eq!(
            text,
            "{\"k\":null,\"name\":\"zwei\\nlines\",\"at\":\"1970-01-01T00:00:01.500\",\"x\":2.0}\n"
        );
        assert_eq!(print(Format::Ndjson, false, None, sample().schema(), &[]), "");
    }

    #[test]
    fn ndjson_has_each_key_once() {
        let column = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
        let field = |name: &str| Field::new(name, DataType::Int64, false);
        let fields = ["k", "v", "k", "k", "k_1"].map(field).to_vec();
        let schema = Arc::new(Schema::new(fields));
        let columns = (1..=5).map(column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let text =
            print(Format::Ndjson, false, None, Arc::clone(&schema), std::slice::from_ref(&batch));
        assert_eq!(text, "{\"k\":1,\"v\":2,\"k_2\":3,\"k_3\":4,\"k_1\":5}\n");
        // Where columns are shown beside one another, they keep their names.
        let text = print(Format::Csv, false, None, schema, &[batch]);
        assert!(text.starts_with("k,v,k,k,k_1\n"), "{text}");
    }

    /// A pipe whose reader has left.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_reader_that_leaves_ends_the_output_quietly() {
        for format in [Format::Csv, Format::Ndjson, Format::Table] {
            let mut printer = Printer::new(format, sample().schema(), &Layout::default());
            let printed = printer.batch(&mut Closed, &sample());
            let failure = printed.and_then(|()| printer.end(&mut Closed)).unwrap_err();
            assert!(matches!(failure, Failure::ReaderLeft), "{format:?}: {failure:?}");
        }
    }
}
