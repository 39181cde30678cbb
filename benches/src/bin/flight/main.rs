//! What the way over Flight costs: results, ingest, the latency of finished windows, many clients.
//!
//! `flight rows|ingest|latency|clients`; starts `windrow serve` from beside this program, talks to it
//! over loopback, and stops it. See `benches/README.md`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measures the machine and prints figures"
)]

mod plain;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightDescriptor, Ticket};
use clap::{Parser, Subcommand};
use futures::{StreamExt, TryStreamExt};
use tonic::transport::{Channel, Endpoint};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Keep everything durably here (a directory that is not there yet); otherwise in memory.
    #[arg(long, global = true)]
    data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Rows of a result, beside a plain Flight server that sends the same batches.
    Rows {
        #[arg(default_value_t = 10_000_000)]
        rows: u64,
    },
    /// Rows put into a stream.
    Ingest {
        #[arg(default_value_t = 10_000_000)]
        rows: u64,
    },
    /// From the row by which the watermark passes a result until the subscriber has it, at 100,000 rows/s.
    Latency {
        #[arg(default_value_t = 20)]
        seconds: u64,
        /// What the view consists of.
        #[arg(long, value_enum, default_value_t = Results::Windows)]
        of: Results,
    },
    /// Many clients that query a view again and again.
    Clients {
        #[arg(default_value_t = 200)]
        clients: usize,
        #[arg(default_value_t = 20)]
        queries: usize,
    },
}

/// What a view gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Results {
    /// Windows of 50 ms with 100 groups.
    Windows,
    /// A row for each row, with a sum over the rows of its key in the last second.
    Over,
    /// A row for each row, of an interval join of the stream with itself.
    Join,
}

/// A running `windrow serve`.
struct Served {
    process: Child,
    url: String,
}

impl Served {
    fn start(data_dir: Option<&str>) -> Result<Self> {
        let mut program = std::env::current_exe()?;
        program.set_file_name("windrow");
        let mut command = Command::new(program);
        command.args(["serve", "--flight", "127.0.0.1:0"]);
        if let Some(dir) = data_dir {
            command.args(["--data-dir", dir]);
        }
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let out = process.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let url = line.split_whitespace().find(|word| word.starts_with("grpc://"));
        let url = url.ok_or("it is not ready")?.trim_end_matches([',', ';', '.']);
        Ok(Self { process, url: url.replacen("grpc", "http", 1) })
    }

    async fn channel(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(self.url.clone())?.tcp_nodelay(true).connect().await?)
    }

    async fn client(&self) -> Result<FlightSqlServiceClient<Channel>> {
        Ok(FlightSqlServiceClient::new_from_inner(wide(self.channel().await?)))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A client that takes messages of any size.
fn wide(channel: Channel) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}

async fn query(
    client: &mut FlightSqlServiceClient<Channel>,
    sql: &str,
) -> Result<Vec<RecordBatch>> {
    let info = client.execute(sql.to_owned(), None).await?;
    let ticket = info.endpoint.first().and_then(|e| e.ticket.clone()).ok_or("no ticket")?;
    Ok(client.do_get(ticket).await?.try_collect().await?)
}

async fn run(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<i64> {
    Ok(client.execute_update(sql.to_owned(), None).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let served = Served::start(arguments.data_dir.as_deref())?;
    match arguments.what {
        What::Rows { rows } => results(&served, rows).await,
        What::Ingest { rows } => ingest(&served, rows).await,
        What::Latency { seconds, of } => latency(&served, seconds, of).await,
        What::Clients { clients, queries } => many(&served, clients, queries).await,
    }
}

fn rate(rows: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!("{seconds:.3} s, {:.2} M rows/s", rows as f64 / seconds / 1e6)
}

async fn results(served: &Served, rows: u64) -> Result<()> {
    let mut client = served.client().await?;
    let table = format!(
        "CREATE TABLE t AS SELECT value AS id, value % 1000 AS k, CAST(value AS DOUBLE) / 3 AS x, \
         'auction ' || CAST(value % 1000 AS VARCHAR) AS name FROM generate_series(1, {rows})"
    );
    run(&mut client, &table).await?;
    let batches = query(&mut client, "SELECT * FROM t").await?;
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    println!("{rows} rows in {} batches, {:.0} MB", batches.len(), bytes as f64 / 1e6);
    let plain = plain::serve(batches).await?;
    let mut other = wide(Endpoint::from_shared(plain)?.tcp_nodelay(true).connect().await?);
    // By turns, so that what else the machine does hits both.
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..5 {
        let start = Instant::now();
        let info = client.execute("SELECT * FROM t".to_owned(), None).await?;
        let ticket = info.endpoint.first().and_then(|e| e.ticket.clone()).ok_or("no ticket")?;
        let mut stream = client.do_get(ticket).await?;
        let mut count = 0;
        while let Some(batch) = stream.try_next().await? {
            count += batch.num_rows() as u64;
        }
        ours.push(start.elapsed());
        let start = Instant::now();
        let response = other.do_get(Ticket::new("all")).await?.into_inner();
        let mut stream = arrow_flight::decode::FlightRecordBatchStream::new_from_flight_data(
            response.map_err(Into::into),
        );
        let mut plain_count = 0;
        while let Some(batch) = stream.try_next().await? {
            plain_count += batch.num_rows() as u64;
        }
        theirs.push(start.elapsed());
        if (count, plain_count) != (rows, rows) {
            return Err(format!("{count} and {plain_count} rows, not {rows}").into());
        }
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!("windrow        {}", rate(rows, ours));
    println!("plain server   {}", rate(rows, theirs));
    println!("of it          {:.0} %", 100.0 * theirs.as_secs_f64() / ours.as_secs_f64());
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, Duration::as_secs_f64) * 1e3
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

/// Rows from number `first` on, each `micros` after the one before.
fn rows_from(first: i64, count: i64, micros: i64) -> Result<RecordBatch> {
    let numbers = Int64Array::from_iter_values(first..first + count);
    let times = (first..first + count).map(|n| n * micros);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(numbers), Arc::new(TimestampMicrosecondArray::from_iter_values(times))];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

const STREAM: &str = "CREATE STREAM s (n BIGINT, at TIMESTAMP(6), WATERMARK FOR at)";

async fn ingest(served: &Served, rows: u64) -> Result<()> {
    const BATCH: i64 = 65_536;
    let mut client = served.client().await?;
    run(&mut client, STREAM).await?;
    let batches: Vec<_> = (0..rows as i64)
        .step_by(BATCH as usize)
        .map(|first| rows_from(first, BATCH.min(rows as i64 - first), 1))
        .collect::<Result<_>>()?;
    let start = Instant::now();
    let data = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["s".to_owned()])))
        .build(futures::stream::iter(batches.into_iter().map(Ok)))
        .filter_map(|data| futures::future::ready(data.ok()));
    let mut answers = wide(served.channel().await?).do_put(data).await?.into_inner();
    while answers.try_next().await?.is_some() {}
    println!("put            {}", rate(rows, start.elapsed()));
    let found = query(&mut client, "SELECT count(*) AS n FROM s").await?;
    let found =
        found.first().map(|b| b.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0));
    if found != Some(rows as i64) {
        return Err(format!("{found:?} rows, not {rows}").into());
    }
    Ok(())
}

impl Results {
    fn query(self) -> &'static str {
        match self {
            Self::Windows => {
                "SELECT window_start, window_end, n % 100 AS k, count(*) AS c \
                 FROM TUMBLE(s, at, INTERVAL '50 milliseconds') GROUP BY window_start, window_end, k"
            }
            Self::Over => {
                "SELECT n, at, sum(n) OVER (PARTITION BY n % 100 ORDER BY at \
                 RANGE BETWEEN INTERVAL '1 second' PRECEDING AND CURRENT ROW) AS total FROM s"
            }
            Self::Join => {
                "SELECT a.n, a.at FROM s AS a JOIN s AS b \
                 ON a.n = b.n AND b.at BETWEEN a.at - INTERVAL '1 second' AND a.at"
            }
        }
    }

    /// The times, in µs, that the watermark has to reach for these results; ascending.
    fn due(self, results: &RecordBatch) -> Vec<i64> {
        let (column, after) = if self == Self::Windows { ("window_end", 0) } else { ("at", 1) };
        let Some(times) = results.column_by_name(column) else { return vec![] };
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        times.iter().map(|time| time + after).collect()
    }
}

async fn latency(served: &Served, seconds: u64, of: Results) -> Result<()> {
    // A batch of 500 rows each 5 ms; each tenth batch closes a window of 50 ms.
    const ROWS: i64 = 500;
    const MICROS: i64 = 10;
    const EVERY: Duration = Duration::from_millis(5);
    const WINDOW: i64 = 50_000;
    let mut client = served.client().await?;
    run(&mut client, STREAM).await?;
    run(&mut client, &format!("CREATE MATERIALIZED VIEW v AS {}", of.query())).await?;
    let info = client.execute("SUBSCRIBE TO v AFTER 0".to_owned(), None).await?;
    let ticket = info.endpoint.first().and_then(|e| e.ticket.clone()).ok_or("no ticket")?;
    let mut results = client.do_get(ticket).await?;
    let batches = (Duration::from_secs(seconds).as_millis() / EVERY.as_millis()) as i64;
    // The last row passes what is before it.
    let last = (batches * ROWS - 1) * MICROS;
    let last = match of {
        Results::Windows => last / WINDOW * WINDOW,
        Results::Over | Results::Join => last - MICROS + 1,
    };
    let passed_by = |due: i64| ((due + MICROS - 1) / MICROS / ROWS) as usize;
    let received = tokio::spawn(async move {
        let mut received = vec![];
        while let Some(batch) = results.try_next().await? {
            let now = Instant::now();
            let due = of.due(&batch);
            let mut passed: Vec<usize> = due.iter().map(|due| passed_by(*due)).collect();
            passed.dedup();
            received.extend(passed.into_iter().map(|batch| (batch, now)));
            if due.last().is_some_and(|due| *due >= last) {
                break;
            }
        }
        Ok::<_, arrow_flight::error::FlightError>(received)
    });
    let (sent, mut sending) = tokio::sync::mpsc::channel(1);
    let feeder = tokio::spawn(async move {
        let mut times = vec![];
        let mut ticks = tokio::time::interval(EVERY);
        for i in 0..batches {
            ticks.tick().await;
            let batch = rows_from(i * ROWS, ROWS, MICROS)?;
            times.push(Instant::now());
            sent.send(batch).await?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
    });
    let batches = futures::stream::poll_fn(move |context| sending.poll_recv(context));
    let data = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_path(vec!["s".to_owned()])))
        .build(batches.map(Ok))
        .filter_map(|data| futures::future::ready(data.ok()));
    let mut answers = wide(served.channel().await?).do_put(data).await?.into_inner();
    let answers = tokio::spawn(async move {
        while answers.try_next().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    });
    let sent = feeder.await??;
    let received = received.await??;
    answers.await??;
    let mut times: Vec<Duration> = received
        .iter()
        .filter_map(|(batch, at)| sent.get(*batch).map(|sent| at.saturating_duration_since(*sent)))
        .collect();
    println!(
        "{} batches passed by the watermark, 100,000 rows/s: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        times.len(),
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        percentile(&mut times, 100)
    );
    Ok(())
}

async fn many(served: &Served, clients: usize, queries: usize) -> Result<()> {
    let mut client = served.client().await?;
    run(&mut client, STREAM).await?;
    run(
        &mut client,
        "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS c \
         FROM TUMBLE(s, at, INTERVAL '1 second') GROUP BY window_start, window_end",
    )
    .await?;
    run(
        &mut client,
        "INSERT INTO s SELECT value, to_timestamp_micros(value * 1000) FROM generate_series(1, 1000000)",
    )
    .await?;
    query(&mut client, "WAIT FOR v").await?;
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let url = served.url.clone();
            tokio::spawn(async move {
                let channel = Endpoint::from_shared(url)?.tcp_nodelay(true).connect().await?;
                let mut client = FlightSqlServiceClient::new_from_inner(wide(channel));
                let mut times = vec![];
                for _ in 0..queries {
                    let start = Instant::now();
                    let found =
                        query(&mut client, "SELECT * FROM v ORDER BY window_end DESC LIMIT 10");
                    let rows: usize = found.await?.iter().map(RecordBatch::num_rows).sum();
                    if rows != 10 {
                        return Err(format!("{rows} rows, not 10").into());
                    }
                    times.push(start.elapsed());
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
            })
        })
        .collect();
    let mut times = vec![];
    for task in tasks {
        times.extend(task.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{clients} clients, {} queries: {:.0} queries/s, p50 {:.1} ms, p99 {:.1} ms",
        times.len(),
        times.len() as f64 / seconds,
        percentile(&mut times, 50),
        percentile(&mut times, 99)
    );
    Ok(())
}
