//! `CREATE FUNCTION`: a scalar function whose body is one SQL expression over its parameters.
//!
//! The body is text within the statement, in single quotes or between `$$`, or an expression after RETURN. Either way it
//! is parsed as the query `SELECT body`, so that whatever is refused or rewritten in queries is refused or rewritten here.
//!
//! Invariant: places in the body are places in the submitted text.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{DataType, Expr, Query, SelectItem, SetExpr, Value, Visit, Visitor};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, place_of, span_of, spanning, unquoted};
use super::ddl::{Head, folded, if_not_exists};
use super::errors::from_parser;
use super::predict::model_of_function;
use super::statement::{Alteration, CreateFunction, Parameter, SinkRows, Statement};
use super::tail::Tail;
use super::{lex, parser, query};

/// Clauses of other engines that state what holds for every function here.
const TRUE_OF_ALL: [&[&str]; 3] = [&["LANGUAGE", "SQL"], &["IMMUTABLE"], &["DETERMINISTIC"]];

/// What follows `CREATE [OR REPLACE] FUNCTION`.
pub(super) fn create_function(mut cursor: Cursor<'_>, head: Head, end: Place) -> Result<Statement> {
    let if_not_exists = if_not_exists(&mut cursor)?;
    let name = cursor.name("the name of the function")?;
    if cursor.peek(0) != &Token::LParen {
        return Err(cursor.expected("the parameters in parentheses"));
    }
    let parameters = parameters(cursor.parenthesized()?)?;
    clauses(&mut cursor);
    let returns = match cursor.eat(&["RETURNS"]) {
        true => Some(returned(&mut cursor, end)?),
        false => None,
    };
    clauses(&mut cursor);
    let (body, place) = body(&mut cursor, end)?;
    clauses(&mut cursor);
    cursor.expect_end()?;
    let function = CreateFunction {
        or_replace: head.or_replace,
        if_not_exists,
        name,
        parameters,
        returns,
        body,
        place,
    };
    Ok(Statement::CreateFunction(Box::new(function)))
}

/// The error of `CREATE MACRO`.
pub(super) fn no_macro(at: Place) -> Error {
    Error::sql("CREATE MACRO is not supported: functions have types")
        .with_place(at)
        .with_hint("Write CREATE FUNCTION f(a DOUBLE, b DOUBLE) RETURNS DOUBLE AS 'a * b'.")
}

fn clauses(cursor: &mut Cursor<'_>) {
    while TRUE_OF_ALL.iter().any(|words| cursor.eat(words)) {}
}

fn parameters(mut list: Cursor<'_>) -> Result<Vec<Parameter>> {
    let mut parameters: Vec<Parameter> = vec![];
    while !list.is_end() {
        let place = list.place();
        let name = list.identifier("the name of a parameter")?;
        if list.is_end() || list.peek(0) == &Token::Comma {
            let hint = format!("Write {0} DOUBLE, or another type.", name.value);
            return Err(list.expected(&format!("the type of \"{}\"", name.value)).with_hint(hint));
        }
        let data_type = data_type(&mut list)?;
        if parameters.iter().any(|p| folded(&p.name) == folded(&name)) {
            return Err(Error::sql(format!("parameter \"{}\" is given twice", folded(&name)))
                .with_place(place)
                .with_hint("Rename one of them."));
        }
        parameters.push(Parameter { name, data_type });
        if list.is_end() {
            break;
        }
        if list.sees(&["DEFAULT"]) || list.peek(0) == &Token::Eq {
            return Err(Error::sql("parameters have no default values")
                .with_place(list.place())
                .with_hint("Remove it; every call gives all arguments."));
        }
        if !list.eat_token(&Token::Comma) {
            return Err(list.expected("\",\" or \")\" after a parameter"));
        }
    }
    Ok(parameters)
}

/// The type at the cursor; the cursor stops after it.
fn data_type(cursor: &mut Cursor<'_>) -> Result<DataType> {
    let (tokens, end) = (cursor.rest(), cursor.end());
    let mut parser = parser(tokens);
    let data_type = parser.parse_data_type().map_err(|e| from_parser(e, tokens, end))?;
    for _ in 0..parser.index() {
        cursor.advance();
    }
    Ok(data_type)
}

fn returned(cursor: &mut Cursor<'_>, end: Place) -> Result<DataType> {
    let what = if cursor.sees(&["TABLE"]) { "a table" } else { "a set" };
    if cursor.sees(&["TABLE"]) || cursor.sees(&["SETOF"]) {
        return Err(Error::sql(format!("a function returns one value, not {what}"))
            .with_place(cursor.place())
            .with_hint("Use CREATE VIEW for a query with a name."));
    }
    if cursor.is_end() {
        return Err(Error::sql("expected a type after RETURNS").with_place(end));
    }
    data_type(cursor)
}

/// The body and its place.
fn body(cursor: &mut Cursor<'_>, end: Place) -> Result<(Expr, Place)> {
    let at = cursor.place();
    if cursor.eat(&["RETURN"]) {
        let tokens = cursor.rest().to_vec();
        while !cursor.is_end() {
            cursor.advance();
        }
        let place = spanning(at, cursor.place_before());
        return Ok((expression(tokens, at, end)?, place));
    }
    if !cursor.eat(&["AS"]) {
        let hint = "Write the body as text, AS 'a * b', or after RETURN: RETURN a * b.";
        return Err(cursor.expected("AS or RETURN").with_hint(hint));
    }
    let place = cursor.place();
    let (text, opening, doubled) = match cursor.peek(0) {
        Token::SingleQuotedString(text) => (text.clone(), 1, true),
        Token::DollarQuotedString(text) => {
            let tag = text.tag.as_deref().map_or(0, |tag| tag.chars().count() as u64);
            (text.value.clone(), 2 + tag, false)
        }
        _ => {
            let hint = "Write AS 'a * b' or AS $$a * b$$; without quotes it is RETURN a * b.";
            return Err(cursor.expected("the body in quotes").with_hint(hint));
        }
    };
    cursor.advance();
    let from = span_of(place).start;
    let start = Location { line: from.line, column: from.column + opening };
    let moved = Moved { text: &text, start, doubled };
    let pieces = lex::split(&text).map_err(|e| match e.place() {
        Some(at) => e.with_place(moved.place(at)),
        None => e.with_place(place),
    })?;
    let mut pieces = pieces.into_iter();
    let (Some(piece), None) = (pieces.next(), pieces.next()) else {
        return Err(Error::sql("the body of a function is one expression")
            .with_place(place)
            .with_hint("Write AS 'a * b'."));
    };
    let mut tokens = piece.tokens;
    for token in &mut tokens {
        token.span = moved.span(token.span);
    }
    Ok((expression(tokens, place, moved.place(piece.end))?, place))
}

/// Maps places in a text within the statement to places in the submitted text.
struct Moved<'a> {
    text: &'a str,
    /// The place of its first character.
    start: Location,
    /// Whether quotes in it are doubled.
    doubled: bool,
}

impl Moved<'_> {
    fn location(&self, at: Location) -> Location {
        let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let before = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let quotes = match self.doubled {
            true => {
                let line = self.text.split('\n').nth(line).unwrap_or_default();
                line.chars().take(before).filter(|c| *c == '\'').count() as u64
            }
            false => 0,
        };
        let column = at.column + quotes;
        match at.line {
            0 | 1 => Location { line: self.start.line, column: self.start.column + column - 1 },
            line => Location { line: self.start.line + line - 1, column },
        }
    }

    fn span(&self, span: Span) -> Span {
        Span::new(self.location(span.start), self.location(span.end))
    }

    fn place(&self, place: Place) -> Place {
        place_of(self.span(span_of(place)))
    }
}

/// Reads the tokens of a body: an expression, or SELECT and an expression.
fn expression(mut tokens: Vec<TokenWithSpan>, at: Place, end: Place) -> Result<Expr> {
    let not_one = || {
        Error::sql("the body of a function is one expression over its parameters")
            .with_place(at)
            .with_hint("It has no FROM and no subquery; join the other table where the function is called.")
    };
    if !tokens
        .first()
        .and_then(|t| unquoted(&t.token))
        .is_some_and(|w| w.eq_ignore_ascii_case("SELECT"))
    {
        let select = Token::make_keyword("SELECT");
        let first = tokens.first().map_or_else(|| span_of(end), |t| t.span);
        tokens.insert(0, TokenWithSpan { token: select, span: first });
    }
    if tokens.len() < 2 {
        return Err(Error::sql("the body of the function is empty").with_place(at));
    }
    let parsed = query(&tokens, Tail::default(), end)?;
    if !parsed.tail.is_empty() {
        return Err(not_one());
    }
    let query = *parsed.query;
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    let SetExpr::Select(select) = *query.body else { return Err(not_one()) };
    let [SelectItem::UnnamedExpr(expr)] = select.projection.as_slice() else {
        return Err(not_one());
    };
    let alone = select.from.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && select.distinct.is_none();
    let mut parts = Parts { has_query: false, placeholder: None };
    if !plain || !alone || expr.visit(&mut parts).is_break() || parts.has_query {
        return Err(not_one());
    }
    if let Some(placeholder) = parts.placeholder {
        return Err(Error::sql(format!("\"{placeholder}\" is no parameter of the function"))
            .with_place(at)
            .with_hint("Call parameters by their names."));
    }
    Ok(expr.clone())
}

/// Refuses what a body must not contain.
struct Parts {
    has_query: bool,
    placeholder: Option<String>,
}

impl Visitor for Parts {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.has_query = true;
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &sqlparser::ast::ValueWithSpan) -> ControlFlow<()> {
        if let Value::Placeholder(name) = &value.value {
            self.placeholder = Some(name.clone());
        }
        ControlFlow::Continue(())
    }
}

/// The names of the functions and models that are called within a tree, folded as in the catalog.
struct Called(BTreeSet<String>);

impl Called {
    fn within<T: Visit>(&mut self, tree: &T) {
        match tree.visit(self) {
            // It never breaks off.
            ControlFlow::Continue(()) | ControlFlow::Break(()) => {}
        }
    }
}

impl Visitor for Called {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let [part] = function.name.0.as_slice()
            && let Some(name) = part.as_ident()
        {
            let name = folded(name);
            self.0.insert(model_of_function(&name).map_or_else(|| name.clone(), str::to_owned));
        }
        ControlFlow::Continue(())
    }
}

/// Returns the names of all functions, built in or not, and of all models that the definition of an object calls.
pub fn called(statement: &Statement) -> BTreeSet<String> {
    let mut called = Called(BTreeSet::new());
    match statement {
        Statement::CreateStream(create) => {
            called.within(&create.columns);
            create.checks.iter().for_each(|check| called.within(&check.expr));
            if let Some(query) = &create.query {
                called.within(&*query.query);
            }
        }
        Statement::AlterStream(alter) => match &alter.what {
            Alteration::AddCheck { check, .. } => called.within(&check.expr),
            Alteration::AddColumn(added) => called.within(&added.column),
            Alteration::Set(_) | Alteration::Reset(_) | Alteration::DropCheck { .. } => {}
        },
        Statement::CreateView(create) => called.within(&*create.query.query),
        Statement::CreateSink(create) => {
            if let SinkRows::Query(query) = &create.rows {
                called.within(&*query.query);
            }
        }
        Statement::CreateFunction(create) => called.within(&create.body),
        Statement::Insert(insert) => called.within(&*insert.query.query),
        _ => {}
    }
    called.0
}
