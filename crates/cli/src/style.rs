//! Colours of the terminal, and when they are used.

use std::io::IsTerminal;

/// A text style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Less important text: NULL, hints, comments.
    Dim,
    /// Words of SQL.
    Keyword,
    /// Names of functions.
    Function,
    /// Strings.
    Text,
    /// Numbers.
    Number,
    /// Quoted names.
    Name,
    /// Titles of columns.
    Bold,
}

impl Paint {
    /// The escape sequence that turns it on.
    pub(crate) fn on(self) -> &'static str {
        match self {
            Self::Dim => "\x1b[90m",
            Self::Keyword => "\x1b[1;34m",
            Self::Function => "\x1b[36m",
            Self::Text => "\x1b[32m",
            Self::Number => "\x1b[33m",
            Self::Name => "\x1b[35m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// The escape sequence that turns all of them off.
pub(crate) const PLAIN: &str = "\x1b[0m";

/// Returns `text` in that style.
pub(crate) fn painted(paint: Paint, text: &str) -> String {
    format!("{}{text}{PLAIN}", paint.on())
}

/// Whether the terminal can move its cursor and show colours.
pub(crate) fn terminal_is_able() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether to use colours at all: `NO_COLOR` is not set, and the terminal supports them.
pub(crate) fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    !refused && terminal_is_able()
}

/// Whether to write colours to stdout.
pub(crate) fn stdout_has_colour() -> bool {
    std::io::stdout().is_terminal() && wants_colour()
}
