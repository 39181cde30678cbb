//! Which clients the Flight port admits, and what it withstands: logins, tokens, certificates, silent connections,
//! messages that are too long; and `windrow serve` with its signals, its log and its metrics.

mod program;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Criteria, FlightData, FlightDescriptor, HandshakeRequest};
use libtest_mimic::{Failed, Trial};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use windrow_engine::{Engine, EngineConfig, SessionOptions};
use windrow_flight::Server;
use windrow_server::auth::login::{GrantLine, LoginConfig, TokenLine, UserLine, new_token, write};
use windrow_server::auth::password::{Params, hash_with};
use windrow_server::{MetricsServer, ServerConfig, ServerLimits, TlsConfig};

use crate::program::PATIENCE;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight_guard/logins", logins),
        trial("flight_guard/open_servers", open_servers),
        trial("flight_guard/tls", tls),
        trial("flight_guard/client_certificates", client_certificates),
        trial("flight_guard/long_messages", long_messages),
        trial("flight_guard/silent_connections", silent_connections),
        trial("flight_guard/metrics", metrics),
        trial("flight_guard/program", program::serve),
        trial("flight_guard/program_refuses", program::serve_refuses),
        trial("flight_guard/accounts", program::accounts),
    ]
}

/// A server in this process, and whatever it needs.
struct Served {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    metrics: SocketAddr,
    engine: Engine,
    stop: Option<oneshot::Sender<()>>,
    done: Option<tokio::task::JoinHandle<windrow_core::Result<()>>>,
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Served {
    fn start(config: ServerConfig) -> Result<Self, Failed> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let engine = Engine::open(EngineConfig::default())?;
        let (stop, stopped) = oneshot::channel();
        let (address, metrics, done) = runtime.block_on(async {
            let server = Server::bind(engine.clone(), config).await?;
            let metrics = MetricsServer::bind(any_port(), server.monitor()).await?;
            let addresses = (server.address()?, metrics.address()?);
            tokio::spawn(metrics.run());
            let done = tokio::spawn(server.run(async move { drop(stopped.await) }));
            Ok::<_, windrow_core::Error>((addresses.0, addresses.1, done))
        })?;
        Ok(Self { runtime, address, metrics, engine, stop: Some(stop), done: Some(done) })
    }

    fn channel(&self, tls: Option<ClientTlsConfig>) -> Result<Channel, Failed> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.address))?;
        let endpoint = match tls {
            Some(tls) => endpoint.tls_config(tls)?,
            None => endpoint,
        };
        Ok(self.runtime.block_on(endpoint.connect())?)
    }

    /// A call that needs a login and changes nothing; what became of it, and the token that came with it.
    fn call(
        &self,
        channel: &Channel,
        authorization: Option<&str>,
    ) -> Result<(Code, String, Option<String>), Failed> {
        let mut client = FlightServiceClient::new(channel.clone());
        let mut request = Request::new(FlightDescriptor::new_cmd(b"no command".to_vec()));
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse()?);
        }
        let answer = self.runtime.block_on(client.get_flight_info(request));
        Ok(match answer {
            Ok(answer) => (Code::Ok, String::new(), token_of(answer.metadata())),
            Err(status) => {
                (status.code(), status.message().to_owned(), token_of(status.metadata()))
            }
        })
    }

    fn http(&self, path: &str) -> Result<(u16, String), Failed> {
        http(self.metrics, path)
    }

    fn stop(&mut self) -> Result<(), Failed> {
        if let Some(stop) = self.stop.take() {
            stop.send(()).map_err(|()| "the server is gone")?;
        }
        let done = self.done.take().ok_or("stopped twice")?;
        Ok(self.runtime.block_on(async { tokio::time::timeout(PATIENCE, done).await })???)
    }
}

fn token_of(metadata: &tonic::metadata::MetadataMap) -> Option<String> {
    Some(metadata.get("authorization")?.to_str().ok()?.to_owned())
}

/// GET without a client library: the status and the body.
pub(crate) fn http(address: SocketAddr, path: &str) -> Result<(u16, String), Failed> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

pub(crate) fn user(name: &str, password: &str, role: &str) -> Result<UserLine, Failed> {
    let cost = Params::new(8, 1, 1, None).map_err(|e| e.to_string())?;
    let grants = vec![GrantLine { role: role.into(), on: vec!["*".into()] }];
    Ok(UserLine { name: name.into(), grants, password: hash_with(password, cost)? })
}

/// A server with the user ann (password "secret") and a token.
pub(crate) fn guarded(tmp: &TempDir) -> Result<(ServerConfig, String), Failed> {
    let (users, tokens) = (tmp.path().join("users"), tmp.path().join("tokens"));
    write(&users, &[user("ann", "secret", "read")?])?;
    let (token, hash) = new_token();
    let grants = vec![GrantLine { role: "read".into(), on: vec!["*".into()] }];
    write(&tokens, &[TokenLine { name: "ci".into(), grants, token: hash, expires: None }])?;
    let login = LoginConfig { users: Some(users), tokens: Some(tokens), ..LoginConfig::default() };
    Ok((ServerConfig { login, ..ServerConfig::new(any_port()) }, token))
}

fn check(holds: bool, what: impl std::fmt::Debug) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what:?}").into()) }
}

fn logins() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let (config, token) = guarded(&tmp)?;
    let served = Served::start(config)?;
    let channel = served.channel(None)?;
    for (header, words) in [
        (None, "nobody is logged in"),
        (Some("Basic YW5uOndyb25n"), "user or password is wrong"),
        (Some("Basic Ym9iOnNlY3JldA"), "user or password is wrong"),
        (Some("Bearer guess"), "the token is not known"),
        (Some("Bearer none"), "the token is not known"),
        (Some("Basic ####"), "cannot be read"),
        (Some("nonsense"), "cannot be read"),
    ] {
        let (code, said, given) = served.call(&channel, header)?;
        check(code == Code::Unauthenticated && said.contains(words), (header, code, &said))?;
        check(given.is_none(), given)?;
    }
    // ann:secret, with padding and without.
    for header in ["Basic YW5uOnNlY3JldA==", "Basic YW5uOnNlY3JldA", "basic YW5uOnNlY3JldA"] {
        let (code, said, given) = served.call(&channel, Some(header))?;
        check(code != Code::Unauthenticated, &said)?;
        let given = given.ok_or("no token")?;
        let (code, said, _) = served.call(&channel, Some(&given))?;
        check(code != Code::Unauthenticated, &said)?;
    }
    let (code, said, _) = served.call(&channel, Some(&format!("Bearer {token}")))?;
    check(code != Code::Unauthenticated, said)?;
    // The handshake, as clients do it: in the header.
    let mut client = FlightServiceClient::new(channel.clone());
    let mut request = Request::new(only(HandshakeRequest::default()));
    request.metadata_mut().insert("authorization", "Basic YW5uOnNlY3JldA==".parse()?);
    let mut answer = served.runtime.block_on(client.handshake(request))?;
    let given = token_of(answer.metadata()).ok_or("no token")?;
    let message = served.runtime.block_on(answer.get_mut().message())?.ok_or("no message")?;
    check(given == format!("Bearer {}", String::from_utf8(message.payload.to_vec())?), &given)?;
    check(served.call(&channel, Some(&given))?.0 != Code::Unauthenticated, given)?;
    // And without anything.
    let request = Request::new(only(HandshakeRequest::default()));
    let refused =
        served.runtime.block_on(client.handshake(request)).err().ok_or("it let nobody in")?;
    check(refused.code() == Code::Unauthenticated, refused)?;
    let (_, text) = served.http("/metrics")?;
    check(text.contains("windrow_logins_failed_total 6"), text)
}

fn only<T: Send + 'static>(one: T) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::stream::iter([one])
}

fn open_servers() -> Result<(), Failed> {
    let served = Served::start(ServerConfig::new(any_port()))?;
    let channel = served.channel(None)?;
    for header in [None, Some("Bearer whatever"), Some("Basic YW5uOnNlY3JldA==")] {
        let (code, said, _) = served.call(&channel, header)?;
        check(code != Code::Unauthenticated, said)?;
    }
    let everywhere = ServerConfig::new("0.0.0.0:0".parse()?);
    let bound = served.runtime.block_on(Server::bind(served.engine.clone(), everywhere));
    let error = bound.err().ok_or("strangers may come in")?;
    check(error.message() == "0.0.0.0:0 is open to the network, and nobody has to log in", error)
}

/// An authority, a server's certificate of it and a client's one, as PEM.
pub(crate) struct Pem {
    pub(crate) ca: String,
    cert: (String, String),
}

pub(crate) fn certificates(name: &str) -> Result<Pem, Failed> {
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
    params.distinguished_name.push(DnType::CommonName, "authority of the tests");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &ca)?;
    Ok(Pem { ca: ca.pem(), cert: (cert.pem(), key.serialize_pem()) })
}

pub(crate) fn written(tmp: &TempDir, name: &str, text: &str) -> Result<PathBuf, Failed> {
    let path = tmp.path().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

pub(crate) fn tls_config(
    tmp: &TempDir,
    pem: &Pem,
    client_ca: Option<&Pem>,
) -> Result<TlsConfig, Failed> {
    Ok(TlsConfig {
        cert: written(tmp, "cert.pem", &pem.cert.0)?,
        key: written(tmp, "key.pem", &pem.cert.1)?,
        client_ca: match client_ca {
            Some(ca) => Some(written(tmp, "ca.pem", &ca.ca)?),
            None => None,
        },
    })
}

fn trusting(pem: &Pem) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pem.ca)).domain_name("localhost")
}

fn tls() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let (good, other) = (certificates("localhost")?, certificates("localhost")?);
    let (config, _) = guarded(&tmp)?;
    let served =
        Served::start(ServerConfig { tls: Some(tls_config(&tmp, &good, None)?), ..config })?;
    let channel = served.channel(Some(trusting(&good)))?;
    check(
        served.call(&channel, Some("Basic YW5uOnNlY3JldA"))?.0 != Code::Unauthenticated,
        "login",
    )?;
    check(served.call(&channel, None)?.0 == Code::Unauthenticated, "no login")?;
    check(served.channel(Some(trusting(&other))).is_err(), "another authority is trusted")?;
    // Plain text does not get an answer.
    let plain = served.channel(None);
    let answered = plain
        .and_then(|channel| served.call(&channel, None))
        .is_ok_and(|a| a.0 == Code::Unauthenticated);
    check(!answered, "plain text is understood")?;
    // Files that do not belong together, or are none.
    for (cert, key) in [
        (&good.cert.0, &other.cert.1),
        (&good.cert.0, &"x".to_owned()),
        (&String::new(), &good.cert.1),
    ] {
        let tls = Some(TlsConfig {
            cert: written(&tmp, "bad-cert.pem", cert)?,
            key: written(&tmp, "bad-key.pem", key)?,
            client_ca: None,
        });
        let error = served.runtime.block_on(async {
            let server = Server::bind(
                served.engine.clone(),
                ServerConfig { tls, ..ServerConfig::new(any_port()) },
            );
            match server.await {
                Ok(server) => server.run(std::future::ready(())).await.err(),
                Err(error) => Some(error),
            }
        });
        let error = error.ok_or("bad files are used")?;
        check(error.message().contains("cannot be used for TLS"), error)?;
    }
    Ok(())
}

fn client_certificates() -> Result<(), Failed> {
    let tmp = tempfile::tempdir()?;
    let (server, clients, other) =
        (certificates("localhost")?, certificates("ann")?, certificates("ann")?);
    let tls = Some(tls_config(&tmp, &server, Some(&clients))?);
    let served = Served::start(ServerConfig { tls, ..ServerConfig::new(any_port()) })?;
    let with = |pem: &Pem| trusting(&server).identity(Identity::from_pem(&pem.cert.0, &pem.cert.1));
    let channel = served.channel(Some(with(&clients)))?;
    let (code, said, _) = served.call(&channel, None)?;
    check(
        !matches!(code, Code::Unauthenticated | Code::Unavailable | Code::Unknown),
        (code, said),
    )?;
    for (tls, what) in
        [(trusting(&server), "no certificate"), (with(&other), "a stranger's certificate")]
    {
        // With TLS 1.3 the client hears of it only with its first call.
        let reached = served.channel(Some(tls)).and_then(|channel| served.call(&channel, None));
        let inside = reached.is_ok_and(|(code, ..)| {
            !matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled)
        });
        check(!inside, what)?;
    }
    Ok(())
}

fn long_messages() -> Result<(), Failed> {
    let limits = ServerLimits { message_bytes_max: 1 << 20, ..ServerLimits::default() };
    let served = Served::start(ServerConfig { limits, ..ServerConfig::new(any_port()) })?;
    let channel = served.channel(None)?;
    let mut client = FlightServiceClient::new(channel.clone());
    let long = FlightData { data_body: vec![0; 2 << 20].into(), ..FlightData::default() };
    let put = served.runtime.block_on(async {
        match client.do_put(only(long)).await {
            Ok(answer) => answer.into_inner().message().await.err(),
            Err(status) => Some(status),
        }
    });
    let refused: Status = put.ok_or("2 MiB are taken")?;
    check(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), &refused)?;
    // One that only says that it is 1 GiB: refused by its first five bytes, none of it is waited for.
    let status = served.runtime.block_on(declared(&channel, served.address, 1 << 30))?;
    check(status == "11" || status == "8", status)?;
    let flights = served.runtime.block_on(client.list_flights(Criteria::default()));
    check(!flights.is_err_and(|e| e.code() == Code::Unavailable), "the connection still works")
}

/// What becomes of a DoPut whose first message says that it has so many bytes, and has none: its gRPC status.
pub(crate) async fn declared(
    channel: &Channel,
    address: SocketAddr,
    bytes: u32,
) -> Result<String, Failed> {
    let [a, b, c, d] = bytes.to_be_bytes();
    let body = endless([0, a, b, c, d]);
    let method = "arrow.flight.protocol.FlightService/DoPut";
    let request = http::Request::post(format!("http://{address}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| tower::Service::poll_ready(&mut channel, cx)).await?;
    let sent = tower::Service::call(&mut channel, request);
    let answer = tokio::time::timeout(PATIENCE, sent).await??;
    let mut status = answer.headers().get("grpc-status").cloned();
    let mut body = answer.into_body();
    while status.is_none() {
        let frame = std::future::poll_fn(|cx| {
            http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)
        });
        let frame = tokio::time::timeout(PATIENCE, frame).await?.ok_or("no status")??;
        status = frame.trailers_ref().and_then(|t| t.get("grpc-status").cloned());
    }
    Ok(status.ok_or("no status")?.to_str()?.to_owned())
}

/// A body of these bytes that does not end.
fn endless(bytes: [u8; 5]) -> tonic::body::Body {
    struct Endless(Option<[u8; 5]>);
    impl http_body::Body for Endless {
        type Data = bytes::Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
            match self.0.take() {
                Some(bytes) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(
                    bytes::Bytes::copy_from_slice(&bytes),
                )))),
                None => std::task::Poll::Pending,
            }
        }
    }
    tonic::body::Body::new(Endless(Some(bytes)))
}

fn silent_connections() -> Result<(), Failed> {
    let limits = ServerLimits {
        // Enough for a handshake on a slow machine, and there is room for all: only time throws them out.
        handshake_time_max: Duration::from_secs(2),
        connections_max: 8,
        peer_connections_max: Some(8),
        ..ServerLimits::default()
    };
    let tmp = tempfile::tempdir()?;
    let pem = certificates("localhost")?;
    for tls in [None, Some(tls_config(&tmp, &pem, None)?)] {
        let secure = tls.is_some();
        let served = Served::start(ServerConfig {
            tls,
            limits: limits.clone(),
            ..ServerConfig::new(any_port())
        })?;
        // One says nothing, one a little.
        let mut silent = [TcpStream::connect(served.address)?, TcpStream::connect(served.address)?];
        silent[1].write_all(b"PRI * HTT")?;
        // Who is honest comes in beside them.
        let client = secure.then(|| trusting(&pem));
        let channel = served.channel(client)?;
        check(served.call(&channel, None)?.0 != Code::Unavailable, "the honest one")?;
        silent.iter_mut().try_for_each(thrown_out)?;
        // One that is in use stays: longer than a silent one that came after it.
        thrown_out(&mut TcpStream::connect(served.address)?)?;
        check(served.call(&channel, None)?.0 != Code::Unavailable, "the honest one, later")?;
    }
    Ok(())
}

/// Waits until the server has closed, or reset, a connection.
fn thrown_out(stream: &mut TcpStream) -> Result<(), Failed> {
    stream.set_read_timeout(Some(PATIENCE))?;
    match stream.read_to_end(&mut vec![]) {
        Err(e) => check(e.kind() == std::io::ErrorKind::ConnectionReset, e),
        Ok(_) => Ok(()),
    }
}

/// The samples of a text in the format of OpenMetrics, by name and labels; fails where it breaks the rules of the format.
pub(crate) fn samples(text: &str) -> Result<BTreeMap<String, f64>, Failed> {
    let mut samples = BTreeMap::new();
    let mut family: Option<(String, String)> = None;
    let body = text.strip_suffix("# EOF\n").ok_or("no end")?;
    let mut helped = String::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap_or_default().to_owned();
            check(help.len() > helped.len() + 5, line)?;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("no type")?;
            check(name == helped && matches!(kind, "counter" | "gauge" | "histogram"), line)?;
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (name, kind) = family.as_ref().ok_or("a sample before its type")?;
            let (sample, value) = line.rsplit_once(' ').ok_or("no value")?;
            let bare = sample.split('{').next().unwrap_or_default();
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            check(suffixes.iter().any(|s| bare == format!("{name}{s}")), line)?;
            check(samples.insert(sample.to_owned(), value.parse()?).is_none(), line)?;
        }
    }
    Ok(samples)
}

fn metrics() -> Result<(), Failed> {
    let mut served = Served::start(ServerConfig::new(any_port()))?;
    check(served.http("/healthz")? == (200, "ok\n".into()), "healthz")?;
    check(served.http("/readyz")? == (200, "ready\n".into()), "readyz")?;
    check(served.http("/else")?.0 == 404, "else")?;
    let session = served.engine.session(SessionOptions::default())?;
    for sql in [
        "CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)",
        "CREATE MATERIALIZED VIEW \"a \"\"strange\"\" one\" AS SELECT window_end, count(*) AS n \
         FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
        "INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:00'), (2, TIMESTAMP '2026-01-01 00:02:00')",
        "WAIT FOR \"a \"\"strange\"\" one\" UNTIL TIMESTAMP '2026-01-01 00:01:00'",
    ] {
        match served.runtime.block_on(session.run(sql)) {
            Ok(windrow_engine::Outcome::Rows(rows)) => {
                served.runtime.block_on(futures::TryStreamExt::try_collect::<Vec<_>>(rows))?;
            }
            Ok(windrow_engine::Outcome::Done(_)) => {}
            Err(e) => return Err(e.render(sql).into()),
        }
    }
    let _connection = served.channel(None)?;
    // A client is connected before the server has accepted its connection.
    let mut text = String::new();
    for _ in 0..1_000 {
        let (status, shown) = served.http("/metrics")?;
        check(status == 200, status)?;
        text = shown;
        if text.contains("\nwindrow_connections 1\n") {
            break;
        }
    }
    let samples = samples(&text)?;
    let view = "query=\"a \\\"strange\\\" one\"";
    for (name, value) in [
        (format!("windrow_query_rows_in_total{{{view}}}"), 2.0),
        (format!("windrow_query_rows_out_total{{{view}}}"), 1.0),
        (format!("windrow_query_rows_late_total{{{view}}}"), 0.0),
        (format!("windrow_query_windows_open{{{view}}}"), 1.0),
        (format!("windrow_query_failed{{{view}}}"), 0.0),
        (format!("windrow_batch_latency_seconds_bucket{{le=\"+Inf\",{view}}}"), 1.0),
        ("windrow_stream_rows_total{name=\"s\"}".to_owned(), 2.0),
        ("windrow_connections".to_owned(), 1.0),
        ("windrow_queries_running".to_owned(), 0.0),
    ] {
        let found = samples.get(&name);
        let found = found.or_else(|| samples.get(&swapped(&name)));
        check(found == Some(&value), (&name, found, &text))?;
    }
    let lag = samples.iter().find(|(name, _)| name.starts_with("windrow_watermark_lag_seconds{"));
    check(lag.is_some_and(|(_, lag)| *lag > 1.0), lag)?;
    // It is not ready any more when it stops.
    served.stop()?;
    let (status, why) = served.http("/readyz")?;
    check((status, why.as_str()) == (503, "the server is stopping\n"), (status, why))
}

/// The same sample with its labels the other way round.
fn swapped(name: &str) -> String {
    let Some((bare, labels)) = name.split_once('{') else { return name.to_owned() };
    match labels.trim_end_matches('}').split_once(',') {
        Some((a, b)) => format!("{bare}{{{b},{a}}}"),
        None => name.to_owned(),
    }
}
