//! Replaces connectors in the statements of a test: streams take INSERT instead, sinks write into a directory of the test.
//!
//! Invariant: a test never connects to the broker, database or server that its statements name as a connector.

use std::ops::Range;
use std::path::Path;

use windrow_core::{Error, Result};
use windrow_sql::parse::{OptionItem, Parsed, Statement, parse, spans};

/// Connectors that need no external system, and are kept.
const LOCAL: [&str; 4] = ["file", "datagen", "nexmark", "replay"];
/// The options that a stream keeps without its connector.
const KEPT: [&str; 4] = ["idle_timeout", "max_future_skew", "retention", "when_idle"];

/// Returns the statement that a test runs in place of `parsed`. `folder`: where sinks write.
///
/// # Errors
/// When the new statement cannot be parsed (a bug).
pub(super) fn substituted(parsed: &Parsed, folder: &Path) -> Result<Parsed> {
    let options = match &parsed.statement {
        Statement::CreateStream(create) => {
            let connector = create.options.iter().find(|o| o.key == "connector");
            match connector {
                Some(connector) if !LOCAL.contains(&connector.value.as_str()) => create
                    .options
                    .iter()
                    .filter(|o| KEPT.contains(&o.key.as_str()))
                    .map(written)
                    .collect(),
                _ => return Ok(parsed.clone()),
            }
        }
        Statement::CreateSink(create) => {
            let name = create.name.to_string().replace('"', "");
            let path = folder.join(name).display().to_string();
            let start = create.options.iter().filter(|o| o.key == "start").map(written);
            let of_files = [("connector", "file"), ("path", &path), ("format", "json")];
            let of_files = of_files.into_iter().map(|(key, value)| option(key, value));
            start.chain(of_files).collect::<Vec<String>>()
        }
        _ => return Ok(parsed.clone()),
    };
    let Some(clause) = with_clause(&parsed.text) else { return Ok(parsed.clone()) };
    let mut text = parsed.text.clone();
    let new =
        if options.is_empty() { String::new() } else { format!("WITH ({})", options.join(", ")) };
    text.replace_range(clause, &new);
    let new = parse(&text)?.pop().ok_or_else(|| Error::internal("a statement was lost"))?;
    Ok(Parsed { first_line: parsed.first_line, first_column: parsed.first_column, ..new })
}

fn written(item: &OptionItem) -> String {
    option(&item.key, &item.value)
}

fn option(key: &str, value: &str) -> String {
    format!("'{}' = '{}'", key.replace('\'', "''"), value.replace('\'', "''"))
}

/// The bytes of `WITH (…)`, the options of a statement.
fn with_clause(text: &str) -> Option<Range<usize>> {
    let pieces: Vec<Range<usize>> = spans(text).into_iter().map(|span| span.bytes).collect();
    let of = |at: usize| pieces.get(at).and_then(|bytes| text.get(bytes.clone()));
    let first = (0..pieces.len()).find(|at| {
        of(*at).is_some_and(|word| word.eq_ignore_ascii_case("with")) && of(at + 1) == Some("(")
    })?;
    let mut depth = 0_usize;
    for at in first + 1..pieces.len() {
        match of(at) {
            Some("(") => depth += 1,
            Some(")") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(pieces.get(first)?.start..pieces.get(at)?.end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_text(sql: &str) -> String {
        let parsed = parse(sql).unwrap().pop().unwrap();
        substituted(&parsed, Path::new("/t")).unwrap().text
    }

    #[test]
    fn streams_lose_their_connector_and_sinks_write_files() {
        assert_eq!(
            new_text(
                "CREATE STREAM s (a INT, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'kafka', topic = 't', idle_timeout = '5 s')"
            ),
            "CREATE STREAM s (a INT, ts TIMESTAMP, WATERMARK FOR ts) WITH ('idle_timeout' = '5 s')"
        );
        assert_eq!(
            new_text("CREATE STREAM s (a INT) WITH (connector = 'kafka', topic = 't')"),
            "CREATE STREAM s (a INT)"
        );
        let local = "CREATE STREAM s WITH (connector = 'file', path = 'a.json')";
        assert_eq!(new_text(local), local);
        assert_eq!(
            new_text(
                "CREATE SINK k FROM v WITH (connector = 'webhook', url = 'http://x', body = '(${a})')"
            ),
            "CREATE SINK k FROM v WITH ('connector' = 'file', 'path' = '/t/k', 'format' = 'json')"
        );
    }
}
