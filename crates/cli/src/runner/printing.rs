//! Printing of results as they arrive; at the terminal, of limited length.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use windrow_core::{Error, ErrorKind};
use windrow_sql::parse::OutFormat;

use super::pager::{Out, Pager, Paging};
use super::watch::Watch;
use super::{Runner, Timing};
use crate::command::{Expanded, Shown};
use crate::connection::Rows;
use crate::failure::Failure;
use crate::output::{Layout, Printer};
use crate::style::stdout_has_colour;
use crate::values::Format;

/// Bytes of output that are buffered before they are written.
const OUT_BYTES: usize = 1 << 18;

/// Rows of a bounded result that are shown at the prompt, unless it goes through a pager.
const ROWS_MAX: u64 = 1_000;

/// The assumed height of a terminal that does not report it.
const HEIGHT: usize = 24;

/// How results are shown at the prompt.
pub(super) struct Showing {
    /// When they go through a pager.
    paging: Paging,
    /// Rows that are shown at most; `None`: all.
    rows_max: Option<u64>,
    /// The text for NULL, where one was set.
    null: Option<String>,
    /// The next result has one line per value.
    pub(super) expanded_once: bool,
    /// Whether a statement is being repeated, so that nothing waits for the user.
    pub(super) watching: bool,
}

impl Showing {
    pub(super) fn new() -> Self {
        Self {
            paging: Paging::default(),
            rows_max: Some(ROWS_MAX),
            null: None,
            expanded_once: false,
            watching: false,
        }
    }

    /// Changes a setting, and returns a description of the current ones.
    pub(super) fn set(&mut self, shown: Option<Shown>) -> String {
        let before = shown.clone();
        match shown {
            None => {}
            Some(Shown::Null(text)) => self.null = Some(text),
            Some(Shown::Pager(true)) => self.paging = Paging::On,
            Some(Shown::Pager(false)) => self.paging = Paging::Off,
            Some(Shown::Rows(max)) => self.rows_max = max,
        }
        let null = format!("null is shown as \"{}\"", self.null.as_deref().unwrap_or("NULL"));
        let pager = match self.paging.command() {
            Some(command) => format!("long results go through \"{command}\""),
            None => "no pager is used".to_owned(),
        };
        let rows = match self.rows_max {
            Some(max) => format!("up to {max} rows are shown without a pager"),
            None => "all rows are shown".to_owned(),
        };
        match before {
            None => [null, pager, rows].join("\n"),
            Some(Shown::Null(_)) => null,
            Some(Shown::Pager(_)) => pager,
            Some(Shown::Rows(_)) => rows,
        }
    }
}

/// How far a result has been printed.
struct Printed {
    printer: Printer,
    /// Rows that are printed at most; the others are counted.
    rows_max: u64,
    /// Rows so far, printed or not.
    rows: u64,
}

impl Printed {
    /// Prints the part of a batch that is to be shown.
    fn batch(&mut self, out: &mut BufWriter<Out>, batch: &RecordBatch) -> Result<(), Failure> {
        let rows = batch.num_rows() as u64;
        let room = self.rows_max.saturating_sub(self.rows);
        self.rows += rows;
        if room >= rows {
            return self.printer.batch(out, batch);
        }
        match usize::try_from(room) {
            Ok(0) | Err(_) => Ok(()),
            Ok(room) => self.printer.batch(out, &batch.slice(0, room)),
        }
    }
}

impl Runner {
    /// Prints rows until there are no more; returns a summary for people. `copied`: a COPY writes them in this format.
    pub(super) async fn print(
        &mut self,
        mut rows: Rows,
        copied: Option<OutFormat>,
        watch: &mut Watch,
    ) -> Result<String, Failure> {
        let format = match copied {
            Some(OutFormat::Csv) => Format::Csv,
            Some(OutFormat::Json) => Format::Ndjson,
            None => self.printing.format,
        };
        let schema = Arc::clone(rows.schema());
        self.last.start(&schema);
        let is_shown =
            self.is_repl && self.out_is_terminal() && !rows.is_continuous() && copied.is_none();
        let pager = self.showing.paging.command().filter(|_| is_shown && !self.showing.watching);
        let rows_max = self.showing.rows_max.filter(|_| is_shown && pager.is_none());
        let printer = Printer::new(format, schema, &self.layout(rows.is_continuous()));
        self.showing.expanded_once = false;
        let mut printed = Printed { printer, rows_max: rows_max.unwrap_or(u64::MAX), rows: 0 };
        if format == Format::Table && std::mem::replace(&mut self.printed_table, true) {
            writeln!(self.out)?;
        }
        if let Some(command) = pager {
            self.out.flush()?;
            let height = terminal_size::terminal_size().map(|(_, height)| usize::from(height.0));
            let pager = Pager::new(command, height.unwrap_or(HEIGHT));
            self.out = BufWriter::with_capacity(OUT_BYTES, Out::Paged(pager));
        }
        let done = self.print_rows(&mut rows, &mut printed, watch).await;
        // A table that was begun is closed, whatever ended it.
        let closed = match &done {
            Ok(()) => watch.bar.aside(|| printed.printer.end(&mut self.out)),
            Err(Failure::ReaderLeft) => Ok(()),
            Err(_) => watch.bar.aside(|| printed.printer.close(&mut self.out)),
        };
        self.end_pager(done.and(closed), watch)?;
        let mut message = match copied {
            Some(_) => format!("COPY {}", printed.rows),
            None => counted(printed.rows),
        };
        if self.timing != Timing::Off {
            message.push_str(&format!(" in {}", duration(watch.start.elapsed())));
        }
        if printed.rows > printed.rows_max {
            message.push_str(&format!(
                "\nnotice: the first {} rows are shown; LIMIT, \\pset rows all, \\pset pager on or \\o file",
                printed.rows_max
            ));
        }
        message.push_str(&printed.printer.notice());
        if let Some(unused) = rows.unused_rows() {
            message.push_str(&left_out(unused.late, "late", "windrow.late_rows"));
            message.push_str(&left_out(unused.bad, "bad", "windrow.bad_rows"));
        }
        Ok(message)
    }

    /// Prints rows as they arrive.
    async fn print_rows(
        &mut self,
        rows: &mut Rows,
        printed: &mut Printed,
        watch: &mut Watch,
    ) -> Result<(), Failure> {
        let is_terminal = self.out_is_terminal();
        loop {
            let next = match rows.next().now_or_never() {
                Some(next) => {
                    watch.glance()?;
                    next
                }
                None => {
                    // While waiting, show what has arrived.
                    watch.bar.aside(|| self.out.flush())?;
                    watch.next(rows, printed.rows).await?
                }
            };
            let Some(batch) = next.transpose()? else { return Ok(()) };
            self.last.add(&batch);
            if is_terminal {
                watch.bar.aside(|| {
                    printed.batch(&mut self.out, &batch)?;
                    Ok::<(), Failure>(self.out.flush()?)
                })?;
                if matches!(self.out.get_ref(), Out::Paged(pager) if pager.is_running()) {
                    watch.bar.hide();
                }
            } else {
                printed.batch(&mut self.out, &batch)?;
            }
        }
    }

    /// Ends a result that may have gone to a pager: waits until the user has left it.
    fn end_pager(&mut self, done: Result<(), Failure>, watch: &mut Watch) -> Result<(), Failure> {
        if !matches!(self.out.get_ref(), Out::Paged(_)) {
            return done;
        }
        // A pager that the user has left accepts no more.
        let flushed = self.out.flush().map_err(Failure::from);
        let (out, _written) = std::mem::replace(&mut self.out, stdout()).into_parts();
        let Out::Paged(pager) = out else { return done };
        if pager.is_running() {
            watch.bar.hide();
        }
        let interrupts = Arc::clone(&self.interrupts);
        let shown = interrupts.of_another(|| watch.bar.aside(|| pager.finish()));
        match done.and(flushed) {
            // The user has seen enough.
            Err(Failure::ReaderLeft) => shown,
            done => done.and(shown),
        }
    }

    /// The current layout of tables.
    pub(super) fn layout(&self, continuous: bool) -> Layout {
        let terminal = if self.out_is_terminal() { terminal_size::terminal_size() } else { None };
        Layout {
            continuous,
            width_max: terminal.map(|(width, _)| usize::from(width.0)),
            height: terminal.map(|(_, height)| usize::from(height.0)),
            expanded: if self.showing.expanded_once { Expanded::On } else { self.expanded },
            colour: self.out_file.is_none() && stdout_has_colour(),
            null: self.showing.null.clone(),
        }
    }

    pub(super) fn out_is_terminal(&self) -> bool {
        self.out_file.is_none() && std::io::stdout().is_terminal()
    }

    /// Writes results to `path` from now on, or to stdout.
    pub(super) fn set_output(&mut self, path: Option<&Path>) -> Result<(), Failure> {
        self.out.flush()?;
        self.out = match path {
            None => stdout(),
            Some(path) => {
                let file = File::create(path).map_err(|e| {
                    let message = format!("cannot write to \"{}\": {e}", path.display());
                    Error::new(ErrorKind::NotFound, message).with_source(e)
                })?;
                BufWriter::with_capacity(OUT_BYTES, Out::File(file))
            }
        };
        self.out_file = path.map(Path::to_owned);
        self.printed_table = false;
        Ok(())
    }
}

pub(super) fn stdout() -> BufWriter<Out> {
    BufWriter::with_capacity(OUT_BYTES, Out::Stdout(std::io::stdout()))
}

/// Formats a number of rows for people.
fn counted(rows: u64) -> String {
    format!("{rows} row{}", if rows == 1 { "" } else { "s" })
}

/// Describes late or bad input rows; empty if there are none.
fn left_out(rows: u64, kind: &str, table: &str) -> String {
    match rows {
        0 => String::new(),
        1 => format!("\nnotice: 1 {kind} row was left out; see {table}"),
        _ => format!("\nnotice: {rows} {kind} rows were left out; see {table}"),
    }
}

/// Formats a duration for people.
pub(super) fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1.0 => format!("{} ms", time.as_millis()),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(duration(Duration::from_micros(12_345)), "12 ms");
        assert_eq!(duration(Duration::from_millis(2_345)), "2.3 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn rows_that_did_not_count_are_told() {
        assert_eq!(left_out(0, "late", "windrow.late_rows"), "");
        let notice = left_out(2, "late", "windrow.late_rows");
        assert_eq!(notice, "\nnotice: 2 late rows were left out; see windrow.late_rows");
    }

    #[test]
    fn settings_say_what_they_are() {
        let mut showing = Showing::new();
        assert_eq!(showing.set(Some(Shown::Null("-".into()))), "null is shown as \"-\"");
        assert_eq!(showing.set(Some(Shown::Pager(false))), "no pager is used");
        assert_eq!(
            showing.set(None),
            "null is shown as \"-\"\nno pager is used\nup to 1000 rows are shown without a pager"
        );
        assert_eq!(showing.set(Some(Shown::Rows(None))), "all rows are shown");
    }
}
