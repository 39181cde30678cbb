//! A position in a slice of tokens, for the grammar of our own.
//!
//! Invariant: the tokens include no white space and no comments; places are those of the whole submission.

use sqlparser::ast::{Ident, ObjectName};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use windrow_core::{Error, Place, Result};

/// The place of a span.
pub(super) fn place_of(span: Span) -> Place {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let (line, column) = (at(span.start.line), at(span.start.column));
    let (end_line, end_column) = (at(span.end.line), at(span.end.column));
    let end_column = if end_line == line { end_column.max(column + 1) } else { end_column };
    Place { line, column, end_line, end_column }
}

/// The place from the beginning of one to the end of another.
pub(super) fn spanning(from: Place, to: Place) -> Place {
    Place { end_line: to.end_line, end_column: to.end_column, ..from }
}

/// Whether the token is this word without quotes, in any case.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    unquoted(token).is_some_and(|w| w.eq_ignore_ascii_case(word))
}

/// The token as a word, if it is one without quotes.
pub(super) fn unquoted(token: &Token) -> Option<&str> {
    match token {
        Token::Word(w) if w.quote_style.is_none() => Some(&w.value),
        _ => None,
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
    end: Place,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first of `tokens`; `end` is the place to report when something is missing at the end.
    pub(super) fn new(tokens: &'a [TokenWithSpan], end: Place) -> Self {
        Self { tokens, at: 0, end }
    }

    /// The number of tokens before the cursor.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The tokens that are left.
    pub(super) fn rest(&self) -> &'a [TokenWithSpan] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    /// The token `n` after the next one.
    pub(super) fn peek(&self, n: usize) -> &'a Token {
        self.tokens.get(self.at + n).map_or(&Token::EOF, |t| &t.token)
    }

    /// Whether no tokens are left.
    pub(super) fn is_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The place of the next token.
    pub(super) fn place(&self) -> Place {
        self.tokens.get(self.at).map_or(self.end, |t| place_of(t.span))
    }

    /// The place after the last token.
    pub(super) fn end(&self) -> Place {
        self.end
    }

    /// The place of the token before the cursor.
    pub(super) fn place_before(&self) -> Place {
        let before = self.at.checked_sub(1).and_then(|i| self.tokens.get(i));
        before.map_or_else(|| self.place(), |t| place_of(t.span))
    }

    /// Takes the next token.
    pub(super) fn advance(&mut self) -> &'a Token {
        let token = self.peek(0);
        self.at = (self.at + 1).min(self.tokens.len());
        token
    }

    /// Whether these words are next.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, w)| is_word(self.peek(i), w))
    }

    /// Takes these words if they are next; returns whether they were.
    pub(super) fn eat(&mut self, words: &[&str]) -> bool {
        let seen = self.sees(words);
        if seen {
            self.at += words.len();
        }
        seen
    }

    /// Takes this token if it is next; returns whether it was.
    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        let seen = self.peek(0) == token;
        if seen {
            self.at += 1;
        }
        seen
    }

    /// Takes these words, or fails if they are not next.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        if self.eat(words) { Ok(()) } else { Err(self.expected(&words.join(" "))) }
    }

    /// Takes this token, or fails if it is not next.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.expected(&token.to_string())) }
    }

    /// Fails if any tokens are left.
    pub(super) fn expect_end(&self) -> Result<()> {
        if self.is_end() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// Takes an identifier; `what` names it in the error.
    pub(super) fn identifier(&mut self, what: &str) -> Result<Ident> {
        match self.tokens.get(self.at) {
            Some(TokenWithSpan { token: Token::Word(w), span }) => {
                self.at += 1;
                Ok(w.to_ident(*span))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Takes a name with dots; `what` names it in the error.
    pub(super) fn name(&mut self, what: &str) -> Result<ObjectName> {
        let mut parts = vec![self.identifier(what)?];
        while self.eat_token(&Token::Period) {
            parts.push(self.identifier(what)?);
        }
        Ok(ObjectName::from(parts))
    }

    /// Takes the parenthesis that is next and its partner; returns the tokens between them.
    pub(super) fn parenthesized(&mut self) -> Result<Cursor<'a>> {
        let open = self.place();
        self.expect_token(&Token::LParen)?;
        let (first, mut depth) = (self.at, 1_usize);
        while depth > 0 {
            match self.tokens.get(self.at).map(|t| &t.token) {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth -= 1,
                Some(_) => {}
                None => return Err(Error::sql("this \"(\" is never closed").with_place(open)),
            }
            self.at += 1;
        }
        let inner = self.tokens.get(first..self.at - 1).unwrap_or_default();
        Ok(Cursor::new(inner, self.place_before()))
    }

    /// The error "expected …, found …" at the next token.
    pub(super) fn expected(&self, what: &str) -> Error {
        let found = match self.peek(0) {
            Token::EOF => "the end of the statement".to_owned(),
            token => format!("\"{token}\""),
        };
        Error::sql(format!("expected {what}, found {found}")).with_place(self.place())
    }
}

/// The span of a place, for what is generated in place of the user's text.
pub(super) fn span_of(place: Place) -> Span {
    let at = |line: usize, column: usize| Location { line: line as u64, column: column as u64 };
    Span::new(at(place.line, place.column), at(place.end_line, place.end_column))
}
