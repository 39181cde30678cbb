//! Parameters: JDBC-style clients write `?`, the underlying engine reads `$1`.
//!
//! A `?` in a string, a comment or a quoted name is not a token of its own and is left alone, and so is one in a
//! pattern.

use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Result};

use super::cursor::place_of;
use super::row_pattern::opens_pattern;

/// The most parameters of a statement.
const PARAMETERS_MAX: usize = 10_000;

/// Replaces the `?` of a statement by `$1`, `$2`, … in their order.
///
/// # Errors
/// When a statement has both forms, or a parameter has neither.
pub(super) fn number(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let (mut marks, mut numbered) = (0_usize, false);
    // The depth in the parentheses of a pattern.
    let mut depth = 0_usize;
    for at in 0..tokens.len() {
        let (before, rest) = tokens.split_at_mut(at);
        let Some(token) = rest.first_mut() else { break };
        match &token.token {
            Token::LParen if depth > 0 || opens_pattern(before) => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        let place = place_of(token.span);
        let Token::Placeholder(text) = &mut token.token else { continue };
        if depth > 0 {
            continue;
        }
        if text == "?" {
            marks += 1;
            *text = format!("${marks}");
        } else {
            let number = text.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
            if number.is_none_or(|n| n == 0 || n > PARAMETERS_MAX) {
                return Err(Error::sql(format!("\"{text}\" is not a parameter"))
                    .with_place(place)
                    .with_hint("Write ?, or $1, $2 and so on."));
            }
            numbered = true;
        }
        if marks > 0 && numbered {
            return Err(Error::sql("the statement has both ? and $1")
                .with_place(place)
                .with_hint("Write all parameters in one way."));
        }
        if marks > PARAMETERS_MAX {
            return Err(Error::sql(format!("more than {PARAMETERS_MAX} parameters"))
                .with_place(place)
                .with_hint("Send rows with a bulk ingest."));
        }
    }
    Ok(())
}
