//! `CREATE SINK`, `PAUSE SINK` and `RESUME SINK`.

use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, is_word};
use super::ddl::{Head, if_not_exists, options};
use super::query_in;
use super::statement::{CreateSink, SinkRows, Statement};
use super::tail::Tail;

/// What follows `CREATE [OR REPLACE] SINK`.
pub(super) fn create_sink(mut cursor: Cursor<'_>, head: Head, end: Place) -> Result<Statement> {
    let if_not_exists = if_not_exists(&mut cursor)?;
    let name = cursor.name("the name of the sink")?;
    let mut given = options(&mut cursor)?;
    let rows = if cursor.eat(&["FROM"]) {
        let view = cursor.name("the name of a materialized view")?;
        if given.is_empty() {
            given = options(&mut cursor)?;
        }
        cursor.expect_end()?;
        SinkRows::View(view)
    } else if cursor.eat(&["AS"]) {
        let (query, with) = match given.is_empty() {
            true => without_options(cursor.rest()),
            false => (cursor.rest(), None),
        };
        let query_end = match with {
            Some(with) => {
                let mut with = Cursor::new(with, end);
                let at = with.place();
                given = options(&mut with)?;
                at
            }
            None => end,
        };
        SinkRows::Query(Box::new(query_in(query, Tail::default(), query_end, true)?))
    } else {
        let hint = "Write CREATE SINK k FROM view WITH (…), or CREATE SINK k AS SELECT … WITH (…).";
        return Err(cursor.expected("FROM, AS or WITH").with_hint(hint));
    };
    let or_replace = head.or_replace;
    let create = CreateSink { or_replace, if_not_exists, name, rows, options: given };
    Ok(Statement::CreateSink(Box::new(create)))
}

/// Splits the tokens into a query and the `WITH (…)` that follows it.
fn without_options(tokens: &[TokenWithSpan]) -> (&[TokenWithSpan], Option<&[TokenWithSpan]>) {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().rev() {
        match &token.token {
            Token::RParen => depth += 1,
            Token::LParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let before = at
                .checked_sub(1)
                .filter(|at| tokens.get(*at).is_some_and(|token| is_word(&token.token, "WITH")));
            let opens = token.token == Token::LParen;
            return match before.filter(|_| opens).map(|at| tokens.split_at(at)) {
                Some((query, with)) => (query, Some(with)),
                None => (tokens, None),
            };
        }
    }
    (tokens, None)
}

/// `PAUSE SINK name`, `RESUME SINK name`, and the same of a stream.
pub(super) fn pause(mut cursor: Cursor<'_>, resume: bool) -> Result<Statement> {
    let (word, at) = (if resume { "RESUME" } else { "PAUSE" }, cursor.place());
    cursor.advance();
    if cursor.eat(&["STREAM"]) {
        let stream = cursor.name("the name of the stream")?;
        cursor.expect_end()?;
        return Ok(Statement::PauseStream { stream, resume });
    }
    if !cursor.eat(&["SINK"]) {
        let e = format!("{word} is not part of this version, except for sinks and streams");
        return Err(Error::sql(e).with_place(at).with_hint(format!(
            "Write {word} SINK name or {word} STREAM name. A view is paused while the streams that it reads are."
        )));
    }
    let sink = cursor.name("the name of the sink")?;
    cursor.expect_end()?;
    Ok(Statement::PauseSink { sink, resume })
}
