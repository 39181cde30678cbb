//! Statements and commands from the terminal.

mod completion;
mod editor;
mod highlight;
mod keywords;
mod line;
mod vocabulary;

use std::path::{Path, PathBuf};

use futures::executor::block_on;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Editor, ExternalPrinter as _};
use tokio::runtime::Runtime;
use windrow_core::{Error, ErrorKind};
use windrow_engine::Failures;

use self::editor::{Sql, editor};
use self::line::{Line, classify};
use crate::failure::Failure;
use crate::runner::{Flow, Runner};
use crate::script::Script;
use crate::style::terminal_is_able;

const PROMPT: &str = "windrow> ";
/// The prompt of a continuation line; as wide as the other one.
const CONTINUED: &str = "    ...> ";

/// Reads and runs statements until the user exits. `kept` describes where data is stored.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run(waiting: &Runtime, runner: &mut Runner, kept: &str) -> Result<(), Failure> {
    let mut editor = editor().map_err(|e| terminal_error(&e))?;
    let history = history_path();
    if let Some(path) = history.as_ref().filter(|path| path.exists())
        && let Err(e) = editor.load_history(path)
    {
        say(&format!("notice: cannot read the history {}: {e}", path.display()));
    }
    say(&format!("Windrow {}: {kept}. \\? helps, Ctrl-D leaves.", env!("CARGO_PKG_VERSION")));
    if let Some(engine) = runner.connection().engine() {
        tell_failures(&mut editor, engine.failures());
    }
    waiting.block_on(runner.tell_remote_failures());
    let mut prompt = Prompt {
        editor,
        waiting,
        runner,
        history: history.as_deref(),
        pending: String::new(),
        to_edit: String::new(),
        interrupted: false,
        warned: false,
    };
    prompt.read_and_run()
}

/// Reports views as they fail, also while the user is typing.
fn tell_failures(editor: &mut Editor<Sql, FileHistory>, mut failures: Failures) {
    let mut printer = editor.create_external_printer().ok();
    let tell = move || loop {
        let failed = block_on(failures.next());
        if failed.is_empty() {
            // The engine is gone.
            return;
        }
        for error in failed {
            let notice = format!("notice: {}", error.render(""));
            let printed = printer.as_mut().is_some_and(|p| p.print(format!("{notice}\n")).is_ok());
            if !printed {
                say(&notice);
            }
        }
    };
    if let Err(e) = std::thread::Builder::new().name("notices".into()).spawn(tell) {
        say(&format!("notice: failed views cannot be reported: {e}"));
    }
}

/// The prompt at which the user types.
struct Prompt<'a> {
    editor: Editor<Sql, FileHistory>,
    waiting: &'a Runtime,
    runner: &'a mut Runner,
    history: Option<&'a Path>,
    /// The beginning of a statement that continues on the next line.
    pending: String,
    /// The initial text of the next line, to be edited.
    to_edit: String,
    /// Whether the last input was Ctrl-C at an empty prompt.
    interrupted: bool,
    /// Whether the user has been warned that rows would be lost.
    warned: bool,
}

impl Prompt<'_> {
    /// Reads lines and runs them, until the user leaves.
    fn read_and_run(&mut self) -> Result<(), Failure> {
        loop {
            if self.pending.is_empty() {
                learn(&mut self.editor, self.waiting, self.runner);
            }
            let leave = match self.read()? {
                Input::Line(line) => {
                    self.interrupted = false;
                    self.line(line)?
                }
                // Ctrl-C discards what has been typed; where there is nothing, a second one leaves.
                Input::Interrupt { typed } if typed || !self.pending.is_empty() => {
                    self.pending.clear();
                    self.interrupted = false;
                    false
                }
                Input::Interrupt { .. } if self.interrupted => true,
                Input::Interrupt { .. } => {
                    say("Ctrl-C again leaves.");
                    self.interrupted = true;
                    false
                }
                Input::End => true,
            };
            if leave && self.may_leave() {
                return Ok(());
            }
        }
    }

    /// Reads a line.
    fn read(&mut self) -> Result<Input, Failure> {
        let interrupts = self.runner.interrupts();
        if interrupts.at_prompt() {
            interrupts.leaves_prompt();
            return Ok(Input::Interrupt { typed: false });
        }
        let prompt = if self.pending.is_empty() { PROMPT } else { CONTINUED };
        if let Some(helper) = self.editor.helper_mut() {
            helper.begin(&self.pending);
        }
        let read = self.editor.readline_with_initial(prompt, (&self.to_edit, ""));
        self.runner.interrupts().leaves_prompt();
        self.to_edit.clear();
        let cleared = self.editor.helper().is_some_and(Sql::is_cleared);
        match read {
            Ok(line) if cleared => Ok(Input::Interrupt { typed: !line.trim().is_empty() }),
            Ok(line) => Ok(Input::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Input::Interrupt { typed: false }),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(e) => Err(terminal_error(&e)),
        }
    }

    /// Takes a line: the end of a statement, a command, or a part of a statement. Returns whether to leave.
    fn line(&mut self, line: String) -> Result<bool, Failure> {
        match classify(&self.pending, line) {
            Line::Nothing => Ok(false),
            Line::Part(text) => {
                self.pending = text;
                Ok(false)
            }
            Line::Cleared => {
                self.pending.clear();
                Ok(false)
            }
            // A command within a statement, which continues after it.
            Line::Aside(command) => self.run(command),
            Line::All(text) => {
                self.pending.clear();
                self.run(text)
            }
            Line::Expanded(text) => {
                self.pending.clear();
                self.runner.expand_once();
                self.run(text)
            }
        }
    }

    /// Runs what was typed. Returns whether to leave.
    fn run(&mut self, input: String) -> Result<bool, Failure> {
        remember(&mut self.editor, &input, self.history);
        let ran = self.waiting.block_on(self.runner.run(&Script::typed(input)));
        self.runner.interrupts().forget();
        match ran {
            Ok(Flow::On) => {}
            Ok(Flow::Leave) => return Ok(true),
            Ok(Flow::Edit(text)) => {
                self.pending.clear();
                self.to_edit = text;
            }
            Err(Failure::ReaderLeft) => return Err(Failure::ReaderLeft),
            Err(Failure::Error { error, .. }) if error.kind() == ErrorKind::Cancelled => {
                say("cancelled");
            }
            Err(failure) => say(&failure.text().unwrap_or_default()),
        }
        Ok(false)
    }

    /// Whether the user may leave: the first time, a notice lists the rows that would be lost.
    fn may_leave(&mut self) -> bool {
        if std::mem::replace(&mut self.warned, true) {
            return true;
        }
        match self.waiting.block_on(self.runner.unsaved()) {
            Ok(streams) if streams.is_empty() => true,
            Ok(streams) => {
                say(&format!(
                    "notice: rows are in memory only and would be lost: {}\nhint: COPY … TO 'file' saves them, and \
                     \"windrow DIR\" keeps everything. Leave again to lose them.",
                    streams.join(", ")
                ));
                false
            }
            Err(error) => {
                say(&format!("notice: cannot determine which rows would be lost: {error}"));
                true
            }
        }
    }
}

/// Input from the terminal.
enum Input {
    /// A line.
    Line(String),
    /// Ctrl-C, and whether something was typed before it.
    Interrupt { typed: bool },
    /// Ctrl-D.
    End,
}

/// Refreshes the names known to the editor. A prompt without completion is better than no prompt.
fn learn(editor: &mut Editor<Sql, FileHistory>, waiting: &Runtime, runner: &mut Runner) {
    if !terminal_is_able() || !runner.take_changed() {
        return;
    }
    let Some(helper) = editor.helper_mut() else { return };
    if let Err(error) = waiting.block_on(helper.vocabulary.refresh(runner.connection())) {
        say(&format!("notice: names cannot be completed: {error}"));
    }
}

/// Adds a statement to the history at once, also for other sessions.
fn remember(editor: &mut Editor<Sql, FileHistory>, input: &str, history: Option<&Path>) {
    let folder = |path: &Path| path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let added = editor.add_history_entry(input.trim_end());
    let written = match (added, history) {
        (Ok(true), Some(path)) => {
            folder(path).map_err(ReadlineError::from).and_then(|()| editor.append_history(path))
        }
        (Ok(_), _) => Ok(()),
        (Err(e), _) => Err(e),
    };
    if let Err(e) = written {
        say(&format!("notice: cannot write the history: {e}"));
    }
}

/// The path of the history: under `XDG_STATE_HOME` or its default.
fn history_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|h| h.join(".local/state")))?;
    Some(state.join("windrow").join("history"))
}

fn terminal_error(e: &ReadlineError) -> Failure {
    Error::new(ErrorKind::Unavailable, format!("cannot read from the terminal: {e}")).into()
}

#[expect(clippy::print_stderr, reason = "what is no result goes there")]
fn say(text: &str) {
    eprintln!("{text}");
}
