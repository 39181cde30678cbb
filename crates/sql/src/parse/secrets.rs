//! Statements as they are shown: without the secrets in their options.

use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::dialect::DIALECT;

/// Returns the text of a statement with `***` for the values of options that are secret.
pub fn masked(text: &str, is_secret: impl Fn(&str) -> bool) -> String {
    let Ok(tokens) = Tokenizer::new(&DIALECT, text).tokenize_with_location() else {
        return "(a statement that cannot be read)".to_owned();
    };
    let tokens: Vec<&TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let mut shown = String::with_capacity(text.len());
    let mut rest = 0;
    for (at, token) in tokens.iter().enumerate() {
        let (true, Some(value)) = (token.token == Token::Eq, tokens.get(at + 1)) else { continue };
        let is_text = !matches!(value.token, Token::Word(_) | Token::Number(..) | Token::EOF);
        let key = key_before(tokens.get(..at).unwrap_or_default());
        if !is_text || !is_secret(&key) {
            continue;
        }
        let (start, end) = (position(text, value.span.start), position(text, value.span.end));
        shown.push_str(text.get(rest..start).unwrap_or_default());
        shown.push_str("'***'");
        rest = end;
    }
    shown.push_str(text.get(rest..).unwrap_or_default());
    shown
}

/// The name of an option that ends these tokens: words with points between them, or a text.
fn key_before(tokens: &[&TokenWithSpan]) -> String {
    let mut parts: Vec<&str> = vec![];
    for token in tokens.iter().rev() {
        parts.push(match &token.token {
            Token::Word(word) => &word.value,
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text,
            Token::Period => ".",
            _ => break,
        });
    }
    parts.reverse();
    parts.concat()
}

/// The position in bytes of a line and column.
fn position(text: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (position, char) in text.char_indices() {
        if (line, column) == (at.line, at.column) {
            return position;
        }
        if char == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = "CREATE STREAM s (a INT) -- password = 'x'\nWITH (connector = 'kafka', sasl.password = 'hü''sh',\n \
                    'ssl.key.pem' = 'k', \"sasl.password2\"='', note = 'password', topic = 't')";
        let is_secret = |key: &str| key.contains("password") || key == "ssl.key.pem";
        assert_eq!(
            masked(text, is_secret),
            "CREATE STREAM s (a INT) -- password = 'x'\nWITH (connector = 'kafka', sasl.password = '***',\n \
             'ssl.key.pem' = '***', \"sasl.password2\"='***', note = 'password', topic = 't')"
        );
        assert_eq!(masked("WITH (a = 'b')", |_| false), "WITH (a = 'b')");
    }
}
