//! A table drawn with lines, row by row: it never holds more rows than its layout is computed from.

use std::io::{self, Write};

use arrow::array::Array;
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::ArrayFormatter;
use unicode_width::UnicodeWidthStr;

use super::expanded::Record;
use super::{Layout, format_options};
use crate::command::Expanded;
use crate::failure::Failure;
use crate::style::{PLAIN, Paint};

/// Rows from which the layout of a bounded result is computed.
const SAMPLE_ROWS: usize = 1_000;

/// No text column is made narrower than this to fit a terminal.
const TEXT_WIDTH_MIN: usize = 8;

/// Lines of a terminal that are not rows of a page: the prompt, the titles, the status.
const PAGE_REST: usize = 6;

/// A table being printed.
pub(super) struct Table {
    columns: Vec<Column>,
    layout: Layout,
    /// The rows before the layout is known; then `None`.
    waiting: Option<Vec<Vec<Cell>>>,
    /// One value per line.
    record: Option<Record>,
    /// Rows since the titles.
    since_titles: usize,
}

struct Column {
    title: String,
    /// Numbers are right-aligned and never truncated.
    is_number: bool,
    width: usize,
    /// Whether it is left out because it does not fit into the terminal.
    left_out: bool,
}

/// A value as text.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) is_null: bool,
}

impl Table {
    pub(super) fn new(schema: &Schema, layout: &Layout) -> Self {
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            let title = visible(field.name());
            let width = title.width().max(usual_width(field.data_type()));
            Column { title, is_number: field.data_type().is_numeric(), width, left_out: false }
        };
        let columns: Vec<Column> = schema.fields().iter().map(column).collect();
        Self {
            columns,
            layout: layout.clone(),
            waiting: Some(vec![]),
            record: None,
            since_titles: 0,
        }
    }

    pub(super) fn batch(
        &mut self,
        out: &mut impl Write,
        batch: &RecordBatch,
    ) -> Result<(), Failure> {
        let null = self.layout.null.clone();
        let options = match &null {
            Some(null) => format_options().with_null(null),
            None => format_options(),
        };
        let cells = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(windrow_core::Error::from)?;
        // Columns of the type NULL have no null buffer.
        let nulls: Vec<_> = batch.columns().iter().map(Array::logical_nulls).collect();
        self.new_page(out)?;
        for row in 0..batch.num_rows() {
            let cell = |(cell, nulls): (&ArrayFormatter<'_>, &Option<NullBuffer>)| {
                let text = cell.value(row).try_to_string().map(|text| visible(&text))?;
                Ok(Cell { text, is_null: nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) })
            };
            let texts: Vec<Cell> = cells
                .iter()
                .zip(&nulls)
                .map(cell)
                .collect::<Result<_, arrow::error::ArrowError>>()
                .map_err(windrow_core::Error::from)?;
            match &mut self.waiting {
                Some(waiting) => {
                    waiting.push(texts);
                    if !self.layout.continuous && waiting.len() >= SAMPLE_ROWS {
                        self.start(out)?;
                    }
                }
                None => self.row(out, &texts)?,
            }
        }
        if self.layout.continuous && batch.num_rows() > 0 {
            self.start(out)?;
        }
        Ok(())
    }

    /// Repeats the titles where a continuous result has scrolled them away.
    fn new_page(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(height) = self.layout.height.filter(|_| self.layout.continuous) else {
            return Ok(());
        };
        let page = height.saturating_sub(PAGE_REST).max(PAGE_REST);
        if self.waiting.is_none() && self.record.is_none() && self.since_titles >= page {
            self.line(out, ["├", "┼", "┤"])?;
            self.titles(out)?;
        }
        Ok(())
    }

    /// Describes what is not shown, for people.
    pub(super) fn notice(&self) -> String {
        let titles: Vec<&str> =
            self.columns.iter().filter(|c| c.left_out).map(|c| c.title.as_str()).collect();
        match titles.as_slice() {
            [] => String::new(),
            [one] => format!("\nnotice: 1 column does not fit: {one}; \\x shows it"),
            all => {
                let (count, names) = (all.len(), all.join(", "));
                format!("\nnotice: {count} columns do not fit: {names}; \\x shows them")
            }
        }
    }

    pub(super) fn end(&mut self, out: &mut impl Write) -> Result<(), Failure> {
        self.start(out)?;
        Ok(self.close(out)?)
    }

    /// Draws the last line, if there is a first one.
    pub(super) fn close(&self, out: &mut impl Write) -> io::Result<()> {
        match (&self.waiting, &self.record) {
            (None, None) => self.line(out, ["└", "┴", "┘"]),
            _ => Ok(()),
        }
    }

    /// Computes the layout from the waiting rows, if that has not been done, and prints them.
    fn start(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(rows) = self.waiting.take() else { return Ok(()) };
        for row in &rows {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(cell.text.width());
            }
        }
        let expanded = match self.layout.expanded {
            Expanded::On => true,
            Expanded::Off => false,
            Expanded::Auto => self.layout.width_max.is_some_and(|max| self.width() > max),
        };
        if expanded {
            let titles = self.columns.iter().map(|c| c.title.clone()).collect();
            self.record = Some(Record::new(titles, &self.layout));
            return rows.iter().try_for_each(|row| self.row(out, row));
        }
        if let Some(width_max) = self.layout.width_max {
            self.fit(width_max);
        }
        self.line(out, ["┌", "┬", "┐"])?;
        self.titles(out)?;
        rows.iter().try_for_each(|row| self.row(out, row))
    }

    /// Prints the titles and the line under them.
    fn titles(&mut self, out: &mut impl Write) -> io::Result<()> {
        for column in self.columns.iter().filter(|c| !c.left_out) {
            // A title may be wider than its column only where the column was narrowed to fit.
            let (title, width) = match column.title.width() {
                width if width > column.width => cut(&column.title, column.width),
                width => (column.title.clone(), width),
            };
            let padding = spaces(column.width.saturating_sub(width));
            let (on, off) = if self.layout.colour { (Paint::Bold.on(), PLAIN) } else { ("", "") };
            if column.is_number {
                write!(out, "│ {padding}{on}{title}{off} ")?;
            } else {
                write!(out, "│ {on}{title}{off}{padding} ")?;
            }
        }
        writeln!(out, "│")?;
        self.since_titles = 0;
        self.line(out, ["├", "┼", "┤"])
    }

    /// Its width including its lines.
    fn width(&self) -> usize {
        self.columns.iter().filter(|c| !c.left_out).map(|c| c.width + 3).sum::<usize>() + 1
    }

    /// Narrows the widest texts until the table fits, as far as possible.
    fn fit(&mut self, width_max: usize) {
        loop {
            let excess = self.width().saturating_sub(width_max);
            let mut texts: Vec<&mut Column> =
                self.columns.iter_mut().filter(|c| !c.is_number && !c.left_out).collect();
            texts.sort_by_key(|c| std::cmp::Reverse(c.width));
            let mut texts = texts.into_iter();
            let Some(widest) = texts.next().filter(|c| excess > 0 && c.width > TEXT_WIDTH_MIN)
            else {
                break;
            };
            // Down to the next widest, or one more than that when they are level.
            let next = texts.next().map_or(0, |c| c.width).min(widest.width - 1);
            widest.width = next.max(widest.width.saturating_sub(excess)).max(TEXT_WIDTH_MIN);
        }
        // Still too wide: leave out the last columns, but never all.
        let last = self.columns.len().saturating_sub(1);
        for at in (1..=last).rev() {
            if self.width() <= width_max {
                break;
            }
            if let Some(column) = self.columns.get_mut(at) {
                column.left_out = true;
            }
        }
    }

    fn line(&self, out: &mut impl Write, [left, middle, right]: [&str; 3]) -> io::Result<()> {
        let shown = self.columns.iter().filter(|c| !c.left_out);
        let bars: Vec<String> = shown.map(|c| "─".repeat(c.width + 2)).collect();
        writeln!(out, "{left}{}{right}", bars.join(middle))
    }

    fn row(&mut self, out: &mut impl Write, cells: &[Cell]) -> io::Result<()> {
        if let Some(record) = &mut self.record {
            return record.row(out, cells);
        }
        self.since_titles += 1;
        let shown = self.columns.iter_mut().zip(cells).filter(|(column, _)| !column.left_out);
        for (column, cell) in shown {
            let width = cell.text.width();
            let may_cut = self.layout.width_max.is_some() && !column.is_number;
            if width > column.width && !may_cut {
                // A table that is wider from here on is better than a truncated number.
                column.width = width;
            }
            let (on, off) = if self.layout.colour && cell.is_null {
                (Paint::Dim.on(), PLAIN)
            } else {
                ("", "")
            };
            if width > column.width {
                let (cut, width) = cut(&cell.text, column.width);
                write!(out, "│ {on}{cut}{off}{} ", spaces(column.width - width))?;
            } else if column.is_number {
                write!(out, "│ {}{on}{}{off} ", spaces(column.width - width), cell.text)?;
            } else {
                write!(out, "│ {on}{}{off}{} ", cell.text, spaces(column.width - width))?;
            }
        }
        writeln!(out, "│")
    }
}

/// Returns padding; the width in a format specification is limited to 65,535, a column's is not.
fn spaces(count: usize) -> String {
    " ".repeat(count)
}

/// The usual width of values of a type, so that the first batch of a continuous result does not make its columns too
/// narrow.
fn usual_width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Timestamp(..) => 19,
        DataType::Date32 => 10,
        _ => 4,
    }
}

/// Returns `text` on one line, without anything that would move the cursor.
pub(crate) fn visible(text: &str) -> String {
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

/// Returns `text`, truncated with an ellipsis where it is wider than `width`, and its width.
pub(crate) fn cut(text: &str, width: usize) -> (String, usize) {
    if text.width() <= width {
        return (text.to_owned(), text.width());
    }
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

    use super::super::tests::{print, print_as, sample};
    use super::*;
    use crate::values::Format;

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
        let layout = Layout { width_max: Some(40), ..Layout::default() };
        let mut table = Table::new(&schema, &layout);
        for (column, width) in table.columns.iter_mut().zip([4, 100, 60, 6]) {
            column.width = width;
        }
        table.fit(60);
        let widths: Vec<usize> = table.columns.iter().map(|c| c.width).collect();
        assert_eq!(widths.iter().sum::<usize>() + 13, 60);
        assert!(widths[1].abs_diff(widths[2]) <= 1, "{widths:?}");
        table.fit(10);
        assert_eq!(table.columns.iter().map(|c| c.width).collect::<Vec<_>>(), [4, 8, 8, 6]);
        assert_eq!(table.notice(), "\nnotice: 3 columns do not fit: name, at, x; \\x shows them");
    }

    #[test]
    fn columns_that_cannot_fit_are_left_out() {
        let batch = sample();
        let text = print(Format::Table, false, Some(20), batch.schema(), &[batch]);
        assert!(text.starts_with("┌──────┬──────────┐\n│    k │ name     │\n"), "{text}");
        assert!(text.contains("│    1 │ a,b      │"), "{text}");
    }

    #[test]
    fn null_is_dim_where_there_are_colours() {
        let layout = Layout { colour: true, ..Layout::default() };
        let text = print_as(Format::Table, &layout, sample().schema(), &[sample()]);
        assert!(text.contains("│ \u{1b}[90mNULL\u{1b}[0m │"), "{text}");
        assert!(text.contains("│ \u{1b}[1mname\u{1b}[0m        │"), "{text}");
        assert_eq!(text.matches("\u{1b}[90m").count(), 2, "{text}");
    }

    #[test]
    fn one_value_per_line() {
        let layout = Layout { expanded: Expanded::On, ..Layout::default() };
        let text = print_as(Format::Table, &layout, sample().schema(), &[sample().slice(1, 1)]);
        let expected = "\
─[ row 1 ]──────────────
k    │ NULL
name │ zwei\\nlines
at   │ 1970-01-01T00:00:01.500
x    │ 2.0
";
        assert_eq!(text, expected);
        let auto = Layout { expanded: Expanded::Auto, width_max: Some(30), ..Layout::default() };
        let text = print_as(Format::Table, &auto, sample().schema(), &[sample()]);
        assert!(text.starts_with("─[ row 1 ]─") && text.contains("─[ row 3 ]─"), "{text}");
        let auto = Layout { expanded: Expanded::Auto, width_max: Some(80), ..Layout::default() };
        let text = print_as(Format::Table, &auto, sample().schema(), &[sample()]);
        assert!(text.starts_with('┌'), "{text}");
    }

    #[test]
    fn a_long_continuous_table_repeats_its_titles() {
        let layout =
            Layout { continuous: true, width_max: Some(80), height: Some(12), ..Layout::default() };
        let batch = texts(&["a", "b", "c", "d"]);
        let text = print_as(
            Format::Table,
            &layout,
            batch.schema(),
            &[const { 0 }; 5].map(|_| batch.clone()),
        );
        assert_eq!(text.matches("│ text │").count(), 3, "{text}");
    }
}
