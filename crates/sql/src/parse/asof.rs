//! ASOF joins, and joins with the versions of a stream: rewrites their tokens as a join with a marker in its condition,
//! which the planner recognises. Tokens, because the underlying parser reads only one of the spellings.
//!
//! ```text
//! a ASOF [LEFT] JOIN b ON c                            a [LEFT] JOIN b ON "$asof"() AND c
//! a ASOF [LEFT] JOIN b MATCH_CONDITION (m) [ON c]      a [LEFT] JOIN b ON "$asof"(m) [AND c]
//! a [LEFT] JOIN b FOR SYSTEM_TIME AS OF a.ts ON c      a [LEFT] JOIN b ON "$as_of"(a.ts) AND c
//! ```
//! If `c` is an OR at its top level, the marker ends up inside one of its operands, and the planner refuses it.

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{is_word, place_of};
use crate::functions::{AS_OF, ASOF};

/// Words that may stand between ASOF and JOIN.
const KINDS: &[&str] = &["LEFT", "RIGHT", "FULL", "INNER", "OUTER", "SEMI", "ANTI"];
/// Words that end the part of a join before its condition.
const ENDS: &[&str] = &[
    "JOIN",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "QUALIFY",
    "WINDOW",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "EMIT",
];

/// A join whose condition has not been reached.
struct Pending {
    depth: usize,
    marker: &'static str,
    /// The argument of the marker.
    argument: Vec<TokenWithSpan>,
    span: Span,
}

/// Rewrites the tokens of a statement.
///
/// # Errors
/// When the condition of such a join is missing, or FOR SYSTEM_TIME is used elsewhere.
pub(super) fn tokens(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let named = |word: &str| tokens.iter().any(|token| is_word(&token.token, word));
    if !named("ASOF") && !named("SYSTEM_TIME") {
        return Ok(tokens);
    }
    let mut out = Vec::with_capacity(tokens.len() + 16);
    let mut pending: Vec<Pending> = vec![];
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let ahead = tokens.get(at..).unwrap_or_default();
        at += 1;
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                nothing_pending(&pending, depth)?;
                depth = depth.saturating_sub(1);
            }
            Token::SemiColon => nothing_pending(&pending, 0)?,
            _ => {}
        }
        if let Some(join) = asof(ahead) {
            nothing_pending(&pending, depth)?;
            let span = token.span;
            pending.push(Pending { depth, marker: ASOF, argument: vec![], span });
            out.extend(ahead.get(1..=join).unwrap_or_default().iter().cloned());
            at += join;
            continue;
        }
        if let Some((argument, len)) = as_of(ahead)? {
            nothing_pending(&pending, depth)?;
            pending.push(Pending { depth, marker: AS_OF, argument, span: token.span });
            at += len - 1;
            continue;
        }
        let of_join = pending.last().is_some_and(|join| join.depth == depth);
        if of_join && is_word(&token.token, "MATCH_CONDITION") {
            let (argument, len) = parenthesized(tokens.get(at..).unwrap_or_default(), token.span)?;
            at += len;
            let has_on = tokens.get(at).is_some_and(|t| is_word(&t.token, "ON"));
            if let Some(mut join) = pending.pop() {
                join.argument = argument;
                out.push(keyword("ON", token.span));
                out.extend(marked(join));
                if has_on {
                    out.push(keyword("AND", token.span));
                    at += 1;
                }
            }
            continue;
        }
        if of_join && is_word(&token.token, "ON") {
            out.push(token.clone());
            if let Some(join) = pending.pop() {
                out.extend(marked(join));
                out.push(keyword("AND", token.span));
            }
            continue;
        }
        if of_join && ENDS.iter().any(|word| is_word(&token.token, word)) {
            nothing_pending(&pending, depth)?;
        }
        out.push(token.clone());
    }
    nothing_pending(&pending, 0)?;
    Ok(out)
}

/// Checks that no join at this depth or deeper still lacks its condition.
fn nothing_pending(pending: &[Pending], depth: usize) -> Result<()> {
    let Some(join) = pending.last().filter(|join| join.depth >= depth) else { return Ok(()) };
    let (what, hint) = match join.marker {
        ASOF => (
            "an ASOF join needs a condition in ON",
            "Write a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts; USING is not enough.",
        ),
        _ => (
            "FOR SYSTEM_TIME AS OF needs a join with equal keys in ON",
            "Write a JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.k = b.k.",
        ),
    };
    Err(Error::sql(what).with_place(place_of(join.span)).with_hint(hint))
}

/// The number of tokens of `ASOF … JOIN`, without the first.
fn asof(ahead: &[TokenWithSpan]) -> Option<usize> {
    let (first, rest) = ahead.split_first()?;
    if !is_word(&first.token, "ASOF") {
        return None;
    }
    let is_kind = |t: &TokenWithSpan| KINDS.iter().any(|word| is_word(&t.token, word));
    let kinds = rest.iter().take_while(|t| is_kind(t)).count();
    let join = rest.get(kinds).filter(|t| is_word(&t.token, "JOIN"));
    join.map(|_| kinds + 1)
}

/// The column of `FOR SYSTEM_TIME AS OF column`, and the number of tokens.
fn as_of(ahead: &[TokenWithSpan]) -> Result<Option<(Vec<TokenWithSpan>, usize)>> {
    let words = ["FOR", "SYSTEM_TIME", "AS", "OF"];
    let is_it = |(token, word): (&TokenWithSpan, &str)| is_word(&token.token, word);
    if ahead.len() < words.len() || !ahead.iter().zip(words).all(is_it) {
        return Ok(None);
    }
    let rest = ahead.get(words.len()..).unwrap_or_default();
    let mut len = 0;
    while let Some(Token::Word(_)) = rest.get(len).map(|t| &t.token) {
        len += 1;
        match rest.get(len).map(|t| &t.token) {
            Some(Token::Period) => len += 1,
            _ => break,
        }
    }
    let place = |t: &TokenWithSpan| place_of(t.span);
    if len == 0 {
        let found: Option<Place> = rest.first().or(ahead.first()).map(place);
        let error = Error::sql("FOR SYSTEM_TIME AS OF takes a column of the rows that are joined")
            .with_hint("Write a JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.k = b.k; for rows of one time give event times in WHERE.");
        return Err(match found {
            Some(place) => error.with_place(place),
            None => error,
        });
    }
    Ok(Some((rest.get(..len).unwrap_or_default().to_vec(), words.len() + len)))
}

/// The contents of the parentheses that are next, and the number of tokens.
fn parenthesized(ahead: &[TokenWithSpan], span: Span) -> Result<(Vec<TokenWithSpan>, usize)> {
    let mut depth = 0_usize;
    for (at, token) in ahead.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && at > 0 {
            return Ok((ahead.get(1..at).unwrap_or_default().to_vec(), at + 1));
        }
        if depth == 0 {
            break;
        }
    }
    Err(Error::sql("MATCH_CONDITION takes a condition in parentheses")
        .with_place(place_of(span))
        .with_hint("Write MATCH_CONDITION (a.ts >= b.ts)."))
}

fn keyword(word: &str, span: Span) -> TokenWithSpan {
    TokenWithSpan { token: Token::make_keyword(word), span }
}

/// The marker of a join, as a call.
fn marked(join: Pending) -> impl Iterator<Item = TokenWithSpan> {
    let span = join.span;
    let token = move |token| TokenWithSpan { token, span };
    let before = [token(Token::make_word(join.marker, Some('"'))), token(Token::LParen)];
    before.into_iter().chain(join.argument).chain([token(Token::RParen)])
}
