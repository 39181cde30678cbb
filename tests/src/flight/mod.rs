//! The Flight SQL server as its clients see it: those of Rust in this process, those of Python in one of their own.

mod python;
mod query;

use std::net::SocketAddr;

use arrow::array::RecordBatch;
use arrow_flight::FlightInfo;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use windrow_flight::{Server, ServerConfig};
use windrow_runtime::{Engine, EngineConfig};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = query::trials();
    trials.extend(python::trials());
    trials
}

/// A server in this process, in memory.
pub(crate) struct Served {
    pub(crate) runtime: Runtime,
    pub(crate) engine: Engine,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::with(EngineConfig::default())
    }

    pub(crate) fn with(config: EngineConfig) -> Result<Self, Failed> {
        let runtime = Runtime::new()?;
        let engine = Engine::open(config)?;
        let (stop, stopped) = oneshot::channel();
        let config = ServerConfig::new("127.0.0.1:0".parse()?);
        let server = runtime.block_on(Server::bind(engine.clone(), config))?;
        let address = server.address()?;
        runtime.spawn(server.run(async move { drop(stopped.await) }));
        Ok(Self { runtime, engine, address, stop: Some(stop) })
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
