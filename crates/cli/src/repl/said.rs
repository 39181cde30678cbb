//! Classification of typed lines: the end of a statement, a part of it, or a command within it. As in psql, a command
//! may be between the lines of a statement, and `\g` ends one like a semicolon.

use windrow_sql::parse::{is_complete, spans};

use crate::command::is_command;

/// The class of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
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
pub(super) fn said(pending: &str, line: String) -> Said {
    if pending.is_empty() {
        if line.trim().is_empty() {
            return Said::Nothing;
        }
        if is_command(&line) {
            return Said::All(line);
        }
    } else if line.trim_start().starts_with('\\') && !is_open(pending) {
        match line.trim() {
            "\\r" => return Said::Cleared,
            "\\g" => return Said::All(pending.to_owned()),
            "\\gx" => return Said::Expanded(pending.to_owned()),
            _ => return Said::Aside(line),
        }
    }
    let text = if pending.is_empty() { line } else { format!("{pending}\n{line}") };
    if let Some(before) = ended_by(&text, "\\g") {
        return Said::All(before);
    }
    if let Some(before) = ended_by(&text, "\\gx") {
        return Said::Expanded(before);
    }
    if is_complete(&text) { Said::All(text) } else { Said::Part(text) }
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

    fn after(pending: &str, line: &str) -> Said {
        said(pending, line.to_owned())
    }

    #[test]
    fn lines_make_statements() {
        assert_eq!(after("", "  "), Said::Nothing);
        assert_eq!(after("", "SELECT"), Said::Part("SELECT".into()));
        assert_eq!(after("SELECT", "1;"), Said::All("SELECT\n1;".into()));
        assert_eq!(after("SELECT 'a", "\\r"), Said::Part("SELECT 'a\n\\r".into()));
        assert_eq!(after("", "\\d t"), Said::All("\\d t".into()));
    }

    #[test]
    fn commands_stand_within_statements() {
        assert_eq!(after("SELECT 1", "\\r"), Said::Cleared);
        assert_eq!(after("SELECT 1", "\\d t"), Said::Aside("\\d t".into()));
        assert_eq!(after("SELECT 1", "\\g"), Said::All("SELECT 1".into()));
        assert_eq!(after("SELECT", "1 \\gx"), Said::Expanded("SELECT\n1".into()));
        assert_eq!(after("", "SELECT 1 \\g"), Said::All("SELECT 1".into()));
        assert_eq!(after("", "SELECT ' \\g"), Said::Part("SELECT ' \\g".into()));
    }
}
