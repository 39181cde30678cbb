//! Streams of JetStream, by nats-server and nats-py.

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
        trial("nats/values and metadata have their types", types),
        trial("nats/poison is set aside with its sequence", poison),
        trial("nats/reading begins where option start says", starts),
        trial("nats/a server that is away fails only what ends", away),
        trial("nats/what a stream has lost is an error", lost),
        trial("nats/kill -9 of either over windows loses and doubles nothing", kills),
        trial("nats/the login is needed and not shown", login),
        trial("nats/sink: subjects, headers and values", messages),
        trial("nats/sink: a server that is away holds it alone", sink_away),
        trial("nats/sink: what is refused is set aside", sink_refused),
        trial("nats/sink: kill -9 loses and doubles nothing", sink_killed),
        trial("nats/the examples of the documentation", examples),
    ]
}

impl Server {
    fn nats() -> Result<Self, Failed> {
        let mut server = Self::new("nats_server.py")?;
        server.start()?;
        Ok(server)
    }

    /// Returns one that has this stream.
    fn with(stream: &str, subjects: &[&str]) -> Result<Self, Failed> {
        let mut server = Self::nats()?;
        server.create(stream, subjects)?;
        Ok(server)
    }

    fn create(&mut self, stream: &str, subjects: &[&str]) -> Result<(), Failed> {
        self.says(&json!({"do": "create", "stream": stream, "subjects": subjects}))
    }

    fn publish(&mut self, subject: &str, messages: &serde_json::Value) -> Result<(), Failed> {
        self.says(&json!({"do": "publish", "subject": subject, "messages": messages}))
    }

    fn rows(&mut self, subject: &str, first: u64, count: u64) -> Result<(), Failed> {
        self.says(&json!({"do": "rows", "subject": subject, "first": first, "count": count}))
    }

    fn consume(&mut self, stream: &str, count: usize) -> Result<Vec<Message>, Failed> {
        let answer = self.answers(&json!({"do": "consume", "stream": stream, "count": count}))?;
        serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}").into())
    }

    fn of(&self, stream: &str, more: &str) -> String {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        format!(
            "WITH (connector = 'nats', servers = '{}', stream = '{stream}'{more})",
            self.address
        )
    }

    fn sink(&self, subject: &str, more: &str) -> String {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let address = &self.address;
        format!("WITH (connector = 'nats', servers = '{address}', subject = '{subject}'{more})")
    }
}

/// A message: subject, value, headers.
type Message = (String, String, Vec<(String, String)>);

fn types() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t.>"])?;
    server.publish(
        "t.a",
        &json!([
            {"headers": {"trace": "ü", "b": "2"},
             "value": "{\"big\": 9223372036854775807, \"price\": \"123456789.01\", \"text\": \"日本 \\\"q\\\"\\n\", \"day\": \"1969-12-31\", \"yes\": true, \"ts\": 1767225600123, \"list\": [1, null]}"},
            {"subject": "t.b.c", "value": "{\"big\": -9223372036854775808, \"x\": 1.5e300, \"unknown\": {}}"},
            {"subject": "t.b.ü", "value": "{}"}
        ]),
    )?;
    let talk = talk()?;
    talk.ask(&format!(
        "CREATE STREAM s (big BIGINT, x DOUBLE, price DECIMAL(11, 2), text VARCHAR, day DATE, yes BOOLEAN, ts TIMESTAMP(3), \
         list BIGINT[], subject VARCHAR METADATA, o BIGINT METADATA FROM 'sequence', headers VARCHAR METADATA, \
         at TIMESTAMP(6) NOT NULL METADATA FROM 'timestamp', WATERMARK FOR at AS at - INTERVAL '1 second') {}",
        server.of("T", "format = 'json'")
    ))?;
    let null = "NULL";
    same(
        &talk.rows("SELECT big, x, price, text, day, yes, ts, list FROM s ORDER BY o")?,
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
        &talk.rows("SELECT subject, o, headers, at > TIMESTAMP '2020-01-01' FROM s ORDER BY o")?,
        &[
            &["t.a", "1", "{\"b\":\"2\",\"trace\":\"ü\"}", "true"],
            &["t.b.c", "2", null, "true"],
            &["t.b.ü", "3", null, "true"],
        ],
    )?;
    talk.ask(&format!(
        "CREATE STREAM f (subject VARCHAR METADATA, v VARCHAR) {}",
        server.of("T", "subject = 't.*, t.*.c', format = 'raw'")
    ))?;
    same(&talk.rows("SELECT subject FROM f ORDER BY 1")?, &[&["t.a"], &["t.b.c"]])?;
    same(&talk.rows("SELECT count(*) FROM s")?, &[&["3"]])
}

fn poison() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t"])?;
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    server.publish(
        "t",
        &json!(["{\"a\": 1}", "{\"a\": 2", "", {"hex": "ff00"}, "{\"a\": \"no\"}", deep, "{\"a\": 3}{\"a\": 4}", "{\"a\": 8}"]),
    )?;
    let talk = talk()?;
    talk.ask(&format!("CREATE STREAM s (a BIGINT) {}", server.of("T", "")))?;
    same(&talk.rows("SELECT sum(a), count(*) FROM s")?, &[&["9", "2"]])?;
    let bad = talk.rows("SELECT \"offset\", reason <> '' FROM windrow.bad_rows ORDER BY 1")?;
    let expected =
        [["2", "true"], ["3", "true"], ["4", "true"], ["5", "true"], ["6", "true"], ["7", "true"]];
    let expected: Vec<&[&str]> = expected.iter().map(<[&str; 2]>::as_slice).collect();
    same(&bad, &expected)?;
    talk.ask(&format!("CREATE STREAM f (a BIGINT) {}", server.of("T", "on_bad_row = 'fail'")))?;
    match talk.rows("SELECT a FROM f") {
        Err(refusal) if refusal.0.contains("partition \"T\" has a bad row at sequence 2") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn starts() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t", "u"])?;
    server.rows("t", 0, 10)?;
    server.rows("u", 0, 3)?;
    let times: Vec<String> =
        serde_json::from_str(&server.answers(&json!({"do": "times", "stream": "T"}))?)?;
    server.rows("t", 10, 5)?;
    let talk = talk()?;
    let create = |name: &str, options: &str| {
        talk.ask(&format!("CREATE STREAM {name} (n BIGINT) {}", server.of("T", options)))
    };
    let last = times.last().ok_or("no time")?;
    for (name, options) in [
        ("e", ""),
        ("l", "start = 'latest'"),
        ("o", "start = '14'"),
        ("u", "subject = 'u', start = '12'"),
        ("late", "start = '100'"),
    ] {
        create(name, options)?;
    }
    create("at", &format!("start = '{last}'"))?;
    create("never", "start = '2100-01-01'")?;
    same(&talk.rows("SELECT count(*) FROM e")?, &[&["18"]])?;
    same(&talk.rows("SELECT count(*) FROM l")?, &[&["0"]])?;
    same(&talk.rows("SELECT count(*), min(n) FROM o")?, &[&["5", "10"]])?;
    same(&talk.rows("SELECT count(*), min(n) FROM u")?, &[&["2", "1"]])?;
    same(&talk.rows("SELECT count(*) FROM at")?, &[&["6"]])?;
    same(&talk.rows("SELECT count(*) FROM never")?, &[&["0"]])?;
    let Err(refusal) = talk.rows("SELECT n FROM late") else { return Err("rows".into()) };
    if !refusal.0.contains("stream \"T\" has the sequences 1 to 19") {
        return Err(refusal.0.into());
    }
    server.rows("t", 15, 5)?;
    same(&talk.rows("SELECT count(*), min(n) FROM l")?, &[&["5", "15"]])?;
    same(&talk.rows("SELECT count(*) FROM e")?, &[&["23"]])
}

/// What a stream over numbers is called and has.
fn numbers(server: &Server) -> String {
    format!(
        "CREATE STREAM IF NOT EXISTS s (n BIGINT, k INT, ts TIMESTAMP(3), WATERMARK FOR ts) {};\n",
        server.of("T", "subject = 't'")
    )
}

const WINDOWS: &str = "SELECT window_start, window_end, k, count(*) AS n, sum(n) AS total, min(n) AS low \
                       FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k";

fn away() -> Result<(), Failed> {
    let mut server = Server::new("nats_server.py")?;
    let talk = talk()?;
    // No server yet: the definition is accepted, what ends says so, what goes on waits.
    talk.ask(&numbers(&server))?;
    let Err(refusal) = talk.rows("SELECT count(*) FROM s") else {
        return Err("an answer without a server".into());
    };
    if !refusal.0.contains("does not answer") || !refusal.0.contains(&server.address) {
        return Err(refusal.0.into());
    }
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT n FROM s")?;
    poll(&talk, "SELECT last_error IS NOT NULL FROM windrow.streams", "true")?;
    server.start()?;
    server.create("T", &["t", "u"])?;
    server.rows("t", 0, 10)?;
    poll(&talk, "SELECT count(*) FROM v", "10")?;
    poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
    server.kill()?;
    poll(&talk, "SELECT connected FROM windrow.streams", "false")?;
    server.start()?;
    server.rows("t", 10, 10)?;
    poll(&talk, "SELECT count(*) FROM v", "20")?;
    poll(&talk, "SELECT lag_rows FROM windrow.streams", "0")?;
    same(&talk.rows("SELECT status FROM windrow.views")?, &[&["running"]])
}

fn lost() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t"])?;
    let mut home = Home::new()?;
    home.flags = ["--checkpoint-interval", "0.01"].map(str::to_owned).to_vec();
    let sql = format!(
        "{}CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT n, ts FROM s;\n",
        numbers(&server)
    );
    server.rows("t", 0, 10)?;
    home.ok(&format!("{sql}WAIT FOR v UNTIL TIMESTAMP '2026-01-01 00:00:01';\n"))?;
    server.rows("t", 10, 10)?;
    server.says(&json!({"do": "purge", "stream": "T"}))?;
    server.rows("t", 20, 1)?;
    let said = home.run(&format!("{sql}WAIT FOR v UNTIL TIMESTAMP '2026-01-01 00:00:04';\n"))?;
    said.no_bug()?;
    if !format!("{said:?}").contains("has lost the sequences") {
        return Err(format!("{said:?}").into());
    }
    let talk = talk()?;
    server.says(
        &json!({"do": "create", "stream": "W", "subjects": ["w"], "retention": "workqueue"}),
    )?;
    let why = refusal(talk.ask(&format!("CREATE STREAM w (n INT) {}", server.of("W", ""))))?;
    if why.contains("has the retention \"workqueue\"") { Ok(()) } else { Err(why.into()) }
}

fn kills() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t", "u"])?;
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
        server.rows("u", 0, 3)?;
        if round == rounds / 2 {
            server.kill()?;
            server.start()?;
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

fn login() -> Result<(), Failed> {
    let mut server = Server::new("nats_server.py")?;
    server.says(&json!({"do": "start", "user": "u", "password": "hunter2"}))?;
    server.create("T", &["t"])?;
    server.publish("t", &json!(["{\"n\": 1}"]))?;
    let talk = talk()?;
    talk.ask(&format!("CREATE STREAM a (n INT) {}", server.of("T", "")))?;
    let Err(refusal) = talk.rows("SELECT n FROM a") else { return Err("no login".into()) };
    if !refusal.0.to_lowercase().contains("authorization") {
        return Err(refusal.0.into());
    }
    let login = server.of("T", "user = 'u', password = 'hunter2'");
    talk.ask(&format!("CREATE STREAM b (n INT) {login}"))?;
    same(&talk.rows("SELECT n FROM b")?, &[&["1"]])?;
    let shown = format!("{:?}", talk.rows("SHOW CREATE STREAM b")?);
    if shown.contains("hunter2") || !shown.contains("***") { Err(shown.into()) } else { Ok(()) }
}

fn messages() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t.>"])?;
    let home = Home::new()?;
    home.ok(&format!(
        "CREATE STREAM s (id BIGINT, w VARCHAR, h VARCHAR, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts);
INSERT INTO s VALUES
    (9223372036854775807, 'ä \"\n', 'é', 0.1, TIMESTAMP '2026-01-01 00:00:00.125'),
    (-1, '', NULL, -2.5e300, TIMESTAMP '2026-01-01 00:00:01'),
    (NULL, NULL, 'b', NULL, TIMESTAMP '2026-01-01 00:00:02');
CREATE SINK k AS SELECT id, w, h, x FROM s {};\nWAIT FOR k;",
        server.sink("t.${h}.${id}", "headers = 'h'")
    ))?;
    let mut found = server.consume("T", 3)?;
    for (row, message) in found.iter_mut().enumerate() {
        let at = message.2.iter().position(|(name, _)| name == "Nats-Msg-Id");
        let (_, id) = message.2.remove(at.ok_or("no id")?);
        if !id.starts_with("k:") || !id.ends_with(&format!(":{}", row + 1)) {
            return Err(id.into());
        }
    }
    let header = |value: &str| vec![("h".to_owned(), value.to_owned())];
    let expected = [
        (
            "t.é.9223372036854775807".to_owned(),
            "{\"id\":9223372036854775807,\"w\":\"ä \\\"\\n\",\"x\":0.1}".to_owned(),
            header("é"),
        ),
        ("t.null.-1".to_owned(), "{\"id\":-1,\"w\":\"\",\"x\":-2.5e300}".to_owned(), vec![]),
        ("t.b.null".to_owned(), "{\"id\":null,\"w\":null,\"x\":null}".to_owned(), header("b")),
    ];
    if found == expected { Ok(()) } else { Err(format!("{found:#?}").into()) }
}

/// The numbers in the values of messages.
fn ids(messages: &[Message]) -> Vec<u64> {
    let id = |message: &Message| {
        let value: serde_json::Value = serde_json::from_str(&message.1).ok()?;
        value.get("id")?.as_u64()
    };
    messages.iter().filter_map(id).collect()
}

fn sink_away() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t"])?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask(&format!("CREATE SINK k FROM v {}", server.sink("t", "timeout = '1 s'")))?;
    insert(&talk, 0..10)?;
    talk.ask("WAIT FOR k")?;
    let word = talk.rows("SELECT guarantee FROM windrow.sinks")?;
    if word != [["exactly once within the destination's window of de-duplication"]] {
        return Err(format!("{word:?}").into());
    }
    server.kill()?;
    insert(&talk, 10..20)?;
    let row = wait_until(&talk, "SELECT state, last_error FROM windrow.sinks", "retrying")?;
    if !row[1].contains("does not answer") {
        return Err(format!("{row:?}").into());
    }
    talk.ask("WAIT FOR v")?;
    server.start()?;
    talk.ask("WAIT FOR k")?;
    talk.close()?;
    let found = ids(&server.consume("T", 20)?);
    let different: BTreeSet<u64> = found.iter().copied().collect();
    if found.len() == 20 && different == (0..20).collect() {
        return Ok(());
    }
    Err(format!("{found:?}").into())
}

fn sink_refused() -> Result<(), Failed> {
    let mut server = Server::with("T", &["t.>"])?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT id, CASE WHEN id % 20 = 7 THEN 'a b' ELSE 'x' END AS w FROM s")?;
    talk.ask(&format!("CREATE SINK k FROM w {}", server.sink("t.${w}", "on_error = 'reject'")))?;
    insert(&talk, 0..40)?;
    talk.ask("WAIT FOR k")?;
    let rejected =
        talk.rows("SELECT \"sequence\", reason FROM windrow.rejected_rows ORDER BY 1")?;
    let numbers: Vec<&str> = rejected.iter().map(|row| row[0].as_str()).collect();
    if numbers != ["28", "8"] && numbers != ["8", "28"]
        || !rejected[0][1].contains("\"t.a b\" is not a subject")
    {
        return Err(format!("{rejected:?}").into());
    }
    for (options, word) in [
        (server.sink("t.${nope}", ""), "there is no column \"nope\""),
        (server.sink("t.*", ""), "option \"subject\""),
        (server.sink("t", "key = 'id'"), "unknown option \"key\""),
    ] {
        let why = refusal(talk.ask(&format!("CREATE SINK z FROM v {options}")))?;
        if !why.contains(word) {
            return Err(why.into());
        }
    }
    talk.close()?;
    let found: BTreeSet<u64> = ids(&server.consume("T", 38)?).into_iter().collect();
    if found == (0..40).filter(|id| id % 20 != 7).collect() {
        Ok(())
    } else {
        Err(format!("{found:?}").into())
    }
}

fn sink_killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    let mut server = Server::with("T", &["t"])?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let sink = server.sink("t", "batch_rows = '30', batch_interval = '10 ms'");
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
            server.kill()?;
            server.start()?;
        }
        running.steps_more(usize::try_from(kill * 17 % 29)?)?;
        running.kill()?.no_bug()?;
    }
    let last = create + LAST + "WAIT FOR k;\n";
    let tables = home.tables(&last, &["SELECT id FROM s WHERE k <> 3 AND id >= 0"])?;
    let expected: BTreeSet<u64> = tables[0].iter().filter_map(|id| id.parse().ok()).collect();
    let found = server.consume("T", expected.len() + 1)?;
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for id in ids(&found) {
        *counts.entry(id).or_default() += 1;
    }
    let different: BTreeSet<u64> = counts.keys().copied().collect();
    let twice = counts.values().filter(|count| **count > 1).count();
    if different == expected && twice == 0 && !expected.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {} rows, {twice} twice", different.len(), expected.len()).into())
}

/// What the documentation shows, with the server of the test.
fn examples() -> Result<(), Failed> {
    let mut server = Server::with("READINGS", &["readings.>"])?;
    server.create("HOT", &["hot.>"])?;
    server.publish(
        "readings.eu",
        &json!([
            "{\"sensor\": \"a\", \"celsius\": 21.5}",
            "{\"sensor\": \"b\", \"celsius\": 80.25}"
        ]),
    )?;
    let section = |file: &str, title: &str| -> Result<String, Failed> {
        let text = std::fs::read_to_string(file)?;
        let (_, from) = text.split_once(title).ok_or("no section")?;
        let example = from.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
        Ok(example.ok_or("no example")?.replace("nats:4222", &server.address))
    };
    let mut home = Home::new()?;
    home.durable = false;
    let said = home.ok(&section("docs/connectors.md", "## `nats`")?)?;
    if !said.contains("readings.eu") || !said.contains("80.25") {
        return Err(said.into());
    }
    home.ok(&section("docs/sinks.md", "## `connector = 'nats'`")?)?;
    let found = server.consume("HOT", 1)?;
    if found.len() == 1 && found[0].0 == "hot.b" {
        Ok(())
    } else {
        Err(format!("{found:?}").into())
    }
}
