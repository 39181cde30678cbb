//! A function that panics, in every kind of execution: a panic below a statement or a view is its error, and never an
//! empty answer.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::cast::as_int32_array;
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use libtest_mimic::{Failed, Trial};
use tonic::Code;
use windrow_core::Limits;
use windrow_engine::EngineConfig;

use crate::flight::{Served, fetch};
use crate::talk::{Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("panics/a bounded statement fails", bounded),
        trial("panics/a continuous query fails", continuous),
        trial("panics/a view fails alone, and to its readers", views),
        trial("panics/a replay and an archive fail", kept),
        trial("panics/a client is told", flight),
    ]
}

const TOLD: &str = "stopped at a panic: thirteen";
/// What the other partitions of a join are told when the side that they share panics; which of them fails first is chance.
const SHARED: &str = "stopped at a panic: inner future panicked during poll";

/// `explode(k)` is `k`, unless that is 13.
fn explode() -> ScalarUDF {
    let each = |args: &[ColumnarValue]| -> EngineResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        for array in &arrays {
            let thirteen = as_int32_array(array)?.iter().any(|k| k == Some(13));
            assert!(!thirteen, "thirteen");
        }
        Ok(ColumnarValue::Array(Arc::clone(&arrays[0])))
    };
    let int = DataType::Int32;
    create_udf("explode", vec![int.clone()], int, Volatility::Immutable, Arc::new(each))
}

fn config(threads: usize, dir: Option<&Path>) -> EngineConfig {
    EngineConfig {
        limits: Limits { threads, ..Limits::default() },
        data_dir: dir.map(Path::to_owned),
        functions: vec![Arc::new(explode())],
        ..EngineConfig::default()
    }
}

/// A stream with the rows 1 to 20, a second apart.
fn talk(config: EngineConfig) -> Result<Talk, Refusal> {
    let talk = Talk::open(config)?;
    talk.ask("CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)")?;
    fill(&talk, 1..21)?;
    Ok(talk)
}

fn fill(talk: &Talk, ks: std::ops::Range<u32>) -> Result<(), Refusal> {
    let rows: Vec<String> =
        ks.map(|k| format!("({k}, TIMESTAMP '2026-01-01 00:00:{:02}')", k % 60)).collect();
    talk.ask(&format!("INSERT INTO s VALUES {}", rows.join(", "))).map(drop)
}

/// All of these fail with the panic.
fn fail(talk: &Talk, statements: &[&str]) -> Result<(), Failed> {
    for sql in statements {
        match talk.ask(sql) {
            Err(Refusal(why)) if why.contains(TOLD) || why.contains(SHARED) => {}
            Err(Refusal(why)) => return Err(format!("{sql}: {why}").into()),
            Ok(_) => return Err(format!("{sql} has an answer").into()),
        }
    }
    Ok(())
}

fn bounded() -> Result<(), Failed> {
    for threads in [1, 4] {
        let dir = tempfile::tempdir()?;
        let talk = talk(config(threads, None))?;
        let copy =
            format!("COPY (SELECT explode(k) AS k FROM s) TO '{}/a.csv'", dir.path().display());
        fail(
            &talk,
            &[
                "SELECT explode(k) FROM s",
                "SELECT explode(k) AS e, count(*) FROM s GROUP BY e ORDER BY e",
                "SELECT k % 3 AS r, sum(explode(k)) FROM s GROUP BY r ORDER BY r",
                "SELECT DISTINCT explode(k) FROM s",
                "SELECT k FROM s ORDER BY explode(k) DESC LIMIT 3",
                "SELECT sum(explode(k)) OVER (PARTITION BY k % 3 ORDER BY k) FROM s",
                "SELECT k FROM s UNION ALL SELECT explode(k) FROM s",
                "SELECT k FROM s WHERE k = (SELECT max(explode(k)) FROM s)",
                "SELECT k FROM s WHERE explode(k) IN (SELECT k FROM s WHERE k > 12)",
                "SELECT count(*) FROM s WHERE explode(k) > 0",
                "SELECT a.k FROM s AS a JOIN s AS b ON explode(a.k) = explode(b.k)",
                "SELECT window_end, count(explode(k)) FROM TUMBLE(s, ts, INTERVAL '5 seconds') \
                 GROUP BY window_start, window_end",
                "CREATE TABLE t AS SELECT explode(k) AS k FROM s",
                "INSERT INTO s SELECT explode(k), ts FROM s",
                "EXPLAIN ANALYZE SELECT explode(k) FROM s",
                // In the planner.
                "SELECT explode(CAST(13 AS INT))",
                &copy,
            ],
        )?;
        let left = talk.rows("SELECT count(*) FROM s WHERE explode(CAST(k % 13 AS INT)) >= 0")?;
        assert_eq!(left, [["20"]]);
    }
    Ok(())
}

fn continuous() -> Result<(), Failed> {
    for threads in [1, 4] {
        let talk = talk(config(threads, None))?;
        fail(
            &talk,
            &[
                "SELECT explode(k) FROM s EMIT CHANGES",
                // Prepare, finish, a nested stage, a stage that two streams feed.
                "SELECT window_end, sum(explode(k)) FROM TUMBLE(s, ts, INTERVAL '5 seconds') \
                 GROUP BY window_start, window_end EMIT FINAL",
                "SELECT window_end, explode(max(k)) FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end EMIT FINAL",
                "SELECT window_end, count(*) FROM TUMBLE((SELECT explode(max(k)) AS k, window_time FROM \
                 TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end, window_time), \
                 window_time, INTERVAL '5 seconds') WHERE k > 0 GROUP BY window_start, window_end EMIT FINAL",
                "SELECT a.k FROM TUMBLE(s, ts, INTERVAL '5 seconds') AS a JOIN TUMBLE(s, ts, INTERVAL '5 \
                 seconds') AS b ON explode(a.k) = b.k AND a.window_start = b.window_start AND \
                 a.window_end = b.window_end EMIT FINAL",
            ],
        )?;
    }
    Ok(())
}

fn views() -> Result<(), Failed> {
    let talk = talk(config(2, None))?;
    for (name, column) in [("bad", "explode(k)"), ("good", "k")] {
        talk.ask(&format!(
            "CREATE MATERIALIZED VIEW {name} AS SELECT window_end, sum({column}) AS n FROM \
             TUMBLE(s, ts, INTERVAL '5 seconds') GROUP BY window_start, window_end"
        ))?;
    }
    fail(&talk, &["WAIT FOR bad"])?;
    talk.ask("WAIT FOR good")?;
    let good = talk.rows("SELECT n FROM good ORDER BY window_end")?;
    assert_eq!(good, [["10"], ["35"], ["60"], ["85"]]);
    let states = talk.rows("SELECT name, status FROM windrow.queries ORDER BY name")?;
    assert_eq!(states[..2], [["bad", "failed"], ["good", "running"]]);
    Ok(())
}

fn kept() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let first = talk(config(2, Some(dir.path())))?;
    first.ask(
        "CREATE MATERIALIZED VIEW v AS SELECT max(k) AS k, window_time FROM TUMBLE(s, ts, INTERVAL \
         '1 second') GROUP BY window_start, window_end, window_time",
    )?;
    first.ask("WAIT FOR v")?;
    first.close()?;
    // Read from its archive.
    let talk = Talk::open(config(2, Some(dir.path())))?;
    talk.ask("CREATE STREAM r WITH (connector = 'replay', of = 's')")?;
    fail(
        &talk,
        &[
            "SELECT explode(k) FROM v",
            "SELECT explode(k) FROM v EMIT CHANGES",
            "SELECT explode(k) FROM r",
            "SELECT window_end, sum(explode(k)) FROM TUMBLE(r, ts, INTERVAL '5 seconds') \
             GROUP BY window_start, window_end EMIT FINAL",
        ],
    )
}

fn flight() -> Result<(), Failed> {
    let served = Served::with(config(2, None))?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        client.execute_update("CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)".into(), None).await?;
        let values = "INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:01'), (13, TIMESTAMP '2026-01-01 00:00:02')";
        client.execute_update(values.into(), None).await?;
        for sql in ["SELECT explode(k) FROM s", "SELECT explode(k) FROM s EMIT CHANGES"] {
            let info = client.execute(sql.to_owned(), None).await?;
            let told = fetch(&mut client, &info).await.err().ok_or("it has an answer")?;
            let told = told.message().unwrap_or_default().to_owned();
            assert!(told.contains(TOLD), "{sql}: {told}");
        }
        let update = "INSERT INTO s SELECT explode(k), ts FROM s";
        let refused = client.execute_update(update.into(), None).await.err().ok_or("it is done")?;
        let told = refused.to_string();
        assert!(told.contains(TOLD), "{told}");
        let status = tonic::Status::new(Code::Internal, "");
        assert!(told.to_lowercase().contains("internal"), "{told} is no {status}");
        Ok(())
    })
}
