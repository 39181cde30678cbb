//! Streams of Redis, by redis-server and redis-py.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::Server;
use crate::kafka::{poll, same, talk};
use crate::kept_insert::rows_of;
use crate::program::{Home, failed, for_ever, rounds};
use crate::sinks::{LAST, STREAM, VIEWS, engine, insert, refusal, small, wait_until};
use crate::watch::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("redis/values and metadata have their types", types),
        trial("redis/poison is set aside with its id", poison),
        trial("redis/reading begins where option start says", starts),
        trial("redis/a server that is away fails only what ends", away),
        trial("redis/what a stream has lost is an error", lost),
        trial("redis/kill -9 of either over windows loses and doubles nothing", kills),
        trial("redis/sink: fields and values", entries),
        trial("redis/sink: a server that is away holds it alone", sink_away),
        trial("redis/sink: what is refused is set aside", sink_refused),
        trial("redis/sink: kill -9 loses nothing", sink_killed),
        trial("redis/the examples of the documentation", examples),
    ]
}

/// A server whose commands are those of Redis.
struct Redis(Server);

/// The fields of an entry.
type Fields = Vec<(String, String)>;

impl Redis {
    fn new() -> Result<Self, Failed> {
        let mut server = Server::new("redis_server.py")?;
        server.start()?;
        Ok(Self(server))
    }

    fn add(&mut self, stream: &str, entries: &serde_json::Value) -> Result<(), Failed> {
        self.0.says(&json!({"do": "add", "stream": stream, "entries": entries}))
    }

    fn rows(&mut self, stream: &str, first: u64, count: u64) -> Result<(), Failed> {
        self.0.says(&json!({"do": "rows", "stream": stream, "first": first, "count": count}))
    }

    fn consume(&mut self, stream: &str, count: usize) -> Result<Vec<Fields>, Failed> {
        let answer = self.0.answers(&json!({"do": "consume", "stream": stream, "count": count}))?;
        serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}").into())
    }

    fn of(&self, stream: &str, more: &str) -> String {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let address = &self.0.address;
        format!("WITH (connector = 'redis', server = '{address}', stream = '{stream}'{more})")
    }
}

fn types() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    server.add(
        "t",
        &json!([
            {"id": "1767225600123-0", "fields": {"trace": "ü", "value":
             "{\"big\": 9223372036854775807, \"price\": \"123456789.01\", \"text\": \"日本 \\\"q\\\"\\n\", \"day\": \"1969-12-31\", \"yes\": true, \"list\": [1, null]}"}},
            {"id": "1767225600123-1", "fields": {"value": "{\"big\": -9223372036854775808, \"x\": 1.5e300, \"unknown\": {}}"}}
        ]),
    )?;
    server.add("u", &json!([{"id": "5-2", "fields": {"value": "{}"}}]))?;
    let talk = talk()?;
    talk.ask(&format!(
        "CREATE STREAM s (big BIGINT, x DOUBLE, price DECIMAL(11, 2), text VARCHAR, day DATE, yes BOOLEAN, list BIGINT[], \
         stream VARCHAR METADATA, id VARCHAR METADATA, fields VARCHAR METADATA, at TIMESTAMP(3) NOT NULL METADATA FROM 'timestamp', \
         WATERMARK FOR at) {}",
        server.of("t, u", "format = 'json'")
    ))?;
    let null = "NULL";
    same(
        &talk.rows("SELECT big, x, price, text, day, yes, list FROM s ORDER BY at, id")?,
        &[
            &[null, null, null, null, null, null, null],
            &[
                "9223372036854775807",
                null,
                "123456789.01",
                "日本 \"q\"\n",
                "1969-12-31",
                "true",
                "[1, NULL]",
            ],
            &["-9223372036854775808", "1.5e300", null, null, null, null, null],
        ],
    )?;
    same(
        &talk.rows("SELECT stream, id, at FROM s ORDER BY at, id")?,
        &[
            &["u", "5-2", "1970-01-01T00:00:00.005"],
            &["t", "1767225600123-0", "2026-01-01T00:00:00.123"],
            &["t", "1767225600123-1", "2026-01-01T00:00:00.123"],
        ],
    )?;
    same(&talk.rows("SELECT fields FROM s WHERE stream = 'u'")?, &[&["{\"value\":\"{}\"}"]])?;
    talk.ask(&format!(
        "CREATE STREAM f (v VARCHAR) {}",
        server.of("t", "field = 'trace', format = 'raw'")
    ))?;
    same(&talk.rows("SELECT v FROM f")?, &[&["ü"]])?;
    same(&talk.rows("SELECT count(*) FROM windrow.bad_rows WHERE stream = 'f'")?, &[&["1"]])
}

fn poison() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    server.add(
        "t",
        &json!(["{\"a\": 1}", "{\"a\": 2", "", {"hex": "ff00"}, "{\"a\": \"no\"}", deep, {"fields": {"other": "1"}}, "{\"a\": 8}"]),
    )?;
    let ids: Vec<String> =
        serde_json::from_str(&server.0.answers(&json!({"do": "ids", "stream": "t"}))?)?;
    let talk = talk()?;
    talk.ask(&format!("CREATE STREAM s (a BIGINT) {}", server.of("t", "")))?;
    same(&talk.rows("SELECT sum(a), count(*) FROM s")?, &[&["9", "2"]])?;
    let bad = talk.rows(
        "SELECT CAST(CAST(\"offset\" AS BIGINT) / 2097152 AS VARCHAR) || '-' || CAST(\"offset\" % 2097152 AS VARCHAR) FROM windrow.bad_rows ORDER BY \"offset\"",
    )?;
    let bad: Vec<&str> = bad.iter().map(|row| row[0].as_str()).collect();
    let good = [0, 7];
    let expected: Vec<&str> = ids
        .iter()
        .enumerate()
        .filter(|(at, _)| !good.contains(at))
        .map(|(_, id)| id.as_str())
        .collect();
    if bad == expected { Ok(()) } else { Err(format!("{bad:?} is not {expected:?}").into()) }
}

fn starts() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    let entry = |n: u64| json!({"id": format!("{}-0", 1000 + n), "fields": {"value": format!("{{\"n\": {n}}}")}});
    server.add("t", &json!((0..10).map(entry).collect::<Vec<_>>()))?;
    let talk = talk()?;
    for (name, start) in [
        ("e", "earliest"),
        ("l", "latest"),
        ("i", "1004-0"),
        ("at", "1970-01-01 00:00:01.007"),
        ("never", "2100-01-01"),
    ] {
        talk.ask(&format!(
            "CREATE STREAM {name} (n BIGINT) {}",
            server.of("t", &format!("start = '{start}'"))
        ))?;
    }
    same(&talk.rows("SELECT count(*) FROM e")?, &[&["10"]])?;
    same(&talk.rows("SELECT count(*) FROM l")?, &[&["0"]])?;
    same(&talk.rows("SELECT count(*), min(n) FROM i")?, &[&["6", "4"]])?;
    same(&talk.rows("SELECT count(*), min(n) FROM at")?, &[&["3", "7"]])?;
    same(&talk.rows("SELECT count(*) FROM never")?, &[&["0"]])?;
    server.add("t", &json!((10..15).map(entry).collect::<Vec<_>>()))?;
    same(&talk.rows("SELECT count(*), min(n) FROM l")?, &[&["5", "10"]])?;
    server.0.says(&json!({"do": "set", "key": "k", "value": "v"}))?;
    let why = refusal(talk.ask(&format!("CREATE STREAM k (n INT) {}", server.of("k", ""))))?;
    if why.contains("key \"k\" is a string, not a stream") { Ok(()) } else { Err(why.into()) }
}

/// What a stream over numbers is called and has.
fn numbers(server: &Redis) -> String {
    format!(
        "CREATE STREAM IF NOT EXISTS s (n BIGINT, k INT, ts TIMESTAMP(3), WATERMARK FOR ts) {};\n",
        server.of("t", "")
    )
}

const WINDOWS: &str = "SELECT window_start, window_end, k, count(*) AS n, sum(n) AS total, min(n) AS low \
                       FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k";

fn away() -> Result<(), Failed> {
    let mut server = Redis(Server::new("redis_server.py")?);
    let talk = talk()?;
    // No server yet: the definition is accepted, what ends says so, what goes on waits.
    talk.ask(&numbers(&server))?;
    let Err(first) = talk.rows("SELECT count(*) FROM s") else {
        return Err("an answer without a server".into());
    };
    if !first.0.contains("does not answer") || !first.0.contains(&server.0.address) {
        return Err(first.0.into());
    }
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT n FROM s")?;
    poll(&talk, "SELECT last_error IS NOT NULL FROM windrow.streams", "true")?;
    server.0.says(&json!({"do": "start", "password": "hunter2"}))?;
    server.rows("t", 0, 10)?;
    // What was there before the login was asked for waits; what is new is refused.
    poll(&talk, "SELECT last_error LIKE '%refuses the login%' FROM windrow.streams", "true")?;
    for more in ["", "password = 'wrong-one'"] {
        let why = refusal(talk.ask(&format!("CREATE STREAM z (n INT) {}", server.of("t", more))))?;
        if !why.contains("refuses the login") || why.contains("wrong-one") {
            return Err(why.into());
        }
    }
    let login = server.of("t", "password = 'hunter2'");
    talk.ask(&format!("CREATE STREAM b (n BIGINT) {login}"))?;
    same(&talk.rows("SELECT count(*) FROM b")?, &[&["10"]])?;
    let shown = format!("{:?}", talk.rows("SHOW CREATE STREAM b")?);
    if shown.contains("hunter2") || !shown.contains("***") {
        return Err(shown.into());
    }
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT n FROM b")?;
    poll(&talk, "SELECT count(*) FROM w", "10")?;
    poll(&talk, "SELECT connected FROM windrow.streams WHERE name = 'b'", "true")?;
    server.0.kill()?;
    poll(&talk, "SELECT connected FROM windrow.streams WHERE name = 'b'", "false")?;
    server.0.says(&json!({"do": "start", "password": "hunter2"}))?;
    server.rows("t", 10, 10)?;
    poll(&talk, "SELECT count(*) FROM w", "20")?;
    poll(
        &talk,
        "SELECT last_error LIKE '%refuses the login%' OR last_error LIKE '%does not answer%' FROM windrow.streams WHERE name = 's'",
        "true",
    )
}

fn lost() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    let mut home = Home::new()?;
    home.flags = ["--checkpoint-interval", "0.01"].map(str::to_owned).to_vec();
    let view = "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT n, ts FROM s;\n";
    let sql = format!("{}{view}", numbers(&server));
    server.rows("t", 0, 10)?;
    home.ok(&format!("{sql}WAIT FOR v UNTIL TIMESTAMP '2026-01-01 00:00:01';\n"))?;
    server.rows("t", 10, 10)?;
    server.0.says(&json!({"do": "trim", "stream": "t", "length": 3}))?;
    let said = home.run(&format!("{sql}WAIT FOR v UNTIL TIMESTAMP '2026-01-01 00:00:03';\n"))?;
    said.no_bug()?;
    if format!("{said:?}").contains("may have lost entries") {
        Ok(())
    } else {
        Err(format!("{said:?}").into())
    }
}

fn kills() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags =
        ["--checkpoint-interval", "0.003", "--tail-rows", "40"].map(str::to_owned).to_vec();
    let mut sql = numbers(&server);
    writeln!(sql, "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS {WINDOWS};")?;
    let (rounds, rows) = (u64::try_from(rounds(16))?, 500);
    for round in 0..rounds {
        let mut running = home.start(&format!("{sql}{}", for_ever("v")))?;
        server.rows("t", round * rows, rows)?;
        if round == rounds / 2 {
            server.0.kill()?;
            server.0.start()?;
        }
        running.steps_more(usize::try_from(2 + round * 3 % 8)?)?;
        running.kill()?;
    }
    // The last window is open: nothing comes after its rows.
    let windows = rounds * rows / 50 - 1;
    let end = format!("to_timestamp_seconds({})", 1_767_225_600 + windows * 10);
    let stop = format!("2026-01-01 00:{:02}:{:02}", windows / 6, windows % 6 * 10);
    let before = format!("{sql}WAIT FOR v UNTIL TIMESTAMP '{stop}';\n");
    let query = format!("SELECT count(*), sum(n), sum(total) FROM v WHERE window_end <= {end}");
    let tables = home.tables(&before, &[&query])?;
    let count = windows * 50;
    let expected = format!("{},{count},{}", windows * 7, count * (count - 1) / 2);
    if tables == [vec![expected.clone()]] {
        return Ok(());
    }
    Err(format!("{tables:?} is not {expected}: {:?}", home.keep()).into())
}

fn entries() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    let home = Home::new()?;
    home.ok(&format!(
        "CREATE STREAM s (id BIGINT, w VARCHAR, h VARCHAR, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts);
INSERT INTO s VALUES
    (9223372036854775807, 'ä \"\n', 'é', 0.1, TIMESTAMP '2026-01-01 00:00:00.125'),
    (NULL, NULL, NULL, -2.5e300, TIMESTAMP '2026-01-01 00:00:01');
CREATE SINK k AS SELECT id, w, h, x FROM s {};\nWAIT FOR k;",
        server.of("t:${h}", "headers = 'h', field = 'row'")
    ))?;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (stream, row, expected) in [
        (
            "t:é",
            1,
            vec![
                pair("h", "é"),
                pair("row", "{\"id\":9223372036854775807,\"w\":\"ä \\\"\\n\",\"x\":0.1}"),
            ],
        ),
        ("t:null", 2, vec![pair("row", "{\"id\":null,\"w\":null,\"x\":-2.5e300}")]),
    ] {
        let mut found = server.consume(stream, 1)?.into_iter().next().ok_or("no entry")?;
        let at = found.iter().position(|(name, _)| name == "idempotency-key");
        let (_, key) = found.remove(at.ok_or("no key")?);
        if !key.starts_with("k:") || !key.ends_with(&format!(":{row}")) || found != expected {
            return Err(format!("{key} {found:?}").into());
        }
    }
    Ok(())
}

/// The numbers in the values of entries.
fn ids(entries: &[Fields]) -> Vec<u64> {
    let id = |fields: &Fields| {
        let (_, value) = fields.iter().find(|(name, _)| name == "value")?;
        serde_json::from_str::<serde_json::Value>(value).ok()?.get("id")?.as_u64()
    };
    entries.iter().filter_map(id).collect()
}

fn sink_away() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask(&format!("CREATE SINK k FROM v {}", server.of("t", "timeout = '1 s'")))?;
    insert(&talk, 0..10)?;
    talk.ask("WAIT FOR k")?;
    server.0.kill()?;
    insert(&talk, 10..20)?;
    let row = wait_until(&talk, "SELECT state, last_error FROM windrow.sinks", "retrying")?;
    if !row[1].contains("does not answer") {
        return Err(format!("{row:?}").into());
    }
    talk.ask("WAIT FOR v")?;
    server.0.start()?;
    talk.ask("WAIT FOR k")?;
    talk.close()?;
    let found: BTreeSet<u64> = ids(&server.consume("t", 20)?).into_iter().collect();
    if found == (0..20).collect() { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn sink_refused() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    server.0.says(&json!({"do": "set", "key": "t:no", "value": "v"}))?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT id, CASE WHEN id % 20 = 7 THEN 'no' ELSE 'x' END AS w FROM s")?;
    talk.ask(&format!("CREATE SINK k FROM w {}", server.of("t:${w}", "on_error = 'reject'")))?;
    insert(&talk, 0..40)?;
    talk.ask("WAIT FOR k")?;
    let rejected =
        talk.rows("SELECT \"sequence\", reason FROM windrow.rejected_rows ORDER BY 1")?;
    if rejected.len() != 2 || !rejected[0][1].contains("key \"t:no\" is not a stream") {
        return Err(format!("{rejected:?}").into());
    }
    for (options, word) in [
        (server.of("t:${nope}", ""), "there is no column \"nope\""),
        (server.of("t", "max_length = '0'"), "option \"max_length\""),
        (server.of("t", "key = 'id'"), "unknown option \"key\""),
    ] {
        let why = refusal(talk.ask(&format!("CREATE SINK z FROM v {options}")))?;
        if !why.contains(word) {
            return Err(why.into());
        }
    }
    talk.close()?;
    let found: BTreeSet<u64> = ids(&server.consume("t:x", 38)?).into_iter().collect();
    let expected = (0..40).filter(|id| id % 20 != 7).collect();
    if found == expected { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn sink_killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    let mut server = Redis::new()?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let sink = server.of("t", "batch_rows = '30', batch_interval = '10 ms'");
    let create = format!("{STREAM}{VIEWS}\nCREATE SINK IF NOT EXISTS k FROM r {sink};\n");
    let kills = rounds(16) as u64;
    for kill in 0..kills {
        let mut sql = create.clone();
        for statement in kill * STATEMENTS..(kill + 1) * STATEMENTS {
            sql.push_str(&rows_of(statement));
            if statement % 5 == 0 {
                sql.push_str("WAIT FOR k;\n");
            }
        }
        sql.push_str(&for_ever("v"));
        let mut running = home.start(&sql)?;
        if !running.until(usize::try_from(kill * 11 % STATEMENTS)?, "INSERT 0")? {
            return Err(failed(&running.finish()?, "the program ends"));
        }
        if kill == kills / 2 {
            server.0.kill()?;
            server.0.start()?;
        }
        running.steps_more(usize::try_from(kill * 17 % 29)?)?;
        running.kill()?.no_bug()?;
    }
    let last = create + LAST + "WAIT FOR k;\n";
    let tables = home.tables(&last, &["SELECT id FROM s WHERE k <> 3 AND id >= 0"])?;
    let expected: BTreeSet<u64> = tables[0].iter().filter_map(|id| id.parse().ok()).collect();
    let found = server.consume("t", expected.len() + 1)?;
    // What came twice has the same key, and is the same.
    let mut by_key: BTreeMap<String, Fields> = BTreeMap::new();
    for fields in &found {
        let key = fields.iter().find(|(name, _)| name == "idempotency-key");
        let key = key.map(|(_, key)| key.clone()).ok_or("no key")?;
        if by_key.insert(key.clone(), fields.clone()).is_some_and(|before| before != *fields) {
            return Err(format!("key {key} has two entries").into());
        }
    }
    let different: BTreeSet<u64> = ids(&found).into_iter().collect();
    if different == expected && !expected.is_empty() && by_key.len() == expected.len() + 1 {
        return Ok(());
    }
    Err(format!("{} of {} rows, {} keys", different.len(), expected.len(), by_key.len()).into())
}

/// What the documentation shows, with the server of the test.
fn examples() -> Result<(), Failed> {
    let mut server = Redis::new()?;
    server.add(
        "readings",
        &json!([
            "{\"sensor\": \"a\", \"celsius\": 21.5}",
            "{\"sensor\": \"b\", \"celsius\": 80.25}"
        ]),
    )?;
    let section = |file: &str, title: &str| -> Result<String, Failed> {
        let text = std::fs::read_to_string(file)?;
        let (_, from) = text.split_once(title).ok_or("no section")?;
        let example = from.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
        Ok(example.ok_or("no example")?.replace("redis:6379", &server.0.address))
    };
    let mut home = Home::new()?;
    home.durable = false;
    let said = home.ok(&section("docs/connectors.md", "## `redis`")?)?;
    if !said.contains("80.25") || said.contains("21.5") {
        return Err(said.into());
    }
    home.ok(&section("docs/sinks.md", "## `connector = 'redis'`")?)?;
    let found = server.consume("hot:b", 1)?;
    if found.len() == 1 { Ok(()) } else { Err(format!("{found:?}").into()) }
}
