//! Rows over HTTP: what is acknowledged is in the stream once, whatever is sent again and whichever side dies; what
//! cannot be taken is refused with the reason.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use windrow_engine::{Engine, EngineConfig, Outcome, SessionOptions};
use windrow_http::HttpServer;
use windrow_server::auth::login::{GrantLine, LoginConfig, TokenLine, new_token, write};
use windrow_server::{Listening, ServerConfig, ServerLimits};

use crate::avro::other_end;
use crate::flight_guard::{any_port, certificates, tls_config, user};
use crate::program::{Home, PATIENCE, Running, rounds};
use crate::readers::python;
use crate::watch::trial;

const JSON: &str = "content-type: application/json";
const LINES: &str = "content-type: application/x-ndjson";
const CSV: &str = "content-type: text/csv; charset=utf-8";

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Result<(), Failed>| trial(format!("http/{name}"), run);
    vec![
        trial("records of each format become rows", formats),
        trial("a bad record costs itself alone", bad_records),
        trial("a request that is sent again is taken once", repeated),
        trial("requests that cannot be taken are refused", refused),
        trial("users write where they may", logins),
        trial("a long body is refused and others are taken", long_bodies),
        trial("a client of Python with TLS, gzip and a login", from_python),
        trial("kill -9 while producers write", killed),
    ]
}

/// A server in this process.
struct Served {
    engine: Engine,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(config: ServerConfig) -> Result<Self, Failed> {
        let engine = Engine::open(EngineConfig::default())?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let address = runtime.block_on(async {
            let server = HttpServer::new(Listening::bind(engine.clone(), config).await?);
            let address = server.address()?;
            tokio::spawn(server.run());
            Ok::<_, windrow_core::Error>(address)
        })?;
        Ok(Self { engine, address, _runtime: runtime })
    }

    fn open() -> Result<Self, Failed> {
        Self::start(ServerConfig::new(any_port()))
    }

    fn run(&self, sql: &str) -> Result<String, Failed> {
        use futures::TryStreamExt;
        futures::executor::block_on(async {
            let session = self.engine.session(SessionOptions::default())?;
            let Outcome::Rows(rows) = session.run(sql).await? else { return Ok(String::new()) };
            let batches: Vec<_> = rows.try_collect().await?;
            Ok(arrow::util::pretty::pretty_format_batches(&batches)?.to_string())
        })
    }

    /// Expects a query to have these cells, row by row.
    fn expect(&self, sql: &str, wanted: &[&str]) -> Result<(), Failed> {
        let shown = self.run(sql)?;
        let rows = shown.lines().skip(3).filter(|line| line.starts_with('|'));
        let found: Vec<String> = rows
            .map(|row| {
                let cells = row.trim_matches('|').split('|').map(str::trim);
                cells.collect::<Vec<_>>().join(",")
            })
            .collect();
        check(found == wanted, format!("{sql}: {found:?}"))
    }

    fn post(&self, stream: &str, headers: &[&str], body: &[u8]) -> Result<(u16, String), Failed> {
        Client::connect(self.address)?.post(stream, headers, body)
    }
}

/// A client with one connection, without a library.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Result<Self, Failed> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request; the status and the body of its answer.
    fn post(&mut self, name: &str, headers: &[&str], body: &[u8]) -> Result<(u16, String), Failed> {
        let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!(
            "POST /v1/streams/{name} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{lines}\r\n",
            body.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes())?;
        // A server that refuses what it has not read may close before all is sent.
        let sent = stream.write_all(body);
        self.answer().map_err(|error| match sent {
            Ok(()) => error,
            Err(sent) => format!("{error:?} after {sent}").into(),
        })
    }

    fn answer(&mut self) -> Result<(u16, String), Failed> {
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err("no answer".into());
            }
            let line = line.trim_end();
            if status.is_none() {
                status = Some(line.split(' ').nth(1).ok_or("no status")?.parse()?);
            } else if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = said.trim().parse()?;
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status.ok_or("no status")?, String::from_utf8(body)?))
    }
}

fn check(holds: bool, what: impl std::fmt::Debug) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what:?}").into()) }
}

/// Expects an answer with this status that has these words.
fn answers((status, body): (u16, String), wanted: u16, words: &[&str]) -> Result<(), Failed> {
    let said = status == wanted && words.iter().all(|word| body.contains(word));
    check(said, format!("{status} {body}, not {wanted} {words:?}"))
}

const TYPES: &str =
    "CREATE STREAM s (n BIGINT, t VARCHAR, d DECIMAL(10, 2), l INT[], ts TIMESTAMP(3))";

fn formats() -> Result<(), Failed> {
    let served = Served::open()?;
    served.run(TYPES)?;
    let one = r#"{"n": 9223372036854775807, "t": "ü\"\n", "d": 0.1, "l": [1, null], "ts": "2026-01-01T00:00:00Z"}"#;
    answers(served.post("s", &[JSON], one.as_bytes())?, 202, &[r#""rows":1,"bad":0"#])?;
    let many = r#"[{"n": 1}, {"t": "x", "other": {}}]"#;
    let compressed = zstd_of(many.as_bytes())?;
    let headers = [JSON, "content-encoding: zstd"];
    answers(served.post("s", &headers, &compressed)?, 202, &[r#""rows":2"#])?;
    let lines = "{\"n\": 2}\n\n{\"n\": 3, \"d\": \"1.5\"}\n";
    answers(served.post("s", &[LINES], lines.as_bytes())?, 202, &[r#""rows":2"#])?;
    let csv = "d,n,more\r\n-3.25,4,x\r\n,5,\"a\nb\"\r\n";
    answers(served.post("s", &[CSV], csv.as_bytes())?, 202, &[r#""rows":2"#])?;
    answers(served.post("s", &[LINES], b"")?, 202, &[r#""rows":0"#])?;
    served.expect(
        "SELECT n, d, l[1] AS l, length(t) AS t, ts FROM s ORDER BY n, t",
        &[
            "1,,,,",
            "2,,,,",
            "3,1.50,,,",
            "4,-3.25,,,",
            "5,,,,",
            "9223372036854775807,0.10,1,3,2026-01-01T00:00:00",
            ",,,1,",
        ],
    )?;
    // A file of Avro names its columns, in any case of letters.
    let dir = tempfile::tempdir()?;
    other_end(&["files", &dir.path().to_string_lossy()])?;
    let file = std::fs::read(dir.path().join("many-deflate.avro"))?;
    served.run("CREATE STREAM a (\"S\" VARCHAR, n BIGINT, other INT)")?;
    let avro = ["content-type: application/avro"];
    answers(served.post("a", &avro, &file)?, 202, &[r#""rows":50000,"bad":0"#])?;
    let cut = file.get(..10_000).unwrap_or_default();
    answers(served.post("a", &avro, cut)?, 400, &["the block after record", "it is cut off"])?;
    let counted = "SELECT count(*), max(n), count(DISTINCT \"S\"), count(other) FROM a";
    served.expect(counted, &["50000,49999,50000,0"])
}

fn zstd_of(bytes: &[u8]) -> Result<Vec<u8>, Failed> {
    Ok(zstd::encode_all(bytes, 3)?)
}

fn bad_records() -> Result<(), Failed> {
    let served = Served::open()?;
    served.run("CREATE STREAM s (n BIGINT NOT NULL, t VARCHAR)")?;
    served.run("CREATE STREAM timed (n BIGINT, ts TIMESTAMP, WATERMARK FOR ts)")?;
    let timed = br#"[{"n": "x"}, {"n": 1, "ts": "2026-01-01"}, {"n": 2}]"#;
    let words = [r#""rows":1,"bad":2"#, r#"{"record":0,"#, r#"{"record":2,"reason":"#];
    answers(served.post("timed", &[JSON], timed)?, 202, &words)?;
    let lines = "{\"n\": 1}\n{\"n\": \"x\"}\n{\"n\":\n{\"t\": \"y\"}\n{\"n\": 2}\n";
    let words = [r#""rows":2,"bad":3"#, r#"{"record":1,"reason":"#, r#"{"record":3,"reason":"#];
    answers(served.post("s", &[LINES], lines.as_bytes())?, 202, &words)?;
    answers(served.post("s", &[LINES], lines.as_bytes())?, 202, &words)?;
    served.expect("SELECT n FROM s ORDER BY n", &["1", "1", "2", "2"])?;
    // The offset of a bad row is its number among all that were offered.
    let offsets = "SELECT \"offset\" FROM windrow.bad_rows WHERE stream = 's' ORDER BY 1";
    served.expect(offsets, &["1", "2", "3", "6", "7", "8"])
}

fn repeated() -> Result<(), Failed> {
    let served = Served::open()?;
    served.run("CREATE STREAM s (n BIGINT)")?;
    let mut client = Client::connect(served.address)?;
    let mut send = |sequence: &str, n: &str| {
        let sequence = format!("windrow-sequence: {sequence}");
        client.post("s", &[JSON, "windrow-producer: p", &sequence], n.as_bytes())
    };
    answers(send("1", "{\"n\": 1}")?, 202, &[r#""rows":1,"bad":0,"repeated":false"#])?;
    answers(send("2", "{\"n\": \"bad\"}")?, 202, &[r#""rows":0,"bad":1,"repeated":false"#])?;
    answers(send("2", "{\"n\": \"bad\"}")?, 202, &[r#""rows":0,"bad":0,"repeated":true"#])?;
    answers(send("1", "{\"n\": 1}")?, 202, &[r#""repeated":true"#])?;
    answers(send("4", "{\"n\": 4}")?, 400, &["batch 3 is next"])?;
    answers(send("3", "{\"n\": 3}")?, 202, &[r#""rows":1"#])?;
    answers(send("x", "{\"n\": 3}")?, 400, &["windrow-sequence"])?;
    served.expect("SELECT n FROM s ORDER BY n", &["1", "3"])
}

fn refused() -> Result<(), Failed> {
    let served = Served::open()?;
    served.run("CREATE STREAM s (n BIGINT, t VARCHAR(3))")?;
    served.run("CREATE STREAM made (n BIGINT) WITH (connector = 'datagen', rows = 1)")?;
    let one = b"{\"n\": 1}";
    answers(served.post("nosuch", &[JSON], one)?, 404, &["\"error\"", "nosuch"])?;
    answers(served.post("made", &[JSON], one)?, 400, &["made"])?;
    answers(served.post("s", &[], one)?, 415, &["no content-type", "application/json"])?;
    answers(served.post("s", &["content-type: text/xml"], one)?, 415, &["text/xml"])?;
    answers(served.post("s", &[JSON, "content-encoding: br"], one)?, 415, &["br", "gzip"])?;
    answers(served.post("s", &[JSON, "content-encoding: gzip"], one)?, 400, &["decompressed"])?;
    answers(served.post("s", &[JSON], b"[{\"n\": 1}")?, 400, &["not JSON"])?;
    answers(served.post("s", &[CSV], b"x,y\n1,2\n")?, 400, &["header", "n, t"])?;
    answers(served.post("s", &[CSV], b"")?, 400, &["header"])?;
    answers(served.post("s", &[JSON], b"[{\"n\": 1}, {\"t\": \"long\"}]")?, 400, &["t"])?;
    answers(served.post("s", &[JSON, "windrow-producer: p"], one)?, 400, &["windrow-sequence"])?;
    answers(served.post("s", &[JSON, "idempotency-key: 1"], one)?, 400, &["windrow-producer"])?;
    answers(served.post("s/more", &[JSON], one)?, 404, &["/v1/streams/s/more"])?;
    served.expect("SELECT count(*) FROM s", &["0"])
}

/// A server with a user who writes to `a`, and a token that may only read.
fn guarded(tmp: &TempDir) -> Result<(ServerConfig, String), Failed> {
    let (users, tokens) = (tmp.path().join("users"), tmp.path().join("tokens"));
    let mut ann = user("ann", "secret", "write")?;
    ann.grants = vec![GrantLine { role: "write".into(), on: vec!["a".into()] }];
    write(&users, &[ann])?;
    let (token, hash) = new_token();
    let grants = vec![GrantLine { role: "read".into(), on: vec!["*".into()] }];
    write(&tokens, &[TokenLine { name: "ci".into(), grants, token: hash, expires: None }])?;
    let login = LoginConfig { users: Some(users), tokens: Some(tokens), ..LoginConfig::default() };
    Ok((ServerConfig { login, ..ServerConfig::new(any_port()) }, token))
}

fn logins() -> Result<(), Failed> {
    const ANN: &str = "authorization: Basic YW5uOnNlY3JldA==";
    let tmp = tempfile::tempdir()?;
    let (config, token) = guarded(&tmp)?;
    let served = Served::start(config)?;
    served.run("CREATE STREAM a (n BIGINT)")?;
    served.run("CREATE STREAM b (n BIGINT)")?;
    let one = b"{\"n\": 1}";
    answers(served.post("a", &[JSON], one)?, 401, &["\"error\""])?;
    let wrong = "authorization: Basic YW5uOndyb25n";
    answers(served.post("a", &[JSON, wrong], one)?, 401, &["\"error\""])?;
    answers(served.post("a", &[JSON, ANN], one)?, 202, &[r#""rows":1"#])?;
    answers(served.post("b", &[JSON, ANN], one)?, 403, &["\"error\""])?;
    answers(served.post("nosuch", &[JSON, ANN], one)?, 403, &["\"error\""])?;
    let token = format!("authorization: Bearer {token}");
    answers(served.post("a", &[JSON, &token], one)?, 403, &["\"error\""])?;
    served.expect("SELECT count(*) FROM a", &["1"])
}

fn long_bodies() -> Result<(), Failed> {
    let limits = ServerLimits { message_bytes_max: 10_000, ..ServerLimits::default() };
    let served = Served::start(ServerConfig { limits, ..ServerConfig::new(any_port()) })?;
    served.run("CREATE STREAM s (n BIGINT, t VARCHAR)")?;
    let long = format!("{{\"t\": \"{}\"}}", "x".repeat(20_000));
    // Announced, unannounced, and only long when decompressed.
    answers(served.post("s", &[JSON], long.as_bytes())?, 413, &["10000", "--max-message"])?;
    let packed = zstd_of(long.as_bytes())?;
    let headers = [JSON, "content-encoding: zstd"];
    answers(served.post("s", &headers, &packed)?, 413, &["10000"])?;
    let mut client = Client::connect(served.address)?;
    let stream = client.0.get_mut();
    write!(
        stream,
        "POST /v1/streams/s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{JSON}\r\n\r\n{:x}\r\n{long}\r\n",
        long.len()
    )?;
    answers(client.answer()?, 413, &["10000"])?;
    // More at once than may be in memory: they wait for each other.
    let text = format!("{{\"t\": \"{}\"}}", "y".repeat(9_000));
    std::thread::scope(|scope| {
        let post = || served.post("s", &[JSON], text.as_bytes()).map_err(|e| format!("{e:?}"));
        let all: Vec<_> = (0..20).map(|_| scope.spawn(post)).collect();
        for one in all {
            let answer = one.join().map_err(|_| "a client panicked")??;
            answers(answer, 202, &[r#""rows":1"#])?;
        }
        Ok::<_, Failed>(())
    })?;
    served.expect("SELECT count(*) FROM s", &["20"])
}

fn from_python() -> Result<(), Failed> {
    let python = python()?;
    let tmp = tempfile::tempdir()?;
    let pem = certificates("localhost")?;
    let (config, _) = guarded(&tmp)?;
    let tls = Some(tls_config(&tmp, &pem, None)?);
    let served = Served::start(ServerConfig { tls, ..config })?;
    served.run("CREATE STREAM a (n BIGINT, t VARCHAR)")?;
    let authority = tmp.path().join("authority.pem");
    std::fs::write(&authority, &pem.ca)?;
    let url = format!("https://localhost:{}/v1/streams/a", served.address.port());
    let script =
        Command::new(python).args(["tests/clients/post.py", &url]).arg(authority).output()?;
    check(script.status.success(), String::from_utf8_lossy(&script.stderr))?;
    served.expect("SELECT count(*), count(DISTINCT n), max(t) FROM a", &["10000,10000,naïve ✓"])
}

/// The real program as a server, and where it takes rows.
fn serve(home: &Home) -> Result<(Running, SocketAddr), Failed> {
    let mut command = home.command()?;
    command.arg("serve").arg("--data-dir").arg(home.data());
    command.args(["--flight", "127.0.0.1:0", "--http", "127.0.0.1:0", "--tail-rows", "300"]);
    let mut running = Running::start(command)?;
    running.until_lines(1)?;
    let out = running.out();
    let rest = out.split("http://").nth(1).ok_or("no HTTP port")?;
    let address = rest.split('/').next().unwrap_or_default().parse()?;
    Ok((running, address))
}

/// Producers write while the server is killed; each sends again what was not acknowledged, and now and then more.
fn killed() -> Result<(), Failed> {
    const PRODUCERS: usize = 3;
    let home = Home::new()?;
    home.ok("CREATE STREAM s (n BIGINT, p BIGINT);")?;
    let mut acked = [0_u64; PRODUCERS];
    for round in 0..rounds(12) as u64 {
        let (mut running, address) = serve(&home)?;
        let heard: [Arc<AtomicU64>; PRODUCERS] = Default::default();
        let work: Vec<_> = (0..PRODUCERS)
            .map(|p| {
                let (heard, first) =
                    (Arc::clone(&heard[p]), (acked[p] + 1).saturating_sub(round % 3));
                std::thread::spawn(move || {
                    // It ends when the server does.
                    drop(produce(address, p, first.max(1), &heard));
                })
            })
            .collect();
        // In each round each producer has something acknowledged.
        let least = 1 + round * 17 % 60;
        running.wait_until("acknowledgements", || {
            let new = |(heard, acked): (&Arc<AtomicU64>, &u64)| {
                heard.load(Ordering::Relaxed) >= acked + least
            };
            Ok(heard.iter().zip(&acked).all(new))
        })?;
        running.kill()?;
        for one in work {
            one.join().map_err(|_| "a producer panicked")?;
        }
        for (acked, heard) in acked.iter_mut().zip(&heard) {
            *acked = heard.load(Ordering::Relaxed).max(*acked);
        }
    }
    let rows = home.tables("", &["SELECT p, n, count(*) FROM s GROUP BY p, n ORDER BY p, n"])?;
    let mut found = vec![vec![]; PRODUCERS];
    for row in rows.iter().flatten() {
        let parts: Vec<u64> = row.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let [p, n, 1] = parts[..] else { return Err(format!("not once: {row}").into()) };
        found[usize::try_from(p)?].push(n);
    }
    for (p, (acked, found)) in acked.into_iter().zip(found).enumerate() {
        let all: Vec<u64> = (0..found.len() as u64).collect();
        let mut found = found;
        found.sort_unstable();
        check(found == all, format!("producer {p} has holes"))?;
        let whole = found.len().is_multiple_of(10) && found.len() as u64 >= acked * 10;
        check(whole && acked > 0, (p, acked, found.len()))?;
    }
    Ok(())
}

/// Sends requests of ten rows each; `heard` is the number of the last one that was acknowledged.
fn produce(address: SocketAddr, p: usize, first: u64, heard: &AtomicU64) -> Result<(), Failed> {
    let mut client = Client::connect(address)?;
    let producer = format!("windrow-producer: {p}");
    for sequence in first.. {
        let from = (sequence - 1) * 10;
        let rows = (from..from + 10).map(|n| format!("{{\"n\":{n},\"p\":{p}}}\n"));
        let body: String = rows.collect();
        let number = format!("windrow-sequence: {sequence}");
        let answer = client.post("s", &[LINES, &producer, &number], body.as_bytes())?;
        answers(answer, 202, &[])?;
        heard.store(sequence, Ordering::Relaxed);
    }
    Ok(())
}
