//! Converts the parser's errors: with their place, without "Line: 1, Column: 8" in the text.

use datafusion::error::DataFusionError;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Place};

use super::cursor::{is_word, place_of, unquoted};
use super::dialect::stop_in;
use super::tail::EMIT_FORMS;
use crate::diagnostics::{lower_first, nearest};

/// Words that begin a statement.
pub(super) const LEADING: &[&str] = &[
    "SELECT",
    "WITH",
    "VALUES",
    "FROM",
    "TABLE",
    "INSERT",
    "CREATE",
    "DROP",
    "EXPLAIN",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "SET",
    "RESET",
    "COPY",
    "SUMMARIZE",
    "SUBSCRIBE",
    "WAIT",
    "VERIFY",
    "ALTER",
    "DELETE",
    "UPDATE",
    "MERGE",
    "TRUNCATE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "USE",
    "ANALYZE",
    "PAUSE",
    "RESUME",
    "REPLACE",
    "CALL",
    "GRANT",
    "REVOKE",
];

/// Words inside statements that are often mistyped.
const INNER: &[&str] = &[
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "JOIN",
    "LEFT",
    "INNER",
    "UNION",
    "EMIT",
    "WINDOW",
    "WATERMARK",
    "MATERIALIZED",
    "STREAM",
    "VIEW",
    "TABLE",
    "INTO",
    "VALUES",
    "WITH",
    "LATENESS",
    "CHANGES",
    "FINAL",
    "CLOSE",
    "TUMBLING",
    "HOPPING",
    "CUMULATING",
    "GENERATED",
];

/// Converts an error of the parser over `tokens`; `end` is the place after the last of them.
pub(super) fn from_parser(error: ParserError, tokens: &[TokenWithSpan], end: Place) -> Error {
    if let Some(stop) = stop_in(&error) {
        return stop.into();
    }
    let text = match &error {
        ParserError::RecursionLimitExceeded => {
            return Error::sql("the statement nests too deeply")
                .with_place(tokens.first().map_or(end, |t| place_of(t.span)))
                .with_hint("Name inner queries with WITH, or split the statement into views.")
                .with_source(error);
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
    };
    let (message, at) = located(&text);
    let index = at.and_then(|(line, column)| {
        let starts = |t: &TokenWithSpan| (t.span.start.line, t.span.start.column);
        tokens.binary_search_by_key(&(line, column), starts).ok()
    });
    let place = match (index.and_then(|i| tokens.get(i)), at) {
        (Some(token), _) => place_of(token.span),
        (None, Some((line, column))) if line > 0 => {
            let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            Place::at(at(line), at(column))
        }
        _ => end,
    };
    if index.is_some_and(|at| counts_rows(tokens, at)) {
        return counted_window().with_place(place).with_source(error);
    }
    let mut out = Error::sql(reworded(message)).with_place(place);
    if let Some(hint) = hint(tokens, index.unwrap_or(tokens.len())) {
        out = out.with_hint(hint);
    }
    out.with_source(error)
}

/// Whether the number at `index` belongs to an argument `ROWS 100`.
fn counts_rows(tokens: &[TokenWithSpan], index: usize) -> bool {
    let token = |at: Option<usize>| at.and_then(|at| tokens.get(at)).map(|token| &token.token);
    let number = matches!(token(Some(index)), Some(Token::Number(..)));
    let rows = token(index.checked_sub(1)).is_some_and(|token| is_word(token, "ROWS"));
    number && rows && matches!(token(index.checked_sub(2)), Some(Token::Comma | Token::RArrow))
}

/// The error for a window of a number of rows.
pub(super) fn counted_window() -> Error {
    Error::sql("a window has a length of time, not a number of rows").with_hint(
        "Take every hundredth row of a key with the 99 before it: row_number() OVER (PARTITION BY key ORDER BY ts) AS n, \
         sum(x) OVER (PARTITION BY key ORDER BY ts ROWS BETWEEN 99 PRECEDING AND CURRENT ROW), and WHERE n % 100 = 0 around it.",
    )
}

/// Converts an error of the engine's own statement parser.
pub(super) fn from_engine(error: DataFusionError, tokens: &[TokenWithSpan], end: Place) -> Error {
    match error {
        DataFusionError::SQL(parser, _) => from_parser(*parser, tokens, end),
        DataFusionError::Diagnostic(_, inner) => from_engine(*inner, tokens, end),
        other => {
            let converted = crate::diagnostics::from_datafusion(other);
            if converted.place().is_some() { converted } else { converted.with_place(end) }
        }
    }
}

/// Splits off " at Line: 1, Column: 8".
fn located(text: &str) -> (&str, Option<(u64, u64)>) {
    let Some((message, rest)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let numbers = rest
        .split_once(", Column: ")
        .and_then(|(line, column)| Some((line.trim().parse().ok()?, column.trim().parse().ok()?)));
    match numbers {
        Some(at) => (message, Some(at)),
        None => (text, None),
    }
}

fn reworded(message: &str) -> String {
    let message = message.trim().trim_start_matches("sql parser error: ").trim_end_matches('.');
    match message.strip_prefix("Expected: ").and_then(|m| m.rsplit_once(", found: ")) {
        Some((expected, "EOF")) => format!("expected {expected}, found the end of the statement"),
        Some((expected, found)) => format!("expected {expected}, found \"{found}\""),
        None => lower_first(message),
    }
}

/// A near match for the word at `index`, or for the one before it.
fn hint(tokens: &[TokenWithSpan], index: usize) -> Option<String> {
    let word = |i: usize| tokens.get(i).map(|t: &TokenWithSpan| &t.token);
    let before = index.checked_sub(1).and_then(word);
    if before.is_some_and(|t| is_word(t, "EMIT")) {
        return Some(EMIT_FORMS.to_owned());
    }
    // At the end of a parenthesis the typing error is often in the word before it.
    [word(index), before].into_iter().flatten().find_map(mistyped)
}

fn mistyped(token: &Token) -> Option<String> {
    let word = unquoted(token)?;
    if INNER.iter().any(|k| k.eq_ignore_ascii_case(word)) {
        return None;
    }
    let near = nearest(word, INNER.iter().copied())?;
    Some(format!("Did you mean {near} instead of \"{word}\"?"))
}
