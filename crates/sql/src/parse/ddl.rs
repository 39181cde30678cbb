//! `CREATE STREAM` and `CREATE [MATERIALIZED] VIEW`.

use sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, DataType, Expr, FunctionArguments, GeneratedAs,
    Ident, Spanned, TimezoneInfo,
};
use sqlparser::parser::{IsOptional, Parser};
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, is_word, place_of, spanning};
use super::dialect::METADATA;
use super::errors::from_parser;
use super::interval::interval;
use super::spelled::{spelled, spelled_options};
use super::statement::{
    CheckClause, CreateStream, CreateView, KeyClause, OptionItem, Statement, WatermarkClause,
};
use super::tail::{self, Tail};
use super::{parser, query_in};

/// `OR REPLACE` and `IF NOT EXISTS` around the kind of object.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    pub(super) or_replace: bool,
}

/// Whether `CREATE TABLE …` means a stream: it declares a watermark, or names a connector or the option `changes`.
pub(super) fn is_stream(tokens: &[TokenWithSpan]) -> bool {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        let next = tokens.get(i + 1).map(|t| &t.token);
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(w)
                if depth == 0 && w.quote_style.is_none() && is_word(&token.token, "AS") =>
            {
                return false;
            }
            Token::Word(_) | Token::SingleQuotedString(_) if depth == 1 => {
                let named = match &token.token {
                    Token::Word(w) => &w.value,
                    Token::SingleQuotedString(text) => text,
                    _ => continue,
                };
                let is = |word: &str| named.eq_ignore_ascii_case(word);
                let for_next = next.is_some_and(|t| is_word(t, "FOR"));
                let interval_next = next.is_some_and(|t| is_word(t, "INTERVAL"));
                if is("WATERMARK") && for_next
                    || is("LATENESS") && interval_next
                    || (is("connector") || is("changes")) && next == Some(&Token::Eq)
                {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// `IF NOT EXISTS`, if it is there.
pub(super) fn if_not_exists(cursor: &mut Cursor<'_>) -> Result<bool> {
    let is_there = cursor.eat(&["IF", "NOT", "EXISTS"]);
    if !is_there && cursor.sees(&["IF", "NOT"]) {
        cursor.advance();
        cursor.advance();
        return Err(cursor.expected("EXISTS after IF NOT"));
    }
    Ok(is_there)
}

/// What follows `CREATE [OR REPLACE] STREAM`.
pub(super) fn create_stream(mut cursor: Cursor<'_>, head: Head) -> Result<Statement> {
    let if_not_exists = if_not_exists(&mut cursor)?;
    let name = cursor.name("the name of the stream")?;
    let Declared { columns, watermark, checks, key } = if cursor.peek(0) == &Token::LParen {
        let open = cursor.place();
        let inner = cursor.parenthesized()?;
        columns(inner.rest(), spanning(open, cursor.place_before()), cursor.place_before())?
    } else {
        Declared::default()
    };
    let options = options(&mut cursor)?;
    let query = match cursor.eat(&["AS"]) {
        true => Some(query_in(cursor.rest(), Tail::default(), cursor.end(), true)?),
        false => {
            cursor.expect_end()?;
            None
        }
    };
    let query = query.map(Box::new);
    if query.is_none() && columns.is_empty() && watermark.is_none() && options.is_empty() {
        return Err(cursor.expected("columns or WITH (…)").with_hint(
            "A stream without connector needs columns: CREATE STREAM s (a INT, ts TIMESTAMP, \
             WATERMARK FOR ts).",
        ));
    }
    let or_replace = head.or_replace;
    let stream = CreateStream {
        or_replace,
        if_not_exists,
        name,
        columns,
        checks,
        key,
        watermark,
        options,
        query,
    };
    Ok(Statement::CreateStream(stream))
}

/// What is between the parentheses.
#[derive(Default)]
struct Declared {
    columns: Vec<ColumnDef>,
    watermark: Option<WatermarkClause>,
    checks: Vec<CheckClause>,
    key: Option<KeyClause>,
}

fn columns(tokens: &[TokenWithSpan], list: Place, end: Place) -> Result<Declared> {
    let parser = parser(tokens);
    let mut reader =
        ColumnReader { tokens, end, parser, watermark: None, checks: vec![], key: None };
    let mut columns: Vec<ColumnDef> = vec![];
    loop {
        if reader.parser.peek_token_ref().token == Token::EOF {
            break;
        }
        if let Some(column) = reader.element()? {
            let name = folded(&column.name);
            if columns.iter().any(|c| name == folded(&c.name)) {
                return Err(Error::sql(format!("column \"{name}\" is given twice"))
                    .with_place(place_of(column.name.span))
                    .with_hint("Rename or remove one of them."));
            }
            columns.push(column);
        }
        if !reader.parser.consume_token(&Token::Comma) {
            reader.expect_end()?;
            break;
        }
    }
    let ColumnReader { watermark, checks, key, .. } = reader;
    if columns.is_empty() && watermark.is_none() && checks.is_empty() && key.is_none() {
        return Err(Error::sql("the column list is empty")
            .with_place(list)
            .with_hint("Leave the parentheses out to take the columns from the data."));
    }
    if let Some(mark) = &watermark
        && !columns.is_empty()
        && !columns.iter().any(|c| folded(&c.name) == folded(&mark.column))
    {
        let name = folded(&mark.column);
        let known: Vec<String> = columns.iter().map(|c| folded(&c.name)).collect();
        let known = known.iter().map(String::as_str);
        return Err(Error::sql(format!("WATERMARK FOR names an unknown column \"{name}\""))
            .with_place(place_of(mark.column.span))
            .with_hint(crate::diagnostics::did_you_mean(&name, known, "columns")));
    }
    if let Some(key) = &key
        && !columns.is_empty()
    {
        let known: Vec<String> = columns.iter().map(|c| folded(&c.name)).collect();
        if let Some(column) = key.columns.iter().find(|c| !known.contains(&folded(c))) {
            let name = folded(column);
            let known = known.iter().map(String::as_str);
            return Err(Error::sql(format!("PRIMARY KEY names an unknown column \"{name}\""))
                .with_place(place_of(column.span))
                .with_hint(crate::diagnostics::did_you_mean(&name, known, "columns")));
        }
    }
    Ok(Declared { columns, watermark, checks, key })
}

/// An identifier, folded as in the catalog.
pub(super) fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

struct ColumnReader<'t> {
    tokens: &'t [TokenWithSpan],
    end: Place,
    parser: Parser<'static>,
    watermark: Option<WatermarkClause>,
    checks: Vec<CheckClause>,
    key: Option<KeyClause>,
}

impl ColumnReader<'_> {
    /// A column, or `None` when it was a watermark, a check or the key.
    fn element(&mut self) -> Result<Option<ColumnDef>> {
        let at = place_of(self.parser.peek_token_ref().span);
        if self.primary_key(at)? {
            return Ok(None);
        }
        let [first, second] = self.parser.peek_tokens_ref();
        if is_word(&first.token, "WATERMARK") && is_word(&second.token, "FOR") {
            self.parser.next_token();
            self.parser.next_token();
            let column = self.parser.parse_identifier().map_err(|e| self.error(e))?;
            let has_expr = is_word(&self.parser.peek_token_ref().token, "AS");
            let expr = if has_expr {
                self.parser.next_token();
                let mut expr = self.parser.parse_expr().map_err(|e| self.error(e))?;
                spelled(&mut expr, "a watermark", at)?;
                Some(expr)
            } else {
                None
            };
            self.mark(column, expr, at)?;
            return Ok(None);
        }
        let opens = second.token == Token::LParen;
        if is_word(&first.token, "CHECK") && opens {
            self.check(None, at)?;
            return Ok(None);
        }
        let named = is_word(&self.parser.peek_nth_token_ref(2).token, "CHECK");
        if is_word(&first.token, "CONSTRAINT") && named {
            self.parser.next_token();
            let name = self.parser.parse_identifier().map_err(|e| self.error(e))?;
            self.check(Some(name), at)?;
            return Ok(None);
        }
        let constraint = ["PRIMARY", "UNIQUE", "FOREIGN", "CONSTRAINT"];
        let key = is_word(&second.token, "KEY")
            || opens
            || ["PRIMARY", "UNIQUE", "FOREIGN"]
                .iter()
                .any(|w| is_word(&self.parser.peek_nth_token_ref(2).token, w));
        if constraint.iter().any(|w| is_word(&first.token, w)) && key {
            return Err(Error::sql(
                "a stream has no table constraints except CHECK and PRIMARY KEY",
            )
            .with_place(at)
            .with_hint("Remove it; a view can drop duplicates."));
        }
        if is_word(&second.token, "AS") {
            return self.without_type(at).map(Some);
        }
        let mut column = self.parser.parse_column_def().map_err(|e| self.error(e))?;
        if is_word(&self.parser.peek_token_ref().token, "LATENESS") {
            self.lateness(&column.name)?;
        }
        let (checks, options) = std::mem::take(&mut column.options)
            .into_iter()
            .partition::<Vec<_>, _>(|o| matches!(o.option, ColumnOption::Check(_)));
        let (keys, options) = options
            .into_iter()
            .partition::<Vec<_>, _>(|o| matches!(o.option, ColumnOption::PrimaryKey(_)));
        column.options = options;
        if !keys.is_empty() {
            let place = place_of(column.name.span);
            self.set_key(vec![column.name.clone()], place)?;
        }
        self.column_checks(checks)?;
        for option in &column.options {
            supported(&column, &option.option)?;
        }
        spelled_options(&mut column)?;
        Ok(Some(column))
    }

    /// Reads `[CONSTRAINT name] PRIMARY KEY (column, …)` at the cursor; returns whether it was there.
    fn primary_key(&mut self, at: Place) -> Result<bool> {
        let word = |parser: &Parser<'_>, n: usize, word: &str| {
            is_word(&parser.peek_nth_token_ref(n).token, word)
        };
        let named = usize::from(word(&self.parser, 0, "CONSTRAINT")) * 2;
        let opens = self.parser.peek_nth_token_ref(named + 2).token == Token::LParen;
        let is_there =
            word(&self.parser, named, "PRIMARY") && word(&self.parser, named + 1, "KEY") && opens;
        if !is_there {
            return Ok(false);
        }
        for _ in 0..named + 2 {
            self.parser.next_token();
        }
        let columns = self.parser.parse_parenthesized_column_list(IsOptional::Mandatory, false);
        let columns = columns.map_err(|e| self.error(e))?;
        let place = spanning(at, place_of(self.parser.get_current_token().span));
        self.set_key(columns, place)?;
        Ok(true)
    }

    fn set_key(&mut self, columns: Vec<Ident>, place: Place) -> Result<()> {
        if self.key.is_some() {
            return Err(Error::sql("a stream has two primary keys")
                .with_place(place)
                .with_hint("A key of several columns is one clause: PRIMARY KEY (a, b)."));
        }
        let mut names: Vec<String> = columns.iter().map(folded).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(Error::sql(format!("the primary key names column \"{name}\" twice"))
                .with_place(place)
                .with_hint("Remove one of them."));
        }
        self.key = Some(KeyClause { columns, place });
        Ok(())
    }

    /// `CHECK (expr)` at the cursor, which `name` precedes.
    fn check(&mut self, name: Option<Ident>, at: Place) -> Result<()> {
        self.parser.next_token();
        self.parser.expect_token(&Token::LParen).map_err(|e| self.error(e))?;
        let expr = self.parser.parse_expr().map_err(|e| self.error(e))?;
        self.parser.expect_token(&Token::RParen).map_err(|e| self.error(e))?;
        let place = spanning(at, place_of(self.parser.get_current_token().span));
        self.add_check(CheckClause::new(name, expr, place)?)
    }

    /// The checks among the options of a column.
    fn column_checks(&mut self, options: Vec<ColumnOptionDef>) -> Result<()> {
        for option in options {
            let ColumnOption::Check(check) = option.option else { continue };
            let place = place_of(check.expr.span());
            if check.enforced.is_some() {
                return Err(Error::sql("every check is enforced").with_place(place).with_hint(
                    "Remove ENFORCED; a check that is not to be enforced is left out.",
                ));
            }
            let name = check.name.or(option.name);
            self.add_check(CheckClause::new(name, *check.expr, place)?)?;
        }
        Ok(())
    }

    fn add_check(&mut self, check: CheckClause) -> Result<()> {
        let name = check.name.as_ref().map(folded);
        let known = self.checks.iter().filter_map(|c| c.name.as_ref().map(folded));
        if let Some(name) = name
            && known.into_iter().any(|known| known == name)
        {
            return Err(Error::sql(format!("two checks are named \"{name}\""))
                .with_place(check.place)
                .with_hint("Rename one of them."));
        }
        self.checks.push(check);
        Ok(())
    }

    /// `at AS PROCTIME()`: the only generated column that needs no type.
    fn without_type(&mut self, at: Place) -> Result<ColumnDef> {
        let name = self.parser.parse_identifier().map_err(|e| self.error(e))?;
        self.parser.next_token();
        let expr = self.parser.parse_expr().map_err(|e| self.error(e))?;
        if !is_proctime(&expr) {
            let shown = folded(&name);
            return Err(Error::sql(format!("column \"{shown}\" has no type"))
                .with_place(at)
                .with_hint(format!("Write {shown} TYPE GENERATED ALWAYS AS ({expr}).")));
        }
        let option = ColumnOption::Generated {
            generated_as: GeneratedAs::Always,
            sequence_options: None,
            generation_expr: Some(expr),
            generation_expr_mode: None,
            generated_keyword: true,
        };
        let data_type = DataType::Timestamp(Some(3), TimezoneInfo::None);
        let options = vec![ColumnOptionDef { name: None, option }];
        Ok(ColumnDef { name, data_type, options })
    }

    /// `ts TIMESTAMP LATENESS INTERVAL '5 seconds'` means `WATERMARK FOR ts AS ts - INTERVAL …`.
    fn lateness(&mut self, column: &Ident) -> Result<()> {
        let at = place_of(self.parser.next_token().span);
        let ahead = self.tokens.get(self.parser.index()..).unwrap_or_default();
        interval(&mut Cursor::new(ahead, self.end), "the lateness")?;
        let right = self.parser.parse_expr().map_err(|e| self.error(e))?;
        let expr = Expr::BinaryOp {
            left: Box::new(Expr::Identifier(column.clone())),
            op: sqlparser::ast::BinaryOperator::Minus,
            right: Box::new(right),
        };
        self.mark(column.clone(), Some(expr), at)
    }

    fn mark(&mut self, column: Ident, expr: Option<Expr>, place: Place) -> Result<()> {
        if self.watermark.is_some() {
            return Err(Error::sql("a stream has two watermarks")
                .with_place(place)
                .with_hint("Only one column is the event time; remove the other watermark."));
        }
        self.watermark = Some(WatermarkClause { column, expr, place });
        Ok(())
    }

    fn expect_end(&self) -> Result<()> {
        let token = self.parser.peek_token_ref();
        if token.token == Token::EOF {
            return Ok(());
        }
        if is_word(&token.token, "NOT") {
            let after = self.parser.peek_nth_token_ref(1);
            let what = format!("expected NULL after NOT, found \"{}\"", after.token);
            return Err(Error::sql(what).with_place(place_of(after.span)));
        }
        let what = format!("expected \",\" or \")\" after a column, found \"{}\"", token.token);
        Err(Error::sql(what).with_place(place_of(token.span)))
    }

    fn error(&self, error: sqlparser::parser::ParserError) -> Error {
        from_parser(error, self.tokens, self.end)
    }
}

/// Whether a generated column is the processing time: the time of the clock when the row is read.
pub fn is_proctime(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let has_none = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    has_none && function.name.to_string().eq_ignore_ascii_case("proctime")
}

/// The name of what a column is of a message besides its value: `c TYPE METADATA [FROM 'name']`.
pub fn metadata(column: &ColumnDef) -> Option<String> {
    let mut options = column.options.iter();
    options.find_map(|option| match &option.option {
        ColumnOption::DialectSpecific(tokens) => match tokens.as_slice() {
            [word] if is_word(word, METADATA) => Some(folded(&column.name)),
            [word, _, Token::SingleQuotedString(name)] if is_word(word, METADATA) => {
                Some(name.clone())
            }
            _ => None,
        },
        _ => None,
    })
}

/// Refuses options that the column of a stream cannot have.
///
/// # Errors
/// When it is one of them.
pub(super) fn supported(column: &ColumnDef, option: &ColumnOption) -> Result<()> {
    match option {
        ColumnOption::Null
        | ColumnOption::NotNull
        | ColumnOption::Comment(_)
        | ColumnOption::Generated { generation_expr: Some(_), .. } => Ok(()),
        ColumnOption::DialectSpecific(_) if metadata(column).is_some() => {
            let is_generated =
                |o: &ColumnOptionDef| matches!(o.option, ColumnOption::Generated { .. });
            if column.options.iter().any(is_generated) {
                return Err(Error::sql(format!(
                    "column \"{}\" is both metadata and generated",
                    folded(&column.name)
                ))
                .with_place(place_of(column.name.span))
                .with_hint("Make two columns of it."));
            }
            Ok(())
        }
        other => Err(Error::sql(format!(
            "column \"{}\" of a stream cannot have {other}",
            folded(&column.name)
        ))
        .with_place(place_of(column.name.span))
        .with_hint(
            "A column may be NOT NULL, PRIMARY KEY, CHECK (…), GENERATED ALWAYS AS (…) or METADATA FROM '…'.",
        )),
    }
}

/// `[WITH (key = value, …)]`.
pub(super) fn options(cursor: &mut Cursor<'_>) -> Result<Vec<OptionItem>> {
    if cursor.eat(&["WITH"]) { options_of(cursor) } else { Ok(vec![]) }
}

/// `(key = value, …)`.
pub(super) fn options_of(cursor: &mut Cursor<'_>) -> Result<Vec<OptionItem>> {
    let mut options: Vec<OptionItem> = vec![];
    let mut inner = cursor.parenthesized()?;
    while !inner.is_end() {
        let item = option(&mut inner)?;
        if options.iter().any(|o| o.key.eq_ignore_ascii_case(&item.key)) {
            return Err(Error::config(format!("option \"{}\" is given twice", item.key))
                .with_place(item.place)
                .with_hint("Remove one of them."));
        }
        options.push(item);
        if !inner.eat_token(&Token::Comma) && !inner.is_end() {
            return Err(inner.expected("\",\" or \")\" after an option"));
        }
    }
    Ok(options)
}

/// `(key, …)`, each with its place.
pub(super) fn option_keys(cursor: &mut Cursor<'_>) -> Result<Vec<(String, Place)>> {
    let mut keys = vec![];
    let mut inner = cursor.parenthesized()?;
    loop {
        let at = inner.place();
        let key = option_key(&mut inner)?;
        keys.push((key, spanning(at, inner.place_before())));
        if !inner.eat_token(&Token::Comma) {
            inner.expect_end()?;
            return Ok(keys);
        }
    }
}

fn option_key(inner: &mut Cursor<'_>) -> Result<String> {
    Ok(match inner.peek(0) {
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => {
            let key = text.clone();
            inner.advance();
            key
        }
        _ => {
            let mut parts = vec![folded(&inner.identifier("the name of an option")?)];
            while inner.eat_token(&Token::Period) {
                parts.push(folded(&inner.identifier("the name of an option")?));
            }
            parts.join(".")
        }
    })
}

fn option(inner: &mut Cursor<'_>) -> Result<OptionItem> {
    let at = inner.place();
    let key = option_key(inner)?;
    inner.expect_token(&Token::Eq)?;
    let value = literal(inner, &format!("the value of \"{key}\"")).map_err(|error| match key.as_str() {
        "start" => error.with_hint(
            "A start is a fixed time, because a definition is read again at each start of the program and has to \
             mean the same: start = TIMESTAMP '2026-01-01 00:00:00', or 'latest', or 'earliest'.",
        ),
        _ => error,
    })?;
    Ok(OptionItem { key, value, place: spanning(at, inner.place_before()) })
}

/// A string, a number, TRUE, FALSE, a timestamp or an interval, as text.
pub(super) fn literal(cursor: &mut Cursor<'_>, what: &str) -> Result<String> {
    let has_interval = cursor.eat(&["INTERVAL"]);
    let has_timestamp = matches!(cursor.peek(1), Token::SingleQuotedString(_))
        && !has_interval
        && cursor.eat(&["TIMESTAMP"]);
    let negative = !has_interval && !has_timestamp && cursor.eat_token(&Token::Minus);
    let sign = if negative { "-" } else { "" };
    let text = match cursor.peek(0) {
        Token::SingleQuotedString(text) if !negative => text.clone(),
        Token::Number(number, _) => format!("{sign}{number}"),
        Token::Word(w)
            if !negative
                && (is_word(cursor.peek(0), "TRUE") || is_word(cursor.peek(0), "FALSE")) =>
        {
            w.value.to_lowercase()
        }
        _ => {
            let hint = "Write it as a string in single quotes, a number, TRUE or FALSE.";
            return Err(cursor.expected(what).with_hint(hint));
        }
    };
    cursor.advance();
    if has_interval && let Token::Word(unit) = cursor.peek(0) {
        cursor.advance();
        return Ok(format!("{text} {}", unit.value.to_lowercase()));
    }
    Ok(text)
}

/// What follows `CREATE [OR REPLACE] [MATERIALIZED] VIEW`.
pub(super) fn create_view(
    mut cursor: Cursor<'_>,
    head: Head,
    materialized: bool,
    end: Place,
) -> Result<Statement> {
    let if_not_exists = if_not_exists(&mut cursor)?;
    let name = cursor.name("the name of the view")?;
    let mut columns = vec![];
    if cursor.peek(0) == &Token::LParen {
        let mut inner = cursor.parenthesized()?;
        loop {
            columns.push(inner.identifier("the name of a column")?);
            if !inner.eat_token(&Token::Comma) {
                break;
            }
        }
        if !inner.is_end() {
            return Err(inner.expected("\",\" or \")\" after a column's name"));
        }
    }
    let mut first = Tail::default();
    tail::items(&mut cursor, &mut first)?;
    let options = options(&mut cursor)?;
    tail::items(&mut cursor, &mut first)?;
    cursor.expect(&["AS"])?;
    let query = query_in(cursor.rest(), first, end, materialized)?;
    let or_replace = head.or_replace;
    Ok(Statement::CreateView(CreateView {
        or_replace,
        if_not_exists,
        materialized,
        name,
        columns,
        options,
        query,
    }))
}
