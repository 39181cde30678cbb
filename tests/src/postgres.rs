//! Sinks that write to a real PostgreSQL, with a client that is not ours (psycopg) at the other end. Both come from a package
//! index, into the tests' Python environment. A test has a server of its own.

mod kills;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use windrow_engine::{Access, Engine, EngineConfig, Files, Grant, Role, SessionOptions};

use crate::program::Home;
use crate::readers;
use crate::sinks::{engine, insert, refusal, small, wait_until};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("postgres/values arrive as they are", types),
        trial("postgres/rows replace others by their key", upsert),
        trial("postgres/changes are applied by their key, or are rows themselves", changes),
        trial("postgres/tables that do not fit are refused", unfit),
        trial("postgres/a server that is away holds the sink alone", away),
        trial("postgres/refused rows are set aside, each once", rejected),
        trial("postgres/a table that is altered meanwhile", altered),
        trial("postgres/certificates and passwords are checked", secure),
        trial("postgres/remote users write where they may", remote),
        trial("postgres/the example of the documentation", example),
        trial("postgres/kill -9 of either writes each row once", kills::killed),
    ]
}

/// A server and its other client.
pub(crate) struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    /// Returns one that runs.
    fn new() -> Result<Self, Failed> {
        let mut child = Command::new(readers::python()?)
            .arg("tests/clients/postgres.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut port = String::new();
        stdout.read_line(&mut port)?;
        let port = port.trim().parse().map_err(|_| format!("the server said {port:?}"))?;
        let mut server = Self { child, stdin, stdout, port };
        server.start()?;
        Ok(server)
    }

    fn says(&mut self, command: &Value) -> Result<String, Failed> {
        writeln!(self.stdin, "{command}")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        let answer = answer.trim();
        match answer.starts_with("failed") || answer.is_empty() {
            true => Err(format!("{command}: {answer}").into()),
            false => Ok(answer.to_owned()),
        }
    }

    fn start(&mut self) -> Result<(), Failed> {
        self.says(&json!({"do": "start"})).map(drop)
    }

    fn kill(&mut self) -> Result<(), Failed> {
        self.says(&json!({"do": "kill"})).map(drop)
    }

    /// Ends the connections of sinks.
    fn cut(&mut self) -> Result<(), Failed> {
        self.says(&json!({"do": "cut"})).map(drop)
    }

    fn sql(&mut self, sql: &str) -> Result<(), Failed> {
        self.says(&json!({"do": "sql", "sql": sql})).map(drop)
    }

    fn rows(&mut self, sql: &str) -> Result<Vec<String>, Failed> {
        let answer = self.says(&json!({"do": "rows", "sql": sql}))?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Fails unless a query has these rows.
    fn has(&mut self, sql: &str, expected: &[&str]) -> Result<(), Failed> {
        let found = self.rows(sql)?;
        if found == expected { Ok(()) } else { Err(format!("{sql}: {found:#?}").into()) }
    }

    /// The options of a sink into a table, with `more`.
    fn options(&self, table: &str, more: &str) -> String {
        let port = self.port;
        format!(
            "WITH (connector = 'postgres', url = 'postgresql://ann@127.0.0.1:{port}/postgres', table = '{table}'{more})"
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It takes its server with it when its stdin ends.
        drop(writeln!(self.stdin, "{{\"do\": \"kill\"}}"));
        drop(self.stdout.read_line(&mut String::new()));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const CREATED: &str = ", create_table = 'true', batch_interval = '10 ms'";

fn types() -> Result<(), Failed> {
    const ROWS: &str = "
CREATE STREAM t (ts TIMESTAMP, small SMALLINT, big BIGINT, u BIGINT UNSIGNED, x DOUBLE, r REAL, price DECIMAL(38, 3),
    yes BOOLEAN, day DATE, w VARCHAR, b BYTEA, z TIMESTAMPTZ, ms TIMESTAMP(3), l INT[], ws VARCHAR[], WATERMARK FOR ts);
CREATE MATERIALIZED VIEW tv AS SELECT *, named_struct('a', small) AS s FROM t;
INSERT INTO t VALUES
    (TIMESTAMP '2026-01-01 00:00:01.123456789', 32767, 9223372036854775807, 18446744073709551615, 0.1, 0.25,
     CAST('12345678901234567890123456789012345.678' AS DECIMAL(38, 3)),
     true, DATE '1969-12-31', 'it''s \"1\", ü 🦀\t\\.', X'00ff', TIMESTAMPTZ '2026-01-01 00:00:00+02:00', TIMESTAMP '1969-12-31 23:59:59.999',
     [1, NULL, -2147483648], ['ä', '', NULL]),
    (TIMESTAMP '1960-01-01 00:00:02.000000001', -32768, -9223372036854775808, 0, -2.5e300, -0.0,
     CAST('-0.001' AS DECIMAL(38, 3)), false, DATE '2026-02-28', '', X'', TIMESTAMPTZ '2026-07-01 00:00:00Z',
     TIMESTAMP '2026-01-01 00:00:00.5', [], []),
    (TIMESTAMP '2026-01-01 00:00:03', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
";
    let mut server = Server::new()?;
    for durable in [true, false] {
        let mut home = Home::new()?;
        home.durable = durable;
        let table = format!("t_{durable}");
        home.ok(&format!(
            "{ROWS}CREATE SINK k FROM tv {};\nWAIT FOR k;",
            server.options(&table, CREATED)
        ))?;
        // Timestamps have microseconds there, cut downwards.
        server.has(
            &format!(
                "SELECT ts::text, small, big, u, x, r, price, yes, day::text, w, encode(b, 'hex'), z::timestamptz AT TIME ZONE 'UTC', \
                 ms::text, l::text, ws::text, s::text FROM {table} ORDER BY big NULLS LAST"
            ),
            &[
                "1960-01-01 00:00:02|-32768|-9223372036854775808|0|-2.5e+300|-0.0|-0.001|False|2026-02-28|||2026-07-01 00:00:00|\
                 2026-01-01 00:00:00.5|{}|{}|{\"a\": -32768}",
                "2026-01-01 00:00:01.123456|32767|9223372036854775807|18446744073709551615|0.1|0.25|12345678901234567890123456789012345.678|True|1969-12-31|it's \"1\", ü 🦀\t\\.|00ff|\
                 2025-12-31 22:00:00|1969-12-31 23:59:59.999|{1,NULL,-2147483648}|{ä,\"\",NULL}|{\"a\": 32767}",
                "2026-01-01 00:00:03|None|None|None|None|None|None|None|None|None|None|None|None|None|None|{\"a\": null}",
            ],
        )?;
        server.has(
            &format!(
                "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = '{table}'::regclass AND attnum > 0"
            ),
            &["timestamp(6) without time zone, smallint, bigint, numeric(20,0), double precision, real, numeric(38,3), boolean, \
               date, text, bytea, timestamp(6) with time zone, timestamp(3) without time zone, integer[], text[], jsonb"],
        )?;
    }
    // A table that takes the same values in wider types, with more columns, a domain and an enumeration.
    server.sql(
        "CREATE DOMAIN positive AS bigint CHECK (VALUE > 0); CREATE TYPE mood AS ENUM ('fine', 'ü'); \
         CREATE TABLE wide (extra int DEFAULT 7, id positive, k numeric(10, 2), m mood, u uuid, v varchar(3), j json, at timestamp)",
    )?;
    let home = Home::new()?;
    home.ok(&format!(
        "CREATE STREAM s (id INT, k SMALLINT, m VARCHAR, u VARCHAR, v VARCHAR, j VARCHAR, at TIMESTAMP, WATERMARK FOR at);
INSERT INTO s VALUES (1, 2, 'ü', '00112233-4455-6677-8899-AABBCCDDEEFF', 'äöü', '[1]', TIMESTAMP '2026-01-01 00:00:00');
CREATE SINK k AS SELECT * FROM s {};\nWAIT FOR k;",
        server.options("wide", "")
    ))?;
    server.has(
        "SELECT extra, id, k, m, u, v, j::text, at::text FROM wide",
        &["7|1|2.00|ü|00112233-4455-6677-8899-aabbccddeeff|äöü|[1]|2026-01-01 00:00:00"],
    )
}

fn upsert() -> Result<(), Failed> {
    let mut server = Server::new()?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask(&format!(
        "CREATE SINK k AS SELECT k, id % 3 AS \"Odd \"\"key\"\"\", id FROM s {}",
        server.options("public table", &format!("{CREATED}, key = 'k, Odd \"key\"'"))
    ))?;
    // Rows of one key in one transaction and in several.
    for begin in [0, 20, 40] {
        insert(&talk, begin..begin + 20)?;
        talk.ask("WAIT FOR k")?;
    }
    server.has("SELECT * FROM \"public table\" ORDER BY id", &["1|0|57", "1|1|58", "1|2|59"])?;
    // Without other columns there is nothing to replace.
    talk.ask(&format!(
        "CREATE SINK q AS SELECT id % 2 AS id FROM s {}",
        server.options("q", &format!("{CREATED}, key = 'id'"))
    ))?;
    talk.ask("WAIT FOR q")?;
    server.has("SELECT * FROM q ORDER BY id", &["0", "1"])?;
    let state =
        talk.rows("SELECT state, committed, rows, guarantee FROM windrow.sinks WHERE name = 'k'")?;
    if state != [["running", "60", "60", "exactly once"]] {
        return Err(format!("{state:?}").into());
    }
    server.has("SELECT sink, sequence FROM windrow_sinks ORDER BY sink", &["k|60", "q|60"])?;
    talk.close()?;
    Ok(())
}

/// An updating result: upserts and deletes by key, also of a key with NULL; without key its changes.
fn changes() -> Result<(), Failed> {
    let mut server = Server::new()?;
    server.sql("CREATE TABLE two (a int, b int, n bigint, UNIQUE NULLS NOT DISTINCT (a, b))")?;
    let temp = tempfile::tempdir()?;
    let mut talk = engine(Some(temp.path()))?;
    talk.ask("CREATE STREAM c (a INT, b INT)")?;
    let select =
        "SELECT a, b, count(*) AS n FROM c GROUP BY a, b HAVING count(*) <> 2 EMIT CHANGES";
    talk.ask(&format!("CREATE MATERIALIZED VIEW cv AS {select}"))?;
    let refused = |options: &str, words: &str| -> Result<(), Failed> {
        let why = refusal(talk.ask(&format!("CREATE SINK x FROM cv {options}")))?;
        if why.contains(words) { Ok(()) } else { Err(format!("{words} is not said: {why}").into()) }
    };
    refused(&server.options("two", ", key = 'a'"), "key = 'a,b'")?;
    let keyed = server.options("two", ", key = 'b, a', batch_interval = '10 ms'");
    talk.ask(&format!("CREATE SINK k FROM cv {keyed}"))?;
    talk.ask(&format!("CREATE SINK log FROM cv {}", server.options("log", CREATED)))?;
    for (rows, expected) in [
        ("(1, 1), (1, 2), (NULL, 1)", ["1|1|1", "1|2|1", "None|1|1"].as_slice()),
        ("(1, 1), (NULL, 1), (3, 3)", &["1|2|1", "3|3|1"]),
        ("(1, 1), (NULL, 1), (1, 2)", &["1|1|3", "3|3|1", "None|1|3"]),
    ] {
        talk.ask(&format!("INSERT INTO c VALUES {rows}"))?;
        for sink in ["k", "log"] {
            talk.ask(&format!("WAIT FOR {sink}"))?;
        }
        server.has("SELECT a, b, n FROM two ORDER BY a, b", expected)?;
        talk.close()?;
        talk = engine(Some(temp.path()))?;
    }
    server.has(
        "SELECT change, n FROM log WHERE a = 1 AND b = 1",
        &["insert|1", "delete|1", "insert|3"],
    )?;
    let state = talk.rows("SELECT state, guarantee FROM windrow.sinks WHERE name = 'k'")?;
    if state != [["running", "exactly once"]] {
        return Err(format!("{state:?}").into());
    }
    talk.close()?;
    Ok(())
}

fn unfit() -> Result<(), Failed> {
    let mut server = Server::new()?;
    server.sql(
        "CREATE TABLE good (id bigint, k int); CREATE TABLE narrow (id int, k int); CREATE TABLE less (id bigint); \
         CREATE TABLE needs (id bigint, k int, more text NOT NULL); CREATE TABLE other (id text, k int); \
         CREATE TABLE computed (id bigint, k int GENERATED ALWAYS AS (1) STORED); CREATE TABLE odd (id point, k int)",
    )?;
    let talk = engine(None)?;
    small(&talk)?;
    let refused = |options: String, words: &[&str]| -> Result<(), Failed> {
        let why = refusal(talk.ask(&format!("CREATE SINK x FROM v {options}")))?;
        match words.iter().find(|word| !why.contains(**word)) {
            Some(word) => Err(format!("{word} is not said: {why}").into()),
            None => Ok(()),
        }
    };
    let at = |table: &str, more: &str| server.options(table, more);
    refused(at("none", ""), &["there is no table \"public.none\"", "create_table"])?;
    refused(at("good", ", schema = 'x'"), &["schema \"x\" does not exist"])?;
    refused(
        at("narrow", ""),
        &[
            "column \"id\" of the sink is BIGINT, and that of table \"public.narrow\" is integer",
            "CAST(\"id\"",
        ],
    )?;
    refused(at("less", ""), &["table \"public.less\" has no column \"k\"", "Its columns: id."])?;
    refused(at("needs", ""), &["column \"more\" of table \"public.needs\" needs a value"])?;
    refused(at("other", ""), &["is BIGINT", "is text"])?;
    refused(at("odd", ""), &["is BIGINT", "is point"])?;
    refused(at("computed", ""), &["column \"k\" of table \"public.computed\" is computed"])?;
    refused(at("good", ", key = 'id'"), &["no unique index on \"id\"", "CREATE UNIQUE INDEX"])?;
    refused(at("good", ", key = 'none'"), &["option \"key\": there is no column \"none\""])?;
    refused(
        at("good", ", sslmode = 'require'"),
        &["does not check which server answers", "verify-full"],
    )?;
    refused(
        at("good", ", sslmode = 'verify-full'"),
        &["does not support TLS", "sslmode = 'disable'"],
    )?;
    refused(at("good", ", tabel = 'x'"), &["unknown option \"tabel\"", "Did you mean \"table\"?"])?;
    let wrong = at("good", "").replace("ann@", "nobody-there@");
    refused(wrong, &["cannot be reached", "Check user, password and database"])?;
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let away = at("good", "").replace(&server.port.to_string(), &free);
    refused(away, &["cannot be reached", "Connection refused"])?;
    talk.close()?;
    Ok(())
}

fn away() -> Result<(), Failed> {
    for durable in [false, true] {
        let mut server = Server::new()?;
        let temp = tempfile::tempdir()?;
        let talk = engine(durable.then_some(temp.path()))?;
        small(&talk)?;
        talk.ask(&format!("CREATE SINK k FROM v {}", server.options("t", CREATED)))?;
        insert(&talk, 0..10)?;
        talk.ask("WAIT FOR k")?;
        server.kill()?;
        insert(&talk, 10..20)?;
        wait_until(&talk, "SELECT state FROM windrow.sinks", "retrying")?;
        talk.ask("WAIT FOR v")?;
        if talk.rows("SELECT count(*) FROM v")? != [["20"]] {
            return Err("the view waits".into());
        }
        server.start()?;
        talk.ask("WAIT FOR k")?;
        // Connections that end between commits, and a table that is locked for longer than the timeout.
        server.cut()?;
        insert(&talk, 20..30)?;
        talk.ask("WAIT FOR k")?;
        talk.ask(&format!(
            "CREATE OR REPLACE SINK k FROM v {}",
            server.options("t", &format!("{CREATED}, timeout = '200 ms'"))
        ))?;
        server.says(&json!({"do": "lock", "table": "t"}))?;
        insert(&talk, 30..40)?;
        // A slow machine may be late before, while it connects.
        let locked = "SELECT count(*) FROM windrow.sinks \
                      WHERE state = 'retrying' AND last_error LIKE '%takes longer than 0.2 s%'";
        wait_until(&talk, locked, "1")?;
        server.says(&json!({"do": "unlock"}))?;
        talk.ask("WAIT FOR k")?;
        server.has("SELECT count(*), count(DISTINCT id), max(id) FROM t", &["40|40|39"])?;
        let rows =
            talk.rows("SELECT state, committed, lag_rows, rows, rejected FROM windrow.sinks")?;
        if rows != [["running", "40", "0", "40", "0"]] {
            return Err(format!("{rows:?}").into());
        }
        talk.close()?;
    }
    Ok(())
}

fn rejected() -> Result<(), Failed> {
    for (durable, key) in [(false, ""), (true, ""), (true, ", key = 'id'")] {
        let mut server = Server::new()?;
        server.sql(
            "CREATE TABLE t (id bigint PRIMARY KEY CHECK (id % 10 <> 3), w text, at timestamp)",
        )?;
        let temp = tempfile::tempdir()?;
        let talk = engine(durable.then_some(temp.path()))?;
        small(&talk)?;
        // What PostgreSQL has no place for: NUL in a text, a row that a constraint refuses.
        talk.ask("CREATE MATERIALIZED VIEW w AS SELECT id, CASE WHEN id = 25 THEN chr(0) ELSE 'ü' END AS w, ts AS at FROM s")?;
        let options = format!(", batch_interval = '10 ms', on_error = 'reject'{key}");
        talk.ask(&format!("CREATE SINK k FROM w {}", server.options("t", &options)))?;
        insert(&talk, 0..100)?;
        talk.ask("WAIT FOR k")?;
        server
            .has("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t", &["89|89|0|99"])?;
        let sql = "SELECT \"sequence\", reason, row FROM windrow.rejected_rows WHERE sink = 'k' ORDER BY \"sequence\"";
        let rows = talk.rows(sql)?;
        let (third, nul) = (&rows[0], &rows[3]);
        if rows.len() != 11
            || third[0] != "4"
            || !third[1].contains("violates check constraint")
            || third[2] != "{\"id\":3,\"w\":\"ü\",\"at\":\"2026-01-01T00:00:00\"}"
            || nul[0] != "26"
            || !nul[1].contains("invalid byte sequence for encoding \"UTF8\": 0x00")
        {
            return Err(format!("{rows:#?}").into());
        }
        let state = talk.rows("SELECT state, committed, rows, rejected FROM windrow.sinks")?;
        if state != [["running", "100", "89", "11"]] {
            return Err(format!("{state:?}").into());
        }
        if key.is_empty() {
            // A row that is there already, in a transaction with others.
            talk.ask("INSERT INTO s VALUES (101, 1, TIMESTAMP '2026-01-01'), (99, 1, TIMESTAMP '2026-01-01'), (102, 1, TIMESTAMP '2026-01-01')")?;
            talk.ask("WAIT FOR k")?;
            let last = talk.rows(&format!("{sql} DESC LIMIT 1"))?;
            if last[0][0] != "102" || !last[0][1].contains("duplicate key") {
                return Err(format!("{last:?}").into());
            }
        }
        let before = talk.rows(sql)?;
        talk.close()?;
        if durable {
            let talk = engine(Some(temp.path()))?;
            talk.ask("WAIT FOR k")?;
            if talk.rows(sql)? != before {
                return Err("refused rows are not kept".into());
            }
            // They are counted on by what replaces it.
            let stops = options.replace("reject", "stop");
            talk.ask(&format!("CREATE OR REPLACE SINK k FROM w {}", server.options("t", &stops)))?;
            talk.ask("INSERT INTO s VALUES (203, 1, TIMESTAMP '2026-01-01')")?;
            let why = refusal(talk.ask("WAIT FOR k"))?;
            if !why.contains("sink \"k\" has stopped") || talk.rows(sql)? != before {
                return Err(why.into());
            }
            talk.ask("DROP SINK k")?;
            if talk.rows("SELECT count(*) FROM windrow.rejected_rows")? != [["0"]] {
                return Err("rows of a sink that is dropped".into());
            }
            talk.close()?;
        }
    }
    Ok(())
}

fn altered() -> Result<(), Failed> {
    let mut server = Server::new()?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask(&format!("CREATE SINK k FROM v {}", server.options("t", CREATED)))?;
    insert(&talk, 0..10)?;
    talk.ask("WAIT FOR k")?;
    // Eight bytes are eight bytes, but not the same number.
    server.sql("ALTER TABLE t ALTER id TYPE numeric, ADD more int DEFAULT 5")?;
    insert(&talk, 10..20)?;
    talk.ask("WAIT FOR k")?;
    server.has("SELECT count(*), sum(id), sum(more) FROM t", &["20|190|100"])?;
    server.sql("ALTER TABLE t ALTER id TYPE double precision")?;
    insert(&talk, 20..30)?;
    let why = refusal(talk.ask("WAIT FOR k"))?;
    if !why.contains("is BIGINT") || !why.contains("is double precision") {
        return Err(why.into());
    }
    server.sql("ALTER TABLE t ALTER id TYPE bigint")?;
    talk.ask("RESUME SINK k")?;
    talk.ask("WAIT FOR k")?;
    server.has("SELECT count(*), sum(id) FROM t", &["30|435"])?;
    talk.close()?;
    Ok(())
}

fn secure() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(temp.path().join("server.crt"), certified.cert.pem())?;
    std::fs::write(temp.path().join("server.key"), certified.signing_key.serialize_pem())?;
    let mut server = Server::new()?;
    server.sql("CREATE ROLE bob LOGIN SUPERUSER PASSWORD 'hunter2'")?;
    let talk = engine(Some(&temp.path().join("engine")))?;
    small(&talk)?;
    // The server of the package has no TLS: what listens here has, and passes on what it decrypts.
    let port = server.says(&json!({"do": "tls", "dir": temp.path().to_string_lossy()}))?;
    let with = |host: &str, password: &str, more: &str| {
        format!(
            "WITH (connector = 'postgres', host = '{host}', port = '{port}', user = 'bob', password = '{password}', database = 'postgres', \
             table = 't', create_table = 'true'{more})"
        )
    };
    let root = format!(", sslrootcert = '{}'", temp.path().join("server.crt").display());
    for (options, word) in [
        (with("localhost", "wrong", &root), "password authentication failed"),
        (with("127.0.0.1", "hunter2", &root), "certificate"),
        (with("localhost", "hunter2", ", sslmode = 'verify-full'"), "certificate"),
        (with("localhost", "hunter2", ", sslrootcert = '/dev/null'"), "has no certificate"),
    ] {
        let why = refusal(talk.ask(&format!("CREATE SINK k FROM v {options}")))?;
        if !why.contains(word) || why.contains("hunter2") {
            return Err(format!("{word}: {why}").into());
        }
    }
    talk.ask(&format!("CREATE SINK k FROM v {}", with("localhost", "hunter2", &root)))?;
    insert(&talk, 0..10)?;
    talk.ask("WAIT FOR k")?;
    server.has("SELECT count(*) FROM t", &["10"])?;
    let shown =
        format!("{:?}{:?}", talk.rows("SHOW CREATE k")?, talk.rows("SELECT * FROM windrow.sinks")?);
    if shown.contains("hunter2") || !shown.contains("'password' = '***'") {
        return Err(shown.into());
    }
    talk.close()?;
    Ok(())
}

fn remote() -> Result<(), Failed> {
    let mut server = Server::new()?;
    let temp = tempfile::tempdir()?;
    let data = temp.path().join("data");
    std::fs::create_dir(&data)?;
    let allowed = format!("postgresql://127.0.0.1:{}/postgres/public/", server.port);
    let files = Files::below(Some(&data), &[allowed])?;
    let config =
        EngineConfig { files: Some(files), data_dir: Some(data), ..EngineConfig::default() };
    let engine = Engine::open(config)?;
    let grants = vec![Grant::new(Role::Admin, "*")?];
    let session = engine.session_of(SessionOptions::default(), Access::remote("ann", grants))?;
    let run = |sql: &str| {
        futures::executor::block_on(session.run(sql)).map(drop).map_err(|e| e.render(sql))
    };
    run("CREATE STREAM s (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts)")?;
    run("CREATE MATERIALIZED VIEW v AS SELECT id FROM s")?;
    let good = server.options("t", CREATED);
    for options in [
        good.replace("/postgres'", "/template1'"),
        good.replace("127.0.0.1", "localhost"),
        server.options("t", &format!("{CREATED}, schema = 'other'")),
        server.options("../x", CREATED),
        format!(
            "WITH (connector = 'postgres', host = '/tmp', user = 'ann', table = 't', port = '{}')",
            server.port
        ),
    ] {
        match run(&format!("CREATE SINK k FROM v {options}")) {
            Err(why) if why.contains("may not be written to by remote users") => {}
            done => return Err(format!("{options}: {done:?}").into()),
        }
    }
    run(&format!("CREATE SINK k FROM v {good}"))?;
    server.has("SELECT count(*) FROM t", &["0"])?;
    engine.shutdown();
    Ok(())
}

/// What `docs/sinks.md` shows, with the server of the test.
fn example() -> Result<(), Failed> {
    let mut server = Server::new()?;
    let text = std::fs::read_to_string("docs/sinks.md")?;
    let (_, from) = text.split_once("## `connector = 'postgres'`").ok_or("no section")?;
    let example = from.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.ok_or("no example")?;
    let url = format!("postgresql://ann@127.0.0.1:{}/postgres", server.port);
    let sql = example.replace("postgresql://ann@db.example.com/shop", &url);
    if !sql.contains(&url) {
        return Err("the example has another URL".into());
    }
    let mut home = Home::new()?;
    home.durable = false;
    home.ok(&sql)?;
    server.has(
        "SELECT window_start::text, country, n, amount FROM per_minute ORDER BY 1, 2",
        &["2026-01-01 00:00:00|DE|2|15.25", "2026-01-01 00:00:00|FR|1|7.50"],
    )
}
