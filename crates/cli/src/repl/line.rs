//! Classification of typed lines: the end of a statement, a part of it, or a command within it. As in psql, a command
//! may be between the lines of a statement, and `\g` ends one like a semicolon.

use windrow_sql::parse::{is_complete, spans};

use crate::command::is_command;

/// The class of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing.
    Nothing,
    /// The statement continues; its text so far.
    Part(String),
    /// The statement so far is to be cleared.
    Cleared,
    /// A command that does not end the statement around it.
    Aside(String),
    /// Statements or a command, to be run.
    All(String),
    /// The same, with one line per value.
    Expanded(String),
}

/// Classifies `line`, which follows the lines of `pending`, the beginning of a statement.
pub(super) fn classify(pending: &str, line: String) -> Line {
    if pending.is_empty() {
        if line.trim().is_empty() {
            return Line::Nothing;
        }
        if is_command(&line) {
            return Line::All(line);
        }
    } else if line.trim_start().starts_with('\\') && !is_open(pending) {
        match line.trim() {
            "\\r" => return Line::Cleared,
            "\\g" => return Line::All(pending.to_owned()),
            "\\gx" => return Line::Expanded(pending.to_owned()),
            _ => return Line::Aside(line),
        }
    }
    let text = if pending.is_empty() { line } else { format!("{pending}\n{line}") };
    if let Some(before) = ended_by(&text, "\\g") {
        return Line::All(before);
    }
    if let Some(before) = ended_by(&text, "\\gx") {
        return Line::Expanded(before);
    }
    if is_complete(&text) { Line::All(text) } else { Line::Part(text) }
}

/// Returns the statement that ends with the command `command`, without it.
fn ended_by(text: &str, command: &str) -> Option<String> {
    let before = text.trim_end().strip_suffix(command)?;
    (before.ends_with(char::is_whitespace) && !is_open(before))
        .then(|| before.trim_end().to_owned())
}

/// Whether a string, a quoted name or a comment is open at the end of `text`.
fn is_open(text: &str) -> bool {
    spans(text).last().is_some_and(|span| span.open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pending: &str, line: &str) -> Line {
        classify(pending, line.to_owned())
    }

    #[test]
    fn lines_make_statements() {
        assert_eq!(after("", "  "), Line::Nothing);
        assert_eq!(after("", "SELECT"), Line::Part("SELECT".into()));
        assert_eq!(after("SELECT", "1;"), Line::All("SELECT\n1;".into()));
        assert_eq!(after("SELECT 'a", "\\r"), Line::Part("SELECT 'a\n\\r".into()));
        assert_eq!(after("", "\\d t"), Line::All("\\d t".into()));
    }

    #[test]
    fn commands_stand_within_statements() {
        assert_eq!(after("SELECT 1", "\\r"), Line::Cleared);
        assert_eq!(after("SELECT 1", "\\d t"), Line::Aside("\\d t".into()));
        assert_eq!(after("SELECT 1", "\\g"), Line::All("SELECT 1".into()));
        assert_eq!(after("SELECT", "1 \\gx"), Line::Expanded("SELECT\n1".into()));
        assert_eq!(after("", "SELECT 1 \\g"), Line::All("SELECT 1".into()));
        assert_eq!(after("", "SELECT ' \\g"), Line::Part("SELECT ' \\g".into()));
    }
}
