//! Clients that vanish silently, without FIN or RST: their resources are freed nevertheless.

use std::net::SocketAddr;
use std::time::Duration;

use arrow_flight::sql::client::FlightSqlServiceClient;
use libtest_mimic::{Failed, Trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::transport::Endpoint;
use windrow_engine::EngineConfig;
use windrow_server::{ServerConfig, ServerLimits};

use crate::flight::{Follower, Served, lines, run, until};
use crate::flight_guard::any_port;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("flight/a client that vanishes frees its queries", vanished)]
}

/// A wire to the server that can be cut: then nothing goes through any more, and neither end is told.
struct Wire {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { break };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(forward(from_client, to_server, is_cut.clone()));
                tokio::spawn(forward(from_server, to_client, is_cut.clone()));
            }
        });
        Ok(Self { address, cut })
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        tokio::select! {
            biased;
            // Both halves are held: whoever asks the system hears that all is well.
            () = async { drop(is_cut.wait_for(|cut| *cut).await) } => std::future::pending::<()>().await,
            read = from.read(&mut bytes) => match read {
                Ok(n) if n > 0 && to.write_all(&bytes[..n]).await.is_ok() => {}
                Ok(_) | Err(_) => return,
            },
        }
    }
}

fn vanished() -> Result<(), Failed> {
    let limits = ServerLimits { keepalive: Duration::from_secs(2), ..ServerLimits::default() };
    let serving = ServerConfig { limits, ..ServerConfig::new(any_port()) };
    let served = Served::with_both(EngineConfig::default(), serving)?;
    served.runtime.block_on(async {
        let mut client = served.client().await?;
        let view = "CREATE MATERIALIZED VIEW v AS SELECT k FROM s";
        run(&mut client, &["CREATE STREAM s (k INT)", view, "INSERT INTO s VALUES (1)"]).await?;
        let wire = Wire::to(served.address).await?;
        let channel = Endpoint::new(format!("http://{}", wire.address))?.connect().await?;
        let mut vanishing = FlightSqlServiceClient::new(channel);
        let mut rows = Follower::of(&mut vanishing, "SELECT k FROM s EMIT CHANGES").await?;
        while rows.told().await?.rows.is_none() {}
        let subscribed = Follower::of(&mut vanishing, "SUBSCRIBE TO v").await?;
        let long =
            "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b";
        let working = Follower::of(&mut vanishing, long).await?;
        let has = async |streams: f64, queries: f64, connections: f64| {
            let samples = served.metrics()?;
            let now = ["windrow_streams_open", "windrow_queries_running", "windrow_connections"];
            let now = now.map(|name| samples.get(name).copied());
            Ok(now == [streams, queries, connections].map(Some))
        };
        until("all of them run", async || has(2.0, 1.0, 2.0).await).await?;
        wire.cut.send(true)?;
        // The other connection is asked too whether it lives, and does.
        until("all of it is freed", async || has(0.0, 0.0, 1.0).await).await?;
        let sql = "SELECT status FROM windrow.queries WHERE name LIKE 'query%'";
        until("the query is over", async || {
            Ok(lines(&run(&mut client, &[sql]).await?)? == ["cancelled"])
        })
        .await?;
        drop((rows, subscribed, working));
        Ok(())
    })
}
