//! A log that ends before its known end.

use super::*;

const DIR: &str = "/s/log";

fn known(files: &FaultyFiles, gaps: &[(u64, u64)]) -> Known {
    let gaps = gaps.iter().map(|(a, b)| windrow_core::OffsetRange::try_new(*a, *b).unwrap());
    let owner = Owner { id: "d/1".into(), may_be_unrecorded: false, is_created: true };
    let mut known = Known { owner: Some(owner), gaps: Gaps::new(gaps), ..Known::default() };
    extent::read(files, Path::new(DIR), &mut known).unwrap();
    known
}

fn open(
    files: &FaultyFiles,
    from: u64,
    known: &Known,
    durability: Durability,
) -> Result<(Wal, Recovered)> {
    let files = Arc::new(files.clone());
    let options = WalOptions { durability, segment_bytes_max: 2_000, ..WalOptions::default() };
    Wal::open(files, Path::new(DIR), &schema(), (from, known), (options, Box::new(|_, _| {})))
}

fn ends(files: &FaultyFiles) -> Vec<PathBuf> {
    let mut names = files.list(Path::new(DIR)).unwrap();
    names.sort_unstable();
    names.iter().map(|n| Path::new(DIR).join(n)).collect()
}

/// Ten rows in records of their own, of which `noted` are noted.
fn ten(noted: usize) -> FaultyFiles {
    let files = FaultyFiles::default();
    let (wal, _) = open(&files, 0, &known(&files, &[]), Durability::Fsync).unwrap();
    for n in 0..10 {
        if n == noted {
            wal.note_extent().unwrap();
        }
        wal.append_blocking(batch(&[n as i64])).unwrap();
    }
    if noted == 10 {
        wal.note_extent().unwrap();
    }
    drop(wal);
    files
}

#[test]
fn a_lost_end_is_told_and_no_offset_is_given_twice() {
    let files = ten(10);
    let last = ends(&files).pop().unwrap();
    let bytes = files.read(&last).unwrap();
    // In the last record, or all of the last segment.
    for (len, flipped) in [(bytes.len() - 5, false), (bytes.len(), true), (0, false)] {
        let files = files.crash(&mut Chance(1));
        let mut harmed = bytes[..len].to_vec();
        if flipped {
            harmed[bytes.len() - 20] ^= 1;
        }
        if len == 0 {
            files.remove(&last).unwrap();
        } else {
            overwrite(&files, &last, &harmed);
        }
        let wanted = known(&files, &[]);
        let error = open(&files, 0, &wanted, Durability::Fsync).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("has lost its end"), "{error}");
        assert!(error.message().ends_with("up to row 10"), "{error}");
        assert!(error.hints().iter().any(|hint| hint.contains("--accept-lost-rows")));
        if len > 0 {
            assert_eq!(files.read(&last).unwrap(), harmed, "nothing is changed");
        }
        // The loss is accepted.
        let shared = Arc::new(files.clone());
        let end = Wal::end_of(&*shared, Path::new(DIR), &schema(), (0, &wanted)).unwrap();
        assert!(end < 10);
        for round in 0..3 {
            let wanted = known(&files, &[(end, 10)]);
            let (wal, recovered) = open(&files, 0, &wanted, Durability::Fsync).unwrap();
            assert_eq!(recovered.end, 10 + round);
            assert_eq!(wal.append_blocking(batch(&[77])).unwrap(), 10 + round);
            drop(wal);
            let read = recovered.batches.iter().map(|(first, batch)| (*first, numbers(batch)));
            let before = (0..end).map(|n| (n, vec![n as i64]));
            let after = (10..10 + round).map(|n| (n, vec![77]));
            assert_eq!(read.collect::<Vec<_>>(), before.chain(after).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_torn_end_that_nobody_knows_is_cut() {
    let files = ten(9);
    let last = ends(&files).pop().unwrap();
    let bytes = files.read(&last).unwrap();
    overwrite(&files, &last, &bytes[..bytes.len() - 5]);
    let (_, recovered) = open(&files, 0, &known(&files, &[]), Durability::Fsync).unwrap();
    assert_eq!(recovered.end, 9);
    assert!(recovered.cut.is_some());
}

#[test]
fn another_log_is_refused() {
    let files = ten(3);
    let mut other = known(&files, &[]);
    other.owner = Some(Owner { id: "d/2".into(), may_be_unrecorded: false, is_created: true });
    let error = open(&files, 0, &other, Durability::Fsync).unwrap_err();
    assert!(error.message().ends_with("is of another log"), "{error}");
    // One without an owner may be of a directory from before it had an id.
    (other.end, other.noted) = (0, 0);
    let unsaid = FaultyFiles::default();
    drop(open(&unsaid, 0, &Known::default(), Durability::Fsync).unwrap());
    assert!(open(&unsaid, 0, &other, Durability::Fsync).is_err());
    other.owner = Some(Owner { id: "d/2".into(), may_be_unrecorded: true, is_created: true });
    drop(open(&unsaid, 0, &other, Durability::Fsync).unwrap());
}

#[test]
fn who_wrote_archived_rows_is_known_without_their_records() {
    let files = FaultyFiles::default();
    let (wal, _) = open(&files, 0, &known(&files, &[]), Durability::Os).unwrap();
    let send = |wal: &Wal, sequence| {
        let stamp = Stamp::of_batch("p", sequence, 0).unwrap();
        let offered = wal.offer(batch(&[sequence as i64]), Some(stamp));
        futures::executor::block_on(async { offered.await.unwrap().answer().await.unwrap() })
    };
    assert_eq!((send(&wal, 1), send(&wal, 2)), (Appended::At(0), Appended::At(1)));
    // As before rows are archived.
    wal.note_extent().unwrap();
    drop(wal);
    let last = ends(&files).pop().unwrap();
    let bytes = files.read(&last).unwrap();
    let one = bytes.len() - 40;
    overwrite(&files, &last, &bytes[..one]);
    // The archive has both rows.
    let (wal, recovered) = open(&files, 2, &known(&files, &[]), Durability::Os).unwrap();
    assert_eq!((recovered.first, recovered.end), (2, 2));
    assert_eq!(send(&wal, 2), Appended::Repeated);
    assert_eq!(send(&wal, 3), Appended::At(2));
}

/// Lives of a machine that loses power at any step: what was noted is there again, also in logs that are not synced.
#[test]
fn no_loss_of_power_loses_what_was_noted() {
    for seed in seeds(400) {
        let mut chance = Chance(seed);
        let mut files = FaultyFiles::default();
        let durability = if chance.below(2) == 0 { Durability::Os } else { Durability::Fsync };
        let (mut noted, mut told) = (0, vec![]);
        for _ in 0..4 {
            if chance.below(8) > 0 {
                files.stop_after(chance.below(40));
            }
            let opened = open(&files, 0, &known(&files, &[]), durability);
            if let Ok((wal, recovered)) = opened {
                let rows = rows(&recovered);
                assert!(rows.len() as u64 >= noted, "seed {seed}");
                assert_eq!(rows[..noted as usize], told[..noted as usize], "seed {seed}");
                told = rows;
                for _ in 0..chance.below(10) {
                    let n = seed as i64 * 100 + told.len() as i64;
                    if wal.append_blocking(batch(&[n])).is_ok() {
                        told.push(n);
                    }
                    let end = wal.end();
                    if chance.below(3) == 0 && wal.note_extent().is_ok() {
                        noted = end;
                    }
                }
            }
            files = files.crash(&mut chance);
        }
        let (_, recovered) = open(&files, 0, &known(&files, &[]), durability)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(recovered.end >= noted, "seed {seed}");
    }
}

#[test]
fn a_writer_that_panics_is_a_bug_and_no_full_disk() {
    let files = FaultyFiles::default();
    let applied: Applied = Box::new(|first, _| assert_eq!(first, 0, "only the first rows"));
    let (known, options) = (Known::default(), WalOptions::default());
    let (wal, _) = Wal::open(
        Arc::new(files.clone()),
        Path::new(DIR),
        &schema(),
        (0, &known),
        (options, applied),
    )
    .unwrap();
    wal.append_blocking(batch(&[1])).unwrap();
    for numbers in [[2], [3]] {
        let error = wal.append_blocking(batch(&numbers)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.message().contains("has stopped at a panic"), "{error}");
    }
    drop(wal);
    // What was acknowledged is there.
    let (_, recovered) = open(&files, 0, &Known::default(), Durability::Fsync).unwrap();
    assert_eq!(rows(&recovered)[..1], [1]);
}
