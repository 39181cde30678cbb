//! Rows from outside: matched by name, counted once.

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use futures::executor::block_on;

use super::*;
use crate::Engine;
use crate::{Access, EngineConfig, Grant, Outcome, SessionOptions};

fn engine(dir: Option<&std::path::Path>) -> Engine {
    let data_dir = dir.map(std::path::Path::to_path_buf);
    Engine::open(EngineConfig { data_dir, ..EngineConfig::default() }).unwrap()
}

fn run(engine: &Engine, sql: &str) -> Vec<RecordBatch> {
    let session = engine.session(SessionOptions::default()).unwrap();
    block_on(async {
        match session.run(sql).await.unwrap() {
            Outcome::Rows(rows) => rows.try_collect().await.unwrap(),
            Outcome::Done(_) => vec![],
        }
    })
}

fn number(engine: &Engine, sql: &str) -> i64 {
    run(engine, sql)[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn send(engine: &Engine, rows: RecordBatch, id: Option<(&str, u64)>) -> Result<Pushed> {
    let id = id.map(|(producer, sequence)| BatchId { producer: producer.into(), sequence });
    let ingest = engine.session(SessionOptions::default())?.ingest("s", &rows.schema())?;
    block_on(async { ingest.offer(vec![rows], id.as_ref()).await?.settled().await })
}

#[test]
fn columns_are_matched_by_name() {
    let engine = engine(None);
    run(
        &engine,
        "CREATE STREAM s (k TEXT, n BIGINT NOT NULL, twice BIGINT GENERATED ALWAYS AS (n * 2))",
    );
    let pushed = send(&engine, batch(vec![("n", ints(&[4]))]), None).unwrap();
    assert_eq!(pushed, Pushed { rows: 1, bad: 0, repeated: false, in_1970: false });
    assert_eq!(number(&engine, "SELECT twice FROM s WHERE k IS NULL AND n = 4"), 8);

    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let none: ArrayRef = Arc::new(Int32Array::from(vec![None]));
    let list: ArrayRef = Arc::new(arrow::array::StructArray::from(vec![(
        Arc::new(arrow::datatypes::Field::new("f", arrow::datatypes::DataType::Int64, true)),
        Arc::clone(&wide),
    )]));
    for (columns, says) in [
        (vec![("nn", ints(&[1]))], "stream \"s\" has no column \"nn\""),
        (vec![("k", Arc::clone(&text))], "column \"n\" of stream \"s\" is NOT NULL, and was not"),
        (vec![("n", none)], "column \"n\" of stream \"s\" is NOT NULL"),
        (vec![("n", text)], "column \"n\" of stream \"s\" is BIGINT"),
        (vec![("n", list)], "column \"n\" of stream \"s\" is BIGINT, and STRUCT("),
        (vec![("n", ints(&[1])), ("n", wide)], "column \"n\" is given twice"),
        (vec![("n", ints(&[1])), ("twice", ints(&[2]))], "column \"twice\" of stream \"s\" is gen"),
    ] {
        let error = send(&engine, batch(columns), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.message().contains(says), "{error}");
    }
    assert_eq!(number(&engine, "SELECT count(*) FROM s"), 1);
    let missing = engine
        .session(SessionOptions::default())
        .unwrap()
        .ingest("t", &Schema::empty())
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn a_batch_that_is_sent_again_counts_once() {
    let tmp = tempfile::tempdir().unwrap();
    for dir in [None, Some(tmp.path())] {
        let mut engine = engine(dir);
        run(&engine, "CREATE STREAM s (n INT, ts TIMESTAMP, WATERMARK FOR ts)");
        let times = |n: &[i64]| -> ArrayRef {
            Arc::new(arrow::array::TimestampNanosecondArray::from(n.to_vec()))
        };
        // The second row is far in the future: bad.
        let rows = || batch(vec![("n", ints(&[1, 2, 3])), ("ts", times(&[1, i64::MAX, 3]))]);
        let new = Pushed { rows: 2, bad: 1, repeated: false, in_1970: true };
        let again = Pushed { rows: 0, bad: 0, repeated: true, in_1970: false };
        assert_eq!(send(&engine, rows(), Some(("p", 1))).unwrap(), new);
        assert_eq!(send(&engine, rows(), Some(("p", 1))).unwrap(), again);
        assert_eq!(number(&engine, "SELECT count(*) FROM windrow.bad_rows"), 1);
        // All rows are bad.
        let bad = batch(vec![("ts", times(&[i64::MAX]))]);
        let none = Pushed { rows: 0, bad: 1, repeated: false, in_1970: false };
        assert_eq!(send(&engine, bad.clone(), Some(("p", 2))).unwrap(), none);
        assert_eq!(send(&engine, bad, Some(("p", 2))).unwrap(), again);
        let gap = send(&engine, rows(), Some(("p", 4))).unwrap_err();
        assert!(gap.message().contains("sent batch 4, but batch 3 is next"), "{gap}");
        if dir.is_some() {
            block_on(engine.close()).unwrap();
            drop(engine);
            engine = self::engine(dir);
            assert_eq!(send(&engine, rows(), Some(("p", 2))).unwrap(), again);
        }
        assert_eq!(send(&engine, rows(), Some(("p", 3))).unwrap(), new);
        assert_eq!(number(&engine, "SELECT count(*) FROM s"), 4);
    }
}

#[test]
fn a_stream_that_is_replaced_takes_no_rows_for_the_old_one() {
    let engine = engine(None);
    run(&engine, "CREATE STREAM s (n INT)");
    let rows = batch(vec![("n", ints(&[1]))]);
    let session = engine.session(SessionOptions::default()).unwrap();
    let ingest = session.ingest("s", &rows.schema()).unwrap();
    run(&engine, "CREATE OR REPLACE STREAM s (n INT)");
    let error = block_on(ingest.offer(vec![rows], None)).unwrap_err();
    assert!(error.message().contains("was replaced"), "{error}");
}

#[test]
fn who_may_only_read_sends_nothing() {
    let engine = engine(None);
    run(&engine, "CREATE STREAM s (n INT)");
    let grants = vec![Grant::new(Role::Read, "*").unwrap(), Grant::new(Role::Write, "t").unwrap()];
    let access = Access::remote("ann", grants);
    let session = engine.session_of(SessionOptions::default(), access).unwrap();
    assert_eq!(session.ingest("s", &Schema::empty()).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(session.ingest("t", &Schema::empty()).unwrap_err().kind(), ErrorKind::NotFound);
}
