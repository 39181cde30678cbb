//! Columns of text with a length: `VARCHAR(3)`. A longer text makes a row of a connector bad, and an INSERT fail.
//!
//! Invariant: whether a row of a connector is bad does not depend on which columns a query reads. So the columns
//! with a length are always read.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{self, ColumnDef};
use windrow_core::{Error, Reader, Result, ScanRequest, Source, SourceBatch, Split};
use windrow_sql::parse::characters_max;

use crate::altered::Alteration;
use crate::bad::{OnBad, taken_out};

/// Characters of a text that a message shows at most.
const SHOWN_MAX: usize = 40;

/// Columns with a length, by index, and the maximum number of characters of each.
#[derive(Debug, Clone, Default)]
pub struct Lengths(Vec<(usize, u64)>);

impl Lengths {
    /// Returns the lengths of the columns that are not generated; indexes are among these.
    pub fn of<'a>(physical: impl Iterator<Item = &'a ColumnDef>) -> Self {
        let lengths = physical.enumerate();
        Self(lengths.filter_map(|(i, c)| Some((i, characters_max(&c.data_type)?))).collect())
    }

    /// Whether no column has a length.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns why a text is too long for a column, for the first such row; `None`: all fit.
    pub(crate) fn refused(&self, column: usize, text: &ArrayRef) -> Result<Option<String>> {
        let Some((_, most)) = self.0.iter().find(|(at, _)| *at == column) else { return Ok(None) };
        let (row, found) = (longer(text, *most)?, shown(text));
        Ok(row.first().map(|row| format!("{} is longer than VARCHAR({most})", found(*row))))
    }
}

/// The indexes of the rows whose text has more than `most` characters.
fn longer(text: &ArrayRef, most: u64) -> Result<Vec<usize>> {
    let text = cast(text, &DataType::Utf8View)?;
    let rows = text.as_string_view().iter().enumerate();
    // No text has more characters than bytes.
    let long = |text: &str| text.len() as u64 > most && text.chars().count() as u64 > most;
    Ok(rows.filter(|(_, text)| text.is_some_and(long)).map(|(row, _)| row).collect())
}

/// Returns a function that shows the text of a row in a message, shortened.
fn shown(text: &ArrayRef) -> impl Fn(usize) -> String {
    let text = cast(text, &DataType::Utf8View);
    move |row| {
        let text = text.as_ref().ok().map_or("", |text| text.as_string_view().value(row));
        let start: String = text.chars().take(SHOWN_MAX).collect();
        if start.len() < text.len() { format!("'{start}…'") } else { format!("'{start}'") }
    }
}

/// Refuses lengths in a new reference table, which cannot enforce them.
///
/// # Errors
/// When a column has a length.
pub fn no_lengths(statement: &EngineStatement) -> Result<()> {
    let columns = match statement {
        EngineStatement::Statement(statement) => match statement.as_ref() {
            ast::Statement::CreateTable(table) => &table.columns,
            _ => return Ok(()),
        },
        EngineStatement::CreateExternalTable(table) => &table.columns,
        _ => return Ok(()),
    };
    match columns.iter().find(|column| characters_max(&column.data_type).is_some()) {
        Some(column) => Err(Error::sql(format!(
            "column \"{}\" is {}, but tables keep no lengths",
            column.name.value, column.data_type
        ))
        .with_hint("Declare it as VARCHAR; columns of streams may have a length.")),
        None => Ok(()),
    }
}

/// The transformation that makes rows with too long a text bad.
#[derive(Debug)]
pub struct Limited {
    /// The maximum lengths of the text columns.
    pub lengths: Lengths,
    /// The treatment of rows with a longer text.
    pub on_bad: OnBad,
}

#[async_trait]
impl Alteration for Limited {
    fn schema(&self, read: SchemaRef) -> SchemaRef {
        read
    }

    async fn open(
        &self,
        source: &dyn Source,
        split: &Split,
        scan: &ScanRequest,
    ) -> Result<Box<dyn Reader>> {
        let mut read = scan.projection.clone();
        let more = self.lengths.0.iter().map(|(column, _)| *column);
        read.extend(more.filter(|column| !scan.projection.contains(column)));
        read.sort_unstable();
        let place = |column: &usize| read.binary_search(column).unwrap_or_default();
        let wanted = scan.projection.iter().map(place).collect();
        let limits = self.lengths.0.iter().map(|(column, most)| (place(column), *most)).collect();
        let request = ScanRequest { projection: read.clone(), ..scan.clone() };
        let inner = source.open(split, &request).await?;
        Ok(Box::new(LimitedReader { inner, limits, wanted, on_bad: self.on_bad }))
    }
}

struct LimitedReader {
    inner: Box<dyn Reader>,
    /// Indexes of the columns as they are read, with their lengths.
    limits: Vec<(usize, u64)>,
    /// Indexes of the wanted columns among those that are read.
    wanted: Vec<usize>,
    on_bad: OnBad,
}

#[async_trait]
impl Reader for LimitedReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let Some(batch) = self.inner.next().await? else { return Ok(None) };
        let mut batch = self.checked(batch)?;
        batch.rows = batch.rows.project(&self.wanted)?;
        Ok(Some(batch))
    }
}

impl LimitedReader {
    fn checked(&self, mut batch: SourceBatch) -> Result<SourceBatch> {
        let mut reasons: Vec<(usize, String)> = vec![];
        let mut nulled = vec![];
        for (column, most) in &self.limits {
            let text = batch.rows.column(*column);
            let name = batch.rows.schema_ref().field(*column).name();
            let found = shown(text);
            let rows = longer(text, *most)?;
            if self.on_bad == OnBad::Null && batch.rows.schema_ref().field(*column).is_nullable() {
                nulled.push((*column, rows));
                continue;
            }
            for row in rows {
                let reason =
                    format!("column \"{name}\": {} is longer than VARCHAR({most})", found(row));
                reasons.push((row, reason));
            }
        }
        for (column, rows) in nulled {
            batch.rows = without(&batch.rows, column, &rows)?;
        }
        taken_out(batch, reasons, self.on_bad)
    }
}

/// Returns the batch with NULL in a column of these rows.
fn without(batch: &RecordBatch, column: usize, rows: &[usize]) -> Result<RecordBatch> {
    if rows.is_empty() {
        return Ok(batch.clone());
    }
    let gone: BooleanArray =
        (0..batch.num_rows()).map(|row| Some(rows.binary_search(&row).is_ok())).collect();
    let mut columns = batch.columns().to_vec();
    if let Some(text) = columns.get_mut(column) {
        *text = nullif(text, &gone)?;
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}
