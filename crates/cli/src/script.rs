//! Runs statements one after the other and prints what they give.

use std::future::Future;
use std::io::{BufWriter, IsTerminal, Read, StdoutLock, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use windrow_core::{Error, ErrorKind, Result};
use windrow_runtime::{Engine, Outcome, ResultStream, Session, SessionOptions};
use windrow_sql::parse::{Parsed, parse};

use crate::arguments::{Format, Printing};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::Printer;
use crate::progress::{Bar, TICK};

/// Bytes of output that are gathered before they are written.
const OUT_BYTES: usize = 1 << 18;

/// Where statements come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The command line.
    Text(String),
    /// A file.
    File(PathBuf),
    /// A pipe.
    Stdin,
}

impl Source {
    /// The file at `path`; `-` is stdin.
    pub(crate) fn from_path(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }
}

/// Statements as text, and what their place is called in errors.
#[derive(Debug)]
pub(crate) struct Script {
    name: Option<String>,
    text: String,
}

impl Script {
    /// Reads `source` to its end.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    pub(crate) fn read(source: Source) -> Result<Self> {
        let mut bytes = vec![];
        let (name, read) = match source {
            Source::Text(text) => return Ok(Self { name: None, text }),
            Source::Stdin => ("stdin".to_owned(), std::io::stdin().lock().read_to_end(&mut bytes)),
            Source::File(path) => {
                let read = std::fs::File::open(&path).and_then(|mut f| f.read_to_end(&mut bytes));
                (path.display().to_string(), read)
            }
        };
        read.map_err(|e| {
            Error::new(ErrorKind::NotFound, format!("cannot read \"{name}\": {e}")).with_source(e)
        })?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::sql(format!("\"{name}\" is not UTF-8 text")).with_hint(format!(
                "The first {} bytes are; convert the file to UTF-8.",
                e.utf8_error().valid_up_to()
            ))
        })?;
        // Some editors begin files with a byte order mark.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self { name: Some(name), text })
    }

    /// Statements that were typed in.
    pub(crate) fn typed(text: String) -> Self {
        Self { name: None, text }
    }

    /// What people are told of `error`, which happened in the statement at `line`.
    fn failure(&self, error: Error, line: usize) -> Failure {
        let line = error.place().map_or(line, |place| place.line);
        let origin = self.name.as_ref().map(|name| format!("{name}:{line}"));
        Failure::Error { error, origin, sql: self.text.clone() }
    }
}

/// Runs statements in one session and prints their results.
pub(crate) struct Runner {
    engine: Engine,
    session: Session,
    interrupts: Arc<Interrupts>,
    printing: Printing,
    out: BufWriter<StdoutLock<'static>>,
    out_is_terminal: bool,
    /// Whether a table has been printed, so that the next one stands apart from it.
    printed_table: bool,
}

impl Runner {
    /// A runner with a session of its own. In a REPL, others may feed streams while a query runs;
    /// in a script nobody can, so what a stream holds is all.
    pub(crate) fn new(
        engine: &Engine,
        interrupts: Arc<Interrupts>,
        printing: Printing,
        is_repl: bool,
    ) -> Result<Self> {
        let stdout = std::io::stdout().lock();
        Ok(Self {
            engine: engine.clone(),
            session: engine.session(SessionOptions { push_ends: !is_repl })?,
            interrupts,
            printing,
            out_is_terminal: stdout.is_terminal(),
            out: BufWriter::with_capacity(OUT_BYTES, stdout),
            printed_table: false,
        })
    }

    /// Tells whether somebody may be typing, and nothing runs.
    pub(crate) fn set_at_prompt(&self, at_prompt: bool) {
        self.interrupts.set_at_prompt(at_prompt);
    }

    /// Changes how results are written.
    pub(crate) fn set_format(&mut self, format: Format) {
        self.printing.format = format;
    }

    /// Runs the statements of `script` in order, up to the first that fails.
    pub(crate) async fn run(&mut self, script: &Script) -> Result<(), Failure> {
        let statements = parse(&script.text).map_err(|e| script.failure(e, 1))?;
        for statement in &statements {
            self.statement(statement).await.map_err(|failure| match failure {
                Failure::Error { error, .. } => script.failure(error, statement.first_line),
                Failure::ReaderLeft => Failure::ReaderLeft,
            })?;
        }
        Ok(())
    }

    /// Waits for the views that will be done by themselves.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        let mut watch = Watch::new(&self.engine, &self.interrupts, self.printing.quiet);
        let drained = watch.until(self.engine.drain()).await.and_then(|drained| drained);
        watch.bar.clear();
        Ok(drained?)
    }

    async fn statement(&mut self, statement: &Parsed) -> Result<(), Failure> {
        let mut watch = Watch::new(&self.engine, &self.interrupts, self.printing.quiet);
        let done = match watch.until(self.session.execute(statement)).await.and_then(|o| o) {
            Ok(Outcome::Done(message)) => Ok(message),
            Ok(Outcome::Rows(rows)) => self.print(rows, &mut watch).await,
            Err(error) => Err(error.into()),
        };
        watch.bar.clear();
        // What has been printed stays, and comes before what is said about it.
        let flushed = self.out.flush();
        let message = done?;
        flushed?;
        self.notice(&message);
        Ok(())
    }

    /// Prints rows until there are no more; what people are told about them.
    async fn print(
        &mut self,
        mut rows: ResultStream,
        watch: &mut Watch,
    ) -> Result<String, Failure> {
        let format = self.printing.format;
        let width = self.terminal_width();
        let schema = Arc::clone(rows.schema());
        let mut printer = Printer::new(format, schema, rows.is_continuous(), width);
        if format == Format::Table && std::mem::replace(&mut self.printed_table, true) {
            writeln!(self.out)?;
        }
        loop {
            let next = match rows.next().now_or_never() {
                Some(next) => {
                    watch.glance()?;
                    next
                }
                None => {
                    // Nothing to do but wait: show what is there.
                    watch.bar.aside(|| self.out.flush())?;
                    watch.until(rows.next()).await?
                }
            };
            let Some(batch) = next.transpose()? else { break };
            if self.out_is_terminal {
                watch.bar.aside(|| {
                    printer.batch(&mut self.out, &batch)?;
                    Ok::<(), Failure>(self.out.flush()?)
                })?;
            } else {
                printer.batch(&mut self.out, &batch)?;
            }
        }
        watch.bar.aside(|| printer.end(&mut self.out))?;
        let count = printer.rows();
        let plural = if count == 1 { "" } else { "s" };
        let mut message = format!("{count} row{plural} in {}", duration(watch.start.elapsed()));
        if let Some(unused) = rows.unused_rows() {
            message.push_str(&left_out(unused.late, "late", "windrow.late_rows"));
            message.push_str(&left_out(unused.bad, "bad", "windrow.bad_rows"));
        }
        Ok(message)
    }

    fn terminal_width(&self) -> Option<usize> {
        if !self.out_is_terminal {
            return None;
        }
        terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
    }

    /// Tells people something that is no result.
    #[expect(clippy::print_stderr, reason = "what is no result goes there")]
    fn notice(&self, text: &str) {
        if !self.printing.quiet && !text.is_empty() {
            eprintln!("{text}");
        }
    }
}

/// Waits for something with an eye on Ctrl-C and the progress bar.
struct Watch {
    start: Instant,
    interrupts: Arc<Interrupts>,
    ticks: Interval,
    bar: Bar,
}

impl Watch {
    fn new(engine: &Engine, interrupts: &Arc<Interrupts>, quiet: bool) -> Self {
        let start = Instant::now();
        let mut ticks = interval_at(start + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { start, interrupts: Arc::clone(interrupts), ticks, bar: Bar::new(engine, quiet) }
    }

    /// Waits for `work`.
    ///
    /// # Errors
    /// When Ctrl-C came first.
    async fn until<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                error = self.interrupts.cancelled() => return Err(error),
                _ = self.ticks.tick() => self.bar.tick(),
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Looks whether Ctrl-C came or the bar is to move, without waiting.
    fn glance(&mut self) -> Result<()> {
        if self.ticks.tick().now_or_never().is_some() {
            self.bar.tick();
        }
        self.interrupts.cancelled().now_or_never().map_or(Ok(()), Err)
    }
}

/// What people are told of input rows that did not count; nothing where there are none.
fn left_out(rows: u64, kind: &str, table: &str) -> String {
    match rows {
        0 => String::new(),
        1 => format!("\nnotice: 1 {kind} row was left out; see {table}"),
        _ => format!("\nnotice: {rows} {kind} rows were left out; see {table}"),
    }
}

/// A length of time for people.
fn duration(time: Duration) -> String {
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
    fn a_file_that_is_not_there_is_named() {
        let error = Script::read(Source::File("no/such.sql".into())).unwrap_err();
        assert!(error.message().starts_with("cannot read \"no/such.sql\": "), "{error}");
        assert_eq!(error.kind().exit_code(), 2);
    }

    #[test]
    fn failures_name_the_line_of_the_place() {
        let script = Script { name: Some("a.sql".into()), text: "SELECT\nx".into() };
        let error = Error::sql("no x").with_place(windrow_core::Place::at(2, 1));
        let text = script.failure(error, 1).text().unwrap();
        assert!(text.starts_with("error: a.sql:2: no x\n  line 2: x"), "{text}");
        let text = script.failure(Error::data("bad"), 7).text().unwrap();
        assert_eq!(text, "error: a.sql:7: bad");
        let typed = Script::typed("SELECT".into());
        assert_eq!(typed.failure(Error::data("bad"), 1).text().unwrap(), "error: bad");
    }
}
