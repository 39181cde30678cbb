//! Runs statements and commands one after the other and prints their results.

mod commands;
mod watch;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::{Engine, Failures};
use windrow_sql::parse::{Parsed, Statement, parse};

use self::watch::Watch;
use crate::arguments::Printing;
use crate::chart::Last;
use crate::command::{Command, Expanded};
use crate::connection::{Answer, Connection, Rows};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::{Layout, Printer};
use crate::script::{Item, Script};
use crate::style::stdout_has_colour;
use crate::values::Format;

/// Bytes of output that are buffered before they are written.
const OUT_BYTES: usize = 1 << 18;

/// What to do after a piece of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Continue with the next piece.
    On,
    /// Exit: `\q`.
    Leave,
    /// Edit this text, at the prompt.
    Edit(String),
}

/// Which times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// Those of results.
    Rows,
    /// Those of all statements.
    All,
    /// None.
    Off,
}

/// Runs statements on one connection and prints their results.
pub(crate) struct Runner {
    connection: Connection,
    interrupts: Arc<Interrupts>,
    printing: Printing,
    expanded: Expanded,
    timing: Timing,
    out: BufWriter<Box<dyn Write>>,
    /// The file that results go to instead of stdout.
    out_file: Option<PathBuf>,
    /// Whether a table has been printed, so that the next one is separated from it.
    printed_table: bool,
    /// The last statement, for `\watch` and `\e`.
    last_statement: Option<String>,
    /// The last rows, for `\chart`.
    last: Last,
    /// The nesting depth of included files.
    depth: usize,
    is_repl: bool,
    /// The materialized views that were created, as written.
    created: Vec<String>,
    /// Whether a statement may have changed the catalog since the last query of this flag.
    changed: bool,
    /// Failures of views of this process. At the terminal the editor reports them.
    failures: Option<Failures>,
    /// What was reported about views of a server.
    told: BTreeSet<String>,
}

impl Runner {
    /// Returns a runner that prints to stdout.
    pub(crate) fn new(
        connection: Connection,
        interrupts: Arc<Interrupts>,
        printing: Printing,
        is_repl: bool,
    ) -> Self {
        let failures = connection.engine().filter(|_| !is_repl).map(Engine::failures);
        Self {
            failures,
            told: BTreeSet::new(),
            connection,
            interrupts,
            printing,
            expanded: Expanded::Off,
            timing: Timing::Rows,
            out: stdout(),
            out_file: None,
            printed_table: false,
            last_statement: None,
            last: Last::default(),
            depth: 0,
            is_repl,
            created: vec![],
            changed: true,
        }
    }

    /// The interrupts of the running statement.
    pub(crate) fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// The target of statements.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns whether a statement may have changed the catalog since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Runs the pieces of `script` in order, up to the first that fails or exits. All of them are parsed before the
    /// first is run.
    pub(crate) async fn run(&mut self, script: &Script) -> Result<Flow, Failure> {
        for item in script.items()? {
            let line = item.line();
            let done = match item {
                Item::Statement(statement) => self.statement(&statement).await.map(|()| Flow::On),
                Item::Command(text, _) => match Command::parse(&text) {
                    // Boxed, because a command may run a script.
                    Ok(command) => Box::pin(self.command(command)).await,
                    Err(error) => Err(error.into()),
                },
            };
            let flow = done.map_err(|failure| match failure {
                // A nested file has set the origin already.
                Failure::Error { error, origin: None, .. } => script.failure(error, line),
                told => told,
            })?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    /// Waits for the views that will finish by themselves.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        let mut watch = self.watch();
        let drained =
            watch.until(self.connection.drain(&self.created)).await.and_then(|drained| drained);
        watch.bar.clear();
        self.tell_failures();
        Ok(drained?)
    }

    /// Reports views that have failed in this process.
    fn tell_failures(&mut self) {
        for error in self.failures.as_mut().map(Failures::take).unwrap_or_default() {
            self.notice(&format!("notice: {}", error.render("")));
        }
    }

    /// Reports views of a server that have failed since the last call. If the server does not respond, the next
    /// statement reports that.
    pub(crate) async fn tell_remote_failures(&mut self) {
        let failed = match self.connection.failed_views().await {
            Ok(failed) => failed,
            Err(error) if error.kind() == ErrorKind::Unavailable => return,
            Err(error) => {
                return self.notice(&format!("notice: views that fail are not told of: {error}"));
            }
        };
        // A view that was recreated and fails again gives a new notice.
        let before = std::mem::replace(&mut self.told, failed.iter().cloned().collect());
        for view in failed.iter().filter(|view| !before.contains(*view)) {
            self.notice(&format!("notice: {view}\nhint: SHOW VIEWS has the state of all views."));
        }
    }

    fn watch(&self) -> Watch {
        Watch::new(self.connection.engine(), &self.interrupts, self.printing.quiet)
    }

    async fn statement(&mut self, statement: &Parsed) -> Result<(), Failure> {
        self.last_statement = Some(format!("{};", statement.text));
        let mut watch = self.watch();
        let executed = watch.until(self.connection.execute(statement)).await;
        let done = match executed.and_then(|answer| answer) {
            Ok(Answer::Done(message)) => {
                self.changed = true;
                if let Statement::CreateView(view) = &statement.statement
                    && view.materialized
                {
                    self.created.push(view.name.to_string());
                }
                let told = self.timing == Timing::All;
                let time = duration(watch.start.elapsed());
                Ok(if told { format!("{message} in {time}") } else { message })
            }
            Ok(Answer::Rows(rows)) => self.print(rows, &mut watch).await,
            Err(error) => Err(error.into()),
        };
        watch.bar.clear();
        // What has been printed comes before what is reported about it.
        let flushed = self.out.flush();
        self.tell_failures();
        if self.is_repl {
            self.tell_remote_failures().await;
        }
        let message = done?;
        flushed?;
        self.notice(&message);
        Ok(())
    }

    /// Prints rows until there are no more; returns a summary for people.
    async fn print(&mut self, mut rows: Rows, watch: &mut Watch) -> Result<String, Failure> {
        let format = self.printing.format;
        let schema = Arc::clone(rows.schema());
        self.last.start(&schema);
        let mut printer = Printer::new(format, schema, &self.layout(rows.is_continuous()));
        if format == Format::Table && std::mem::replace(&mut self.printed_table, true) {
            writeln!(self.out)?;
        }
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
                    watch.next(&mut rows, printer.rows()).await?
                }
            };
            let Some(batch) = next.transpose()? else { break };
            self.last.add(&batch);
            if is_terminal {
                watch.bar.aside(|| {
                    printer.batch(&mut self.out, &batch)?;
                    Ok::<(), Failure>(self.out.flush()?)
                })?;
            } else {
                printer.batch(&mut self.out, &batch)?;
            }
        }
        watch.bar.aside(|| printer.end(&mut self.out))?;
        let mut message = counted(printer.rows());
        if self.timing != Timing::Off {
            message.push_str(&format!(" in {}", duration(watch.start.elapsed())));
        }
        message.push_str(&printer.notice());
        if let Some(unused) = rows.unused_rows() {
            message.push_str(&left_out(unused.late, "late", "windrow.late_rows"));
            message.push_str(&left_out(unused.bad, "bad", "windrow.bad_rows"));
        }
        Ok(message)
    }

    /// The current layout of tables.
    fn layout(&self, continuous: bool) -> Layout {
        let terminal = if self.out_is_terminal() { terminal_size::terminal_size() } else { None };
        Layout {
            continuous,
            width_max: terminal.map(|(width, _)| usize::from(width.0)),
            height: terminal.map(|(_, height)| usize::from(height.0)),
            expanded: self.expanded,
            colour: self.out_file.is_none() && stdout_has_colour(),
        }
    }

    fn out_is_terminal(&self) -> bool {
        self.out_file.is_none() && std::io::stdout().is_terminal()
    }

    /// Writes results to `path` from now on, or to stdout.
    fn set_output(&mut self, path: Option<&Path>) -> Result<(), Failure> {
        self.out.flush()?;
        self.out = match path {
            None => stdout(),
            Some(path) => {
                let file = File::create(path).map_err(|e| {
                    let message = format!("cannot write to \"{}\": {e}", path.display());
                    Error::new(ErrorKind::NotFound, message).with_source(e)
                })?;
                BufWriter::with_capacity(OUT_BYTES, Box::new(file))
            }
        };
        self.out_file = path.map(Path::to_owned);
        self.printed_table = false;
        Ok(())
    }

    /// Prints a message that is not a result.
    #[expect(clippy::print_stderr, reason = "what is no result goes there")]
    fn notice(&self, text: &str) {
        if !self.printing.quiet && !text.is_empty() {
            eprintln!("{text}");
        }
    }
}

fn stdout() -> BufWriter<Box<dyn Write>> {
    BufWriter::with_capacity(OUT_BYTES, Box::new(std::io::stdout()))
}

/// Parses one statement that Windrow itself wrote.
fn parse_one(sql: &str) -> Result<Parsed> {
    parse(sql)?.pop().ok_or_else(|| Error::internal("there is no statement"))
}

/// Formats a number of rows for people.
fn counted(rows: u64) -> String {
    format!("{rows} row{}", if rows == 1 { "" } else { "s" })
}

/// Describes input rows that did not count; empty where there are none.
fn left_out(rows: u64, kind: &str, table: &str) -> String {
    match rows {
        0 => String::new(),
        1 => format!("\nnotice: 1 {kind} row was left out; see {table}"),
        _ => format!("\nnotice: {rows} {kind} rows were left out; see {table}"),
    }
}

/// Formats a duration for people.
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
}
