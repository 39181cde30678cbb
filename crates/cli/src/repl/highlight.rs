//! SQL in colours.

use windrow_sql::parse::{Piece, spans};

use super::keywords::is_keyword;
use crate::style::{PLAIN, Paint};

/// Longer texts (something pasted) are not coloured, so that typing stays responsive.
const BYTES_MAX: usize = 16 << 10;

/// Returns `sql` from byte `from` on, with colours; its width does not change.
pub(super) fn highlighted_from(sql: &str, from: usize) -> Option<String> {
    if sql.len() > BYTES_MAX {
        return None;
    }
    let spans = spans(sql);
    let mut out = String::with_capacity(sql.len() * 2);
    let mut end = from;
    for (at, span) in spans.iter().enumerate() {
        if span.bytes.end <= from {
            continue;
        }
        let start = span.bytes.start.max(from);
        let text = sql.get(start..span.bytes.end)?;
        let next = spans.get(at + 1).and_then(|s| sql.get(s.bytes.clone()));
        let paint = match span.piece {
            Piece::Word if is_keyword(text) => Some(Paint::Keyword),
            Piece::Word if next == Some("(") => Some(Paint::Function),
            Piece::Word | Piece::Sign => None,
            Piece::QuotedName => Some(Paint::Name),
            Piece::Text => Some(Paint::Text),
            Piece::Number => Some(Paint::Number),
            Piece::Comment => Some(Paint::Dim),
        };
        out.push_str(sql.get(end..start)?);
        match paint {
            Some(paint) => out.extend([paint.on(), text, PLAIN]),
            None => out.push_str(text),
        }
        end = span.bytes.end;
    }
    out.push_str(sql.get(end..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highlighted(sql: &str) -> Option<String> {
        highlighted_from(sql, 0)
    }

    #[test]
    fn a_line_is_coloured_by_what_is_before_it() {
        let sql = "SELECT 'a\nselect', 1";
        let from = sql.find('\n').unwrap() + 1;
        let line = highlighted_from(sql, from).unwrap();
        assert_eq!(line, "\x1b[32mselect'\x1b[0m, \x1b[33m1\x1b[0m");
        assert_eq!(highlighted_from(sql, sql.len()).unwrap(), "");
    }

    #[test]
    fn each_piece_has_its_colour() {
        assert_eq!(
            highlighted("select count(x), 'a' -- b").unwrap(),
            "\x1b[1;34mselect\x1b[0m \x1b[36mcount\x1b[0m(x), \x1b[32m'a'\x1b[0m \x1b[90m-- b\x1b[0m"
        );
        assert_eq!(highlighted("\"A\" 1").unwrap(), "\x1b[35m\"A\"\x1b[0m \x1b[33m1\x1b[0m");
    }

    #[test]
    fn nothing_is_lost_on_the_way() {
        for sql in ["", " é 'x", "SELECT\n1;\n", "/* a", "a.b", "\"", "$1 ? @ \u{0}"] {
            let mut plain = highlighted(sql).unwrap();
            for code in
                ["\x1b[1;34m", "\x1b[36m", "\x1b[32m", "\x1b[33m", "\x1b[35m", "\x1b[90m", PLAIN]
            {
                plain = plain.replace(code, "");
            }
            assert_eq!(plain, sql);
        }
    }
}
