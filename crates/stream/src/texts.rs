//! Columns of text with a condition: `VARCHAR(3)`, `JSON`. A text that is longer, or not JSON, makes a row of a connector bad, and
//! an INSERT fail.
//!
//! Invariant: whether a row of a connector is bad does not depend on which columns a query reads. So the columns
//! with a condition are always read.

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{self, ColumnDef};
use windrow_core::{Error, Reader, Result, ScanRequest, Source, SourceBatch, Split};
use windrow_sql::not_json;
use windrow_sql::parse::characters_max;
use windrow_sql::plan::sql_type_of;

use crate::altered::Alteration;
use crate::bad::{OnBad, taken_out};

/// Characters of a text that a message shows at most.
const SHOWN_MAX: usize = 40;

/// What the texts of a column must be.
#[derive(Debug, Clone, Copy)]
enum Condition {
    /// They have at most this number of characters.
    Length(u64),
    /// They are JSON.
    Json,
}

/// Columns of text with a condition, by index.
#[derive(Debug, Clone, Default)]
pub struct Texts(Vec<(usize, Condition)>);

impl Texts {
    /// Returns the conditions of the columns that are not generated; indexes are among these.
    pub fn of<'a>(physical: impl Iterator<Item = &'a ColumnDef>) -> Self {
        let conditions = physical.enumerate();
        Self(conditions.filter_map(|(i, c)| Some((i, Condition::of(&c.data_type)?))).collect())
    }

    /// Returns the conditions of the columns of a query, which have no declared lengths.
    pub fn of_query(schema: &Schema) -> Self {
        let fields = schema.fields().iter().enumerate();
        let json = fields.filter(|(_, field)| sql_type_of(field) == "JSON");
        Self(json.map(|(column, _)| (column, Condition::Json)).collect())
    }

    /// Whether no column has a condition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns why a text does not fit a column, and what to do, for the first such row; `None`: all fit.
    pub(crate) fn refused(
        &self,
        column: usize,
        text: &ArrayRef,
    ) -> Result<Option<(String, &'static str)>> {
        let condition = self.0.iter().find(|(at, _)| *at == column);
        let Some((_, condition)) = condition else { return Ok(None) };
        let hint = match condition {
            Condition::Length(_) => "Truncate it with left(…, n) or a CAST.",
            Condition::Json => "Use TRY_CAST(… AS JSON), which is NULL where the text is not JSON.",
        };
        Ok(condition.broken(text)?.into_iter().next().map(|(_, why)| (why, hint)))
    }
}

impl Condition {
    fn of(data_type: &ast::DataType) -> Option<Self> {
        match data_type {
            ast::DataType::JSON | ast::DataType::JSONB => Some(Self::Json),
            other => characters_max(other).map(Self::Length),
        }
    }

    /// Returns the rows whose text does not meet it, in order, and why.
    fn broken(self, text: &ArrayRef) -> Result<Vec<(usize, String)>> {
        let texts = cast(text, &DataType::Utf8View)?;
        let rows = texts.as_string_view().iter().enumerate();
        let rows = rows.filter_map(|(row, text)| Some((row, text?)));
        Ok(rows.filter_map(|(row, text)| Some((row, self.why(text)?))).collect())
    }

    /// Returns why a text does not meet it; `None`: it does.
    fn why(self, text: &str) -> Option<String> {
        match self {
            Self::Length(most) => {
                // No text has more characters than bytes.
                let long = text.len() as u64 > most && text.chars().count() as u64 > most;
                long.then(|| format!("{} is longer than VARCHAR({most})", shown(text)))
            }
            Self::Json => Some(format!("{} is not JSON: {}", shown(text), not_json(text)?)),
        }
    }
}

/// Shows a text in a message, shortened.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_MAX).collect();
    if start.len() < text.len() { format!("'{start}…'") } else { format!("'{start}'") }
}

/// Refuses lengths and JSON in a new reference table, which cannot enforce them.
///
/// # Errors
/// When a column has a length, or is JSON.
pub fn no_lengths(statement: &EngineStatement) -> Result<()> {
    let columns = match statement {
        EngineStatement::Statement(statement) => match statement.as_ref() {
            ast::Statement::CreateTable(table) => &table.columns,
            _ => return Ok(()),
        },
        EngineStatement::CreateExternalTable(table) => &table.columns,
        _ => return Ok(()),
    };
    match columns.iter().find(|column| Condition::of(&column.data_type).is_some()) {
        Some(column) => {
            let what = match Condition::of(&column.data_type) {
                Some(Condition::Json) => "do not check JSON",
                _ => "keep no lengths",
            };
            Err(Error::sql(format!(
                "column \"{}\" is {}, but tables {what}",
                column.name.value, column.data_type
            ))
            .with_hint("Declare it as VARCHAR; columns of streams may have a length, and be JSON."))
        }
        None => Ok(()),
    }
}

/// The transformation that makes rows with a text that does not fit its column bad.
#[derive(Debug)]
pub struct Limited {
    /// What the texts of columns must be.
    pub texts: Texts,
    /// The treatment of rows with another text.
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
        let more = self.texts.0.iter().map(|(column, _)| *column);
        read.extend(more.filter(|column| !scan.projection.contains(column)));
        read.sort_unstable();
        let place = |column: &usize| read.binary_search(column).unwrap_or_default();
        let wanted = scan.projection.iter().map(place).collect();
        let limits = self.texts.0.iter().map(|(column, what)| (place(column), *what)).collect();
        let request = ScanRequest { projection: read.clone(), ..scan.clone() };
        let inner = source.open(split, &request).await?;
        Ok(Box::new(LimitedReader { inner, limits, wanted, on_bad: self.on_bad }))
    }
}

struct LimitedReader {
    inner: Box<dyn Reader>,
    /// Indexes of the columns as they are read, with their conditions.
    limits: Vec<(usize, Condition)>,
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
        for (column, condition) in &self.limits {
            let name = batch.rows.schema_ref().field(*column).name();
            let broken = condition.broken(batch.rows.column(*column))?;
            if self.on_bad == OnBad::Null && batch.rows.schema_ref().field(*column).is_nullable() {
                nulled.push((*column, broken.into_iter().map(|(row, _)| row).collect::<Vec<_>>()));
                continue;
            }
            let named = |(row, why): (usize, String)| (row, format!("column \"{name}\": {why}"));
            reasons.extend(broken.into_iter().map(named));
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
