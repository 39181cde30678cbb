//! SIGTERM while clients are active: each gets the reason why its stream ends, and acknowledged rows are there after
//! the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandStatementIngest;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use libtest_mimic::{Failed, Trial};
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::flight::serving::Serving;
use crate::flight::{Follower, lines, run, status, until};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight/SIGTERM ends streams in words and loses nothing", terminated),
        trial("flight/a second SIGTERM ends at once", insisted),
        trial("flight/the time of grace ends in words too", out_of_time),
    ]
}

const STREAM: &str = "CREATE STREAM s (n BIGINT, ts TIMESTAMP, WATERMARK FOR ts)";
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS n \
                    FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end";
/// A bounded query that takes longer than any test.
const LONG: &str =
    "SELECT count(*) FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b";
/// 2026-01-01, in µs.
const DAY: i64 = 1_767_225_600_000_000;
const MINUTE: i64 = 60_000_000;

/// The batch of a minute: ten rows.
fn batch(number: i64) -> Result<RecordBatch, ArrowError> {
    let n: ArrayRef = Arc::new(Int64Array::from(vec![number; 10]));
    let times = (0..10).map(|row| DAY + number * MINUTE + row);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times));
    RecordBatch::try_from_iter([("n", n), ("ts", times)])
}

/// More batches than anybody takes, of one producer.
fn batches() -> impl Stream<Item = FlightData> + Send + 'static {
    let rows = stream::iter(0..).map(|number| batch(number).map_err(FlightError::from));
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["s".to_owned()])))
        .build(rows);
    // The first message has the columns.
    let messages = messages.enumerate().map(|(sequence, message)| {
        let said = format!("{{\"producer\":\"p\",\"sequence\":{sequence}}}");
        message.map(|message| match sequence {
            0 => message,
            _ => message.with_app_metadata(said),
        })
    });
    messages
        .take_while(|message| std::future::ready(message.is_ok()))
        .filter_map(|message| std::future::ready(message.ok()))
}

/// Sends until it is stopped; counts what was acknowledged.
async fn produce(channel: Channel, acked: Arc<AtomicU64>) -> Result<Status, Failed> {
    let mut client = FlightServiceClient::new(channel);
    let mut answers = client.do_put(batches()).await?.into_inner();
    loop {
        match answers.message().await {
            Ok(Some(_)) => acked.fetch_add(1, Ordering::SeqCst),
            Ok(None) => return Err("the answers ended without a word".into()),
            Err(status) => return Ok(status),
        };
    }
}

/// The rows of a subscription as lines, counted while they come, and how it ended.
async fn follow(
    mut result: Follower,
    seen: Arc<AtomicU64>,
) -> Result<(Vec<String>, Status), Failed> {
    let mut rows = vec![];
    loop {
        match result.next().await {
            Ok(Some(told)) => {
                rows.extend(lines(told.rows.as_slice())?);
                seen.store(told.sequence, Ordering::SeqCst);
            }
            Ok(None) => return Err("the subscription ended without a word".into()),
            Err(status) => return Ok((rows, status)),
        }
    }
}

fn is_told(status: &Status) -> Result<(), Failed> {
    let told = status.message().contains("the server is stopping");
    if status.code() == Code::Unavailable && told {
        Ok(())
    } else {
        Err(format!("{status:?}").into())
    }
}

fn terminated() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let flags = ["--tail-rows", "300"];
    let serving = Serving::start(home.path(), &flags)?;
    let (acked, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut rows = runtime.block_on(async {
        let mut client = serving.client().await?;
        run(&mut client, &[STREAM, VIEW]).await?;
        let result = Follower::of(&mut client, "SUBSCRIBE TO v").await?;
        let following = tokio::spawn(follow(result, Arc::clone(&seen)));
        let producing = tokio::spawn(produce(serving.channel().await?, Arc::clone(&acked)));
        // Both are in the middle of their work.
        until("rows come and go", async || {
            Ok(acked.load(Ordering::SeqCst) > 50 && seen.load(Ordering::SeqCst) > 20)
        })
        .await?;
        serving.signal("TERM")?;
        is_told(&producing.await??)?;
        let (rows, status) = following.await??;
        is_told(&status)?;
        Ok::<_, Failed>(rows)
    })?;
    let code = serving.ends()?;
    assert_eq!(code, Some(0), "exit status");
    let (acked, last) = (acked.load(Ordering::SeqCst), seen.load(Ordering::SeqCst));
    let serving = Serving::start(home.path(), &flags)?;
    runtime.block_on(async {
        let mut client = serving.client().await?;
        run(&mut client, &["WAIT FOR v"]).await?;
        // Each batch wholly and once; as many as were acknowledged, or some that were on their way.
        let found = "SELECT count(*), count(DISTINCT n), max(n) + 1, 10 * count(DISTINCT n) = count(*) FROM s";
        let found = lines(&run(&mut client, &[found]).await?)?;
        let batches: u64 = found[0].split(' ').nth(1).ok_or("no column")?.parse()?;
        assert_eq!(found, [format!("{} {batches} {batches} true", batches * 10)]);
        assert!(batches >= acked, "{batches} batches, {acked} acknowledged");
        // The subscription goes on: with what came before, it is the view.
        let all = "SELECT window_start, window_end, n FROM v ORDER BY window_start";
        let all = lines(&run(&mut client, &[all]).await?)?;
        assert!(all.len() as u64 + 1 == batches, "{} windows of {batches} minutes", all.len());
        let sql = format!("SUBSCRIBE TO v AFTER {last}");
        let mut result = Follower::of(&mut client, &sql).await?;
        while rows.len() < all.len() {
            rows.extend(lines(result.told().await?.rows.as_slice())?);
        }
        assert!(rows == all, "the two parts of the subscription are not the view");
        Ok(())
    })
}

/// A server in the middle of a long query.
async fn busy(serving: &Serving) -> Result<tokio::task::JoinHandle<Status>, Failed> {
    let mut client = serving.client().await?;
    let info = client.execute(LONG.to_owned(), None).await?;
    let ticket = info.endpoint[0].ticket.clone().ok_or("no ticket")?;
    let reading = tokio::spawn(async move {
        let rows = match client.inner_mut().do_get(ticket).await {
            Ok(rows) => rows.into_inner(),
            Err(status) => return status,
        };
        rows.try_collect::<Vec<_>>().await.err().unwrap_or_else(|| Status::ok("it is done"))
    });
    let running = "windrow_queries_running";
    until("the query runs", async || Ok(serving.metrics()?.get(running) == Some(&1.0))).await?;
    Ok(reading)
}

fn insisted() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    // It would go on for as long as that.
    let serving = Serving::start(home.path(), &["--grace", "600"])?;
    runtime.block_on(async {
        let reading = busy(&serving).await?;
        serving.signal("TERM")?;
        until("the server stops", async || Ok(!serving.is_ready()?)).await?;
        assert!(!reading.is_finished(), "the query may go on");
        serving.signal("TERM")
    })?;
    let code = serving.ends()?;
    assert_eq!(code, Some(130), "exit status");
    Ok(())
}

fn out_of_time() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let serving = Serving::start(home.path(), &["--grace", "1"])?;
    runtime.block_on(async {
        let reading = busy(&serving).await?;
        // One who has begun a call and sends nothing, and one who takes its time over a bulk ingest.
        let (channel, (begun, has_begun)) = (serving.channel().await?, oneshot::channel());
        let mut silent = FlightServiceClient::new(channel.clone());
        let silent = tokio::spawn(async move { silent.do_put(stalls(begun)).await.err() });
        has_begun.await?;
        let mut client = FlightSqlServiceClient::new(channel);
        run(&mut client, &[STREAM]).await?;
        let command = CommandStatementIngest { table: "s".to_owned(), ..Default::default() };
        let (begun, has_begun) = oneshot::channel();
        let rows = stream::iter([Ok(batch(0)?)]).chain(stalls(begun));
        let mut sender = client.clone();
        let bulk = tokio::spawn(async move { sender.execute_ingest(command, rows).await });
        has_begun.await?;
        // Calls of one connection come in their order: when this one is answered, the others are there.
        run(&mut client, &["SHOW STREAMS"]).await?;
        serving.signal("TERM")?;
        is_told(&reading.await?)?;
        is_told(&silent.await?.ok_or("an answer to nothing")?)?;
        is_told(&status(bulk.await?)?)
    })?;
    let code = serving.ends()?;
    assert_eq!(code, Some(0), "exit status");
    let serving = Serving::start(home.path(), &[])?;
    runtime.block_on(async {
        let mut client = serving.client().await?;
        let rows = run(&mut client, &["SELECT count(*) FROM s"]).await?;
        // It was not told that any is in.
        assert_eq!(lines(&rows)?, ["0"]);
        Ok(())
    })
}

/// Nothing is sent, for ever; tells when the call has begun.
fn stalls<T: Send + 'static>(begun: oneshot::Sender<()>) -> impl Stream<Item = T> + Send {
    stream::once(async move {
        begun.send(()).ok();
        std::future::pending().await
    })
}
