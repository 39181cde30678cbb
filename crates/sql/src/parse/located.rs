//! Finds the place of an error in a statement when only its message tells it.
//!
//! The planner has places for columns, tables and operators. For functions, types, clauses and values it only has
//! names; the first token of the statement with such a name is the place.
//!
//! Invariants: an existing place is kept; a planning error always has one, if only the beginning of the statement; a
//! run-time error gets one only if what failed occurs once in the statement.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use windrow_core::{Error, ErrorKind, Place};

use super::dialect::DIALECT;
use super::statement::StatementText;

/// Adds a place in the submission that `statement` is part of.
pub fn located(error: Error, statement: &StatementText) -> Error {
    if error.place().is_some() || !is_of_statement(error.kind()) {
        return error;
    }
    let mut tokens = vec![];
    // The statement has been parsed, so it can be tokenized; otherwise the tokens so far are used.
    let _read =
        Tokenizer::new(&DIALECT, &statement.text).tokenize_with_location_into_buf(&mut tokens);
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let message = error.message();
    let failed = running(message, &tokens);
    let is_data = error.kind() == ErrorKind::Data;
    let find = |name: &str| tokens.iter().find(|token| is(token, name));
    let named = || match is_data {
        true => values(message).chain(names(message)).find_map(find),
        false => names(message).chain(values(message)).find_map(find),
    };
    let clause = || clauses(message).find_map(find);
    let first = || tokens.first().filter(|_| error.kind() == ErrorKind::Sql);
    let planned = || (!is_data).then(clause).flatten();
    let found = failed.or_else(named).or_else(planned).or_else(first);
    match found.map(|token| place(token, statement)) {
        Some(place) => error.with_place(place),
        None => error,
    }
}

/// Whether the statement itself is wrong.
fn is_of_statement(kind: ErrorKind) -> bool {
    use ErrorKind::{Config, Data, Exists, NotFound, Sql};
    matches!(kind, Sql | NotFound | Exists | Config | Data)
}

/// The names in a message, which are in double quotes.
fn names(message: &str) -> impl Iterator<Item = &str> {
    message.split('"').skip(1).step_by(2)
}

/// The values in a message: in single quotes, or a number that cannot be cast.
fn values(message: &str) -> impl Iterator<Item = &str> {
    let number = message.split_once("cannot cast ").and_then(|(_, rest)| rest.split(' ').next());
    message.split('\'').skip(1).step_by(2).chain(number)
}

/// The keywords in a message.
fn clauses(message: &str) -> impl Iterator<Item = &str> {
    let words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase()))
}

/// The token that failed while the statement ran, if it occurs once.
fn running<'a>(message: &str, tokens: &'a [TokenWithSpan]) -> Option<&'a TokenWithSpan> {
    let is_culprit = |token: &Token| {
        if message == "divide by zero" {
            return matches!(token, Token::Div | Token::Mod);
        }
        let is_cast = |word: Keyword| [Keyword::CAST, Keyword::TRY_CAST].contains(&word);
        message.starts_with("cannot cast ")
            && match token {
                Token::DoubleColon => true,
                Token::Word(word) => is_cast(word.keyword),
                _ => false,
            }
    };
    let mut culprits = tokens.iter().filter(|token| is_culprit(&token.token));
    culprits.next().filter(|_| culprits.next().is_none())
}

fn is(token: &TokenWithSpan, name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    match &token.token {
        Token::Word(word) => {
            word.value.eq_ignore_ascii_case(name) || word.value.eq_ignore_ascii_case(last)
        }
        Token::Number(number, _) => number == name,
        Token::SingleQuotedString(text) => text == name,
        _ => false,
    }
}

/// The place of a token in the submission.
fn place(token: &TokenWithSpan, statement: &StatementText) -> Place {
    let at = |location: Location| {
        let (line, column) = (to_usize(location.line), to_usize(location.column));
        let shift = if line == 1 { statement.first_column.saturating_sub(1) } else { 0 };
        (line + statement.first_line.saturating_sub(1), column + shift)
    };
    let ((line, column), (end_line, end_column)) = (at(token.span.start), at(token.span.end));
    let end_column = if end_line == line { end_column.max(column + 1) } else { end_column };
    Place { line, column, end_line, end_column }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
