//! Splits text into the tokens of its statements: one pass over the whole submission, so that the places in errors
//! refer to it, split at `;`.
//!
//! Invariants: a token list has no white space; the nesting of parentheses and the length of operator chains are
//! limited, so that the trees made of them can be walked and dropped on any thread's stack.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use windrow_core::{Error, Place, Result, budget};

use super::cursor::place_of;
use super::dialect::DIALECT;
use super::placeholder;
use crate::diagnostics::lower_first;

/// The greatest depth of parentheses and CASE.
pub(super) const DEPTH_MAX: usize = 60;
/// The most operators of one precedence, or joins, in a chain. Each adds a level to the expression's tree, and trees
/// are dropped recursively.
pub(super) const CHAIN_MAX: usize = 1_000;
/// The most set operations in a chain, including those in parentheses inside it. Each adds a level to the plan, and the
/// levels of a plan need far more stack than those of an expression.
pub(super) const SETS_MAX: usize = 200;

/// The most open parentheses that sqlparser parses twice; each doubles its work. It tries a subquery before a join in
/// parentheses, and CAST and the like before a plain function.
const DOUBLE_MAX: usize = 10;

/// The tokens of one statement.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    /// Its own text.
    pub(super) text: &'a str,
    /// Its tokens; never empty.
    pub(super) tokens: Vec<TokenWithSpan>,
    /// The place just after its last character.
    pub(super) end: Place,
}

/// Splits `sql` into statements; empty ones are left out.
pub(super) fn split(sql: &str) -> Result<Vec<Piece<'_>>> {
    // The vector of tokens grows by doubling, so two of them exist for a moment.
    budget::check(count_at_most(sql).saturating_mul(3 * size_of::<TokenWithSpan>()))?;
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|e| {
        let Location { line, column } = e.location;
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        Error::sql(lower_first(e.message.trim())).with_place(Place::at(at(line), at(column)))
    })?;
    let mut positions = Positions::new(sql);
    let mut pieces = vec![];
    let mut current = vec![];
    for token in tokens {
        match token.token {
            Token::SemiColon => finish(&mut pieces, &mut current, &mut positions)?,
            Token::Whitespace(_) | Token::EOF => {}
            _ => current.push(token),
        }
    }
    finish(&mut pieces, &mut current, &mut positions)?;
    Ok(pieces)
}

/// Checks that the statement may hold another copy of these tokens.
///
/// # Errors
/// When it may not, or has been cancelled.
pub(super) fn room_for_copy(tokens: &[TokenWithSpan]) -> Result<()> {
    Ok(budget::check(size_of_val(tokens))?)
}

/// An upper bound of the number of tokens in a text. Quoted text counts as one.
fn count_at_most(sql: &str) -> usize {
    let mut bytes = sql.bytes().peekable();
    let (mut tokens, mut within_word) = (0, false);
    while let Some(byte) = bytes.next() {
        let is_word = byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
        tokens += usize::from(!(is_word && within_word));
        within_word = is_word;
        match byte {
            // A doubled quote ends one token here and begins another.
            b'\'' | b'"' => drop(bytes.find(|b| *b == byte)),
            b'-' if bytes.peek() == Some(&b'-') => drop(bytes.find(|b| *b == b'\n')),
            _ => {}
        }
    }
    tokens
}

/// Whether a prompt can submit `sql`: it ends with `;`, or it is empty.
///
/// Text that cannot be tokenized counts as complete, so that its error is shown; an open string, quoted name or comment
/// does not.
pub fn is_complete(sql: &str) -> bool {
    match Tokenizer::new(&DIALECT, sql).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rev().find(|t| !matches!(t, Token::Whitespace(_)));
            last.is_none_or(|t| *t == Token::SemiColon)
        }
        Err(e) => {
            let message = e.message.to_lowercase();
            !["unterminated", "unexpected eof", "expected close delimiter", "before eof"]
                .iter()
                .any(|m| message.contains(m))
        }
    }
}

fn finish<'a>(
    pieces: &mut Vec<Piece<'a>>,
    current: &mut Vec<TokenWithSpan>,
    positions: &mut Positions<'a>,
) -> Result<()> {
    let mut tokens = std::mem::take(current);
    placeholder::number(&mut tokens)?;
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Ok(()) };
    let start = positions.seek(first.span.start);
    let stop = positions.seek(last.span.end);
    let text = positions.text.get(start..stop).unwrap_or_default();
    let last = place_of(last.span);
    guard(&tokens)?;
    pieces.push(Piece { text, tokens, end: Place::at(last.end_line, last.end_column) });
    Ok(())
}

/// Finds bytes by line and column. It only moves forward, so that a long text is read once.
pub(super) struct Positions<'a> {
    text: &'a str,
    byte: usize,
    line: u64,
    column: u64,
}

impl<'a> Positions<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, byte: 0, line: 1, column: 1 }
    }

    /// The byte at `to`, which is not before that of the previous call.
    pub(super) fn seek(&mut self, to: Location) -> usize {
        for c in self.text.get(self.byte..).unwrap_or_default().chars() {
            if (self.line, self.column) >= (to.line, to.column) {
                break;
            }
            self.byte += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.byte
    }
}

/// The chains at one depth of parentheses.
#[derive(Default, Clone, Copy)]
struct Chains {
    sets: usize,
    /// The greatest depth of set operations in any parentheses so far.
    sets_within: usize,
    /// The CASEs without END so far.
    cases: usize,
    joins: usize,
    ors: usize,
    ands: usize,
    others: usize,
    doubled: bool,
}

impl Chains {
    /// The chains in another branch of the set operations, in the same parentheses.
    fn branch(self) -> Self {
        let Self { sets, sets_within, cases, doubled, .. } = self;
        Self { sets, sets_within, cases, doubled, ..Self::default() }
    }

    /// The chains in another expression of the same branch.
    fn expression(self) -> Self {
        Self { joins: self.joins, ..self.branch() }
    }

    /// The depth of set operations.
    fn sets_deep(self) -> usize {
        self.sets + self.sets_within
    }
}

/// Whether the parenthesis at `i` belongs to a word that is parsed as syntax first, and as the name of a function if
/// that fails.
fn tried_twice(tokens: &[TokenWithSpan], i: usize) -> bool {
    let before = i.checked_sub(1).and_then(|b| tokens.get(b)).map(|t| &t.token);
    let Some(Token::Word(w)) = before else { return false };
    matches!(
        w.keyword,
        Keyword::CAST
            | Keyword::TRY_CAST
            | Keyword::SAFE_CAST
            | Keyword::CONVERT
            | Keyword::TRY_CONVERT
            | Keyword::CURRENT_DATE
            | Keyword::CURRENT_TIME
            | Keyword::CURRENT_TIMESTAMP
            | Keyword::LOCALTIME
            | Keyword::LOCALTIMESTAMP
            | Keyword::VALUES
            | Keyword::EXTRACT
            | Keyword::SUBSTR
            | Keyword::SUBSTRING
            | Keyword::TRIM
            | Keyword::POSITION
            | Keyword::OVERLAY
            | Keyword::CEIL
            | Keyword::FLOOR
            | Keyword::EXISTS
            | Keyword::INTERVAL
            | Keyword::ARRAY
            | Keyword::STRUCT
            | Keyword::MAP
    )
}

/// Whether two parentheses open just before token `i`.
fn doubly_open(tokens: &[TokenWithSpan], i: usize) -> bool {
    let opens = |back: usize| {
        let token = i.checked_sub(back).and_then(|i| tokens.get(i));
        token.is_some_and(|t| t.token == Token::LParen)
    };
    opens(1) && opens(2)
}

/// Refuses what would make a tree too deep, or the parser too slow.
fn guard(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut open: Vec<Chains> = vec![];
    let mut chains = Chains::default();
    let mut doubles = 0_usize;
    let mut cases = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // A subscript or a call extends the chain that it is in: a[1][1][1] …
                chains.others += usize::from(token.token == Token::LBracket);
                open.push(chains);
                chains = Chains { doubled: tried_twice(tokens, i), ..Chains::default() };
                doubles += usize::from(chains.doubled);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                doubles = doubles.saturating_sub(usize::from(chains.doubled));
                cases = cases.saturating_sub(chains.cases);
                let within = chains.sets_deep();
                chains = open.pop().unwrap_or_default();
                chains.sets_within = chains.sets_within.max(within);
            }
            Token::Comma => chains = chains.expression(),
            // A word after a period is the name of a column.
            Token::Word(_) if i.checked_sub(1).is_some_and(|b| is_period(tokens, b)) => {}
            Token::Word(w) => {
                match w.keyword {
                    Keyword::CASE => {
                        chains.cases += 1;
                        cases += 1;
                    }
                    Keyword::END if chains.cases > 0 => {
                        chains.cases -= 1;
                        cases = cases.saturating_sub(1);
                    }
                    Keyword::SELECT if !chains.doubled && doubly_open(tokens, i) => {
                        chains.doubled = true;
                        doubles += 1;
                    }
                    _ => {}
                }
                word(&mut chains, w.keyword);
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::Period
            | Token::Placeholder(_) => {}
            _ => chains.others += 1,
        }
        if open.len() + cases > DEPTH_MAX || doubles > DOUBLE_MAX {
            return Err(too_deep(place_of(token.span)));
        }
        too_long(&chains, place_of(token.span))?;
    }
    Ok(())
}

fn is_period(tokens: &[TokenWithSpan], i: usize) -> bool {
    tokens.get(i).is_some_and(|t| t.token == Token::Period)
}

/// Refuses chains above the limits.
fn too_long(chains: &Chains, place: Place) -> Result<()> {
    let Chains { joins, ors, ands, others, .. } = *chains;
    if chains.sets_deep() > SETS_MAX {
        return Err(Error::sql(format!("more than {SETS_MAX} set operations in one chain"))
            .with_place(place)
            .with_hint(
                "Split the statement, for instance into several INSERTs, or write constant rows \
                 as VALUES.",
            ));
    }
    if [joins, ors, ands, others].into_iter().any(|n| n > CHAIN_MAX) {
        return Err(Error::sql(format!("more than {CHAIN_MAX} operators in one chain"))
            .with_place(place)
            .with_hint("Write a long chain of OR as IN (…)."));
    }
    Ok(())
}

fn word(chains: &mut Chains, keyword: Keyword) {
    match keyword {
        Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => {
            *chains = Chains { sets: chains.sets + 1, ..chains.branch() };
        }
        Keyword::SELECT => *chains = chains.branch(),
        Keyword::JOIN => {
            *chains = Chains { joins: chains.joins + 1, ..chains.expression() };
        }
        Keyword::FROM
        | Keyword::WHERE
        | Keyword::ON
        | Keyword::WHEN
        | Keyword::THEN
        | Keyword::ELSE => *chains = chains.expression(),
        Keyword::OR | Keyword::XOR => {
            *chains = Chains { ors: chains.ors + 1, ands: 0, others: 0, ..*chains };
        }
        Keyword::AND => *chains = Chains { ands: chains.ands + 1, others: 0, ..*chains },
        Keyword::NOT
        | Keyword::IS
        | Keyword::LIKE
        | Keyword::ILIKE
        | Keyword::COLLATE
        | Keyword::AT => {
            chains.others += 1;
        }
        _ => {}
    }
}

fn too_deep(place: Place) -> Error {
    Error::sql("the statement nests too deeply")
        .with_place(place)
        .with_hint("Name inner queries with WITH, or split the statement into views.")
}
