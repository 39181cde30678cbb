//! A subscriber that does not read: it slows no other, takes no growing memory, and gets every row once when it reads
//! at last.

use std::time::Duration;

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
/// INSERTs without the slow subscriber, and with him: 300 MB, far more than windows and queues of a connection hold.
const WITHOUT: i64 = 100;
const WITH: i64 = 300;
/// What the server may hold more with him.
const MORE_MAX: u64 = 150 << 20;
/// So long what is not held any more may take to go back to the system.
const SETTLES: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

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
        insert(&mut client, 0..WITHOUT).await?;
        let without = serving.resident()?;
        let mut slow = serving.client().await?;
        let sql = format!("SUBSCRIBE TO v AFTER {behind}");
        let mut slow = Follower::of(&mut slow, &sql).await?;
        insert(&mut client, WITHOUT..WITHOUT + WITH).await?;
        // The view has all, and the one who reads has all, while the other has read nothing.
        reading.await??;
        let ledger = "SELECT rows_in, balanced FROM windrow.ledger WHERE query = 'v'";
        let ledger = lines(&run(&mut client, &[ledger]).await?)?;
        assert_eq!(ledger, [format!("{all} true")]);
        // What is held for him stays; what writing and merging files takes goes.
        let mut waited = Duration::ZERO;
        while serving.resident()? > without + MORE_MAX {
            if waited > SETTLES {
                let with = serving.resident()?;
                return Err(format!("{with} bytes with him, {without} without").into());
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
        read(&mut slow, behind, all).await
    })
}
