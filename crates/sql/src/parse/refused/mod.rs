//! Clauses that the parser accepts and nothing would implement: each is an error, with its place.
//!
//! The parser reads the dialects of twenty databases; the planner silently ignores what it does not support. So every
//! part of a query is handled here once: [`query`], [`relation`], [`expression`] and [`statement`] destructure it
//! without `..`, so that a new part in the parser is a compile error until it has been decided how to handle it.
//!
//! Invariant: what passes is implemented by the planner or by us, or does not affect the result.

mod expression;
mod query;
mod relation;
mod statement;

use std::cell::Cell;
use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use sqlparser::ast::{Expr, Query, Select, Statement, TableFactor, Visit, Visitor};
use sqlparser::tokenizer::TokenWithSpan;
use windrow_core::{Error, Place, Result, budget};

use super::cursor::{is_word, place_of, spanning};

thread_local! {
    /// Whether the text that is parsed on this thread was accepted before.
    static KEPT: Cell<bool> = const { Cell::new(false) };
}

/// Refuses nothing while `work` runs, which stays on its thread.
pub(super) fn nothing<T>(work: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            KEPT.set(self.0);
        }
    }
    let _back = Back(KEPT.replace(true));
    work()
}

/// Refuses every clause of `tree` that would be ignored; `tokens` are those of the statement, for the places.
///
/// # Errors
/// The first such clause.
pub(super) fn check<T: Visit>(tree: &T, tokens: &[TokenWithSpan], end: Place) -> Result<()> {
    if KEPT.get() {
        return Ok(());
    }
    match tree.visit(&mut Walk { tokens, end }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Like [`check`], for a statement that the underlying engine parses.
///
/// # Errors
/// As [`check`]; also a statement that cannot be executed.
pub(super) fn check_engine(
    statement: &EngineStatement,
    tokens: &[TokenWithSpan],
    end: Place,
) -> Result<()> {
    if KEPT.get() {
        return Ok(());
    }
    let walk = Walk { tokens, end };
    match statement {
        EngineStatement::Statement(statement) => check(&**statement, tokens, end),
        EngineStatement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => check::<Query>(query, tokens, end),
            CopyToSource::Relation(_) => Ok(()),
        },
        EngineStatement::Explain(explain) => check_engine(&explain.statement, tokens, end),
        EngineStatement::CreateExternalTable(table) => statement::external_table(&walk, table),
        EngineStatement::Reset(_) => Ok(()),
    }
}

struct Walk<'t> {
    tokens: &'t [TokenWithSpan],
    end: Place,
}

impl Walk<'_> {
    /// An error about the clause that begins with `words` (in capitals, with blanks between them).
    fn refused(&self, words: &str, message: &str, hint: &str) -> Error {
        Error::sql(message).with_place(self.place(words)).with_hint(hint)
    }

    /// Refuses the clause if it is there.
    fn without(&self, is_there: bool, words: &str, message: &str, hint: &str) -> Result<()> {
        if is_there { Err(self.refused(words, message, hint)) } else { Ok(()) }
    }

    /// The place where these words first occur; that of the first token if they do not.
    fn place(&self, words: &str) -> Place {
        let words: Vec<&str> = words.split(' ').collect();
        let found = self.tokens.windows(words.len()).find(|tokens| {
            tokens.iter().zip(&words).all(|(token, word)| is_word(&token.token, word))
        });
        let found = found.or_else(|| self.tokens.get(..1)).unwrap_or_default();
        match (found.first(), found.last()) {
            (Some(first), Some(last)) => spanning(place_of(first.span), place_of(last.span)),
            _ => self.end,
        }
    }
}

impl Visitor for Walk<'_> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        flow(query::query(self, query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        flow(query::select(self, select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        flow(relation::factor(self, factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        flow(budget::check(0).map_err(Error::from))?;
        flow(expression::expression(self, expr))
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Self::Break> {
        flow(statement::statement(self, statement))
    }
}

fn flow(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}
