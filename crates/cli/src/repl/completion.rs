//! Completions of the word under the cursor, by its context.

use std::collections::BTreeSet;
use std::path::Path;

use windrow_connectors::{OptionDoc, known_connectors, known_sinks, options_of, sink_options_of};
use windrow_sql::parse::{Piece, Span, spans};

use super::keywords::KEYWORDS;
use super::vocabulary::Vocabulary;
use crate::command::{COMMANDS, is_command};

/// Files that are suggested at most.
const FILES_MAX: usize = 200;

/// Returns where the last word before `position` starts, and its completions.
pub(super) fn complete(
    line: &str,
    position: usize,
    vocabulary: &Vocabulary,
) -> (usize, Vec<String>) {
    let typed = line.get(..position).unwrap_or(line);
    if is_command(typed) {
        return command(typed, vocabulary);
    }
    let spans = spans(typed);
    if let Some(open) = spans.last().filter(|s| s.open) {
        return match open.piece {
            Piece::Text => within_string(typed, &spans),
            Piece::QuotedName => {
                let names = all_names(vocabulary);
                (open.bytes.start, beginning(typed.get(open.bytes.start..), &names))
            }
            _ => (typed.len(), vec![]),
        };
    }
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let start = typed.char_indices().rev().take_while(|(_, c)| is_word(*c)).last();
    let in_options = open_options(typed, &spans);
    let Some((start, _)) = start else {
        let all = if in_options { option_names(typed, &spans) } else { vec![] };
        return (typed.len(), all);
    };
    let word = typed.get(start..).unwrap_or_default();
    if in_options {
        return (start, beginning(Some(word), &option_names(typed, &spans)));
    }
    let mut candidates = all_names(vocabulary);
    let in_use = tables_in_use(line, vocabulary);
    for (table, alias) in &in_use {
        let columns = vocabulary.tables.get(table).into_iter().flatten();
        candidates.extend(columns.clone().cloned());
        // After a dot, the columns of that table.
        candidates.extend(columns.map(|column| format!("{alias}.{column}")));
    }
    if !in_use.is_empty() {
        candidates.extend(["window_start", "window_end", "window_time"].map(str::to_owned));
    }
    let mut found = beginning(Some(word), &candidates);
    let is_lower = word.chars().all(|c| !c.is_uppercase());
    let in_case = |w: &str| if is_lower { w.to_lowercase() } else { w.to_uppercase() };
    let words = KEYWORDS.iter().map(|keyword| in_case(keyword));
    let functions = vocabulary.functions.iter().map(|function| in_case(function));
    found.extend(beginning(Some(word), &words.chain(functions).collect::<Vec<_>>()));
    found.sort();
    found.dedup();
    (start, found)
}

/// Returns those of `candidates` that begin with `word`, ignoring case, and are longer.
fn beginning(word: Option<&str>, candidates: &[String]) -> Vec<String> {
    let word = word.unwrap_or_default();
    let begins = |candidate: &&String| {
        let head = candidate.get(..word.len());
        candidate.len() > word.len() && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    candidates.iter().filter(begins).cloned().collect()
}

fn all_names(vocabulary: &Vocabulary) -> Vec<String> {
    vocabulary.tables.keys().cloned().collect()
}

/// Returns the tables that the statement at the end of `line` names, with their aliases.
fn tables_in_use(line: &str, vocabulary: &Vocabulary) -> BTreeSet<(String, String)> {
    let spans = spans(line);
    let text = |span: &Span| line.get(span.bytes.clone()).unwrap_or_default();
    let from = spans.iter().rposition(|s| text(s) == ";" && s.bytes.end < line.trim_end().len());
    let spans = spans.get(from.map_or(0, |at| at + 1)..).unwrap_or_default();
    let mut found = BTreeSet::new();
    for (at, span) in spans.iter().enumerate() {
        let next = |n: usize| spans.get(at + n).map(&text).unwrap_or_default();
        // A name with a dot is three tokens.
        let dotted = format!("{}.{}", text(span), next(2));
        let (name, behind) = match next(1) {
            "." if vocabulary.tables.contains_key(&dotted) => (dotted, 3),
            _ => (text(span).to_owned(), 1),
        };
        let name = if span.piece == Piece::Word { name.to_lowercase() } else { name };
        if !vocabulary.tables.contains_key(&name) {
            continue;
        }
        let behind = if next(behind).eq_ignore_ascii_case("AS") { behind + 1 } else { behind };
        let is_alias = spans.get(at + behind).is_some_and(|s| s.piece == Piece::Word)
            && !super::keywords::is_keyword(next(behind));
        if is_alias {
            found.insert((name.clone(), next(behind).to_owned()));
        }
        found.insert((name.clone(), name));
    }
    found
}

/// Whether the cursor is in the parentheses of `WITH (…)`, where a name is expected.
fn open_options(typed: &str, spans: &[Span]) -> bool {
    let text = |span: &Span| typed.get(span.bytes.clone()).unwrap_or_default();
    let mut depth = 0_usize;
    for (at, span) in spans.iter().enumerate().rev() {
        match text(span) {
            ")" => depth += 1,
            "(" if depth > 0 => depth -= 1,
            "(" => {
                let before = at.checked_sub(1).and_then(|b| spans.get(b)).map(&text);
                return before.is_some_and(|w| {
                    w.eq_ignore_ascii_case("WITH") || w.eq_ignore_ascii_case("OPTIONS")
                });
            }
            ";" => return false,
            _ => {}
        }
    }
    false
}

/// The connectors of streams or sinks, whichever the statement creates.
struct Connectors {
    known: &'static [&'static str],
    options: fn(&str) -> &'static [OptionDoc],
}

impl Connectors {
    /// Returns the connectors of the statement at the end of `typed`.
    fn of(typed: &str, spans: &[Span]) -> Self {
        let text = |span: &Span| typed.get(span.bytes.clone()).unwrap_or_default();
        let from = spans.iter().rposition(|span| text(span) == ";").map_or(0, |at| at + 1);
        let mut first = spans.iter().skip(from).take(4);
        if first.any(|span| text(span).eq_ignore_ascii_case("SINK")) {
            return Self { known: known_sinks(), options: sink_options_of };
        }
        Self { known: known_connectors(), options: options_of }
    }
}

/// Returns the connector that the text names, or all if it names none.
fn connectors(typed: &str, spans: &[Span]) -> Vec<String> {
    let said = spans.windows(3).rev().find_map(|window| {
        let [key, equals, value] = window else { return None };
        let text = |span: &Span| typed.get(span.bytes.clone()).unwrap_or_default();
        let is_connector = text(key).trim_matches(['\'', '"']).eq_ignore_ascii_case("connector");
        (is_connector && text(equals) == "=").then(|| text(value).trim_matches('\'').to_owned())
    });
    let all = Connectors::of(typed, spans);
    match said {
        Some(connector) if !(all.options)(&connector).is_empty() => vec![connector],
        _ => all.known.iter().map(|c| (*c).to_owned()).collect(),
    }
}

fn option_names(typed: &str, spans: &[Span]) -> Vec<String> {
    let mut names = vec!["connector".to_owned()];
    for connector in connectors(typed, spans) {
        let all = (Connectors::of(typed, spans).options)(&connector);
        let names_of = all.iter().map(|o| o.name).filter(|n| !n.contains('*'));
        names.extend(names_of.map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names
}

/// Completes a string that is being typed: to a file, or a value of an option.
fn within_string(typed: &str, spans: &[Span]) -> (usize, Vec<String>) {
    let text = |span: &Span| typed.get(span.bytes.clone()).unwrap_or_default();
    let [before @ .., open] = spans else { return (typed.len(), vec![]) };
    let start = open.bytes.start + 1;
    let begun = typed.get(start..).unwrap_or_default();
    let key = match before {
        [.., key, equals] if text(equals) == "=" => text(key).trim_matches(['\'', '"']),
        [.., word] => text(word),
        [] => "",
    };
    match key.to_ascii_lowercase().as_str() {
        "path" | "location" | "to" => {
            let (at, files) = files(begun);
            (start + at, files)
        }
        "connector" => {
            let known = Connectors::of(typed, before).known;
            let all: Vec<String> = known.iter().map(|c| (*c).to_owned()).collect();
            (start, beginning(Some(begun), &all))
        }
        key => {
            let options = Connectors::of(typed, before).options;
            let connectors = connectors(typed, before);
            let mut values: Vec<String> = connectors
                .iter()
                .flat_map(|c| options(c))
                .filter(|option| option.name == key)
                .flat_map(|option| option.values.split('|'))
                .map(|value| value.trim().trim_matches('\'').to_owned())
                .filter(|value| !value.is_empty() && !value.contains(' '))
                .collect();
            values.dedup();
            (start, beginning(Some(begun), &values))
        }
    }
}

/// Returns where the last part of a path begins, and the files that match it.
fn files(path: &str) -> (usize, Vec<String>) {
    let at = path.rfind('/').map_or(0, |at| at + 1);
    let (folder, begun) = path.split_at(at);
    let folder = if folder.is_empty() { Path::new(".") } else { Path::new(folder) };
    let Ok(entries) = std::fs::read_dir(folder) else { return (at, vec![]) };
    let name = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let is_hidden = name.starts_with('.') && !begun.starts_with('.');
        let slash = if entry.path().is_dir() { "/" } else { "" };
        (name.starts_with(begun) && !is_hidden).then(|| format!("{name}{slash}"))
    };
    let mut files: Vec<String> = entries.flatten().filter_map(name).collect();
    files.sort();
    files.truncate(FILES_MAX);
    (at, files)
}

/// Completes a command.
fn command(typed: &str, vocabulary: &Vocabulary) -> (usize, Vec<String>) {
    let Some((name, argument)) = typed.split_once(char::is_whitespace) else {
        let names: Vec<String> = COMMANDS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        return (0, beginning(Some(typed), &names));
    };
    let start = typed.len() - argument.trim_start().len();
    let argument = argument.trim_start();
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let candidates = match name {
        "\\i" | "\\o" => {
            let (at, files) = files(argument);
            return (start + at, files);
        }
        "\\d" | "\\d+" | "\\schema" | ".schema" => all_names(vocabulary),
        "\\format" | ".format" | ".mode" => words(&["table", "csv", "ndjson"]),
        "\\pset" => words(&["null", "pager", "rows"]),
        "\\h" => crate::syntax::names(),
        "\\x" => words(&["on", "off", "auto"]),
        "\\timing" => words(&["on", "off"]),
        _ => vec![],
    };
    (start, beginning(Some(argument), &candidates))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let table = |name: &str, columns: &[&str]| {
            (name.to_owned(), columns.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>())
        };
        Vocabulary {
            tables: [
                table("flights", &["carrier", "dep_time", "\"From\""]),
                table("\"Bids\"", &["price"]),
                table("windrow.late_rows", &["reason"]),
            ]
            .into(),
            functions: vec!["count".into(), "date_trunc".into()],
        }
    }

    fn found(line: &str) -> Vec<String> {
        complete(line, line.len(), &vocabulary()).1
    }

    #[test]
    fn words_become_keywords_names_and_functions() {
        assert_eq!(complete("SELECT * FROM fl", 16, &vocabulary()).0, 14);
        assert_eq!(found("SELECT * FROM fl"), ["flights", "float"]);
        assert_eq!(found("SEL"), ["SELECT"]);
        assert_eq!(found("sel"), ["select"]);
        assert_eq!(found("select date_t"), ["date_trunc"]);
        assert_eq!(found("SELECT COUN"), ["COUNT"]);
        assert_eq!(found("select * from \"B"), ["\"Bids\""]);
        assert_eq!(found("FROM windrow.late"), ["windrow.late_rows"]);
        assert_eq!(found("select "), Vec::<String>::new());
        assert_eq!(found("é"), Vec::<String>::new());
    }

    #[test]
    fn columns_are_those_of_the_tables_in_the_statement() {
        assert_eq!(found("SELECT car"), Vec::<String>::new());
        let line = "SELECT car FROM flights";
        assert_eq!(complete(line, 10, &vocabulary()), (7, vec!["carrier".into()]));
        assert_eq!(found("SELECT * FROM FLIGHTS f WHERE f.de"), ["f.dep_time"]);
        assert_eq!(found("SELECT * FROM flights AS g WHERE flights.c"), ["flights.carrier"]);
        assert_eq!(found("SELECT rea"), ["real"]);
        assert_eq!(found("SELECT * FROM windrow.late_rows WHERE rea"), ["real", "reason"]);
        assert_eq!(found("SELECT * FROM flights; SELECT car"), Vec::<String>::new());
    }

    #[test]
    fn options_and_their_values() {
        assert_eq!(found("CREATE STREAM s WITH (conn"), ["connector"]);
        assert_eq!(found("CREATE STREAM s WITH (connector = 'nex"), ["nexmark"]);
        let all = found("CREATE STREAM s (a INT) WITH (connector = 'file', ");
        assert!(all.contains(&"path".to_owned()) && all.contains(&"format".to_owned()), "{all:?}");
        assert_eq!(found("CREATE STREAM s WITH (connector = 'file', format = 'pa"), ["parquet"]);
        assert_eq!(found("CREATE OR REPLACE SINK k FROM v WITH (connector = 'web"), ["webhook"]);
        assert_eq!(found("CREATE SINK k FROM v WITH (connector = 'file', roll_s"), ["roll_size"]);
        let nexmark = found("CREATE STREAM s WITH (connector = 'nexmark', ");
        assert!(!nexmark.contains(&"path".to_owned()), "{nexmark:?}");
    }

    #[test]
    fn files_are_found_in_strings_and_commands() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("day.csv"), "").unwrap();
        std::fs::write(dir.path().join(".hidden"), "").unwrap();
        let path = dir.path().display();
        assert_eq!(found(&format!("WITH (path = '{path}/da")), ["data/", "day.csv"]);
        assert_eq!(found(&format!("\\i {path}/")), ["data/", "day.csv"]);
        assert_eq!(found("\\i /no/such/folder/"), Vec::<String>::new());
    }

    #[test]
    fn commands_complete_too() {
        assert_eq!(found("\\ti"), ["\\timing"]);
        assert_eq!(found("\\d fl"), ["flights"]);
        assert_eq!(found("\\x a"), ["auto"]);
        assert_eq!(found("\\format "), ["table", "csv", "ndjson"]);
    }
}
