//! Dispatch on the leading words of a statement, and the small commands themselves.

use sqlparser::ast::Expr;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, is_word, spanning, unquoted};
use super::ddl::{self, Head};
use super::errors::{LEADING, from_parser};
use super::interval::interval;
use super::statement::{
    Drop, DropKind, Explain, Explained, OptionItem, Set, ShowKind, Statement, Verify,
};
use super::tail::Tail;
use super::{alter, copy, engine, function, insert, model, parser, query, sink};
use crate::diagnostics::nearest;

/// Reads one statement.
pub(super) fn statement(tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    let mut cursor = Cursor::new(tokens, end);
    let Some(word) = unquoted(cursor.peek(0)) else {
        return match cursor.peek(0) {
            Token::LParen => Ok(Statement::Query(query(tokens, Tail::default(), end)?)),
            _ => Err(cursor.expected("a statement")),
        };
    };
    match word.to_ascii_uppercase().as_str() {
        "SELECT" | "WITH" | "VALUES" | "FROM" | "TABLE" => {
            Ok(Statement::Query(query(tokens, Tail::default(), end)?))
        }
        "INSERT" => insert(tokens, end),
        "CREATE" => create(cursor, tokens, end),
        "EXPLAIN" => explain(cursor, tokens, end),
        "SUBSCRIBE" => subscribe(cursor),
        "WAIT" => wait(cursor),
        "VERIFY" => verify(cursor),
        "COPY" => copy::copy(cursor, tokens, end),
        "SUMMARIZE" => copy::summarize(cursor, end),
        "SHOW" => show(cursor, tokens, end),
        "DESCRIBE" | "DESC" => describe(cursor, tokens, end),
        "DROP" => drop(cursor, tokens, end),
        "SET" => set(cursor, tokens, end),
        "ALTER" => alter(cursor, tokens, end),
        "TRUNCATE" => alter::truncate(cursor),
        "PAUSE" => sink::pause(cursor, false),
        "RESUME" => sink::pause(cursor, true),
        "DECLARE" | "FETCH" | "REFRESH" => Err(later(word, cursor.place())),
        _ if LEADING.iter().any(|k| k.eq_ignore_ascii_case(word)) => passed(tokens, end),
        _ => {
            let error = Error::sql(format!("\"{word}\" does not begin a statement"));
            let place = cursor.place();
            cursor.advance();
            Err(error.with_place(place).with_hint(match nearest(word, LEADING.iter().copied()) {
                Some(near) => format!("Did you mean {near}?"),
                None => "Statements begin with SELECT, CREATE, INSERT, DROP, EXPLAIN, SHOW, \
                         DESCRIBE, SUBSCRIBE, WAIT FOR, VERIFY VIEW, SET or COPY."
                    .to_owned(),
            }))
        }
    }
}

fn passed(tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    Ok(Statement::DataFusion(Box::new(engine(tokens, end)?)))
}

/// The error of a statement that is planned for a later version.
fn later(what: &str, place: Place) -> Error {
    let what = what.to_uppercase();
    Error::sql(format!("{what} is not part of this version"))
        .with_place(place)
        .with_hint("Use CREATE MATERIALIZED VIEW, INSERT INTO … SELECT, and DROP.")
}

fn create(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    cursor.advance();
    let head = Head { or_replace: cursor.eat(&["OR", "REPLACE"]) };
    let at = cursor.place();
    if cursor.eat(&["STREAM"]) || cursor.eat(&["SOURCE"]) {
        ddl::create_stream(cursor, head)
    } else if cursor.eat(&["MATERIALIZED", "VIEW"]) {
        ddl::create_view(cursor, head, true, end)
    } else if cursor.eat(&["VIEW"]) {
        ddl::create_view(cursor, head, false, end)
    } else if cursor.sees(&["TABLE"]) && ddl::is_stream(tokens) {
        cursor.advance();
        ddl::create_stream(cursor, head)
    } else if cursor.eat(&["SINK"]) {
        sink::create_sink(cursor, head, end)
    } else if cursor.eat(&["FUNCTION"]) {
        function::create_function(cursor, head, end)
    } else if cursor.eat(&["MODEL"]) {
        model::create_model(cursor, head, end)
    } else if cursor.eat(&["MACRO"]) {
        Err(function::no_macro(at))
    } else if cursor.eat(&["SUBSCRIPTION"]) {
        Err(later("CREATE SUBSCRIPTION", at))
    } else {
        passed(tokens, end).map_err(|error| match unquoted(cursor.peek(0)) {
            Some(word) if error.place() == Some(at) && error.hints().is_empty() => {
                let kinds =
                    ["STREAM", "SOURCE", "TABLE", "VIEW", "MATERIALIZED", "SINK", "FUNCTION", "MODEL", "EXTERNAL"];
                match nearest(word, kinds) {
                    Some(near) => error.with_hint(format!("Did you mean {near}?")),
                    None => error.with_hint(
                        "CREATE makes a STREAM, MATERIALIZED VIEW, VIEW, SINK, FUNCTION, MODEL, TABLE or EXTERNAL TABLE.",
                    ),
                }
            }
            _ => error,
        })
    }
}

fn alter(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    let place = cursor.place();
    cursor.advance();
    if cursor.eat(&["STREAM"]) || cursor.eat(&["SOURCE"]) {
        return alter::alter_stream(cursor);
    }
    let kinds = [
        ("MATERIALIZED", "MATERIALIZED VIEW"),
        ("VIEW", "VIEW"),
        ("SINK", "SINK"),
        ("FUNCTION", "FUNCTION"),
        ("MODEL", "MODEL"),
    ];
    let Some((_, kind)) = kinds.iter().find(|(first, _)| cursor.sees(&[first])) else {
        return passed(tokens, end);
    };
    let hint = format!("CREATE OR REPLACE {kind} replaces its definition.");
    Err(Error::sql(format!("ALTER {kind} is not supported")).with_place(place).with_hint(hint))
}

fn explain(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    cursor.advance();
    if cursor.eat(&["WHY", "NOT"]) {
        let view = cursor.name("the name of a view")?;
        cursor.expect_end()?;
        let what = Explained::WhyNot(view);
        return Ok(Statement::Explain(Explain { analyze: false, verbose: false, what }));
    }
    let (mut analyze, mut verbose) = (false, false);
    loop {
        if !analyze && cursor.eat(&["ANALYZE"]) {
            analyze = true;
        } else if !verbose && cursor.eat(&["VERBOSE"]) {
            verbose = true;
        } else {
            break;
        }
    }
    let query_next = ["SELECT", "WITH", "VALUES"].iter().any(|w| is_word(cursor.peek(1), w));
    let options =
        cursor.peek(0) == &Token::LParen && !query_next && cursor.peek(1) != &Token::LParen;
    if cursor.sees(&["FORMAT"]) || options {
        return passed(tokens, end);
    }
    if cursor.is_end() {
        return Err(cursor.expected("a statement after EXPLAIN"));
    }
    if cursor.sees(&["EXPLAIN"]) {
        return Err(cursor.expected("a statement other than EXPLAIN"));
    }
    let inner = statement(cursor.rest(), end)?;
    let what = Explained::Statement(Box::new(inner));
    Ok(Statement::Explain(Explain { analyze, verbose, what }))
}

fn subscribe(mut cursor: Cursor<'_>) -> Result<Statement> {
    cursor.advance();
    let _optional = cursor.eat(&["TO"]);
    let view = cursor.name("the name of a view")?;
    let after = if cursor.eat(&["AFTER"]) {
        let place = cursor.place();
        let Token::Number(text, _) = cursor.peek(0) else {
            return Err(cursor.expected("a sequence number"));
        };
        let number = text.parse().map_err(|_| {
            Error::sql(format!("\"{text}\" is not a sequence number"))
                .with_place(place)
                .with_hint("Give the last number that you have seen, a whole number.")
        })?;
        cursor.advance();
        Some(number)
    } else {
        None
    };
    let snapshot = snapshot(&mut cursor, after.is_some())?;
    cursor.expect_end()?;
    Ok(Statement::Subscribe { view, after, snapshot })
}

/// `[WITH (snapshot = true | false)]`; `resumes`: whether the subscription has `AFTER n`.
fn snapshot(cursor: &mut Cursor<'_>, resumes: bool) -> Result<bool> {
    let mut snapshot = false;
    for OptionItem { key, value, place } in ddl::options(cursor)? {
        snapshot = match (key.as_str(), value.to_ascii_lowercase().as_str()) {
            ("snapshot", "true") => true,
            ("snapshot", "false") => false,
            ("snapshot", _) => {
                return Err(Error::config(format!("snapshot = '{value}' is not known"))
                    .with_place(place)
                    .with_hint("Write snapshot = true, or leave it out."));
            }
            _ => {
                return Err(Error::config(format!("unknown option \"{key}\" of SUBSCRIBE"))
                    .with_place(place)
                    .with_hint("SUBSCRIBE has one option: WITH (snapshot = true)."));
            }
        };
        if snapshot && resumes {
            return Err(Error::sql("SUBSCRIBE takes either AFTER or a snapshot")
                .with_place(place)
                .with_hint(
                    "AFTER n continues behind a row; a snapshot begins with the current rows.",
                ));
        }
    }
    Ok(snapshot)
}

fn wait(mut cursor: Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["WAIT", "FOR"])?;
    let view = cursor.name("the name of a view")?;
    let until = if cursor.eat(&["UNTIL"]) {
        Some(timestamp(&mut cursor, "UNTIL", "TIMEOUT")?)
    } else {
        None
    };
    let timeout = if cursor.eat(&["TIMEOUT"]) {
        Some(interval(&mut cursor, "the timeout")?.to_duration())
    } else {
        None
    };
    cursor.expect_end()?;
    Ok(Statement::WaitFor { view, until, timeout })
}

/// The single timestamp after the word `after`, up to the word `stop` or the end.
fn timestamp(cursor: &mut Cursor<'_>, after: &str, stop: &str) -> Result<Expr> {
    let mut tokens: Vec<TokenWithSpan> = vec![];
    let start = cursor.place();
    while !cursor.is_end() && !cursor.sees(&[stop]) {
        tokens.extend(cursor.rest().first().cloned());
        cursor.advance();
    }
    let end = cursor.place();
    let mut parser = parser(&tokens);
    let expr = parser.parse_expr().map_err(|e| from_parser(e, &tokens, end))?;
    if parser.peek_token_ref().token != Token::EOF {
        return Err(Error::sql(format!("expected one timestamp after {after}"))
            .with_place(start)
            .with_hint(format!("Write {after} TIMESTAMP '2026-01-01 00:00:00'.")));
    }
    Ok(expr)
}

fn verify(mut cursor: Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["VERIFY"])?;
    let _optional = cursor.eat(&["MATERIALIZED"]);
    cursor.expect(&["VIEW"])?;
    let view = cursor.name("the name of a materialized view")?;
    let start = cursor.place();
    let from =
        if cursor.eat(&["FROM"]) { Some(timestamp(&mut cursor, "FROM", "TO")?) } else { None };
    let to = if cursor.eat(&["TO"]) { Some(timestamp(&mut cursor, "TO", "FROM")?) } else { None };
    let place = spanning(start, cursor.place_before());
    cursor.expect_end()?;
    Ok(Statement::Verify(Box::new(Verify { view, from, to, place })))
}

fn show(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    cursor.advance();
    if cursor.eat(&["CREATE"]) {
        let kinds: [&[&str]; 8] = [
            &["MATERIALIZED", "VIEW"],
            &["STREAM"],
            &["SOURCE"],
            &["TABLE"],
            &["VIEW"],
            &["SINK"],
            &["FUNCTION"],
            &["MODEL"],
        ];
        // A word for the kind may also be the name: SHOW CREATE stream.
        let kind = kinds.iter().find(|k| cursor.sees(k) && cursor.rest().len() > k.len());
        if let Some(kind) = kind {
            cursor.eat(kind);
        }
        let name = cursor.name("a name")?;
        cursor.expect_end()?;
        return Ok(Statement::ShowCreate(name));
    }
    if cursor.eat(&["FUNCTIONS"]) {
        return show_functions(cursor);
    }
    let kinds: [(&[&str], ShowKind); 13] = [
        (&["STREAMS"], ShowKind::Streams),
        (&["SOURCES"], ShowKind::Streams),
        (&["MATERIALIZED", "VIEWS"], ShowKind::MaterializedViews),
        (&["VIEWS"], ShowKind::Views),
        (&["TABLES"], ShowKind::Tables),
        (&["QUERIES"], ShowKind::Queries),
        (&["SINKS"], ShowKind::Sinks),
        (&["MODELS"], ShowKind::Models),
        (&["WATERMARKS"], ShowKind::Watermarks),
        (&["WINDOWS"], ShowKind::Windows),
        (&["DATABASES"], ShowKind::Databases),
        (&["CATALOGS"], ShowKind::Databases),
        (&["SCHEMAS"], ShowKind::Schemas),
    ];
    match kinds.iter().find(|(words, _)| cursor.eat(words)) {
        Some((_, kind)) => {
            cursor.expect_end()?;
            Ok(Statement::Show(*kind))
        }
        None => passed(tokens, end),
    }
}

fn show_functions(mut cursor: Cursor<'_>) -> Result<Statement> {
    let mut pattern = None;
    if cursor.eat(&["LIKE"]) {
        let Token::SingleQuotedString(text) = cursor.peek(0) else {
            return Err(cursor.expected("a pattern in single quotes"));
        };
        pattern = Some(text.clone());
        cursor.advance();
    }
    cursor.expect_end()?;
    Ok(Statement::ShowFunctions(pattern))
}

fn describe(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    cursor.advance();
    if ["SELECT", "WITH", "VALUES", "INSERT"].iter().any(|w| cursor.sees(&[w])) {
        return passed(tokens, end);
    }
    if cursor.sees(&["TABLE"]) && cursor.rest().len() > 1 {
        cursor.advance();
    }
    if cursor.sees(&["MODEL"]) && cursor.rest().len() > 1 {
        cursor.advance();
    }
    if cursor.sees(&["FUNCTION"]) && cursor.rest().len() > 1 {
        cursor.advance();
        let name = cursor.name("the name of a function")?;
        cursor.expect_end()?;
        return Ok(Statement::DescribeFunction(name));
    }
    let name = match copy::file(&mut cursor) {
        Some(file) => file,
        None => cursor.name("a name, or a file in single quotes")?,
    };
    cursor.expect_end()?;
    Ok(Statement::Describe(name))
}

fn drop(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    cursor.advance();
    let kinds: [(&[&str], DropKind); 8] = [
        (&["STREAM"], DropKind::Stream),
        (&["SOURCE"], DropKind::Stream),
        (&["MATERIALIZED", "VIEW"], DropKind::MaterializedView),
        (&["VIEW"], DropKind::View),
        (&["TABLE"], DropKind::Table),
        (&["SINK"], DropKind::Sink),
        (&["FUNCTION"], DropKind::Function),
        (&["MODEL"], DropKind::Model),
    ];
    let Some((_, kind)) = kinds.iter().find(|(words, _)| cursor.eat(words)) else {
        return passed(tokens, end).map_err(|error| match error.place() {
            // The parser's list of what it expects lacks our own statements.
            Some(place) if place == cursor.place() && error.message().starts_with("expected") => {
                let what =
                    "STREAM, VIEW, MATERIALIZED VIEW, SINK, FUNCTION, MODEL, TABLE or SCHEMA after DROP";
                error.hints().iter().cloned().fold(cursor.expected(what), Error::with_hint)
            }
            _ => error,
        });
    };
    let if_exists = cursor.eat(&["IF", "EXISTS"]);
    let mut names = vec![cursor.name("a name")?];
    while cursor.eat_token(&Token::Comma) {
        names.push(cursor.name("a name")?);
    }
    let cascade = cursor.eat(&["CASCADE"]);
    if !cascade {
        let _optional = cursor.eat(&["RESTRICT"]);
    }
    cursor.expect_end()?;
    Ok(Statement::Drop(Drop { kind: *kind, names, if_exists, cascade }))
}

/// What follows `SET TIME ZONE`: a name or an offset; LOCAL or DEFAULT for the time zone at the start of the session.
fn time_zone(mut cursor: Cursor<'_>) -> Result<Statement> {
    let _optional = cursor.eat_token(&Token::Eq) || cursor.eat(&["TO"]);
    let start = cursor.place();
    let value = match cursor.eat(&["LOCAL"]) || cursor.eat(&["DEFAULT"]) {
        true => String::new(),
        false => ddl::literal(&mut cursor, "a time zone")?,
    };
    let place = spanning(start, cursor.place_before());
    cursor.expect_end()?;
    Ok(Statement::Set(Set { name: TIME_ZONE.to_owned(), value, place }))
}

/// The setting for the session's time zone.
const TIME_ZONE: &str = "datafusion.execution.time_zone";

fn set(mut cursor: Cursor<'_>, tokens: &[TokenWithSpan], end: Place) -> Result<Statement> {
    cursor.advance();
    if cursor.peek(0) == &Token::LParen {
        return passed(tokens, end);
    }
    if cursor.sees(&["SESSION", "TIME", "ZONE"]) {
        cursor.advance();
    }
    if cursor.eat(&["TIME", "ZONE"]) {
        return time_zone(cursor);
    }
    let scope = ["LOCAL", "SESSION", "GLOBAL"].into_iter().find(|w| cursor.sees(&[w]));
    let scoped = scope
        .filter(|_| matches!(cursor.peek(1), Token::Word(_)) && !is_word(cursor.peek(1), "TO"));
    if let Some(scope) = scoped {
        return Err(Error::sql(format!("SET {scope} is not supported"))
            .with_place(cursor.place())
            .with_hint("Write SET name = value: settings are those of the session."));
    }
    let name = cursor.name("the name of a setting")?;
    if !cursor.eat(&["TO"]) {
        cursor.expect_token(&Token::Eq)?;
    }
    let start = cursor.place();
    // A bare word is also a value: SET output = csv.
    let value = match unquoted(cursor.peek(0)) {
        Some(word) if !word.eq_ignore_ascii_case("INTERVAL") => {
            cursor.advance();
            word.to_owned()
        }
        _ => ddl::literal(&mut cursor, "the value of the setting")?,
    };
    let place = spanning(start, cursor.place_before());
    cursor.expect_end()?;
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(|i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() })
        .collect();
    let name = match parts.join(".") {
        zone if matches!(zone.as_str(), "timezone" | "time_zone" | "time.zone") => {
            TIME_ZONE.to_owned()
        }
        name => name,
    };
    Ok(Statement::Set(Set { name, value, place }))
}
