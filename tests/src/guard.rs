//! What users may do, which files they may access and how much they may use, in the engine: roles, patterns, paths,
//! limits.

mod functions;

use std::sync::Arc;
use std::time::Duration;

use crate::watch::trial;
use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use windrow_core::{Error, ErrorKind, Limits};
use windrow_engine::{
    Access, Admission, Engine, EngineConfig, Files, Grant, Outcome, QueryLimits, Role, Session,
    SessionOptions,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("guard/roles", roles),
        trial("guard/patterns", patterns),
        trial("guard/functions", functions::between_users),
        trial("guard/names_that_are_not_for_everybody", hidden),
        trial("guard/files", files),
        trial("guard/files_after_a_restart", files_after_a_restart),
        trial("guard/too_many_queries", too_many_queries),
        trial("guard/query_timeout", query_timeout),
        trial("guard/query_memory", query_memory),
        trial("guard/stop", stop),
    ]
}

struct Fixture {
    runtime: Runtime,
    engine: Engine,
}

impl Fixture {
    fn new(config: EngineConfig) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, engine: Engine::open(config)? })
    }

    fn setup(&self, sql: &[&str]) -> Result<(), Failed> {
        let session = self.engine.session(SessionOptions::default())?;
        for sql in sql {
            self.run(&session, sql).map_err(|e| format!("{sql}: {}", e.render(sql)))?;
        }
        Ok(())
    }

    fn user(&self, grants: &[(Role, &str)]) -> Result<Session, Failed> {
        self.limited(grants, Arc::new(Admission::new(QueryLimits::default())))
    }

    fn limited(
        &self,
        grants: &[(Role, &str)],
        admission: Arc<Admission>,
    ) -> Result<Session, Failed> {
        let grants = grants.iter().map(|(role, pattern)| Grant::new(*role, pattern));
        let access =
            Access::remote("ann", grants.collect::<Result<_, _>>()?).with_admission(admission);
        Ok(self.engine.session_of(SessionOptions::default(), access)?)
    }

    /// Runs a statement; of an endless result, only its beginning.
    fn run(&self, session: &Session, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        self.runtime.block_on(async {
            match session.run(sql).await? {
                Outcome::Done(_) => Ok(vec![]),
                Outcome::Rows(rows) if rows.is_continuous() => Ok(vec![]),
                Outcome::Rows(rows) => rows.try_collect().await,
            }
        })
    }

    fn names(&self, session: &Session, sql: &str) -> Result<Vec<String>, Failed> {
        let rows = self.run(session, sql).map_err(|e| format!("{sql}: {}", e.render(sql)))?;
        let mut names: Vec<String> = vec![];
        for batch in &rows {
            names.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn denied(&self, session: &Session, sql: &str) -> Result<String, Failed> {
        match self.run(session, sql) {
            Ok(_) => Err(format!("{sql} is allowed").into()),
            Err(e) if e.kind() == ErrorKind::Denied => Ok(e.message().to_owned()),
            Err(e) => {
                Err(format!("{sql} fails otherwise: {:?} {}", e.kind(), e.render(sql)).into())
            }
        }
    }

    fn allowed(&self, session: &Session, sql: &str) -> Result<(), Failed> {
        match self.run(session, sql) {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("{sql} is refused: {:?} {}", e.kind(), e.render(sql)).into()),
        }
    }
}

/// Streams, views and tables, some of them secret.
const OBJECTS: &[&str] = &[
    "CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)",
    "CREATE STREAM secret (k INT, ts TIMESTAMP, WATERMARK FOR ts)",
    "INSERT INTO secret VALUES (7, TIMESTAMP '2026-01-01 00:00:00')",
    "CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n FROM TUMBLE(secret, ts, INTERVAL '1 minute') \
     GROUP BY window_start, window_end",
    "CREATE MATERIALIZED VIEW hidden_v AS SELECT window_end, count(*) AS n FROM TUMBLE(secret, ts, INTERVAL '2 minutes') \
     GROUP BY window_start, window_end",
    "CREATE VIEW w AS SELECT k + 1 AS k FROM secret",
    "CREATE TABLE t AS SELECT 1 AS k",
    "CREATE TABLE secret_t AS SELECT 2 AS k",
];

#[expect(clippy::too_many_lines, reason = "a list of what each role may do")]
fn roles() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(OBJECTS)?;
    let read = [
        "SELECT * FROM s",
        "SELECT * FROM v",
        "SELECT count(*) FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end EMIT FINAL",
        "SUBSCRIBE TO v",
        "VERIFY VIEW v",
        "EXPLAIN SELECT * FROM s",
        "EXPLAIN ANALYZE SELECT * FROM s",
        "EXPLAIN WHY NOT v",
        "EXPLAIN CREATE VIEW x AS SELECT * FROM s",
        "SHOW TABLES",
        "SHOW CREATE v",
        "DESCRIBE s",
        "SET datafusion.execution.time_zone = '+00:00'",
        "SELECT * FROM windrow.streams",
        "PREPARE p AS SELECT * FROM s",
    ];
    let write = [
        "INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:01')",
        "INSERT INTO t VALUES (3)",
        "INSERT INTO s SELECT k, ts FROM s EMIT CHANGES",
        "PREPARE q AS INSERT INTO t VALUES (4)",
        "EXPLAIN (FORMAT TREE) INSERT INTO t VALUES (4)",
    ];
    let admin = [
        "CREATE STREAM n (k INT)",
        "CREATE OR REPLACE STREAM n (k INT)",
        "CREATE VIEW n2 AS SELECT 1 AS x",
        "CREATE MATERIALIZED VIEW n3 AS SELECT k FROM s",
        "CREATE TABLE n4 AS SELECT 1 AS x",
        "CREATE SCHEMA n5",
        "DROP VIEW n2",
        "ALTER STREAM n ADD CHECK (k > 0)",
        "TRUNCATE n",
        "TRUNCATE n4",
        "CREATE STREAM n6 AS SELECT k FROM s",
        "DROP STREAM IF EXISTS nothing",
        "DROP TABLE n4",
    ];
    let all: [(Role, &[&str]); 3] =
        [(Role::Read, &read), (Role::Write, &write), (Role::Admin, &admin)];
    for role in Role::ALL {
        let session = f.user(&[(role, "*")])?;
        for (needed, statements) in all {
            for sql in statements {
                if role >= needed {
                    f.allowed(&session, sql)?;
                } else {
                    f.denied(&session, sql)?;
                }
            }
        }
    }
    let said = f.denied(&f.user(&[(Role::Read, "*")])?, "INSERT INTO s VALUES (1, now())")?;
    if said != "\"s\" needs the role write" {
        return Err(said.into());
    }
    let writer = f.user(&[(Role::Write, "*")])?;
    // What changes how much of the machine statements take is an administrator's, and has its range for all.
    for sql in [
        "SET datafusion.execution.target_partitions = 1000000",
        "SET datafusion.execution.batch_size = 4096",
        "SET datafusion.execution.sort_spill_reservation_bytes = 1",
        "SET datafusion.optimizer.max_passes = 3",
        "RESET datafusion.execution.target_partitions",
    ] {
        f.denied(&writer, sql)?;
    }
    let admin = f.user(&[(Role::Admin, "*")])?;
    f.allowed(&admin, "SET datafusion.execution.batch_size = 4096")?;
    for sql in [
        "SET datafusion.execution.target_partitions = 1000000",
        "SET datafusion.execution.batch_size = 9223372036854775807",
        "SET datafusion.execution.batch_size = 0",
    ] {
        let error = f.run(&admin, sql).err().ok_or(format!("{sql} is done"))?;
        if error.kind() != ErrorKind::Config || !error.message().contains("it must be from") {
            return Err(error.render("").into());
        }
    }
    f.denied(&writer, "SET datafusion.runtime.memory_limit = '1M'").map(|_| ()).or_else(|_| {
        // It may be no setting at all, but never one that works.
        match f.run(&writer, "SET datafusion.runtime.memory_limit = '1M'") {
            Ok(_) => Err(Failed::from("memory_limit was set")),
            Err(_) => Ok(()),
        }
    })
}

/// All the ways to what is secret.
const TRIES: &[&str] = &[
    "SELECT * FROM secret",
    "SELECT * FROM \"secret\"",
    "SELECT * FROM public.secret",
    "SELECT * FROM datafusion.public.secret",
    "SELECT * FROM secret_t",
    "SELECT (SELECT max(k) FROM secret)",
    "SELECT * FROM t WHERE k IN (SELECT k FROM secret)",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM secret WHERE secret.k = t.k)",
    "WITH x AS (SELECT * FROM secret) SELECT * FROM x",
    "SELECT * FROM t UNION ALL SELECT k FROM secret",
    "SELECT * FROM t JOIN secret USING (k)",
    "SELECT count(*) FROM TUMBLE(secret, ts, INTERVAL '1 minute') GROUP BY window_start",
    "SELECT count(*) FROM TABLE(TUMBLE(TABLE secret, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start",
    "SELECT count(*) FROM secret WINDOW TUMBLING (SIZE 1 MINUTE)",
    "SELECT k FROM secret EMIT CHANGES",
    "EXPLAIN SELECT * FROM secret",
    "EXPLAIN ANALYZE SELECT * FROM secret",
    "EXPLAIN VERBOSE SELECT * FROM secret",
    "EXPLAIN (FORMAT TREE) SELECT * FROM secret",
    "PREPARE p AS SELECT * FROM secret",
    "CREATE VIEW mine2 AS SELECT * FROM secret",
    "CREATE MATERIALIZED VIEW mine3 AS SELECT k FROM secret",
    "CREATE TABLE mine4 AS SELECT * FROM secret",
    "CREATE STREAM mine5 WITH (connector = 'replay', of = 'secret')",
    "CREATE STREAM mine6 WITH (connector = 'replay', of = 'SECRET')",
    "INSERT INTO s SELECT * FROM secret",
    "INSERT INTO secret VALUES (1, now())",
    "INSERT INTO secret_t VALUES (1)",
    "SELECT k FROM s EMIT CHANGES LATE DATA TO secret",
    "EXPLAIN ANALYZE SELECT k FROM s EMIT CHANGES LATE DATA TO secret",
    "COPY secret TO 'x.csv'",
    "COPY (SELECT * FROM secret) TO 'x.csv'",
    "DESCRIBE secret",
    "SHOW CREATE secret",
    "SHOW COLUMNS FROM secret",
    "SUBSCRIBE TO secret",
    "WAIT FOR secret",
    "VERIFY VIEW secret",
    "EXPLAIN WHY NOT secret",
    "DROP STREAM secret",
    "DROP STREAM secret CASCADE",
    "DROP TABLE secret_t",
    "CREATE OR REPLACE STREAM secret (k INT)",
    "CREATE OR REPLACE TABLE secret_t AS SELECT 1 AS x",
    "CREATE SCHEMA x",
    "CREATE DATABASE x",
];

fn patterns() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(OBJECTS)?;
    // All roles, but not on what is secret.
    let session = f.user(&[(Role::Admin, "[!s]*"), (Role::Admin, "s"), (Role::Admin, "mine*")])?;
    for sql in [
        // Views run with the right of who made them.
        "SELECT * FROM w",
        "SELECT * FROM v",
        "VERIFY VIEW v",
        "SELECT * FROM s JOIN t USING (k)",
        "WITH secret AS (SELECT 1 AS k) SELECT * FROM secret",
        "CREATE VIEW mine AS SELECT * FROM w",
        "CREATE TABLE mine_t AS SELECT * FROM w",
    ] {
        f.allowed(&session, sql)?;
    }
    let mut wrong = String::new();
    for sql in TRIES {
        if let Err(e) = f.denied(&session, sql) {
            // What does not parse or plan at all tells nothing either; but rows must never come.
            let failed = f.run(&session, sql).err().map(|e| e.kind());
            let harmless = sql.starts_with("SHOW COLUMNS") && failed == Some(ErrorKind::NotFound);
            if !harmless {
                wrong.push_str(&format!("{}\n", e.message().unwrap_or_default()));
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    // What reads it is dropped too, and that is not for the user.
    f.setup(&["CREATE VIEW secret_reader AS SELECT * FROM s"])?;
    f.denied(&session, "DROP STREAM s CASCADE")?;
    // What is not there is not told apart from what is.
    let there = f.denied(&session, "SELECT * FROM secret")?;
    let gone = f.denied(&session, "SELECT * FROM secrets")?;
    if there.replace("secret", "secrets") != gone {
        return Err(format!("{there:?} and {gone:?}").into());
    }
    Ok(())
}

fn hidden() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(OBJECTS)?;
    // They have taken the row.
    f.setup(&["WAIT FOR v", "WAIT FOR hidden_v"])?;
    let session = f.user(&[(Role::Read, "s"), (Role::Read, "v")])?;
    for (sql, names) in [
        ("SHOW TABLES", vec!["s", "v"]),
        ("SELECT name FROM windrow.streams", vec!["s"]),
        ("SELECT name FROM windrow.views", vec!["v"]),
        ("SELECT query FROM windrow.ledger", vec!["v"]),
        // What another view keeps open is not shown, whether it is asked for or not.
        ("SELECT DISTINCT query FROM windrow.windows", vec!["v"]),
        ("SELECT query FROM windrow.windows WHERE query = 'hidden_v'", vec![]),
        // The one who reads it is "v", but the stream is not for the user.
        ("SELECT query FROM windrow.watermarks", vec![]),
        ("SELECT stream FROM windrow.bad_rows", vec![]),
        (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
            vec!["s", "v"],
        ),
        (
            "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'public'",
            vec!["s", "v"],
        ),
        (
            "SELECT table_name FROM information_schema.views WHERE table_schema = 'public'",
            vec!["s", "v"],
        ),
    ] {
        let found = f.names(&session, sql)?;
        if found != names {
            return Err(format!("{sql}: {found:?}, not {names:?}").into());
        }
    }
    let lost = f.user(&[(Role::Read, "s"), (Role::Read, "x*")])?;
    let error = f.run(&lost, "SELECT * FROM xs").err().ok_or("xs is there")?;
    let told = error.render("");
    if told.contains("secret") || error.kind() != ErrorKind::NotFound {
        return Err(told.into());
    }
    Ok(())
}

/// A data directory, a directory beside it that is allowed, and one that is not.
fn places() -> Result<(TempDir, EngineConfig), Failed> {
    let tmp = tempfile::tempdir()?;
    let data = tmp.path().join("data");
    for dir in ["shared", "private"] {
        std::fs::create_dir(tmp.path().join(dir))?;
        std::fs::write(tmp.path().join(dir).join("a.csv"), "k\n1\n2\n")?;
    }
    let shared = tmp.path().join("shared").to_string_lossy().into_owned();
    let files = Files::below(Some(&data), &[shared])?;
    let config =
        EngineConfig { data_dir: Some(data), files: Some(files), ..EngineConfig::default() };
    Ok((tmp, config))
}

fn files() -> Result<(), Failed> {
    let (tmp, config) = places()?;
    let f = Fixture::new(config)?;
    let session = f.user(&[(Role::Admin, "*")])?;
    std::fs::write(tmp.path().join("data/files/in.csv"), "k\n1\n")?;
    #[cfg(unix)]
    std::os::unix::fs::symlink(tmp.path().join("private"), tmp.path().join("data/files/link"))?;
    #[cfg(unix)]
    std::os::unix::fs::symlink(
        tmp.path().join("private/a.csv"),
        tmp.path().join("data/files/one.csv"),
    )?;
    let at = |name: &str| tmp.path().join(name).to_string_lossy().into_owned();
    let shared = at("shared");
    for sql in [
        "CREATE STREAM f1 WITH (connector = 'file', path = 'in.csv')".to_owned(),
        format!("CREATE STREAM f2 WITH (connector = 'file', path = '{shared}/*.csv')"),
        format!("CREATE EXTERNAL TABLE e1 STORED AS CSV LOCATION '{shared}/a.csv' OPTIONS ('format.has_header' 'true')"),
        "CREATE EXTERNAL TABLE e2 STORED AS CSV LOCATION 'in.csv' OPTIONS ('format.has_header' 'true')".to_owned(),
        "SELECT * FROM f1".to_owned(),
        "SELECT * FROM e2".to_owned(),
        "COPY (SELECT 1 AS k) TO 'out.csv' STORED AS CSV".to_owned(),
        format!("COPY (SELECT 1 AS k) TO 'file://{shared}/out.csv' STORED AS CSV"),
    ] {
        f.allowed(&session, &sql)?;
    }
    for there in ["data/files/out.csv", "shared/out.csv"] {
        if !tmp.path().join(there).is_file() {
            return Err(format!("{there} is not there").into());
        }
    }
    let mut bad: Vec<String> = [
        "/etc/passwd",
        "/etc/*",
        "file:///etc/passwd",
        "../catalog.json",
        "../../private/a.csv",
        "./../files/../../private/a.csv",
        "http://169.254.169.254/latest/meta-data",
        "https://localhost/a.csv",
        "s3://bucket/a.csv",
        "gs://bucket/a.csv",
        "link/a.csv",
        "link/",
        "one.csv",
    ]
    .map(str::to_owned)
    .to_vec();
    bad.extend(["private/a.csv", "private", "data/catalog.json", "data/streams/x.csv"].map(at));
    bad.push(format!("{shared}/../private/a.csv"));
    for path in &bad {
        for sql in [
            format!("CREATE STREAM x WITH (connector = 'file', format = 'csv', path = '{path}')"),
            format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{path}'"),
            format!("COPY (SELECT 1 AS k) TO '{path}' STORED AS CSV"),
            format!("EXPLAIN ANALYZE COPY (SELECT 1 AS k) TO '{path}' STORED AS CSV"),
            format!("PREPARE p AS COPY (SELECT 1 AS k) TO '{path}' STORED AS CSV"),
        ] {
            let Err(error) = f.run(&session, &sql) else {
                return Err(format!("{sql} is allowed").into());
            };
            let parsed = !sql.starts_with("EXPLAIN") && !sql.starts_with("PREPARE");
            if parsed && error.kind() != ErrorKind::Denied {
                return Err(format!("{sql}: {:?} {}", error.kind(), error.render(&sql)).into());
            }
        }
    }
    // Patterns that find a link to elsewhere.
    f.denied(&session, "CREATE STREAM x WITH (connector = 'file', path = 'o*.csv')")?;
    f.denied(&session, "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '*.csv'")?;
    // An allowed bucket would otherwise be somewhere else.
    f.denied(
        &session,
        "CREATE STREAM x WITH (connector = 'file', path = 'in.csv', aws_endpoint = 'http://169.254.169.254')",
    )?;
    let kept = std::fs::read_to_string(tmp.path().join("private/a.csv"))?;
    if kept != "k\n1\n2\n" {
        return Err("a private file was written".into());
    }
    // A file that nobody can see.
    f.denied(&session, "SELECT * FROM '/etc/passwd'")?;
    f.denied(&session, "SELECT * FROM 'o*.csv'")?;
    f.denied(&session, "DESCRIBE '/etc/passwd'")?;
    f.denied(&session, "SUMMARIZE '/etc/passwd'")?;
    f.denied(&session, "EXPLAIN SELECT * FROM '/etc/passwd'")?;
    f.denied(&session, "CREATE TABLE stolen AS SELECT * FROM '/etc/passwd'")?;
    f.denied(&session, "COPY (SELECT * FROM '/etc/passwd') TO STDOUT")?;
    f.run(&session, &format!("SELECT * FROM '{shared}/a.csv'"))?;
    Ok(())
}

fn files_after_a_restart() -> Result<(), Failed> {
    let (tmp, config) = places()?;
    std::fs::write(tmp.path().join("data/files/in.csv"), "k\n1\n")?;
    let f = Fixture::new(config.clone())?;
    let session = f.user(&[(Role::Admin, "*")])?;
    f.allowed(&session, "CREATE STREAM f1 WITH (connector = 'file', path = 'in.csv')")?;
    f.allowed(&session, "CREATE EXTERNAL TABLE e1 STORED AS CSV LOCATION 'in.csv' OPTIONS ('format.has_header' 'true')")?;
    f.runtime.block_on(f.engine.close())?;
    drop((session, f));
    // By a server, and by whoever has the directory.
    let local = EngineConfig { data_dir: config.data_dir.clone(), ..EngineConfig::default() };
    for config in [config, local] {
        let f = Fixture::new(config)?;
        let session = f.engine.session(SessionOptions::default())?;
        for table in ["f1", "e1"] {
            let rows = f.run(&session, &format!("SELECT * FROM {table}"));
            let rows = rows.map_err(|e| format!("{table}: {}", e.render("")))?;
            if rows.iter().map(RecordBatch::num_rows).sum::<usize>() != 1 {
                return Err(format!("{table} has {rows:?}").into());
            }
        }
        f.runtime.block_on(f.engine.close())?;
    }
    Ok(())
}

/// A bounded query that takes long.
const LONG: &str =
    "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b";

fn too_many_queries() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(OBJECTS)?;
    let limits =
        QueryLimits { queries_max: 1, queue_max: 1, streams_max: 1, ..QueryLimits::default() };
    let admission = Arc::new(Admission::new(limits));
    let session = f.limited(&[(Role::Read, "*")], Arc::clone(&admission))?;
    f.runtime.block_on(async {
        let Outcome::Rows(long) = session.run(LONG).await? else { return Err("no rows".into()) };
        let waits = session.run("SELECT 1");
        let mut waits = std::pin::pin!(waits);
        while admission.waiting() == 0 {
            // It is on its way to the queue, on a thread of the engine.
            let moment = tokio::time::timeout(Duration::from_millis(1), waits.as_mut()).await;
            if moment.is_ok() {
                return Err(Failed::from("the second query does not wait"));
            }
        }
        let refused =
            session.run("SELECT 2").await.err().ok_or("the third query is not refused")?;
        if refused.kind() != ErrorKind::Limit
            || !refused.message().contains("1 queries run and 1 wait")
        {
            return Err(refused.render("").into());
        }
        // Statements that only look are not held up.
        session.run("SHOW TABLES").await?;
        drop(long);
        let Outcome::Rows(rows) = waits.await? else { return Err("no rows".into()) };
        rows.try_collect::<Vec<_>>().await?;
        let first = session.run("SUBSCRIBE TO v").await?;
        let second = session.run("SUBSCRIBE TO v").await.err().ok_or("two streams are open")?;
        if second.kind() != ErrorKind::Limit {
            return Err(second.render("").into());
        }
        drop(first);
        session.run("SUBSCRIBE TO v").await?;
        Ok(())
    })
}

fn query_timeout() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(OBJECTS)?;
    let limits =
        QueryLimits { query_time_max: Some(Duration::from_millis(200)), ..QueryLimits::default() };
    let admission = Arc::new(Admission::new(limits));
    let session = f.limited(&[(Role::Write, "*")], Arc::clone(&admission))?;
    for sql in
        [LONG.to_owned(), format!("INSERT INTO t SELECT CAST(x AS INT) FROM ({LONG}) AS l(x)")]
    {
        let error = f.run(&session, &sql).err().ok_or("it ends")?;
        let said = "the statement takes longer than the query timeout, 0.2 s";
        if error.kind() != ErrorKind::Limit || error.message() != said {
            return Err(error.render(&sql).into());
        }
    }
    // Continuous results have no such end.
    f.runtime.block_on(async {
        let Outcome::Rows(mut rows) = session.run("SUBSCRIBE TO v").await? else {
            return Err("no rows".into());
        };
        match tokio::time::timeout(Duration::from_millis(500), rows.try_next()).await {
            Err(_still_open) => Ok(()),
            Ok(ended) => Err(Failed::from(format!("{ended:?}"))),
        }
    })?;
    if admission.running() != 0 {
        return Err("a place is still taken".into());
    }
    Ok(())
}

fn query_memory() -> Result<(), Failed> {
    let limits = Limits { threads: 2, ..Limits::default() };
    let f = Fixture::new(EngineConfig { limits, ..EngineConfig::default() })?;
    let limits = QueryLimits { query_bytes_max: Some(1 << 20), ..QueryLimits::default() };
    let session = f.limited(&[(Role::Read, "*")], Arc::new(Admission::new(limits)))?;
    f.allowed(&session, "SELECT count(*) FROM generate_series(1, 1000000)")?;
    let join = "SELECT count(*) FROM generate_series(1, 1000000) a(x) JOIN generate_series(1, 1000000) b(y) ON x = y";
    let error = f.run(&session, join).err().ok_or("it fits")?;
    if error.kind() != ErrorKind::Limit
        || !error.message().contains("--query-memory, 1048576 bytes")
    {
        return Err(format!("{:?} {}", error.kind(), error.render(join)).into());
    }
    // Nobody else is held to it.
    let local = f.engine.session(SessionOptions::default())?;
    f.allowed(&local, join)
}

fn stop() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(OBJECTS)?;
    let admission = Arc::new(Admission::new(QueryLimits::default()));
    let session = f.limited(&[(Role::Read, "*")], Arc::clone(&admission))?;
    f.runtime.block_on(async {
        let Outcome::Rows(mut follows) = session.run("SUBSCRIBE TO v").await? else {
            return Err("no rows".into());
        };
        let Outcome::Rows(mut long) = session.run(LONG).await? else {
            return Err("no rows".into());
        };
        admission.stop();
        let stopping = |error: Option<Error>| match error {
            Some(e)
                if e.kind() == ErrorKind::Unavailable
                    && e.message() == "the server is stopping" =>
            {
                Ok(())
            }
            other => Err(Failed::from(format!("{other:?}"))),
        };
        stopping(follows.try_next().await.err())?;
        if follows.try_next().await?.is_some() {
            return Err("rows after the end".into());
        }
        stopping(session.run("SELECT 1").await.err())?;
        if admission.running() != 1 {
            return Err("a query that runs was stopped at once".into());
        }
        admission.end();
        stopping(long.try_next().await.err())
    })
}
