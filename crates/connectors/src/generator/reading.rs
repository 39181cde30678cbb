//! Reading generators in tests.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use windrow_core::{Limits, ManualClock, ScanRequest, Source};

use crate::env::ConnectorEnv;

pub(super) fn env(clock: &ManualClock) -> ConnectorEnv {
    ConnectorEnv {
        limits: Limits::default(),
        clock: Arc::new(clock.clone()),
        io: tokio::runtime::Handle::current(),
        files: crate::Files::anywhere(),
    }
}

pub(super) fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(super) fn scan(projection: &[usize], batch_rows_max: usize) -> ScanRequest {
    let projection = projection.to_vec();
    ScanRequest {
        projection,
        predicates: vec![],
        event_time: None,
        batch_rows_max,
        from: None,
        place: None,
        past: 0,
        until_now: false,
    }
}

/// Returns all rows of a bounded source as one batch, its splits read last to first; checks that the offsets tile.
pub(super) async fn read(source: &dyn Source, columns: &[usize], batch: usize) -> RecordBatch {
    let partitions = source.discover().await.unwrap();
    let mut pieces = vec![];
    for split in partitions.iter().flat_map(|p| &p.splits).rev() {
        let mut reader = source.open(split, &scan(columns, batch)).await.unwrap();
        let mut rows = 0;
        while let Some(piece) = reader.next().await.unwrap() {
            assert!(piece.rows.num_rows() <= batch);
            rows += piece.rows.num_rows() as u64;
            pieces.push((piece.offsets.start(), piece.offsets.end(), piece.rows));
        }
        assert_eq!(split.rows, Some(rows));
    }
    pieces.sort_by_key(|(start, _, _)| *start);
    let mut next = 0;
    for (start, end, rows) in &pieces {
        assert_eq!((*start, *end), (next, next + rows.num_rows() as u64));
        next = *end;
    }
    let schema = Arc::new(source.schema().project(columns).unwrap());
    arrow::compute::concat_batches(&schema, pieces.iter().map(|(_, _, rows)| rows)).unwrap()
}
