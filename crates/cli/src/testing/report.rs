//! The report of test outcomes, as text and as JUnit XML.
//!
//! Invariant: a test passes only if all of its statements did what was expected.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use windrow_core::Result;

use super::case::{Expected, Statement};
use crate::failure::Failure;

/// Longer statements are cut.
const SHOWN_MAX: usize = 100;
/// The most rows that are compared line by line; the effort grows with their square.
const COMPARED_MAX: usize = 2_000;

/// The outcome of a test.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The statements with an unexpected result.
    pub(super) mismatches: Vec<Mismatch>,
    /// Why it could not run to its end.
    pub(super) failure: Option<Failure>,
    /// The seed of the shaken run.
    seed: Option<u64>,
}

/// A statement that did not return what was expected.
#[derive(Debug)]
pub(super) struct Mismatch {
    line: usize,
    sql: String,
    /// The difference, a line each: `-` expected, `+` returned.
    difference: Vec<String>,
}

impl Mismatch {
    /// Compares what a statement returned; `None`: it is what was expected.
    pub(super) fn of(
        statement: &Statement,
        found: &Result<Vec<String>>,
        expected: &Expected,
        is_ordered: bool,
    ) -> Option<Self> {
        let difference = match (found, expected) {
            (Ok(found), Expected::Rows(expected)) if is_ordered => differing(expected, found),
            (Ok(found), Expected::Rows(expected)) => {
                let sorted = |rows: &[String]| {
                    let mut rows = rows.to_vec();
                    rows.sort_unstable();
                    rows
                };
                differing(&sorted(expected), &sorted(found))
            }
            (Ok(_), Expected::Error(text)) => {
                vec![format!("- error: {text}"), "+ no error".to_owned()]
            }
            (Err(error), Expected::Error(text)) if error.message().contains(text) => vec![],
            (Err(error), Expected::Error(text)) => {
                vec![format!("- error: {text}"), format!("+ error: {}", error.message())]
            }
            (Err(error), Expected::Rows(_)) => vec![format!("+ error: {}", error.message())],
        };
        if difference.is_empty() {
            return None;
        }
        let words: Vec<&str> = statement.parsed.text.split_whitespace().collect();
        let mut sql: String = words.join(" ").chars().take(SHOWN_MAX).collect();
        if sql.chars().count() == SHOWN_MAX {
            sql.push('…');
        }
        Some(Self { line: statement.parsed.first_line, sql, difference })
    }
}

/// A line diff of both; empty if they are equal.
fn differing(expected: &[String], found: &[String]) -> Vec<String> {
    if expected == found {
        return vec![];
    }
    if expected.len().max(found.len()) > COMPARED_MAX {
        return vec![format!("- {} rows", expected.len()), format!("+ {} other rows", found.len())];
    }
    // The longest common rows from each pair of positions on.
    let width = found.len() + 1;
    let mut common = vec![0_usize; (expected.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    let of = |common: &[usize], row, column| common.get(at(row, column)).copied().unwrap_or(0);
    for row in (0..expected.len()).rev() {
        for column in (0..found.len()).rev() {
            let longest = match expected.get(row) == found.get(column) {
                true => 1 + of(&common, row + 1, column + 1),
                false => of(&common, row + 1, column).max(of(&common, row, column + 1)),
            };
            if let Some(slot) = common.get_mut(at(row, column)) {
                *slot = longest;
            }
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, vec![]);
    loop {
        match (expected.get(row), found.get(column)) {
            (None, None) => return lines,
            (Some(left), Some(right)) if left == right => {
                lines.push(format!("  {left}"));
                (row, column) = (row + 1, column + 1);
            }
            (Some(left), right)
                if right.is_none()
                    || of(&common, row + 1, column) >= of(&common, row, column + 1) =>
            {
                lines.push(format!("- {left}"));
                row += 1;
            }
            (_, Some(right)) => {
                lines.push(format!("+ {right}"));
                column += 1;
            }
            (Some(_), None) => return lines,
        }
    }
}

impl Verdict {
    /// The verdict on a test that could not run.
    pub(super) fn broken(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.mismatches.is_empty() && self.failure.is_none()
    }

    /// The same verdict, of a shaken run.
    pub(super) fn shaken(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// The failures, a line each.
    fn details(&self, path: &Path) -> Vec<String> {
        let mut lines = vec![];
        for mismatch in &self.mismatches {
            lines.push(format!("line {}: {}", mismatch.line, mismatch.sql));
            lines.extend(mismatch.difference.iter().map(|line| format!("  {line}")));
        }
        let failure = self.failure.as_ref().and_then(Failure::text);
        lines.extend(failure.iter().flat_map(|text| text.lines().map(str::to_owned)));
        if let Some(seed) = self.seed {
            let path = path.display();
            lines.push(format!("only when shaken: windrow test {path} --shake=1 --seed {seed}"));
        }
        lines
    }
}

/// The outcomes so far.
pub(super) struct Report {
    quiet: bool,
    tests: Vec<(PathBuf, Vec<String>)>,
}

impl Report {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, tests: vec![] }
    }

    /// Adds the outcome of a test and prints it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn add(&mut self, path: &Path, verdict: &Verdict) -> Result<(), Failure> {
        let details = verdict.details(path);
        let mut out = std::io::stdout().lock();
        if !details.is_empty() {
            writeln!(out, "{}: FAILED", path.display())?;
            for line in &details {
                writeln!(out, "  {line}")?;
            }
        } else if !self.quiet {
            writeln!(out, "{}: ok", path.display())?;
        }
        self.tests.push((path.to_owned(), details));
        Ok(())
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn end(&self) -> Result<(), Failure> {
        let (all, failed) = (self.tests.len(), self.failed());
        let plural = if all == 1 { "" } else { "s" };
        if !self.quiet || failed > 0 {
            writeln!(std::io::stdout().lock(), "{all} test{plural}, {failed} failed")?;
        }
        Ok(())
    }

    pub(super) fn failed(&self) -> usize {
        self.tests.iter().filter(|(_, details)| !details.is_empty()).count()
    }

    /// The outcomes as JUnit XML.
    pub(super) fn junit(&self) -> String {
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"windrow\" tests=\"{}\" failures=\"{}\">\n",
            self.tests.len(),
            self.failed()
        );
        for (path, details) in &self.tests {
            let name = escaped(&path.display().to_string());
            let failure = match details.as_slice() {
                [] => String::new(),
                details => format!(
                    "<failure message=\"failed\">{}</failure>",
                    escaped(&details.join("\n"))
                ),
            };
            xml.push_str(&format!(
                "<testcase classname=\"windrow\" name=\"{name}\">{failure}</testcase>\n"
            ));
        }
        xml.push_str("</testsuite>\n</testsuites>\n");
        xml
    }
}

/// A text within XML. Characters that XML does not have become `?`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_keep_what_is_common() {
        let rows = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_eq!(differing(&rows("abc"), &rows("abc")), Vec::<String>::new());
        assert_eq!(differing(&rows("abc"), &rows("axc")), ["  a", "- b", "+ x", "  c"]);
        assert_eq!(differing(&rows("ab"), &rows("b")), ["- a", "  b"]);
        assert_eq!(differing(&rows(""), &rows("a")), ["+ a"]);
    }

    #[test]
    fn xml_is_escaped() {
        assert_eq!(escaped("a<b & \"c\"\u{1}"), "a&lt;b &amp; &quot;c&quot;?");
    }
}
