//! Statements from the terminal: a line editor with a history.

use std::path::{Path, PathBuf};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;
use windrow_core::{Error, ErrorKind};
use windrow_runtime::Engine;

use crate::arguments::Format;
use crate::completion::{Sql, is_command};
use crate::failure::Failure;
use crate::script::{Runner, Script};

const PROMPT: &str = "windrow> ";

/// Statements that the history keeps.
const HISTORY_MAX: usize = 10_000;

const HELP: &str = "\
Statements end with a semicolon and may go over several lines.
  Tab        completes keywords and names       Ctrl-C   cancels the running statement
  Up, Down   go through the history             Ctrl-D   leaves
  .format table | csv | ndjson                  .quit    leaves too
Try: SHOW STREAMS;  SHOW VIEWS;  DESCRIBE name;  EXPLAIN SELECT …;  SELECT * FROM windrow.queries;";

/// What a command of the REPL does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Quit,
    Help,
    Format(Format),
}

/// Reads and runs statements until the user leaves.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run(
    waiting: &Runtime,
    engine: &Engine,
    runner: &mut Runner,
    data_dir: Option<&Path>,
) -> Result<(), Failure> {
    let mut editor = editor(engine).map_err(|e| terminal_error(&e))?;
    let history = history_path();
    if let Some(path) = history.as_ref().filter(|path| path.exists())
        && let Err(e) = editor.load_history(path)
    {
        say(&format!("notice: cannot read the history {}: {e}", path.display()));
    }
    let kept = data_dir.map_or("in memory".to_owned(), |dir| format!("in {}", dir.display()));
    say(&format!(
        "Windrow {}: everything is kept {kept}. \".help\" helps, Ctrl-D leaves.",
        env!("CARGO_PKG_VERSION")
    ));
    let done = read_and_run(&mut editor, waiting, runner);
    if let Some(path) = &history {
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(e) =
            folder.map_err(ReadlineError::from).and_then(|()| editor.append_history(path))
        {
            say(&format!("notice: cannot write the history {}: {e}", path.display()));
        }
    }
    done
}

fn read_and_run(
    editor: &mut Editor<Sql, FileHistory>,
    waiting: &Runtime,
    runner: &mut Runner,
) -> Result<(), Failure> {
    loop {
        runner.set_at_prompt(true);
        let input = editor.readline(PROMPT);
        runner.set_at_prompt(false);
        let input = match input {
            Ok(input) => input,
            // Ctrl-C in the editor throws away what has been typed.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(terminal_error(&e)),
        };
        if input.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(input.trim()).map_err(|e| terminal_error(&e))?;
        if is_command(&input) {
            match command(input.trim()) {
                Ok(Command::Quit) => return Ok(()),
                Ok(Command::Help) => say(HELP),
                Ok(Command::Format(format)) => runner.set_format(format),
                Err(error) => say(&format!("error: {}", error.render(""))),
            }
            continue;
        }
        match waiting.block_on(runner.run(&Script::typed(input))) {
            Ok(()) => {}
            Err(Failure::ReaderLeft) => return Err(Failure::ReaderLeft),
            Err(Failure::Error { error, .. }) if error.kind() == ErrorKind::Cancelled => {
                say("cancelled");
            }
            Err(failure) => say(&failure.text().unwrap_or_default()),
        }
    }
}

fn editor(engine: &Engine) -> rustyline::Result<Editor<Sql, FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Sql::new(engine)));
    Ok(editor)
}

/// What is typed as a command of the REPL itself.
fn command(input: &str) -> Result<Command, Error> {
    let mut words = input.split_whitespace();
    match (words.next().unwrap_or_default(), words.next(), words.next()) {
        (".quit" | ".exit" | "\\q" | "quit" | "exit", None, None) => Ok(Command::Quit),
        (".help" | "\\?" | "\\h" | "help", None, None) => Ok(Command::Help),
        (".format", Some("table"), None) => Ok(Command::Format(Format::Table)),
        (".format", Some("csv"), None) => Ok(Command::Format(Format::Csv)),
        (".format", Some("ndjson" | "json"), None) => Ok(Command::Format(Format::Ndjson)),
        _ => Err(Error::sql(format!("unknown command \"{input}\""))
            .with_hint("Commands are .help, .quit and .format table | csv | ndjson.")),
    }
}

/// Where the history is kept: under `XDG_STATE_HOME`, or what stands for it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(command("\\q").unwrap(), Command::Quit);
        assert_eq!(command("help").unwrap(), Command::Help);
        assert_eq!(command(".format csv").unwrap(), Command::Format(Format::Csv));
        let error = command(".tables").unwrap_err();
        assert_eq!(error.message(), "unknown command \".tables\"");
    }
}
