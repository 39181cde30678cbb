//! The tail of a continuous query: how it emits and what happens to late rows.
//!
//! It is cut off the tokens before the query is parsed, because the parser would otherwise read the `EMIT` of
//! `FROM t EMIT CHANGES` as an alias. Only words outside all parentheses count, and only where an expression or a
//! relation has just ended, so that `emit` can still be a name.

use std::borrow::Cow;

use sqlparser::ast::ObjectName;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, is_word, spanning};
use super::interval::{Interval, interval};
use super::lex::room_for_copy;

/// When a continuous query emits, and what it does with late rows. All absent: a bounded query, or the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// When results are emitted.
    pub emit: Option<Emit>,
    /// How long after its end a window still accepts rows.
    pub lateness: Option<Interval>,
    /// The table for rows that come later than that.
    pub late_data_to: Option<ObjectName>,
    /// How long a window waits before it closes.
    pub delay: Option<Interval>,
    /// How long, by the wall clock, no rows may arrive before windows close anyway.
    pub timeout: Option<Interval>,
    /// The place of the tail; `None` without one.
    pub place: Option<Place>,
}

impl Tail {
    /// Whether there is no tail.
    pub fn is_empty(&self) -> bool {
        self.emit.is_none()
            && self.lateness.is_none()
            && self.late_data_to.is_none()
            && self.delay.is_none()
            && self.timeout.is_none()
    }
}

/// When results are emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Once, when the window closes: `ON WINDOW CLOSE`, `FINAL`, `AFTER WINDOW CLOSE`,
    /// `AFTER WATERMARK`.
    OnWindowClose,
    /// Every change, as it happens.
    Changes,
    /// On every update of a row, at most once per `batch`.
    OnUpdate {
        /// `WITH BATCH interval`.
        batch: Option<Interval>,
    },
    /// The state so far, at an interval: `EVERY`, `PERIODIC`.
    Every(Interval),
}

/// The forms of EMIT, for hints.
pub(super) const EMIT_FORMS: &str = "EMIT takes ON WINDOW CLOSE (or FINAL), CHANGES, ON UPDATE, \
     or EVERY <interval>.";

/// Splits the tokens of a statement into those before the tail, and the tail. A LIMIT after the tail, as in ksqlDB, is
/// moved before it.
pub(super) fn cut(
    tokens: &[TokenWithSpan],
    end: Place,
) -> Result<(Cow<'_, [TokenWithSpan]>, Tail)> {
    let Some(start) = find(tokens) else { return Ok((tokens.into(), Tail::default())) };
    let (before, after) = tokens.split_at(start);
    let mut tail = Tail::default();
    let mut cursor = Cursor::new(after, end);
    while !cursor.is_end() {
        if cursor.sees(&["LIMIT"]) {
            room_for_copy(tokens)?;
            return Ok(([before, cursor.rest()].concat().into(), tail));
        }
        if !item(&mut cursor, &mut tail)? {
            return Err(cursor
                .expected("the end of the statement or another part of the tail")
                .with_hint("EMIT and lateness come last, before or after LIMIT."));
        }
    }
    Ok((before.into(), tail))
}

/// Reads the items that are next, such as those between the name of a view and `AS`.
pub(super) fn items(cursor: &mut Cursor<'_>, tail: &mut Tail) -> Result<()> {
    while begins(cursor.rest()) && item(cursor, tail)? {}
    Ok(())
}

/// Merges the items before `AS` with those at the end.
pub(super) fn merge(into: &mut Tail, other: Tail) -> Result<()> {
    let place = other.place;
    let at = place.unwrap_or(Place::at(1, 1));
    once(&mut into.emit, other.emit, "EMIT", at)?;
    once(&mut into.lateness, other.lateness, "ALLOW LATENESS", at)?;
    once(&mut into.late_data_to, other.late_data_to, "LATE DATA TO", at)?;
    once(&mut into.delay, other.delay, "WITH DELAY", at)?;
    once(&mut into.timeout, other.timeout, "TIMEOUT", at)?;
    into.place = into.place.or(place);
    Ok(())
}

/// Sets a slot that may be set once.
pub(super) fn once<T>(slot: &mut Option<T>, value: Option<T>, what: &str, at: Place) -> Result<()> {
    if value.is_none() {
        return Ok(());
    }
    if slot.is_some() {
        return Err(Error::sql(format!("{what} is given twice"))
            .with_place(at)
            .with_hint("Each part of the tail may be given once; remove one."));
    }
    *slot = value;
    Ok(())
}

fn find(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(w) if depth == 0 && w.quote_style.is_none() => {
                let before = i.checked_sub(1).and_then(|b| tokens.get(b));
                let rest = tokens.get(i..).unwrap_or_default();
                if begins(rest) && before.is_none_or(|t| ends_something(&t.token)) {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a tail could begin with these tokens.
fn begins(tokens: &[TokenWithSpan]) -> bool {
    let word = |i: usize, w: &str| tokens.get(i).is_some_and(|t| is_word(&t.token, w));
    if word(0, "EMIT") {
        return ["FINAL", "CHANGES", "EVERY", "PERIODIC", "AFTER"].iter().any(|w| word(1, w))
            || word(1, "ON") && (word(2, "WINDOW") || word(2, "UPDATE"));
    }
    word(0, "ALLOW") && word(1, "LATENESS")
        || word(0, "GRACE") && word(1, "PERIOD")
        || word(0, "LATE") && word(1, "DATA") && word(2, "TO")
}

/// Whether an expression, a relation or a name can end with this token, so that `emit` after it is not itself a
/// column.
fn ends_something(token: &Token) -> bool {
    match token {
        Token::Word(w) if w.quote_style.is_none() => !matches!(
            w.keyword,
            Keyword::SELECT
                | Keyword::DISTINCT
                | Keyword::WHERE
                | Keyword::BY
                | Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::ON
                | Keyword::HAVING
                | Keyword::QUALIFY
                | Keyword::AS
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE
                | Keyword::BETWEEN
                | Keyword::LIKE
                | Keyword::IN
                | Keyword::FROM
                | Keyword::JOIN
                | Keyword::INTO
                | Keyword::USING
        ),
        Token::Word(_)
        | Token::RParen
        | Token::RBracket
        | Token::RBrace
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Mul
        | Token::Placeholder(_) => true,
        _ => false,
    }
}

/// One item; `false` when none is next.
fn item(cursor: &mut Cursor<'_>, tail: &mut Tail) -> Result<bool> {
    let at = cursor.place();
    if cursor.eat(&["EMIT"]) {
        once(&mut tail.emit, Some(emit(cursor)?), "EMIT", at)?;
    } else if cursor.eat(&["ALLOW", "LATENESS"]) || cursor.eat(&["GRACE", "PERIOD"]) {
        let lateness = interval(cursor, "the lateness")?;
        once(&mut tail.lateness, Some(lateness), "ALLOW LATENESS", at)?;
    } else if cursor.eat(&["LATE", "DATA", "TO"]) {
        let name = cursor.name("the name of a table")?;
        once(&mut tail.late_data_to, Some(name), "LATE DATA TO", at)?;
    } else if cursor.eat(&["WITH", "DELAY"]) {
        let delay = interval(cursor, "the delay")?;
        once(&mut tail.delay, Some(delay), "WITH DELAY", at)?;
    } else if cursor.eat(&["AND", "TIMEOUT"]) || cursor.eat(&["TIMEOUT"]) {
        let timeout = interval(cursor, "the timeout")?.positive("the timeout")?;
        once(&mut tail.timeout, Some(timeout), "TIMEOUT", at)?;
    } else {
        return Ok(false);
    }
    let here = spanning(at, cursor.place_before());
    tail.place = Some(tail.place.map_or(here, |p| spanning(p, here)));
    Ok(true)
}

fn emit(cursor: &mut Cursor<'_>) -> Result<Emit> {
    let on_close = [
        &["ON", "WINDOW", "CLOSE"][..],
        &["AFTER", "WINDOW", "CLOSE"],
        &["AFTER", "WATERMARK"],
        &["FINAL"],
    ];
    if on_close.iter().any(|words| cursor.eat(words)) {
        Ok(Emit::OnWindowClose)
    } else if cursor.eat(&["CHANGES"]) {
        Ok(Emit::Changes)
    } else if cursor.eat(&["ON", "UPDATE"]) {
        let batch = cursor.eat(&["WITH", "BATCH"]);
        let batch = if batch { Some(interval(cursor, "the batch interval")?) } else { None };
        Ok(Emit::OnUpdate { batch })
    } else if cursor.eat(&["EVERY"]) || cursor.eat(&["PERIODIC"]) {
        Ok(Emit::Every(interval(cursor, "the emit interval")?.positive("the emit interval")?))
    } else {
        Err(cursor.expected("an emit mode").with_hint(EMIT_FORMS))
    }
}
