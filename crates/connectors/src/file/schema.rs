//! The columns of a file source: declared ones are searched for, others inferred, over all files.
//!
//! The result does not depend on the order of the files: differing types are unified without loss, or it is an error
//! that names two files. A column missing from some files is NULL there; a column missing from all is an error where
//! files list their columns (CSV with a header, Parquet, Avro), and a notice where they do not (JSON).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, ErrorKind, Result};

use super::avro::AvroFile;
use super::infer::Guess;
use super::location::Found;
use super::parquet::ParquetFile;
use super::sample::{Sample, Seen, first_records, look};
use super::text::{TextFile, TextFormat};
use super::{FileSource, Format, nothing};
use crate::formats::convert::BareNumber;
use crate::formats::csv::{CsvColumns, check_types, missing_column};
use crate::formats::json::JsonDecoder;
use crate::formats::typed::Union;
use crate::options::nearest;

/// Of more files than these, only the first and the last are read.
const FILES_MAX: usize = 1_000;
/// Rows read from each file, at least.
const ROWS_OF_EACH: usize = 100;
/// Footers fetched concurrently.
const FOOTERS_AT_ONCE: usize = 8;

impl FileSource {
    /// Infers the columns. With the option `epoch`, a numeric event-time column `time` is a time. Oddities of its
    /// values are added to `notices`.
    pub(super) async fn infer(
        &self,
        found: &[Found],
        time: Option<&str>,
        notices: &mut Vec<String>,
    ) -> Result<SchemaRef> {
        let schema = match self.format {
            Format::Parquet => self.infer_parquet(found).await?,
            Format::Avro => self.infer_avro(found).await?,
            Format::Json | Format::Csv => {
                let (files, rows) = self.sampled(found)?;
                let sample = look(&files, rows, |_| false, &self.env.io).await?;
                if sample.columns.is_empty() {
                    let names: Vec<&str> = files.iter().take(3).map(|f| f.name.as_str()).collect();
                    return Err(Error::data(format!(
                        "the columns cannot be inferred: there are no rows in \"{}\"",
                        names.join("\", \"")
                    ))
                    .with_hint("Declare the columns: CREATE STREAM s (column TYPE, …) WITH (…)."));
                }
                let times = time.and_then(|time| sample.columns.get(sample.position(time)?));
                notices.extend(times.and_then(|seen| match (&seen.guess, self.rules.epoch) {
                    (Guess::Timestamp(true), _) => Some(written_in_1970(&seen.name)),
                    (Guess::Whole(min, max), Some(unit)) => in_1970(&seen.name, (*min, *max), unit),
                    _ => None,
                }));
                sample.into_schema()?
            }
        };
        let Some(epoch) = self.rules.epoch else { return Ok(Arc::new(schema)) };
        let unit = epoch.max(TimeUnit::Microsecond);
        let field = |field: &Arc<Field>| match field.data_type() {
            number if Some(field.name().as_str()) == time && number.is_numeric() => {
                let is_time = DataType::Timestamp(unit, None);
                Arc::new(field.as_ref().clone().with_data_type(is_time))
            }
            _ => Arc::clone(field),
        };
        Ok(Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())))
    }

    async fn infer_parquet(&self, found: &[Found]) -> Result<Schema> {
        let mut union = Union::default();
        let mut left_out = None;
        let footers: Vec<BoxFuture<'_, Result<Arc<ParquetFile>>>> =
            found.iter().map(|found| self.footer(found).boxed()).collect();
        let mut footers = stream::iter(footers).buffered(FOOTERS_AT_ONCE);
        while let Some(file) = footers.next().await {
            match file {
                Ok(file) => union.add(file.metadata.schema().fields(), &file.name)?,
                // It may be half written; it is retried.
                Err(e) if self.options.follow && e.kind() == ErrorKind::Data => {
                    left_out.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        match (union.is_empty(), left_out) {
            (true, Some(e)) => Err(e),
            (true, None) => Err(nothing(&self.options)),
            (false, _) => Ok(union.into_schema()),
        }
    }

    async fn infer_avro(&self, found: &[Found]) -> Result<Schema> {
        let mut union = Union::default();
        let mut left_out = None;
        let headers: Vec<BoxFuture<'_, Result<AvroFile>>> =
            found.iter().map(|found| self.avro_file(found).boxed()).collect();
        let mut headers = stream::iter(headers).buffered(FOOTERS_AT_ONCE);
        while let Some(file) = headers.next().await {
            match file {
                Ok(file) => union.add(file.columns()?.fields(), file.name())?,
                // It may be half written; it is retried.
                Err(e) if self.options.follow && e.kind() == ErrorKind::Data => {
                    left_out.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        match (union.is_empty(), left_out) {
            (true, Some(e)) => Err(e),
            (true, None) => Err(nothing(&self.options)),
            (false, _) => Ok(union.into_schema()),
        }
    }

    async fn check_avro(&self, found: &[Found]) -> Result<Vec<String>> {
        let mut left: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let mut first: Option<AvroFile> = None;
        for found in found {
            let file = match self.avro_file(found).await {
                Err(e) if self.options.follow && e.kind() == ErrorKind::Data => continue,
                file => file?,
            };
            let everything = (0..self.schema.fields().len()).collect();
            file.typed((&self.schema, everything), (&self.rules, self.options.on_bad))?;
            left.retain(|column| !file.has(column));
            first.get_or_insert(file);
            if left.is_empty() {
                break;
            }
        }
        match (left.first(), first) {
            (Some(column), Some(first)) => {
                Err(self.nowhere(found.len(), first.name(), column, &first.field_names()))
            }
            _ => Ok(vec![]),
        }
    }

    /// Returns the text files that are sampled, and how many rows of each.
    fn sampled(&self, found: &[Found]) -> Result<(Vec<Arc<TextFile>>, usize)> {
        let half = FILES_MAX / 2;
        let last = found.len().saturating_sub(half).max(half).min(found.len());
        let first = found.get(..half.min(found.len())).unwrap_or_default();
        let last = found.get(last..).unwrap_or_default();
        let files: Vec<Arc<TextFile>> = first
            .iter()
            .chain(last)
            .map(|found| self.text_file(found, 0, None).map(Arc::new))
            .collect::<Result<_>>()?;
        let rows = self.options.infer_rows;
        Ok((files, (rows / found.len().max(1)).max(rows.min(ROWS_OF_EACH))))
    }

    /// Searches the files for the declared columns, so that a wrong declaration is reported at once and not by the
    /// first query. Usually the first file has them all, and no other is read. Returns notices.
    pub(super) async fn check(&self, found: &[Found]) -> Result<Vec<String>> {
        match self.format {
            Format::Parquet => self.check_parquet(found).await,
            Format::Avro => self.check_avro(found).await,
            Format::Json | Format::Csv => self.check_text(found).await,
        }
    }

    async fn check_parquet(&self, found: &[Found]) -> Result<Vec<String>> {
        let mut left: Vec<usize> = (0..self.schema.fields().len()).collect();
        let mut first: Option<Arc<ParquetFile>> = None;
        let mut notices = vec![];
        for found in found {
            let file = match self.footer(found).await {
                Err(e) if self.options.follow && e.kind() == ErrorKind::Data => continue,
                file => file?,
            };
            let places = file.find_columns(&self.schema, &self.rules)?;
            left.retain(|column| places.get(*column).copied().flatten().is_none());
            if first.is_none() {
                let times = self.event_time.and_then(|time| {
                    let field = self.schema.fields().get(time)?;
                    let place = places.get(time).copied().flatten()?;
                    let (min, max) = file.event_times(0, place, field.data_type())?;
                    in_1970(field.name(), (min.into(), max.into()), time_unit(field.data_type())?)
                });
                notices.extend(times);
            }
            first.get_or_insert(file);
            if left.is_empty() {
                break;
            }
        }
        match (left.first().and_then(|column| self.schema.fields().get(*column)), first) {
            (Some(field), Some(first)) => {
                let has = first.metadata.schema().fields();
                let names: Vec<&str> = has.iter().map(|f| f.name().as_str()).collect();
                Err(self.nowhere(found.len(), &first.name, field.name(), &names))
            }
            _ => Ok(notices),
        }
    }

    /// Returns the error for a declared column that is in no file.
    fn nowhere(&self, files: usize, first: &str, column: &str, known: &[&str]) -> Error {
        if files <= 1 {
            return missing_column(first, column, known);
        }
        Error::data(format!("no file of \"{}\" has a column \"{column}\"", self.options.path))
            .with_hint(format!("The columns of \"{first}\" are: {}.", known.join(", ")))
    }

    async fn check_text(&self, found: &[Found]) -> Result<Vec<String>> {
        if self.format == Format::Csv {
            check_types(&self.schema)?;
        } else {
            JsonDecoder::check_types(&self.schema, &self.rules).map_err(Error::config)?;
        }
        let Some(first) = found.first() else { return Ok(vec![]) };
        if self.format == Format::Json && JsonDecoder::has_envelopes(&self.schema) {
            // The columns are not those of the records.
            return Ok(vec![]);
        }
        let first = self.text_file(first, 0, None)?;
        let is_json = matches!(first.format, TextFormat::Json);
        if let TextFormat::Csv(dialect) = &first.format {
            let records = first_records(&first, 1, &self.env.io).await?;
            if let Some(record) = records.first() {
                let record = (record.as_slice(), self.rules.inferred);
                CsvColumns::of_first(&self.schema, dialect, record, &first.name)?;
            }
        }
        let (files, rows) = self.sampled(found)?;
        let seen =
            |sample: &Sample, index: usize, field: &Field| match (is_json, self.options.csv.header)
            {
                (false, false) => sample.position(&format!("column_{}", index + 1)),
                (false, true) => {
                    sample.position(field.name()).or_else(|| sample.near(field.name()))
                }
                (true, _) => sample.position(field.name()),
            };
        let fields = || self.schema.fields().iter().enumerate();
        let enough = |sample: &Sample| fields().all(|(i, f)| seen(sample, i, f).is_some());
        let sample = match look(&files, rows, enough, &self.env.io).await {
            // Text that cannot be decoded is reported when it is read.
            Err(e) if e.kind() == ErrorKind::Data => return Ok(vec![]),
            sample => sample?,
        };
        let mut notices = vec![];
        for (index, field) in fields() {
            let column = seen(&sample, index, field).and_then(|at| sample.columns.get(at));
            match column {
                Some(seen) => notices.extend(self.check_column(index, field, seen)?),
                None if sample.rows == 0 && sample.columns.is_empty() => {}
                None if is_json => notices.push(never_seen(field, &sample, &self.schema)),
                None => {
                    let known: Vec<&str> = sample.columns.iter().map(|s| s.name.as_str()).collect();
                    return Err(self.nowhere(found.len(), &first.name, field.name(), &known));
                }
            }
        }
        Ok(notices)
    }

    /// Checks the values of a column of times.
    fn check_column(&self, index: usize, field: &Field, seen: &Seen) -> Result<Option<String>> {
        if self.event_time == Some(index) && seen.guess == Guess::Timestamp(true) {
            return Ok(Some(written_in_1970(field.name())));
        }
        let Some(unit) = time_unit(field.data_type()).filter(|_| seen.guess.is_number()) else {
            return Ok(None);
        };
        match (self.rules.of(field.name(), unit), &seen.guess) {
            (BareNumber::In(of), Guess::Whole(min, max)) if self.event_time == Some(index) => {
                Ok(in_1970(field.name(), (*min, *max), of))
            }
            (BareNumber::Unsaid, _) => Err(Error::config(format!(
                "column \"{}\" is TIMESTAMP, and has bare numbers in file \"{}\": their unit is not known",
                field.name(),
                seen.file
            ))
            .with_hint("Set epoch = 's', 'ms', 'us' or 'ns' in WITH, or declare the column as TIMESTAMP(3) for milliseconds.")),
            _ => Ok(None),
        }
    }
}

impl Sample {
    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|seen| seen.name == name)
    }

    fn near(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|seen| seen.name.eq_ignore_ascii_case(name))
    }
}

/// Returns the notice for event times in 1970, where they are written as text.
fn written_in_1970(column: &str) -> String {
    format!("the event times \"{column}\" of the first rows lie in 1970")
}

/// Returns the notice for event times in 1970, which nearly always means a wrong unit.
fn in_1970(column: &str, (min, max): (i128, i128), unit: TimeUnit) -> Option<String> {
    let year = i128::from(ticks_per_second(unit)) * 365 * 86_400;
    (min >= 0 && max < year).then(|| {
        format!(
            "the event times \"{column}\" of the first rows lie in 1970; if their unit is another, set epoch = 's', 'ms', 'us' or 'ns' in WITH"
        )
    })
}

/// Returns the notice for a declared column that is in no row.
fn never_seen(field: &Field, sample: &Sample, declared: &Schema) -> String {
    let column = field.name();
    let rows = match sample.rows {
        1 => "the first row".to_owned(),
        rows => format!("the first {rows} rows"),
    };
    let files = match sample.files {
        1 => String::new(),
        files => format!(" of {files} files"),
    };
    let others: Vec<&str> = sample
        .columns
        .iter()
        .map(|seen| seen.name.as_str())
        .filter(|name| declared.column_with_name(name).is_none())
        .collect();
    let near = match nearest(column, &others) {
        Some(near) => format!("; did you mean \"{near}\"?"),
        None => String::new(),
    };
    let then = if field.is_nullable() {
        "it is NULL there"
    } else {
        "which are bad rows, since it is NOT NULL"
    };
    format!("column \"{column}\" is not in {rows}{files}, {then}{near}")
}
