//! Other spellings of a query, and what they are rewritten as.

use super::{fails, pointed, query_of};

#[test]
fn queries_are_brought_into_one_spelling() {
    for (sql, expected) in [
        ("FROM t", "SELECT * FROM t"),
        ("FROM t WHERE a > 1 ORDER BY a", "SELECT * FROM t WHERE a > 1 ORDER BY a"),
        ("FROM t SELECT a", "FROM t SELECT a"),
        (
            "SELECT a FROM (FROM t JOIN u ON t.a = u.a) AS x",
            "SELECT a FROM (SELECT * FROM t JOIN u ON t.a = u.a) AS x",
        ),
        ("WITH x AS (FROM t) FROM x", "WITH x AS (SELECT * FROM t) SELECT * FROM x"),
        ("FROM t UNION ALL FROM u", "SELECT * FROM t UNION ALL SELECT * FROM u"),
        (
            "SELECT extract(hour FROM ts), trim(both 'x' FROM b) FROM t",
            "SELECT EXTRACT(HOUR FROM ts), TRIM(BOTH 'x' FROM b) FROM t",
        ),
        (
            "WITH x AS NOT MATERIALIZED (SELECT 1) SELECT * FROM x",
            "WITH x AS (SELECT 1) SELECT * FROM x",
        ),
        ("SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "SELECT a FROM t LIMIT 3"),
        (
            "SELECT a FROM t OFFSET 2 ROWS FETCH NEXT ROW ONLY",
            "SELECT a FROM t LIMIT 1 OFFSET 2 ROWS",
        ),
        ("SELECT 1 WHERE EXISTS (SELECT FROM t)", "SELECT 1 WHERE EXISTS (SELECT 1 FROM t)"),
        // Named windows, in every clause that allows them.
        (
            "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b) QUALIFY rank() OVER (w ORDER BY c) = 1 ORDER BY max(a) OVER w",
            "SELECT sum(a) OVER (PARTITION BY b) FROM t QUALIFY rank() OVER (PARTITION BY b ORDER BY c) = 1 ORDER BY max(a) OVER (PARTITION BY b)",
        ),
        (
            "SELECT sum(a) OVER v FROM t WINDOW w AS (PARTITION BY b), v AS (w ORDER BY a ROWS 1 PRECEDING)",
            "SELECT sum(a) OVER (PARTITION BY b ORDER BY a ROWS 1 PRECEDING) FROM t",
        ),
        ("TABLE t", "SELECT * FROM t"),
        (
            "TABLE t UNION ALL TABLE u ORDER BY 1",
            "SELECT * FROM t UNION ALL SELECT * FROM u ORDER BY 1",
        ),
        // Columns that would have the same name.
        (
            "SELECT count(*), COUNT(*), count(*) FROM t",
            "SELECT count(*), COUNT(*) AS \"COUNT(*)_1\", count(*) AS \"count(*)_1\" FROM t",
        ),
        ("SELECT a, a, t.a FROM t", "SELECT a, a AS \"a_1\", t.a AS \"a_2\" FROM t"),
        ("SELECT 1 AS x, 2 AS X, 3 AS x_1", "SELECT 1 AS x, 2 AS \"x_1\", 3 AS \"x_1_1\""),
        ("SELECT *, a FROM t", "SELECT *, a AS \"a_1\" FROM t"),
        ("SELECT (SELECT 1), (SELECT 2)", "SELECT (SELECT 1) AS \"1\", (SELECT 2) AS \"2\""),
        (
            "SELECT count(*), (SELECT count(*) FROM u) FROM t",
            "SELECT count(*), (SELECT count(*) FROM u) AS \"count(*)_1\" FROM t",
        ),
        ("SELECT * EXCLUDE (a), a FROM t", "SELECT * EXCLUDE (a), a FROM t"),
        ("SELECT x.a, y.a, 'A', 'a' FROM x, y", "SELECT x.a, y.a, 'A', 'a' FROM x, y"),
    ] {
        assert_eq!(query_of(sql).query.to_string(), expected, "{sql}");
    }
}

#[test]
fn what_cannot_be_brought_is_told() {
    for (sql, message, at) in [
        (
            "WITH x AS MATERIALIZED (SELECT 1) SELECT * FROM x",
            "cannot be MATERIALIZED",
            "MATERIALIZED",
        ),
        ("SELECT sum(a) OVER w FROM t", "no window \"w\"", "w"),
        (
            "SELECT sum(a) OVER (v ORDER BY a) FROM t WINDOW w AS (PARTITION BY b)",
            "no window \"v\"",
            "v",
        ),
        (
            "SELECT sum(a) OVER (w PARTITION BY b) FROM t WINDOW w AS (PARTITION BY b)",
            "cannot be replaced",
            "w",
        ),
        (
            "SELECT sum(a) OVER (w ORDER BY b) FROM t WINDOW w AS (ORDER BY b)",
            "has an ORDER BY",
            "w",
        ),
        (
            "SELECT sum(a) OVER (w) FROM t WINDOW w AS (ORDER BY b ROWS 1 PRECEDING)",
            "has a frame",
            "w",
        ),
        (
            "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b), w AS (PARTITION BY c)",
            "defined twice",
            "w",
        ),
        (
            "SELECT (SELECT sum(b) OVER w FROM u) FROM t WINDOW w AS (PARTITION BY b)",
            "no window \"w\"",
            "w",
        ),
    ] {
        let error = fails(sql);
        assert!(error.message().contains(message), "{sql}: {}", error.message());
        assert_eq!(pointed(sql, error.place()), at, "{sql}");
        assert!(!error.hints().is_empty(), "{sql}");
    }
}
