//! `ALTER STREAM` and `TRUNCATE`.

use sqlparser::tokenizer::Token;
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, spanning};
use super::ddl::{option_keys, options_of};
use super::errors::from_parser;
use super::parser;
use super::statement::{AlterStream, Alteration, CheckClause, Statement};

/// What can be altered.
const WAYS: &str = "SET (retention = '…'), RESET (retention), ADD [CONSTRAINT name] CHECK (…) [NOT VALID], \
                    DROP CONSTRAINT name";

/// What follows `ALTER STREAM`.
pub(super) fn alter_stream(mut cursor: Cursor<'_>) -> Result<Statement> {
    let if_exists = cursor.eat(&["IF", "EXISTS"]);
    let name = cursor.name("the name of the stream")?;
    let at = cursor.place();
    let what = if cursor.eat(&["SET"]) {
        Alteration::Set(options_of(&mut cursor)?)
    } else if cursor.eat(&["RESET"]) {
        Alteration::Reset(option_keys(&mut cursor)?)
    } else if cursor.eat(&["ADD"]) {
        add(&mut cursor, at)?
    } else if cursor.eat(&["DROP", "CONSTRAINT"]) {
        let if_exists = cursor.eat(&["IF", "EXISTS"]);
        let start = cursor.place();
        let name = cursor.identifier("the name of a check")?;
        let place = spanning(start, cursor.place_before());
        Alteration::DropCheck { name, if_exists, place }
    } else if cursor.sees(&["DROP"]) || cursor.sees(&["RENAME"]) || cursor.sees(&["ALTER"]) {
        return Err(columns_stay(at));
    } else {
        let known = format!("Streams take {WAYS}.");
        return Err(cursor.expected("SET, RESET, ADD or DROP").with_hint(known));
    };
    cursor.expect_end()?;
    Ok(Statement::AlterStream(Box::new(AlterStream { if_exists, name, what })))
}

/// What follows `ADD`.
fn add(cursor: &mut Cursor<'_>, at: Place) -> Result<Alteration> {
    let start = cursor.place();
    let name = match cursor.eat(&["CONSTRAINT"]) {
        true => Some(cursor.identifier("the name of the check")?),
        false => None,
    };
    if !cursor.sees(&["CHECK"]) {
        if name.is_some() {
            let hint = "The constraints of streams are checks: ADD CONSTRAINT name CHECK (a > 0).";
            return Err(cursor.expected("CHECK").with_hint(hint));
        }
        return Err(columns_stay(at));
    }
    cursor.advance();
    let inner = cursor.parenthesized()?;
    let mut parser = parser(inner.rest());
    let error = |e| from_parser(e, inner.rest(), inner.end());
    let expr = parser.parse_expr().map_err(error)?;
    if parser.peek_token_ref().token != Token::EOF {
        let found = &parser.peek_token_ref().token;
        return Err(Error::sql(format!("expected one condition, found \"{found}\""))
            .with_place(spanning(start, cursor.place_before())));
    }
    let place = spanning(start, cursor.place_before());
    let is_valid = !cursor.eat(&["NOT", "VALID"]);
    Ok(Alteration::AddCheck { check: Box::new(CheckClause { name, expr, place }), is_valid })
}

/// The error of an alteration of columns.
fn columns_stay(at: Place) -> Error {
    Error::sql("the columns and the name of a stream cannot be altered").with_place(at).with_hint(format!(
        "Create a stream with the new columns and copy the rows: CREATE STREAM t (…); INSERT INTO t SELECT …, NULL FROM s. \
         Streams take {WAYS}."
    ))
}

/// What follows `TRUNCATE`.
pub(super) fn truncate(mut cursor: Cursor<'_>) -> Result<Statement> {
    cursor.advance();
    // The word may also be the name.
    if cursor.rest().len() > 1 {
        let _optional = cursor.eat(&["TABLE"]) || cursor.eat(&["STREAM"]);
    }
    let name = cursor.name("the name of a stream or table")?;
    if cursor.peek(0) == &Token::Comma {
        return Err(cursor
            .expected("the end of the statement")
            .with_hint("Truncate one after the other: TRUNCATE a; TRUNCATE b."));
    }
    cursor.expect_end()?;
    Ok(Statement::Truncate(name))
}
