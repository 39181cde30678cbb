//! Streams over a real broker: Tansu, a server that speaks Kafka's protocol, with a client that is not ours at the other
//! end (confluent-kafka). Both come from a package index, into the tests' Python environment.
//!
//! `tests/clients/kafka.py` says where Tansu differs from Kafka. Where a broker is killed, its messages are objects in a
//! bucket of moto, so that it has them when it is back. A test has a broker of its own. Partitions and topics that
//! appear, and restarts before the first message, are tested beside the connector with librdkafka's own broker.

mod sink;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;
use windrow_engine::EngineConfig;

use crate::program::{Home, for_ever, rounds};
use crate::readers;
use crate::talk::Talk;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = sink::trials();
    trials.extend([
        trial("kafka/values and metadata have their types", types),
        trial("kafka/poison is set aside with its offset", poison),
        trial("kafka/formats besides json", formats),
        trial("kafka/reading begins where it is told", starts),
        trial("kafka/brokers that are away fail only what ends", away),
        trial("kafka/continuous is bounded", continuous),
        trial("kafka/kill -9 of either over windows loses and doubles nothing", kills),
        trial("kafka/secrets are not shown", secrets),
    ]);
    trials
}

/// A broker and its other client.
pub(crate) struct Broker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    servers: String,
}

impl Broker {
    /// Returns one that is not running.
    fn new() -> Result<Self, Failed> {
        let mut child = Command::new(readers::python()?)
            .arg("tests/clients/kafka.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut servers = String::new();
        stdout.read_line(&mut servers)?;
        Ok(Self { child, stdin, stdout, servers: servers.trim().to_owned() })
    }

    /// Returns one that runs and has this topic in memory.
    pub(crate) fn with(topic: &str, partitions: u32) -> Result<Self, Failed> {
        Self::serving(topic, partitions, false)
    }

    /// Returns one that runs and has this topic; `durable`: also after it was killed.
    fn serving(topic: &str, partitions: u32, durable: bool) -> Result<Self, Failed> {
        let mut broker = Self::new()?;
        broker.says(&serde_json::json!({"do": "start", "durable": durable}))?;
        broker
            .says(&serde_json::json!({"do": "create", "topic": topic, "partitions": partitions}))?;
        Ok(broker)
    }

    pub(crate) fn says(&mut self, command: &serde_json::Value) -> Result<(), Failed> {
        self.answers(command).map(drop)
    }

    /// Gives a command, and returns what is answered to it.
    pub(crate) fn answers(&mut self, command: &serde_json::Value) -> Result<String, Failed> {
        writeln!(self.stdin, "{command}")?;
        let mut answer = String::new();
        self.stdout.read_line(&mut answer)?;
        match answer.trim().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim().to_owned()),
            None => Err(format!("{command}: {answer}").into()),
        }
    }

    fn start(&mut self) -> Result<(), Failed> {
        self.says(&serde_json::json!({"do": "start", "durable": true}))
    }

    fn kill(&mut self) -> Result<(), Failed> {
        self.says(&serde_json::json!({"do": "kill"}))
    }

    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: u32,
        messages: &serde_json::Value,
    ) -> Result<(), Failed> {
        self.says(&serde_json::json!({
            "do": "produce", "topic": topic, "partition": partition, "messages": messages
        }))
    }

    /// Produces rows of numbers: five in a second of event time.
    fn rows(&mut self, topic: &str, partition: u32, first: u64, count: u64) -> Result<(), Failed> {
        self.says(&serde_json::json!({
            "do": "rows", "topic": topic, "partition": partition, "first": first, "count": count
        }))
    }

    /// The options of a stream over a topic, with `more`.
    pub(crate) fn options(&self, topic: &str, more: &str) -> String {
        let servers = &self.servers;
        let mut options =
            format!("connector = 'kafka', bootstrap.servers = '{servers}', topic = '{topic}'");
        if !more.is_empty() {
            options.push_str(", ");
            options.push_str(more);
        }
        options
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It takes its broker with it when its stdin ends.
        drop(writeln!(self.stdin, "{{\"do\": \"kill\"}}"));
        drop(self.stdout.read_line(&mut String::new()));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn talk() -> Result<Talk, Failed> {
    let config = EngineConfig { limits: Limits::default(), ..EngineConfig::default() };
    Ok(Talk::following(config)?)
}

pub(crate) fn same(found: &[Vec<String>], expected: &[&[&str]]) -> Result<(), Failed> {
    if found == expected {
        return Ok(());
    }
    Err(format!("found {found:#?}\nexpected {expected:#?}").into())
}

/// Waits until a query has this answer.
pub(crate) fn poll(talk: &Talk, query: &str, wanted: &str) -> Result<(), Failed> {
    let mut found = vec![];
    for _ in 0..1_200 {
        found = talk.rows(query)?;
        if found == [[wanted]] {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("{query}: {found:?} and never {wanted}").into())
}

fn types() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 2)?;
    broker.produce(
        "t",
        1,
        &serde_json::json!([
            {"key": "ключ", "timestamp": 1_767_225_600_123_u64, "headers": [["trace", "ü"], ["none", null]],
             "value": "{\"big\": 9223372036854775807, \"price\": \"123456789.01\", \"text\": \"日本 \\\"q\\\"\\n\",\n \"day\": \"1969-12-31\", \"yes\": true, \"ts\": 1767225600123, \"list\": [1, null]}"},
            {"timestamp": 1_767_225_600_124_u64, "value": "{\"big\": -9223372036854775808, \"x\": 1.5e300, \"unknown\": {}}"},
            {"value": null, "key": "gone", "timestamp": 1_767_225_600_125_u64},
            {"timestamp": 1_767_225_600_126_u64, "value": "{}", "key": "last"}
        ]),
    )?;
    let talk = talk()?;
    talk.ask(&format!(
        "CREATE STREAM s (k VARCHAR METADATA FROM 'key', big BIGINT, x DOUBLE, price DECIMAL(11, 2), text VARCHAR, day DATE, \
         yes BOOLEAN, ts TIMESTAMP(3), list BIGINT[], headers VARCHAR METADATA, p INT METADATA FROM 'partition', \
         o BIGINT METADATA FROM 'offset', at TIMESTAMP(6) NOT NULL METADATA FROM 'timestamp', topic VARCHAR METADATA VIRTUAL, \
         WATERMARK FOR at AS at - INTERVAL '1 second') WITH ({})",
        broker.options("t", "format = 'json'")
    ))?;
    let rows = talk.rows("SELECT k, big, x, price, text, day, yes, ts, list FROM s ORDER BY o")?;
    let null = "NULL";
    same(
        &rows,
        &[
            &[
                "ключ",
                "9223372036854775807",
                null,
                "123456789.01",
                "日本 \"q\"\n",
                "1969-12-31",
                "true",
                "2026-01-01T00:00:00.123",
                "[1, NULL]",
            ],
            &[null, "-9223372036854775808", "1.5e300", null, null, null, null, null, null],
            &["last", null, null, null, null, null, null, null, null],
        ],
    )?;
    let rows = talk.rows("SELECT headers, p, o, at, topic FROM s ORDER BY o")?;
    same(
        &rows,
        &[
            &["{\"trace\":\"ü\",\"none\":null}", "1", "0", "2026-01-01T00:00:00.123", "t"],
            &[null, "1", "1", "2026-01-01T00:00:00.124", "t"],
            &[null, "1", "3", "2026-01-01T00:00:00.126", "t"],
        ],
    )?;
    same(&talk.rows("SELECT count(*) FROM s")?, &[&["3"]])?;
    same(&talk.rows("SELECT sum(p), max(o) FROM s")?, &[&["3", "3"]])?;
    // With a tombstone as a row.
    let options = broker.options("t", "tombstones = 'null'");
    talk.ask(&format!(
        "CREATE STREAM n (big BIGINT, k VARCHAR METADATA FROM 'key') WITH ({options})"
    ))?;
    same(&talk.rows("SELECT big FROM n WHERE k = 'gone'")?, &[&[null]])?;
    Ok(())
}

fn poison() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    let long = format!("{{\"a\": 1, \"b\": \"{}\"}}", "x".repeat(800_000));
    broker.produce(
        "t",
        0,
        &serde_json::json!([
            "{\"a\": 1}", "{\"a\": 2", "", {"hex": "ff00"}, "{\"a\": \"no\"}", deep, "{\"a\": 3}{\"a\": 4}",
            "{\"a\": 5}\n{\"a\": 6}", {"value": "{\"a\": 7}", "key": "k"}, long, "{\"a\": 8}"
        ]),
    )?;
    let talk = talk()?;
    talk.ask(&format!("CREATE STREAM s (a BIGINT, b VARCHAR) WITH ({})", broker.options("t", "")))?;
    same(&talk.rows("SELECT sum(a), count(*) FROM s")?, &[&["17", "4"]])?;
    let bad =
        talk.rows("SELECT \"offset\", partition, reason <> '' FROM windrow.bad_rows ORDER BY 1")?;
    let expected: Vec<[&str; 3]> =
        ["1", "2", "3", "4", "5", "6", "7"].map(|offset| [offset, "0", "true"]).to_vec();
    let expected: Vec<&[&str]> = expected.iter().map(<[&str; 3]>::as_slice).collect();
    same(&bad, &expected)?;
    // The same rows are bad whatever is read, and all in one piece or not.
    same(&talk.rows("SELECT count(*) FROM s")?, &[&["4"]])?;
    let options = broker.options("t", "on_bad_row = 'fail'");
    talk.ask(&format!("CREATE STREAM f (a BIGINT) WITH ({options})"))?;
    match talk.rows("SELECT a FROM f") {
        Err(refusal) if refusal.0.contains("partition \"t-0\" has a bad row at offset 1") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn formats() -> Result<(), Failed> {
    let mut broker = Broker::with("csv", 1)?;
    broker.says(&serde_json::json!({"do": "create", "topic": "raw", "partitions": 1}))?;
    broker.produce(
        "csv",
        0,
        &serde_json::json!(["1,ä", "2,\"two\nlines\"", "3", "4,\"open", "5,", "6;x"]),
    )?;
    broker.produce("raw", 0, &serde_json::json!(["line", {"hex": "ff"}, "", "end\n"]))?;
    let talk = talk()?;
    let options = broker.options("csv", "format = 'csv'");
    talk.ask(&format!(
        "CREATE STREAM c (o BIGINT METADATA FROM 'offset', a BIGINT, b VARCHAR) WITH ({options})"
    ))?;
    let rows = talk.rows("SELECT o, a, b FROM c ORDER BY o")?;
    same(&rows, &[&["0", "1", "ä"], &["1", "2", "two\nlines"], &["4", "5", "NULL"]])?;
    let options = broker.options("raw", "format = 'raw'");
    talk.ask(&format!("CREATE STREAM r WITH ({options})"))?;
    same(&talk.rows("SELECT value FROM r")?, &[&["line"], &["(empty)"], &["end\n"]])?;
    let options = broker.options("raw", "format = 'bytes'");
    talk.ask(&format!(
        "CREATE STREAM b (v BYTEA, o BIGINT METADATA FROM 'offset') WITH ({options})"
    ))?;
    same(&talk.rows("SELECT v FROM b WHERE o = 1")?, &[&["ff"]])?;
    let refused =
        talk.ask("CREATE STREAM x (v VARCHAR METADATA FROM 'key') WITH (connector = 'nexmark')");
    match refused {
        Err(refusal) if refusal.0.contains("connector \"nexmark\" has none") => Ok(()),
        Err(refusal) => Err(refusal.0.into()),
        Ok(_) => Err("metadata of a generator".into()),
    }
}

fn starts() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 2)?;
    broker.rows("t", 0, 0, 10)?;
    broker.rows("t", 1, 0, 10)?;
    let talk = talk()?;
    let create = |name: &str, start: &str| {
        let options = broker.options("t", &format!("start = '{start}'"));
        talk.ask(&format!("CREATE STREAM {name} (n BIGINT) WITH ({options})"))
    };
    for (name, start) in [("e", "earliest"), ("l", "latest"), ("o", "0:7, 1:2"), ("p", "1:9")] {
        create(name, start)?;
    }
    same(&talk.rows("SELECT count(*) FROM e")?, &[&["20"]])?;
    same(&talk.rows("SELECT count(*) FROM l")?, &[&["0"]])?;
    same(&talk.rows("SELECT count(*), min(n) FROM o")?, &[&["11", "2"]])?;
    same(&talk.rows("SELECT count(*) FROM p")?, &[&["11"]])?;
    create("late", "0:100")?;
    let Err(refusal) = talk.rows("SELECT n FROM late") else { return Err("rows".into()) };
    if !refusal.0.contains("partition \"t-0\" has offsets 0 to 10") {
        return Err(refusal.0.into());
    }
    broker.rows("t", 0, 10, 5)?;
    same(&talk.rows("SELECT count(*), min(n) FROM l")?, &[&["5", "10"]])?;
    same(&talk.rows("SELECT count(*) FROM e")?, &[&["25"]])
}

/// What a stream over numbers is called and has.
fn numbers(broker: &Broker, topic: &str) -> String {
    format!(
        "CREATE STREAM IF NOT EXISTS s (n BIGINT, k INT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ({});\n",
        broker.options(topic, "poll_interval = '100 ms'")
    )
}

const WINDOWS: &str = "SELECT window_start, window_end, k, count(*) AS n, sum(n) AS total, min(n) AS low \
                       FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k";

fn away() -> Result<(), Failed> {
    let mut broker = Broker::new()?;
    let talk = talk()?;
    // No broker yet: the definition is accepted, what ends says so, what goes on waits.
    talk.ask(&numbers(&broker, "t"))?;
    let Err(refusal) = talk.rows("SELECT count(*) FROM s") else {
        return Err("an answer without a broker".into());
    };
    if !refusal.0.contains("do not answer") || !refusal.0.contains(&broker.servers) {
        return Err(refusal.0.into());
    }
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT n FROM s")?;
    poll(&talk, "SELECT last_error IS NOT NULL FROM windrow.streams", "true")?;
    broker.start()?;
    broker.says(&serde_json::json!({"do": "create", "topic": "t", "partitions": 1}))?;
    broker.rows("t", 0, 0, 10)?;
    poll(&talk, "SELECT count(*) FROM v", "10")?;
    poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
    broker.kill()?;
    poll(&talk, "SELECT connected FROM windrow.streams", "false")?;
    broker.start()?;
    broker.rows("t", 0, 10, 10)?;
    poll(&talk, "SELECT count(*) FROM v", "20")?;
    poll(&talk, "SELECT lag_rows FROM windrow.streams", "0")?;
    same(&talk.rows("SELECT status FROM windrow.views")?, &[&["running"]])
}

/// The windows that rows of numbers have up to a time, as `(how many, rows, the sum of the numbers)`.
fn expected(windows: u64, partitions: u64) -> [String; 3] {
    let rows = windows * 50;
    let counts = [windows * 7, rows * partitions, rows * (rows - 1) / 2 * partitions];
    counts.map(|count| count.to_string())
}

fn continuous() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 2)?;
    let talk = talk()?;
    talk.ask(&numbers(&broker, "t"))?;
    talk.ask(&format!("CREATE MATERIALIZED VIEW v AS {WINDOWS}"))?;
    for round in 0..4 {
        // The partitions do not keep in step.
        broker.rows("t", round % 2, u64::from(round / 2) * 1_000, 1_000)?;
    }
    talk.ask("WAIT FOR v UNTIL TIMESTAMP '2026-01-01 00:06:30'")?;
    let until = "WHERE window_end <= TIMESTAMP '2026-01-01 00:06:30' ORDER BY window_end, k";
    let view = talk.rows(&format!("SELECT * FROM v {until}"))?;
    let bounded = talk.rows(&format!("SELECT * FROM ({WINDOWS}) AS b {until}"))?;
    if view != bounded {
        return Err(format!("{} windows, {} bounded", view.len(), bounded.len()).into());
    }
    let counts = "SELECT count(*), sum(n), sum(total) FROM v WHERE window_end <= TIMESTAMP '2026-01-01 00:06:30'";
    let found = talk.rows(counts)?;
    if found != [expected(39, 2)] {
        return Err(format!("{found:?}").into());
    }
    Ok(())
}

fn kills() -> Result<(), Failed> {
    let mut broker = Broker::serving("t", 2, true)?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags =
        ["--checkpoint-interval", "0.003", "--tail-rows", "40"].map(str::to_owned).to_vec();
    let mut sql = numbers(&broker, "t");
    writeln!(sql, "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS {WINDOWS};")?;
    let (rounds, rows) = (u64::try_from(rounds(24))?, 500);
    for round in 0..rounds {
        let mut running = home.start(&format!("{sql}{}", for_ever("v")))?;
        for partition in 0..2 {
            broker.rows("t", partition, round * rows, rows)?;
        }
        if round == rounds / 2 {
            broker.kill()?;
            broker.start()?;
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
    let expected = expected(windows, 2).join(",");
    if tables == [vec![expected.clone()]] {
        return Ok(());
    }
    Err(format!("{tables:?} is not {expected}: {:?}", home.keep()).into())
}

fn secrets() -> Result<(), Failed> {
    let broker = Broker::new()?;
    let talk = talk()?;
    let login = "security.protocol = 'sasl_plaintext', sasl.mechanism = 'PLAIN', sasl.username = 'ann', \
                 'sasl.password' = 'hunter2'";
    talk.ask(&format!("CREATE STREAM s (n BIGINT) WITH ({})", broker.options("t", login)))?;
    for query in ["SHOW CREATE s", "SELECT definition FROM windrow.streams"] {
        let shown = format!("{:?}", talk.rows(query)?);
        if shown.contains("hunter2") || !shown.contains("***") || !shown.contains("ann") {
            return Err(format!("{query}: {shown}").into());
        }
    }
    match talk.rows("SELECT n FROM s") {
        Err(refusal) if !refusal.0.contains("hunter2") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
