//! Text with statements and commands: its source, and its division into pieces.

use std::io::Read;
use std::path::{Path, PathBuf};

use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::parse::{Parsed, is_complete, parse, spans};

use crate::command::is_command;
use crate::failure::Failure;

/// The source of statements.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The command line.
    Text(String),
    /// A file.
    File(PathBuf),
    /// A pipe.
    Stdin,
}

impl Source {
    /// The file at `path`; `-` is stdin.
    pub(crate) fn from_path(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }
}

/// Statements as text, with the name of their source for errors.
#[derive(Debug)]
pub(crate) struct Script {
    name: Option<String>,
    text: String,
}

/// One piece of a script.
#[derive(Debug)]
pub(crate) enum Item {
    /// A statement.
    Statement(Box<Parsed>),
    /// A command, with its line number.
    Command(String, usize),
}

impl Item {
    /// The line where it begins.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::Statement(statement) => statement.first_line,
            Self::Command(_, line) => *line,
        }
    }
}

/// An unparsed piece of a script, and the line where it begins.
enum Piece<'a> {
    /// Statements.
    Sql(&'a str, usize),
    /// A command.
    Command(&'a str, usize),
}

/// Returns the line and column behind `text`, which begins at the given ones.
fn behind((line, column): (usize, usize), text: &str) -> (usize, usize) {
    match text.rsplit_once('\n') {
        Some((before, last)) => (line + 1 + before.matches('\n').count(), last.chars().count() + 1),
        None => (line, column + text.chars().count()),
    }
}

impl Script {
    /// Reads `source` to its end.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    pub(crate) fn read(source: Source) -> Result<Self> {
        let mut bytes = vec![];
        let (name, read) = match source {
            Source::Text(text) => return Ok(Self { name: None, text }),
            Source::Stdin => ("stdin".to_owned(), std::io::stdin().lock().read_to_end(&mut bytes)),
            Source::File(path) => {
                let read = std::fs::File::open(&path).and_then(|mut f| f.read_to_end(&mut bytes));
                (path.display().to_string(), read)
            }
        };
        read.map_err(|e| {
            Error::new(ErrorKind::NotFound, format!("cannot read \"{name}\": {e}")).with_source(e)
        })?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::sql(format!("\"{name}\" is not UTF-8 text")).with_hint(format!(
                "The first {} bytes are; convert the file to UTF-8.",
                e.utf8_error().valid_up_to()
            ))
        })?;
        // Some editors begin files with a byte order mark.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self { name: Some(name), text })
    }

    /// Returns statements that were typed.
    pub(crate) fn typed(text: String) -> Self {
        Self { name: None, text }
    }

    /// Returns its text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns its statements and commands, in order. A line is a command when it begins like one and is where a
    /// statement may begin: not within a string, a comment or a statement.
    ///
    /// # Errors
    /// For the first statement that cannot be parsed; nothing is to be run then.
    pub(crate) fn items(&self) -> Result<Vec<Item>, Failure> {
        let mut items = vec![];
        for piece in self.pieces() {
            match piece {
                Piece::Command(text, line) => items.push(Item::Command(text.to_owned(), line)),
                Piece::Sql(sql, line) => items.extend(self.statements(sql, (line, 1))?),
            }
        }
        Ok(items)
    }

    /// As [`items`](Self::items), each parsed separately, so that all mistakes are found.
    pub(crate) fn items_apart(&self) -> Vec<Result<Item, Failure>> {
        let mut items = vec![];
        for piece in self.pieces() {
            let (sql, first_line) = match piece {
                Piece::Command(text, line) => {
                    items.push(Ok(Item::Command(text.to_owned(), line)));
                    continue;
                }
                Piece::Sql(sql, line) => (sql, line),
            };
            let (mut from, mut at) = (0, (first_line, 1));
            let semicolons = spans(sql).into_iter().map(|span| span.bytes);
            let ends = semicolons.filter(|b| sql.get(b.clone()) == Some(";")).map(|b| b.end);
            for end in ends.chain([sql.len()]) {
                let text = sql.get(from..end).unwrap_or_default();
                match self.statements(text, at) {
                    Ok(statements) => items.extend(statements.into_iter().map(Ok)),
                    Err(failure) => items.push(Err(failure)),
                }
                from = end;
                at = behind(at, text);
            }
        }
        items
    }

    /// Splits the text at commands.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = vec![];
        let (mut from, mut at, mut line) = (0, 0, 1);
        // The line in which the SQL since the last command begins.
        let mut first_line = 1;
        for text in self.text.split_inclusive('\n') {
            let sql = self.text.get(from..at).unwrap_or_default();
            if is_command(text) && is_complete(sql) {
                pieces.push(Piece::Sql(sql, first_line));
                pieces.push(Piece::Command(text.trim(), line));
                from = at + text.len();
                first_line = line + 1;
            }
            at += text.len();
            line += 1;
        }
        pieces.push(Piece::Sql(self.text.get(from..).unwrap_or_default(), first_line));
        pieces
    }

    /// Parses the statements of `sql`, which begins at this line and column.
    fn statements(&self, sql: &str, (line, column): (usize, usize)) -> Result<Vec<Item>, Failure> {
        // White space in front makes every place refer to the whole text.
        let before = "\n".repeat(line - 1) + &" ".repeat(column - 1);
        let statements = if before.is_empty() { parse(sql) } else { parse(&(before + sql)) };
        let statements = statements.map_err(|e| self.failure(e, line))?;
        Ok(statements.into_iter().map(|s| Item::Statement(Box::new(s))).collect())
    }

    /// Returns the failure for `error`, raised by the statement at `line`.
    pub(crate) fn failure(&self, error: Error, line: usize) -> Failure {
        let line = error.place().map_or(line, |place| place.line);
        let origin = self.name.as_ref().map(|name| format!("{name}:{line}"));
        Failure::Error { error, origin, sql: self.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Script::read(Source::File("no/such.sql".into())).unwrap_err();
        assert!(error.message().starts_with("cannot read \"no/such.sql\": "), "{error}");
        assert_eq!(error.kind().exit_code(), 2);
    }

    #[test]
    fn failures_name_the_line_of_the_place() {
        let script = Script { name: Some("a.sql".into()), text: "SELECT\nx".into() };
        let error = Error::sql("no x").with_place(windrow_core::Place::at(2, 1));
        let text = script.failure(error, 1).text().unwrap();
        assert!(text.starts_with("error: a.sql:2: no x\n  line 2: x"), "{text}");
        let text = script.failure(Error::data("bad"), 7).text().unwrap();
        assert_eq!(text, "error: a.sql:7: bad");
        let typed = Script::typed("SELECT".into());
        assert_eq!(typed.failure(Error::data("bad"), 1).text().unwrap(), "error: bad");
    }

    fn shape(text: &str) -> Vec<String> {
        let items = Script::typed(text.to_owned()).items().unwrap();
        let shape = |item: &Item| match item {
            Item::Statement(s) => format!("{}:{} {}", s.first_line, s.first_column, s.text),
            Item::Command(text, line) => format!("{line} {text}"),
        };
        items.iter().map(shape).collect()
    }

    #[test]
    fn commands_stand_between_statements() {
        let text = "\\x on\nSELECT 1;\n  \\format csv\r\n-- a note\n\\q\n\nSELECT\n 2";
        let expected = ["1 \\x on", "2:1 SELECT 1", "3 \\format csv", "5 \\q", "7:1 SELECT\n 2"];
        assert_eq!(shape(text), expected);
    }

    #[test]
    fn what_looks_like_a_command_within_a_statement_is_none() {
        let text = "SELECT '\n\\q\n', /*\n\\q\n*/ $$\n\\q\n$$;\n\\q";
        assert_eq!(shape(text).last().unwrap(), "8 \\q");
        assert_eq!(shape(text).len(), 2);
    }

    #[test]
    fn errors_behind_a_command_keep_their_place() {
        let script = Script::typed("\\timing off\nSELECT 1;\n\\x\n SELECT 1 FROM;".to_owned());
        let text = script.items().unwrap_err().text().unwrap();
        assert!(text.contains("\n  line 4:  SELECT 1 FROM;"), "{text}");
    }

    #[test]
    fn apart_every_mistake_is_found_in_its_place() {
        let text = "SELECT 1; SELECT 1 FROM;\n\\x\nSELECT 2; /* ; */ SELEC 3;\nSELECT ';'";
        let script = Script::typed(text.to_owned());
        let told: Vec<String> = script
            .items_apart()
            .into_iter()
            .map(|item| match item {
                Ok(item) => item.line().to_string(),
                Err(failure) => failure.text().unwrap().lines().skip(1).take(2).collect(),
            })
            .collect();
        assert_eq!(told.len(), 6, "{told:?}");
        assert!(told[1].starts_with("  line 1: SELECT 1; SELECT 1 FROM;"), "{told:?}");
        assert!(told[4].starts_with("  line 3: SELECT 2; /* ; */ SELEC 3;"), "{told:?}");
        assert_eq!([&told[0], &told[2], &told[3], &told[5]], ["1", "2", "3", "4"]);
    }
}
