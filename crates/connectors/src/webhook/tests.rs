//! Tests of the sink to HTTP: a small server at the other end.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use windrow_core::{Limits, ManualClock};

use super::*;
use crate::Files;

/// A request as a server got it.
#[derive(Debug, Clone)]
struct Got {
    headers: BTreeMap<String, String>,
    body: String,
}

/// A server that answers each request with the next of these answers, and then with 204.
struct Server {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Server {
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook/secret-path", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(vec![]));
        let (all, answers) =
            (Arc::clone(&got), answers.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let request = read(&mut connection).await;
                all.lock().push(request);
                let answer = answers.next().unwrap_or_else(|| "204 No Content".to_owned());
                let (status, rest) = answer.split_once('\n').unwrap_or((&answer, ""));
                let text = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{rest}\r\n"
                );
                connection.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Self { url, got }
    }

    fn keys(&self) -> Vec<String> {
        self.got.lock().iter().map(|got| got.headers["idempotency-key"].clone()).collect()
    }
}

async fn read(connection: &mut TcpStream) -> Got {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let count = connection.read(&mut chunk).await.unwrap();
        text.extend_from_slice(&chunk[..count]);
        let all = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = all.split_once("\r\n\r\n") else { continue };
        let headers: BTreeMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        if body.len() == headers["content-length"].parse::<usize>().unwrap() {
            return Got { headers, body: body.to_owned() };
        }
        assert!(count > 0, "the request is cut off");
    }
}

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let numbers: Vec<i64> = range.collect();
    RecordBatch::try_from_iter(vec![("n", Arc::new(Int64Array::from(numbers)) as ArrayRef)])
        .unwrap()
}

fn sink(url: &str, more: &[(&str, &str)], files: Files) -> Result<Box<dyn Sink>> {
    let all = [("url", url)].into_iter().chain(more.iter().copied());
    let options: Vec<_> = all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let env = ConnectorEnv {
        limits: Limits::default(),
        clock: Arc::new(ManualClock::at(0)),
        io: Handle::current(),
        files,
    };
    let spec = SinkSpec {
        name: "k ö".to_owned(),
        id: "7".to_owned(),
        origin: "d.7".to_owned(),
        schema: rows(0..0).schema(),
        changes: None,
    };
    open(&options, &spec, &env)
}

async fn add(sink: &mut dyn Sink, of: std::ops::Range<i64>) {
    let range = OffsetRange::try_new(of.start as u64, of.end as u64).unwrap();
    sink.write(&rows(of), range).await.unwrap();
}

#[tokio::test]
async fn each_row_is_a_request_with_its_key() {
    let server = Server::start(&[]).await;
    let more =
        [("body", r#"{"text": "row ${n}"}"#), ("secret", "s3cret"), ("header.x-team", "ops")];
    let mut sink = sink(&server.url, &more, Files::anywhere()).unwrap();
    assert_eq!(sink.open(None).await.unwrap(), None);
    add(&mut *sink, 4..6).await;
    assert!(server.got.lock().is_empty());
    sink.commit(6).await.unwrap();
    assert_eq!(server.keys(), ["k%20%C3%B6:7:5", "k%20%C3%B6:7:6"]);
    let got = server.got.lock()[1].clone();
    assert_eq!(got.body, r#"{"text": "row 5"}"#);
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(got.headers["x-team"], "ops");
    let signature = format!("sha256={}", hmac_sha256(b"s3cret", got.body.as_bytes()));
    assert_eq!(got.headers["x-windrow-signature"], signature);
    assert!(
        !format!("{sink:?}").contains("s3cret") && !format!("{sink:?}").contains("secret-path")
    );
}

#[tokio::test]
async fn a_batch_is_one_request() {
    let server = Server::start(&[]).await;
    let more = [("mode", "batch"), ("batch_rows", "5")];
    let mut sink = sink(&server.url, &more, Files::anywhere()).unwrap();
    assert_eq!(sink.room(), 5);
    add(&mut *sink, 0..2).await;
    add(&mut *sink, 2..5).await;
    assert_eq!(sink.room(), 0);
    sink.commit(5).await.unwrap();
    assert_eq!((sink.room(), server.keys()), (5, vec!["k%20%C3%B6:7:1-5".to_owned()]));
    assert_eq!(server.got.lock()[0].body, r#"[{"n":0},{"n":1},{"n":2},{"n":3},{"n":4}]"#);
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again() {
    let answers = [
        "200 OK",
        "503 Service Unavailable\nRetry-After: 7\r\n",
        "429 Too Many Requests\nRetry-After: Thu, 01 Jan 1970 00:01:00 GMT\r\n",
        "408 Request Timeout",
    ];
    let server = Server::start(&answers).await;
    let mut sink = sink(&server.url, &[], Files::anywhere()).unwrap();
    add(&mut *sink, 0..3).await;
    for wait in [Some(7), Some(60), None] {
        let error = sink.commit(3).await.unwrap_err();
        assert_eq!(
            (error.kind(), sink.retry_after()),
            (ErrorKind::Unavailable, wait.map(Duration::from_secs))
        );
    }
    sink.commit(3).await.unwrap();
    let sent: Vec<String> =
        server.keys().iter().map(|key| key.rsplit(':').next().unwrap().to_owned()).collect();
    assert_eq!(sent, ["1", "2", "2", "2", "2", "3"]);
}

#[tokio::test]
async fn refusals_stop_and_say_no_secret() {
    let server = Server::start(&["400 Bad Request", "302 Found\nLocation: /other\r\n"]).await;
    let mut sink = sink(&server.url, &[("secret", "s3cret")], Files::anywhere()).unwrap();
    add(&mut *sink, 0..1).await;
    for kind in [ErrorKind::Data, ErrorKind::Config] {
        let error = sink.commit(1).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret-path") && !text.contains("s3cret"), "{text}");
        assert!(text.contains("127.0.0.1") && text.contains("k%20%C3%B6:7:1"), "{text}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_temporary() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
    drop(listener);
    let mut sink = sink(&url, &[], Files::anywhere()).unwrap();
    add(&mut *sink, 0..1).await;
    let error = sink.commit(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("secret-path"), "{error:?}");
}

#[tokio::test]
async fn remote_users_reach_only_allowed_servers() {
    let dir = tempfile::tempdir().unwrap();
    let allowed = ["https://hooks.test/team/".to_owned()];
    let files = Files::below(Some(dir.path()), &allowed).unwrap();
    for url in [
        "http://169.254.169.254/latest",
        "https://hooks.test/other",
        "https://hooks.test/team/../x",
    ] {
        let error =
            sink(url, &[], files.clone()).err().unwrap_or_else(|| panic!("{url} is allowed"));
        assert_eq!(error.kind(), ErrorKind::Denied, "{url}");
        assert!(!error.to_string().contains("latest"), "{error}");
    }
    assert!(sink("https://hooks.test/team/x", &[], files).is_ok());
}
