//! Functions of the embedding program, and models of remote users.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::logical_expr::{AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udf};
use futures::TryStreamExt;
use futures::executor::block_on;

use crate::{Access, Engine, EngineConfig, Grant, Outcome, Role, Session, SessionOptions};

/// A function that doubles.
fn doubling(name: &str) -> Arc<ScalarUDF> {
    let each = |args: &[ColumnarValue]| -> datafusion::common::Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(args)?;
        let doubled: Int64Array = columns[0].as_primitive::<Int64Type>().unary(|n| n * 2);
        Ok(ColumnarValue::Array(Arc::new(doubled)))
    };
    let int = DataType::Int64;
    Arc::new(create_udf(name, vec![int.clone()], int, Volatility::Immutable, Arc::new(each)))
}

/// `last_sum` is `sum` under another name.
fn summing() -> Arc<AggregateUDF> {
    let sum = datafusion::functions_aggregate::sum::sum_udaf();
    Arc::new(sum.as_ref().clone().with_aliases(["total"]))
}

fn config(dir: Option<&Path>, functions: Vec<Arc<ScalarUDF>>) -> EngineConfig {
    let data_dir = dir.map(Path::to_path_buf);
    EngineConfig { data_dir, functions, ..EngineConfig::default() }
}

/// The rows as text, or the error.
fn ask(session: &Session, sql: &str) -> Result<String, String> {
    let rows = block_on(async {
        match session.run(sql).await? {
            Outcome::Rows(rows) => rows.try_collect().await,
            Outcome::Done(_) => Ok(vec![]),
        }
    });
    let shown = |rows: Vec<_>| arrow::util::pretty::pretty_format_batches(&rows).unwrap();
    rows.map(|rows| shown(rows).to_string()).map_err(|e| e.render(""))
}

fn local(engine: &Engine) -> Session {
    engine.session(SessionOptions { push_ends: true }).unwrap()
}

const CREATE: &str = "CREATE STREAM s (n BIGINT, ts TIMESTAMP, WATERMARK FOR ts)";
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS \
                    SELECT window_end, sum(twice(n)) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') \
                    WHERE twice(n) > 2 GROUP BY window_start, window_end HAVING twice(count(*)) > 1";

#[test]
fn names_are_taken_once() {
    let open = |functions| Engine::open(config(None, functions)).unwrap_err().render("");
    assert!(open(vec![doubling("abs")]).contains("function \"abs\" of the program exists already"));
    assert!(open(vec![doubling("tumble")]).contains("exists already"));
    assert!(open(vec![doubling("cast")]).contains("exists already"));
    assert!(open(vec![doubling("twice"), doubling("twice")]).contains("\"twice\" of the program"));
    assert!(open(vec![doubling("Twice")]).contains("is called \"Twice\""));
    assert!(open(vec![doubling("a b")]).contains("is called \"a b\""));
    let aggregates = vec![summing()];
    let taken = Engine::open(EngineConfig { aggregates, ..EngineConfig::default() }).unwrap_err();
    assert!(taken.message().contains("\"sum\" of the program exists already"));

    let session = local(&Engine::open(config(None, vec![doubling("twice")])).unwrap());
    let sql = "CREATE FUNCTION twice(n BIGINT) AS 'n + n'";
    assert!(ask(&session, sql).unwrap_err().contains("\"twice\" is a function that is built in"));
}

/// They are listed, and without a grant unknown, as those of CREATE FUNCTION are.
#[test]
fn a_function_needs_a_grant() {
    let engine =
        Engine::open(config(None, vec![doubling("twice"), doubling("double_it")])).unwrap();
    assert!(ask(&local(&engine), "SHOW FUNCTIONS LIKE 'twice'").unwrap().contains("twice(…)"));
    let grants = vec![Grant::new(Role::Read, "twice").unwrap()];
    let remote =
        engine.session_of(SessionOptions::default(), Access::remote("ann", grants)).unwrap();
    assert!(ask(&remote, "SELECT twice(21) AS n").unwrap().contains("42"));
    let refused = ask(&remote, "SELECT double_it(21) AS n").unwrap_err();
    assert!(refused.contains("unknown function \"double_it\""), "{refused}");
    let listed = ask(&remote, "SHOW FUNCTIONS LIKE '%t%'").unwrap();
    assert!(listed.contains("twice") && !listed.contains("double_it"), "{listed}");
}

#[test]
fn a_view_needs_its_functions_at_each_start() {
    let dir = tempfile::tempdir().unwrap();
    let open = |functions| Engine::open(config(Some(dir.path()), functions)).unwrap();
    let engine = open(vec![doubling("twice")]);
    let session = local(&engine);
    ask(&session, CREATE).unwrap();
    ask(&session, VIEW).unwrap();
    ask(&session, "INSERT INTO s VALUES (1, '2026-01-01 00:00:01'), (5, '2026-01-01 00:00:02'), (7, '2026-01-01 00:01:02')")
        .unwrap();
    block_on(engine.close()).unwrap();
    drop((session, engine));

    let engine = open(vec![]);
    let broken = ask(&local(&engine), "SELECT * FROM v").unwrap_err();
    assert!(broken.contains("unknown function \"twice\""), "{broken}");
    assert!(broken.contains("open the data directory with it"), "{broken}");
    block_on(engine.close()).unwrap();
    drop(engine);

    let engine = open(vec![doubling("twice")]);
    let session = local(&engine);
    ask(&session, "INSERT INTO s VALUES (1, '2026-01-01 00:05:00')").unwrap();
    ask(&session, "WAIT FOR v").unwrap();
    let rows = ask(&session, "SELECT n FROM v ORDER BY window_end").unwrap();
    assert!(rows.contains("| 10 |\n| 14 |"), "{rows}");
    block_on(engine.close()).unwrap();
}

/// A model of a remote user: from an allowed place only, by those with a grant only.
#[test]
fn a_model_needs_a_grant_and_an_allowed_path() {
    let dir = tempfile::tempdir().unwrap();
    let (data, outside) = (dir.path().join("data"), dir.path().join("outside.onnx"));
    let linear = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/linear.onnx");
    let files = crate::Files::below(Some(&data), &[]).unwrap();
    std::fs::copy(&linear, data.join("files/m.onnx")).unwrap();
    std::fs::copy(&linear, &outside).unwrap();
    let config = || EngineConfig { files: Some(files.clone()), ..config(Some(&data), vec![]) };
    let engine = Engine::open(config()).unwrap();
    let session = |role, pattern: &str| {
        let grants = vec![Grant::new(role, pattern).unwrap()];
        engine.session_of(SessionOptions::default(), Access::remote("ann", grants)).unwrap()
    };
    let admin = session(Role::Admin, "*");
    let create =
        |path: &str| ask(&admin, &format!("CREATE OR REPLACE MODEL m WITH (path = '{path}')"));
    let refused = create(&outside.display().to_string()).unwrap_err();
    assert!(refused.contains("outside.onnx"), "{refused}");
    assert!(create("../catalog.json").unwrap_err().contains("catalog.json"));
    create("m.onnx").unwrap();
    assert!(
        ask(&session(Role::Read, "m"), "SELECT predict(m, 1, 2) AS y").unwrap().contains("9.0")
    );
    let other = session(Role::Write, "other");
    let unknown = ask(&other, "SELECT predict(m, 1, 2) AS y").unwrap_err();
    assert!(unknown.contains("model \"m\" does not exist"), "{unknown}");
    assert!(!ask(&other, "SHOW MODELS").unwrap().contains("features"));
    assert!(ask(&other, "DESCRIBE m").unwrap_err().contains("needs the role read"));
    let refused = ask(&session(Role::Write, "m"), "DROP MODEL m").unwrap_err();
    assert!(refused.contains("needs the role admin"), "{refused}");
    drop((admin, other));
    block_on(engine.close()).unwrap();
    drop(engine);

    // Its bytes are in the data directory now.
    std::fs::remove_file(data.join("files/m.onnx")).unwrap();
    let engine = Engine::open(config()).unwrap();
    assert!(ask(&local(&engine), "SELECT predict(m, 1, 2) AS y").unwrap().contains("9.0"));
    block_on(engine.close()).unwrap();
}
