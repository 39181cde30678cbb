//! Reads SQL text: [`parse`] gives typed statements whose queries are *canonical*.
//!
//! Canonical means that every window, however it was spelled, is a relation in FROM:
//! `TableFactor::Table` with the one-part name `tumble`, `hop`, `cumulate` or `session` and the
//! arguments `(SELECT * FROM input)` (always a subquery), then the time column as an identifier
//! (absent: the event time of the input), then the intervals, positional or named (`size`,
//! `slide`, `step`, `gap`, `offset`), then a time zone as [`ZONE`] or [`ZONE_OF_COLUMN`], for a session with keys
//! [`PARTITION_BY`], or for one that was written in GROUP BY [`GROUPED`].
//!
//! The steps: the submission is tokenized in one pass (places are those of the whole submission) and split at `;`, the
//! tail is cut off, window clauses become functions, sqlparser parses the rest with our dialect, and windows are
//! brought into canonical form.
//!
//! Invariants: no syntax tree becomes text again; deep nesting is an error, not a stack overflow.

mod alter;
mod asof;
mod buckets;
mod canonical;
mod changed;
mod clause;
mod command;
mod copy;
mod cursor;
mod ddl;
mod dialect;
mod errors;
mod external_table;
mod foreign;
mod foreign_functions;
mod function;
mod grouped;
mod interval;
mod lateral;
mod length;
mod lex;
mod located;
mod model;
mod placeholder;
mod predict;
mod refused;
mod relation;
pub(crate) mod row_pattern;
mod secrets;
mod sink;
mod spans;
mod spelled;
mod spelling;
mod statement;
mod tail;
#[cfg(test)]
mod tests;

pub use changed::ChangeRows;
pub use ddl::{is_proctime, metadata};
pub(crate) use foreign::call;
pub use foreign::is_rewritten;
pub use function::called;
pub use interval::Interval;
pub use length::characters_max;
pub use lex::is_complete;
pub use located::located;
pub use predict::{function_of_model, model_of_function};
pub use relation::{FILL, GROUPED, PARTITION_BY, ZONE, ZONE_OF_COLUMN};
pub use secrets::masked;
pub use spans::{Piece, Span, spans};
pub use statement::{
    AddedColumn, AlterStream, Alteration, CheckClause, ContinuousQuery, CopyFrom, CopyOut,
    CreateFunction, CreateModel, CreateSink, CreateStream, CreateView, Drop, DropKind, Explain,
    Explained, Insert, KeyClause, OptionItem, OutFormat, Parameter, Parsed, Set, ShowKind,
    SinkRows, Statement, StatementText, Verify, WatermarkClause,
};
pub use tail::{Emit, Tail};

use datafusion::sql::parser::{CopyToSource, DFParserBuilder, Statement as EngineStatement};
use sqlparser::ast::{Query, Statement as StandardStatement, TableObject};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Place, Result, budget};

use self::cursor::{Cursor, place_of, unquoted};
use self::errors::{from_engine, from_parser};

/// The parser's own recursion limit; the depth of parentheses is limited before ([`lex`]).
const RECURSION_MAX: usize = 200;

/// The least stack that recursive functions have left, in bytes. The default of the crate, 128 KiB, is less than an
/// unoptimised sqlparser uses between two of its checks, so that it overflowed the stack at some twenty levels.
const STACK_MIN: usize = 1 << 20;
/// The stack that is added when less is left, in bytes.
const STACK_ADDED: usize = 8 << 20;

/// Parses all statements of `sql`, separated by `;`.
///
/// # Errors
/// The first statement that cannot be parsed, with its place in `sql`; no statement is returned then. Also when the
/// statement of this thread may not hold the tokens ([`budget`]).
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    recursive::set_minimum_stack_size(STACK_MIN);
    recursive::set_stack_allocation_size(STACK_ADDED);
    let mut statements = vec![];
    for piece in lex::split(sql)? {
        budget::check(0)?;
        let first = piece.tokens.first().map_or(piece.end, |t| place_of(t.span));
        statements.push(Parsed {
            statement: command::statement(&piece.tokens, piece.end)?,
            text: piece.text.to_owned(),
            first_line: first.line,
            first_column: first.column,
        });
    }
    Ok(statements)
}

/// Parses a definition that this or an earlier version has accepted: clauses that are refused today have no effect, as
/// they had none then.
///
/// # Errors
/// As [`parse`].
pub fn parse_kept(sql: &str) -> Result<Vec<Parsed>> {
    refused::nothing(|| parse(sql))
}

/// Parses `sql`, which must be one statement.
///
/// # Errors
/// As [`parse`]; when there is none, or more than one.
pub fn parse_one(sql: &str) -> Result<Parsed> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(Error::sql("there is no statement")),
        (Some(last), false) => Err(Error::sql("there is more than one statement")
            .with_place(Place::at(last.first_line, last.first_column))
            .with_hint("Send one statement at a time.")),
    }
}

/// A parser with our dialect over `tokens`.
fn parser(tokens: &[TokenWithSpan]) -> Parser<'static> {
    Parser::new(&dialect::DIALECT)
        .with_recursion_limit(RECURSION_MAX)
        .with_tokens_with_locations(tokens.to_vec())
}

/// Parses a query with its tail; `tail` holds the parts that came before it (`EMIT … AS`).
fn query(tokens: &[TokenWithSpan], tail: Tail, end: Place) -> Result<ContinuousQuery> {
    query_in(tokens, tail, end, false)
}

/// Like [`query`]; `continuous` makes it a continuous query even without a tail.
fn query_in(
    tokens: &[TokenWithSpan],
    mut tail: Tail,
    end: Place,
    continuous: bool,
) -> Result<ContinuousQuery> {
    let (tokens, cut) = tail::cut(tokens, end)?;
    tail::merge(&mut tail, cut)?;
    let tokens = windows(&tokens, &mut tail, end)?;
    let mut parser = parser(&tokens);
    let mut query = parser.parse_query().map_err(|e| from_parser(e, &tokens, end))?;
    nothing_left(&parser, &tokens, end)?;
    spelling::tree(&mut *query)?;
    refused::check(&*query, &tokens, end)?;
    if continuous || !tail.is_empty() {
        buckets::windows(&mut query)?;
    }
    canonical::canonicalize(&mut *query)?;
    Ok(ContinuousQuery { query, tail })
}

/// The tokens, with window clauses as functions.
fn windows(tokens: &[TokenWithSpan], tail: &mut Tail, end: Place) -> Result<Vec<TokenWithSpan>> {
    lex::room_for_copy(tokens)?;
    let tokens = relation_tokens(tokens);
    lex::room_for_copy(&tokens)?;
    let mut tokens = row_pattern::tokens(asof::tokens(spelling::tokens(&tokens)?)?)?;
    lex::room_for_copy(&tokens)?;
    clause::desugar(&mut tokens, tail, end)?;
    Ok(tokens)
}

/// Rewrites `SESSION(t PARTITION BY k, …)` as `SESSION(TABLE t PARTITION BY k, …)`, which the dialect reads; FILL
/// likewise.
fn relation_tokens(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        out.push(token.clone());
        let before = i.checked_sub(1).and_then(|b| tokens.get(b));
        let opens = token.token == Token::LParen
            && before.and_then(|t| unquoted(&t.token)).is_some_and(|w| {
                relation::WindowFunction::named(w).is_some() || w.eq_ignore_ascii_case(FILL)
            });
        let ahead = tokens.get(i + 1..).unwrap_or_default();
        if opens && cursor::is_word(ahead.first().map_or(&Token::EOF, |t| &t.token), "TABLE") {
            continue;
        }
        if opens && partitioned(Cursor::new(ahead, place_of(token.span))) {
            let table = Token::make_keyword("TABLE");
            out.push(TokenWithSpan { token: table, span: token.span });
        }
    }
    out
}

/// Whether a table or a subquery is next, with PARTITION BY after it.
fn partitioned(mut ahead: Cursor<'_>) -> bool {
    let read = match ahead.peek(0) {
        Token::LParen => ahead.parenthesized().is_ok(),
        _ => ahead.name("a table").is_ok(),
    };
    read && ahead.sees(&["PARTITION", "BY"])
}

/// Parses any other statement of the underlying engine.
fn engine(tokens: &[TokenWithSpan], end: Place) -> Result<EngineStatement> {
    let mut tail = Tail::default();
    let tokens = windows(tokens, &mut tail, end)?;
    if let Some(place) = tail.lateness.map(|l| l.place) {
        return Err(Error::sql("a grace period needs a continuous query").with_place(place));
    }
    let (tokens, options) = match external_table::cut_options(&tokens, end)? {
        Some((tokens, options)) => (tokens, options),
        None => (tokens, vec![]),
    };
    let failed = |e| from_engine(e, &tokens, end);
    let mut parser = DFParserBuilder::new(tokens.clone())
        .with_dialect(&dialect::DIALECT)
        .with_recursion_limit(RECURSION_MAX)
        .build()
        .map_err(failed)?;
    let mut statement = parser.parse_statement().map_err(failed)?;
    nothing_left(&parser.parser, &tokens, end)?;
    if let EngineStatement::CreateExternalTable(table) = &mut statement {
        table.options.extend(options);
    }
    spell_engine(&mut statement)?;
    refused::check_engine(&statement, &tokens, end)?;
    canonicalize_engine(&mut statement)?;
    Ok(statement)
}

fn spell_engine(statement: &mut EngineStatement) -> Result<()> {
    match statement {
        EngineStatement::Statement(statement) => spelling::tree(&mut **statement),
        EngineStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => spelling::tree::<Query>(query),
            CopyToSource::Relation(_) => Ok(()),
        },
        EngineStatement::Explain(explain) => spell_engine(&mut explain.statement),
        EngineStatement::CreateExternalTable(_) | EngineStatement::Reset(_) => Ok(()),
    }
}

fn canonicalize_engine(statement: &mut EngineStatement) -> Result<()> {
    match statement {
        EngineStatement::Statement(statement) => canonical::canonicalize(&mut **statement),
        EngineStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => canonical::canonicalize::<Query>(query),
            CopyToSource::Relation(_) => Ok(()),
        },
        EngineStatement::Explain(explain) => canonicalize_engine(&mut explain.statement),
        EngineStatement::CreateExternalTable(_) | EngineStatement::Reset(_) => Ok(()),
    }
}

/// Parses `INSERT INTO target [(columns)] query tail`.
fn insert(tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    let (tokens, mut tail) = tail::cut(tokens, end)?;
    let tokens = windows(&tokens, &mut tail, end)?;
    let mut parser = parser(&tokens);
    let mut statement = parser.parse_statement().map_err(|e| from_parser(e, &tokens, end))?;
    nothing_left(&parser, &tokens, end)?;
    spelling::tree(&mut statement)?;
    refused::check(&statement, &tokens, end)?;
    if let (StandardStatement::Insert(insert), false) = (&mut statement, tail.is_empty())
        && let Some(query) = &mut insert.source
    {
        buckets::windows(query)?;
    }
    canonical::canonicalize(&mut statement)?;
    let StandardStatement::Insert(mut insert) = statement else {
        return Err(
            Error::sql("this is not an INSERT of rows").with_place(place_of_first(&tokens, end))
        );
    };
    let (TableObject::TableName(target), Some(query)) =
        (insert.table.clone(), insert.source.take())
    else {
        return Err(Error::internal("an INSERT without target or rows was let through"));
    };
    let last = |c: &sqlparser::ast::ObjectName| c.0.last().and_then(|p| p.as_ident()).cloned();
    let columns = insert.columns.iter().filter_map(last).collect();
    let query = ContinuousQuery { query, tail };
    Ok(Statement::Insert(Box::new(Insert { target, columns, query, rest: insert })))
}

fn place_of_first(tokens: &[TokenWithSpan], end: Place) -> Place {
    tokens.first().map_or(end, |t| place_of(t.span))
}

/// Checks that the parser has consumed all tokens.
fn nothing_left(parser: &Parser<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<()> {
    match parser.peek_token_ref() {
        token if token.token == Token::EOF => Ok(()),
        _ => {
            let found = parser.peek_token();
            match parser.expected::<()>("the end of the statement", found) {
                Ok(()) => Ok(()),
                Err(error) => Err(from_parser(error, tokens, end)),
            }
        }
    }
}
