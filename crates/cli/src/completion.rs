//! The line editor's knowledge of SQL: where a statement ends, and what a word may become.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use windrow_runtime::Engine;
use windrow_sql::parse::is_complete;

/// Words that statements are made of.
const KEYWORDS: &[&str] = &[
    "ADVANCE BY",
    "ALL",
    "ALLOW LATENESS",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "AVG",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "COALESCE",
    "COPY",
    "COUNT",
    "CREATE",
    "CREATE STREAM",
    "CREATE MATERIALIZED VIEW",
    "CREATE EXTERNAL TABLE",
    "CREATE VIEW",
    "CROSS JOIN",
    "CUMULATE",
    "CUMULATING",
    "DATE",
    "DATE_TRUNC",
    "DECIMAL",
    "DESC",
    "DESCRIBE",
    "DESCRIPTOR",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "EMIT",
    "EMIT FINAL",
    "EMIT ON WINDOW CLOSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FLOAT",
    "FROM",
    "FULL JOIN",
    "GENERATED ALWAYS AS",
    "GRACE PERIOD",
    "GROUP BY",
    "GROUPING SETS",
    "HAVING",
    "HOP",
    "HOPPING",
    "IN",
    "INNER JOIN",
    "INSERT INTO",
    "INT",
    "INTERSECT",
    "INTERVAL",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LATE DATA TO",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "MATERIALIZED",
    "MAX",
    "MIN",
    "NOT",
    "NOT NULL",
    "NULL",
    "NULLS LAST",
    "ON",
    "OR",
    "OR REPLACE",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "QUERIES",
    "RIGHT JOIN",
    "ROW_NUMBER",
    "SELECT",
    "SET",
    "SHOW",
    "SHOW CREATE",
    "SHOW QUERIES",
    "SHOW STREAMS",
    "SHOW TABLES",
    "SHOW VIEWS",
    "SIZE",
    "STORED AS",
    "STREAM",
    "SUBSCRIBE TO",
    "SUM",
    "TABLE",
    "THEN",
    "TIMEOUT",
    "TIMESTAMP",
    "TRUE",
    "TUMBLE",
    "TUMBLE_END",
    "TUMBLE_START",
    "TUMBLING",
    "UNION ALL",
    "UNNEST",
    "UNTIL",
    "USING",
    "VALUES",
    "VARCHAR",
    "VERIFY VIEW",
    "VIEW",
    "WAIT FOR",
    "WATERMARK FOR",
    "WHEN",
    "WHERE",
    "WHY NOT",
    "WINDOW",
    "WITH",
    "window_end",
    "window_start",
    "window_time",
    "windrow.bad_rows",
    "windrow.files",
    "windrow.late_rows",
    "windrow.ledger",
    "windrow.queries",
    "windrow.streams",
    "windrow.views",
    "windrow.watermarks",
    "windrow.windows",
];

/// What the line editor asks.
pub(crate) struct Sql {
    engine: Engine,
}

impl Sql {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone() }
    }
}

/// Whether `input` is a command of the REPL itself and not SQL.
pub(crate) fn is_command(input: &str) -> bool {
    let input = input.trim();
    input.starts_with(['.', '\\']) || matches!(input, "exit" | "quit" | "help")
}

impl Helper for Sql {}
impl Highlighter for Sql {}

impl Hinter for Sql {
    type Hint = String;
}

impl Validator for Sql {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        Ok(if is_command(input) || is_complete(input) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Completer for Sql {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(line.get(..position).unwrap_or(line), &self.engine.names()))
    }
}

/// Where the last word of `typed` starts, and what it may become.
fn complete(typed: &str, names: &[String]) -> (usize, Vec<String>) {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let start = typed.char_indices().rev().take_while(|(_, c)| is_word(*c)).last();
    let Some((start, _)) = start else { return (typed.len(), vec![]) };
    let word = typed.get(start..).unwrap_or_default();
    let begins = |candidate: &str| {
        let head = candidate.get(..word.len());
        candidate.len() > word.len() && head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    let is_lower = word.chars().all(|c| !c.is_uppercase());
    let keywords = KEYWORDS
        .iter()
        .filter(|k| begins(k))
        .map(|keyword| if is_lower { keyword.to_lowercase() } else { (*keyword).to_owned() });
    let names = names.iter().filter(|name| begins(name)).cloned();
    let mut candidates: Vec<String> = names.chain(keywords).collect();
    candidates.sort();
    candidates.dedup();
    (start, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_keywords_and_names() {
        let names = ["flights".to_owned(), "Bids".to_owned()];
        assert_eq!(
            complete("SELECT * FROM fl", &names),
            (14, vec!["flights".into(), "float".into()])
        );
        assert_eq!(complete("SEL", &names).1, ["SELECT"]);
        assert_eq!(complete("sel", &names).1, ["select"]);
        assert_eq!(
            complete("count(*) from bi", &names),
            (14, vec!["Bids".into(), "bigint".into()])
        );
        assert_eq!(complete("select ", &names), (7, vec![]));
        assert_eq!(complete("FROM windrow.late", &names).1, ["windrow.late_rows"]);
        assert_eq!(complete("é", &names).1, Vec::<String>::new());
    }

    #[test]
    fn commands_are_no_sql() {
        for command in ["exit", " quit ", ".help", "\\q"] {
            assert!(is_command(command), "{command}");
        }
        assert!(!is_command("SELECT 1"));
    }
}
