//! A subscriber that does not read: it slows nobody, takes no memory that grows, and has every row once when it reads at last.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::sql::client::FlightSqlServiceClient;
use libtest_mimic::{Failed, Trial};
use tonic::transport::Channel;

use crate::flight::serving::Serving;
use crate::flight::{Follower, lines, run};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("flight/a slow subscriber slows nobody and loses nothing", slow)]
}

type Client = FlightSqlServiceClient<Channel>;

/// Rows of about a kilobyte in one INSERT.
const ROWS: i64 = 1_000;
/// INSERTs without the slow subscriber (240 MB), until the server has taken what it takes at the most, and with him: 480 MB, far more
/// than windows and queues of a connection hold.
const WITHOUT: i64 = 150;
const WITH: i64 = 400;
/// What the server may take more with him. What it takes at the most is another 100 MB each time: archives are
/// written or not.
const MORE_MAX: u64 = 240 << 20;

/// Reads rows until `last` has come; they are those behind `sequence`, in order and each once.
async fn read(result: &mut Follower, mut sequence: i64, last: i64) -> Result<(), Failed> {
    while sequence < last {
        let Some(rows) = result.told().await?.rows else { continue };
        for n in rows.column(0).as_primitive::<Int64Type>().values() {
            sequence += 1;
            if *n != sequence {
                return Err(format!("row {n} instead of {sequence}").into());
            }
        }
    }
    Ok(())
}

/// Some INSERTs, until the view has their rows. Returns how much memory the server had at the most.
async fn insert(
    client: &mut Client,
    serving: &Serving,
    inserts: std::ops::Range<i64>,
) -> Result<u64, Failed> {
    let mut most = 0;
    for first in inserts.map(|insert| insert * ROWS) {
        let sql = format!(
            "INSERT INTO s SELECT {first} + x, repeat('x', 1000), TIMESTAMP '2026-01-01 00:00:00' FROM generate_series(1, {ROWS}) AS t(x)"
        );
        run(client, &[&sql]).await?;
        most = most.max(serving.resident()?);
    }
    run(client, &["WAIT FOR v"]).await?;
    Ok(most)
}

fn slow() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let serving = Serving::start(home.path(), &["--tail-rows", "1000", "--tail-bytes", "1MiB"])?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut client = serving.client().await?;
        let stream = "CREATE STREAM s (n BIGINT, text VARCHAR, ts TIMESTAMP, WATERMARK FOR ts)";
        let view = "CREATE MATERIALIZED VIEW v AS SELECT n, text, ts FROM s";
        run(&mut client, &[stream, view]).await?;
        let mut quick = serving.client().await?;
        let mut quick = Follower::of(&mut quick, "SUBSCRIBE TO v").await?;
        let (behind, all) = (WITHOUT * ROWS, (WITHOUT + WITH) * ROWS);
        let reading = tokio::spawn(async move { read(&mut quick, 0, all).await });
        let without = insert(&mut client, &serving, 0..WITHOUT).await?;
        let mut slow = serving.client().await?;
        let sql = format!("SUBSCRIBE TO v AFTER {behind}");
        let mut slow = Follower::of(&mut slow, &sql).await?;
        let with = insert(&mut client, &serving, WITHOUT..WITHOUT + WITH).await?;
        // The view has all, and the one who reads has all, while the other has read nothing.
        reading.await??;
        let ledger = "SELECT rows_in, balanced FROM windrow.ledger WHERE query = 'v'";
        let ledger = lines(&run(&mut client, &[ledger]).await?)?;
        assert_eq!(ledger, [format!("{all} true")]);
        println!("MEM {} {}", without >> 20, with >> 20);
        assert!(with < without + MORE_MAX, "{with} bytes with him, {without} without");
        read(&mut slow, behind, all).await
    })
}
