//! Topics of MQTT, by the broker of nats-server and paho-mqtt.
//!
//! Each message arrives at least once: tests count different rows where a process is killed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use windrow_engine::EngineConfig;

use super::Server;
use crate::kafka::{poll, same, talk};
use crate::kept_insert::rows_of;
use crate::program::{Home, failed, for_ever, rounds};
use crate::sinks::{LAST, STREAM, VIEWS, engine, insert, refusal, small, wait_until};
use crate::talk::Talk;
use crate::watch::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("mqtt/values and metadata have their types", types),
        trial("mqtt/wildcards choose the topics", wildcards),
        trial("mqtt/poison is set aside", poison),
        trial("mqtt/a broker that is away is waited for", away),
        trial("mqtt/messages wait while nobody reads", session),
        trial("mqtt/the login is needed and not shown", login),
        trial("mqtt/the certificate is verified", secure),
        trial("mqtt/rows are the connector's alone", rights),
        trial("mqtt/kill -9 of either loses nothing", kills),
        trial("mqtt/sink: topics, values and retained messages", messages),
        trial("mqtt/sink: a broker that is away holds it alone", sink_away),
        trial("mqtt/sink: what is refused is set aside", sink_refused),
        trial("mqtt/sink: kill -9 loses nothing", sink_killed),
        trial("mqtt/the examples of the documentation", examples),
    ]
}

/// A message: topic, value, whether it was retained.
type Message = (String, String, bool);

struct Mqtt(Server);

impl Mqtt {
    fn new() -> Result<Self, Failed> {
        let mut server = Server::new("mqtt_server.py")?;
        server.start()?;
        Ok(Self(server))
    }

    fn publish(&mut self, messages: &serde_json::Value) -> Result<(), Failed> {
        self.0.says(&json!({"do": "publish", "messages": messages}))
    }

    fn rows(&mut self, topic: &str, first: u64, count: u64) -> Result<(), Failed> {
        self.0.says(&json!({"do": "rows", "topic": topic, "first": first, "count": count}))
    }

    fn collect(&mut self, topic: &str) -> Result<(), Failed> {
        self.0.says(&json!({"do": "collect", "topic": topic}))
    }

    fn consume(&mut self, count: usize) -> Result<Vec<Message>, Failed> {
        let answer = self.0.answers(&json!({"do": "consume", "count": count}))?;
        serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}").into())
    }

    /// Of a stream that is the only one with its topics.
    fn of(&self, topic: &str, more: &str) -> String {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let (address, id) = (&self.0.address, topic.replace(['/', '+', '#', ',', ' '], "_"));
        format!(
            "WITH (connector = 'mqtt', server = '{address}', topic = '{topic}', client_id = 'w{id}'{more})"
        )
    }

    fn sink(&self, topic: &str, more: &str) -> String {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let address = &self.0.address;
        format!("WITH (connector = 'mqtt', server = '{address}', topic = '{topic}'{more})")
    }
}

fn types() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    let talk = talk()?;
    talk.ask(&format!(
        "CREATE STREAM s (big BIGINT, x DOUBLE, price DECIMAL(11, 2), text VARCHAR, day DATE, yes BOOLEAN, ts TIMESTAMP(3), \
         list BIGINT[], topic VARCHAR METADATA, at TIMESTAMP(6) NOT NULL METADATA FROM 'timestamp', twice DOUBLE AS (x * 2), \
         WATERMARK FOR at AS at - INTERVAL '1 second') {}",
        server.of("t/#", "format = 'json'")
    ))?;
    server.publish(&json!([
        {"topic": "t/a", "value": "{\"big\": 9223372036854775807, \"price\": \"123456789.01\", \"text\": \"日本 \\\"q\\\"\\n\", \"day\": \"1969-12-31\", \"yes\": true, \"ts\": 1767225600123, \"list\": [1, null]}"},
        {"topic": "t/b/c", "value": "{\"big\": -9223372036854775808, \"x\": 1.5e300, \"unknown\": {}}"},
        {"topic": "t/ü", "qos": 0, "value": "{}"}
    ]))?;
    poll(&talk, "SELECT count(*) FROM s", "3")?;
    let null = "NULL";
    same(
        &talk.rows("SELECT big, x, price, text, day, yes, ts, list FROM s ORDER BY topic")?,
        &[
            &[
                "9223372036854775807",
                null,
                "123456789.01",
                "日本 \"q\"\n",
                "1969-12-31",
                "true",
                "2026-01-01T00:00:00.123",
                "[1, NULL]",
            ],
            &["-9223372036854775808", "1.5e300", null, null, null, null, null, null],
            &[null, null, null, null, null, null, null, null],
        ],
    )?;
    same(
        &talk.rows("SELECT topic, twice, at > TIMESTAMP '2020-01-01' FROM s ORDER BY topic")?,
        &[&["t/a", null, "true"], &["t/b/c", "3e300", "true"], &["t/ü", null, "true"]],
    )
}

fn wildcards() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    let talk = talk()?;
    for (name, topic) in [("one", "a/+/c"), ("all", "a/#"), ("two", "a/b, x/y")] {
        let options = server.of(topic, "format = 'raw'");
        talk.ask(&format!(
            "CREATE STREAM {name} (topic VARCHAR METADATA, seen TIMESTAMP AS (PROCTIME()), v VARCHAR) {options}"
        ))?;
    }
    let topics = ["a/b/c", "a/b", "a/b/d", "a/ü/c", "x/y", "x", "a/b/c/d"];
    let messages: Vec<_> =
        topics.iter().map(|topic| json!({"topic": topic, "value": "v"})).collect();
    server.publish(&json!(messages))?;
    poll(&talk, "SELECT count(*) FROM all", "5")?;
    poll(&talk, "SELECT count(*) FROM one", "2")?;
    poll(&talk, "SELECT count(*) FROM two", "2")?;
    same(&talk.rows("SELECT topic FROM one ORDER BY 1")?, &[&["a/b/c"], &["a/ü/c"]])?;
    same(&talk.rows("SELECT topic FROM two ORDER BY 1")?, &[&["a/b"], &["x/y"]])?;
    for (topic, word) in [("a/#/b", "a/#/b"), ("a+", "a+")] {
        let why = refusal(talk.ask(&format!("CREATE STREAM z (a INT) {}", server.of(topic, ""))))?;
        if !why.contains(&format!("option \"topic\" must be topics in which + and # are whole levels, and # is the last one: 'a/+/b, c/#', not \"{word}\"")) {
            return Err(why.into());
        }
    }
    Ok(())
}

fn poison() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    let talk = talk()?;
    talk.ask(&format!(
        "CREATE STREAM s (a BIGINT, CONSTRAINT small CHECK (a < 100)) {}",
        server.of("t", "")
    ))?;
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    let values = [
        json!("{\"a\": 1}"),
        json!("{\"a\": 2"),
        json!(""),
        json!("{\"a\": \"no\"}"),
        json!(deep),
        json!("{\"a\": 3}{\"a\": 4}"),
        json!("{\"a\": 100}"),
        json!("{\"a\": 8}"),
    ];
    let mut messages: Vec<_> =
        values.iter().map(|value| json!({"topic": "t", "value": value})).collect();
    messages.insert(3, json!({"topic": "t", "hex": "ff00"}));
    server.publish(&json!(messages))?;
    poll(&talk, "SELECT sum(a) FROM s", "9")?;
    poll(&talk, "SELECT count(*) FROM windrow.bad_rows WHERE reason <> ''", "7")?;
    let why = refusal(
        talk.ask(&format!("CREATE STREAM f (a BIGINT) {}", server.of("t", "on_bad_row = 'fail'"))),
    )?;
    if why.contains("option \"on_bad_row\" must be 'dead_letter' or 'null'") {
        Ok(())
    } else {
        Err(why.into())
    }
}

/// What a stream over numbers is called and has.
fn numbers(server: &Mqtt) -> String {
    format!(
        "CREATE STREAM IF NOT EXISTS s (n BIGINT, k INT, ts TIMESTAMP(3), WATERMARK FOR ts) {};\n",
        server.of("t", "")
    )
}

fn away() -> Result<(), Failed> {
    let mut server = Mqtt(Server::new("mqtt_server.py")?);
    let talk = talk()?;
    // No broker yet: the definition is accepted, and what reads it waits.
    talk.ask(&numbers(&server))?;
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT n FROM s")?;
    poll(
        &talk,
        "SELECT last_error LIKE '%does not answer%' AND NOT connected FROM windrow.streams",
        "true",
    )?;
    same(&talk.rows("SELECT count(*) FROM s")?, &[&["0"]])?;
    server.0.start()?;
    poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
    server.rows("t", 0, 10)?;
    poll(&talk, "SELECT count(DISTINCT n) FROM v", "10")?;
    server.0.kill()?;
    poll(&talk, "SELECT connected FROM windrow.streams", "false")?;
    server.0.start()?;
    server.rows("t", 10, 10)?;
    poll(&talk, "SELECT count(DISTINCT n) FROM v", "20")?;
    poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
    same(&talk.rows("SELECT status FROM windrow.views")?, &[&["running"]])
}

fn session() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    let temp = tempfile::tempdir()?;
    let first = engine(Some(temp.path()))?;
    first.ask(&numbers(&server))?;
    server.rows("t", 0, 10)?;
    poll(&first, "SELECT count(DISTINCT n) FROM s", "10")?;
    first.close()?;
    server.rows("t", 10, 10)?;
    let second = engine(Some(temp.path()))?;
    poll(&second, "SELECT count(DISTINCT n) FROM s", "20")?;
    second.ask("DROP STREAM s")?;
    server.rows("t", 20, 10)?;
    // The session is still there, and another stream may have it; its topics are others.
    let options = server.of("t", "").replace("topic = 't'", "topic = 'u'");
    second.ask(&format!("CREATE STREAM s (n BIGINT) {options}"))?;
    server.rows("u", 100, 1)?;
    poll(&second, "SELECT sum(DISTINCT n) FROM s", "100")?;
    poll(
        &second,
        "SELECT last_error LIKE '%a message of topic \"t\", which the stream does not read' FROM windrow.streams",
        "true",
    )?;
    second.close()?;
    Ok(())
}

fn login() -> Result<(), Failed> {
    let mut server = Mqtt(Server::new("mqtt_server.py")?);
    server.0.says(&json!({"do": "start", "user": "u", "password": "hunter2"}))?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    for more in ["", "user = 'u', password = 'wrong-one'"] {
        let why = refusal(talk.ask(&format!("CREATE STREAM a (n INT) {}", server.of("t", more))))?;
        if !why.contains("refuses the connection: the") || why.contains("wrong-one") {
            return Err(why.into());
        }
    }
    let login = server.of("t", "user = 'u', password = 'hunter2'");
    talk.ask(&format!("CREATE STREAM b (n INT) {login}"))?;
    server.publish(&json!([{"topic": "t", "value": "{\"n\": 1}"}]))?;
    poll(&talk, "SELECT count(*) FROM b", "1")?;
    let shown = format!("{:?}", talk.rows("SHOW CREATE STREAM b")?);
    if shown.contains("hunter2") || !shown.contains("***") {
        return Err(shown.into());
    }
    talk.close()?;
    // A login that is refused later is waited for.
    server.0.kill()?;
    server.0.says(&json!({"do": "start", "user": "u", "password": "other"}))?;
    let talk = engine(Some(temp.path()))?;
    poll(
        &talk,
        "SELECT last_error LIKE '%refuses the connection: the%' AND NOT connected FROM windrow.streams",
        "true",
    )?;
    server.0.kill()?;
    server.0.says(&json!({"do": "start", "user": "u", "password": "hunter2"}))?;
    poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
    talk.close()?;
    Ok(())
}

fn secure() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (cert, key) = (temp.path().join("server.crt"), temp.path().join("server.key"));
    std::fs::write(&cert, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;
    let mut server = Mqtt(Server::new("mqtt_server.py")?);
    server.0.says(&json!({"do": "start", "cert": cert, "key": key}))?;
    server.collect("out")?;
    let port = server.0.address.rsplit(':').next().ok_or("no port")?.to_owned();
    let talk = talk()?;
    let with = |host: &str, topic: &str, more: &str| {
        format!(
            "WITH (connector = 'mqtt', server = 'mqtts://{host}:{port}', topic = '{topic}'{more})"
        )
    };
    let ca = format!(", tls_ca = '{}'", cert.display());
    talk.ask(&format!(
        "CREATE STREAM s (n BIGINT) {}",
        with("localhost", "t", &format!("{ca}, client_id = 'c'"))
    ))?;
    server.publish(&json!([{"topic": "t", "value": "{\"n\": 7}"}]))?;
    poll(&talk, "SELECT sum(DISTINCT n) FROM s", "7")?;
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT n FROM s")?;
    talk.ask(&format!("CREATE SINK k FROM v {}", with("localhost", "out", &ca)))?;
    talk.ask("WAIT FOR k")?;
    if server.consume(1)?[0].1 != "{\"n\":7}" {
        return Err("not the row".into());
    }
    for (host, more) in [("127.0.0.1", ca.as_str()), ("localhost", "")] {
        let why = refusal(talk.ask(&format!("CREATE SINK z FROM v {}", with(host, "out", more))))?;
        if !why.to_lowercase().contains("certificate") {
            return Err(why.into());
        }
    }
    Ok(())
}

fn rights() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    let talk = talk()?;
    talk.ask(&numbers(&server))?;
    let why = refusal(talk.ask("INSERT INTO s (n) VALUES (1)"))?;
    if !why.contains("is fed by its connector \"mqtt\"") {
        return Err(why.into());
    }
    server.rows("t", 0, 10)?;
    poll(&talk, "SELECT count(*) FROM s", "10")?;
    // The rows are in the log of the stream, so they may be removed.
    talk.ask("TRUNCATE s")?;
    same(&talk.rows("SELECT count(*) FROM s")?, &[&["0"]])?;
    talk.ask(&format!("CREATE OR REPLACE STREAM s (n BIGINT) {}", server.of("t", "")))?;
    server.rows("t", 10, 1)?;
    poll(&talk, "SELECT sum(DISTINCT n) FROM s", "10")
}

fn kills() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags =
        ["--checkpoint-interval", "0.003", "--tail-rows", "40"].map(str::to_owned).to_vec();
    let mut sql = numbers(&server);
    writeln!(sql, "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT n, k FROM s;")?;
    let (rounds, rows) = (u64::try_from(rounds(16))?, 200);
    for round in 0..rounds {
        let mut running = home.start(&format!("{sql}{}", for_ever("v")))?;
        if round == 0 {
            // The session begins with the stream.
            running.until(1, "CREATE MATERIALIZED VIEW")?;
        }
        server.rows("t", round * rows, rows)?;
        if round == rounds / 2 {
            server.0.kill()?;
            server.0.start()?;
        }
        // What has stored all of them is idle: it begins few changes more.
        running.steps_more(usize::try_from(1 + round % 3)?)?;
        running.kill()?;
    }
    let config = EngineConfig { data_dir: Some(home.data()), ..EngineConfig::default() };
    let talk = Talk::following(config)?;
    let all = rounds * rows;
    poll(&talk, "SELECT count(DISTINCT n) FROM s", &all.to_string())?;
    poll(&talk, "SELECT sum(DISTINCT n) FROM v", &(all * (all - 1) / 2).to_string())?;
    poll(&talk, "SELECT (SELECT count(*) FROM s) = (SELECT count(*) FROM v)", "true")?;
    same(&talk.rows("SELECT count(*) FROM windrow.bad_rows")?, &[&["0"]])?;
    talk.close()?;
    Ok(())
}

fn messages() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    server.collect("t/#")?;
    let home = Home::new()?;
    home.ok(&format!(
        "CREATE STREAM s (id BIGINT, w VARCHAR, h VARCHAR, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts);
INSERT INTO s VALUES
    (9223372036854775807, 'ä \"\n', 'é', 0.1, TIMESTAMP '2026-01-01 00:00:00.125'),
    (-1, '', NULL, -2.5e300, TIMESTAMP '2026-01-01 00:00:01'),
    (NULL, NULL, 'b', NULL, TIMESTAMP '2026-01-01 00:00:02');
CREATE SINK k AS SELECT id, w, x, h FROM s {};
CREATE SINK l AS SELECT w FROM s WHERE w <> '' {};
WAIT FOR k;
WAIT FOR l;",
        server.sink("t/${h}/${id}", ""),
        server.sink("kept", "format = 'raw', retain = 'true'"),
    ))?;
    let mut found = server.consume(3)?;
    found.sort();
    found.dedup();
    let expected = [
        ("t/b/null", "{\"id\":null,\"w\":null,\"x\":null,\"h\":\"b\"}"),
        ("t/null/-1", "{\"id\":-1,\"w\":\"\",\"x\":-2.5e300,\"h\":null}"),
        (
            "t/é/9223372036854775807",
            "{\"id\":9223372036854775807,\"w\":\"ä \\\"\\n\",\"x\":0.1,\"h\":\"é\"}",
        ),
    ]
    .map(|(topic, value)| (topic.to_owned(), value.to_owned(), false));
    if found != expected {
        return Err(format!("{found:#?}").into());
    }
    // Who subscribes later gets the last one.
    server.collect("kept")?;
    let found = server.consume(4)?;
    match found.iter().find(|(topic, ..)| topic == "kept") {
        Some((_, value, true)) if value == "ä \"\n" => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn ids(messages: &[Message]) -> BTreeSet<u64> {
    let id = |message: &Message| {
        let value: serde_json::Value = serde_json::from_str(&message.1).ok()?;
        value.get("id")?.as_u64()
    };
    messages.iter().filter_map(id).collect()
}

fn sink_away() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    server.collect("t")?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask(&format!("CREATE SINK k FROM v {}", server.sink("t", "timeout = '1 s'")))?;
    insert(&talk, 0..250)?;
    talk.ask("WAIT FOR k")?;
    same(&talk.rows("SELECT guarantee FROM windrow.sinks")?, &[&["at least once"]])?;
    server.0.kill()?;
    insert(&talk, 250..260)?;
    let row = wait_until(&talk, "SELECT state, last_error FROM windrow.sinks", "retrying")?;
    if !row[1].contains("does not answer") {
        return Err(format!("{row:?}").into());
    }
    talk.ask("WAIT FOR v")?;
    server.0.start()?;
    talk.ask("WAIT FOR k")?;
    talk.close()?;
    let found = ids(&server.consume(260)?);
    if found == (0..260).collect() { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn sink_refused() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    server.collect("t/#")?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT id, CASE WHEN id % 20 = 7 THEN 'a+b' ELSE 'x' END AS w FROM s")?;
    talk.ask(&format!("CREATE SINK k FROM w {}", server.sink("t/${w}", "on_error = 'reject'")))?;
    insert(&talk, 0..40)?;
    talk.ask("WAIT FOR k")?;
    let rejected =
        talk.rows("SELECT \"sequence\", reason FROM windrow.rejected_rows ORDER BY 1")?;
    if rejected.len() != 2 || !rejected[0][1].contains("\"t/a+b\" is not a topic") {
        return Err(format!("{rejected:?}").into());
    }
    for (options, word) in [
        (server.sink("t/${nope}", ""), "there is no column \"nope\""),
        (server.sink("t/#", ""), "option \"topic\""),
        (server.sink("t", "headers = 'id'"), "unknown option \"headers\""),
    ] {
        let why = refusal(talk.ask(&format!("CREATE SINK z FROM v {options}")))?;
        if !why.contains(word) {
            return Err(why.into());
        }
    }
    talk.close()?;
    let found = ids(&server.consume(38)?);
    if found == (0..40).filter(|id| id % 20 != 7).collect() {
        Ok(())
    } else {
        Err(format!("{found:?}").into())
    }
}

fn sink_killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    let mut server = Mqtt::new()?;
    server.collect("t")?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let sink = server.sink("t", "batch_rows = '30', batch_interval = '10 ms'");
    let create = format!("{STREAM}{VIEWS}\nCREATE SINK IF NOT EXISTS k FROM r {sink};\n");
    let kills = rounds(12) as u64;
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
    let found = ids(&server.consume(expected.len())?);
    if found.is_superset(&expected) && !expected.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {} rows", found.len(), expected.len()).into())
}

/// What the documentation shows, with the broker of the test.
fn examples() -> Result<(), Failed> {
    let mut server = Mqtt::new()?;
    server.collect("alarm/#")?;
    let address = server.0.address.clone();
    let section = |file: &str, title: &str| -> Result<String, Failed> {
        let text = std::fs::read_to_string(file)?;
        let (_, from) = text.split_once(title).ok_or("no section")?;
        let example = from.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
        Ok(example.ok_or("no example")?.replace("broker:1883", &address))
    };
    let talk = talk()?;
    let example = section("docs/connectors.md", "## `mqtt`")?;
    let (create, query) = example.split_once(';').ok_or("no statement")?;
    talk.ask(create)?;
    server.publish(&json!([
        {"topic": "plant/press/temperature", "value": "{\"celsius\": 21.5}"},
        {"topic": "plant/oven/temperature", "value": "{\"celsius\": 80.25}"},
        {"topic": "plant/oven/pressure", "value": "{\"celsius\": 99}"}
    ]))?;
    poll(&talk, "SELECT count(*) FROM readings", "2")?;
    let query = query.trim().trim_end_matches(';');
    same(&talk.rows(query)?, &[&["plant/oven/temperature", "80.25"]])?;
    let mut home = Home::new()?;
    home.durable = false;
    let example = section("docs/sinks.md", "## `connector = 'mqtt'`")?;
    home.ok(&example)?;
    let found = server.consume(1)?;
    if found.iter().all(|(topic, ..)| topic == "alarm/b") && !found.is_empty() {
        Ok(())
    } else {
        Err(format!("{found:?}").into())
    }
}
