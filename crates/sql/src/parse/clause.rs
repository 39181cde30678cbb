//! Spelling 4: `WINDOW TUMBLING (SIZE 1 MINUTE)` and the like, at any depth.
//!
//! A pass over the tokens turns the clause into a marked function in the GROUP BY of the same
//! SELECT, where spelling 3 takes over. Tokens keep their places. The standard's
//! `WINDOW w AS (…)` is left alone.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, is_word, place_of, unquoted};
use super::ddl::literal;
use super::errors::counted_window;
use super::grouped::CLAUSE_MARK;
use super::interval::{self, Interval, interval};
use super::relation::{WindowFunction, ZONE, no_offset};
use super::tail::{Tail, once};

/// The contents of a clause.
struct Clause {
    window: WindowFunction,
    /// In the order of the function's arguments.
    lengths: Vec<interval::Span>,
    zone: Option<String>,
    grace: Option<Interval>,
    /// The number of its tokens.
    len: usize,
    span: Span,
}

/// Rewrites every clause in `tokens`; a grace period is moved to the tail.
pub(super) fn desugar(tokens: &mut Vec<TokenWithSpan>, tail: &mut Tail, end: Place) -> Result<()> {
    let mut at = 0;
    while at < tokens.len() {
        let ahead = tokens.get(at..).unwrap_or_default();
        if kind(ahead).is_none() {
            at += 1;
            continue;
        }
        let clause = read(ahead, end)?;
        let place = place_of(clause.span);
        once(&mut tail.lateness, clause.grace, "ALLOW LATENESS", place)?;
        let target = target(tokens, at, clause.len, place)?;
        let marker = marker(&clause, &target);
        let insert_at = match target {
            Target::Extend(i) | Target::Create(i) => i,
        };
        tokens.splice(insert_at..insert_at, marker);
        tokens.drain(at..at + clause.len);
    }
    Ok(())
}

/// The kind of window of the clause that begins with these tokens, if one does.
fn kind(tokens: &[TokenWithSpan]) -> Option<WindowFunction> {
    let [window, kind, paren, ..] = tokens else { return None };
    if !is_word(&window.token, "WINDOW") || paren.token != Token::LParen {
        return None;
    }
    Some(match unquoted(&kind.token)?.to_ascii_uppercase().as_str() {
        "TUMBLING" => WindowFunction::Tumble,
        "HOPPING" | "SLIDING" => WindowFunction::Hop,
        "CUMULATING" => WindowFunction::Cumulate,
        "SESSION" => WindowFunction::Session,
        _ => return None,
    })
}

#[derive(Default)]
struct Parts {
    size: Option<interval::Span>,
    advance: Option<interval::Span>,
    offset: Option<interval::Span>,
    gap: Option<interval::Span>,
    zone: Option<String>,
    grace: Option<Interval>,
}

fn read(tokens: &[TokenWithSpan], end: Place) -> Result<Clause> {
    let mut cursor = Cursor::new(tokens, end);
    let span = tokens.first().map_or(Span::empty(), |t| t.span);
    let window = kind(tokens).ok_or_else(|| cursor.expected("a WINDOW clause"))?;
    cursor.advance();
    cursor.advance();
    let mut inner = cursor.parenthesized()?;
    let mut parts = Parts::default();
    loop {
        part(&mut inner, window, &mut parts)?;
        if !inner.eat_token(&Token::Comma) {
            break;
        }
    }
    if !inner.is_end() {
        return Err(inner.expected("\",\" or \")\""));
    }
    let lengths = lengths(window, &parts, place_of(span))?;
    let Parts { zone, grace, .. } = parts;
    Ok(Clause { window, lengths, zone, grace, len: cursor.position(), span })
}

fn part(inner: &mut Cursor<'_>, window: WindowFunction, parts: &mut Parts) -> Result<()> {
    let at = inner.place();
    let session = window == WindowFunction::Session;
    if inner.eat(&["GRACE", "PERIOD"]) {
        let grace = interval(inner, "the grace period")?;
        once(&mut parts.grace, Some(grace), "GRACE PERIOD", at)
    } else if session && inner.sees(&["OFFSET"]) {
        Err(no_offset(Some(at)))
    } else if session {
        let _optional = inner.eat(&["GAP"]);
        let gap = interval::span(inner, "the gap of the session")?;
        once(&mut parts.gap, Some(gap), "GAP", at)
    } else if inner.eat(&["SIZE"]) {
        if matches!(inner.peek(0), Token::Number(..)) && is_word(inner.peek(1), "ROWS") {
            return Err(counted_window().with_place(at));
        }
        once(&mut parts.size, Some(interval::span(inner, "the size of the window")?), "SIZE", at)
    } else if inner.eat(&["ADVANCE", "BY"]) && window != WindowFunction::Tumble {
        once(&mut parts.advance, Some(interval::span(inner, "the advance")?), "ADVANCE BY", at)
    } else if inner.eat(&["OFFSET"]) {
        once(&mut parts.offset, Some(interval::span(inner, "the offset")?), "OFFSET", at)
    } else if inner.eat(&["TIME", "ZONE"]) {
        once(&mut parts.zone, Some(literal(inner, "a time zone")?), "TIME ZONE", at)
    } else {
        let known = "SIZE, ADVANCE BY, OFFSET, TIME ZONE or GRACE PERIOD";
        Err(inner.expected(known).with_hint(usage(window)))
    }
}

fn usage(window: WindowFunction) -> &'static str {
    match window {
        WindowFunction::Tumble => "Write it as WINDOW TUMBLING (SIZE 1 MINUTE).",
        WindowFunction::Hop => "Write it as WINDOW HOPPING (SIZE 10 MINUTES, ADVANCE BY 1 MINUTE).",
        WindowFunction::Cumulate => {
            "Write it as WINDOW CUMULATING (SIZE 1 DAY, ADVANCE BY 1 HOUR)."
        }
        WindowFunction::Session => "Write it as WINDOW SESSION (5 MINUTES).",
    }
}

fn lengths(window: WindowFunction, parts: &Parts, place: Place) -> Result<Vec<interval::Span>> {
    let need = |part: Option<interval::Span>, name: &str| {
        let missing = || {
            Error::sql(format!("{name} is missing in the WINDOW clause"))
                .with_place(place)
                .with_hint(usage(window))
        };
        part.ok_or_else(missing)
    };
    let mut lengths = match window {
        WindowFunction::Tumble => vec![need(parts.size, "SIZE")?],
        WindowFunction::Session => vec![need(parts.gap, "GAP")?],
        WindowFunction::Hop | WindowFunction::Cumulate => {
            vec![need(parts.advance, "ADVANCE BY")?, need(parts.size, "SIZE")?]
        }
    };
    lengths.extend(parts.offset);
    Ok(lengths)
}

/// Where the marker goes: an index into the tokens, the clause included.
enum Target {
    /// Just after an existing GROUP BY.
    Extend(usize),
    /// Here, in a GROUP BY of its own.
    Create(usize),
}

fn target(tokens: &[TokenWithSpan], at: usize, len: usize, place: Place) -> Result<Target> {
    if grouped_before(tokens, at) {
        return Err(Error::sql("the WINDOW clause comes after GROUP BY")
            .with_place(place)
            .with_hint("Put it before GROUP BY, next to WHERE."));
    }
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(at + len) {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return Ok(Target::Create(i)),
            Token::RParen => depth -= 1,
            Token::Word(w) if depth == 0 => match w.keyword {
                Keyword::GROUP => return Ok(Target::Extend(i + 2)),
                Keyword::WINDOW if kind(tokens.get(i..).unwrap_or_default()).is_some() => {
                    return Err(Error::sql("a SELECT has two WINDOW clauses")
                        .with_place(place_of(token.span))
                        .with_hint("Keep one, or put the other into a subquery."));
                }
                keyword if ends_where(keyword) => return Ok(Target::Create(i)),
                _ => {}
            },
            _ => {}
        }
    }
    Ok(Target::Create(tokens.len()))
}

/// Whether the GROUP BY of the SELECT comes before the clause.
fn grouped_before(tokens: &[TokenWithSpan], at: usize) -> bool {
    let mut depth = 0_usize;
    for token in tokens.get(..at).unwrap_or_default().iter().rev() {
        match &token.token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => return false,
            Token::LParen => depth -= 1,
            Token::Word(w) if depth == 0 => match w.keyword {
                Keyword::GROUP => return true,
                Keyword::SELECT => return false,
                _ => {}
            },
            _ => {}
        }
    }
    false
}

/// Whether this keyword comes after the place of a GROUP BY.
fn ends_where(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::HAVING
            | Keyword::QUALIFY
            | Keyword::WINDOW
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::OFFSET
            | Keyword::FETCH
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::MINUS
            | Keyword::SORT
            | Keyword::CLUSTER
            | Keyword::DISTRIBUTE
    )
}

fn marker(clause: &Clause, target: &Target) -> Vec<TokenWithSpan> {
    let word = |value: String, keyword| Token::Word(Word { value, quote_style: None, keyword });
    let mut out = vec![];
    if matches!(target, Target::Create(_)) {
        out.push(word("GROUP".to_owned(), Keyword::GROUP));
        out.push(word("BY".to_owned(), Keyword::BY));
    }
    let name = format!("{CLAUSE_MARK}{}", clause.window.name());
    out.push(word(name, Keyword::NoKeyword));
    out.push(Token::LParen);
    for (i, length) in clause.lengths.iter().enumerate() {
        if i > 0 {
            out.push(Token::Comma);
        }
        out.push(word("INTERVAL".to_owned(), Keyword::INTERVAL));
        out.push(Token::SingleQuotedString(length.text()));
    }
    if let Some(zone) = &clause.zone {
        out.push(Token::Comma);
        out.push(word(ZONE.to_owned(), Keyword::NoKeyword));
        out.push(Token::RArrow);
        out.push(Token::SingleQuotedString(zone.clone()));
    }
    out.push(Token::RParen);
    if matches!(target, Target::Extend(_)) {
        out.push(Token::Comma);
    }
    out.into_iter().map(|token| TokenWithSpan { token, span: clause.span }).collect()
}
