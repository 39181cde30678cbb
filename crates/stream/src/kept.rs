//! Rows that were not used, kept for looking at: `windrow.late_rows` and `windrow.bad_rows`.
//!
//! All of them are counted; up to `kept_rows_max` are kept, the first ones.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use windrow_core::{BadRow, PartitionId};

use windrow_storage::checkpoint::{SavedBad, SavedLate};

/// The query of rows that are bad for all.
const FOR_ALL: (&str, u64) = ("", 0);

/// A bad row, by stream, partition and offset: reading a stream again does not double it.
#[derive(Debug)]
pub struct BadRows {
    rows_max: usize,
    rows: Mutex<KeptBad>,
}

#[derive(Debug, Default)]
struct KeptBad {
    rows: BTreeMap<BadPlace, Bad>,
    /// How many have been offered so far.
    count: u64,
}

/// Where a bad row stands: stream, partition, offset, and the number of the query that it is bad for, 0 where it is for all.
pub(crate) type BadPlace = (String, PartitionId, u64, u64);

/// What is kept of a bad row.
#[derive(Debug, Clone)]
pub struct Bad {
    /// The name of its partition.
    pub partition_name: String,
    /// The view that it is bad for: an expression of it fails on the row.
    pub query: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// The row as it came, or as JSON.
    pub raw: String,
    /// Which one of all that were offered it was, from 1; 0: a checkpoint had it before a restart.
    number: u64,
}

impl BadRows {
    /// None are kept yet; up to `rows_max` will be.
    pub fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: Mutex::default() }
    }

    /// Keeps bad rows of one partition.
    pub fn keep(&self, stream: &str, partition: (PartitionId, &str), bad: &[BadRow]) {
        self.keep_skipped(FOR_ALL, stream, partition, bad);
    }

    /// Keeps rows that an expression of the query fails on.
    pub fn keep_skipped(
        &self,
        query: (&str, u64),
        stream: &str,
        partition: (PartitionId, &str),
        bad: &[BadRow],
    ) {
        if bad.is_empty() {
            return;
        }
        let mut kept = self.rows.lock();
        for row in bad {
            let number = kept.count + 1;
            self.insert(&mut kept, (stream, query), partition, (row, number));
            kept.count = number;
        }
    }

    /// Shows a bad row of before a restart again.
    pub fn restore(&self, query: (&str, u64), saved: &SavedBad, partition: PartitionId) {
        let SavedBad { stream, partition: name, offset, reason, raw, skipped } = saved;
        let row = BadRow { offset: *offset, reason: reason.clone(), raw: raw.clone() };
        let query = if *skipped { query } else { FOR_ALL };
        self.insert(&mut self.rows.lock(), (stream, query), (partition, name), (&row, 0));
    }

    /// Keeps a row, if there is room and it is not there.
    fn insert(
        &self,
        kept: &mut KeptBad,
        (stream, query): (&str, (&str, u64)),
        (partition, name): (PartitionId, &str),
        (row, number): (&BadRow, u64),
    ) {
        if kept.rows.len() >= self.rows_max {
            return;
        }
        let place = kept.rows.entry((stream.to_owned(), partition, row.offset, query.1));
        place.or_insert_with(|| {
            let (reason, raw) = (row.reason.clone(), row.raw.clone());
            let query = (query.1 != FOR_ALL.1).then(|| query.0.to_owned());
            Bad { partition_name: name.to_owned(), query, reason, raw, number }
        });
    }

    /// Those of a query and its streams that were offered after the first `count`, and how many have been now.
    pub fn after(&self, count: u64, streams: &[&str], query_id: u64) -> (Vec<SavedBad>, u64) {
        let kept = self.rows.lock();
        let new = kept.rows.iter().filter(|((stream, _, _, query), bad)| {
            let ours = [FOR_ALL.1, query_id].contains(query);
            ours && bad.number > count && streams.contains(&stream.as_str())
        });
        let saved = new.map(|((stream, _, offset, query), bad)| SavedBad {
            skipped: *query != FOR_ALL.1,
            stream: stream.clone(),
            partition: bad.partition_name.clone(),
            offset: *offset,
            reason: bad.reason.clone(),
            raw: bad.raw.clone(),
        });
        (saved.collect(), kept.count)
    }

    /// Forgets the rows of a dropped stream.
    pub fn forget(&self, stream: &str) {
        self.rows.lock().rows.retain(|(name, ..), _| name != stream);
    }

    /// Where the kept rows stand that an expression of one query failed on.
    pub fn places(&self, query_id: u64) -> Vec<(String, PartitionId, u64)> {
        let kept = self.rows.lock();
        let of_query = kept.rows.keys().filter(|(.., query)| *query == query_id);
        of_query
            .map(|(stream, partition, offset, _)| (stream.clone(), *partition, *offset))
            .collect()
    }

    /// All kept rows, by stream, partition and offset.
    pub fn all(&self) -> Vec<(BadPlace, Bad)> {
        self.rows.lock().rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// A late row: by the watermark of its own partition all its windows had closed.
#[derive(Debug, Clone)]
pub struct Late {
    /// The name of the query for which it was late.
    pub query: String,
    /// The query's number: names are given again.
    pub query_id: u64,
    /// Where it was read.
    pub stream: String,
    /// The partition of the stream.
    pub partition: PartitionId,
    /// The name of that partition.
    pub partition_name: String,
    /// Its offset in the partition.
    pub offset: u64,
    /// In µs since the epoch.
    pub event_time_micros: i64,
    /// The partition's watermark just before the row, in µs.
    pub watermark_micros: Option<i64>,
    /// The row as JSON, as far as the query read it.
    pub row: String,
    /// A checkpoint has it.
    pub saved: bool,
}

impl From<Late> for SavedLate {
    fn from(late: Late) -> Self {
        Self {
            stream: late.stream,
            partition: late.partition_name,
            offset: late.offset,
            event_time_micros: late.event_time_micros,
            watermark_micros: late.watermark_micros,
            row: late.row,
        }
    }
}

/// The late rows that are kept.
#[derive(Debug)]
pub struct LateRows {
    rows_max: usize,
    rows: Mutex<Vec<Late>>,
}

impl LateRows {
    /// None are kept yet; up to `rows_max` will be.
    pub fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: Mutex::default() }
    }

    /// How many more will be kept.
    pub fn room(&self) -> usize {
        self.rows_max.saturating_sub(self.rows.lock().len())
    }

    /// Keeps those for which there is room.
    pub fn keep(&self, late: Vec<Late>) {
        let mut rows = self.rows.lock();
        let room = self.rows_max.saturating_sub(rows.len());
        rows.extend(late.into_iter().take(room));
    }

    /// Those of one query that no checkpoint has yet; they count as saved now.
    pub fn take_unsaved(&self, query_id: u64) -> Vec<Late> {
        let mut rows = self.rows.lock();
        let unsaved = rows.iter_mut().filter(|l| l.query_id == query_id && !l.saved);
        let taken = unsaved.map(|late| {
            late.saved = true;
            late.clone()
        });
        taken.collect()
    }

    /// All that are kept, in the order in which they came.
    pub fn all(&self) -> Vec<Late> {
        self.rows.lock().clone()
    }

    /// Where the kept late rows of one query stand: stream, partition, offset.
    pub fn places(&self, query_id: u64) -> Vec<(String, PartitionId, u64)> {
        let rows = self.rows.lock();
        let of_query = rows.iter().filter(|late| late.query_id == query_id);
        of_query.map(|late| (late.stream.clone(), late.partition, late.offset)).collect()
    }
}
