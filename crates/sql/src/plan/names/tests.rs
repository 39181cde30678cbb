//! Names of columns without an alias.

use datafusion::prelude::SessionContext;
use futures::executor::block_on;
use sqlparser::ast::Statement;
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::name_columns;
use crate::plan::statement;

async fn columns(context: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let parsed = Parser::parse_sql(&GenericDialect {}, sql).unwrap().remove(0);
    let parsed = datafusion::sql::parser::Statement::Statement(Box::new(parsed));
    let plan = statement(&context.state(), parsed).await.map_err(|e| e.to_string())?;
    // The optimizer must accept it too.
    let plan = context.state().optimize(&plan).map_err(|e| e.to_string())?;
    Ok(plan.schema().fields().iter().map(|field| field.name().clone()).collect())
}

async fn context() -> SessionContext {
    let context = SessionContext::new();
    for sql in [
        "CREATE TABLE t (a INT, b INT, \"Big\" INT, s STRUCT<x INT>) AS VALUES (1, 2, 3, {x: 4})",
        "CREATE TABLE u (a INT, c INT) AS VALUES (1, 2)",
    ] {
        context.sql(sql).await.unwrap();
    }
    context
}

#[test]
fn a_column_is_called_by_its_text() {
    block_on(async {
        let context = context().await;
        let mut wrong = vec![];
        for (sql, names) in [
            ("SELECT 1", "1"),
            ("SELECT 'x', NULL, -1", "'x'|NULL|-1"),
            ("SELECT count(*) FROM t", "count(*)"),
            ("SELECT COUNT(*), Sum(t.A), avg(t.a) FROM t", "count(*)|sum(a)|avg(a)"),
            ("SELECT a, t.a + 1, ((a * 2)) FROM t", "a|a + 1|a * 2"),
            ("SELECT CAST(t.a AS BIGINT), a::DOUBLE FROM t", "CAST(a AS BIGINT)|a::DOUBLE"),
            (
                "SELECT \"Big\", \"Big\" + 1, sum(t.\"Big\") FROM t GROUP BY 1, 2",
                "Big|\"Big\" + 1|sum(\"Big\")",
            ),
            ("SELECT s['x'] FROM t", "s['x']"),
            ("SELECT sum(a) AS total FROM t", "total"),
            ("SELECT *, a + 1 FROM u", "a|c|a + 1"),
            (
                "SELECT t.a, u.a, sum(t.a), sum(u.a), sum(b) FROM t, u GROUP BY t.a, u.a",
                "a|a|sum(t.a)|sum(u.a)|sum(b)",
            ),
            (
                "SELECT DISTINCT Upper('x'), t.a + 1 FROM t ORDER BY upper('x'), t.a + 1 DESC",
                "upper('x')|a + 1",
            ),
            ("SELECT t.a + u.a, t.a + b FROM t, u", "t.a + u.a|a + b"),
            ("SELECT max(a) - min(a) FROM t HAVING max(a) > 0", "max(a) - min(a)"),
            ("SELECT \"sum(a)\" + 1 FROM (SELECT sum(t.a) FROM t)", "\"sum(a)\" + 1"),
            ("SELECT * FROM (SELECT sum(t.a) FROM t) AS x", "sum(a)"),
            ("WITH x AS (SELECT b, sum(a) FROM t GROUP BY b) SELECT * FROM x", "b|sum(a)"),
            ("SELECT a + 1 FROM t UNION ALL SELECT c FROM u", "a + 1"),
            ("SELECT b, sum(a) FROM t GROUP BY b ORDER BY sum(a) DESC LIMIT 1", "b|sum(a)"),
            ("SELECT a % 2, sum(b) FROM t GROUP BY a % 2 ORDER BY a % 2", "a % 2|sum(b)"),
            ("SELECT DISTINCT a + 1 FROM t ORDER BY a + 1", "a + 1"),
            (
                "SELECT rank() OVER (PARTITION BY t.b ORDER BY a) FROM t",
                "rank() OVER (PARTITION BY b ORDER BY a)",
            ),
            ("SELECT (SELECT max(c) FROM u) FROM t", "(SELECT max(c) FROM u)"),
            ("SELECT a IN (SELECT max(c) FROM u) FROM t", "a IN (SELECT max(c) FROM u)"),
            ("SELECT b, grouping(b) FROM t GROUP BY ROLLUP (b)", "b|grouping(b)"),
        ] {
            let found = columns(&context, sql).await.map(|found| found.join("|"));
            if found != Ok(names.to_owned()) {
                wrong.push((sql, found));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn parts_of_windows_are_columns() {
    let sql = "SELECT bids.window_start, sum(bids.price) FROM TUMBLE((SELECT * FROM bids), ts, 1)";
    let Statement::Query(mut query) = Parser::parse_sql(&GenericDialect {}, sql).unwrap().remove(0)
    else {
        panic!()
    };
    name_columns(&mut query);
    let named = "SELECT bids.window_start, sum(bids.price) AS \"sum(price)\" FROM";
    assert!(query.to_string().starts_with(named), "{query}");
}
