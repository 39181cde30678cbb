//! MATCH_RECOGNIZE, rewritten as what the underlying parser reads: over the tokens, since it has neither reluctant
//! quantifiers nor WITHIN, SUBSET, `SKIP TO x`, FINAL and RUNNING.
//!
//! ```text
//! AFTER MATCH SKIP TO LAST b PATTERN (a b+? | c{2}) WITHIN INTERVAL '1' HOUR SUBSET u = (a, b) DEFINE b AS …
//! PATTERN ("$") DEFINE "$pattern" AS "$choice"("$sequence"(a, "$repeat"(b, 1, NULL, FALSE)), "$repeat"(c, 2, 2, TRUE)),
//!                      "$skip" AS "$last"(b), "$within" AS INTERVAL '1' HOUR, "$subset" AS "$subset"(u, a, b), b AS …
//! ```
//! and `FINAL f(…)` as `"$final"(f(…))`. Tokens keep their places. `$` cannot begin an identifier, so a statement
//! cannot name these without quotes.

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use windrow_core::{Error, Result};

use super::cursor::{Cursor, is_word, place_of, span_of, unquoted};

/// The function around a subquery.
pub(crate) const ROWS: &str = "$rows";
/// The variable for the pattern, as an expression.
pub(crate) const PATTERN: &str = "$pattern";
/// … for where the search continues after a match.
pub(crate) const SKIP: &str = "$skip";
/// … for the greatest duration of a match.
pub(crate) const WITHIN: &str = "$within";
/// … for each union of variables.
pub(crate) const SUBSET: &str = "$subset";
/// The parts one after another.
pub(crate) const SEQUENCE: &str = "$sequence";
/// One of the alternatives.
pub(crate) const CHOICE: &str = "$choice";
/// The parts in any order.
pub(crate) const PERMUTE: &str = "$permute";
/// A part, its least and greatest number of repetitions, and whether it is greedy.
pub(crate) const REPEAT: &str = "$repeat";
/// A part that ALL ROWS PER MATCH excludes.
pub(crate) const HIDDEN: &str = "$hidden";
/// The targets of AFTER MATCH SKIP.
pub(crate) const PAST_LAST_ROW: &str = "$past_last_row";
/// As above.
pub(crate) const TO_NEXT_ROW: &str = "$to_next_row";
/// As above.
pub(crate) const TO_FIRST: &str = "$to_first";
/// As above.
pub(crate) const TO_LAST: &str = "$to_last";
/// `FINAL f(…)`.
pub(crate) const FINAL: &str = "$final";
/// `RUNNING f(…)`.
pub(crate) const RUNNING: &str = "$running";

const PATTERN_USAGE: &str = "Write PATTERN (a b+ c?): names of variables, one after the other or with | between them, and *, +, ?, \
     {n,m} after them, with another ? for as few rows as possible.";

/// Rewrites the tokens of a statement.
///
/// # Errors
/// When a pattern cannot be read.
pub(super) fn tokens(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|token| is_word(&token.token, "MATCH_RECOGNIZE")) {
        return Ok(tokens);
    }
    rewritten(&subqueries(tokens))
}

/// Rewrites `(SELECT …) AS t MATCH_RECOGNIZE (…)` as `"$rows"((SELECT …)) AS t MATCH_RECOGNIZE (…)`, since the
/// underlying parser accepts the clause only after names; `(VALUES …)` as `"$rows"((SELECT * FROM (VALUES …)))`.
fn subqueries(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut at = 0;
    while at < tokens.len() {
        let is_it = tokens.get(at).is_some_and(|token| is_word(&token.token, "MATCH_RECOGNIZE"));
        if is_it
            && let Some((open, close)) = subquery(tokens.get(..at).unwrap_or_default())
            && let Some(span) = tokens.get(open).map(|token| token.span)
        {
            let mut before = vec![quoted(ROWS, span), token(Token::LParen, span)];
            let mut behind = vec![token(Token::RParen, span)];
            if tokens.get(open + 1).is_some_and(|first| is_word(&first.token, "VALUES")) {
                before.extend([token(Token::LParen, span), word("SELECT", span)]);
                before.extend([token(Token::Mul, span), word("FROM", span)]);
                behind.push(token(Token::RParen, span));
            }
            at += before.len() + behind.len();
            tokens.splice(close + 1..close + 1, behind);
            tokens.splice(open..open, before);
        }
        at += 1;
    }
    tokens
}

/// The indexes of the parentheses of a subquery that comes last, with or without an alias.
fn subquery(before: &[TokenWithSpan]) -> Option<(usize, usize)> {
    let at = |i: usize| before.get(i).map(|token| &token.token);
    let is_word_at = |i: usize| matches!(at(i), Some(Token::Word(_)));
    let mut last = before.len().checked_sub(1)?;
    // The names of columns.
    if at(last) == Some(&Token::RParen) {
        let open = opening(before, last)?;
        if is_word_at(open.checked_sub(1)?) && !selects(at(open + 1)) {
            last = open - 1;
        }
    }
    if is_word_at(last) {
        last = last.checked_sub(1)?;
        if at(last).is_some_and(|token| is_word(token, "AS")) {
            last = last.checked_sub(1)?;
        }
    }
    let open = if at(last) == Some(&Token::RParen) { opening(before, last)? } else { return None };
    selects(at(open + 1)).then_some((open, last))
}

fn selects(token: Option<&Token>) -> bool {
    token.is_some_and(|token| ["SELECT", "WITH", "VALUES"].iter().any(|word| is_word(token, word)))
}

/// The index of the parenthesis that closes at `close`.
fn opening(tokens: &[TokenWithSpan], close: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for at in (0..=close).rev() {
        match tokens.get(at).map(|token| &token.token) {
            Some(Token::RParen) => depth += 1,
            Some(Token::LParen) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn rewritten(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>> {
    let mut out = Vec::with_capacity(tokens.len() + 32);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        out.push(token.clone());
        at += 1;
        let opens = tokens.get(at).is_some_and(|next| next.token == Token::LParen);
        if !opens || !is_word(&token.token, "MATCH_RECOGNIZE") {
            continue;
        }
        let mut cursor = Cursor::new(tokens.get(at..).unwrap_or_default(), place_of(token.span));
        let inner = cursor.parenthesized()?;
        let end = at + cursor.position();
        out.extend(tokens.get(at).cloned());
        clauses(inner, &mut out)?;
        out.extend(tokens.get(end - 1).cloned());
        at = end;
    }
    Ok(out)
}

/// Items that are added to DEFINE.
type Definitions = Vec<Vec<TokenWithSpan>>;

/// Rewrites the contents of the parentheses.
fn clauses(mut cursor: Cursor<'_>, out: &mut Vec<TokenWithSpan>) -> Result<()> {
    let mut definitions: Definitions = vec![];
    let (mut patterned, mut defined) = (false, false);
    let mut depth = 0_usize;
    while !cursor.is_end() {
        let span = span_of(cursor.place());
        if depth == 0 && !defined {
            if cursor.eat(&["AFTER", "MATCH", "SKIP"]) {
                let target = skip_target(&mut cursor, span)?;
                definitions.push(definition(SKIP, span, target));
                continue;
            }
            if !patterned && cursor.sees(&["PATTERN"]) && *cursor.peek(1) == Token::LParen {
                cursor.advance();
                let pattern = pattern(&mut cursor)?;
                definitions.push(definition(PATTERN, span, pattern));
                out.push(word("PATTERN", span));
                out.extend([token(Token::LParen, span), quoted("$", span)]);
                out.push(token(Token::RParen, span));
                patterned = true;
                continue;
            }
            if patterned && cursor.eat(&["WITHIN"]) {
                definitions.push(definition(WITHIN, span, length(&mut cursor)));
                continue;
            }
            if patterned && cursor.eat(&["SUBSET"]) {
                subsets(&mut cursor, &mut definitions)?;
                continue;
            }
            if patterned && cursor.eat(&["DEFINE"]) {
                define(&mut definitions, span, out);
                out.push(token(Token::Comma, span));
                defined = true;
                continue;
            }
        }
        if let Some(marker) = semantics(&cursor) {
            cursor.advance();
            let mut call = cursor.clone();
            call.advance();
            let len = {
                call.parenthesized()?;
                call.position() - cursor.position()
            };
            let call = cursor.rest().get(..len).unwrap_or_default();
            out.extend([quoted(marker, span), token(Token::LParen, span)]);
            out.extend(call.iter().cloned());
            out.push(token(Token::RParen, span));
            (0..len).for_each(|_| {
                cursor.advance();
            });
            continue;
        }
        match cursor.peek(0) {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        out.extend(cursor.rest().first().cloned());
        cursor.advance();
    }
    if patterned && !defined {
        define(&mut definitions, span_of(cursor.place_before()), out);
    }
    Ok(())
}

fn define(definitions: &mut Definitions, span: Span, out: &mut Vec<TokenWithSpan>) {
    out.push(word("DEFINE", span));
    for (i, definition) in std::mem::take(definitions).into_iter().enumerate() {
        if i > 0 {
            out.push(token(Token::Comma, span));
        }
        out.extend(definition);
    }
}

/// The marker of `FINAL f(` and `RUNNING f(`.
fn semantics(cursor: &Cursor<'_>) -> Option<&'static str> {
    let marker = match unquoted(cursor.peek(0))? {
        word if word.eq_ignore_ascii_case("FINAL") => FINAL,
        word if word.eq_ignore_ascii_case("RUNNING") => RUNNING,
        _ => return None,
    };
    let calls = matches!(cursor.peek(1), Token::Word(_)) && *cursor.peek(2) == Token::LParen;
    calls.then_some(marker)
}

fn skip_target(cursor: &mut Cursor<'_>, span: Span) -> Result<Vec<TokenWithSpan>> {
    if cursor.eat(&["PAST", "LAST", "ROW"]) {
        return Ok(call(PAST_LAST_ROW, span, vec![]));
    }
    if cursor.eat(&["TO", "NEXT", "ROW"]) {
        return Ok(call(TO_NEXT_ROW, span, vec![]));
    }
    let hint = "AFTER MATCH SKIP takes PAST LAST ROW, TO NEXT ROW, TO FIRST variable, TO LAST variable or TO variable.";
    if !cursor.eat(&["TO"]) {
        return Err(cursor.expected("PAST LAST ROW or TO").with_hint(hint));
    }
    let named = matches!(cursor.peek(1), Token::Word(_)) && !cursor.sees(&["LAST", "PATTERN"]);
    let named = named && !cursor.sees(&["FIRST", "PATTERN"]);
    let target = match () {
        () if named && cursor.eat(&["FIRST"]) => TO_FIRST,
        () if named && cursor.eat(&["LAST"]) => TO_LAST,
        () => TO_LAST,
    };
    let variable = variable(cursor).map_err(|e| e.with_hint(hint))?;
    Ok(call(target, span, vec![vec![variable]]))
}

/// The tokens up to the next clause.
fn length(cursor: &mut Cursor<'_>) -> Vec<TokenWithSpan> {
    let mut tokens = vec![];
    while !cursor.is_end() && !cursor.sees(&["SUBSET"]) && !cursor.sees(&["DEFINE"]) {
        tokens.extend(cursor.rest().first().cloned());
        cursor.advance();
    }
    tokens
}

fn subsets(cursor: &mut Cursor<'_>, definitions: &mut Definitions) -> Result<()> {
    loop {
        let span = span_of(cursor.place());
        let mut parts = vec![vec![variable(cursor)?]];
        cursor.expect_token(&Token::Eq)?;
        cursor.expect_token(&Token::LParen)?;
        loop {
            parts.push(vec![variable(cursor)?]);
            if !cursor.eat_token(&Token::Comma) {
                break;
            }
        }
        cursor.expect_token(&Token::RParen)?;
        definitions.push(definition(SUBSET, span, call(SUBSET, span, parts)));
        if !cursor.eat_token(&Token::Comma) {
            return Ok(());
        }
    }
}

/// The pattern inside the parentheses.
fn pattern(cursor: &mut Cursor<'_>) -> Result<Vec<TokenWithSpan>> {
    let span = span_of(cursor.place());
    let mut inner = cursor.parenthesized()?;
    let pattern = choice(&mut inner, span)?;
    if inner.is_end() { Ok(pattern) } else { Err(unexpected(&inner)) }
}

fn unexpected(cursor: &Cursor<'_>) -> Error {
    cursor.expected("a variable, (, |, or the end of the pattern").with_hint(PATTERN_USAGE)
}

fn choice(cursor: &mut Cursor<'_>, span: Span) -> Result<Vec<TokenWithSpan>> {
    let mut parts = vec![sequence(cursor, span)?];
    while cursor.eat_token(&Token::Pipe) {
        parts.push(sequence(cursor, span)?);
    }
    Ok(one_or(CHOICE, span, parts))
}

fn sequence(cursor: &mut Cursor<'_>, span: Span) -> Result<Vec<TokenWithSpan>> {
    let mut parts = vec![repeated(cursor)?];
    while !cursor.is_end() && *cursor.peek(0) != Token::Pipe {
        // The end of an exclusion, or of a part of PERMUTE.
        if matches!(cursor.peek(0), Token::Minus | Token::Comma) {
            break;
        }
        parts.push(repeated(cursor)?);
    }
    Ok(one_or(SEQUENCE, span, parts))
}

fn one_or(name: &str, span: Span, mut parts: Vec<Vec<TokenWithSpan>>) -> Vec<TokenWithSpan> {
    if parts.len() == 1 { parts.pop().unwrap_or_default() } else { call(name, span, parts) }
}

fn repeated(cursor: &mut Cursor<'_>) -> Result<Vec<TokenWithSpan>> {
    let span = span_of(cursor.place());
    let part = primary(cursor, span)?;
    let Some((least, most)) = quantifier(cursor)? else { return Ok(part) };
    let greedy = !eat_question(cursor);
    if begins_quantifier(cursor) {
        let e = Error::sql("a part of a pattern has two quantifiers").with_place(cursor.place());
        return Err(e.with_hint("Put parentheses around the part with the first one: (a{2})+."));
    }
    let number = |n: u32| vec![token(Token::Number(n.to_string(), false), span)];
    let most = most.map_or_else(|| vec![word("NULL", span)], number);
    let greedy = vec![word(if greedy { "TRUE" } else { "FALSE" }, span)];
    Ok(call(REPEAT, span, vec![part, number(least), most, greedy]))
}

fn eat_question(cursor: &mut Cursor<'_>) -> bool {
    let found = matches!(cursor.peek(0), Token::Placeholder(text) if text == "?");
    if found {
        cursor.advance();
    }
    found
}

fn begins_quantifier(cursor: &Cursor<'_>) -> bool {
    match cursor.peek(0) {
        Token::Mul | Token::Plus => true,
        Token::Placeholder(text) => text == "?",
        Token::LBrace => *cursor.peek(1) != Token::Minus,
        _ => false,
    }
}

fn quantifier(cursor: &mut Cursor<'_>) -> Result<Option<(u32, Option<u32>)>> {
    if !begins_quantifier(cursor) {
        return Ok(None);
    }
    let place = cursor.place();
    Ok(Some(match cursor.advance() {
        Token::Mul => (0, None),
        Token::Plus => (1, None),
        Token::Placeholder(_) => (0, Some(1)),
        _ => {
            let least = number(cursor)?;
            let most = match cursor.eat_token(&Token::Comma) {
                true => number(cursor)?,
                false => least,
            };
            let ranged = least.is_some() || most.is_some();
            if !ranged || !cursor.eat_token(&Token::RBrace) {
                let e = cursor.expected("{n}, {n,}, {n,m} or {,m}");
                return Err(e.with_hint(PATTERN_USAGE));
            }
            let least = least.unwrap_or(0);
            if most == Some(0) || most.is_some_and(|most| most < least) {
                return Err(Error::sql(
                    "a quantifier must be at least 1, and its bounds must ascend",
                )
                .with_place(place)
                .with_hint(PATTERN_USAGE));
            }
            (least, most)
        }
    }))
}

fn number(cursor: &mut Cursor<'_>) -> Result<Option<u32>> {
    let Token::Number(text, _) = cursor.peek(0) else { return Ok(None) };
    let number = text.parse();
    let number = number.map_err(|_| cursor.expected("a whole number").with_hint(PATTERN_USAGE))?;
    cursor.advance();
    Ok(Some(number))
}

fn primary(cursor: &mut Cursor<'_>, span: Span) -> Result<Vec<TokenWithSpan>> {
    match cursor.peek(0) {
        Token::LParen => pattern(cursor),
        Token::LBrace if *cursor.peek(1) == Token::Minus => {
            cursor.advance();
            cursor.advance();
            let part = choice(cursor, span)?;
            cursor.expect_token(&Token::Minus)?;
            cursor.expect_token(&Token::RBrace)?;
            Ok(call(HIDDEN, span, vec![part]))
        }
        Token::Caret | Token::Placeholder(_) => {
            let first = *cursor.peek(0) == Token::Caret;
            let (sign, what) = if first { ("^", "beginning") } else { ("$", "end") };
            Err(Error::sql(format!("the anchor {sign} is not part of this version"))
                .with_place(cursor.place())
                .with_hint(format!(
                    "A stream has no {what} that a match could be anchored to; test for it in DEFINE, such as PREV(ts) IS NULL for the first row."
                )))
        }
        Token::Word(_) if cursor.sees(&["PERMUTE"]) && *cursor.peek(1) == Token::LParen => {
            cursor.advance();
            let mut inner = cursor.parenthesized()?;
            let mut parts = vec![choice(&mut inner, span)?];
            while inner.eat_token(&Token::Comma) {
                parts.push(choice(&mut inner, span)?);
            }
            if inner.is_end() { Ok(call(PERMUTE, span, parts)) } else { Err(unexpected(&inner)) }
        }
        _ => variable(cursor).map(|variable| vec![variable]),
    }
}

/// The name of a variable.
fn variable(cursor: &mut Cursor<'_>) -> Result<TokenWithSpan> {
    match cursor.rest().first() {
        Some(found @ TokenWithSpan { token: Token::Word(_), .. }) => {
            cursor.advance();
            Ok(found.clone())
        }
        _ => Err(cursor.expected("the name of a variable").with_hint(PATTERN_USAGE)),
    }
}

fn token(token: Token, span: Span) -> TokenWithSpan {
    TokenWithSpan { token, span }
}

fn word(word: &str, span: Span) -> TokenWithSpan {
    token(Token::make_keyword(word), span)
}

fn quoted(name: &str, span: Span) -> TokenWithSpan {
    token(Token::make_word(name, Some('"')), span)
}

fn definition(name: &str, span: Span, value: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let before = [quoted(name, span), word("AS", span)];
    before.into_iter().chain(value).collect()
}

fn call(name: &str, span: Span, arguments: Vec<Vec<TokenWithSpan>>) -> Vec<TokenWithSpan> {
    let mut tokens = vec![quoted(name, span), token(Token::LParen, span)];
    for (i, argument) in arguments.into_iter().enumerate() {
        if i > 0 {
            tokens.push(token(Token::Comma, span));
        }
        tokens.extend(argument);
    }
    tokens.push(token(Token::RParen, span));
    tokens
}

/// Whether the parenthesis that is next opens a pattern, in which `?` and `$` are not parameters.
pub(super) fn opens_pattern(before: &[TokenWithSpan]) -> bool {
    let last = before.last().is_some_and(|token| is_word(&token.token, "PATTERN"));
    last && before.iter().any(|token| is_word(&token.token, "MATCH_RECOGNIZE"))
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;

    #[test]
    fn question_marks_of_a_pattern_are_no_parameters() {
        let sql = "SELECT * FROM (SELECT * FROM t) AS u MATCH_RECOGNIZE (ORDER BY ts PATTERN (a b? c*? d{2,}?) \
                   DEFINE a AS x > ?) WHERE y = ?";
        let read = format!("{:?}", parse(sql).unwrap());
        for part in ["$rows", "$repeat", "\"$1\"", "\"$2\""] {
            assert!(read.contains(part), "{part} in {read}");
        }
        assert!(!read.contains("\"$3\""));
    }

    #[test]
    fn columns_may_have_the_names_of_its_words() {
        for sql in [
            "SELECT pattern, within, subset, define FROM t",
            "SELECT pattern(x), final(x) FROM t WHERE within > 1",
            "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY pattern ORDER BY within PATTERN (skip) DEFINE skip AS final > 1)",
        ] {
            parse(sql).unwrap();
        }
    }
}
