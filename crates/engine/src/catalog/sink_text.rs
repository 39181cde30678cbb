//! The statement of a sink as everybody may see it: without its secrets.

use std::borrow::Cow;

use windrow_connectors::shown_value;
use windrow_core::Place;
use windrow_sql::parse::{OptionItem, Statement, parse_kept};

/// Returns the text of a statement without the secrets of a sink.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    // What cannot be parsed may have secrets anywhere.
    let Ok(statements) = parse_kept(text) else { return Cow::Borrowed("***") };
    let mut options = vec![];
    for parsed in statements {
        if let Statement::CreateSink(create) = parsed.statement {
            options.extend(create.options);
        }
    }
    let mut out = Cow::Borrowed(text);
    // From the end, so that places before stay what they are.
    for OptionItem { key, value, place } in options.iter().rev() {
        let Some(shown) = shown_value(key, value) else { continue };
        let Some((from, to)) = bytes_of(text, *place) else { continue };
        let quoted = |text: &str| text.replace('\'', "''");
        let item = format!("'{}' = '{}'", quoted(key), quoted(&shown));
        out.to_mut().replace_range(from..to, &item);
    }
    out
}

/// Returns where a place is in a text, in bytes.
fn bytes_of(text: &str, place: Place) -> Option<(usize, usize)> {
    let at = |line: usize, column: usize| {
        let mut start = 0;
        for (number, content) in text.split_inclusive('\n').enumerate() {
            if number + 1 == line {
                let within = content.char_indices().nth(column - 1).map(|(at, _)| at);
                return Some(start + within.unwrap_or(content.len()));
            }
            start += content.len();
        }
        None
    };
    let (from, to) = (at(place.line, place.column)?, at(place.end_line, place.end_column)?);
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = "CREATE SINK k FROM v WITH (\n  connector = 'webhook', url = 'https://x.test/a''b',\n  /* ä */ secret = 'it''s', 'header.Authorization'\n = 'Bearer x', timeout = '1 s')";
        let expected = "CREATE SINK k FROM v WITH (\n  connector = 'webhook', 'url' = 'https://x.test/***',\n  /* ä */ 'secret' = '***', 'header.Authorization' = '***', timeout = '1 s')";
        assert_eq!(masked(text), expected);
        let text = "CREATE SINK k AS SELECT 'secret' AS s FROM v WITH (connector = 'file', secret_access_key = 'abc')";
        assert_eq!(
            masked(text),
            text.replace("secret_access_key = 'abc'", "'secret_access_key' = '***'")
        );
        let plain = "CREATE STREAM s (secret INT)";
        assert!(matches!(masked(plain), Cow::Borrowed(_)));
    }
}
