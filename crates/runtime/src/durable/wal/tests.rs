//! The log against what crashes and disks do to it.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use windrow_core::{ErrorKind, Result};

use super::{Durability, Recovered, Wal, WalOptions};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(from..to);
    RecordBatch::try_new(schema(), vec![Arc::new(numbers)]).unwrap()
}

fn numbers<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Vec<i64> {
    let column = |b: &RecordBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec();
    batches.into_iter().flat_map(column).collect()
}

type Seen = Arc<Mutex<Vec<(u64, RecordBatch)>>>;

struct Log {
    dir: tempfile::TempDir,
    options: WalOptions,
}

impl Log {
    fn new(segment_bytes_max: u64) -> Self {
        let options = WalOptions { durability: Durability::Os, segment_bytes_max };
        Self { dir: tempfile::tempdir().unwrap(), options }
    }

    fn open(&self, from: u64) -> Result<(Wal, Recovered, Seen)> {
        let seen = Seen::default();
        let sink = Arc::clone(&seen);
        let applied = Box::new(move |first, batch| sink.lock().push((first, batch)));
        let (wal, recovered) = Wal::open(self.dir.path(), &schema(), from, self.options, applied)?;
        Ok((wal, recovered, seen))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The rows that a start finds.
    fn recovered(&self) -> Result<(Vec<i64>, Recovered)> {
        let (_, recovered, _) = self.open(0)?;
        Ok((numbers(recovered.batches.iter().map(|(_, b)| b)), recovered))
    }
}

#[test]
fn rows_come_back_in_order_over_segments() {
    let log = Log::new(2_000);
    for round in 0..3 {
        let (wal, recovered, seen) = log.open(0).unwrap();
        assert_eq!(recovered.end, round * 30);
        for n in 0..10 {
            let from = i64::try_from(round * 30 + n * 3).unwrap();
            assert_eq!(wal.append_blocking(rows(from, from + 3)).unwrap(), round * 30 + n * 3);
        }
        assert_eq!(seen.lock().len(), 10, "acknowledged means given to the stream's log");
    }
    let (all, recovered) = log.recovered().unwrap();
    assert_eq!(all, (0..90).collect::<Vec<_>>());
    assert!(recovered.cut.is_none());
    assert!(log.files().len() > 2);
    // From the middle of a batch on.
    let (_, recovered, _) = log.open(31).unwrap();
    assert_eq!(recovered.batches[0].0, 31);
    assert_eq!(numbers(recovered.batches.iter().map(|(_, b)| b)), (31..90).collect::<Vec<_>>());
}

#[test]
fn who_comes_together_is_written_together_and_in_one_order() {
    let log = Log::new(1 << 20);
    let (wal, _, seen) = log.open(0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let wal = &wal;
            scope.spawn(move || {
                for n in 0..50 {
                    let id = thread * 1_000 + n;
                    wal.append_blocking(rows(id, id + 1)).unwrap();
                }
            });
        }
    });
    drop(wal);
    let applied = numbers(seen.lock().iter().map(|(_, b)| b));
    let (mut all, _) = log.recovered().unwrap();
    assert_eq!(all, applied);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 400);
}

#[test]
fn a_tail_that_ends_at_any_byte_loses_only_its_record() {
    let log = Log::new(1 << 20);
    let (wal, _, _) = log.open(0).unwrap();
    wal.append_blocking(rows(0, 5)).unwrap();
    let before = std::fs::metadata(&log.files()[0]).unwrap().len();
    wal.append_blocking(rows(5, 9)).unwrap();
    drop(wal);
    let file = log.files().remove(0);
    let whole = std::fs::read(&file).unwrap();
    for len in usize::try_from(before).unwrap()..whole.len() {
        std::fs::write(&file, &whole[..len]).unwrap();
        let (all, recovered) = log.recovered().unwrap();
        assert_eq!(all, (0..5).collect::<Vec<_>>(), "{len} bytes");
        assert_eq!(recovered.cut.is_some(), len as u64 > before);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), before);
        // What comes next goes where the tail was.
        let (wal, _, _) = log.open(0).unwrap();
        wal.append_blocking(rows(5, 6)).unwrap();
        drop(wal);
        assert_eq!(log.recovered().unwrap().0, (0..6).collect::<Vec<_>>());
    }
    // A segment that was begun and no more.
    for len in 0..20 {
        std::fs::write(&file, &whole[..len]).unwrap();
        assert_eq!(log.recovered().unwrap().0, Vec::<i64>::new());
    }
}

#[test]
fn zeros_at_the_end_are_a_torn_tail() {
    let log = Log::new(1 << 20);
    let (wal, _, _) = log.open(0).unwrap();
    wal.append_blocking(rows(0, 5)).unwrap();
    drop(wal);
    let file = log.files().remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend([0; 777]);
    std::fs::write(&file, &bytes).unwrap();
    let (all, recovered) = log.recovered().unwrap();
    assert_eq!(all, (0..5).collect::<Vec<_>>());
    assert_eq!(recovered.cut.unwrap().bytes, 777);
}

#[test]
fn a_flipped_byte_is_refused_and_nothing_is_overwritten() {
    let log = Log::new(1 << 20);
    let (wal, _, _) = log.open(0).unwrap();
    for n in 0..3 {
        wal.append_blocking(rows(n * 2, n * 2 + 2)).unwrap();
    }
    drop(wal);
    let file = log.files().remove(0);
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        match log.recovered() {
            // Only the mark behind a payload, which nothing hangs on.
            Ok((all, recovered)) => {
                assert_eq!(all, (0..6).collect::<Vec<_>>(), "byte {at}");
                assert!(recovered.cut.is_none(), "byte {at}");
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Data), "{error}");
                assert!(error.message().contains(".wal"), "{error}");
                assert_eq!(std::fs::read(&file).unwrap(), bytes, "byte {at}");
            }
        }
    }
}

#[test]
fn a_missing_segment_is_missed() {
    let log = Log::new(1_000);
    let (wal, _, _) = log.open(0).unwrap();
    for n in 0..9 {
        wal.append_blocking(rows(n, n + 1)).unwrap();
    }
    drop(wal);
    let files = log.files();
    assert!(files.len() > 2);
    std::fs::remove_file(&files[1]).unwrap();
    assert_eq!(log.recovered().unwrap_err().kind(), ErrorKind::Corrupt);
    let log = Log::new(1_000);
    let (wal, _, _) = log.open(0).unwrap();
    for n in 0..9 {
        wal.append_blocking(rows(n, n + 1)).unwrap();
    }
    drop(wal);
    std::fs::remove_file(&log.files()[0]).unwrap();
    assert_eq!(log.recovered().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn what_is_archived_is_let_go() {
    let log = Log::new(1_000);
    let (wal, _, _) = log.open(0).unwrap();
    for n in 0..20 {
        wal.append_blocking(rows(n, n + 1)).unwrap();
    }
    let before = log.files().len();
    wal.delete_below(15).unwrap();
    assert!(log.files().len() < before);
    drop(wal);
    let (wal, recovered, _) = log.open(15).unwrap();
    assert_eq!(numbers(recovered.batches.iter().map(|(_, b)| b)), (15..20).collect::<Vec<_>>());
    assert_eq!(wal.append_blocking(rows(20, 21)).unwrap(), 20);
    drop(wal);
    // The archive has more than the log: the log begins anew behind it.
    let (wal, recovered, _) = log.open(40).unwrap();
    assert!(recovered.batches.is_empty());
    assert_eq!(wal.append_blocking(rows(40, 41)).unwrap(), 40);
    drop(wal);
    let (_, recovered, _) = log.open(40).unwrap();
    assert_eq!(numbers(recovered.batches.iter().map(|(_, b)| b)), [40]);
}

#[test]
fn other_columns_are_refused() {
    let log = Log::new(1_000);
    drop(log.open(0).map(|(wal, _, _)| wal.append_blocking(rows(0, 1)).unwrap()).unwrap());
    let other = Arc::new(Schema::new(vec![Field::new("m", DataType::Utf8, true)]));
    let opened = Wal::open(log.dir.path(), &other, 0, log.options, Box::new(|_, _| {}));
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Data);
}
