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
const ROWS: i64 = 8_000;
/// INSERTs: those at first, until all that is made once is there; then, of 80 MB each, without the slow subscriber and with him. That
/// is far more than windows and queues of a connection hold.
const FIRST: i64 = 6;
const PART: i64 = 10;
/// What the server may take more in the last part than in the one before.
const MORE_MAX: u64 = 40 << 20;

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

/// Some INSERTs, until the view has their rows.
async fn insert(client: &mut Client, inserts: std::ops::Range<i64>) -> Result<(), Failed> {
    for first in inserts.map(|insert| insert * ROWS) {
        let sql = format!(
            "INSERT INTO s SELECT {first} + x, repeat('x', 1000), TIMESTAMP '2026-01-01 00:00:00' FROM generate_series(1, {ROWS}) AS t(x)"
        );
        run(client, &[&sql]).await?;
    }
    run(client, &["WAIT FOR v"]).await.map(drop)
}

fn slow() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let serving = Serving::start(home.path(), &["--tail-rows", "2000", "--tail-bytes", "4MiB"])?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut client = serving.client().await?;
        let stream = "CREATE STREAM s (n BIGINT, text VARCHAR, ts TIMESTAMP, WATERMARK FOR ts)";
        let view = "CREATE MATERIALIZED VIEW v AS SELECT n, text, ts FROM s";
        run(&mut client, &[stream, view]).await?;
        let mut quick = serving.client().await?;
        let mut quick = Follower::of(&mut quick, "SUBSCRIBE TO v").await?;
        let all = (FIRST + 2 * PART) * ROWS;
        let reading = tokio::spawn(async move { read(&mut quick, 0, all).await });
        insert(&mut client, 0..FIRST).await?;
        let begin = serving.resident()?;
        insert(&mut client, FIRST..FIRST + PART).await?;
        let without = serving.resident()?;
        let (mut slow, behind) = (serving.client().await?, (FIRST + PART) * ROWS);
        let sql = format!("SUBSCRIBE TO v AFTER {behind}");
        let mut slow = Follower::of(&mut slow, &sql).await?;
        insert(&mut client, FIRST + PART..FIRST + 2 * PART).await?;
        let with = serving.resident()?;
        // The view has all, and the one who reads has all, while the other has read nothing.
        reading.await??;
        let ledger = "SELECT rows_in, balanced FROM windrow.ledger WHERE query = 'v'";
        let ledger = lines(&run(&mut client, &[ledger]).await?)?;
        assert_eq!(ledger, [format!("{all} true")]);
        let (usual, more) = (without.saturating_sub(begin), with.saturating_sub(without));
        assert!(more < usual + MORE_MAX, "{more} bytes more with him, {usual} without");
        read(&mut slow, behind, all).await
    })
}
