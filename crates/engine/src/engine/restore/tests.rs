//! Data directories that older versions have written.

use std::path::Path;

use futures::TryStreamExt;
use futures::executor::block_on;
use windrow_storage::directory::DataDirectory;
use windrow_storage::files::StdFiles;

use crate::durable::definitions::{Definitions, Kind};
use crate::{Engine, EngineConfig, Outcome, SessionOptions};

fn open(dir: &Path) -> Engine {
    let data_dir = Some(dir.to_path_buf());
    Engine::open(EngineConfig { data_dir, ..EngineConfig::default() }).unwrap()
}

/// The rows as text, or the error.
fn ask(engine: &Engine, sql: &str) -> Result<String, String> {
    let session = engine.session(SessionOptions { push_ends: true }).unwrap();
    let rows = block_on(async {
        match session.run(sql).await? {
            Outcome::Rows(rows) => rows.try_collect().await,
            Outcome::Done(_) => Ok(vec![]),
        }
    });
    let shown = |rows: Vec<_>| arrow::util::pretty::pretty_format_batches(&rows).unwrap();
    rows.map(|rows| shown(rows).to_string()).map_err(|e| e.render(""))
}

/// Rewrites the directory as a version of format 1 would have written it, with other texts.
fn made_old(dir: &Path, texts: &[(&str, &str)]) {
    let format = dir.join("FORMAT");
    let about = std::fs::read_to_string(&format).unwrap();
    let old = about.replace("\"unsaid_below\":0", "\"unsaid_below\":1000");
    assert_ne!(old, about);
    std::fs::write(&format, old).unwrap();
    let directory = DataDirectory::open(std::sync::Arc::new(StdFiles), dir).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    for (name, sql) in texts {
        definitions.retext(name, sql).unwrap();
    }
}

/// Clauses that were accepted and ignored, and TIMESTAMPTZ when it was a time without zone.
#[test]
fn what_was_accepted_once_is_opened() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, csv) = (tmp.path().join("data"), tmp.path().join("e.csv"));
    std::fs::write(&csv, "a\n5\n").unwrap();
    let external = |constraint: &str| {
        let csv = csv.display();
        format!(
            "CREATE EXTERNAL TABLE e (a INT{constraint}) STORED AS CSV LOCATION '{csv}' OPTIONS ('format.has_header' 'true')"
        )
    };
    let window = "SELECT window_start, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') \
                  GROUP BY window_start, window_end";
    let engine = open(&dir);
    for sql in [
        "CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)",
        &format!("CREATE MATERIALIZED VIEW v AS {window}"),
        "CREATE VIEW named AS SELECT k FROM s",
        "CREATE TABLE t (a INT)",
        "INSERT INTO t VALUES (1)",
        &external(""),
        "INSERT INTO s VALUES (1, '2026-01-01 12:00:00'), (2, '2026-01-01 12:05:00')",
        "WAIT FOR v",
    ] {
        ask(&engine, sql).unwrap();
    }
    let selects = ["s", "v", "named", "t", "e"].map(|name| format!("SELECT * FROM {name}"));
    let answers = |engine: &Engine| selects.each_ref().map(|sql| ask(engine, sql).unwrap());
    let before = answers(&engine);
    block_on(engine.close()).unwrap();
    drop(engine);
    made_old(
        &dir,
        &[
            ("s", "CREATE STREAM s (k INT, ts TIMESTAMPTZ, WATERMARK FOR ts)"),
            ("v", &format!("CREATE MATERIALIZED VIEW v AS {window} FOR UPDATE")),
            ("named", "CREATE VIEW named AS SELECT k FROM s FOR UPDATE"),
            ("t", "CREATE TABLE t (a INT PRIMARY KEY)"),
            ("e", &external(" UNIQUE")),
        ],
    );
    let engine = open(&dir);
    assert_eq!(answers(&engine), before);
    // It continues as it was; a new one must follow today's rules.
    ask(&engine, "INSERT INTO s VALUES (3, '2026-01-01 13:00:00')").unwrap();
    ask(&engine, "WAIT FOR v").unwrap();
    assert!(ask(&engine, "SELECT sum(n) AS n FROM v").unwrap().contains("| 2 "));
    let refused = ask(&engine, "CREATE TABLE u (a INT PRIMARY KEY)").unwrap_err();
    assert!(refused.contains("PRIMARY KEY"), "{refused}");
}

/// Objects of versions with the planner's names of columns keep these names.
#[test]
fn columns_keep_the_names_that_they_were_made_with() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = open(tmp.path());
    ask(&engine, "CREATE STREAM s (n INT, ts TIMESTAMP, WATERMARK FOR ts)").unwrap();
    block_on(engine.close()).unwrap();
    drop(engine);
    let query = "SELECT s.n, s.n + 1 FROM s";
    let directory = DataDirectory::open(std::sync::Arc::new(StdFiles), tmp.path()).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    for (name, kind, sql) in [
        ("old", Kind::MaterializedView, format!("CREATE MATERIALIZED VIEW old AS {query}")),
        ("named", Kind::View, "CREATE VIEW named AS SELECT \"s.n + Int64(1)\" FROM old".to_owned()),
    ] {
        definitions.replace(&[], name, kind, &sql).unwrap();
        definitions.name_as_before(name).unwrap();
    }
    drop((definitions, directory));
    for _ in 0..2 {
        let engine = open(tmp.path());
        let new = format!("CREATE MATERIALIZED VIEW IF NOT EXISTS new AS {query}");
        ask(&engine, &new).unwrap();
        ask(&engine, "INSERT INTO s VALUES (1, '2026-01-01')").unwrap();
        ask(&engine, "WAIT FOR old").unwrap();
        for (name, column) in
            [("old", "s.n + Int64(1)"), ("named", "s.n + Int64(1)"), ("new", "n + 1")]
        {
            let shown = ask(&engine, &format!("SELECT * FROM {name}")).unwrap();
            assert!(shown.contains(&format!("| {column} |")), "{name}: {shown}");
        }
        block_on(engine.close()).unwrap();
    }
}

/// Objects that cannot be opened are named and listed, and can be dropped.
#[test]
fn what_cannot_be_opened_is_listed_with_the_way_on() {
    let tmp = tempfile::tempdir().unwrap();
    let engine = open(tmp.path());
    for sql in [
        "CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)",
        "CREATE MATERIALIZED VIEW v AS SELECT k, ts FROM s",
        "CREATE VIEW w AS SELECT k FROM v",
        "CREATE MATERIALIZED VIEW good AS SELECT k FROM s",
    ] {
        ask(&engine, sql).unwrap();
    }
    block_on(engine.close()).unwrap();
    drop(engine);
    made_old(tmp.path(), &[("v", "CREATE MATERIALIZED VIEW v AS SELECT gone(k) AS k, ts FROM s")]);
    let engine = open(tmp.path());
    let error = ask(&engine, "SELECT * FROM v").unwrap_err();
    for said in [
        "materialized view \"v\" of the data directory cannot be opened: ",
        "hint: SHOW CREATE v shows its statement; DROP MATERIALIZED VIEW v removes it",
    ] {
        assert!(error.contains(said), "{error}");
    }
    let listed =
        ask(&engine, "SELECT name, materialized, status, error FROM windrow.views").unwrap();
    let lines: Vec<&str> = listed.lines().skip(3).collect();
    assert!(lines[0].starts_with("| good | true         | running |"), "{listed}");
    assert!(
        lines[1].starts_with("| v    | true         | broken  | materialized view \"v\""),
        "{listed}"
    );
    assert!(lines[2].starts_with("| w    | false        | broken  | view \"w\""), "{listed}");
    assert!(ask(&engine, "SHOW VIEWS").unwrap().contains("broken"));
    assert!(ask(&engine, "SHOW CREATE v").unwrap().contains("gone(k)"));
    ask(&engine, "DROP VIEW w").unwrap();
    ask(&engine, "DROP MATERIALIZED VIEW v").unwrap();
    assert!(!ask(&engine, "SELECT name FROM windrow.views").unwrap().contains("| v"));
}
