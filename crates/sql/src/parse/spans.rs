//! The pieces of a text, for highlighting and completion. Works on text that is still being typed: an open string or
//! comment is a piece.

use std::ops::Range;

use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::dialect::DIALECT;
use super::lex::Positions;

/// The kind of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A word without quotes: a keyword or a name.
    Word,
    /// A name in quotes.
    QuotedName,
    /// A string.
    Text,
    /// A number.
    Number,
    /// A comment.
    Comment,
    /// An operator, a parenthesis, a comma.
    Sign,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its kind.
    pub piece: Piece,
    /// Its range in bytes.
    pub bytes: Range<usize>,
    /// Whether its end has not been typed yet.
    pub open: bool,
}

/// The pieces of `sql`, in order, without white space.
pub fn spans(sql: &str) -> Vec<Span> {
    let mut tokens = vec![];
    // What cannot be tokenized is the open rest.
    let read = Tokenizer::new(&DIALECT, sql).tokenize_with_location_into_buf(&mut tokens).is_ok();
    let mut positions = Positions::new(sql);
    let mut spans = vec![];
    let mut end = 0;
    for token in tokens {
        let start = positions.seek(token.span.start);
        end = positions.seek(token.span.end);
        let piece = match token.token {
            Token::EOF => continue,
            Token::Whitespace(
                Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_),
            ) => Piece::Comment,
            Token::Whitespace(_) => continue,
            Token::Word(word) if word.quote_style.is_some() => Piece::QuotedName,
            Token::Word(_) => Piece::Word,
            Token::Number(..) => Piece::Number,
            Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_) => Piece::Text,
            _ => Piece::Sign,
        };
        spans.push(Span { piece, bytes: start..end, open: false });
    }
    if !read {
        let rest = sql.get(end..).unwrap_or_default();
        let start = end + (rest.len() - rest.trim_start().len());
        let piece = match rest.trim_start().chars().next() {
            Some('/') => Piece::Comment,
            Some('"' | '`') => Piece::QuotedName,
            _ => Piece::Text,
        };
        if start < sql.len() {
            spans.push(Span { piece, bytes: start..sql.len(), open: true });
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(sql: &str) -> Vec<(Piece, &str)> {
        spans(sql).into_iter().map(|s| (s.piece, &sql[s.bytes])).collect()
    }

    #[test]
    fn every_piece_is_found() {
        assert_eq!(
            pieces("SELECT \"Ä\", 1.5e3 -- n\n, 'é''' /* c */;"),
            [
                (Piece::Word, "SELECT"),
                (Piece::QuotedName, "\"Ä\""),
                (Piece::Sign, ","),
                (Piece::Number, "1.5e3"),
                (Piece::Comment, "-- n\n"),
                (Piece::Sign, ","),
                (Piece::Text, "'é'''"),
                (Piece::Comment, "/* c */"),
                (Piece::Sign, ";"),
            ]
        );
    }

    #[test]
    fn what_is_open_is_told() {
        for (sql, piece, rest) in [
            ("SELECT 'a b", Piece::Text, "'a b"),
            ("SELECT\n /* a", Piece::Comment, "/* a"),
            ("SELECT \"a", Piece::QuotedName, "\"a"),
            ("SELECT $$a", Piece::Text, "$$a"),
        ] {
            let spans = spans(sql);
            let last = spans.last().unwrap();
            assert!(
                last.open && last.piece == piece && &sql[last.bytes.clone()] == rest,
                "{spans:?}"
            );
        }
        assert_eq!(spans(""), []);
    }
}
