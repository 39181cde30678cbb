//! What a log must preserve, whatever happens to its files.
//!
//! Rows are numbers that identify their append; a naive list of what was acknowledged is the truth. Layout: plain use,
//! damage, faults, crashes.

mod lost;
mod producers;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};

use super::*;
use crate::faults::FaultyFiles;
use crate::files::StdFiles;
use crate::trial::{Chance, seeds};

type Rows = Arc<Mutex<Vec<(u64, i64)>>>;

fn schema() -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
        Field::new("d", dictionary, true),
    ]))
}

fn batch(numbers: &[i64]) -> RecordBatch {
    let texts: StringArray =
        numbers.iter().map(|n| (n % 3 != 0).then(|| format!("t{n}"))).collect();
    let words: Vec<_> = numbers.iter().map(|n| format!("w{}", n / 2)).collect();
    let words: DictionaryArray<Int32Type> = words.iter().map(|w| Some(w.as_str())).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(numbers.to_vec())), Arc::new(texts), Arc::new(words)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    let numbers = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(*batch, self::batch(&numbers), "the other columns go with the number");
    numbers
}

fn rows(recovered: &Recovered) -> Vec<i64> {
    let mut end = recovered.first;
    for (first, batch) in &recovered.batches {
        assert_eq!(*first, end, "offsets tile");
        end += batch.num_rows() as u64;
    }
    assert_eq!(end, recovered.end);
    recovered.batches.iter().flat_map(|(_, b)| numbers(b)).collect()
}

fn options(segment_bytes_max: u64) -> WalOptions {
    WalOptions { segment_bytes_max, ..WalOptions::default() }
}

fn open_with(
    files: &FaultyFiles,
    from: u64,
    options: WalOptions,
) -> Result<(Wal, Recovered, Rows)> {
    let rows = Rows::default();
    let sink = Arc::clone(&rows);
    let applied: Applied = Box::new(move |first, batch| {
        sink.lock().extend((first..).zip(numbers(&batch)));
    });
    let files = Arc::new(files.clone());
    let (wal, recovered) = {
        let known = Known::default();
        Wal::open(files, Path::new("/w"), &schema(), (from, &known), (options, applied))?
    };
    Ok((wal, recovered, rows))
}

fn open(files: &FaultyFiles, from: u64) -> Result<(Wal, Recovered, Rows)> {
    open_with(files, from, WalOptions::default())
}

/// Returns the files of a log with the given appends in segments of `bytes`.
fn written(appends: &[&[i64]], bytes: u64) -> FaultyFiles {
    let files = FaultyFiles::default();
    let (wal, ..) = open_with(&files, 0, options(bytes)).unwrap();
    for numbers in appends {
        wal.append_blocking(batch(numbers)).unwrap();
    }
    drop(wal);
    files
}

fn segments(files: &FaultyFiles) -> Vec<PathBuf> {
    files.list(Path::new("/w")).unwrap().iter().map(|n| Path::new("/w").join(n)).collect()
}

fn overwrite(files: &FaultyFiles, path: &Path, bytes: &[u8]) {
    let mut file = files.append(path).unwrap();
    file.truncate(0).unwrap();
    file.write_all(bytes).unwrap();
    file.sync().unwrap();
}

#[test]
fn rows_come_back_from_disk() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("a/log");
    let open = |from| {
        let options: (WalOptions, Applied) = (WalOptions::default(), Box::new(|_, _| {}));
        Wal::open(Arc::new(StdFiles), &dir, &schema(), (from, &Known::default()), options)
    };
    let (wal, recovered) = open(0).unwrap();
    assert_eq!((recovered.end, recovered.batches.len()), (0, 0));
    assert_eq!(wal.append_blocking(batch(&[1, 2, 3])).unwrap(), 0);
    assert_eq!(wal.append_blocking(batch(&[])).unwrap(), 3);
    assert_eq!(wal.append_blocking(batch(&[9, 4, 5, 9]).slice(1, 2)).unwrap(), 3);
    assert_eq!(wal.end(), 5);
    drop(wal);
    let (wal, recovered) = open(0).unwrap();
    assert_eq!(rows(&recovered), [1, 2, 3, 4, 5]);
    assert_eq!(wal.append_blocking(batch(&[6])).unwrap(), 5);
    drop(wal);
    let (wal, recovered) = open(1).unwrap();
    assert_eq!((recovered.first, recovered.cut.is_none()), (1, true));
    assert_eq!(rows(&recovered), [2, 3, 4, 5, 6]);
    drop(wal);
    // The archive is ahead: the log resumes behind it, and later does not miss what it never had.
    let (wal, recovered) = open(20).unwrap();
    assert_eq!((recovered.end, recovered.batches.len()), (20, 0));
    assert_eq!(wal.append_blocking(batch(&[7])).unwrap(), 20);
    drop(wal);
    assert_eq!(rows(&open(20).unwrap().1), [7]);
    assert_eq!(open(6).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn segments_tile_and_go_once_they_are_archived() {
    let files = FaultyFiles::default();
    let (wal, ..) = open_with(&files, 0, options(2_000)).unwrap();
    for n in 0..20 {
        assert_eq!(wal.append_blocking(batch(&[2 * n, 2 * n + 1])).unwrap(), 2 * n as u64);
    }
    let before = segments(&files).len();
    assert!(before > 5, "{before}");
    assert_eq!(wal.delete_below(1).unwrap(), 0);
    let deleted = wal.delete_below(21).unwrap();
    assert!(deleted > 0 && segments(&files).len() == before - deleted);
    assert_eq!(wal.delete_below(21).unwrap(), 0);
    drop(wal);
    let (wal, recovered, _) = open_with(&files, 21, options(2_000)).unwrap();
    assert_eq!(rows(&recovered), (21..40).collect::<Vec<_>>());
    wal.delete_below(u64::MAX).unwrap();
    assert_eq!(segments(&files).len(), 1, "the one that grows stays");
    drop(wal);
    let error = open(&files, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.message().contains(".wal\" is damaged at byte 0: it begins at offset"),
        "{error}"
    );
}

#[test]
fn other_columns_and_versions_are_refused() {
    let files = written(&[&[1]], 1 << 20);
    let other = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let shared = Arc::new(files.clone());
    let applied: Applied = Box::new(|_, _| {});
    let wanted = (0, &Known::default());
    let error =
        Wal::open(shared, Path::new("/w"), &other, wanted, (WalOptions::default(), applied));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Data);
    let (wal, ..) = open(&files, 0).unwrap();
    let odd = RecordBatch::try_new(other, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    assert!(wal.append_blocking(odd).is_err());
    drop(wal);
    let path = &segments(&files)[0];
    let mut bytes = files.read(path).unwrap();
    bytes[8] = 3;
    overwrite(&files, path, &bytes);
    let error = open(&files, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().contains("has log format 3"), "{error}");
}

#[test]
fn concurrent_appends_share_syncs_and_are_there_once() {
    let files = FaultyFiles::default();
    let (wal, _, applied) = open_with(&files, 0, options(50_000)).unwrap();
    let wal = Arc::new(wal);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let acked: Vec<_> = runtime.block_on(async {
        let tasks: Vec<_> = (0..64i64)
            .map(|task| {
                let wal = Arc::clone(&wal);
                tokio::spawn(async move {
                    let mut acked = vec![];
                    for i in 0..20 {
                        let n = task * 1_000 + i;
                        // Blocking inside a task is bad practice, but must not panic or hang.
                        let first = match i % 5 {
                            0 => wal.append_blocking(batch(&[n])),
                            _ => wal.append(batch(&[n])).await,
                        };
                        acked.push((first.unwrap(), n));
                    }
                    assert!(acked.is_sorted(), "one appender's rows keep their order");
                    acked
                })
            })
            .collect();
        futures::future::join_all(tasks).await.into_iter().flat_map(|t| t.unwrap()).collect()
    });
    let mut sorted = acked.clone();
    sorted.sort_unstable();
    assert_eq!(*applied.lock(), sorted);
    assert_eq!(wal.end(), 64 * 20);
    let (writes, _) = files.counts();
    assert!(writes < 64 * 20, "{writes} writes are no group commit");
    drop(wal);
    let (_, recovered, _) = open(&files, 0).unwrap();
    assert_eq!(rows(&recovered), sorted.iter().map(|(_, n)| *n).collect::<Vec<_>>());
}

#[test]
fn durability_os_syncs_only_whole_segments() {
    let files = FaultyFiles::default();
    let os = WalOptions { durability: Durability::Os, ..options(5_000) };
    let (wal, ..) = open_with(&files, 0, os).unwrap();
    for n in 0..20 {
        wal.append_blocking(batch(&[n])).unwrap();
    }
    drop(wal);
    let count = segments(&files).len() as u64;
    assert!(count > 1);
    // Each has its header synced, and all but the last are synced once they are whole.
    assert_eq!(files.counts().1, 2 * count - 1);
    assert_eq!(rows(&open_with(&files, 0, os).unwrap().1), (0..20).collect::<Vec<_>>());
    // A power failure takes rows from the end only (or leaves damage, which is reported).
    for seed in 0..50 {
        match open_with(&files.crash(&mut Chance(seed)), 0, os) {
            Ok((_, recovered, _)) => {
                let found = rows(&recovered);
                assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>());
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt),
        }
    }
}

#[test]
fn a_dropped_future_leaves_its_rows_in_the_queue() {
    use futures::FutureExt;
    let files = FaultyFiles::default();
    let (wal, _, applied) = open(&files, 0).unwrap();
    for n in 0..100 {
        let mut append = Box::pin(wal.append(batch(&[n])));
        // One poll queues it; the answer may even be there.
        drop((&mut append).now_or_never());
    }
    drop(wal);
    assert_eq!(*applied.lock(), (0..100).map(|n| (n as u64, n)).collect::<Vec<_>>());
}

#[test]
fn a_cut_at_any_byte_loses_only_the_last_record() {
    let files = written(&[&[1, 2], &[3], &[4, 5]], 1 << 20);
    let path = segments(&files)[0].clone();
    let bytes = files.read(&path).unwrap();
    let shorter = written(&[&[1, 2], &[3]], 1 << 20);
    let good = shorter.read(&path).unwrap().len();
    for len in good..bytes.len() {
        overwrite(&files, &path, &bytes[..len]);
        let (wal, recovered, _) = open(&files, 0).unwrap();
        assert_eq!(rows(&recovered), [1, 2, 3]);
        match recovered.cut {
            None => assert_eq!(len, good),
            Some(cut) => {
                assert_eq!((cut.file.as_path(), cut.at), (path.as_path(), good as u64));
                assert_eq!(cut.bytes, (len - good) as u64);
            }
        }
        assert_eq!(wal.append_blocking(batch(&[6])).unwrap(), 3);
        drop(wal);
        let (_, recovered, _) = open(&files, 0).unwrap();
        assert_eq!((rows(&recovered), recovered.cut), (vec![1, 2, 3, 6], None));
    }
}

#[test]
fn a_torn_header_without_rows_is_removed() {
    let files = written(&[&[1], &[2]], 1);
    let paths = segments(&files);
    assert_eq!(paths.len(), 2);
    let header = segment::encode_header(Beginning {
        schema: &schema(),
        producers: &Producers::default(),
        owner: None,
    })
    .unwrap();
    for len in 0..header.len() {
        let files = written(&[&[1], &[2]], 1);
        overwrite(&files, &paths[1], &header[..len]);
        let (wal, recovered, _) = open(&files, 0).unwrap();
        assert_eq!((rows(&recovered), recovered.cut.unwrap().at), (vec![1], 0));
        assert_eq!(wal.append_blocking(batch(&[3])).unwrap(), 1);
        drop(wal);
        assert_eq!(rows(&open(&files, 0).unwrap().1), [1, 3]);
        // The same in the middle of the log is damage.
        let files = written(&[&[1], &[2], &[3]], 1);
        overwrite(&files, &paths[1], &header[..len]);
        assert_eq!(open(&files, 0).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_flipped_byte_is_found_and_nothing_is_overwritten() {
    let files = written(&[&[1, 2], &[3], &[4, 5]], 1 << 20);
    let path = segments(&files)[0].clone();
    let bytes = files.read(&path).unwrap();
    let last = written(&[&[1, 2], &[3]], 1 << 20).read(&path).unwrap().len();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        overwrite(&files, &path, &damaged);
        if at >= last {
            let (_, recovered, _) = open(&files, 0).unwrap();
            assert_eq!((rows(&recovered), recovered.cut.unwrap().at), (vec![1, 2, 3], last as u64));
            continue;
        }
        let error = open(&files, 0).unwrap_err();
        // A version may be unknown; all else is damage.
        let kind = if (8..12).contains(&at) { ErrorKind::Data } else { ErrorKind::Corrupt };
        assert_eq!(error.kind(), kind, "{at}: {error}");
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(files.read(&path).unwrap(), damaged);
    }
    // Before the last segment, even a torn end is damage.
    let files = written(&[&[1], &[2]], 1);
    let path = segments(&files)[0].clone();
    let bytes = files.read(&path).unwrap();
    overwrite(&files, &path, &bytes[..bytes.len() - 1]);
    let error = open(&files, 0).unwrap_err();
    assert!(error.message().contains("the record is cut off"), "{error}");
}

#[test]
fn a_full_disk_refuses_rows_and_goes_on_when_there_is_room() {
    for segment_bytes in [1, 1 << 20] {
        for room in (0..2_000).step_by(37) {
            let files = FaultyFiles::default();
            let (wal, _, applied) = open_with(&files, 0, options(segment_bytes)).unwrap();
            wal.append_blocking(batch(&[1])).unwrap();
            files.set_room(Some(room));
            let mut expected = vec![1];
            for n in 2..6 {
                match wal.append_blocking(batch(&[n])) {
                    Ok(first) => {
                        assert_eq!(first, expected.len() as u64);
                        expected.push(n);
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Unavailable);
                        assert!(e.message().contains(".wal\": no storage space"), "{e}");
                    }
                }
            }
            assert!(expected.len() < 5, "the disk was full");
            files.set_room(None);
            assert_eq!(wal.append_blocking(batch(&[7])).unwrap(), expected.len() as u64);
            expected.push(7);
            assert_eq!(applied.lock().iter().map(|(_, n)| *n).collect::<Vec<_>>(), expected);
            drop(wal);
            let (_, recovered, _) = open(&files, 0).unwrap();
            assert_eq!((rows(&recovered), recovered.cut), (expected, None));
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written() {
    let files = written(&[&[1]], 1 << 20);
    let (wal, _, applied) = open(&files, 0).unwrap();
    files.fail_sync(true);
    let error = wal.append_blocking(batch(&[2])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    files.fail_sync(false);
    let again = wal.append_blocking(batch(&[3])).unwrap_err();
    assert_eq!(again.message(), error.message());
    assert!(error.message().starts_with("the log accepts no more rows: cannot sync"), "{error}");
    assert!(applied.lock().is_empty());
    assert_eq!(wal.end(), 1);
    drop(wal);
    let (wal, recovered, _) = open(&files, 0).unwrap();
    assert_eq!(rows(&recovered), [1]);
    // So it is when a write cannot be undone.
    files.set_room(Some(10));
    files.fail_truncate(true);
    assert!(wal.append_blocking(batch(&[4])).is_err());
    files.set_room(None);
    assert!(wal.append_blocking(batch(&[5])).is_err());
}

#[test]
fn a_segment_that_could_not_be_created_never_stands_in_the_way() {
    let big: Vec<i64> = (0..500).collect();
    let live = |remains| {
        let files = FaultyFiles::default();
        let (wal, ..) = open_with(&files, 0, options(6_000)).unwrap();
        wal.append_blocking(batch(&[1])).unwrap();
        files.set_room(Some(10));
        files.fail_remove(remains);
        assert!(wal.append_blocking(batch(&big)).is_err(), "the next segment does not fit");
        files.set_room(None);
        (wal.append_blocking(batch(&[2])).is_ok(), files)
    };
    for seed in 0..50 {
        // Either it is gone for good, or nothing is written any more.
        for (remains, expected) in [(false, vec![1, 2]), (true, vec![1])] {
            let (ok, files) = live(remains);
            assert_eq!(ok, !remains);
            let files = files.crash(&mut Chance(seed));
            assert_eq!(rows(&open(&files, 0).unwrap().1), expected, "seed {seed}");
        }
    }
}

/// Simulates one life of a machine: opens, appends from some threads, perhaps deletes, and loses power.
fn live(
    files: &FaultyFiles,
    chance: &mut Chance,
    archived: &mut u64,
    acked: &mut Vec<(u64, i64)>,
    next: &mut i64,
) {
    let options = options(1 + chance.below(6_000));
    if chance.below(8) > 0 {
        files.stop_after(chance.below(60));
    }
    let Ok((wal, ..)) = open_with(files, *archived, options) else { return };
    let appenders = 1 + chance.below(3) as i64;
    let base = *next;
    *next += 1_000;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..appenders)
            .map(|t| {
                let (wal, mut chance) = (&wal, Chance(chance.below(u64::MAX)));
                scope.spawn(move || {
                    let mut acked = vec![];
                    let mut n = base + t * 100;
                    for _ in 0..6 {
                        let rows: Vec<_> = (n..).take(1 + chance.below(4) as usize).collect();
                        n += rows.len() as i64;
                        if let Ok(first) = wal.append_blocking(batch(&rows)) {
                            acked.extend((first..).zip(rows));
                        }
                    }
                    acked
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    acked.extend(answers);
    if chance.below(3) == 0 {
        *archived = wal.end() - chance.below(wal.end() - *archived + 1);
        // The power may have failed.
        drop(wal.delete_below(*archived));
    }
}

#[test]
fn no_crash_loses_an_acknowledged_row() {
    for seed in seeds(500) {
        let mut chance = Chance(seed);
        let mut files = FaultyFiles::default();
        let (mut archived, mut acked, mut next) = (0, vec![], 0);
        for _ in 0..3 {
            live(&files, &mut chance, &mut archived, &mut acked, &mut next);
            files = files.crash(&mut chance);
            // Opening may itself be interrupted.
            files.stop_after(chance.below(6));
            drop(open(&files, archived));
            files = files.crash(&mut chance);
            let (wal, recovered, _) =
                open(&files, archived).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            drop(wal);
            let found = rows(&recovered);
            assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "seed {seed}");
            for (offset, n) in acked.iter().filter(|(o, _)| *o >= archived) {
                let at = (*offset - archived) as usize;
                assert_eq!(found.get(at), Some(n), "seed {seed}, offset {offset}");
            }
            // Rows of one append stay together and in order.
            for pair in found.windows(2).filter(|p| p[0] / 100 == p[1] / 100) {
                assert!(pair[0] < pair[1], "seed {seed}: {pair:?}");
            }
        }
    }
}

#[test]
fn rows_from_before_an_added_column_have_its_default() {
    let files = written(&[&[1, 2], &[3]], 1 << 20);
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new("c", DataType::Int64, true)));
    let wide: SchemaRef = Arc::new(Schema::new(fields));
    let seven: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let open = |from| {
        let known = Known { added: vec![Arc::clone(&seven)], ..Known::default() };
        let options: (WalOptions, Applied) = (WalOptions::default(), Box::new(|_, _| {}));
        let shared = Arc::new(files.clone());
        Wal::open(shared, Path::new("/w"), &wide, (from, &known), options).unwrap()
    };
    let values = |recovered: &Recovered| -> Vec<i64> {
        let columns = recovered.batches.iter().map(|(_, rows)| rows.column(3).clone());
        columns.flat_map(|c| c.as_primitive::<Int64Type>().values().to_vec()).collect()
    };
    // The column is added to a log in use, and a writer does not know of it yet.
    let options: (WalOptions, Applied) = (WalOptions::default(), Box::new(|_, _| {}));
    let (shared, known) = (Arc::new(files.clone()), Known::default());
    let (wal, _) = Wal::open(shared, Path::new("/w"), &schema(), (0, &known), options).unwrap();
    wal.widen(Arc::clone(&wide), vec![Arc::clone(&seven)]);
    wal.append_blocking(batch(&[4])).unwrap();
    let mut columns = batch(&[5]).columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![8])));
    wal.append_blocking(RecordBatch::try_new(Arc::clone(&wide), columns).unwrap()).unwrap();
    drop(wal);
    let (wal, recovered) = open(1);
    assert_eq!(values(&recovered), [7, 7, 7, 8]);
    drop(wal);
    let (_, recovered) = open(0);
    assert_eq!(values(&recovered), [7, 7, 7, 7, 8]);
    // Without it, it is another log.
    assert!(self::open(&files, 0).is_err());
}
