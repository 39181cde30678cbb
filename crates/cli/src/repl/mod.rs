//! Statements and commands from the terminal.

mod completion;
mod editor;
mod highlight;
mod keywords;
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
use crate::failure::Failure;
use crate::runner::{Flow, Runner};
use crate::script::Script;
use crate::style::terminal_is_able;

const PROMPT: &str = "windrow> ";

/// Reads and runs statements until the user exits. `kept` describes where data is stored, for people.
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
    read_and_run(&mut editor, waiting, runner, history.as_deref())
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
        say(&format!("notice: views that fail are not told of: {e}"));
    }
}

fn read_and_run(
    editor: &mut Editor<Sql, FileHistory>,
    waiting: &Runtime,
    runner: &mut Runner,
    history: Option<&Path>,
) -> Result<(), Failure> {
    let mut interrupted = false;
    let mut to_edit = String::new();
    loop {
        learn(editor, waiting, runner);
        let interrupts = runner.interrupts();
        let input = if interrupts.at_prompt() {
            Err(ReadlineError::Interrupted)
        } else {
            editor.readline_with_initial(PROMPT, (&to_edit, ""))
        };
        interrupts.leaves_prompt();
        to_edit.clear();
        let input = match input {
            Ok(input) => input,
            // Ctrl-C discards what has been typed; a second one exits.
            Err(ReadlineError::Interrupted) if interrupted => return Ok(()),
            Err(ReadlineError::Interrupted) => {
                say("Ctrl-C again leaves.");
                interrupted = true;
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(terminal_error(&e)),
        };
        interrupted = false;
        if input.trim().is_empty() {
            continue;
        }
        remember(editor, &input, history);
        let ran = waiting.block_on(runner.run(&Script::typed(input)));
        runner.interrupts().forget();
        match ran {
            Ok(Flow::On) => {}
            Ok(Flow::Leave) => return Ok(()),
            Ok(Flow::Edit(text)) => to_edit = text,
            Err(Failure::ReaderLeft) => return Err(Failure::ReaderLeft),
            Err(Failure::Error { error, .. }) if error.kind() == ErrorKind::Cancelled => {
                say("cancelled");
            }
            Err(failure) => say(&failure.text().unwrap_or_default()),
        }
    }
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
