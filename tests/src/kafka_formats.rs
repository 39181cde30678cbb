//! Avro and Protobuf over a real broker: the serializer of confluent-kafka writes, by the schemas of a registry, which is a few
//! lines in `tests/clients/avro_end.py`.

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::avro::other_end;
use crate::kafka::{Broker, poll, same, talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("kafka/avro by the schemas of a registry", registry),
        trial("kafka/avro evolves by name", evolution),
        trial("kafka/a schema registry that is away is waited for", away),
        trial("kafka/avro with one schema", one_schema),
        trial("kafka/protobuf by a descriptor", protobuf),
        trial("kafka/changes of Debezium are the current rows", debezium),
    ]
}

fn contains(found: &str, wanted: &str) -> Result<(), Failed> {
    if found.contains(wanted) { Ok(()) } else { Err(format!("{wanted} is not in {found}").into()) }
}

fn debezium() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 2)?;
    broker.produce(
        "t",
        0,
        &json!([
            r#"{"op": "r", "before": null, "after": {"id": 1, "n": 1}}"#,
            r#"{"schema": {}, "payload": {"op": "u", "before": null, "after": {"id": 1, "n": 5}}}"#,
            "nothing"
        ]),
    )?;
    let deleted = r#"{"op": "d", "before": {"id": 2}, "after": null}"#;
    broker.produce(
        "t",
        1,
        &json!([
            r#"{"op": "c", "after": {"id": 2, "n": 2}}"#,
            deleted,
            null,
            r#"{"op": "c", "after": {"id": 3, "n": 3}}"#
        ]),
    )?;
    let talk = talk()?;
    let options = broker.options("t", "format = 'debezium-json'");
    talk.ask(&format!("CREATE STREAM s (id BIGINT PRIMARY KEY, n BIGINT) WITH ({options})"))?;
    same(&talk.rows("SELECT id, n FROM s ORDER BY id")?, &[&["1", "5"], &["3", "3"]])?;
    let bad = talk.rows("SELECT \"offset\" FROM windrow.bad_rows")?;
    same(&bad, &[&["2"]])?;
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS rows, sum(n) AS total FROM s EMIT CHANGES")?;
    poll(&talk, "SELECT total FROM v WHERE rows = 2", "8")?;
    broker.produce("t", 0, &json!([r#"{"op": "d", "before": {"id": 1, "n": 5}}"#]))?;
    broker.produce("t", 1, &json!([r#"{"op": "u", "after": {"id": 3, "n": 40}}"#]))?;
    poll(&talk, "SELECT total FROM v WHERE rows = 1", "40")?;
    same(&talk.rows("SELECT id, n FROM s")?, &[&["3", "40"]])
}

fn registry() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    let url = broker.answers(&json!({"do": "registry", "login": "ann:hunter2"}))?;
    broker.says(
        &json!({"do": "avro", "topic": "t", "records": [{"n": 1}, {"n": 2, "text": null}]}),
    )?;
    broker.produce(
        "t",
        0,
        &json!([
            {"hex": "00000000"}, {"hex": "0000000063" }, {"hex": "000000000102"}, {"hex": "c301000000000002"}, "{}", "", null
        ]),
    )?;
    broker.says(
        &json!({"do": "avro", "topic": "t", "records": [{"n": 3, "kind": "RED", "list": []}]}),
    )?;
    let talk = talk()?;
    let login = "'schema.registry.basic.auth.user.info' = 'ann:hunter2'";
    let options = format!("format = 'avro', schema.registry.url = '{url}', {login}");
    talk.ask(&format!("CREATE STREAM s WITH ({})", broker.options("t", &options)))?;
    same(
        &talk.rows("SELECT id, text, ms, price, kind, list, nested FROM s ORDER BY id")?,
        &[
            &[
                "1",
                "ü1",
                "2026-01-01T00:00:00.123Z",
                "-12345678901234567.891",
                "GREEN",
                "[1, NULL, -9223372036854775808]",
                "{a: 7, kinds: [RED, GREEN]}",
            ],
            &[
                "2",
                "NULL",
                "2026-01-01T00:00:00.123Z",
                "-12345678901234567.891",
                "GREEN",
                "[1, NULL, -9223372036854775808]",
                "{a: 7, kinds: [RED, GREEN]}",
            ],
            &[
                "3",
                "ü3",
                "2026-01-01T00:00:00.123Z",
                "-12345678901234567.891",
                "RED",
                "[]",
                "{a: 7, kinds: [RED, GREEN]}",
            ],
        ],
    )?;
    let bad = talk.rows("SELECT \"offset\", reason FROM windrow.bad_rows ORDER BY 1")?;
    let offsets: Vec<&str> = bad.iter().map(|row| row[0].as_str()).collect();
    if offsets != ["2", "3", "4", "5", "6", "7"] {
        return Err(format!("{bad:?}").into());
    }
    contains(&bad[1][1], "the schema registry has no schema 99")?;
    contains(&bad[2][1], "cut off")?;
    contains(&bad[3][1], "does not begin with 00")?;
    let shown = format!("{:?}", talk.rows("SHOW CREATE s")?);
    contains(&shown, "***")?;
    if shown.contains("hunter2") {
        return Err(shown.into());
    }
    // A wrong login is that of no registry.
    let options = options.replace("hunter2", "other");
    match talk.ask(&format!("CREATE STREAM w WITH ({})", broker.options("t", &options))) {
        Err(refusal) if refusal.0.contains("401") && !refusal.0.contains("other") => Ok(()),
        Err(refusal) => Err(refusal.0.into()),
        Ok(_) => Err("a wrong login".into()),
    }
}

fn record(fields: &serde_json::Value) -> serde_json::Value {
    json!({"type": "record", "name": "r", "fields": fields})
}

fn evolution() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    let url = broker.answers(&json!({"do": "registry"}))?;
    let text = json!({"name": "b", "type": "string", "default": "x"});
    let a = json!({"name": "a", "type": "int"});
    let long = json!({"name": "A", "type": "long"});
    let new = json!({"name": "c", "type": ["null", "double"], "default": null});
    let wrong = json!({"name": "a", "type": "string"});
    for (fields, records) in [
        (json!([a, text]), json!([{"a": 1, "b": "one"}, {"a": 2, "b": "two"}])),
        (json!([long, new]), json!([{"A": 9_007_199_254_740_993_i64, "c": 0.5}])),
        (json!([wrong, new]), json!([{"a": "four", "c": null}])),
        (json!([text, a]), json!([{"a": 5, "b": "five"}])),
    ] {
        let schema = record(&fields);
        broker.says(&json!({"do": "avro", "topic": "t", "schema": schema, "records": records}))?;
    }
    let talk = talk()?;
    let options = broker.options("t", &format!("format = 'avro', schema.registry.url = '{url}'"));
    talk.ask(&format!(
        "CREATE STREAM s (o BIGINT METADATA FROM 'offset', a BIGINT, b VARCHAR, c DOUBLE) WITH ({options})"
    ))?;
    same(
        &talk.rows("SELECT o, a, b, c FROM s ORDER BY o")?,
        &[
            &["0", "1", "one", "NULL"],
            &["1", "2", "two", "NULL"],
            &["2", "9007199254740993", "NULL", "0.5"],
            &["4", "5", "five", "NULL"],
        ],
    )?;
    let wrong = "column \"a\" of schema 3 is VARCHAR, which cannot become BIGINT";
    same(&talk.rows("SELECT \"offset\", reason FROM windrow.bad_rows")?, &[&["3", wrong]])?;
    // What is read does not matter.
    same(&talk.rows("SELECT count(*) FROM s")?, &[&["4"]])?;
    match talk.ask(&format!("CREATE STREAM t (a BOOLEAN) WITH ({options})"))? {
        crate::talk::Answer::Done(said) => contains(&said, "which cannot become BOOLEAN"),
        crate::talk::Answer::Rows { .. } => Err("rows".into()),
    }
}

fn away() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    let url = broker.answers(&json!({"do": "registry"}))?;
    let schema = record(&json!([{"name": "n", "type": "long"}]));
    let one = |n: i64| json!({"do": "avro", "topic": "t", "schema": schema, "records": [{"n": n}]});
    broker.says(&one(1))?;
    broker.says(&json!({"do": "registry_away", "away": true}))?;
    let talk = talk()?;
    let options = broker.options("t", &format!("format = 'avro', schema.registry.url = '{url}'"));
    match talk.ask(&format!("CREATE STREAM s (n BIGINT) WITH ({options})"))? {
        crate::talk::Answer::Done(said) => contains(&said, "answers with status 503")?,
        crate::talk::Answer::Rows { .. } => return Err("rows".into()),
    }
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT n FROM s")?;
    let waits = "SELECT last_error LIKE '%schema registry%503%' FROM windrow.streams";
    poll(&talk, waits, "true")?;
    broker.says(&json!({"do": "registry_away", "away": false}))?;
    poll(&talk, "SELECT count(*) FROM v", "1")?;
    broker.says(&one(2))?;
    poll(&talk, "SELECT sum(n) FROM v", "3")?;
    same(&talk.rows("SELECT count(*) FROM windrow.bad_rows")?, &[&["0"]])?;
    broker.says(&json!({"do": "registry_away", "away": true}))?;
    match talk.ask(&format!("CREATE STREAM x WITH ({options})")) {
        Err(refusal) => contains(&refusal.0, "the schema registry"),
        Ok(_) => Err("columns from nowhere".into()),
    }
}

fn one_schema() -> Result<(), Failed> {
    let mut broker = Broker::with("single", 1)?;
    broker.says(&json!({"do": "create", "topic": "plain", "partitions": 1}))?;
    let schema = record(&json!([
        {"name": "a", "type": "long"},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "b", "type": ["null", "string"]}
    ]));
    let records = [r#"{"a": 1, "when": 0, "b": "ü"}"#, r#"{"a": -2, "when": 1, "b": null}"#];
    let text = schema.to_string();
    let messages = other_end(&["single", &text, records[0], records[1]])?;
    let hex: Vec<&str> = messages.lines().collect();
    broker.produce(
        "single",
        0,
        &json!([{"hex": hex[0]}, {"hex": &hex[0][20..]}, {"hex": hex[1].replace("c301", "c302")}, {"hex": hex[1]}]),
    )?;
    broker.produce(
        "plain",
        0,
        &json!([{"hex": &hex[0][20..]}, {"hex": &hex[0][20..24]}, {"hex": &hex[1][20..]}]),
    )?;
    let talk = talk()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("r.avsc");
    std::fs::write(&file, &text)?;
    let single = format!(
        "format = 'avro', avro.framing = 'single_object', avro.schema = '{}'",
        file.display()
    );
    let plain = format!("format = 'avro', avro.schema = '{text}'");
    for (topic, options, bad) in [("single", single, "2"), ("plain", plain, "1")] {
        talk.ask(&format!("CREATE STREAM {topic} WITH ({})", broker.options(topic, &options)))?;
        same(
            &talk.rows(&format!("SELECT a, \"when\", b FROM {topic} ORDER BY a DESC"))?,
            &[&["1", "1970-01-01T00:00:00Z", "ü"], &["-2", "1970-01-01T00:00:00.000001Z", "NULL"]],
        )?;
        let of = format!("SELECT count(*) FROM windrow.bad_rows WHERE stream = '{topic}'");
        same(&talk.rows(&of)?, &[&[bad]])?;
    }
    for (options, why) in [
        ("format = 'avro'", "needs a schema"),
        ("format = 'avro', avro.schema = '{}'", "is not that of a record"),
        ("format = 'avro', avro.schema = 'no.avsc'", "cannot be read"),
        ("avro.schema = 'r.avsc'", "is for format = 'avro'"),
        ("format = 'protobuf', avro.schema = 'r.avsc'", "is for format = 'avro'"),
        ("format = 'avro', schema.registry.url = 'http://a:b@c'", "a URL without a login"),
    ] {
        match talk.ask(&format!("CREATE STREAM x WITH ({})", broker.options("plain", options))) {
            Err(refusal) => contains(&refusal.0, why)?,
            Ok(_) => return Err(options.into()),
        }
    }
    Ok(())
}

fn protobuf() -> Result<(), Failed> {
    let mut broker = Broker::with("t", 1)?;
    let dir = tempfile::tempdir()?;
    std::fs::write(
        dir.path().join("kinds.proto"),
        "syntax = \"proto3\"; package shop; enum Kind { UNKNOWN = 0; RED = 1; }",
    )?;
    let file = dir.path().join("shop.proto");
    std::fs::write(
        &file,
        "syntax = \"proto3\"; package shop; import \"kinds.proto\"; import \"google/protobuf/timestamp.proto\";
         message Order { int64 id = 1; optional string note = 2; Kind kind = 3; google.protobuf.Timestamp at = 4; }",
    )?;
    broker.produce(
        "t",
        0,
        &json!([
            {"hex": "0807120178180122021001"}, {"hex": "08"}, {"hex": "1201ff"}, {"hex": ""}, {"hex": "08ffffffffffffffff7f"}
        ]),
    )?;
    let talk = talk()?;
    let options = format!("format = 'protobuf', protobuf.schema = '{}'", file.display());
    talk.ask(&format!("CREATE STREAM s WITH ({})", broker.options("t", &options)))?;
    same(
        &talk.rows("SELECT id, note, kind, at FROM s ORDER BY id")?,
        &[
            &["0", "NULL", "UNKNOWN", "NULL"],
            &["7", "x", "RED", "1970-01-01T00:00:00Z"],
            &["9223372036854775807", "NULL", "UNKNOWN", "NULL"],
        ],
    )?;
    same(&talk.rows("SELECT \"offset\" FROM windrow.bad_rows ORDER BY 1")?, &[&["1"], &["2"]])?;
    for (options, why) in [
        ("format = 'protobuf'".to_owned(), "protobuf.schema"),
        (format!("{options}, protobuf.message = 'shop.No'"), "has no message \"shop.No\""),
    ] {
        match talk.ask(&format!("CREATE STREAM x WITH ({})", broker.options("t", &options))) {
            Err(refusal) => contains(&refusal.0, why)?,
            Ok(_) => return Err(options.into()),
        }
    }
    let options = broker.options("t", &options);
    match talk.ask(&format!("CREATE STREAM x (id VARCHAR) WITH ({options})")) {
        Err(refusal) => contains(&refusal.0, "which cannot become VARCHAR"),
        Ok(_) => Err("a number as text".into()),
    }
}
