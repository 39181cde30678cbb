//! `CREATE EXTERNAL TABLE … WITH (option = 'value', …)`: options as those of a stream. The parser underneath knows
//! `OPTIONS ('option' 'value', …)` alone, so WITH is cut off its tokens; both may be there.

use sqlparser::ast::Value;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Place, Result};

use super::cursor::Cursor;
use super::ddl::options_of;
use super::lex::room_for_copy;

/// The tokens without the options, and the options, as the parser underneath has them.
type Cut = (Vec<TokenWithSpan>, Vec<(String, Value)>);

/// Cuts the options of WITH off the tokens of a statement; `None`: it is no external table, or has none.
pub(super) fn cut_options(tokens: &[TokenWithSpan], end: Place) -> Result<Option<Cut>> {
    let mut cursor = Cursor::new(tokens, end);
    cursor.eat(&["CREATE"]);
    cursor.eat(&["OR", "REPLACE"]);
    if !cursor.eat(&["EXTERNAL", "TABLE"]) {
        return Ok(None);
    }
    while !cursor.is_end() {
        if cursor.peek(0) == &Token::LParen {
            cursor.parenthesized()?;
        } else if cursor.sees(&["WITH"]) && cursor.peek(1) == &Token::LParen {
            let before = tokens.get(..cursor.position()).unwrap_or_default();
            cursor.advance();
            let options = options_of(&mut cursor)?;
            room_for_copy(tokens)?;
            let value = |text: String| Value::SingleQuotedString(text);
            let options = options.into_iter().map(|o| (o.key, value(o.value))).collect();
            return Ok(Some(([before, cursor.rest()].concat(), options)));
        } else {
            cursor.advance();
        }
    }
    Ok(None)
}
