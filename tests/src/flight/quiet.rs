//! Continuous results without rows: they report their position at intervals, so that both sides notice a broken
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use libtest_mimic::{Failed, Trial};
use windrow_core::{Clock, ManualClock};
use windrow_engine::EngineConfig;

use crate::flight::{Follower, Served, Told, run, until};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("flight/a quiet subscription tells its position", || quiet("SUBSCRIBE TO v")),
        trial("flight/a quiet query tells its position", || {
            quiet(
                "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') \
                 GROUP BY window_start, window_end EMIT FINAL",
            )
        }),
    ]
}

/// As the documentation has it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A clock that the test moves. It counts who has begun to wait for a heartbeat: moved before that, nobody would wake.
#[derive(Debug, Clone)]
struct Counting {
    clock: ManualClock,
    waits: Arc<AtomicUsize>,
}

impl Clock for Counting {
    fn now_micros(&self) -> i64 {
        self.clock.now_micros()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let sleep = self.clock.sleep(duration);
        if duration == HEARTBEAT {
            self.waits.fetch_add(1, Ordering::SeqCst);
        }
        sleep
    }
}

impl Counting {
    async fn waits(&self, times: usize) -> Result<(), Failed> {
        let what = format!("the result has waited {times} times");
        until(&what, async || Ok(self.waits.load(Ordering::SeqCst) == times)).await
    }
}

fn count(told: &Told) -> usize {
    told.rows.as_ref().map_or(0, RecordBatch::num_rows)
}

fn quiet(sql: &str) -> Result<(), Failed> {
    let clock = ManualClock::at(1_769_904_000_000_000);
    let clock = Counting { clock, waits: Arc::default() };
    let config = EngineConfig { clock: Some(Arc::new(clock.clone())), ..EngineConfig::default() };
    let served = Served::with(config)?;
    served.runtime.block_on(async {
        let (mut client, mut other) = (served.client().await?, served.client().await?);
        let stream = "CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)";
        let view = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS n \
                    FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end";
        run(&mut other, &[stream, view]).await?;
        let mut result = Follower::of(&mut client, sql).await?;
        let columns = result.told().await?;
        assert!(columns.rows.is_none() && columns.sequence == 0, "{columns:?}");
        clock.waits(1).await?;
        // Not yet: the first thing that comes is the row.
        clock.clock.advance(HEARTBEAT - Duration::from_millis(1));
        let insert = "INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:30'), \
                      (2, TIMESTAMP '2026-01-01 00:01:30')";
        run(&mut other, &[insert]).await?;
        let row = result.told().await?;
        assert_eq!((count(&row), row.sequence), (1, 1), "{row:?}");
        // The time begins anew with each batch.
        // The watermark may be told after the row that it let out.
        let known = "\"watermark\":\"2026-01-01T00:01:30\",\"window_start\":null";
        let (mut beats, mut is_known) = (0, false);
        while beats < 2 || !is_known {
            clock.waits(2 + beats).await?;
            clock.clock.advance(HEARTBEAT);
            let beat = result.told().await?;
            assert_eq!((count(&beat), beat.sequence), (0, 1), "{beat:?}");
            assert!(beat.rows.is_some_and(|rows| rows.num_columns() == 3), "no batch");
            is_known = beat.beside.contains(known);
            assert!(is_known || beat.beside.contains("\"watermark\":null"), "{}", beat.beside);
            beats += 1;
            assert!(beats < 1_000, "{}", beat.beside);
        }
        Ok(())
    })
}
