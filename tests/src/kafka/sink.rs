//! Sinks that send to a real broker, read by a client that is not ours. Tansu shows messages of aborted transactions to consumers
//! with `read_committed` also: after kills, only that no row is missing can be tested.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::Broker;
use crate::kept_insert::rows_of;
use crate::program::{Home, failed, for_ever, rounds};
use crate::sinks::{LAST, STREAM, VIEWS, engine, insert, refusal, small, wait_until};
use crate::watch::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kafka/sink: keys, headers and values", messages),
        trial("kafka/sink: it goes on after the sequence of its group", goes_on),
        trial("kafka/sink: what is too large is set aside", too_large),
        trial("kafka/sink: brokers that are away hold it alone", away),
        trial("kafka/sink: options and columns that do not fit", unfit),
        trial("kafka/sink: the example of the documentation", example),
        trial("kafka/sink: kill -9 loses nothing", killed),
    ]
}

/// A message: partition, key, value, headers.
type Message = (u32, Option<String>, Option<String>, Vec<(String, Option<String>)>);

impl Broker {
    fn consume(
        &mut self,
        topic: &str,
        count: usize,
        partitions: u32,
    ) -> Result<Vec<Message>, Failed> {
        let command =
            json!({"do": "consume", "topic": topic, "count": count, "partitions": partitions});
        let answer = self.answers(&command)?;
        serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}").into())
    }

    fn sink(&self, topic: &str, more: &str) -> String {
        format!("WITH ({})", self.options(topic, more))
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn messages() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    for transactional in [true, false] {
        let (topic, first) = if transactional { ("t", 0) } else { ("u", 3) };
        if !transactional {
            broker.says(&json!({"do": "create", "topic": topic, "partitions": 1}))?;
        }
        let home = Home::new()?;
        home.ok(&format!(
            "CREATE STREAM s (id BIGINT, w VARCHAR, h VARCHAR, x DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts);
INSERT INTO s VALUES
    (9223372036854775807, 'ä \"\n', 'é', 0.1, TIMESTAMP '2026-01-01 00:00:00.125'),
    (NULL, '', NULL, -2.5e300, TIMESTAMP '2026-01-01 00:00:01'),
    (-1, NULL, NULL, NULL, TIMESTAMP '2026-01-01 00:00:02');
CREATE SINK k AS SELECT id, w, h, x FROM s {};\nWAIT FOR k;",
            broker.sink(
                topic,
                &format!(
                    "key = 'id', headers = 'h', tombstones = 'true', compression.type = 'gzip', transactional = '{transactional}'"
                )
            )
        ))?;
        let mut found = broker.consume(topic, 3, 1)?;
        for message in &mut found {
            // Sink, its number, that of the row.
            let key = message.3.iter().position(|(name, _)| name == "idempotency-key");
            match key.map(|at| message.3.remove(at)) {
                Some((_, Some(key))) if !transactional && key.starts_with("k:") => {}
                None if transactional => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        let header = |value: Option<&str>| vec![("h".to_owned(), value.map(str::to_owned))];
        let expected = [
            (
                0,
                some("9223372036854775807"),
                some("{\"id\":9223372036854775807,\"w\":\"ä \\\"\\n\",\"x\":0.1}"),
                header(Some("é")),
            ),
            (0, None, some("{\"id\":null,\"w\":\"\",\"x\":-2.5e300}"), header(None)),
            (0, some("-1"), None, header(None)),
        ];
        if found != expected {
            return Err(format!("{first}: {found:#?}").into());
        }
    }
    Ok(())
}

/// The numbers in the values of messages.
fn ids(messages: &[Message]) -> Vec<u64> {
    let id = |message: &Message| {
        let value: serde_json::Value = serde_json::from_str(message.2.as_ref()?).ok()?;
        value.get("id")?.as_u64()
    };
    messages.iter().filter_map(id).collect()
}

fn goes_on() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 3)?;
    let temp = tempfile::tempdir()?;
    for round in 0..4 {
        let talk = engine(Some(temp.path()))?;
        if round == 0 {
            small(&talk)?;
            talk.ask(&format!(
                "CREATE SINK k FROM v {}",
                broker.sink("t", "key = 'id', batch_rows = '7'")
            ))?;
        }
        insert(&talk, round * 25..round * 25 + 25)?;
        talk.ask("WAIT FOR k")?;
        let state = talk.rows("SELECT state, committed, rows, guarantee FROM windrow.sinks")?;
        let count = (round * 25 + 25 + if round == 3 { 10 } else { 0 }).to_string();
        if state != [["running", &count, &count, "exactly once"]] {
            return Err(format!("{state:?}").into());
        }
        if round == 2 {
            // Its record is as it was before the commits of this round: the group knows better.
            let file =
                std::fs::read_dir(temp.path().join("data/sinks"))?.next().ok_or("no record")??;
            let before = std::fs::read(file.path())?;
            insert(&talk, 200..210)?;
            talk.ask("WAIT FOR k")?;
            talk.close()?;
            std::fs::write(file.path(), before)?;
            continue;
        }
        talk.close()?;
        if round == 3 {
            break;
        }
    }
    let found = broker.consume("t", 110, 3)?;
    let mut all = ids(&found);
    all.sort_unstable();
    let expected: Vec<u64> = (0..100).chain(200..210).collect();
    if all != expected {
        return Err(format!("{} messages: {all:?}", found.len()).into());
    }
    Ok(())
}

fn too_large() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT id, CASE WHEN id % 40 = 7 THEN repeat('ü', 2000) ELSE 'x' END AS w FROM s")?;
    let options = "message.max.bytes = '2000', batch_rows = '30', on_error = 'reject'";
    talk.ask(&format!("CREATE SINK k FROM w {}", broker.sink("t", options)))?;
    insert(&talk, 0..100)?;
    talk.ask("WAIT FOR k")?;
    let rejected =
        talk.rows("SELECT \"sequence\", reason FROM windrow.rejected_rows ORDER BY 1")?;
    let numbers: Vec<&str> = rejected.iter().map(|row| row[0].as_str()).collect();
    if numbers != ["8", "48", "88"] || !rejected[0][1].contains("refuses a message") {
        return Err(format!("{rejected:?}").into());
    }
    talk.close()?;
    let found: BTreeSet<u64> = ids(&broker.consume("t", 97, 1)?).into_iter().collect();
    if found != (0..100).filter(|id| id % 40 != 7).collect() {
        return Err(format!("{found:?}").into());
    }
    Ok(())
}

fn away() -> Result<(), Failed> {
    let mut broker = Broker::serving("t", 1, true)?;
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    let options = "transactional = 'false', timeout = '2 s', reconnect.backoff.max.ms = '200'";
    talk.ask(&format!("CREATE SINK k FROM v {}", broker.sink("t", options)))?;
    insert(&talk, 0..10)?;
    talk.ask("WAIT FOR k")?;
    broker.kill()?;
    insert(&talk, 10..20)?;
    let row = wait_until(&talk, "SELECT state, last_error FROM windrow.sinks", "retrying")?;
    if !row[1].contains("do not accept messages") {
        return Err(format!("{row:?}").into());
    }
    talk.ask("WAIT FOR v")?;
    broker.start()?;
    talk.ask("WAIT FOR k")?;
    talk.close()?;
    let found: BTreeSet<u64> = ids(&broker.consume("t", 20, 1)?).into_iter().collect();
    if found == (0..20).collect() { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn unfit() -> Result<(), Failed> {
    let broker = Broker::with("t", 1)?;
    let talk = engine(None)?;
    small(&talk)?;
    for (options, word) in [
        ("acks = '1'", "option \"acks\" cannot be set for a sink"),
        ("key = 'x'", "there is no column \"x\""),
        ("format = 'raw'", "format = 'raw' needs one VARCHAR column"),
        ("tombstones = 'true'", "tombstones need a key"),
        ("fetch.min.bytes = '1'", "unknown option \"fetch.min.bytes\""),
        ("partitioner = 'nobodys'", "option \"partitioner\" is refused by the Kafka client"),
        ("format = 'xml', key = 'id'", "option \"format\""),
    ] {
        let why =
            refusal(talk.ask(&format!("CREATE SINK k FROM v {}", broker.sink("t", options))))?;
        if !why.contains(word) {
            return Err(format!("{options}: {why}").into());
        }
    }
    let why = refusal(talk.ask(&format!(
        "CREATE SINK k FROM v {}",
        broker.sink("t", "timeout = '1 s'").replace(&broker.servers, "127.0.0.1:1")
    )))?;
    if !why.contains("brokers \"127.0.0.1:1\" do not accept messages") {
        return Err(why.into());
    }
    talk.close()?;
    Ok(())
}

/// What `docs/sinks.md` shows, with the broker of the test.
fn example() -> Result<(), Failed> {
    let mut broker = Broker::with("hot", 1)?;
    let text = std::fs::read_to_string("docs/sinks.md")?;
    let (_, from) = text.split_once("## `connector = 'kafka'`").ok_or("no section")?;
    let example = from.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    let sql = example.ok_or("no example")?.replace("broker:9092", &broker.servers);
    let mut home = Home::new()?;
    home.durable = false;
    home.ok(&sql)?;
    let found = broker.consume("hot", 2, 1)?;
    let values: Vec<_> = found.iter().map(|m| (m.1.as_deref(), m.2.as_deref())).collect();
    let expected = [
        (Some("a"), Some("{\"sensor\":\"a\",\"celsius\":21.5}")),
        (Some("ü"), Some("{\"sensor\":\"ü\",\"celsius\":80.25}")),
    ];
    if values == expected { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    let mut broker = Broker::with("t", 2)?;
    broker.says(&json!({"do": "create", "topic": "u", "partitions": 2}))?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let create = format!(
        "{STREAM}{VIEWS}
CREATE SINK IF NOT EXISTS kt FROM r {};
CREATE SINK IF NOT EXISTS ku FROM r {};
",
        broker.sink("t", "key = 'k', batch_rows = '30', batch_interval = '10 ms'"),
        broker.sink(
            "u",
            "key = 'k', batch_rows = '30', batch_interval = '10 ms', transactional = 'false'"
        )
    );
    let kills = rounds(24) as u64;
    for kill in 0..kills {
        let mut sql = create.clone();
        for statement in kill * STATEMENTS..(kill + 1) * STATEMENTS {
            sql.push_str(&rows_of(statement));
            if statement % 5 == 0 {
                sql.push_str("WAIT FOR kt;\nWAIT FOR ku;\n");
            }
        }
        sql.push_str(&for_ever("v"));
        let mut running = home.start(&sql)?;
        if !running.until(usize::try_from(kill * 11 % STATEMENTS)?, "INSERT 0")? {
            return Err(failed(&running.finish()?, "the program ends"));
        }
        running.steps_more(usize::try_from(kill * 17 % 29)?)?;
        running.kill()?.no_bug()?;
    }
    let last = create + LAST + "WAIT FOR kt;\nWAIT FOR ku;\n";
    let tables = home.tables(&last, &["SELECT id FROM s WHERE k <> 3 AND id >= 0"])?;
    let expected: BTreeSet<u64> = tables[0].iter().filter_map(|id| id.parse().ok()).collect();
    for topic in ["t", "u"] {
        let found = broker.consume(topic, expected.len() + 1, 2)?;
        let different: BTreeSet<u64> = ids(&found).into_iter().collect();
        if different != expected || expected.is_empty() {
            let missing: Vec<_> = expected.difference(&different).take(5).collect();
            return Err(format!(
                "{topic}: {} of {} rows, without {missing:?}",
                different.len(),
                expected.len()
            )
            .into());
        }
        // What came twice has the same key in its header, and is the same.
        let mut by_key: BTreeMap<&str, &Message> = BTreeMap::new();
        for message in found.iter().filter(|_| topic == "u") {
            let key = message.3.first().and_then(|(_, key)| key.as_deref()).ok_or("no key")?;
            if by_key.insert(key, message).is_some_and(|before| before != message) {
                return Err(format!("key {key} has two messages").into());
            }
        }
        if topic == "u" && by_key.len() != expected.len() + 1 {
            return Err(format!("{} keys", by_key.len()).into());
        }
    }
    Ok(())
}
