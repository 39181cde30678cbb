//! The progress of producers, whatever happens to the files of a log: the batches of a producer that resends what was
//! not acknowledged are there once and in order.

use super::*;
use crate::wal::producers::Verdict;

/// Sends the batch `sequence` of a producer: one row, which identifies it.
fn send(wal: &Wal, producer: u64, sequence: u64) -> Result<Verdict> {
    let rows = batch(&[(producer * 1_000 + sequence) as i64]);
    send_rows(wal, producer, sequence, rows)
}

fn send_rows(wal: &Wal, producer: u64, sequence: u64, rows: RecordBatch) -> Result<Verdict> {
    let stamp = Stamp::of_batch(&format!("p{producer}"), sequence, 0)?;
    futures::executor::block_on(async {
        match wal.offer(rows, Some(stamp)).await?.answer().await? {
            Appended::At(_) => Ok(Verdict::New),
            Appended::Repeated => Ok(Verdict::Repeated),
        }
    })
}

#[test]
fn what_is_sent_again_is_recognised_after_a_restart() {
    for segment_bytes in [1, 1 << 20] {
        let files = FaultyFiles::default();
        let open = |from| open_with(&files, from, options(segment_bytes)).unwrap();
        let (wal, ..) = open(0);
        assert_eq!(send(&wal, 1, 1).unwrap(), Verdict::New);
        assert_eq!(send(&wal, 1, 1).unwrap(), Verdict::Repeated);
        assert_eq!(send(&wal, 1, 2).unwrap(), Verdict::New);
        // A batch all of whose rows are bad has none for the log, and counts.
        assert_eq!(send_rows(&wal, 2, 1, batch(&[])).unwrap(), Verdict::New);
        drop(wal);
        let (wal, recovered, _) = open(0);
        assert_eq!(rows(&recovered), [1_001, 1_002]);
        assert_eq!(send(&wal, 1, 2).unwrap(), Verdict::Repeated);
        assert_eq!(send(&wal, 2, 1).unwrap(), Verdict::Repeated);
        assert!(send(&wal, 1, 4).is_err());
        assert!(send(&wal, 3, 2).is_err());
        assert_eq!(send(&wal, 1, 3).unwrap(), Verdict::New);
        assert_eq!(wal.append_blocking(batch(&[7])).unwrap(), 3);
        // Rows are archived, and their segments are deleted; the producers stay known.
        wal.delete_below(4).unwrap();
        drop(wal);
        let (wal, ..) = open(4);
        assert_eq!(send(&wal, 1, 3).unwrap(), Verdict::Repeated);
        assert_eq!(send(&wal, 1, 4).unwrap(), Verdict::New);
        assert_eq!(send(&wal, 2, 2).unwrap(), Verdict::New);
    }
}

#[test]
fn a_torn_new_segment_leaves_the_producers_of_the_one_before() {
    let files = FaultyFiles::default();
    let (wal, ..) = open_with(&files, 0, options(1)).unwrap();
    send(&wal, 1, 1).unwrap();
    send(&wal, 1, 2).unwrap();
    drop(wal);
    let last = segments(&files)[1].clone();
    let header = files.read(&last).unwrap()[..30].to_vec();
    overwrite(&files, &last, &header);
    // The row of the segment before is archived already.
    let (wal, ..) = open(&files, 1).unwrap();
    assert_eq!(send(&wal, 1, 1).unwrap(), Verdict::Repeated);
    assert_eq!(send(&wal, 1, 2).unwrap(), Verdict::New);
}

/// Simulates one life of a machine; counts how many batches of each producer are acknowledged.
fn live(files: &FaultyFiles, chance: &mut Chance, archived: &mut u64, acked: &mut [u64; 3]) {
    if chance.below(8) > 0 {
        files.stop_after(chance.below(60));
    }
    let options = options(1 + chance.below(6_000));
    let Ok((wal, ..)) = open_with(files, *archived, options) else { return };
    for _ in 0..12 {
        let producer = chance.below(3) as usize;
        // Occasionally an acknowledged batch is resent.
        let again = chance.below(4) == 0 && acked[producer] > 0;
        let sequence = if again { acked[producer] } else { acked[producer] + 1 };
        let sent = send(&wal, producer as u64, sequence);
        assert!(!again || !matches!(sent, Ok(Verdict::New)), "acknowledged and forgotten");
        if sent.is_ok() {
            acked[producer] = sequence;
        }
    }
    if chance.below(3) == 0 {
        *archived = wal.end() - chance.below(wal.end() - *archived + 1);
        // The power may have failed.
        drop(wal.delete_below(*archived));
    }
}

#[test]
fn no_crash_loses_or_repeats_a_batch() {
    for seed in seeds(200) {
        let mut chance = Chance(seed);
        let mut files = FaultyFiles::default();
        let (mut archived, mut acked) = (0, [0; 3]);
        for _ in 0..4 {
            live(&files, &mut chance, &mut archived, &mut acked);
            files = files.crash(&mut chance);
            files.stop_after(chance.below(6));
            drop(open(&files, archived));
            files = files.crash(&mut chance);
            let (_, recovered, applied) =
                open(&files, archived).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(applied.lock().is_empty());
            let found = rows(&recovered);
            for producer in 0..3 {
                let of = |n: &&i64| **n / 1_000 == producer;
                let numbers: Vec<_> = found.iter().filter(of).map(|n| n % 1_000).collect();
                for pair in numbers.windows(2) {
                    assert_eq!(pair[0] + 1, pair[1], "seed {seed}: {numbers:?}");
                }
                let acked = acked[producer as usize] as i64;
                let last = numbers.last().copied();
                assert!(last.is_none_or(|last| last == acked || last == acked + 1), "seed {seed}");
                assert!(archived > 0 || last.unwrap_or(0) >= acked, "seed {seed}: {numbers:?}");
            }
        }
    }
}
