//! Tables of statements: how they are parsed, and how wrong ones are refused.

mod operators;
mod refused;
mod sinks;
mod spelling;

use windrow_core::{Budget, Error, ErrorKind, Place};

use super::*;

fn one(sql: &str) -> Statement {
    let mut parsed = parse(sql).unwrap_or_else(|e| panic!("{sql}\n{}", e.render(sql)));
    assert_eq!(parsed.len(), 1, "{sql}");
    parsed.remove(0).statement
}

fn query_of(sql: &str) -> ContinuousQuery {
    match one(sql) {
        Statement::Query(query) => query,
        other => panic!("{sql}: {other:?}"),
    }
}

fn fails(sql: &str) -> Error {
    match parse(sql) {
        Err(error) => error,
        Ok(parsed) => panic!("{sql} was read as {parsed:?}"),
    }
}

/// The part of `sql` that the place of the error covers (one line).
fn pointed(sql: &str, place: Option<Place>) -> String {
    let place = place.unwrap_or_else(|| panic!("no place: {sql}"));
    let line = sql.lines().nth(place.line - 1).unwrap_or_default();
    line.chars().skip(place.column - 1).take(place.end_column - place.column).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn windows_become_canonical() {
    let cases = [
        // 1: relation.
        (
            "SELECT * FROM TUMBLE(t, ts, INTERVAL '1 minute')",
            "SELECT * FROM tumble((SELECT * FROM t), ts, INTERVAL '1 minute')",
        ),
        (
            "SELECT * FROM hop(s.t, t.ts, INTERVAL '1' MINUTE, INTERVAL '10' MINUTE) AS w",
            "SELECT * FROM hop((SELECT * FROM s.t), t.ts, INTERVAL '1' MINUTE, INTERVAL '10' MINUTE) AS w",
        ),
        (
            "SELECT * FROM TUMBLE(t, INTERVAL '1 minute')",
            "SELECT * FROM tumble((SELECT * FROM t), INTERVAL '1 minute')",
        ),
        (
            "SELECT * FROM TUMBLE((SELECT a, ts FROM t WHERE a > 1), ts, size => INTERVAL '1 minute', OFFSET => INTERVAL '5 seconds')",
            "SELECT * FROM tumble((SELECT a, ts FROM t WHERE a > 1), ts, size => INTERVAL '1 minute', offset => INTERVAL '5 seconds')",
        ),
        (
            "SELECT * FROM TUMBLE(TUMBLE(t, ts, INTERVAL '1 s'), window_time, INTERVAL '1 m')",
            "SELECT * FROM tumble((SELECT * FROM tumble((SELECT * FROM t), ts, INTERVAL '1 s')), window_time, INTERVAL '1 m')",
        ),
        (
            "SELECT * FROM SESSION(t PARTITION BY k, ts, INTERVAL '5 minutes')",
            "SELECT * FROM session((SELECT * FROM t), ts, INTERVAL '5 minutes', partition_by => (k))",
        ),
        (
            "SELECT * FROM SESSION(t PARTITION BY (k, lower(c)), ts, gap => INTERVAL '5 minutes')",
            "SELECT * FROM session((SELECT * FROM t), ts, gap => INTERVAL '5 minutes', partition_by => (k, lower(c)))",
        ),
        // 2: Flink and SQL:2016.
        (
            "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTES)) w",
            "SELECT * FROM tumble((SELECT * FROM t), ts, INTERVAL '10' MINUTES) w",
        ),
        (
            "SELECT * FROM TABLE(HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5' MINUTES, SIZE => INTERVAL '10' MINUTES))",
            "SELECT * FROM hop((SELECT * FROM t), ts, slide => INTERVAL '5' MINUTES, size => INTERVAL '10' MINUTES)",
        ),
        (
            "SELECT * FROM TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' MINUTES))",
            "SELECT * FROM session((SELECT * FROM t), ts, INTERVAL '10' MINUTES, partition_by => (k))",
        ),
        (
            "SELECT * FROM TABLE(SESSION(TABLE t, DESCRIPTOR(ts), DESCRIPTOR(k, l), INTERVAL '10' MINUTES))",
            "SELECT * FROM session((SELECT * FROM t), ts, INTERVAL '10' MINUTES, partition_by => (k, l))",
        ),
        // 3: in GROUP BY.
        (
            "SELECT k, SESSION_START(), SESSION_END(ts, INTERVAL '1 s') FROM t GROUP BY k, SESSION(ts, INTERVAL '1 s')",
            "SELECT k, window_start, window_end FROM session((SELECT * FROM t), ts, INTERVAL '1 s', $grouped => true) AS t GROUP BY k, window_start, window_end",
        ),
        (
            "SELECT TUMBLE_START(ts, INTERVAL '1 minute') AS s, k, count(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1 minute'), k",
            "SELECT window_start AS s, k, count(*) FROM tumble((SELECT * FROM t), ts, INTERVAL '1 minute') AS t GROUP BY window_start, window_end, k",
        ),
        (
            "SELECT HOP_ROWTIME(), max(b.p) FROM bids b JOIN items i ON i.id = b.id GROUP BY HOP(b.ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE) ORDER BY HOP_END()",
            "SELECT window_time, max(b.p) FROM hop((SELECT * FROM bids), ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE) AS b JOIN items i ON i.id = b.id GROUP BY window_start, window_end, window_time ORDER BY window_end",
        ),
        (
            "SELECT tumble(INTERVAL '1 s') AS w, count(*) FROM (SELECT * FROM t) x GROUP BY w, k",
            "SELECT named_struct('start', window_start, 'end', window_end) AS w, count(*) FROM tumble((SELECT * FROM t), INTERVAL '1 s') AS x GROUP BY window_start, window_end, k",
        ),
        (
            "SELECT k, tumble(ts, INTERVAL '1 s') FROM t GROUP BY 2, 1",
            "SELECT k, named_struct('start', window_start, 'end', window_end) AS tumble FROM tumble((SELECT * FROM t), ts, INTERVAL '1 s') AS t GROUP BY window_start, window_end, 1",
        ),
        (
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM t GROUP BY GROUPING SETS ((TUMBLE(ts, INTERVAL '1 s'), k), (tumble(ts, INTERVAL '1 s'))))",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM tumble((SELECT * FROM t), ts, INTERVAL '1 s') AS t GROUP BY GROUPING SETS ((window_start, window_end, k), (window_start, window_end)))",
        ),
        // 4: the clause.
        (
            "SELECT k, count(*) FROM t WHERE a > 1 WINDOW TUMBLING (SIZE 1 MINUTE) GROUP BY k",
            "SELECT k, count(*) FROM tumble((SELECT * FROM t), INTERVAL '60 seconds') AS t WHERE a > 1 GROUP BY window_start, window_end, k",
        ),
        (
            "SELECT window_time, count(*) FROM t WINDOW HOPPING (SIZE 10 MINUTES, ADVANCE BY 90 SECONDS, OFFSET 500 ms) WHERE a > 1",
            "SELECT window_time, count(*) FROM hop((SELECT * FROM t), INTERVAL '90 seconds', INTERVAL '600 seconds', INTERVAL '500 milliseconds') AS t WHERE a > 1 GROUP BY window_start, window_end, window_time",
        ),
        (
            "WITH a AS (SELECT k, sum(x) FROM t WINDOW CUMULATING (SIZE 1 DAY, ADVANCE BY 1 HOUR) GROUP BY k HAVING sum(x) > 1) SELECT * FROM a",
            "WITH a AS (SELECT k, sum(x) FROM cumulate((SELECT * FROM t), INTERVAL '3600 seconds', INTERVAL '1 days') AS t GROUP BY window_start, window_end, k HAVING sum(x) > 1) SELECT * FROM a",
        ),
        (
            "SELECT count(*) FROM t WINDOW SESSION (5 MINUTES) UNION ALL SELECT 2",
            "SELECT count(*) FROM session((SELECT * FROM t), INTERVAL '300 seconds', $grouped => true) AS t GROUP BY window_start, window_end UNION ALL SELECT 2",
        ),
        // Functions with such names that are not windows.
        (
            "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY k)",
            "SELECT sum(a) OVER (PARTITION BY k) FROM t",
        ),
        ("SELECT emit changes FROM t", "SELECT emit AS changes FROM t"),
        (
            "SELECT a AS emit, table, f(table) FROM tumble",
            "SELECT a AS emit, table, f(table) FROM tumble",
        ),
        ("SELECT `a b`, \"C\" FROM t", "SELECT `a b`, \"C\" FROM t"),
    ];
    for (sql, expected) in cases {
        let query = query_of(sql);
        let got = query.query.to_string();
        let squeeze = |s: &str| s.replace(" AS ", " ");
        assert_eq!(squeeze(&got), squeeze(expected), "\n{sql}");
    }
}

#[test]
fn windows_of_engine_statements_are_canonical() {
    for sql in [
        "COPY (SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))) TO 'x.parquet'",
        "CREATE TABLE x AS SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)",
        "EXPLAIN (ANALYZE) SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)",
    ] {
        let Statement::DataFusion(statement) = one(sql) else { panic!("{sql}") };
        let text = statement.to_string();
        assert!(text.contains("tumble((SELECT * FROM t), ts"), "{text}");
    }
}

#[test]
fn tails() {
    const SECOND: i128 = 1_000_000_000;
    let every = |n| Some(Emit::Every(Interval { nanos: n, place: Place::at(1, 1) }));
    let close = Some(Emit::OnWindowClose);
    let none = (None, None, None);
    let cases = [
        ("", None, none),
        ("EMIT FINAL", close, none),
        ("EMIT ON WINDOW CLOSE", close, none),
        ("EMIT AFTER WINDOW CLOSE", close, none),
        ("emit after watermark", close, none),
        ("EMIT CHANGES", Some(Emit::Changes), none),
        ("EMIT ON UPDATE", Some(Emit::OnUpdate { batch: None }), none),
        ("EMIT EVERY 5s", every(5 * SECOND), none),
        ("EMIT PERIODIC INTERVAL '1.5' MINUTES", every(90 * SECOND), none),
        ("EMIT FINAL ALLOW LATENESS 5 SECONDS", close, (Some(5 * SECOND), None, None)),
        ("GRACE PERIOD INTERVAL '1 minute 2 seconds'", None, (Some(62 * SECOND), None, None)),
        (
            "LATE DATA TO a.b EMIT FINAL WITH DELAY '00:00:02.5' AND TIMEOUT 1 DAY",
            close,
            (None, Some(5 * SECOND / 2), Some(86_400 * SECOND)),
        ),
    ];
    for (text, emit, (lateness, delay, timeout)) in cases {
        let tail = query_of(&format!("SELECT * FROM t LIMIT 5 {text}")).tail;
        let plain = |e: Option<Emit>| {
            e.map(|e| match e {
                Emit::Every(i) => Emit::Every(Interval { place: Place::at(1, 1), ..i }),
                other => other,
            })
        };
        assert_eq!(plain(tail.emit), emit, "{text}");
        assert_eq!(tail.lateness.map(|i| i.nanos), lateness, "{text}");
        assert_eq!(tail.delay.map(|i| i.nanos), delay, "{text}");
        assert_eq!(tail.timeout.map(|i| i.nanos), timeout, "{text}");
        assert_eq!(tail.late_data_to.is_some(), text.starts_with("LATE"), "{text}");
        assert_eq!(tail.is_empty(), text.is_empty());
    }
    let grace = query_of("SELECT count(*) FROM t WINDOW SESSION (GAP 5 MINUTES, GRACE PERIOD 1 s)");
    assert_eq!(grace.tail.lateness.map(|i| i.nanos), Some(SECOND));
}

#[test]
fn create_stream_in_all_spellings() {
    let sql = "CREATE OR REPLACE STREAM IF NOT EXISTS s (
        a BIGINT NOT NULL, \"B\" VARCHAR, raw BIGINT,
        ts TIMESTAMP(3) GENERATED ALWAYS AS (to_timestamp_millis(raw)) STORED,
        WATERMARK FOR ts AS ts - INTERVAL '5 seconds',
    ) WITH (connector = 'file', 'path' = 'x/*.json', csv.header = true, 'a.b' = -1, n = 1.5)";
    let Statement::CreateStream(stream) = one(sql) else { panic!("not a stream") };
    assert!(stream.or_replace && stream.if_not_exists);
    assert_eq!(stream.columns.len(), 4);
    let mark = stream.watermark.unwrap();
    assert_eq!(mark.column.value, "ts");
    assert_eq!(mark.expr.unwrap().to_string(), "ts - INTERVAL '5 seconds'");
    let options: Vec<String> =
        stream.options.iter().map(|o| format!("{}={}", o.key, o.value)).collect();
    assert_eq!(options, ["connector=file", "path=x/*.json", "csv.header=true", "a.b=-1", "n=1.5"]);
    for sql in [
        "CREATE SOURCE s (ts TIMESTAMP LATENESS INTERVAL '5 seconds', a INT)",
        "CREATE TABLE s (ts TIMESTAMP, a INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')",
        "CREATE TABLE s (ts TIMESTAMP LATENESS INTERVAL '5 seconds') WITH ('connector' = 'file')",
    ] {
        let Statement::CreateStream(stream) = one(sql) else { panic!("{sql}") };
        let expr = stream.watermark.and_then(|w| w.expr).unwrap();
        assert_eq!(expr.to_string(), "ts - INTERVAL '5 seconds'", "{sql}");
    }
    let sql = "CREATE STREAM s (WATERMARK FOR ts) WITH (connector = 'file', path = 'x')";
    let Statement::CreateStream(stream) = one(sql) else { panic!("{sql}") };
    assert!(stream.columns.is_empty() && stream.watermark.unwrap().expr.is_none());
    for sql in [
        "CREATE STREAM s WITH (connector = 'nexmark')",
        "CREATE TABLE s (a INT) WITH (connector = 'x')",
    ] {
        assert!(matches!(one(sql), Statement::CreateStream(_)), "{sql}");
    }
    for sql in
        ["CREATE TABLE t (a INT, watermark INT)", "CREATE TABLE t AS SELECT connector = 'x' AS c"]
    {
        assert!(matches!(one(sql), Statement::DataFusion(_)), "{sql}");
    }
}

#[test]
fn create_view_and_insert() {
    let sql = "CREATE OR REPLACE MATERIALIZED VIEW IF NOT EXISTS v (a, b) WITH (x = '1') EMIT ON WINDOW CLOSE AS
        SELECT k, count(*) FROM TUMBLE(t, ts, INTERVAL '1 s') GROUP BY k ALLOW LATENESS 1 s";
    let Statement::CreateView(view) = one(sql) else { panic!("not a view") };
    assert!(view.or_replace && view.if_not_exists && view.materialized);
    assert_eq!((view.columns.len(), view.options.len()), (2, 1));
    assert_eq!(view.query.tail.emit, Some(Emit::OnWindowClose));
    assert!(view.query.tail.lateness.is_some());

    let Statement::CreateView(view) = one("CREATE VIEW v AS SELECT 1") else {
        panic!("not a view")
    };
    assert!(!view.materialized && view.query.tail.is_empty());

    let sql = "INSERT INTO s (a, b) SELECT a, count(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1 s'), a EMIT FINAL";
    let Statement::Insert(insert) = one(sql) else { panic!("not an insert") };
    assert_eq!(insert.columns.len(), 2);
    assert_eq!(insert.query.tail.emit, Some(Emit::OnWindowClose));
    assert!(insert.into_datafusion().to_string().starts_with("INSERT INTO s (a, b) SELECT a"));
    assert!(matches!(one("INSERT INTO s VALUES (1, 'a'), (2, 'b')"), Statement::Insert(_)));
}

#[test]
fn commands() {
    let debug = |sql: &str| format!("{:?}", one(sql));
    for (sql, has) in [
        ("SUBSCRIBE TO v AFTER 7", "after: Some(7)"),
        ("SUBSCRIBE v", "after: None, snapshot: false"),
        ("SUBSCRIBE TO v WITH (snapshot = true)", "after: None, snapshot: true"),
        ("SUBSCRIBE TO v AFTER 7 WITH (snapshot = false)", "after: Some(7), snapshot: false"),
        ("WAIT FOR v TIMEOUT 5 SECONDS", "timeout: Some(5s)"),
        ("WAIT FOR v UNTIL TIMESTAMP '2026-01-01' TIMEOUT INTERVAL '1 m'", "timeout: Some(60s)"),
        ("VERIFY VIEW v", "from: None, to: None"),
        ("VERIFY MATERIALIZED VIEW v TO TIMESTAMP '2026-01-02'", "from: None, to: Some("),
        ("verify view a.v from timestamp '2026-01-01' to timestamp '2026-01-02'", "from: Some("),
        ("EXPLAIN WHY NOT v", "WhyNot"),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", "analyze: true, verbose: true"),
        ("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1", "CreateView"),
        ("SHOW STREAMS", "Show(Streams)"),
        ("SHOW SOURCES", "Show(Streams)"),
        ("SHOW MATERIALIZED VIEWS", "Show(MaterializedViews)"),
        ("SHOW ALL", "DataFusion"),
        ("SHOW COLUMNS FROM t", "DataFusion"),
        ("SHOW CREATE MATERIALIZED VIEW v", "ShowCreate"),
        ("SHOW CREATE stream", "ShowCreate"),
        ("DESC t", "Describe"),
        ("DROP MATERIALIZED VIEW IF EXISTS a, b.c CASCADE", "if_exists: true, cascade: true"),
        ("DROP SCHEMA s", "DataFusion"),
        ("SET Threads = 4", "name: \"threads\", value: \"4\""),
        ("SET datafusion.execution.batch_size TO '10'", "datafusion.execution.batch_size"),
        ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'x'", "CreateExternalTable"),
        ("(SELECT 1) UNION (SELECT 2)", "Query"),
        ("VALUES (1), (2)", "Query"),
    ] {
        assert!(debug(sql).contains(has), "{sql}: {}", debug(sql));
    }
}

#[test]
fn submissions_are_split() {
    let sql = "-- first\nSELECT ';' ; ;\n  /* ; */ SELECT 2 -- end\n;SELECT \"ä\", 3";
    let parsed = parse(sql).unwrap();
    let texts: Vec<_> =
        parsed.iter().map(|p| (p.text.as_str(), p.first_line, p.first_column)).collect();
    assert_eq!(texts, [("SELECT ';'", 2, 1), ("SELECT 2", 3, 11), ("SELECT \"ä\", 3", 4, 2)]);
    for (sql, complete) in [
        ("", true),
        ("-- x", true),
        ("SELECT 1", false),
        ("SELECT 1; -- x", true),
        ("SELECT ';", false),
        ("SELECT 1 /* ;", false),
        ("SELECT \"a;", false),
        ("SELECT (1;", true),
    ] {
        assert_eq!(is_complete(sql), complete, "{sql}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn wrong_statements_point_at_the_mistake() {
    let cases = [
        ("SELCT 1", "does not begin a statement", "SELCT", "Did you mean SELECT?"),
        ("SELECT 1;\nSELECT * FROM t FORM x", "expected the end", "x", ""),
        ("SELECT * FROM", "found the end of the statement", "", ""),
        ("SELECT 1 +", "found the end of the statement", "", ""),
        ("SELECT * FROM t EMIT FINAL EMIT FINAL", "EMIT is given twice", "EMIT", "remove one"),
        ("SELECT * FROM t EMIT FINAL GRACE PERIOD 1 s ALLOW LATENESS 1 s", "twice", "ALLOW", ""),
        ("SELECT * FROM t EMIT FINAL WHERE a", "expected the end", "WHERE", "after LIMIT"),
        ("SELECT * FROM t EMIT CHANGE", "expected the end", "CHANGE", "EMIT takes"),
        ("SELECT * FROM t EMIT EVERY 1 month", "no fixed length", "1 month", ""),
        ("SELECT * FROM t EMIT EVERY '0 s'", "longer than zero", "'0 s'", ""),
        ("SELECT a FROM t WINDOW TUMBLING (SIZE 1 m)", "needs GROUP BY", "WINDOW", ""),
        (
            "SELECT count(*) FROM t GROUP BY k WINDOW TUMBLING (SIZE 1 m)",
            "after GROUP BY",
            "WINDOW",
            "",
        ),
        ("SELECT count(*) FROM t WINDOW HOPPING (SIZE 1 m)", "ADVANCE BY is missing", "WINDOW", ""),
        ("SELECT count(*) FROM t WINDOW TUMBLING (LEN 1 m)", "expected SIZE", "LEN", "TUMBLING"),
        (
            "SELECT count(*) FROM TUMBLE(t, ts, '1 m') WINDOW TUMBLING (SIZE 1 m)",
            "two windows",
            "WINDOW",
            "",
        ),
        (
            "SELECT count(*) FROM TUMBLE(t, ts, '1 m') GROUP BY TUMBLE(ts, '1 m')",
            "two windows",
            "TUMBLE",
            "",
        ),
        ("SELECT TUMBLE_START() FROM t", "needs GROUP BY TUMBLE", "TUMBLE_START", ""),
        (
            "SELECT HOP_START() FROM t GROUP BY TUMBLE(ts, '1 m')",
            "not of the window",
            "HOP_START",
            "",
        ),
        (
            "SELECT 1 FROM t GROUP BY TUMBLE(ts, '1 m'), HOP(ts, '1 m', '2 m')",
            "two different",
            "HOP",
            "",
        ),
        ("SELECT 1 FROM t GROUP BY TUMBLE(x.ts, '1 m')", "no relation \"x\"", "x", ""),
        ("SELECT * FROM TUMBLE(t, ts)", "0 intervals", "TUMBLE", "TUMBLE(table"),
        (
            "SELECT * FROM HOP(t, ts, INTERVAL '1 m')",
            "1 intervals, not 2 or 3",
            "HOP",
            "slide, size",
        ),
        (
            "SELECT * FROM TUMBLE(t, a + b, INTERVAL '1 m')",
            "must be a column",
            "TUMBLE",
            "GENERATED",
        ),
        (
            "SELECT * FROM TUMBLE(t, ts, sise => INTERVAL '1 m')",
            "no argument \"sise\"",
            "sise",
            "\"size\"",
        ),
        ("SELECT * FROM TUMBLE('x', ts, INTERVAL '1 m')", "not a table", "TUMBLE", ""),
        ("CREATE STREM s (a INT)", "expected", "STREM", "STREAM"),
        ("CREATE STREAM s (a INT, A INT)", "column \"a\" is given twice", "A", ""),
        (
            "CREATE STREAM s (a INT, WATERMARK FOR b)",
            "unknown column \"b\"",
            "b",
            "Known columns: a",
        ),
        (
            "CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts, WATERMARK FOR ts)",
            "two watermarks",
            "WATERMARK",
            "",
        ),
        ("CREATE STREAM s (a INT UNIQUE)", "cannot have UNIQUE", "a", ""),
        (
            "CREATE STREAM s (a INT, PRIMARY KEY (b))",
            "unknown column \"b\"",
            "b",
            "Known columns: a",
        ),
        (
            "CREATE STREAM s (a INT PRIMARY KEY, PRIMARY KEY (a))",
            "two primary keys",
            "PRIMARY KEY (a)",
            "one clause",
        ),
        (
            "CREATE STREAM s (a INT, PRIMARY KEY (a, A))",
            "the primary key names column \"a\" twice",
            "PRIMARY KEY (a, A)",
            "",
        ),
        ("CREATE STREAM s (a INT b)", "found \"b\"", "b", ""),
        ("CREATE STREAM s (a", "never closed", "(", ""),
        (
            "CREATE STREAM s WITH (a = '1', 'A' = '2')",
            "option \"A\" is given twice",
            "'A' = '2'",
            "",
        ),
        ("CREATE STREAM s WITH (a = b)", "the value of \"a\"", "b", "single quotes"),
        ("CREATE STREAM s", "expected columns or WITH", "", "WATERMARK"),
        ("SHOW STREAMS x", "expected the end", "x", ""),
        ("SELECT 'abc", "unterminated", "'", ""),
    ];
    for (sql, message, at, hint) in cases {
        let error = fails(sql);
        let report = error.render(sql);
        assert!(error.message().contains(message), "{sql}\n{report}");
        assert!(pointed(sql, error.place()).starts_with(at), "{sql}\n{report}");
        assert!(error.hints().concat().contains(hint), "{sql}\n{report}");
        assert!(!error.message().contains("Line:"), "{report}");
    }
}

#[test]
fn wrong_text_is_refused_in_good_time() {
    for part in [
        "SELECT * FROM ((",
        "TABLE(",
        "TABLE t PARTITION BY (",
        "f(a => ",
        "CASE WHEN (",
        "(SELECT ",
        "(VALUES (",
        "((",
        "CAST(",
        "EXISTS (",
        "INTERVAL (",
        "STRUCT(",
    ] {
        let sql = format!("SELECT {}", part.repeat(25));
        assert!(parse(&sql).is_err(), "{part}");
    }
}

/// Deep or long text is refused, or parsed, on a thread with the usual small stack.
#[test]
fn deep_and_long_text() {
    let run = || {
        let deep = 100_000;
        let nested = [
            format!("SELECT {}1{}", "(".repeat(deep), ")".repeat(deep)),
            format!("SELECT {}1", "(".repeat(deep)),
            format!("SELECT {}1", "(SELECT ".repeat(deep)),
            format!("SELECT * FROM {}t", "(".repeat(deep)),
            format!("SELECT {}1", "[".repeat(deep)),
            format!("SELECT {}1", "NOT ".repeat(deep)),
            format!("SELECT {}1", "- ".repeat(deep)),
            format!("SELECT {}1", "CASE WHEN ".repeat(deep)),
            format!("SELECT {}", "CASE WHEN true THEN ".repeat(deep)),
            format!("SELECT {}", "CASE ".repeat(deep)),
            format!("SELECT {}", "INTERVAL ".repeat(deep)),
            format!("SELECT {}", "INTERVAL - ".repeat(deep)),
            format!("SELECT {}", "EXISTS (".repeat(deep)),
            format!("SELECT {}", "ARRAY[".repeat(deep)),
            format!("SELECT {}", "{".repeat(deep)),
            format!("SELECT {}", "x IN (".repeat(deep)),
            format!("SELECT * FROM {}", "(SELECT * FROM ".repeat(deep)),
            "WITH a AS (".repeat(deep),
            format!("SELECT {}1", "a + ".repeat(deep)),
            format!("SELECT {}1", "a = 1 OR ".repeat(deep)),
            format!("SELECT 1{}", "::int".repeat(deep)),
            format!("{}SELECT 1", "SELECT 1 UNION ".repeat(deep)),
            format!("SELECT * FROM t{}", " JOIN t".repeat(deep)),
            format!("{}SELECT 1", "EXPLAIN ".repeat(deep)),
            format!("SELECT a{}", "[1]".repeat(deep)),
            format!("SELECT * FROM {}", "TUMBLE(".repeat(deep)),
            format!("CREATE STREAM s (a {})", "ARRAY<".repeat(deep)),
        ];
        for sql in &nested {
            let shown: String = sql.chars().take(40).collect();
            assert!(parse(sql).is_err(), "{shown}");
        }
        let fits = CHAIN - 10;
        for sql in [
            format!("SELECT {}1 FROM TUMBLE(t, ts, '1 s')", "a = 1 OR ".repeat(fits)),
            format!("SELECT {}1", "a + ".repeat(fits)),
            format!("{}SELECT 1", "SELECT 1 UNION ALL ".repeat(lex::SETS_MAX)),
            format!(
                "SELECT {}1{}",
                "CASE WHEN true THEN ".repeat(lex::DEPTH_MAX),
                " END".repeat(lex::DEPTH_MAX)
            ),
            format!("SELECT {}1", "CASE WHEN a THEN (b.end) END, ".repeat(1_000)),
            format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40)),
            format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(30), ")".repeat(30)),
            format!("INSERT INTO s VALUES {}(1, -1)", "(1, 'abc'), ".repeat(90_000)),
            format!("SELECT {}1", "a + 1, ".repeat(100_000)),
            format!("SELECT CASE {}END", "WHEN a = 1 THEN -1 ".repeat(20_000)),
            "SELECT 1;".repeat(10_000),
        ] {
            let shown: String = sql.chars().take(40).collect();
            assert!(parse(&sql).is_ok(), "{shown}: {:?}", parse(&sql).err());
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap();
    thread.join().unwrap();
}

const CHAIN: usize = lex::CHAIN_MAX;

/// Wrong statements below the limits of nesting: a parser that reads a part twice at each level would not finish.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about real time")]
fn wrong_nesting_is_refused_at_once() {
    let deep = lex::DEPTH_MAX;
    let started = std::time::Instant::now();
    for part in [
        "CASE WHEN true THEN ",
        "CASE ",
        "CASE - ",
        "CASE f(",
        "NOT ",
        "NOT (",
        "NOT f(",
        "INTERVAL ",
        "INTERVAL - ",
        "INTERVAL (",
        "INTERVAL f(",
        "INTERVAL DAY ",
        "EXISTS (SELECT ",
        "CURRENT_DATE(",
        "SUBSTR(",
        "ARRAY[",
        "MAP {",
        "{fn f(",
        "x IN (",
        "x IN (SELECT ",
        "x IN (VALUES (",
        "a[",
        "f(",
        "(SELECT ",
        "f(TABLE(",
        "STRUCT(",
        "x BETWEEN CASE WHEN f(",
    ] {
        for times in [8, deep / 2, deep] {
            let sql = format!("SELECT {}+", part.repeat(times));
            assert!(parse(&sql).is_err(), "{sql}");
            assert!(started.elapsed().as_secs() < 20, "{part}");
        }
    }
}

#[test]
fn set_operations_have_a_limit() {
    let over = lex::SETS_MAX + 1;
    let error = parse(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(over))).unwrap_err();
    assert_eq!(error.message(), "more than 200 set operations in one chain");
    let inner = format!("(SELECT 1{})", " UNION ALL SELECT 1".repeat(150));
    assert!(parse(&format!("{inner} UNION ALL SELECT 1")).is_ok());
    assert!(parse(&format!("({inner}{})", " UNION ALL SELECT 1".repeat(100))).is_err());
    let beside = format!("SELECT * FROM {inner} a, {inner} b");
    assert!(parse(&beside).is_ok(), "{:?}", parse(&beside).err());
}

/// Arrows as in PostgreSQL: tighter than comparisons, less tight than arithmetic.
#[test]
fn arrows_bind_tighter_than_comparisons() {
    for (written, meant) in [
        ("d ->> 'a' = 'b'", "(d ->> 'a') = 'b'"),
        ("'b' <> d ->> 'a'", "'b' <> (d ->> 'a')"),
        ("d -> 'a' ->> 'b' < 'c' AND x", "((d -> 'a') ->> 'b') < 'c' AND x"),
        ("d #>> p LIKE 'b%'", "(d #>> p) LIKE 'b%'"),
        ("d ->> 'a' IN ('b')", "(d ->> 'a') IN ('b')"),
        ("d ->> 'a' BETWEEN 'b' AND 'c'", "(d ->> 'a') BETWEEN 'b' AND 'c'"),
        ("d ->> 'a' IS NULL", "(d ->> 'a') IS NULL"),
        ("d @> e = true", "(d @> e) = true"),
        ("d ->> 'a' || 'b' = 'c'", "((d ->> 'a') || 'b') = 'c'"),
        ("d -> 1 + 2", "d -> (1 + 2)"),
        ("NOT d ->> 'a' = 'b'", "NOT ((d ->> 'a') = 'b')"),
    ] {
        assert_eq!(shape(written), shape(meant), "{written}");
    }
}

/// The expression's tree, without parentheses.
fn shape(expression: &str) -> String {
    use sqlparser::ast::{Expr, VisitMut, VisitorMut};
    struct Bracket;
    impl VisitorMut for Bracket {
        type Break = ();
        fn post_visit_expr(&mut self, e: &mut Expr) -> std::ops::ControlFlow<()> {
            let inner = match &*e {
                Expr::Nested(inner) => (**inner).clone(),
                Expr::Identifier(_) | Expr::Value(_) => return std::ops::ControlFlow::Continue(()),
                other => Expr::Nested(Box::new(other.clone())),
            };
            *e = inner;
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut parser = Parser::new(&dialect::DIALECT).try_with_sql(expression).unwrap();
    let mut tree = parser.parse_expr().unwrap();
    assert!(VisitMut::visit(&mut tree, &mut Bracket).is_continue());
    tree.to_string()
}

/// Parsing stays within the budget of the statement, and stops when the statement is cancelled.
#[test]
fn a_text_is_read_within_a_budget() {
    let terms: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
    let terms = terms.join(", ");
    for sql in [
        format!("SELECT 1 WHERE 1 IN ({terms})"),
        format!("INSERT INTO s VALUES ({terms})"),
        format!("CREATE TABLE t AS SELECT {terms}"),
    ] {
        let budget = Budget::new(1 << 20);
        let error = budget.run(|| parse(&sql)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        assert!(error.message().contains("--query-memory, 1048576 bytes"), "{error}");
        let budget = Budget::new(1 << 30);
        budget.run(|| parse(&sql)).unwrap();
        budget.end();
        let error = budget.run(|| parse(&sql)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
    // Quoted text is one token, whatever its length.
    let budget = Budget::new(1 << 20);
    budget.run(|| parse(&format!("SELECT '{terms}' -- {terms}"))).unwrap();
}
