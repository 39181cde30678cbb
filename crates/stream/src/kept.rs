//! Late and bad rows retained for inspection: `windrow.late_rows` and `windrow.bad_rows`.
//!
//! All are counted; the first `kept_rows_max` of each are retained.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use windrow_core::{BadRow, PartitionId};

use windrow_storage::checkpoint::{SavedBad, SavedLate};

/// In place of a query's name and id: the row is bad for all queries.
const FOR_ALL: (&str, u64) = ("", 0);

/// The retained bad rows, by stream, partition and offset, so that reading a stream again does not store a row twice.
#[derive(Debug)]
pub struct BadRows {
    rows_max: usize,
    rows: Mutex<KeptBad>,
}

#[derive(Debug, Default)]
struct KeptBad {
    rows: BTreeMap<BadPlace, Bad>,
    /// The number of rows offered so far, retained or not.
    count: u64,
}

/// The key of a bad row: stream, partition, offset, and the id of the query for which it is bad; 0: for all.
pub(crate) type BadPlace = (String, PartitionId, u64, u64);

/// A retained bad row.
#[derive(Debug, Clone)]
pub struct Bad {
    /// The name of its partition.
    pub partition_name: String,
    /// The view for which it is bad, because one of its expressions fails on the row; `None`: it is bad for all.
    pub query: Option<String>,
    /// The reason why it is bad.
    pub reason: String,
    /// The row as it was read, or as JSON.
    pub raw: String,
    /// Its number among all rows offered, from 1; 0: it was restored from a checkpoint.
    number: u64,
}

impl BadRows {
    /// Returns an empty store for up to `rows_max` rows.
    pub fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: Mutex::default() }
    }

    /// Offers rows of one partition that are bad for all queries.
    pub fn keep(&self, stream: &str, partition: (PartitionId, &str), bad: &[BadRow]) {
        self.keep_skipped(FOR_ALL, stream, partition, bad);
    }

    /// Offers rows of one partition that are bad for the query (name, id) because one of its expressions fails on them.
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

    /// Restores a bad row from a checkpoint.
    pub fn restore(&self, query: (&str, u64), saved: &SavedBad, partition: PartitionId) {
        let SavedBad { stream, partition: name, offset, reason, raw, skipped } = saved;
        let row = BadRow { offset: *offset, reason: reason.clone(), raw: raw.clone() };
        let query = if *skipped { query } else { FOR_ALL };
        self.insert(&mut self.rows.lock(), (stream, query), (partition, name), (&row, 0));
    }

    /// Retains a row, if there is room and it is not retained already.
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

    /// Returns the rows that are bad for the query, or for all and from one of `streams`, and were offered after the
    /// first `count`; and the number of rows offered until now.
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

    /// Removes the rows of a dropped stream.
    pub fn forget(&self, stream: &str) {
        self.rows.lock().rows.retain(|(name, ..), _| name != stream);
    }

    /// The places (stream, partition, offset) of the retained rows that are bad for this query only.
    pub fn places(&self, query_id: u64) -> Vec<(String, PartitionId, u64)> {
        let kept = self.rows.lock();
        let of_query = kept.rows.keys().filter(|(.., query)| *query == query_id);
        of_query
            .map(|(stream, partition, offset, _)| (stream.clone(), *partition, *offset))
            .collect()
    }

    /// All retained rows, in the order of stream, partition and offset.
    pub fn all(&self) -> Vec<(BadPlace, Bad)> {
        self.rows.lock().rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// A late row: by the watermark of its own partition, all its windows had closed.
#[derive(Debug, Clone)]
pub struct Late {
    /// The name of the query for which it was late.
    pub query: String,
    /// The id of that query: names are reused.
    pub query_id: u64,
    /// The stream that it was read from.
    pub stream: String,
    /// The partition of the stream.
    pub partition: PartitionId,
    /// The name of that partition.
    pub partition_name: String,
    /// Its offset in the partition.
    pub offset: u64,
    /// Its event time, in µs since the Unix epoch.
    pub event_time_micros: i64,
    /// The partition's watermark just before the row, in µs since the Unix epoch.
    pub watermark_micros: Option<i64>,
    /// The row as JSON, with the columns that the query reads.
    pub row: String,
    /// Whether a checkpoint has it.
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

/// The retained late rows.
#[derive(Debug)]
pub struct LateRows {
    rows_max: usize,
    rows: Mutex<Vec<Late>>,
}

impl LateRows {
    /// Returns an empty store for up to `rows_max` rows.
    pub fn new(rows_max: usize) -> Self {
        Self { rows_max, rows: Mutex::default() }
    }

    /// The number of further rows that will be retained.
    pub fn room(&self) -> usize {
        self.rows_max.saturating_sub(self.rows.lock().len())
    }

    /// Retains as many of these rows as there is room for.
    pub fn keep(&self, late: Vec<Late>) {
        let mut rows = self.rows.lock();
        let room = self.rows_max.saturating_sub(rows.len());
        rows.extend(late.into_iter().take(room));
    }

    /// Returns the rows of one query that no checkpoint has yet, and marks them as saved.
    pub fn take_unsaved(&self, query_id: u64) -> Vec<Late> {
        let mut rows = self.rows.lock();
        let unsaved = rows.iter_mut().filter(|l| l.query_id == query_id && !l.saved);
        let taken = unsaved.map(|late| {
            late.saved = true;
            late.clone()
        });
        taken.collect()
    }

    /// All retained rows, in the order in which they arrived.
    pub fn all(&self) -> Vec<Late> {
        self.rows.lock().clone()
    }

    /// The places (stream, partition, offset) of the retained late rows of one query.
    pub fn places(&self, query_id: u64) -> Vec<(String, PartitionId, u64)> {
        let rows = self.rows.lock();
        let of_query = rows.iter().filter(|late| late.query_id == query_id);
        of_query.map(|late| (late.stream.clone(), late.partition, late.offset)).collect()
    }
}
