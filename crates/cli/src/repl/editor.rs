//! The line editor, with its knowledge of SQL.

use std::borrow::Cow;
use std::cell::RefCell;

use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, Helper};
use windrow_sql::parse::is_complete;

use super::completion::complete;
use super::highlight::highlighted;
use super::vocabulary::Vocabulary;
use crate::command::is_command;
use crate::style::{Paint, painted, wants_colour};

/// Statements that the history keeps.
const HISTORY_MAX: usize = 10_000;

/// The number of letters of a word from which a unique completion is hinted.
const HINT_LETTERS_MIN: usize = 3;

/// The helper of the line editor.
#[derive(Default)]
pub(super) struct Sql {
    /// The names that exist.
    pub(super) vocabulary: Vocabulary,
    history: HistoryHinter,
    /// The text that was last coloured, and its coloured form.
    coloured: RefCell<(String, String)>,
}

/// Returns an editor with an empty history, to be loaded with that of earlier sessions.
///
/// # Errors
/// When the terminal cannot be used.
pub(super) fn editor() -> rustyline::Result<Editor<Sql, FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .color_mode(if wants_colour() { ColorMode::Enabled } else { ColorMode::Disabled })
        .bracketed_paste(true)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Sql::default()));
    Ok(editor)
}

impl Helper for Sql {}

impl Highlighter for Sql {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if is_command(line) {
            return Cow::Borrowed(line);
        }
        let mut last = self.coloured.borrow_mut();
        if last.0 != line {
            let coloured = highlighted(line).unwrap_or_else(|| line.to_owned());
            *last = (line.to_owned(), coloured);
        }
        Cow::Owned(last.1.clone())
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(painted(Paint::Bold, prompt))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(painted(Paint::Dim, hint))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Hinter for Sql {
    type Hint = String;

    /// Returns the rest of the newest statement with this beginning, or of the only matching word.
    fn hint(&self, line: &str, position: usize, context: &Context<'_>) -> Option<String> {
        // A hint that cannot be distinguished from text is useless.
        if position < line.len() || line.is_empty() || !wants_colour() {
            return None;
        }
        let of_history = self.history.hint(line, position, context);
        if let Some(hint) = of_history.filter(|h| !h.contains('\n')) {
            return Some(hint);
        }
        let (start, candidates) = complete(line, position, &self.vocabulary);
        let [only] = candidates.as_slice() else { return None };
        if position - start < HINT_LETTERS_MIN {
            return None;
        }
        only.get(position - start..).map(str::to_owned)
    }
}

impl Validator for Sql {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        Ok(if is_command(input) || is_complete(input) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Completer for Sql {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line, position, &self.vocabulary))
    }
}
