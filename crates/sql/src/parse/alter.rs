//! `ALTER STREAM` and `TRUNCATE`.

use sqlparser::ast::ColumnOption;
use sqlparser::tokenizer::Token;
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, place_of, spanning};
use super::ddl::{folded, if_not_exists, option_keys, options_of, supported};
use super::errors::from_parser;
use super::parser;
use super::spelled::spelled_options;
use super::statement::{AddedColumn, AlterStream, Alteration, CheckClause, Statement};

/// What can be altered.
const WAYS: &str = "SET (retention = '…'), RESET (retention), ADD COLUMN name type, \
                    ADD [CONSTRAINT name] CHECK (…) [NOT VALID], DROP CONSTRAINT name";

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
        add(&mut cursor)?
    } else if cursor.eat(&["DROP", "CONSTRAINT"]) {
        let if_exists = cursor.eat(&["IF", "EXISTS"]);
        let start = cursor.place();
        let name = cursor.identifier("the name of a check")?;
        let place = spanning(start, cursor.place_before());
        Alteration::DropCheck { name, if_exists, place }
    } else if cursor.sees(&["DROP"]) || cursor.sees(&["RENAME"]) || cursor.sees(&["ALTER"]) {
        return Err(stays(at));
    } else {
        let known = format!("Streams take {WAYS}.");
        return Err(cursor.expected("SET, RESET, ADD or DROP").with_hint(known));
    };
    cursor.expect_end()?;
    Ok(Statement::AlterStream(Box::new(AlterStream { if_exists, name, what })))
}

/// What follows `ADD`.
fn add(cursor: &mut Cursor<'_>) -> Result<Alteration> {
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
        return column(cursor);
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
    Ok(Alteration::AddCheck { check: Box::new(CheckClause::new(name, expr, place)?), is_valid })
}

/// What follows `ADD` where a column does: `[COLUMN] [IF NOT EXISTS] name type …`.
fn column(cursor: &mut Cursor<'_>) -> Result<Alteration> {
    let _optional = cursor.eat(&["COLUMN"]);
    let if_not_exists = if_not_exists(cursor)?;
    if cursor.is_end() {
        return Err(cursor.expected("the name and the type of a column"));
    }
    let place = cursor.place();
    let rest = cursor.rest();
    let mut parser = parser(rest);
    let mut column = parser.parse_column_def().map_err(|e| from_parser(e, rest, cursor.end()))?;
    let after = parser.peek_token_ref();
    if after.token != Token::EOF {
        let message = format!("expected the end of the statement, found \"{}\"", after.token);
        return Err(Error::sql(message)
            .with_place(place_of(after.span))
            .with_hint("Add one column per statement."));
    }
    while !cursor.is_end() {
        cursor.advance();
    }
    for option in &column.options {
        match &option.option {
            ColumnOption::Default(_) => {}
            ColumnOption::Check(_) => {
                let message = format!("the added column \"{}\" has a check", folded(&column.name));
                return Err(Error::sql(message)
                    .with_place(place)
                    .with_hint("Add it in a second statement: ALTER STREAM … ADD CHECK (…)."));
            }
            other => supported(&column, other)?,
        }
    }
    spelled_options(&mut column)?;
    Ok(Alteration::AddColumn(Box::new(AddedColumn { column, if_not_exists, place })))
}

/// The error of other alterations of columns and names.
fn stays(at: Place) -> Error {
    Error::sql("the columns and the name of a stream cannot be dropped or renamed")
        .with_place(at)
        .with_hint(format!(
            "A view can leave columns out and rename them: CREATE VIEW v AS SELECT a AS b FROM s. Streams take {WAYS}."
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
