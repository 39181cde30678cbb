//! Rows over Flight: each acknowledged batch is there once, whatever is sent again and whichever side dies; rows that
//! do not fit are refused with the reason.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightClient, FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt, stream};
use libtest_mimic::{Failed, Trial};
use tonic::transport::Channel;
use windrow_engine::{Engine, EngineConfig, Outcome, SessionOptions};
use windrow_flight::Server;
use windrow_server::ServerConfig;

use crate::program::{Home, Running, rounds};
use crate::readers::python;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let trial =
        |name: &str, run: fn() -> Result<(), Failed>| trial(format!("flight_ingest/{name}"), run);
    vec![
        trial("a batch that is sent again is told so", repeated),
        trial("what does not fit is refused and what came before stays", refused),
        trial("a sender that stops in the middle leaves whole batches", half_sent),
        trial("bulk ingest makes, fills and replaces streams", bulk),
        trial("adbc and pyarrow", from_python),
        trial("kill -9 while producers write", killed),
    ]
}

/// A server in this process, for `test`.
fn with_server<F>(test: impl FnOnce(Engine, String) -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let engine = Engine::open(EngineConfig::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = ServerConfig::new("127.0.0.1:0".parse()?);
        let server = Server::bind(engine.clone(), config).await?;
        let url = format!("http://{}", server.address()?);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(server.run(async move { drop(stopped.await) }));
        test(engine, url).await?;
        stop.send(()).map_err(|()| "the server ended before")?;
        Ok(served.await??)
    })
}

async fn channel(url: &str) -> Result<Channel, Failed> {
    Ok(Channel::from_shared(url.to_owned())?.connect().await?)
}

async fn run(engine: &Engine, sql: &str) -> Result<Vec<RecordBatch>, Failed> {
    match engine.session(SessionOptions::default())?.run(sql).await? {
        Outcome::Rows(rows) => Ok(rows.try_collect().await?),
        Outcome::Done(_) => Ok(vec![]),
    }
}

async fn number(engine: &Engine, sql: &str) -> Result<i64, Failed> {
    let rows = run(engine, sql).await?;
    let first = rows.first().ok_or("no rows")?;
    Ok(first.column(0).as_primitive::<Int64Type>().value(0))
}

fn numbers(name: &str, values: std::ops::Range<i64>) -> Result<RecordBatch, Failed> {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    Ok(RecordBatch::try_from_iter([(name, values)])?)
}

/// The messages of batches for a stream, each with what is said of it.
async fn messages(
    path: &[&str],
    batches: Vec<(RecordBatch, String)>,
) -> Result<Vec<FlightData>, Failed> {
    let path = path.iter().map(|p| (*p).to_owned()).collect();
    let descriptor = FlightDescriptor::new_path(path);
    let (rows, said): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
    let encoded: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(stream::iter(rows.into_iter().map(Ok)))
        .try_collect()
        .await?;
    let mut said = said.into_iter();
    // The first one has the columns, the others a batch each.
    let with = |(i, mut data): (usize, FlightData)| {
        if i > 0 {
            data.app_metadata = said.next().unwrap_or_default().into();
        }
        data
    };
    Ok(encoded.into_iter().enumerate().map(with).collect())
}

/// What the server says.
fn words(error: FlightError) -> String {
    match error {
        FlightError::Tonic(status) => status.message().to_owned(),
        error => error.to_string(),
    }
}

/// The answers to messages, and how it ended.
async fn answers(url: &str, messages: Vec<FlightData>) -> Result<(Vec<String>, String), Failed> {
    answers_counted(url, messages, &AtomicU64::new(0)).await
}

/// As [`answers`]; `heard` counts them as they come.
async fn answers_counted(
    url: &str,
    messages: Vec<FlightData>,
    heard: &AtomicU64,
) -> Result<(Vec<String>, String), Failed> {
    let mut client = FlightClient::new(channel(url).await?);
    let mut told = vec![];
    let mut answers = match client.do_put(stream::iter(messages.into_iter().map(Ok))).await {
        Ok(answers) => answers,
        Err(error) => return Ok((told, words(error))),
    };
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => {
                told.push(String::from_utf8(answer.app_metadata.to_vec())?);
                heard.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Ok((told, words(error))),
        }
    }
    Ok((told, String::new()))
}

fn expect(holds: bool, what: impl std::fmt::Debug) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what:?}").into()) }
}

fn said(producer: &str, sequence: u64) -> String {
    format!("{{\"producer\":\"{producer}\",\"sequence\":{sequence}}}")
}

fn repeated() -> Result<(), Failed> {
    with_server(|engine, url| async move {
        run(&engine, "CREATE STREAM s (n BIGINT, k TEXT)").await?;
        let batches = vec![
            (numbers("n", 0..2)?, said("p", 1)),
            // The number of the next one need not be said.
            (numbers("n", 2..5)?, String::new()),
        ];
        let sent = messages(&["s"], batches).await?;
        let new =
            |n, rows| format!("{{\"sequence\":{n},\"rows\":{rows},\"bad\":0,\"repeated\":false}}");
        let again = |n| format!("{{\"sequence\":{n},\"rows\":0,\"bad\":0,\"repeated\":true}}");
        let first = answers(&url, sent.clone()).await?;
        expect(first == (vec![new(1, 2), new(2, 3)], String::new()), first)?;
        let second = answers(&url, sent).await?;
        expect(second == (vec![again(1), again(2)], String::new()), second)?;
        // Without a producer nothing is remembered.
        let plain = || async {
            let path = ["datafusion", "public", "s"];
            messages(&path, vec![(numbers("n", 5..6)?, String::new())]).await
        };
        for _ in 0..2 {
            let plain = answers(&url, plain().await?).await?;
            expect(plain == (vec![new(1, 1)], String::new()), plain)?;
        }
        let rows = number(&engine, "SELECT count(*) FROM s").await?;
        expect(rows == 7, rows)
    })
}

fn refused() -> Result<(), Failed> {
    with_server(|engine, url| async move {
        run(&engine, "CREATE STREAM s (n BIGINT NOT NULL)").await?;
        let n = || numbers("n", 0..1);
        for (path, batch, metadata, words) in [
            (vec!["nowhere"], n()?, String::new(), "nowhere"),
            (vec![], n()?, String::new(), "names no stream"),
            (vec!["other", "s"], n()?, String::new(), "there is no place \"other\""),
            (vec!["s"], numbers("m", 0..1)?, String::new(), "no column \"m\""),
            (vec!["s"], n()?, "x".to_owned(), "app_metadata of a batch is not understood"),
            (vec!["s"], n()?, "{\"sequenze\":1}".to_owned(), "unknown field"),
            (vec!["s"], n()?, "{\"producer\":\"p\"}".to_owned(), "gives no sequence"),
            (vec!["s"], n()?, said("", 1), "the name of a producer is empty"),
            (vec!["s"], n()?, said("p", 0), "has no batch 0"),
            (vec!["s"], n()?, said("p", 7), "is not known here, so its first batch is 1"),
        ] {
            let sent = messages(&path, vec![(batch, metadata)]).await?;
            let (told, error) = answers(&url, sent).await?;
            expect(told.is_empty() && error.contains(words), (words, told, error))?;
        }
        // A row that violates a check: none of its batch is inserted.
        run(&engine, "CREATE STREAM c (n BIGINT CHECK (n < 5))").await?;
        let batches =
            vec![(numbers("n", 0..3)?, String::new()), (numbers("n", 3..9)?, String::new())];
        let (told, error) = answers(&url, messages(&["c"], batches).await?).await?;
        let names_it = error.contains("violates check \"c_n_check\"");
        expect(told.len() == 1 && names_it, (told, error))?;
        let whole = number(&engine, "SELECT count(*) FROM c").await?;
        expect(whole == 3, whole)?;
        // A damaged message.
        let mut sent = messages(&["s"], vec![(n()?, String::new())]).await?;
        if let Some(last) = sent.last_mut() {
            last.data_header = vec![7; 40].into();
        }
        let (told, error) = answers(&url, sent).await?;
        expect(told.is_empty() && error.contains("cannot be read"), (told, error))?;
        let none = number(&engine, "SELECT count(*) FROM s").await?;
        expect(none == 0, none)?;
        // What is in front of the one that is refused is there and told; what is behind it is not.
        let batches = vec![
            (n()?, said("p", 1)),
            (n()?, said("p", 2)),
            (n()?, said("p", 4)),
            (n()?, said("p", 3)),
        ];
        let (told, error) = answers(&url, messages(&["s"], batches).await?).await?;
        expect(told.len() == 2 && error.contains("batch 3 is next"), (&told, &error))
    })
}

fn half_sent() -> Result<(), Failed> {
    with_server(|engine, url| async move {
        run(&engine, "CREATE STREAM s (n BIGINT)").await?;
        let batches = (0..3).map(|i| Ok((numbers("n", 0..1_000)?, said("p", i + 1))));
        let mut sent = messages(&["s"], batches.collect::<Result<_, Failed>>()?).await?;
        let cut = sent.pop().ok_or("no messages")?;
        let mut client = FlightClient::new(channel(&url).await?);
        let broken = stream::iter(sent.into_iter().map(Ok)).chain(stream::once(async {
            Err(FlightError::ProtocolError("the sender dies".to_owned()))
        }));
        if let Ok(answers) = client.do_put(broken).await {
            drop(answers.collect::<Vec<_>>().await);
        }
        drop(cut);
        // The two batches before may have been taken or not; each wholly.
        let rows = number(&engine, "SELECT count(*) FROM s").await?;
        expect(rows % 1_000 == 0 && rows <= 2_000, rows)?;
        let batches = (0..3).map(|i| Ok((numbers("n", 0..1_000)?, said("p", i + 1))));
        let again = messages(&["s"], batches.collect::<Result<_, Failed>>()?).await?;
        let (told, error) = answers(&url, again).await?;
        expect(told.len() == 3 && error.is_empty(), (told, error))?;
        let rows = number(&engine, "SELECT count(*) FROM s").await?;
        expect(rows == 3_000, rows)
    })
}

async fn ingest(
    url: &str,
    table: &str,
    (absent, there): (TableNotExistOption, TableExistsOption),
    batches: Vec<RecordBatch>,
) -> Result<i64, String> {
    let channel = channel(url).await.map_err(|e| format!("{e:?}"))?;
    let options = TableDefinitionOptions { if_not_exist: absent.into(), if_exists: there.into() };
    let command = CommandStatementIngest {
        table_definition_options: Some(options),
        table: table.to_owned(),
        ..CommandStatementIngest::default()
    };
    let batches = stream::iter(batches.into_iter().map(Ok));
    let mut client = FlightSqlServiceClient::new(channel);
    client.execute_ingest(command, batches).await.map_err(words)
}

fn bulk() -> Result<(), Failed> {
    use {TableExistsOption as There, TableNotExistOption as Absent};
    const CREATE: (Absent, There) = (Absent::Create, There::Fail);
    const APPEND: (Absent, There) = (Absent::Fail, There::Append);
    const REPLACE: (Absent, There) = (Absent::Create, There::Replace);
    with_server(|engine, url| async move {
        let name = "Odd \"name\"; DROP";
        let rows = || Ok::<_, Failed>(vec![numbers("n", 0..3)?, numbers("n", 3..5)?]);
        let made = ingest(&url, name, CREATE, rows()?).await;
        expect(made == Ok(5), &made)?;
        let there = ingest(&url, name, CREATE, rows()?).await;
        expect(there.is_err_and(|e| e.contains("exists")), "exists")?;
        let more = ingest(&url, name, APPEND, rows()?).await;
        expect(more == Ok(5), &more)?;
        let sum = number(&engine, "SELECT sum(n) FROM \"Odd \"\"name\"\"; DROP\"").await?;
        expect(sum == 20, sum)?;
        let replaced = ingest(&url, name, REPLACE, vec![numbers("m", 7..8)?]).await;
        expect(replaced == Ok(1), &replaced)?;
        let sum = number(&engine, "SELECT sum(m) FROM \"Odd \"\"name\"\"; DROP\"").await?;
        expect(sum == 7, sum)?;
        // A call is one INSERT: when its last batch does not fit, nothing of it is there.
        run(&engine, "CREATE STREAM small (n SMALLINT)").await?;
        let text = |t: &str| -> Result<RecordBatch, Failed> {
            let column: ArrayRef = Arc::new(StringArray::from(vec![t]));
            Ok(RecordBatch::try_from_iter([("n", column)])?)
        };
        let wrong = ingest(&url, "small", APPEND, vec![text("1")?, text("x")?]).await;
        let words = "column \"n\" of stream \"small\" is SMALLINT";
        expect(wrong.as_ref().is_err_and(|e| e.contains(words)), &wrong)?;
        let none = number(&engine, "SELECT count(*) FROM small").await?;
        expect(none == 0, none)
    })
}

fn from_python() -> Result<(), Failed> {
    let python = python()?;
    with_server(|engine, url| async move {
        let url = url.replace("http://", "grpc://");
        let script = move || Command::new(python).args(["tests/clients/ingest.py", &url]).output();
        let done = tokio::task::spawn_blocking(script).await??;
        expect(done.status.success(), String::from_utf8_lossy(&done.stderr))?;
        let made = number(&engine, "SELECT count(*) FROM made").await?;
        expect(made == 16, made)?;
        let replaced = number(&engine, "SELECT sum(n) FROM replaced").await?;
        expect(replaced == 5, replaced)
    })
}

/// The real program as a server, and where it is.
fn serve(home: &Home) -> Result<(Running, String), Failed> {
    let mut command = home.command()?;
    command.arg("serve").arg("--data-dir").arg(home.data());
    command.args(["--flight", "127.0.0.1:0", "--tail-rows", "300"]);
    let mut running = Running::start(command)?;
    running.until_lines(1)?;
    let out = running.out();
    let address = out.trim().rsplit("grpc://").next().unwrap_or_default();
    Ok((running, format!("http://{address}")))
}

/// Producers write while the server is killed; each sends again what was not acknowledged, and now and then more than that.
fn killed() -> Result<(), Failed> {
    const PRODUCERS: usize = 3;
    let home = Home::new()?;
    home.ok("CREATE STREAM s (n BIGINT, p BIGINT);")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut acked = [0_u64; PRODUCERS];
    for round in 0..rounds(12) as u64 {
        let (mut running, url) = serve(&home)?;
        let heard: [Arc<AtomicU64>; PRODUCERS] = Default::default();
        let work: Vec<_> = (0..PRODUCERS)
            .map(|p| {
                let heard = Arc::clone(&heard[p]);
                runtime.spawn(produce(url.clone(), p, acked[p], round, heard))
            })
            .collect();
        // Every moment must do; in the first round each producer has something acknowledged.
        let least = (1 + round * 53) % 300;
        running.wait_until("acknowledgements", || {
            Ok(heard.iter().all(|heard| heard.load(Ordering::Relaxed) >= least))
        })?;
        running.kill()?;
        for (acked, work) in acked.iter_mut().zip(work) {
            *acked = runtime.block_on(work)??.max(*acked);
        }
    }
    let rows = home.tables("", &["SELECT p, n, count(*) FROM s GROUP BY p, n ORDER BY p, n"])?;
    let mut found: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for row in rows.iter().flatten() {
        let parts: Vec<u64> = row.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let [p, n, 1] = parts[..] else { return Err(format!("not once: {row}").into()) };
        found.entry(usize::try_from(p)?).or_default().push(n);
    }
    for (p, acked) in acked.into_iter().enumerate() {
        let mut rows = found.remove(&p).unwrap_or_default();
        rows.sort_unstable();
        let all: Vec<u64> = (0..rows.len() as u64).collect();
        expect(rows == all, format!("producer {p} has holes"))?;
        // A batch has ten rows; one may be there and not acknowledged, with those that waited behind it.
        expect(
            rows.len().is_multiple_of(10) && rows.len() as u64 >= acked * 10,
            (p, acked, rows.len()),
        )?;
    }
    expect(acked.iter().all(|acked| *acked > 0), acked)
}

/// Sends batches behind the `acked` ones until the server is gone; how many are acknowledged then.
async fn produce(
    url: String,
    p: usize,
    acked: u64,
    round: u64,
    heard: Arc<AtomicU64>,
) -> Result<u64, Failed> {
    let first = (acked + 1).saturating_sub(round % 3).max(1);
    let batches = (first..first + 2_000).map(|sequence| {
        let from = (sequence as i64 - 1) * 10;
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 10));
        let p: ArrayRef = Arc::new(Int64Array::from(vec![p as i64; 10]));
        RecordBatch::try_from_iter([("n", n), ("p", p)]).map(|rows| (rows, sequence))
    });
    let batches: Vec<_> = batches.collect::<Result<_, _>>()?;
    let name = format!("producer {p}");
    let batches = batches.into_iter().map(|(rows, sequence)| (rows, said(&name, sequence)));
    let sent = messages(&["s"], batches.collect()).await?;
    // The server may be gone before anybody reaches it.
    let Ok((told, _error)) = answers_counted(&url, sent, &heard).await else { return Ok(acked) };
    let repeated = told.iter().take_while(|t| t.contains("\"repeated\":true")).count() as u64;
    expect(repeated >= (acked + 1 - first).min(told.len() as u64), "an acknowledged batch is new")?;
    Ok((first - 1 + told.len() as u64).max(acked))
}
