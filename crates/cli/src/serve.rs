//! `windrow serve`: the engine behind a Flight SQL port, and one for rows over HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use windrow_core::{Error, Result};
use windrow_engine::{Engine, Files, QueryLimits, thread_rests};
use windrow_flight::Server;
use windrow_http::HttpServer;
use windrow_server::auth::login::LoginConfig;
use windrow_server::{MetricsServer, ServerConfig, ServerLimits, TlsConfig};

use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::values::{parse_size, seconds};

/// Options of the server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serving {
    /// Address for Flight SQL to listen on. Port 0 picks any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    flight: SocketAddr,
    /// Address for rows over HTTP: POST /v1/streams/NAME (default: not served).
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Address for /metrics, /healthz and /readyz (default: not served).
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// File of users who may log in with a password (see windrow user).
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// File of tokens that grant access (see windrow token).
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Certificate of the server (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the server (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificate authority that must have issued the clients' certificates (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Directory or URL whose files clients may use, besides "files" in the data directory. May be
    /// repeated.
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<String>,
    /// Format of the log on stderr.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or a filter as in WINDROW_LOG.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Limits for clients.
#[derive(Debug, Clone, Args)]
struct LimitArguments {
    /// Maximum size of one message from a client [default: 64MiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_message: Option<usize>,
    /// Maximum number of connections. Those without a login are closed first [default: 1000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// Maximum number of connections from one address [default: half of all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_peer_connections: Option<u32>,
    /// Maximum number of bounded statements that run at once. Further ones wait [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_queries: Option<u32>,
    /// Maximum number of statements that wait. Further ones are refused [default: 1000].
    #[arg(long, value_name = "N")]
    max_queue: Option<u32>,
    /// Maximum number of continuous results at once. Further ones are refused [default: 10000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_streams: Option<u32>,
    /// Memory limit for one statement: planning, functions, sorts, joins, groupings and the rows it keeps
    /// (default: a quarter of the machine's memory).
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    query_memory: Option<usize>,
    /// Seconds one bounded statement may take (default: no limit).
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    query_timeout: Option<Duration>,
    /// Seconds for which the token returned by a login is valid [default: 86400].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    token_lifetime: Option<Duration>,
    /// Seconds that running statements are given to finish when the server stops [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    grace: Option<Duration>,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Serving {
    /// The log filter, and whether the log is JSON.
    pub(crate) fn log(&self) -> (Option<&str>, bool) {
        (self.log_level.as_deref(), self.log_format == LogFormat::Json)
    }

    /// The memory limit of one statement in bytes.
    pub(crate) fn query_memory(&self) -> Option<usize> {
        self.limits.query_memory
    }

    /// The files that clients may use.
    ///
    /// # Errors
    /// When a location does not exist.
    pub(crate) fn files(&self, data_dir: Option<&Path>) -> Result<Files> {
        Files::below(data_dir, &self.allow_path)
    }

    fn config(&self) -> ServerConfig {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        ServerConfig {
            login: LoginConfig {
                users: self.users.clone(),
                tokens: self.tokens.clone(),
                token_lifetime: self
                    .limits
                    .token_lifetime
                    .unwrap_or(LoginConfig::default().token_lifetime),
            },
            tls: tls.map(|(cert, key)| TlsConfig {
                cert,
                key,
                client_ca: self.tls_client_ca.clone(),
            }),
            limits: self.limits.limits(),
            ..ServerConfig::new(self.flight)
        }
    }
}

impl LimitArguments {
    fn limits(&self) -> ServerLimits {
        let usual = ServerLimits::default();
        let or = |n: Option<u32>, usual: usize| n.map_or(usual, |n| n as usize);
        ServerLimits {
            message_bytes_max: self.max_message.unwrap_or(usual.message_bytes_max),
            connections_max: or(self.max_connections, usual.connections_max),
            peer_connections_max: self.max_peer_connections.map(|n| n as usize),
            grace: self.grace.unwrap_or(usual.grace),
            queries: QueryLimits {
                queries_max: or(self.max_queries, usual.queries.queries_max),
                queue_max: or(self.max_queue, usual.queries.queue_max),
                streams_max: or(self.max_streams, usual.queries.streams_max),
                query_bytes_max: self.query_memory,
                query_time_max: self.query_timeout,
            },
            ..usual
        }
    }
}

/// Serves until SIGTERM or Ctrl-C; the second one exits at once.
///
/// # Errors
/// When a port cannot be bound, or a file cannot be used.
pub(crate) fn run(
    engine: &Engine,
    serving: &Serving,
    interrupts: &Arc<Interrupts>,
) -> Result<(), Failure> {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .thread_name("flight")
        .on_thread_park(|| thread_rests(windrow_metered::give_back))
        .on_thread_stop(windrow_core::budget::thread_ends)
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot start threads: {e}")).with_source(e))?;
    let served = threads.block_on(async {
        let config = serving.config();
        if !config.is_guarded() {
            open_to_everybody();
        }
        let server = Server::bind(engine.clone(), config).await?;
        let metrics = match serving.metrics {
            Some(address) => Some(MetricsServer::bind(address, server.monitor()).await?),
            None => None,
        };
        let http = match serving.http {
            Some(address) => Some(HttpServer::new(server.listening().beside(address).await?)),
            None => None,
        };
        ready(&server, serving.tls_cert.is_some(), http.as_ref(), metrics.as_ref())?;
        let interrupts = Arc::clone(interrupts);
        let flight = server.run(async move { drop(interrupts.cancelled().await) });
        let rows = async {
            match http {
                Some(http) => tokio::try_join!(flight, http.run()).map(|((), ())| ()),
                None => flight.await,
            }
        };
        match metrics.map(MetricsServer::run) {
            // The monitoring port responds until the server has stopped.
            Some(metrics) => tokio::select! {
                done = rows => done,
                done = metrics => done,
            },
            None => rows.await,
        }
    });
    // Clients that keep their connections open do not delay the exit.
    threads.shutdown_background();
    Ok(served?)
}

/// Prints the line that announces that clients can connect.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn ready(
    server: &Server,
    tls: bool,
    http: Option<&HttpServer>,
    metrics: Option<&MetricsServer>,
) -> Result<()> {
    let secure = |scheme: &str, suffix: &str| format!("{scheme}{}", if tls { suffix } else { "" });
    let mut line =
        format!("windrow: ready, Flight SQL on {}://{}", secure("grpc", "+tls"), server.address()?);
    if let Some(http) = http {
        line += &format!(", rows on {}://{}/v1/streams", secure("http", "s"), http.address()?);
    }
    if let Some(metrics) = metrics {
        line += &format!(", metrics on http://{}/metrics", metrics.address()?);
    }
    println!("{line}");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "notices go to stderr")]
fn open_to_everybody() {
    eprintln!(
        "notice: no login is needed, so the server listens on this machine only; --users, \
         --tokens or --tls-client-ca require one"
    );
}
