//! A table drawn in lines, row by row: it never holds more than the rows that its layout is
//! made from.

use std::io::{self, Write};

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::ArrayFormatter;
use unicode_width::UnicodeWidthStr;

use super::format_options;
use crate::failure::Failure;

/// Rows that the layout of a bounded result is made from.
const SAMPLE_ROWS: usize = 1_000;

/// No column is made narrower than this to fit a terminal.
const TEXT_WIDTH_MIN: usize = 8;

/// A table under way.
pub(super) struct Table {
    columns: Vec<Column>,
    /// Whether the layout follows the first batch, so that nobody waits for more.
    eager: bool,
    /// The width of the terminal that reads; texts are cut to fit it.
    width_max: Option<usize>,
    /// The rows from before the layout, once there is one: `None`.
    waiting: Option<Vec<Vec<String>>>,
}

struct Column {
    title: String,
    /// Numbers stand to the right, and are never cut.
    is_number: bool,
    width: usize,
}

impl Table {
    pub(super) fn new(schema: &Schema, eager: bool, width_max: Option<usize>) -> Self {
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            let title = visible(field.name());
            let width = title.width().max(usual_width(field.data_type()));
            Column { title, is_number: field.data_type().is_numeric(), width }
        };
        let columns = schema.fields().iter().map(column).collect();
        Self { columns, eager, width_max, waiting: Some(vec![]) }
    }

    pub(super) fn batch(
        &mut self,
        out: &mut impl Write,
        batch: &RecordBatch,
    ) -> Result<(), Failure> {
        let options = format_options();
        let cells = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(windrow_core::Error::from)?;
        for row in 0..batch.num_rows() {
            let texts: Vec<String> = cells
                .iter()
                .map(|cell| cell.value(row).try_to_string().map(|text| visible(&text)))
                .collect::<Result<_, _>>()
                .map_err(windrow_core::Error::from)?;
            match &mut self.waiting {
                Some(waiting) => {
                    waiting.push(texts);
                    if !self.eager && waiting.len() >= SAMPLE_ROWS {
                        self.start(out)?;
                    }
                }
                None => self.row(out, &texts)?,
            }
        }
        if self.eager && batch.num_rows() > 0 {
            self.start(out)?;
        }
        Ok(())
    }

    pub(super) fn end(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        self.start(out)?;
        self.line(out, ["└", "┴", "┘"])?;
        Ok(())
    }

    /// Makes the layout from the waiting rows, if that has not been done, and prints them.
    fn start(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(rows) = self.waiting.take() else { return Ok(()) };
        for row in &rows {
            for (column, text) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(text.width());
            }
        }
        if let Some(width_max) = self.width_max {
            self.fit(width_max);
        }
        self.line(out, ["┌", "┬", "┐"])?;
        let titles: Vec<String> = self.columns.iter().map(|c| c.title.clone()).collect();
        self.row(out, &titles)?;
        self.line(out, ["├", "┼", "┤"])?;
        rows.iter().try_for_each(|row| self.row(out, row))
    }

    /// Makes the widest texts narrower until the table fits, as far as that goes.
    fn fit(&mut self, width_max: usize) {
        let lines = 3 * self.columns.len() + 1;
        loop {
            let width: usize = lines + self.columns.iter().map(|c| c.width).sum::<usize>();
            let excess = width.saturating_sub(width_max);
            let mut texts: Vec<&mut Column> =
                self.columns.iter_mut().filter(|c| !c.is_number).collect();
            texts.sort_by_key(|c| std::cmp::Reverse(c.width));
            let mut texts = texts.into_iter();
            let Some(widest) = texts.next().filter(|c| excess > 0 && c.width > TEXT_WIDTH_MIN)
            else {
                return;
            };
            // Down to the next widest, or one more than that when they are level.
            let next = texts.next().map_or(0, |c| c.width).min(widest.width - 1);
            widest.width = next.max(widest.width.saturating_sub(excess)).max(TEXT_WIDTH_MIN);
        }
    }

    fn line(&self, out: &mut impl Write, [left, middle, right]: [&str; 3]) -> io::Result<()> {
        let bars: Vec<String> = self.columns.iter().map(|c| "─".repeat(c.width + 2)).collect();
        writeln!(out, "{left}{}{right}", bars.join(middle))
    }

    fn row(&mut self, out: &mut impl Write, texts: &[String]) -> io::Result<()> {
        for (column, text) in self.columns.iter_mut().zip(texts) {
            let width = text.width();
            let may_cut = self.width_max.is_some() && !column.is_number;
            if width > column.width && !may_cut {
                // Better a table that is wider from here on than a number without its end.
                column.width = width;
            }
            if width > column.width {
                let (cut, width) = cut(text, column.width);
                write!(out, "│ {cut}{} ", spaces(column.width - width))?;
            } else if column.is_number {
                write!(out, "│ {}{text} ", spaces(column.width - width))?;
            } else {
                write!(out, "│ {text}{} ", spaces(column.width - width))?;
            }
        }
        writeln!(out, "│")
    }
}

/// Padding; the width of a format specification ends at 65,535, a column's does not.
fn spaces(count: usize) -> String {
    " ".repeat(count)
}

/// How wide values of a type usually are, so that the first batch of a continuous result does
/// not make its columns too narrow.
fn usual_width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Timestamp(..) => 19,
        DataType::Date32 => 10,
        _ => 4,
    }
}

/// `text` on one line, without anything that would move the cursor.
fn visible(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The beginning of `text` with an ellipsis, at most `width` wide, and how wide it is.
fn cut(text: &str, width: usize) -> (String, usize) {
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if short.width() >= width {
            short.pop();
            break;
        }
    }
    short.push('…');
    let width = short.width();
    (short, width)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::super::tests::{print, sample};
    use super::*;
    use crate::arguments::Format;

    fn texts(values: &[&str]) -> RecordBatch {
        let column: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        RecordBatch::try_from_iter([("text", column), ("n", number)]).unwrap()
    }

    #[test]
    fn numbers_stand_right_and_null_is_seen() {
        let batch = sample();
        let text = print(Format::Table, false, None, batch.schema(), &[batch]);
        let expected = "\
┌──────┬─────────────┬────────────────────────────┬──────┐
│    k │ name        │ at                         │    x │
├──────┼─────────────┼────────────────────────────┼──────┤
│    1 │ a,b         │ 1970-01-01T00:00:00        │  0.5 │
│ NULL │ zwei\\nlines │ 1970-01-01T00:00:01.500    │  2.0 │
│  -30 │ NULL        │ 1969-12-31T23:59:59.999999 │ 1e20 │
└──────┴─────────────┴────────────────────────────┴──────┘
";
        assert_eq!(text, expected);
    }

    #[test]
    fn no_rows_still_have_titles() {
        let text = print(Format::Table, false, None, texts(&[]).schema(), &[]);
        assert_eq!(text, "┌──────┬──────┐\n│ text │    n │\n├──────┼──────┤\n└──────┴──────┘\n");
    }

    #[test]
    fn texts_are_cut_to_the_terminal_and_numbers_are_not() {
        let batch = texts(&["0123456789 0123456789", "日本語日本語日本語日本語"]);
        let text = print(Format::Table, false, Some(24), batch.schema(), &[batch]);
        assert_eq!(
            text,
            "┌───────────────┬──────┐\n\
             │ text          │    n │\n\
             ├───────────────┼──────┤\n\
             │ 0123456789 0… │    0 │\n\
             │ 日本語日本語… │    1 │\n\
             └───────────────┴──────┘\n"
        );
    }

    #[test]
    fn a_continuous_table_grows_when_it_must() {
        let batches = [texts(&["a"]), texts(&["a long text"])];
        let schema = batches[0].schema();
        let text = print(Format::Table, true, None, schema, &batches);
        assert!(text.starts_with("┌──────┬"), "{text}");
        assert!(text.contains("│ a long text │    0 │\n└─────────────┴──────┘"), "{text}");
    }

    #[test]
    fn wide_characters_fill_two_columns() {
        let batch = texts(&["日本", "é"]);
        let text = print(Format::Table, false, None, batch.schema(), &[batch]);
        assert!(text.contains("│ 日本 │"), "{text}");
        assert!(text.contains("│ é    │"), "{text}");
        assert_eq!(visible("a\u{1b}[31m\tb"), "a\\u{1b}[31m\\tb");
    }

    #[test]
    fn narrowing_is_shared_by_the_widest() {
        let schema = sample().schema();
        let mut table = Table::new(&schema, false, Some(40));
        for (column, width) in table.columns.iter_mut().zip([4, 100, 60, 6]) {
            column.width = width;
        }
        table.fit(60);
        let widths: Vec<usize> = table.columns.iter().map(|c| c.width).collect();
        assert_eq!(widths.iter().sum::<usize>() + 13, 60);
        assert!(widths[1].abs_diff(widths[2]) <= 1, "{widths:?}");
        table.fit(10);
        assert_eq!(table.columns.iter().map(|c| c.width).collect::<Vec<_>>(), [4, 8, 8, 6]);
    }
}
