//! The messages of statements that are refused, or that fail: every text in `tests/messages.txt`, with its place and
//! hint.
//!
//! They cover what parser and planner refuse, and what fails while a statement runs. `WINDROW_WRITE_MESSAGES=1`
//! rewrites the file from the statements in it; then review the difference.

use std::fmt::Write as _;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::talk::{Answer, Refusal, Talk};
use crate::watch::trial;

const FILE: &str = "tests/messages.txt";

/// Between two statements.
const LINE: &str = "----";

/// What statements may read.
const SETUP: [&str; 4] = [
    "CREATE STREAM s (k VARCHAR NOT NULL, n INT, d DOUBLE, ts TIMESTAMP(3), tz TIMESTAMPTZ, dec DECIMAL(10, 2), \
     l INT[], f STRUCT<x INT>, WATERMARK FOR ts)",
    "INSERT INTO s VALUES ('x', 1, 1.5, '2026-01-01', '2026-01-01', 1.5, [1], NULL)",
    "CREATE TABLE t (a INT, b VARCHAR)",
    "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, sum(n) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') \
     GROUP BY window_start, window_end",
];

/// Words of the program's language, and of the libraries below.
const FOREIGN: [&str; 30] = [
    "Utf8",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt",
    "Float32",
    "Float64",
    "Boolean",
    "Date32",
    "Decimal128",
    "Timestamp(",
    "List(",
    "Struct(",
    "Some(",
    "None",
    "Ident {",
    "Span",
    "Location(",
    "DataFusion",
    "Arrow error",
    "Error during planning",
    "Execution error",
    "DataType",
    "Expr::",
    "Exact(",
    "OneOf",
    "UserDefined",
    "backtrace",
    "caused by",
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("messages/every refusal reads well", refusals),
        trial("messages/columns are called by their text", headings),
        trial("messages/every function has a description", functions),
    ]
}

fn refusals() -> Result<(), Failed> {
    let talk = Talk::new(Limits::default())?;
    for sql in SETUP {
        talk.ask(sql)?;
    }
    let before = std::fs::read_to_string(Path::new(FILE))?;
    let (mut now, mut foreign) = (String::new(), String::new());
    for block in before.split(&format!("\n{LINE}\n")) {
        let Some(sql) = block.trim_start().lines().next().filter(|sql| !sql.is_empty()) else {
            continue;
        };
        let said = match talk.ask(sql) {
            Err(Refusal(said)) => said,
            Ok(Answer::Done(done)) => format!("done: {done}"),
            Ok(Answer::Rows { rows, .. }) => format!("{} rows", rows.len()),
        };
        // The text of the statement is the user's.
        let ours = said.lines().filter(|line| !line.trim_start().starts_with("line "));
        let ours: Vec<&str> = ours.collect();
        if let Some(word) =
            FOREIGN.iter().find(|word| ours.iter().any(|line| line.contains(**word)))
        {
            writeln!(foreign, "{sql}\n  has {word}: {said}")?;
        }
        if said.contains("internal error") || said.contains("bug") {
            writeln!(foreign, "{sql}\n  looks like a bug: {said}")?;
        }
        write!(now, "{sql}\n{}\n{LINE}\n", said.trim_end())?;
    }
    if std::env::var_os("WINDROW_WRITE_MESSAGES").is_some() {
        std::fs::write(FILE, &now)?;
    }
    if !foreign.is_empty() {
        return Err(foreign.into());
    }
    if now != before {
        let differs = now.split(LINE).zip(before.split(LINE)).find(|(now, before)| now != before);
        let (now, before) = differs.unwrap_or(("more", "fewer"));
        return Err(format!("now:{now}\nin {FILE}:{before}").into());
    }
    Ok(())
}

/// Functions of DataFusion, of its extensions and of Windrow.
fn functions() -> Result<(), Failed> {
    let talk = Talk::new(Limits::default())?;
    let Answer::Rows { rows, .. } = talk.ask("SHOW FUNCTIONS")? else {
        return Err("SHOW FUNCTIONS gives no rows".into());
    };
    let without: Vec<String> = rows
        .into_iter()
        .filter(|row| row.iter().any(|cell| cell.is_empty() || cell.contains("(…)")))
        .map(|row| row.join(" "))
        .collect();
    if without.is_empty() { Ok(()) } else { Err(without.join("\n").into()) }
}

/// Names of columns in results, in views, and in files.
fn headings() -> Result<(), Failed> {
    let talk = Talk::new(Limits::default())?;
    for sql in SETUP {
        talk.ask(sql)?;
    }
    let columns = |sql: &str| -> Result<String, Failed> {
        match talk.ask(sql)? {
            Answer::Rows { schema, .. } => {
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                Ok(names.join("|"))
            }
            Answer::Done(done) => Err(format!("{sql}: {done}").into()),
        }
    };
    let window = "FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, k";
    for (sql, names) in [
        (format!("SELECT window_start, s.k, COUNT(*), sum(s.n) {window}"), "window_start|k|count(*)|sum(n)"),
        (format!("SELECT window_start, s.k, COUNT(*), sum(s.n) {window} EMIT FINAL"), "window_start|k|count(*)|sum(n)"),
        ("SELECT n + 1, k || 'x' FROM s EMIT CHANGES".to_owned(), "n + 1|k || 'x'"),
        ("SELECT 1, 'x', 1".to_owned(), "1|'x'|1_1"),
        ("VALUES (1)".to_owned(), "column1"),
        ("SELECT count(*), count(*), count(n) FROM s".to_owned(), "count(*)|count(*)_1|count(n)"),
        ("SELECT DISTINCT upper(k) FROM s ORDER BY upper(k)".to_owned(), "upper(k)"),
        ("SELECT date_trunc('hour', ts), max(n) FROM s GROUP BY date_trunc('hour', ts) ORDER BY 1".to_owned(),
         "date_trunc('hour', ts)|max(n)"),
        ("SELECT f['x'], max(n) OVER (PARTITION BY s.k) FROM s".to_owned(), "f['x']|max(n) OVER (PARTITION BY k)"),
        ("SELECT a.n, b.n, a.n + b.n FROM s a JOIN s b ON a.k = b.k".to_owned(), "n|n|a.n + b.n"),
    ] {
        let found = columns(&sql)?;
        if found != names {
            return Err(format!("{sql}: {found}").into());
        }
    }
    talk.ask("CREATE MATERIALIZED VIEW named AS SELECT k, n * 2 FROM s")?;
    talk.ask(
        "CREATE VIEW plain AS SELECT sum(s.n), min(\"n * 2\") FROM s JOIN named ON s.k = named.k",
    )?;
    talk.ask("CREATE TABLE kept AS SELECT max(s.n), 'x' FROM s")?;
    for (sql, names) in [
        ("SELECT * FROM named", "k|n * 2"),
        ("SELECT * FROM plain", "sum(n)|min(\"n * 2\")"),
        ("SELECT * FROM kept", "max(n)|'x'"),
    ] {
        let found = columns(sql)?;
        if found != names {
            return Err(format!("{sql}: {found}").into());
        }
    }
    Ok(())
}
