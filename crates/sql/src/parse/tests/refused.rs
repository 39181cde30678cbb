//! Clauses that the parser accepts and nothing would implement: each is refused, with its place and a hint.

use super::{parse, pointed};

/// The statement, a part of the message, and the text at its place.
const REFUSED: &[(&str, &str, &str)] = &[
    // Queries.
    ("SELECT a FROM t FOR UPDATE", "locks no rows", "FOR"),
    ("SELECT a FROM t FOR SHARE", "locks no rows", "FOR"),
    ("SELECT a FROM t FOR JSON AUTO", "FOR JSON", "FOR"),
    ("SELECT a FROM t SETTINGS x = 1", "SETTINGS", "SETTINGS"),
    ("SELECT a FROM t FORMAT JSON", "FORMAT", "FORMAT"),
    ("SELECT a FROM t ORDER BY a FETCH FIRST 1 ROWS WITH TIES", "WITH TIES", "FETCH"),
    ("SELECT a FROM t FETCH FIRST 10 PERCENT ROWS ONLY", "PERCENT", "FETCH"),
    ("SELECT a FROM t LIMIT 2 FETCH FIRST 1 ROWS ONLY", "LIMIT and FETCH", "FETCH"),
    ("SELECT a FROM t LIMIT 1 BY a", "LIMIT … BY", "LIMIT"),
    ("SELECT a FROM t ORDER BY a WITH FILL", "WITH FILL", "WITH FILL"),
    ("SELECT a FROM t ORDER BY a INTERPOLATE (b)", "INTERPOLATE", "INTERPOLATE"),
    ("SELECT * FROM (SELECT a FROM t FOR UPDATE) AS x", "locks no rows", "FOR"),
    ("SELECT 1 WHERE EXISTS (SELECT a FROM t SETTINGS x = 1)", "SETTINGS", "SETTINGS"),
    ("WITH x AS (INSERT INTO t VALUES (1)) SELECT * FROM x", "cannot be part of a query", "WITH"),
    ("FROM t |> DROP a", "|> DROP", "DROP"),
    ("FROM t |> TABLESAMPLE BERNOULLI (10 PERCENT)", "TABLESAMPLE", "TABLESAMPLE"),
    ("FROM t |> AGGREGATE sum(a) GROUP BY b ASC", "does not order", "AGGREGATE"),
    // SELECT.
    ("SELECT FROM t", "no columns", "SELECT"),
    ("SELECT TOP 1 a FROM t", "TOP", "TOP"),
    ("SELECT a INTO u FROM t", "INTO", "INTO"),
    ("SELECT a FROM t LATERAL VIEW explode(b) x AS y", "LATERAL VIEW", "LATERAL VIEW"),
    ("SELECT a FROM t PREWHERE a > 1", "PREWHERE", "PREWHERE"),
    ("SELECT a FROM t START WITH a = 1 CONNECT BY PRIOR a = b", "CONNECT BY", "CONNECT BY"),
    ("SELECT a FROM t CLUSTER BY a", "CLUSTER BY", "CLUSTER BY"),
    ("SELECT a FROM t DISTRIBUTE BY a", "DISTRIBUTE BY", "DISTRIBUTE BY"),
    ("SELECT a FROM t SORT BY a", "SORT BY", "SORT BY"),
    ("SELECT a FROM t GROUP BY a WITH ROLLUP", "GROUP BY", "GROUP BY"),
    ("SELECT a FROM t GROUP BY a WITH TOTALS", "GROUP BY", "GROUP BY"),
    ("SELECT * ILIKE 'a%' FROM t", "ILIKE", "ILIKE"),
    ("SELECT * RENAME (a AS b) FROM t", "RENAME", "RENAME"),
    // FROM.
    ("SELECT a FROM t WITH (NOLOCK)", "hints", "WITH"),
    ("SELECT a FROM t PARTITION (p)", "partitions", "PARTITION"),
    ("SELECT a FROM generate_series(1, 3) WITH ORDINALITY", "ORDINALITY", "WITH ORDINALITY"),
    ("SELECT a FROM unnest([1]) WITH ORDINALITY", "ORDINALITY", "WITH ORDINALITY"),
    ("SELECT a FROM unnest([1]) WITH OFFSET", "OFFSET", "WITH OFFSET"),
    ("SELECT a FROM t PIVOT (sum(a) FOR b IN ('x'))", "PIVOT", "PIVOT"),
    ("SELECT a FROM t UNPIVOT (v FOR n IN (a, b))", "UNPIVOT", "UNPIVOT"),
    ("SELECT a FROM t x GLOBAL JOIN t y ON x.a = y.a", "GLOBAL", "GLOBAL"),
    ("SELECT a FROM t CROSS APPLY u", "APPLY", "APPLY"),
    ("SELECT a FROM t ASOF JOIN u USING (b)", "condition in ON", "ASOF"),
    ("SELECT a FROM t ASOF JOIN u MATCH_CONDITION t.a > u.a", "in parentheses", "MATCH_CONDITION"),
    ("SELECT a FROM t FOR SYSTEM_TIME AS OF u.a", "needs a join", "FOR"),
    ("SELECT a FROM (t x GLOBAL JOIN t y ON x.a = y.a)", "GLOBAL", "GLOBAL"),
    ("SELECT c FROM t AS x (c INT)", "cannot have a type", "AS"),
    ("SELECT a FROM t TABLESAMPLE SYSTEM (10)", "not by blocks", "TABLESAMPLE"),
    ("SELECT a FROM t TABLESAMPLE (10 ROWS)", "not of rows", "TABLESAMPLE"),
    ("SELECT a FROM t TABLESAMPLE (BUCKET 1 OUT OF 4)", "buckets", "TABLESAMPLE"),
    ("SELECT a FROM (SELECT a FROM t) TABLESAMPLE BERNOULLI (10)", "can be sampled", "TABLESAMPLE"),
    (
        "SELECT a FROM generate_series(1, 3) TABLESAMPLE BERNOULLI (10)",
        "can be sampled",
        "TABLESAMPLE",
    ),
    // Expressions.
    ("SELECT quantile(0.5)(a) FROM t", "one pair of parentheses", "quantile"),
    ("SELECT array_agg(a ORDER BY a LIMIT 1) FROM t", "takes no LIMIT", "LIMIT"),
    ("SELECT any_value(a HAVING MAX b) FROM t", "takes no HAVING", "HAVING"),
    (
        "SELECT listagg(b, ',' ON OVERFLOW TRUNCATE WITHOUT COUNT) FROM t",
        "takes no ON OVERFLOW",
        "ON OVERFLOW",
    ),
    ("SELECT group_concat(b SEPARATOR ',') FROM t", "takes no SEPARATOR", "SEPARATOR"),
    ("SELECT count(* EXCLUDE (a)) FROM t", "follow *", "count"),
    ("SELECT a COLLATE \"de\" FROM t", "COLLATE", "COLLATE"),
    ("SELECT CAST(a AS VARCHAR FORMAT 'x') FROM t", "FORMAT", "FORMAT"),
    ("SELECT b LIKE ANY ('x') FROM t", "LIKE ANY", "ANY"),
    ("SELECT ceil(a, 2) FROM t", "one value", "ceil"),
    ("SELECT CONVERT(a, CHAR) FROM t", "CONVERT", "CONVERT"),
    // INSERT: also into streams, which DataFusion's planner does not handle.
    ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "appends", "ON"),
    ("INSERT INTO t VALUES (1) RETURNING a", "returns no rows", "RETURNING"),
    ("INSERT OVERWRITE t VALUES (1)", "appends", "OVERWRITE"),
    ("INSERT INTO t PARTITION (a = 1) VALUES (1)", "PARTITION", "PARTITION"),
    ("INSERT OR IGNORE INTO t VALUES (1)", "appends", "OR"),
    ("INSERT OR REPLACE INTO t VALUES (1)", "appends", "OR"),
    ("INSERT IGNORE INTO t VALUES (1)", "appends", "IGNORE"),
    ("REPLACE INTO t VALUES (1)", "appends", "REPLACE"),
    ("INSERT INTO t DEFAULT VALUES", "needs VALUES", "INSERT"),
    ("INSERT INTO t SELECT a FROM u FOR UPDATE", "locks no rows", "FOR"),
    // Definitions.
    ("CREATE TABLE p (a INT PRIMARY KEY)", "PRIMARY KEY", "a"),
    ("CREATE TABLE p (a INT UNIQUE)", "UNIQUE", "a"),
    ("CREATE TABLE p (a INT CHECK (a > 0))", "CHECK", "a"),
    ("CREATE TABLE p (a INT REFERENCES t (a))", "REFERENCES", "a"),
    ("CREATE TABLE p (a INT, PRIMARY KEY (a))", "PRIMARY KEY", "PRIMARY KEY"),
    ("CREATE TABLE p (a INT, CONSTRAINT u UNIQUE (a))", "UNIQUE", "UNIQUE"),
    ("CREATE TABLE p (a INT, FOREIGN KEY (a) REFERENCES t (a))", "FOREIGN KEY", "FOREIGN KEY"),
    ("CREATE TABLE p (a INT, CHECK (a > 0))", "CHECK", "CHECK"),
    ("CREATE TABLE p (a INT, INDEX i (a))", "INDEX", "INDEX"),
    ("CREATE TABLE p (a INT GENERATED ALWAYS AS (1))", "GENERATED", "a"),
    ("CREATE TABLE p (a INT AUTO_INCREMENT)", "AUTO_INCREMENT", "a"),
    ("CREATE TABLE p (a VARCHAR COLLATE \"de\")", "COLLATE", "a"),
    ("CREATE TEMPORARY TABLE p (a INT)", "temporary", "CREATE"),
    ("CREATE TABLE p AS SELECT a FROM t FOR UPDATE", "locks no rows", "FOR"),
    ("CREATE EXTERNAL TABLE e (a INT PRIMARY KEY) STORED AS CSV LOCATION 'x'", "PRIMARY KEY", "a"),
    (
        "CREATE UNBOUNDED EXTERNAL TABLE e (a INT) STORED AS CSV LOCATION 'x'",
        "has an end",
        "UNBOUNDED",
    ),
    ("CREATE SCHEMA s WITH (a = 1)", "no options", "CREATE"),
    ("CREATE DATABASE d LOCATION 'x'", "no options", "CREATE"),
    ("CREATE INDEX i ON t (a)", "no indexes", "CREATE"),
    ("CREATE SEQUENCE q", "CREATE SEQUENCE", "CREATE"),
    ("DROP TEMPORARY TABLE t", "temporary", "TEMPORARY"),
    ("ALTER TABLE t ADD COLUMN c INT", "ALTER TABLE", "ALTER"),
    // The rest.
    ("BEGIN", "transactions", "BEGIN"),
    ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "transactions", "START"),
    ("COMMIT", "transactions", "COMMIT"),
    ("ROLLBACK", "transactions", "ROLLBACK"),
    ("SET (a, b) = (1, 2)", "form of SET", "SET"),
    ("SHOW COLUMNS FROM t LIKE 'a'", "no filter", "SHOW"),
    ("COPY (SELECT a FROM t FOR UPDATE) TO 'x.csv'", "locks no rows", "FOR"),
    ("EXPLAIN SELECT a FROM t FOR UPDATE", "locks no rows", "FOR"),
    ("CREATE VIEW v AS SELECT a FROM t FOR UPDATE", "locks no rows", "FOR"),
    ("CREATE MATERIALIZED VIEW v AS SELECT a FROM t SETTINGS x = 1", "SETTINGS", "SETTINGS"),
    ("PREPARE q AS SELECT a FROM t FOR UPDATE", "locks no rows", "FOR"),
    ("GRANT SELECT ON t TO bob", "GRANT", "GRANT"),
    ("USE x", "USE", "USE"),
    ("ANALYZE t", "ANALYZE", "ANALYZE"),
];

#[test]
fn what_would_be_forgotten_is_refused() {
    let mut wrong = vec![];
    for (sql, message, at) in REFUSED {
        let Err(error) = parse(sql) else {
            wrong.push(format!("{sql}: is read"));
            continue;
        };
        let place = error.place().map(|place| pointed(sql, Some(place)));
        if !error.message().contains(message) || place.as_deref() != Some(at) {
            wrong.push(format!("{sql}: {:?} at {place:?}", error.message()));
        } else if error.hints().is_empty() {
            wrong.push(format!("{sql}: {:?} has no hint", error.message()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_kept_is_read() {
    for sql in [
        "WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM x WHERE a < 3) SELECT * FROM x",
        "SELECT DISTINCT ON (b) b, a FROM t ORDER BY b, a DESC NULLS FIRST",
        "SELECT sum(a) FILTER (WHERE a > 1), array_agg(b ORDER BY a DESC NULLS LAST) FROM t",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t",
        "SELECT first_value(a) IGNORE NULLS OVER (ORDER BY a NULLS FIRST ROWS 1 PRECEDING) FROM t",
        "SELECT a FROM t GROUP BY ROLLUP (a) HAVING count(*) > 1 QUALIFY rank() OVER (ORDER BY a) = 1",
        "SELECT a FROM t GROUP BY GROUPING SETS ((a), ())",
        "SELECT * EXCLUDE (a) REPLACE (b + 1 AS b) FROM t LIMIT 1, 1",
        "SELECT a FROM t UNION ALL BY NAME SELECT b, a FROM t",
        "SELECT a FROM t TABLESAMPLE BERNOULLI (10) REPEATABLE (7)",
        "SELECT a FROM t AS x TABLESAMPLE (10 PERCENT)",
        "SELECT a FROM t LEFT JOIN LATERAL (SELECT b FROM u WHERE u.a = t.a) AS x ON true",
        "SELECT a FROM t AS x (a, b) SEMI JOIN u USING (a)",
        "FROM t |> WHERE a > 1 |> AGGREGATE sum(a) AS s GROUP BY b |> ORDER BY s |> LIMIT 1",
        "VALUES (1), (2)",
        "CREATE TABLE p (a INT NOT NULL DEFAULT 5, b INT NULL COMMENT 'x')",
        "CREATE TABLE IF NOT EXISTS p AS SELECT 1 AS a",
        "DROP TABLE IF EXISTS t CASCADE",
        "DELETE FROM t WHERE a = 1",
        "UPDATE t SET a = 1 WHERE a = 2",
        "PREPARE q AS SELECT $1 + 1",
        "EXECUTE q(1)",
        "DEALLOCATE q",
        "CREATE SCHEMA IF NOT EXISTS s",
        "SHOW FUNCTIONS LIKE 'upper'",
    ] {
        if let Err(error) = parse(sql) {
            panic!("{sql}\n{}", error.render(sql));
        }
    }
}
