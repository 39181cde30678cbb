//! Converts rows of a schema to rows of a stream: mapping and conversion of columns, with rows that do not fit separated.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{FieldRef, Fields, SchemaRef};
use windrow_core::{Error, Result, sql_type};

use super::columns::{Place, find_columns};
use super::unfit::{Fitting, fitting};
use crate::formats::convert::{NumberRules, keeps_promise};
use crate::formats::decode::OnBadRow;

/// The conversion of rows of one schema to rows of a stream.
#[derive(Debug)]
pub(crate) struct Typed {
    declared: SchemaRef,
    /// The place of each declared column; `None`: the schema lacks it.
    places: Vec<Option<Place>>,
    projection: Vec<usize>,
    pub(super) on_bad: OnBadRow,
}

/// The wanted columns of the rows that fit.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub rows: RecordBatch,
    /// Marks the rows that fit; `None`: all do.
    pub kept: Option<BooleanArray>,
    /// The others, ascending, each with the reason.
    pub unfit: Vec<(usize, String)>,
}

impl Typed {
    /// Maps the columns of a schema `of` (`file "x"`) to the declared ones, of which `projection` are wanted.
    ///
    /// # Errors
    /// When one has a type that cannot become the declared one, or is missing and declared NOT NULL.
    pub(crate) fn new(
        has: &Fields,
        (declared, projection): (&SchemaRef, Vec<usize>),
        (rules, on_bad): (&NumberRules, OnBadRow),
        of: &str,
    ) -> Result<Self> {
        let places = find_columns(has, declared, rules, of)?;
        Ok(Self { declared: SchemaRef::clone(declared), places, projection, on_bad })
    }

    /// Converts all declared columns of rows, whatever a query reads.
    ///
    /// # Errors
    /// When rows cannot be taken out of the batch.
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<Fitted> {
        if let Ok(rows) = self.convert(batch) {
            return Ok(Fitted { rows: self.wanted(&rows)?, kept: None, unfit: vec![] });
        }
        let fields = self.places.iter().zip(self.declared.fields());
        let columns: Vec<_> =
            fields.filter_map(|(place, field)| place.map(|p| (p.root, p, &**field))).collect();
        let Fitting { rows, kept, unfit } = fitting(batch, &columns, self.on_bad)?;
        let rows = self.convert(&rows).map_err(Error::data)?;
        Ok(Fitted { rows: self.wanted(&rows)?, kept: Some(kept), unfit })
    }

    fn wanted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.project(&self.projection)?)
    }

    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let fields = self.places.iter().zip(self.declared.fields());
        let columns = fields.map(|(place, field)| column(batch, *place, field));
        let columns = columns.collect::<Result<Vec<ArrayRef>, String>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(SchemaRef::clone(&self.declared), columns, &options)
            .map_err(|e| e.to_string())
    }
}

fn column(batch: &RecordBatch, place: Option<Place>, field: &FieldRef) -> Result<ArrayRef, String> {
    let (name, to) = (field.name(), field.data_type());
    let Some((place, column)) = place.and_then(|p| Some((p, batch.columns().get(p.root)?))) else {
        return Ok(new_null_array(to, batch.num_rows()));
    };
    let column = place
        .convert(column, to)
        .map_err(|e| format!("column \"{name}\" has a value that is not {}: {e}", sql_type(to)))?;
    keeps_promise(&column, field)?;
    Ok(column)
}
