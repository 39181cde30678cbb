//! Results as charts in the terminal: lines over time, bars otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::ArrayFormatter;
use textplots::{Chart, LabelBuilder, LabelFormat, Plot, Shape};
use unicode_width::UnicodeWidthStr;
use windrow_core::{Error, Result};

use crate::output::{cut, format_options, visible};
use crate::progress::time;

/// Rows of the last result that are retained, the newest ones.
const ROWS_MAX: usize = 10_000;

/// Rows that a bar chart shows, the newest ones.
const BARS_MAX: usize = 40;

/// Columns that are drawn when none is named.
const LINES_MAX: usize = 4;

/// The minimum width and height of a chart, in characters.
const WIDTH_MIN: usize = 40;
const HEIGHT: usize = 12;

/// The newest rows of the last result.
#[derive(Debug, Default)]
pub(crate) struct Last {
    schema: Option<SchemaRef>,
    batches: VecDeque<RecordBatch>,
    rows: usize,
}

impl Last {
    /// Begins a new result.
    pub(crate) fn start(&mut self, schema: &SchemaRef) {
        *self = Self { schema: Some(Arc::clone(schema)), ..Self::default() };
    }

    /// Adds rows to it.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        let skip = batch.num_rows().saturating_sub(ROWS_MAX);
        let batch = batch.slice(skip, batch.num_rows() - skip);
        self.rows += batch.num_rows();
        self.batches.push_back(batch);
        while self.batches.front().is_some_and(|first| self.rows - first.num_rows() >= ROWS_MAX) {
            self.rows -= self.batches.pop_front().map_or(0, |first| first.num_rows());
        }
    }

    /// Returns all retained rows, as one batch.
    fn batch(&self) -> Result<Option<RecordBatch>> {
        let Some(schema) = self.schema.as_ref().filter(|_| self.rows > 0) else { return Ok(None) };
        Ok(Some(arrow::compute::concat_batches(schema, &self.batches)?))
    }
}

/// One drawn column: name, and values by row.
struct Series {
    name: String,
    values: Vec<Option<f64>>,
}

/// Draws the last result as a chart at most `width` characters wide. The x axis is the start of the windows, or else
/// the first column of times; `column` chooses what is drawn.
///
/// # Errors
/// When there is nothing to draw, or no such column.
pub(crate) fn draw(last: &Last, column: Option<&str>, width: usize) -> Result<String> {
    let Some(batch) = last.batch()? else {
        return Err(Error::sql("there is no result to draw")
            .with_hint("Run a query that returns rows, then \\chart."));
    };
    let series = chosen(&batch, column)?;
    let x = times(&batch)?;
    let distinct = x.as_ref().map_or(0, |x| {
        let mut all: Vec<i64> = x.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        // Several rows at one time do not form a line.
        if all.len() == x.len() { all.len() } else { 0 }
    });
    match x {
        Some(x) if distinct > 2 => Ok(lines(&x, &series, width)),
        _ => bars(&batch, &series, width),
    }
}

/// Returns the columns to draw.
fn chosen(batch: &RecordBatch, column: Option<&str>) -> Result<Vec<Series>> {
    let schema = batch.schema();
    let numbers: Vec<(&Arc<Field>, &ArrayRef)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(field, _)| field.data_type().is_numeric())
        .collect();
    let names = || numbers.iter().map(|(f, _)| f.name().as_str()).collect::<Vec<_>>().join(", ");
    let drawn: Vec<_> = match column {
        None => numbers.iter().take(LINES_MAX).collect(),
        Some(column) => numbers.iter().filter(|(f, _)| f.name() == column).collect(),
    };
    if drawn.is_empty() {
        let error = match column {
            Some(column) => Error::sql(format!("the last result has no numbers in \"{column}\"")),
            None => Error::sql("the last result has no column of numbers"),
        };
        let names = names();
        return Err(if names.is_empty() {
            error.with_hint("Select a count, a sum or another number.")
        } else {
            error.with_hint(format!("Columns of numbers are: {names}."))
        });
    }
    drawn.into_iter().map(|(field, values)| series(field.name(), values)).collect()
}

fn series(name: &str, values: &ArrayRef) -> Result<Series> {
    let values = cast(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>().iter().map(|v| v.filter(|v| v.is_finite()));
    Ok(Series { name: visible(name), values: values.collect() })
}

/// Returns the times of the x axis, in µs.
fn times(batch: &RecordBatch) -> Result<Option<Vec<Option<i64>>>> {
    let schema = batch.schema();
    let is_time = |f: &Field| matches!(f.data_type(), DataType::Timestamp(..) | DataType::Date32);
    let named = ["window_start", "window_end"]
        .into_iter()
        .find_map(|name| schema.fields().iter().position(|f| f.name() == name && is_time(f)));
    let Some(at) = named.or_else(|| schema.fields().iter().position(|f| is_time(f))) else {
        return Ok(None);
    };
    let micros = cast(batch.column(at), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(Some(micros.as_primitive::<TimestampMicrosecondType>().iter().collect()))
}

fn lines(x: &[Option<i64>], series: &[Series], width: usize) -> String {
    let known: Vec<i64> = x.iter().flatten().copied().collect();
    let first = known.iter().min().copied().unwrap_or(0);
    let last = known.iter().max().copied().unwrap_or(0);
    // 32-bit floats are too coarse for times, but not for their differences.
    let seconds = |micros: i64| ((micros - first) as f64 / 1e6) as f32;
    // Leaves room on the right for the labels of the y axis.
    let columns = width.max(WIDTH_MIN).saturating_sub(14).max(WIDTH_MIN);
    let mut text = String::new();
    for one in series {
        let mut points: Vec<(f32, f32)> = x
            .iter()
            .zip(&one.values)
            .filter_map(|(x, y)| Some((seconds((*x)?), (*y)? as f32)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.len() < 2 {
            text.push_str(&format!("{}: fewer than two points\n", one.name));
            continue;
        }
        let low = points.iter().map(|p| p.1).fold(f32::INFINITY, f32::min).min(0.0);
        let high = points.iter().map(|p| p.1).fold(f32::NEG_INFINITY, f32::max);
        let high = if high > low { high } else { low + 1.0 };
        let dots = |characters: usize, per: usize| u32::try_from(characters * per).unwrap_or(160);
        let mut chart = Chart::new_with_y_range(
            dots(columns, 2),
            dots(HEIGHT, 4),
            0.0,
            seconds(last).max(f32::MIN_POSITIVE),
            low,
            high,
        );
        let label = move |at: f32| {
            let micros = first.saturating_add((f64::from(at) * 1e6).round() as i64);
            // The dots of the canvas are wider than the label by construction.
            time(micros).get(..19).unwrap_or_default().to_owned()
        };
        text.push_str(&format!("{}\n", one.name));
        let shape = Shape::Lines(&points);
        let drawn = chart
            .x_label_format(LabelFormat::Custom(Box::new(label)))
            .y_label_format(LabelFormat::Custom(Box::new(|y| number(f64::from(y)))))
            .lineplot(&shape);
        drawn.axis();
        drawn.figures();
        text.push_str(&drawn.to_string());
    }
    text
}

/// Draws bars, one per row; columns that are not numeric form the label.
fn bars(batch: &RecordBatch, series: &[Series], width: usize) -> Result<String> {
    let options = format_options();
    let labels = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .filter(|(field, _)| !field.data_type().is_numeric())
        .map(|(_, column)| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let from = batch.num_rows().saturating_sub(BARS_MAX);
    let label = |row: usize| {
        let words: Vec<String> =
            labels.iter().map(|l| visible(&l.value(row).to_string())).collect();
        let (text, _) = cut(&words.join(" "), width / 3);
        text
    };
    let labels: Vec<String> = (from..batch.num_rows()).map(label).collect();
    let label_width = labels.iter().map(|l| l.width()).max().unwrap_or(0);
    let mut text = String::new();
    for one in series {
        text.push_str(&format!("{}\n", one.name));
        let values = one.values.get(from..).unwrap_or_default();
        let most = values.iter().flatten().fold(0.0_f64, |most, v| most.max(v.abs()));
        let room = width.max(WIDTH_MIN).saturating_sub(label_width + 16).max(8);
        for (label, value) in labels.iter().zip(values) {
            let part = value.map_or(0.0, |v| if most > 0.0 { v.abs() / most } else { 0.0 });
            let padding = " ".repeat(label_width - label.width());
            let shown = value.map_or("NULL".to_owned(), number);
            text.push_str(&format!("{label}{padding} {} {shown}\n", bar(part, room)));
        }
    }
    Ok(text)
}

/// Draws a bar of eighths of characters, for a `part` from 0 to 1 of `room` characters.
fn bar(part: f64, room: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part * room as f64 * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS.get(eighths % 8).unwrap_or(&""))
}

/// Formats a number for people: short, without a needless fraction.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e15 || (v > 0.0 && v < 1e-3) => format!("{value:.3e}"),
        v if v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn last(columns: Vec<(&str, ArrayRef)>) -> Last {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut last = Last::default();
        last.start(&batch.schema());
        last.add(&batch);
        last
    }

    fn per_minute(values: &[i64]) -> Last {
        let minutes = (0..values.len() as i64).map(|m| m * 60_000_000);
        last(vec![
            ("window_start", Arc::new(TimestampMicrosecondArray::from_iter_values(minutes))),
            ("n", Arc::new(Int64Array::from(values.to_vec()))),
        ])
    }

    #[test]
    fn windows_become_a_line() {
        let chart = draw(&per_minute(&[1, 5, 3, 20, 8]), None, 80).unwrap();
        assert!(chart.starts_with("n\n"), "{chart}");
        assert!(chart.contains("1970-01-01T00:00:00"), "{chart}");
        assert!(chart.contains("1970-01-01T00:04:00"), "{chart}");
        assert!(chart.lines().any(|l| l.ends_with(" 20")), "{chart}");
        assert!(chart.lines().all(|l| l.width() <= 80), "{chart}");
        assert!(chart.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{chart}");
    }

    #[test]
    fn constant_lines_and_narrow_terminals_are_drawn() {
        for width in [0, 1, 30, 41, 500] {
            let chart = draw(&per_minute(&[7, 7, 7]), None, width).unwrap();
            assert!(chart.contains('\u{2824}') || chart.contains('⠉'), "{chart}");
        }
        assert!(draw(&per_minute(&[-5, -1, -3]), Some("n"), 80).is_ok());
    }

    #[test]
    fn keys_become_bars() {
        let names: ArrayRef = Arc::new(StringArray::from(vec!["ada", "bob", "eve"]));
        let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(10.0), Some(2.5), None]));
        let chart = draw(&last(vec![("who", names), ("total", values)]), None, 59).unwrap();
        let full = "█".repeat(40);
        assert_eq!(
            chart,
            format!("total\nada {full} 10\nbob {} 2.500\neve  NULL\n", "█".repeat(10))
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_told() {
        let error = draw(&Last::default(), None, 80).unwrap_err();
        assert_eq!(error.message(), "there is no result to draw");
        let error = draw(&per_minute(&[1]), Some("m"), 80).unwrap_err();
        assert_eq!(error.hints(), ["Columns of numbers are: n."]);
        let names: ArrayRef = Arc::new(StringArray::from(vec!["ada"]));
        let error = draw(&last(vec![("who", names)]), None, 80).unwrap_err();
        assert_eq!(error.message(), "the last result has no column of numbers");
    }

    #[test]
    fn only_the_newest_rows_are_kept() {
        let mut last = per_minute(&[1; 9_000]);
        let more = last.batches.front().unwrap().clone();
        last.add(&more);
        assert_eq!(last.rows, 18_000, "the older ones are needed to have enough");
        last.add(&more);
        assert_eq!(last.rows, 18_000);
        let mut large = per_minute(&[1; 30_000]);
        assert_eq!(large.rows, ROWS_MAX);
        large.start(&more.schema());
        assert_eq!(large.rows, 0);
    }
}
