//! Rows with one value per line, for results that are wider than a terminal.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::Layout;
use super::table::Cell;
use crate::style::{PLAIN, Paint};

/// The width of the line above a row where there is no terminal.
const LINE_WIDTH: usize = 24;
/// Its maximum.
const LINE_WIDTH_MAX: usize = 60;

/// Rows printed as records, one below the other.
pub(super) struct Record {
    titles: Vec<String>,
    title_width: usize,
    line_width: usize,
    colour: bool,
    rows: u64,
}

impl Record {
    pub(super) fn new(titles: Vec<String>, layout: &Layout) -> Self {
        let title_width = titles.iter().map(|t| t.width()).max().unwrap_or(0);
        let line_width = layout.width_max.map_or(LINE_WIDTH, |width| width.min(LINE_WIDTH_MAX));
        Self { titles, title_width, line_width, colour: layout.colour, rows: 0 }
    }

    pub(super) fn row(&mut self, out: &mut impl Write, cells: &[Cell]) -> io::Result<()> {
        self.rows += 1;
        let head = format!("─[ row {} ]", self.rows);
        writeln!(out, "{head}{}", "─".repeat(self.line_width.saturating_sub(head.width()).max(1)))?;
        for (title, cell) in self.titles.iter().zip(cells) {
            let padding = " ".repeat(self.title_width - title.width());
            let (bold, dim, off) = match (self.colour, cell.is_null) {
                (true, true) => (Paint::Bold.on(), Paint::Dim.on(), PLAIN),
                (true, false) => (Paint::Bold.on(), "", PLAIN),
                (false, _) => ("", "", ""),
            };
            writeln!(out, "{bold}{title}{off}{padding} │ {dim}{}{off}", cell.text)?;
        }
        Ok(())
    }
}
