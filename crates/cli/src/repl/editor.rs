//! The line editor, with its knowledge of SQL.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ColorMode, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event,
    EventContext, EventHandler, Helper, KeyEvent, RepeatCount,
};

use super::completion::complete;
use super::highlight::highlighted_from;
use super::vocabulary::Vocabulary;
use crate::command::is_command;
use crate::style::{Paint, painted, wants_colour};

/// Statements that the history keeps.
const HISTORY_MAX: usize = 10_000;

/// The minimum number of letters of a word for which a unique completion is hinted.
const HINT_LETTERS_MIN: usize = 3;

/// The helper of the line editor.
#[derive(Default)]
pub(super) struct Sql {
    /// The names that exist.
    pub(super) vocabulary: Vocabulary,
    history: HistoryHinter,
    /// The text that was last coloured, and its coloured form.
    coloured: RefCell<(String, String)>,
    /// The lines of the statement before the one that is typed, with their ends.
    before: String,
    /// Whether the line was ended by Ctrl-C.
    cleared: Arc<AtomicBool>,
}

impl Sql {
    /// Begins a line that follows the lines of `pending`.
    pub(super) fn begin(&mut self, pending: &str) {
        self.before = pending.to_owned();
        if !pending.is_empty() {
            self.before.push('\n');
        }
        *self.coloured.borrow_mut() = Default::default();
        self.cleared.store(false, Ordering::SeqCst);
    }

    /// Whether the line was ended by Ctrl-C, and is to be discarded.
    pub(super) fn is_cleared(&self) -> bool {
        self.cleared.load(Ordering::SeqCst)
    }

    /// The statement with the line that is typed.
    fn whole(&self, line: &str) -> String {
        format!("{}{line}", self.before)
    }

    /// The completions of the word at `position`, and where it starts.
    fn completions(&self, line: &str, position: usize) -> (usize, Vec<String>) {
        if self.before.is_empty() || is_command(line) {
            return complete(line, position, &self.vocabulary);
        }
        let before = self.before.len();
        let (start, found) = complete(&self.whole(line), before + position, &self.vocabulary);
        // A word does not begin in a line before.
        if start < before { (position, vec![]) } else { (start - before, found) }
    }
}

/// Makes Ctrl-C end the line like Enter, so that the typed text is known, and the grey hint disappears.
struct Clears(Arc<AtomicBool>);

impl ConditionalEventHandler for Clears {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext<'_>) -> Option<Cmd> {
        self.0.store(true, Ordering::SeqCst);
        Some(Cmd::AcceptLine)
    }
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
    let helper = Sql::default();
    let clears = Clears(Arc::clone(&helper.cleared));
    editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(clears)));
    editor.set_helper(Some(helper));
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
            let coloured = highlighted_from(&self.whole(line), self.before.len());
            let coloured = coloured.unwrap_or_else(|| line.to_owned());
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
        if position < line.len() || line.is_empty() || !wants_colour() || self.is_cleared() {
            return None;
        }
        if self.before.is_empty() {
            let of_history = self.history.hint(line, position, context);
            if let Some(hint) = of_history.filter(|h| !h.contains('\n')) {
                return Some(hint);
            }
        }
        let (start, candidates) = self.completions(line, position);
        let [only] = candidates.as_slice() else { return None };
        if position - start < HINT_LETTERS_MIN {
            return None;
        }
        only.get(position - start..).map(str::to_owned)
    }
}

/// Accepts every line: the prompt determines whether the statement continues.
impl Validator for Sql {}

impl Completer for Sql {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.completions(line, position))
    }
}
