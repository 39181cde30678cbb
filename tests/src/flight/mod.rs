//! The Flight SQL server as its clients see it: Rust clients in this process, Python clients in processes of their own.

mod ending;
mod hostile;
mod long;
mod own_client;
mod python;
mod query;
mod quiet;
mod rights;
mod serving;
mod sessions;
mod slow;
mod vanish;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::FlightInfo;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::{StreamExt, TryStreamExt};
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use windrow_engine::{Engine, EngineConfig};
use windrow_flight::Server;
use windrow_server::auth::login::{GrantLine, LoginConfig, TokenLine, new_token, write};
use windrow_server::{MetricsServer, ServerConfig};

use crate::flight_guard::{any_port, http, samples};
use crate::program::PATIENCE;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = query::trials();
    trials.extend(python::trials());
    trials.extend(quiet::trials());
    trials.extend(sessions::trials());
    trials.extend(slow::trials());
    trials.extend(ending::trials());
    trials.extend(hostile::trials());
    trials.extend(long::trials());
    trials.extend(vanish::trials());
    trials.extend(rights::trials());
    trials.extend(own_client::trials());
    trials
}

/// A server in this process, in memory.
pub(crate) struct Served {
    pub(crate) runtime: Runtime,
    pub(crate) engine: Engine,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::with(EngineConfig::default())
    }

    pub(crate) fn with(config: EngineConfig) -> Result<Self, Failed> {
        Self::with_both(config, ServerConfig::new(any_port()))
    }

    pub(crate) fn with_both(config: EngineConfig, serving: ServerConfig) -> Result<Self, Failed> {
        let runtime = Runtime::new()?;
        let engine = Engine::open(config)?;
        let (stop, stopped) = oneshot::channel();
        let server = runtime.block_on(Server::bind(engine.clone(), serving))?;
        let address = server.address()?;
        let metrics = runtime.block_on(MetricsServer::bind(any_port(), server.monitor()))?;
        let monitored = metrics.address()?;
        runtime.spawn(metrics.run());
        runtime.spawn(server.run(async move { drop(stopped.await) }));
        Ok(Self { runtime, engine, address, metrics: monitored, stop: Some(stop) })
    }

    /// What monitoring sees.
    pub(crate) fn metrics(&self) -> Result<BTreeMap<String, f64>, Failed> {
        samples(&http(self.metrics, "/metrics")?.1)
    }

    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Result<Channel, Failed> {
        Ok(Endpoint::new(format!("http://{}", self.address))?.connect().await?)
    }

    pub(crate) async fn client(&self) -> Result<FlightSqlServiceClient<Channel>, Failed> {
        Ok(FlightSqlServiceClient::new(self.channel().await?))
    }

    /// A client of Flight without SQL.
    pub(crate) async fn plain(&self) -> Result<FlightServiceClient<Channel>, Failed> {
        Ok(FlightServiceClient::new(self.channel().await?))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        self.engine.shutdown();
    }
}

/// All rows that a client was told of.
pub(crate) async fn fetch(
    client: &mut FlightSqlServiceClient<Channel>,
    info: &FlightInfo,
) -> Result<Vec<RecordBatch>, Failed> {
    let ticket = info.endpoint.first().and_then(|e| e.ticket.clone()).ok_or("no ticket")?;
    Ok(client.do_get(ticket).await?.try_collect().await?)
}

/// Runs statements one after the other.
pub(crate) async fn run(
    client: &mut FlightSqlServiceClient<Channel>,
    sql: &[&str],
) -> Result<Vec<RecordBatch>, Failed> {
    let mut rows = vec![];
    for sql in sql {
        let info = client.execute((*sql).to_owned(), None).await?;
        rows = fetch(client, &info).await?;
    }
    Ok(rows)
}

/// Rows as text, one line each.
pub(crate) fn lines(rows: &[RecordBatch]) -> Result<Vec<String>, Failed> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = vec![];
    for batch in rows {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            lines.push(cells.join(" "));
        }
    }
    Ok(lines)
}

/// A continuous result, message by message.
pub(crate) struct Follower(FlightDataDecoder);

/// A message of a continuous result.
#[derive(Debug)]
pub(crate) struct Told {
    /// `None` with the columns, which come first.
    pub(crate) rows: Option<RecordBatch>,
    /// The number of the last row.
    pub(crate) sequence: u64,
    /// All that stands beside it.
    pub(crate) beside: String,
}

impl Follower {
    /// Asks for the rows; none is read yet.
    pub(crate) async fn of(
        client: &mut FlightSqlServiceClient<Channel>,
        sql: &str,
    ) -> Result<Self, Failed> {
        let info = client.execute(sql.to_owned(), None).await?;
        let ticket = info.endpoint.first().and_then(|e| e.ticket.clone()).ok_or("no ticket")?;
        let mut request = tonic::Request::new(ticket);
        if let Some(token) = client.token() {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let messages = client.inner_mut().do_get(request).await?.into_inner();
        let messages = messages.map_err(|status| FlightError::Tonic(Box::new(status)));
        Ok(Self(FlightDataDecoder::new(messages)))
    }

    /// The next message, or the status that it ended with.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Status> {
        let waits = tokio::time::timeout(PATIENCE, self.0.next());
        let next = waits.await.map_err(|_| Status::deadline_exceeded("nothing comes"))?;
        let data = match next.transpose() {
            Ok(Some(data)) => data,
            Ok(None) => return Ok(None),
            Err(FlightError::Tonic(status)) => return Err(*status),
            Err(other) => return Err(Status::internal(other.to_string())),
        };
        let beside = String::from_utf8_lossy(&data.inner.app_metadata).into_owned();
        let sequence = beside.split("\"sequence\":").nth(1).and_then(|t| t.split(',').next());
        let sequence = sequence.and_then(|n| n.parse().ok());
        let sequence = sequence.ok_or_else(|| Status::internal(format!("beside: {beside:?}")))?;
        let rows = match data.payload {
            DecodedPayload::RecordBatch(rows) => Some(rows),
            DecodedPayload::Schema(_) | DecodedPayload::None => None,
        };
        Ok(Some(Told { rows, sequence, beside }))
    }

    /// The next message, where there must be one.
    pub(crate) async fn told(&mut self) -> Result<Told, Failed> {
        Ok(self.next().await?.ok_or("the result has ended")?)
    }
}

/// Waits until `holds`.
pub(crate) async fn until(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool, Failed>,
) -> Result<(), Failed> {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let asking = async {
        while !holds().await? {
            ticks.tick().await;
        }
        Ok(())
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.map_err(|_| format!("it never holds that {what}"))?
}

/// A file of tokens for users with these roles on everything, and their tokens.
pub(crate) fn tokens(
    directory: &std::path::Path,
    users: impl IntoIterator<Item = (String, &'static str)>,
) -> Result<(LoginConfig, Vec<String>), Failed> {
    let (mut lines, mut tokens) = (vec![], vec![]);
    for (name, role) in users {
        let (token, hash) = new_token();
        let grants = vec![GrantLine { role: role.into(), on: vec!["*".into()] }];
        lines.push(TokenLine { name, grants, token: hash, expires: None });
        tokens.push(token);
    }
    let file = directory.join("tokens");
    write(&file, &lines)?;
    Ok((LoginConfig { tokens: Some(file), ..LoginConfig::default() }, tokens))
}

/// The status of a refusal.
pub(crate) fn status<T>(done: Result<T, FlightError>) -> Result<Status, Failed> {
    match done {
        Ok(_) => Err("it is not refused".into()),
        Err(FlightError::Tonic(status)) => Ok(*status),
        Err(other) => Err(format!("refused without a status: {other}").into()),
    }
}

/// The error that is expected.
pub(crate) fn refused<T, E: std::fmt::Display>(
    done: Result<T, E>,
    words: &str,
) -> Result<(), Failed> {
    match done {
        Ok(_) => Err(format!("no error, but one about {words}").into()),
        Err(error) if error.to_string().contains(words) => Ok(()),
        Err(error) => Err(format!("not about {words}: {error}").into()),
    }
}
