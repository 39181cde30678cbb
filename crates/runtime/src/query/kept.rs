//! Rows that were not used, kept for looking at: `windrow.late_rows` and `windrow.bad_rows`.
//!
//! All of them are counted; up to `kept_rows_max` are kept, the first ones.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use windrow_core::{BadRow, PartitionId};

use crate::query::cut::SavedBad;

/// A bad row, by stream, partition and offset: reading a stream again does not double it.
#[derive(Debug)]
pub(crate) struct BadRows {
    rows_max: usize,
    rows: Mutex<KeptBad>,
}

#[derive(Debug, Default)]
struct KeptBad {
    rows: BTreeMap<(String, PartitionId, u64), Bad>,
    /// How many have been offered so far.
    count: u64,
}

/// What is kept of a bad row.
#[derive(Debug, Clone)]
pub(crate) struct Bad {
    pub(crate) partition_name: String,
    pub(crate) reason: String,
    pub(crate) raw: String,
    /// Which one of all that were offered it was, from 1; 0: a checkpoint had it before a restart.
    number: u64,
}

impl BadRows {
    pub(crate) fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: Mutex::default() }
    }

    /// Keeps bad rows of one partition.
    pub(crate) fn keep(&self, stream: &str, partition: (PartitionId, &str), bad: &[BadRow]) {
        let mut kept = self.rows.lock();
        for row in bad {
            let number = kept.count + 1;
            self.insert(&mut kept, stream, partition, (row, number));
            kept.count = number;
        }
    }

    /// Shows bad rows of before a restart again.
    pub(crate) fn restore(&self, stream: &str, partition: (PartitionId, &str), bad: &[BadRow]) {
        let mut kept = self.rows.lock();
        for row in bad {
            self.insert(&mut kept, stream, partition, (row, 0));
        }
    }

    /// Keeps a row, if there is room and it is not there.
    fn insert(
        &self,
        kept: &mut KeptBad,
        stream: &str,
        (partition, name): (PartitionId, &str),
        (row, number): (&BadRow, u64),
    ) {
        if kept.rows.len() >= self.rows_max {
            return;
        }
        let place = kept.rows.entry((stream.to_owned(), partition, row.offset));
        place.or_insert_with(|| {
            let (reason, raw) = (row.reason.clone(), row.raw.clone());
            Bad { partition_name: name.to_owned(), reason, raw, number }
        });
    }

    /// Those of some streams that were offered after the first `count`, and how many have been now.
    pub(crate) fn after(&self, count: u64, streams: &[&str]) -> (Vec<SavedBad>, u64) {
        let kept = self.rows.lock();
        let new = kept.rows.iter().filter(|((stream, _, _), bad)| {
            bad.number > count && streams.contains(&stream.as_str())
        });
        let saved = new.map(|((stream, _, offset), bad)| SavedBad {
            stream: stream.clone(),
            partition: bad.partition_name.clone(),
            offset: *offset,
            reason: bad.reason.clone(),
            raw: bad.raw.clone(),
        });
        (saved.collect(), kept.count)
    }

    /// Forgets the rows of a dropped stream.
    pub(crate) fn forget(&self, stream: &str) {
        self.rows.lock().rows.retain(|(name, _, _), _| name != stream);
    }

    /// All kept rows, by stream, partition and offset.
    pub(crate) fn all(&self) -> Vec<((String, PartitionId, u64), Bad)> {
        self.rows.lock().rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// A late row: by the watermark of its own partition all its windows had closed.
#[derive(Debug, Clone)]
pub(crate) struct Late {
    pub(crate) query: String,
    /// The query's number: names are given again.
    pub(crate) query_id: u64,
    pub(crate) stream: String,
    pub(crate) partition: PartitionId,
    pub(crate) partition_name: String,
    pub(crate) offset: u64,
    /// In µs since the epoch.
    pub(crate) event_time_micros: i64,
    /// The partition's watermark just before the row, in µs.
    pub(crate) watermark_micros: Option<i64>,
    /// The row as JSON, as far as the query read it.
    pub(crate) row: String,
    /// A checkpoint has it.
    pub(crate) saved: bool,
}

/// The late rows that are kept.
#[derive(Debug)]
pub(crate) struct LateRows {
    rows_max: usize,
    rows: Mutex<Vec<Late>>,
}

impl LateRows {
    pub(crate) fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: Mutex::default() }
    }

    /// How many more will be kept.
    pub(crate) fn room(&self) -> usize {
        self.rows_max.saturating_sub(self.rows.lock().len())
    }

    pub(crate) fn keep(&self, late: Vec<Late>) {
        let mut rows = self.rows.lock();
        let room = self.rows_max.saturating_sub(rows.len());
        rows.extend(late.into_iter().take(room));
    }

    /// Those of one query that no checkpoint has yet; they count as saved now.
    pub(crate) fn take_unsaved(&self, query_id: u64) -> Vec<Late> {
        let mut rows = self.rows.lock();
        let unsaved = rows.iter_mut().filter(|l| l.query_id == query_id && !l.saved);
        let taken = unsaved.map(|late| {
            late.saved = true;
            late.clone()
        });
        taken.collect()
    }

    pub(crate) fn all(&self) -> Vec<Late> {
        self.rows.lock().clone()
    }

    /// Where the kept late rows of one query stand: stream, partition, offset.
    pub(crate) fn places(&self, query_id: u64) -> Vec<(String, PartitionId, u64)> {
        let rows = self.rows.lock();
        let of_query = rows.iter().filter(|late| late.query_id == query_id);
        of_query.map(|late| (late.stream.clone(), late.partition, late.offset)).collect()
    }
}
