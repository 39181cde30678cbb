//! The syntax of statements, which `\h` shows.

/// A statement, and its form.
const FORMS: &[(&str, &str)] = &[
    (
        "COPY",
        "COPY name | (query) TO 'file' [STORED AS CSV | JSON | PARQUET] [(FORMAT parquet, …)]\n\
         COPY name | (query) TO STDOUT\n\
         COPY name [(column, …)] FROM 'file' [(FORMAT csv, …)]",
    ),
    (
        "CREATE EXTERNAL TABLE",
        "CREATE EXTERNAL TABLE [IF NOT EXISTS] name [(column TYPE, …)] STORED AS CSV | JSON | PARQUET LOCATION 'path'",
    ),
    (
        "CREATE FUNCTION",
        "CREATE [OR REPLACE] FUNCTION [IF NOT EXISTS] name(parameter TYPE, …) [RETURNS TYPE]\n    \
             AS 'expression' | AS $$expression$$ | RETURN expression",
    ),
    (
        "CREATE MATERIALIZED VIEW",
        "CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [WITH (option = 'value', …)] AS query [EMIT …]",
    ),
    ("CREATE MODEL", "CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name WITH (path = 'file.onnx')"),
    (
        "CREATE STREAM",
        "CREATE [OR REPLACE] STREAM [IF NOT EXISTS] name (\n    \
             column TYPE [NOT NULL] [CHECK (condition)], …\n    \
             [, [CONSTRAINT name] CHECK (condition)]\n    \
             [, column TYPE GENERATED ALWAYS AS (expression)]\n    \
             [, column AS PROCTIME()]\n    \
             [, WATERMARK FOR column [AS column - INTERVAL '5 seconds']]\n\
         ) [WITH (connector = 'file', path = '…', format = 'json', …)]",
    ),
    (
        "CREATE TABLE",
        "CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name (column TYPE, …)\n\
         CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name AS query",
    ),
    ("CREATE VIEW", "CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name AS query"),
    ("DESCRIBE", "DESCRIBE name | 'file'"),
    (
        "DROP",
        "DROP STREAM | VIEW | MATERIALIZED VIEW | SINK | FUNCTION | MODEL | TABLE [IF EXISTS] name, … [CASCADE]",
    ),
    (
        "EXPLAIN",
        "EXPLAIN [ANALYZE] [VERBOSE] statement\n\
         EXPLAIN WHY NOT view",
    ),
    ("INSERT", "INSERT INTO name [(column, …)] VALUES (…), … | query [EMIT …]"),
    (
        "SELECT",
        "[WITH name AS (query), …]\n\
         SELECT [DISTINCT] expression [AS name], …\n\
         FROM name | 'file' | (query)\n\
         \x20   | TUMBLE(name, time, size [, offset] [, zone])\n\
         \x20   | HOP(name, time, slide, size [, offset] [, zone])\n\
         \x20   | CUMULATE(name, time, step, size [, offset] [, zone])\n\
         \x20   | SESSION(name [PARTITION BY key, …], time, gap)\n\
         [JOIN … ON …] [WHERE condition] [GROUP BY expression, …] [HAVING condition]\n\
         [ORDER BY expression [DESC], … | ALL] [LIMIT n]\n\
         [EMIT FINAL | EMIT CHANGES] [ALLOW LATENESS interval] [LATE DATA TO name]\n\
         Without EMIT it reads the current rows and ends; with EMIT it returns rows as windows close.",
    ),
    ("SET", "SET name = value"),
    (
        "SHOW",
        "SHOW STREAMS | VIEWS | MATERIALIZED VIEWS | TABLES | QUERIES | WATERMARKS | WINDOWS | FUNCTIONS | MODELS | DATABASES | \
         SCHEMAS\n\
         SHOW CREATE name",
    ),
    ("SUBSCRIBE", "SUBSCRIBE TO view [AFTER sequence | WITH (snapshot = true)]"),
    ("SUMMARIZE", "SUMMARIZE name | 'file' | query"),
    ("TABLE", "TABLE name"),
    ("VERIFY VIEW", "VERIFY VIEW view [FROM TIMESTAMP '…'] [TO TIMESTAMP '…']"),
    ("WAIT FOR", "WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT interval]"),
];

/// Returns the forms of the statements that begin with these words; `None` where there is none.
pub(crate) fn forms(words: &str) -> Option<String> {
    let wanted: Vec<String> = words.split_whitespace().map(str::to_uppercase).collect();
    let begins = |name: &str| {
        let mut words = name.split(' ');
        wanted.iter().all(|wanted| words.next().is_some_and(|word| word == wanted))
    };
    let found: Vec<&str> =
        FORMS.iter().filter(|(name, _)| begins(name)).map(|(_, form)| *form).collect();
    (!found.is_empty()).then(|| found.join("\n\n"))
}

/// The first words of statements.
pub(crate) fn names() -> Vec<String> {
    FORMS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Lists all statements.
pub(crate) fn statements() -> String {
    format!("Statements: {}.\n\\h SELECT shows the syntax of one.", names().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_by_their_first_words() {
        assert!(forms("select").unwrap().contains("TUMBLE("));
        assert!(forms("create").unwrap().contains("CREATE EXTERNAL TABLE"));
        assert!(!forms("Create Stream").unwrap().contains("EXTERNAL"));
        assert_eq!(forms("create nothing"), None);
        assert!(statements().contains("WAIT FOR"));
    }
}
