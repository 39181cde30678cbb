//! WebSockets and server-sent events, by a small server.

use libtest_mimic::{Failed, Trial};
use serde_json::json;

use super::Server;
use crate::kafka::{poll, same, talk};
use crate::sinks::{engine, refusal};
use crate::watch::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("web/a websocket: messages are rows", socket),
        trial("web/a websocket that ends is made again", socket_away),
        trial("web/events are rows", events),
        trial("web/events go on after the last id", events_again),
        trial("web/the login is needed and not shown", login),
    ]
}

fn connect(server: &Server, more: &str) -> String {
    let address = &server.address;
    format!(
        "WITH (connector = 'websocket', url = 'ws://{address}/path?a=b', subscribe = '{{\"op\": \"sub\"}}'{more})"
    )
}

fn sse(server: &mut Server, more: &str) -> Result<String, Failed> {
    let port = server.answers(&json!({"do": "port_of_events"}))?;
    Ok(format!("WITH (connector = 'sse', url = 'http://127.0.0.1:{port}/path'{more})"))
}

fn socket() -> Result<(), Failed> {
    let mut server = Server::new("web_server.py")?;
    server.start()?;
    let talk = talk()?;
    talk.ask(&format!(
        "CREATE STREAM s (n BIGINT, text VARCHAR, at TIMESTAMP(3) NOT NULL METADATA FROM 'timestamp', WATERMARK FOR at) {}",
        connect(&server, "")
    ))?;
    // That of CREATE STREAM, and that of the reading.
    if server.answers(&json!({"do": "until_heard", "count": 2}))?
        != r#"["{\"op\": \"sub\"}", "{\"op\": \"sub\"}"]"#
    {
        return Err("the subscription is another".into());
    }
    poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
    server.says(&json!({"do": "send", "messages": [
        "{\"n\": 9223372036854775807, \"text\": \"日本 \\\"q\\\"\"}", "{\"n\": ", "{}", {"hex": "7b226e223a20377d"}, {"hex": "ff"}
    ]}))?;
    poll(&talk, "SELECT count(*) FROM s", "3")?;
    same(
        &talk.rows("SELECT n, text, at > TIMESTAMP '2020-01-01' FROM s ORDER BY n")?,
        &[
            &["7", "NULL", "true"],
            &["9223372036854775807", "日本 \"q\"", "true"],
            &["NULL", "NULL", "true"],
        ],
    )?;
    poll(&talk, "SELECT count(*) FROM windrow.bad_rows", "2")?;
    let why = refusal(talk.ask("INSERT INTO s (n) VALUES (1)"))?;
    if why.contains("is fed by its connector \"websocket\"") { Ok(()) } else { Err(why.into()) }
}

fn socket_away() -> Result<(), Failed> {
    let mut server = Server::new("web_server.py")?;
    let temp = tempfile::tempdir()?;
    let first = engine(Some(temp.path()))?;
    first.ask(&format!("CREATE STREAM s (n BIGINT) {}", connect(&server, "")))?;
    poll(&first, "SELECT last_error LIKE '%does not answer%' FROM windrow.streams", "true")?;
    server.start()?;
    poll(&first, "SELECT connected FROM windrow.streams", "true")?;
    server.says(&json!({"do": "send", "messages": ["{\"n\": 1}"]}))?;
    poll(&first, "SELECT sum(n) FROM s", "1")?;
    server.says(&json!({"do": "drop"}))?;
    server.says(&json!({"do": "until_heard", "count": 2}))?;
    server.says(&json!({"do": "send", "messages": ["{\"n\": 2}"]}))?;
    poll(&first, "SELECT sum(n) FROM s", "3")?;
    first.close()?;
    // The rows are in the log of the stream.
    server.kill()?;
    let second = engine(Some(temp.path()))?;
    same(&second.rows("SELECT n FROM s ORDER BY n")?, &[&["1"], &["2"]])?;
    poll(&second, "SELECT connected FROM windrow.streams", "false")?;
    second.close()?;
    Ok(())
}

fn events() -> Result<(), Failed> {
    let mut server = Server::new("web_server.py")?;
    server.start()?;
    let talk = talk()?;
    let all = sse(&mut server, "")?;
    talk.ask(&format!(
        "CREATE STREAM s (n BIGINT, event VARCHAR METADATA, id VARCHAR METADATA) {all}"
    ))?;
    let some = sse(&mut server, ", event = 'a, message', format = 'raw'")?;
    talk.ask(&format!("CREATE STREAM f (v VARCHAR) {some}"))?;
    server.says(&json!({"do": "until_streams", "count": 4}))?;
    poll(&talk, "SELECT count(*) FROM windrow.streams WHERE connected", "2")?;
    let text = "id: 1\nevent: a\ndata: {\"n\":\ndata: 1}\n\nevent: ü\ndata: {\"n\": 2}\n\n: comment\n\ndata: {\"n\": 3}\n\ndata: no\n\n";
    server.says(&json!({"do": "emit", "text": text}))?;
    poll(&talk, "SELECT count(*) FROM s", "3")?;
    same(
        &talk.rows("SELECT n, event, id FROM s ORDER BY n")?,
        &[&["1", "a", "1"], &["2", "ü", "1"], &["3", "NULL", "1"]],
    )?;
    poll(&talk, "SELECT count(*) FROM windrow.bad_rows", "1")?;
    poll(&talk, "SELECT count(*) FROM f", "3")?;
    same(&talk.rows("SELECT v FROM f ORDER BY v")?, &[&["no"], &["{\"n\":\n1}"], &["{\"n\": 3}"]])
}

fn events_again() -> Result<(), Failed> {
    let mut server = Server::new("web_server.py")?;
    server.start()?;
    let talk = talk()?;
    let options = sse(&mut server, "")?;
    talk.ask(&format!("CREATE STREAM s (n BIGINT) {options}"))?;
    server.says(&json!({"do": "until_streams", "count": 2}))?;
    server.says(&json!({"do": "emit", "text": "id: seven\ndata: {\"n\": 7}\n\n"}))?;
    poll(&talk, "SELECT sum(n) FROM s", "7")?;
    server.says(&json!({"do": "drop"}))?;
    let ids = server.answers(&json!({"do": "until_streams", "count": 3}))?;
    if ids != "[null, null, \"seven\"]" {
        return Err(ids.into());
    }
    server.says(&json!({"do": "emit", "text": "data: {\"n\": 8}\n\n"}))?;
    poll(&talk, "SELECT sum(n) FROM s", "15")
}

fn login() -> Result<(), Failed> {
    let mut server = Server::new("web_server.py")?;
    server.says(&json!({"do": "start", "token": "hunter2"}))?;
    let talk = talk()?;
    let header = ", 'header.Authorization' = 'Bearer hunter2'";
    for (options, with) in [
        (connect(&server, ""), connect(&server, header)),
        (sse(&mut server, "")?, sse(&mut server, header)?),
    ] {
        let why = refusal(talk.ask(&format!("CREATE STREAM a (n INT) {options}")))?;
        if !why.contains("refuses the login: it answers with status 401") || why.contains("/path") {
            return Err(why.into());
        }
        talk.ask(&format!("CREATE OR REPLACE STREAM b (n INT) {with}"))?;
        poll(&talk, "SELECT connected FROM windrow.streams", "true")?;
        let shown = format!("{:?}", talk.rows("SHOW CREATE STREAM b")?);
        if shown.contains("hunter2") || !shown.contains("***") {
            return Err(shown.into());
        }
    }
    Ok(())
}
