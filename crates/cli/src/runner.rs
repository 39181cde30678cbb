//! Runs statements and commands one after the other and prints their results.

mod commands;
mod pager;
mod printing;
mod watch;

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::{Engine, Failures};
use windrow_sql::parse::{Parsed, Statement, parse};

use self::pager::Out;
use self::printing::{Showing, duration, stdout};
use self::watch::Watch;
use crate::arguments::Printing;
use crate::chart::Last;
use crate::command::{Command, Expanded};
use crate::connection::{Answer, Connection, texts};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::script::{Item, Script};

/// The streams that are lost with this process.
const UNSAVED: &str = "SELECT name, rows FROM windrow.streams \
    WHERE connector = 'push' AND rows > 0 ORDER BY name";

/// The action after a piece of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Continue with the next piece.
    On,
    /// Exit: `\q`.
    Leave,
    /// Edit this text, at the prompt.
    Edit(String),
}

/// The statements whose times are shown.
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
    showing: Showing,
    timing: Timing,
    out: BufWriter<Out>,
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
    /// The messages about views of a server that have been reported.
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
            showing: Showing::new(),
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
                return self.notice(&format!("notice: failed views cannot be reported: {error}"));
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
            Ok(Answer::Rows(rows)) => {
                let format = match &statement.statement {
                    Statement::CopyOut(copy) => Some(copy.format),
                    _ => None,
                };
                self.print(rows, format, &mut watch).await
            }
            Err(error) => Err(error.into()),
        };
        watch.bar.clear();
        // Results are written before messages about them.
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

    /// The next result has one line per value.
    pub(crate) fn expand_once(&mut self) {
        self.showing.expanded_once = true;
    }

    /// Describes the streams of this process whose rows are in memory only.
    ///
    /// # Errors
    /// When the engine cannot list them.
    pub(crate) async fn unsaved(&self) -> Result<Vec<String>> {
        if !self.connection.is_in_memory() {
            return Ok(vec![]);
        }
        let rows = texts(&self.connection, UNSAVED).await?;
        let told = |row: Vec<String>| match row.as_slice() {
            [name, rows] => {
                Some(format!("\"{name}\" ({rows} row{})", if rows == "1" { "" } else { "s" }))
            }
            _ => None,
        };
        Ok(rows.into_iter().filter_map(told).collect())
    }

    /// Prints a message that is not a result.
    #[expect(clippy::print_stderr, reason = "what is no result goes there")]
    fn notice(&self, text: &str) {
        if !self.printing.quiet && !text.is_empty() {
            eprintln!("{text}");
        }
    }
}

/// Parses one statement that Windrow itself wrote.
fn parse_one(sql: &str) -> Result<Parsed> {
    parse(sql)?.pop().ok_or_else(|| Error::internal("there is no statement"))
}
