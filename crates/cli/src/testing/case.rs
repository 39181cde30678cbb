//! A test file: statements, the times at which they run, and what they are expected to return.
//!
//! ```text
//! -- at 00:01:00                 advances the clock to this long after the start
//! -- at 2026-05-04 12:00:00      advances the clock to this time; before the first statement, sets the start
//! SELECT …;
//! -- expect                      the rows of the statement above, one per line, values between |
//! -- 4711 | 142.40
//! -- expect error: text          the statement above fails with this in its message
//! ```
//! Without `-- expect`, a file `.expected` beside it has the rows of all queries, each after an empty line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use windrow_core::{Error, Result};
use windrow_sql::parse::Parsed;

use super::unusable;
use crate::command::Command;
use crate::failure::Failure;
use crate::script::{Item, Script, Source};

/// The maximum depth of includes.
const DEPTH_MAX: usize = 16;
/// The time at the start, where the file names none, in µs: 2100-01-01, so that no row is in the future.
const START_MICROS: i64 = 4_102_444_800_000_000;

/// A test.
#[derive(Debug)]
pub(super) struct Case {
    /// The time of the clock at the start, in µs since 1970.
    pub(super) start_micros: i64,
    /// The steps, in order.
    pub(super) steps: Vec<Step>,
}

/// One step of a test.
#[derive(Debug)]
pub(super) enum Step {
    /// The clock moves on to this time, in µs since 1970.
    At(i64),
    /// A statement runs.
    Run(Box<Statement>),
}

/// A statement of a test.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) parsed: Parsed,
    /// The file that it is in, and that file's text.
    pub(super) script: std::rc::Rc<Script>,
    pub(super) expected: Option<Expected>,
}

/// What a statement is expected to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// It returns these rows.
    Rows(Vec<String>),
    /// It fails with a message that contains this.
    Error(String),
}

/// A directive, in a comment.
#[derive(Debug, PartialEq, Eq)]
enum Directive {
    /// After the start, or since 1970.
    After(Duration),
    At(i64),
    Expect(Expected),
}

/// Whether a file is a test: it has an expectation, in it or beside it.
///
/// # Errors
/// When it cannot be read.
pub(super) fn is_test(path: &Path) -> Result<bool> {
    let text = std::fs::read(path).map_err(|e| unusable("read", path, e))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().any(|line| words(line).is_some_and(is_expect))
        || path.with_extension("expected").is_file())
}

fn is_expect(words: &str) -> bool {
    words == "expect" || words.starts_with("expect ")
}

/// The words of a line that is a comment.
fn words(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("--").map(str::trim)
}

impl Case {
    /// Reads a test.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or contains an invalid directive.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let script = std::rc::Rc::new(Script::read(Source::from_path(path))?);
        let mut case = Self { start_micros: START_MICROS, steps: vec![] };
        let items = script.items()?;
        let mut directives = directives(&script, &items)?.into_iter().peekable();
        let mut now = None;
        for (at, item) in items.iter().enumerate() {
            while let Some((line, directive)) = directives.next_if(|(line, _)| *line < item.line())
            {
                case.direct(directive, &mut now).map_err(|e| script.failure(e, line))?;
            }
            match item {
                Item::Statement(parsed) => case.steps.push(Step::Run(Box::new(Statement {
                    parsed: parsed.as_ref().clone(),
                    script: std::rc::Rc::clone(&script),
                    expected: None,
                }))),
                Item::Command(text, line) => {
                    case.command(text, path, 0).map_err(|f| match f {
                        Failure::Error { error, origin: None, .. } => script.failure(error, *line),
                        named => named,
                    })?;
                }
            }
            if at + 1 == items.len() {
                for (line, directive) in directives.by_ref() {
                    case.direct(directive, &mut now).map_err(|e| script.failure(e, line))?;
                }
            }
        }
        let beside = path.with_extension("expected");
        if beside.is_file() {
            case.expect_all(&beside)?;
        }
        Ok(case)
    }

    /// Applies a directive to the steps so far. `now`: the time of the clock, once known.
    fn direct(&mut self, directive: Directive, now: &mut Option<i64>) -> Result<()> {
        let sets_start = matches!(directive, Directive::At(_));
        let micros = match directive {
            Directive::Expect(expected) => {
                let Some(Step::Run(statement)) = self.steps.last_mut() else {
                    return Err(Error::sql("\"-- expect\" is not below a statement")
                        .with_hint("Write it below the query whose rows it names."));
                };
                if statement.expected.replace(expected).is_some() {
                    return Err(Error::sql("the statement has two \"-- expect\""));
                }
                return Ok(());
            }
            Directive::After(time) => {
                let after = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
                self.start_micros.saturating_add(after)
            }
            Directive::At(micros) => micros,
        };
        if sets_start && self.steps.is_empty() && now.is_none() {
            self.start_micros = micros;
        } else if micros < now.unwrap_or(self.start_micros) {
            return Err(Error::sql("the clock does not go back")
                .with_hint("Write times in order: -- at 00:01:00, then -- at 00:02:00."));
        } else {
            self.steps.push(Step::At(micros));
        }
        *now = Some(micros);
        Ok(())
    }

    /// Adds the statements of a file that is included. Other commands are refused.
    fn command(&mut self, text: &str, from: &Path, depth: usize) -> Result<(), Failure> {
        let Command::Include(path) = Command::parse(text)? else {
            let hint = "Tests have statements, and \\i to include a file.";
            return Err(Error::sql(format!("a test has no \"{text}\"")).with_hint(hint).into());
        };
        if depth == DEPTH_MAX {
            let message = format!("\"{}\" is included more than {DEPTH_MAX} deep", path.display());
            return Err(Error::sql(message).into());
        }
        let path = beside(path, from);
        let script = std::rc::Rc::new(Script::read(Source::from_path(&path))?);
        for item in script.items()? {
            match item {
                Item::Statement(parsed) => self.steps.push(Step::Run(Box::new(Statement {
                    parsed: *parsed,
                    script: std::rc::Rc::clone(&script),
                    expected: None,
                }))),
                Item::Command(text, _) => self.command(&text, &path, depth + 1)?,
            }
        }
        Ok(())
    }

    /// Assigns the expectations of an `.expected` file to the queries without one, in order.
    fn expect_all(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(|e| unusable("read", path, e))?;
        let blocks = text.split("\n\n").map(|block| {
            block.lines().map(normalized).filter(|l| !l.is_empty()).collect::<Vec<_>>()
        });
        let mut blocks = blocks.filter(|block| !block.is_empty());
        for step in &mut self.steps {
            let Step::Run(statement) = step else { continue };
            let returns_rows =
                matches!(statement.parsed.statement, windrow_sql::parse::Statement::Query(_));
            if statement.expected.is_none() && returns_rows {
                let rows = blocks.next().ok_or_else(|| count_differs(path, "fewer"))?;
                let none = rows.len() == 1 && rows.first().is_some_and(|row| row == "(none)");
                statement.expected = Some(Expected::Rows(if none { vec![] } else { rows }));
            }
        }
        match blocks.next() {
            None => Ok(()),
            Some(_) => Err(count_differs(path, "more")),
        }
    }
}

fn count_differs(path: &Path, than: &str) -> Error {
    Error::sql(format!("\"{}\" has {than} results than the test has queries", path.display()))
        .with_hint(
            "Write the rows of each query, after an empty line; (none) where there are none.",
        )
}

/// A path as written, or if it does not exist, relative to the directory of the file.
fn beside(path: PathBuf, from: &Path) -> PathBuf {
    match from.parent() {
        Some(folder) if !path.exists() && folder.join(&path).exists() => folder.join(path),
        _ => path,
    }
}

/// A row on one line, with normalised spaces around values.
pub(super) fn normalized(row: &str) -> String {
    let row = row.split('|').map(str::trim).collect::<Vec<_>>().join(" | ");
    row.trim_end().replace('\n', "\\n")
}

/// The directives of a file with their lines, in order: comments outside of statements.
fn directives(script: &Script, items: &[Item]) -> Result<Vec<(usize, Directive)>, Failure> {
    let within = |line: usize| {
        items.iter().any(|item| match item {
            Item::Statement(s) => {
                (s.first_line..s.first_line + s.text.lines().count()).contains(&line)
            }
            Item::Command(_, at) => *at == line,
        })
    };
    let mut found = vec![];
    let lines: Vec<&str> = script.text().lines().collect();
    let mut at = 0;
    while let Some(text) = lines.get(at) {
        at += 1;
        let line = at;
        let Some(words) = words(text).filter(|_| !within(line)) else { continue };
        let placed = |e: Error| script.failure(e, line);
        if is_expect(words) {
            let said = words.strip_prefix("expect").unwrap_or_default().trim();
            let expected = match said.strip_prefix("error:") {
                Some(message) => Expected::Error(message.trim().to_owned()),
                None if said == "none" => Expected::Rows(vec![]),
                None if said.is_empty() => {
                    let mut rows = vec![];
                    while let Some(row) = lines.get(at).and_then(|l| self::words(l))
                        && !within(at + 1)
                        && !row.is_empty()
                        && !is_expect(row)
                        && !row.starts_with("at ")
                    {
                        rows.push(normalized(row));
                        at += 1;
                    }
                    Expected::Rows(rows)
                }
                None => {
                    let hint = "Write -- expect and the rows below it, -- expect none, or -- expect error: text.";
                    return Err(placed(
                        Error::sql(format!("\"-- expect {said}\" is not known")).with_hint(hint),
                    ));
                }
            };
            found.push((line, Directive::Expect(expected)));
        } else if let Some(time) = words.strip_prefix("at ")
            && time.trim().starts_with(|c: char| c.is_ascii_digit())
        {
            found.push((line, time_of(time.trim()).map_err(placed)?));
        }
    }
    Ok(found)
}

/// Reads `00:01:00` or `2026-05-04 12:00:00`, with or without parts of seconds.
fn time_of(text: &str) -> Result<Directive> {
    let wrong = || {
        Error::sql(format!("\"{text}\" is not a time")).with_hint(
            "Write -- at 00:01:00 for a minute after the start, or -- at 2026-05-04 12:00:00.",
        )
    };
    if text.contains('-') {
        let column = arrow::array::StringArray::from(vec![text]);
        let unit = arrow::datatypes::TimeUnit::Microsecond;
        let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
        let to = arrow::datatypes::DataType::Timestamp(unit, None);
        let time = arrow::compute::cast_with_options(&column, &to, &strict).map_err(|_| wrong())?;
        let time = arrow::array::AsArray::as_primitive_opt::<
            arrow::datatypes::TimestampMicrosecondType,
        >(&time)
        .map(|times| times.value(0));
        return time.map(Directive::At).ok_or_else(wrong);
    }
    let mut seconds = 0.0;
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() != 3 {
        return Err(wrong());
    }
    for part in parts {
        let value: f64 = part.parse().map_err(|_| wrong())?;
        seconds = seconds * 60.0 + value;
    }
    Duration::try_from_secs_f64(seconds).map(Directive::After).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time_of("00:01:00").unwrap(), Directive::After(Duration::from_secs(60)));
        assert_eq!(
            time_of("25:00:00.5").unwrap(),
            Directive::After(Duration::from_millis(90_000_500))
        );
        assert_eq!(time_of("1970-01-01 00:00:02").unwrap(), Directive::At(2_000_000));
        for wrong in ["1:00", "a:b:c", "-1:00:00", "2026-13-01 00:00:00"] {
            assert!(time_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_test_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sql");
        let text = "-- at 2026-05-04 12:00:00\nCREATE STREAM s (a INT);\n-- at 00:01:00\nSELECT a, b\n-- at 1\nFROM s;\n\
                    -- expect\n-- 1|x\n--   2 | y\n\nSELECT 1;\n-- expect none\nSELECT c;\n-- expect error: no c\n";
        std::fs::write(&path, text).unwrap();
        assert!(is_test(&path).unwrap());
        let case = Case::read(&path).unwrap();
        assert_eq!(case.start_micros, 1_777_896_000_000_000);
        let expected: Vec<Option<Expected>> = case
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Run(statement) => Some(statement.expected.clone()),
                Step::At(micros) => {
                    assert_eq!(*micros, case.start_micros + 60_000_000);
                    None
                }
            })
            .collect();
        let rows = |rows: &[&str]| Some(Expected::Rows(rows.iter().map(|r| (*r).into()).collect()));
        let error = Some(Expected::Error("no c".into()));
        assert_eq!(expected, [None, rows(&["1 | x", "2 | y"]), rows(&[]), error]);
    }
}
