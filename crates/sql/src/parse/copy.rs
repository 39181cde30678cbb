//! `COPY`, as PostgreSQL and DuckDB write it: `COPY t TO 'f' (FORMAT parquet, …)`, `COPY t FROM 'f'`,
//! `COPY t TO STDOUT`. The engine's own form (`STORED AS … OPTIONS (…)`) is passed on.

use sqlparser::ast::{Ident, ObjectName};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, span_of, spanning};
use super::statement::{CopyFrom, CopyOut, Insert, OptionItem, OutFormat, Statement};
use super::tail::Tail;
use super::{ddl, engine, insert, query};
use crate::diagnostics::nearest;

/// The options in parentheses: their name in the statement, in a stream of files (`WITH (…)`), and in the engine's COPY
/// (`OPTIONS (…)`).
const OPTIONS: &[(&str, &str, &str)] = &[
    ("format", "format", ""),
    ("header", "header", "format.has_header"),
    ("delimiter", "delimiter", "format.delimiter"),
    ("delim", "delimiter", "format.delimiter"),
    ("sep", "delimiter", "format.delimiter"),
    ("null", "null", "format.null_value"),
    ("nullstr", "null", "format.null_value"),
    ("quote", "quote", "format.quote"),
    ("escape", "escape", "format.escape"),
    ("compression", "compression", "format.compression"),
    ("codec", "compression", "format.compression"),
];

/// Reads a COPY.
pub(super) fn copy(
    mut cursor: Cursor<'_>,
    tokens: &[TokenWithSpan],
    end: Place,
) -> Result<Statement> {
    cursor.expect(&["COPY"])?;
    let source = source(&mut cursor)?;
    if cursor.eat(&["FROM"]) {
        return from(cursor, source);
    }
    if !cursor.eat(&["TO"]) {
        return Err(cursor.expected("TO or FROM"));
    }
    if cursor.eat(&["STDOUT"]) {
        let format = out_format(&mut cursor)?;
        cursor.expect_end()?;
        let query = query(&source.as_query(), Tail::default(), end)?;
        return Ok(Statement::CopyOut(Box::new(CopyOut { query, format })));
    }
    let target = cursor.rest().first().cloned();
    let Some(target @ TokenWithSpan { token: Token::SingleQuotedString(_), .. }) = target else {
        return Err(cursor.expected("the name of a file in single quotes, or STDOUT"));
    };
    let path = target.token.to_string().trim_matches('\'').to_lowercase();
    cursor.advance();
    let names_lines = path.ends_with(".ndjson") || path.ends_with(".jsonl");
    let by_name = names_lines && cursor.is_end();
    let is_standard = !opens_options(&cursor) && source.columns.is_empty() && !by_name;
    if is_standard {
        return Ok(Statement::DataFusion(Box::new(engine(tokens, end)?)));
    }
    let mut written: Vec<TokenWithSpan> = vec![word("COPY", target.span)];
    written.extend(source.as_relation());
    written.extend([word("TO", target.span), target]);
    if by_name {
        let span = written.last().map_or(Span::empty(), |token| token.span);
        written.extend(["STORED", "AS", "JSON"].map(|text| word(text, span)));
    }
    if opens_options(&cursor) {
        let options = options(&mut cursor)?;
        written.extend(as_engine(&options, &path)?);
    }
    written.extend(cursor.rest().iter().cloned());
    Ok(Statement::DataFusion(Box::new(engine(&written, end)?)))
}

/// The source of a COPY: a query in parentheses, or a name with columns.
struct Source<'a> {
    relation: &'a [TokenWithSpan],
    name: Option<ObjectName>,
    columns: Vec<Ident>,
    column_tokens: &'a [TokenWithSpan],
    place: Place,
}

fn source<'a>(cursor: &mut Cursor<'a>) -> Result<Source<'a>> {
    let (place, all) = (cursor.place(), cursor.rest());
    let before = cursor.position();
    let taken = |cursor: &Cursor<'_>| cursor.position() - before;
    if cursor.peek(0) == &Token::LParen {
        cursor.parenthesized()?;
        let relation = all.get(..taken(cursor)).unwrap_or_default();
        return Ok(Source { relation, name: None, columns: vec![], column_tokens: &[], place });
    }
    let name = cursor.name("the name of a stream, view or table, or a query in parentheses")?;
    let relation = all.get(..taken(cursor)).unwrap_or_default();
    let (mut columns, mut column_tokens) = (vec![], &[][..]);
    if cursor.peek(0) == &Token::LParen {
        let mut inner = cursor.parenthesized()?;
        column_tokens = inner.rest();
        columns.push(inner.identifier("a column")?);
        while inner.eat_token(&Token::Comma) {
            columns.push(inner.identifier("a column")?);
        }
        inner.expect_end()?;
    }
    Ok(Source { relation, name: Some(name), columns, column_tokens, place })
}

impl Source<'_> {
    /// The tokens of an equivalent query.
    fn as_query(&self) -> Vec<TokenWithSpan> {
        let span = span_of(self.place);
        if self.name.is_none() {
            // Without the parentheses.
            let inner = self.relation.get(1..self.relation.len().saturating_sub(1));
            return inner.unwrap_or_default().to_vec();
        }
        let mut tokens = vec![word("SELECT", span)];
        match self.column_tokens {
            [] => tokens.push(TokenWithSpan { token: Token::Mul, span }),
            columns => tokens.extend_from_slice(columns),
        }
        tokens.push(word("FROM", span));
        tokens.extend_from_slice(self.relation);
        tokens
    }

    /// The tokens of the source in the engine's COPY.
    fn as_relation(&self) -> Vec<TokenWithSpan> {
        if self.columns.is_empty() {
            return self.relation.to_vec();
        }
        let span = span_of(self.place);
        let mut tokens = vec![TokenWithSpan { token: Token::LParen, span }];
        tokens.extend(self.as_query());
        tokens.push(TokenWithSpan { token: Token::RParen, span });
        tokens
    }
}

fn word(text: &str, span: Span) -> TokenWithSpan {
    TokenWithSpan { token: Token::make_keyword(text), span }
}

/// Whether `(FORMAT …)` or `WITH (…)` is next.
fn opens_options(cursor: &Cursor<'_>) -> bool {
    cursor.peek(0) == &Token::LParen || cursor.sees(&["WITH"])
}

/// Reads `[WITH] (name value, …)`.
fn options(cursor: &mut Cursor<'_>) -> Result<Vec<OptionItem>> {
    let _optional = cursor.eat(&["WITH"]);
    let mut inner = cursor.parenthesized()?;
    let mut found: Vec<OptionItem> = vec![];
    while !inner.is_end() {
        let start = inner.place();
        let name = inner.identifier("an option")?.value.to_lowercase();
        let Some((_, key, _)) = OPTIONS.iter().find(|(called, ..)| *called == name) else {
            return Err(unknown(&name).with_place(start));
        };
        let _optional = inner.eat_token(&Token::Eq);
        let value = match inner.peek(0) {
            // HEADER without a value means true.
            Token::Comma | Token::EOF => "true".to_owned(),
            Token::Word(w) if w.quote_style.is_none() => {
                inner.advance();
                w.value.clone()
            }
            _ => ddl::literal(&mut inner, "the value of the option")?,
        };
        let place = spanning(start, inner.place_before());
        if found.iter().any(|option| option.key == *key) {
            return Err(Error::sql(format!("option \"{name}\" is given twice")).with_place(place));
        }
        found.push(OptionItem { key: (*key).to_owned(), value, place });
        if !inner.eat_token(&Token::Comma) {
            inner.expect_end()?;
        }
    }
    Ok(found)
}

fn unknown(name: &str) -> Error {
    let names = || OPTIONS.iter().map(|(name, ..)| *name);
    let error = Error::sql(format!("COPY has no option \"{name}\""));
    let error = match nearest(name, names()) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error,
    };
    error.with_hint(format!("Options are: {}.", names().collect::<Vec<_>>().join(", ")))
}

/// The options in the engine's form: `STORED AS format OPTIONS ('key' 'value', …)`; `path` is the file.
fn as_engine(options: &[OptionItem], path: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = vec![];
    let format = options.iter().find(|option| option.key == "format");
    let is_parquet = match format {
        Some(format) => format.value.eq_ignore_ascii_case("parquet"),
        None => path.ends_with(".parquet"),
    };
    let mut rest = vec![];
    for option in options {
        let span = span_of(option.place);
        if option.key == "format" {
            let format = match option.value.to_lowercase().as_str() {
                "ndjson" | "jsonl" | "json" => "JSON",
                "csv" => "CSV",
                "parquet" => "PARQUET",
                "arrow" => "ARROW",
                other => {
                    return Err(Error::sql(format!(
                        "\"{other}\" is not a format that can be written"
                    ))
                    .with_place(option.place)
                    .with_hint("Formats are: csv, json, parquet, arrow."));
                }
            };
            tokens.extend([word("STORED", span), word("AS", span), word(format, span)]);
            continue;
        }
        let is_csv = match format {
            Some(format) => format.value.eq_ignore_ascii_case("csv"),
            None => [".json", ".parquet", ".arrow"].iter().all(|suffix| !path.ends_with(suffix)),
        };
        if option.key != "compression" && !is_csv {
            return Err(Error::sql(format!("option \"{}\" is for CSV", option.key))
                .with_place(option.place)
                .with_hint("Leave it out, or write (FORMAT csv, …)."));
        }
        let key = OPTIONS.iter().find(|(_, key, _)| *key == option.key).map_or("", |o| o.2);
        rest.push((key, option));
    }
    if let Some((_, first)) = rest.first() {
        let span = span_of(first.place);
        let text =
            |text: &str| TokenWithSpan { token: Token::SingleQuotedString(text.to_owned()), span };
        tokens.push(word("OPTIONS", span));
        tokens.push(TokenWithSpan { token: Token::LParen, span });
        for (at, (key, option)) in rest.iter().enumerate() {
            if at > 0 {
                tokens.push(TokenWithSpan { token: Token::Comma, span });
            }
            // Parquet's codecs have a level, which may be left out.
            let value = match (is_parquet, option.value.to_lowercase().as_str()) {
                (true, "zstd") => "zstd(3)",
                (true, "gzip") => "gzip(6)",
                (true, "brotli") => "brotli(3)",
                _ => &option.value,
            };
            tokens.extend([text(key), text(value)]);
        }
        tokens.push(TokenWithSpan { token: Token::RParen, span });
    }
    Ok(tokens)
}

/// Reads `(FORMAT csv | json [, HEADER true | false])`.
fn out_format(cursor: &mut Cursor<'_>) -> Result<OutFormat> {
    let mut format = OutFormat::Csv;
    if !opens_options(cursor) {
        return Ok(format);
    }
    for option in options(cursor)? {
        format = match (option.key.as_str(), option.value.to_lowercase().as_str()) {
            ("format", "csv") => OutFormat::Csv,
            ("format", "json" | "ndjson" | "jsonl") => OutFormat::Json,
            ("header", "true") => format,
            _ => {
                return Err(Error::sql("COPY TO STDOUT writes CSV with a header, or JSON lines")
                    .with_place(option.place)
                    .with_hint("Write (FORMAT csv) or (FORMAT json), or copy to a file."));
            }
        };
    }
    Ok(format)
}

/// Reads what follows `COPY name FROM`.
fn from(mut cursor: Cursor<'_>, source: Source<'_>) -> Result<Statement> {
    let Some(target) = source.name else {
        return Err(Error::sql("COPY FROM needs the name of a stream or table, not a query")
            .with_place(source.place));
    };
    let start = cursor.place();
    let path = match cursor.peek(0) {
        Token::SingleQuotedString(path) => path.clone(),
        Token::Word(w) if w.keyword == Keyword::STDIN => {
            return Err(Error::sql("COPY FROM STDIN is not supported")
                .with_place(start)
                .with_hint(
                    "Copy from a file: COPY name FROM 'file'; or INSERT INTO name VALUES ….",
                ));
        }
        _ => return Err(cursor.expected("the name of a file in single quotes")),
    };
    cursor.advance();
    let options = if opens_options(&cursor) { options(&mut cursor)? } else { vec![] };
    cursor.expect_end()?;
    let columns = source.columns;
    Ok(Statement::CopyFrom(Box::new(CopyFrom { target, columns, path, place: start, options })))
}

/// Reads `SUMMARIZE name | 'file' | query`.
pub(super) fn summarize(mut cursor: Cursor<'_>, end: Place) -> Result<Statement> {
    cursor.expect(&["SUMMARIZE"])?;
    let span = span_of(cursor.place());
    let is_query = cursor.peek(0) == &Token::LParen
        || ["SELECT", "WITH", "VALUES", "FROM", "TABLE"].iter().any(|word| cursor.sees(&[word]));
    if cursor.is_end() {
        return Err(cursor.expected("a name, a file in single quotes, or a query"));
    }
    let mut tokens = vec![];
    if !is_query {
        tokens.extend([
            word("SELECT", span),
            TokenWithSpan { token: Token::Mul, span },
            word("FROM", span),
        ]);
    }
    tokens.extend_from_slice(cursor.rest());
    let query = query(&tokens, Tail::default(), end)?;
    if let Some(place) = query.tail.place {
        return Err(Error::sql("SUMMARIZE reads what is there now, so it takes no EMIT")
            .with_place(place)
            .with_hint("Leave out EMIT and what follows it."));
    }
    Ok(Statement::Summarize(Box::new(query)))
}

/// Reads the name of a file in single quotes where it is next, as a name.
pub(super) fn file(cursor: &mut Cursor<'_>) -> Option<ObjectName> {
    let Token::SingleQuotedString(path) = cursor.peek(0) else { return None };
    let span = span_of(cursor.place());
    cursor.advance();
    let ident = Ident { value: path.clone(), quote_style: Some('\''), span };
    Some(ObjectName::from(vec![ident]))
}

impl CopyFrom {
    /// The INSERT that this is: of the columns `names` of the file, or, if `names` is empty, of all its columns, into
    /// the columns that the statement lists.
    ///
    /// # Errors
    /// Never in practice: all of its parts have been parsed before.
    pub fn as_insert(&self, names: &[String]) -> Result<Insert> {
        let span = span_of(self.place);
        let token = |token: Token| TokenWithSpan { token, span };
        let quoted = |name: &str| token(Token::make_word(name, Some('"')));
        let listed = |idents: Vec<TokenWithSpan>| {
            let mut tokens = vec![];
            for (at, ident) in idents.into_iter().enumerate() {
                if at > 0 {
                    tokens.push(token(Token::Comma));
                }
                tokens.push(ident);
            }
            tokens
        };
        let of_ident = |ident: &Ident| token(Token::make_word(&ident.value, ident.quote_style));
        let mut tokens = vec![word("INSERT", span), word("INTO", span)];
        let parts = self.target.0.iter().filter_map(|part| part.as_ident());
        for (at, part) in parts.enumerate() {
            if at > 0 {
                tokens.push(token(Token::Period));
            }
            tokens.push(TokenWithSpan { span: part.span, ..of_ident(part) });
        }
        let into = match names {
            [] => self.columns.iter().map(of_ident).collect(),
            names => names.iter().map(|name| quoted(name)).collect(),
        };
        tokens.push(token(Token::LParen));
        tokens.extend(listed(into));
        tokens.extend([token(Token::RParen), word("SELECT", span)]);
        match names {
            [] => tokens.push(token(Token::Mul)),
            names => tokens.extend(listed(names.iter().map(|name| quoted(name)).collect())),
        }
        tokens.extend([word("FROM", span), token(Token::SingleQuotedString(self.path.clone()))]);
        match insert(&tokens, self.place)? {
            Statement::Insert(insert) => Ok(*insert),
            _ => Err(Error::internal("an INSERT was read as another statement")),
        }
    }
}
