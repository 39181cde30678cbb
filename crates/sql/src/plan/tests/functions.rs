//! Functions within bounds: an excess is refused with the number and the limit; other results are those without bounds.

use arrow::util::pretty::pretty_format_batches;
use datafusion::common::DataFusionError;
use windrow_core::{Budget, Error, ErrorKind};

use super::*;
use crate::diagnostics::from_datafusion;
use crate::parse::parse_one;
use crate::plan::function_sizes::SLOW;
use crate::plan::functions::WRAPPED;
use crate::plan::{session_state, unbound};

/// Runs a query with a budget of this many bytes; returns its rows as text.
async fn run(sql: &str, bytes: usize) -> Result<String, Error> {
    // On one thread, because only the engine's runtime passes the budget on to further tasks.
    let config = SessionConfig::new().with_target_partitions(1);
    let state = session_state(config, Arc::new(RuntimeEnv::default()))?;
    let context = SessionContext::new_with_state(state);
    let sql = sql.to_owned();
    let work = async move {
        let rows = context.sql(&sql).await?.collect().await?;
        Ok::<_, DataFusionError>(pretty_format_batches(&rows)?.to_string())
    };
    Budget::new(bytes).within(Box::pin(work)).await.map_err(from_datafusion)
}

/// The same without bounds.
async fn unbounded(sql: &str) -> String {
    let rows = SessionContext::new().sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&rows).unwrap().to_string()
}

async fn refused(sql: &str, bytes: usize, number: &str) {
    match run(sql, bytes).await {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Limit, "{sql}: {error}");
            assert!(error.message().contains(number), "{sql}: {error}");
            assert!(!error.hints().is_empty(), "{sql}: {error}");
        }
        Ok(rows) => panic!("{sql} is done: {rows}"),
    }
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_constant_is_refused_before_it_is_made() {
    for sql in [
        "SELECT repeat('x', 20000000)",
        "SELECT concat(repeat('x', 6000000), repeat('y', 6000000))",
        "SELECT repeat('x', 6000000) || repeat('y', 6000000)",
        "SELECT cardinality(range(1, 1000000000))",
        "SELECT generate_series(TIMESTAMP '2020-01-01', TIMESTAMP '2021-01-01', INTERVAL '1 second')",
        "SELECT cardinality(array_repeat(array_repeat(1, 100000), 100000))",
    ] {
        refused(sql, 10 * MIB, "10485760 bytes").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_results_over_columns_are_refused_batch_by_batch() {
    for of in [
        "length(repeat(s, 1000000))",
        "length(repeat(s, n * 1000))",
        "length(lpad(s, 100000, 'x'))",
        "length(rpad(s, n * 1000, 'é'))",
        "length(replace(repeat(s, 100), '1', repeat('y', 1000)))",
        "length(regexp_replace(repeat(s, 100), '[0-9]', repeat('y', 1000), 'g'))",
        "length(concat(repeat(s, 300), repeat(s, 300)))",
        "length(concat_ws('-', repeat(s, 300), repeat(s, 300)))",
        "length(repeat(s, 300) || repeat(s, 300))",
        "length(array_to_string(range(0, 100), repeat(s, 100)))",
        "cardinality(string_to_array(repeat(s, 200), ''))",
        "cardinality(range(0, n * 1000))",
        "cardinality(generate_series(0, n * 1000))",
        "cardinality(array_repeat(n, 1000))",
        "cardinality(array_repeat(s, n))",
        "cardinality(array_resize([n], 1000, n))",
        "cardinality(array_concat(range(n, n + 100), range(n, n + 100)))",
        "cardinality(array_union(range(0, 100), range(n, n + 100)))",
    ] {
        let sql = format!(
            "SELECT sum({of}) FROM (SELECT value AS n, CAST(value AS VARCHAR) AS s FROM range(1, 8193))"
        );
        refused(&sql, 10 * MIB, "10485760 bytes").await;
    }
}

/// Whatever the budget of the statement: a value, and a column of one batch, have limits of their own, and so has work
/// that cannot be interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_budget_would_refuse_is_refused_all_the_same() {
    let t = "(SELECT value AS n, CAST(value AS VARCHAR) AS s FROM range(1, 3))";
    for (of, number) in [
        ("length(repeat(s, 3000000000))", "3000000000 bytes"),
        ("length(lpad(s, 2147483647, 'é'))", "8589934589 bytes"),
        ("cardinality(range(0, n * 4000000000))", "32000000008 bytes"),
        ("levenshtein(repeat(s, 100000), repeat(s, 100001))", "steps for one row"),
        (
            "CAST(array_has_any(range(0, 100000), range(n * 200000, n * 300000)) AS INT)",
            "steps for one row",
        ),
    ] {
        refused(&format!("SELECT sum({of}) FROM {t}"), 1 << 50, number).await;
    }
    refused("SELECT repeat('x', 3000000000)", 1 << 50, "3000000000 bytes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_is_the_same_in_pieces() {
    // 10 MB of texts, so that functions work piece by piece; and one that is longer than all others together.
    let t = "(SELECT value AS n, repeat(CAST(value AS VARCHAR), CASE WHEN value = 7 THEN 3000000 ELSE 1000 END) AS s \
             FROM range(1, 2100)) t";
    let sql = format!(
        "SELECT sum(length(concat(s, '-', s))), max(md5(s)), min(reverse(upper(s))), \
         sum(length(replace(s, '1', 'one'))), sum(length(s || s)), max(n || s || NULL), max(left('-' || s, 9)), \
         sum(cardinality(range(0, n))), sum(length(lpad(s, 5, '0'))), \
         count(*) FILTER (WHERE regexp_like(s, '^7')), sum(cardinality(array_distinct(range(0, n)))) FROM {t}"
    );
    let (found, wanted) = (run(&sql, 4 << 30).await.unwrap(), unbounded(&sql).await);
    let row = |table: &str| table.lines().nth(3).map(str::to_owned);
    assert_eq!(row(&found), row(&wanted));
}

/// If each search goes to the end of the text, all of them together are quadratic in its length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_for_all_matches_can_be_ended() {
    for of in [
        "regexp_count(x, '.*[^a]|a')",
        "regexp_instr(x, '.*[^a]|a', 1, 900000)",
        "length(regexp_replace(x, '.*[^a]|a', 'b', 'g'))",
    ] {
        let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default())).unwrap();
        let context = SessionContext::new_with_state(state);
        let sql = format!("SELECT {of} FROM (VALUES (repeat('a', 1000000))) AS t (x)");
        let work = async move { context.sql(&sql).await?.collect().await };
        let budget = Budget::new(1 << 30);
        let task = tokio::spawn(budget.within(Box::pin(work)));
        // Without an interruption it would take hours.
        tokio::task::yield_now().await;
        budget.end();
        let error = from_datafusion(task.await.unwrap().unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{of}: {error}");
    }
    let sql = "SELECT regexp_count(x, 'ab', 1, 'i'), length(regexp_replace(x, 'AB', 'c', 'gi')), \
               regexp_instr(x, 'b', 1, 3) FROM (VALUES (repeat('ab', 50000)), (repeat('b', 70000)), ('ab'), (NULL)) AS t (x)";
    assert_eq!(run(sql, 1 << 30).await.unwrap(), unbounded(sql).await);
}

#[tokio::test]
async fn the_operator_keeps_its_names_and_types() {
    let sql =
        "SELECT 'a' || 'b', x || 'c', NULL || x, x || 1 AS y FROM (VALUES ('q'), (NULL)) AS t (x)";
    assert_eq!(run(sql, MIB).await.unwrap(), unbounded(sql).await);
}

#[tokio::test]
async fn a_statement_that_is_over_stops() {
    let budget = Budget::new(1 << 30);
    budget.end();
    let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default())).unwrap();
    let Statement::Query(query) = parse_one("SELECT 1").unwrap().statement else {
        panic!("no query")
    };
    let work = async move { unbound(&state, *query.query).await };
    let error = budget.within(Box::pin(work)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn the_lists_are_sorted_so_that_one_is_found() {
    assert!(WRAPPED.is_sorted() && SLOW.is_sorted());
    assert!(SLOW.iter().all(|name| WRAPPED.contains(name)));
}
