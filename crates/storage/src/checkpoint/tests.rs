//! Checkpoints on a disk that fills up, fails to sync, and loses power at any step.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;
use windrow_operators::{Cut, SegmentId};

use super::*;
use crate::faults::FaultyFiles;
use crate::trial::{Chance, seeds};

const INPUTS: usize = 2;

fn stamp(plan: &str) -> Stamp {
    Stamp { plan: plan.into(), engine: "windrow 1".into() }
}

fn owner() -> Owner {
    Owner { id: "d/1".into(), may_be_unrecorded: false, is_created: false }
}

fn open(files: &FaultyFiles, plan: &str) -> Checkpoints {
    Checkpoints::open(Arc::new(files.clone()), "checkpoints/v".into(), stamp(plan), owner())
        .unwrap()
}

fn newest(checkpoints: &Checkpoints) -> Newest {
    checkpoints.newest(&|_, _| Ok(())).unwrap()
}

fn segment(id: u64, value: i64) -> SavedSegment {
    let values = Int64Array::from_iter_values(value..value + 3);
    let batch = RecordBatch::try_from_iter([("k0", Arc::new(values) as _)]).unwrap();
    SavedSegment {
        id: SegmentId(id),
        input: usize::from(id.is_multiple_of(3)),
        slice: value,
        counts_from: 0,
        rows: 3,
        times: Some((value, value + 2)),
        batches: vec![batch],
        spilled: None,
    }
}

/// A query that gathers segments and releases them.
#[derive(Debug, Clone, Default)]
struct Model {
    /// Micro-batches so far.
    batches: u64,
    /// Per operator: segments by id, each by its value.
    live: [BTreeMap<u64, i64>; INPUTS],
    next_id: [u64; INPUTS],
    unused: u64,
}

impl Model {
    /// Advances for a while; returns what is new.
    fn resume(&mut self, chance: &mut Chance) -> QueryCut {
        self.batches += 1 + chance.below(3);
        let mut inputs = vec![];
        for input in 0..INPUTS {
            self.live[input].retain(|_, _| chance.below(4) > 0);
            let mut new = vec![];
            for _ in 0..chance.below(3) {
                let (id, value) = (self.next_id[input], chance.below(1_000_000) as i64);
                self.next_id[input] += 1;
                self.live[input].insert(id, value);
                new.push(segment(id, value));
            }
            let merger = Cut {
                frontier: self.batches as i64,
                next_id: self.next_id[input],
                needed: self.live[input].keys().copied().map(SegmentId).collect(),
                new,
            };
            inputs
                .push(OperatorCut { watermark: Watermark::at(self.batches as i64), state: merger });
        }
        let unused: Vec<Unused> = (0..chance.below(2))
            .map(|_| {
                self.unused += 1;
                let (stream, partition, offset) = ("s".into(), "log".into(), self.unused);
                let text = "{\"a\":\"\\n\"}".into();
                if chance.below(2) == 0 {
                    let reason = "no number".into();
                    let skipped = offset % 2 == 1;
                    return Unused::Bad(SavedBad {
                        stream,
                        partition,
                        offset,
                        reason,
                        raw: text,
                        skipped,
                    });
                }
                Unused::Late(SavedLate {
                    stream,
                    partition,
                    offset,
                    event_time_micros: 1,
                    watermark_micros: None,
                    row: text,
                })
            })
            .collect();
        QueryCut {
            at: CutTime { taken_micros: 1_000, paused_micros: 7 },
            operators: inputs,
            taps: vec![TapCut {
                stream: "s".into(),
                began: None,
                hold: i64::MIN,
                positions: Positions::behind(self.batches * 10),
            }],
            counts: self.counts(),
            unused,
            rows_given: None,
        }
    }

    fn counts(&self) -> Counts {
        let rows = Entry { rows_in: self.batches, aggregated: self.batches, ..Entry::default() };
        Counts {
            rows,
            partly_late: 0,
            skipped: 0,
            windows_closed: self.unused,
            batches: self.batches,
        }
    }

    fn assert_is(&self, resume: &mut Resume) {
        assert_eq!(resume.counts, self.counts());
        assert_eq!(resume.taps[0].positions, Positions::behind(self.batches * 10));
        let offset = |row: &Unused| match row {
            Unused::Late(late) => late.offset,
            Unused::Bad(bad) => bad.offset,
            Unused::Behind(behind) => behind.row,
        };
        let offsets: Vec<u64> = resume.unused.iter().map(offset).collect();
        assert_eq!(offsets, (1..=self.unused).collect::<Vec<_>>());
        for (input, state) in resume.operators.iter_mut().enumerate() {
            assert_eq!(state.next_id, self.next_id[input]);
            assert_eq!(state.frontier, self.batches as i64);
            let expected: Vec<_> =
                self.live[input].iter().map(|(id, value)| segment(*id, *value)).collect();
            assert_eq!(state.segments.len(), expected.len());
            let mut found: Vec<_> = state.segments.by_ref().map(Result::unwrap).collect();
            found.sort_by_key(|segment| segment.id);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(format!("{found:?}"), format!("{expected:?}"));
            }
        }
    }
}

fn write(checkpoints: &Checkpoints, cut: QueryCut) -> Result<()> {
    checkpoints.write(cut, None, &|| 3_000)
}

/// Simulates runs of a query on one disk, each ended by a loss of power.
fn simulate(seed: u64) -> (usize, usize) {
    let mut chance = Chance(seed);
    let mut files = FaultyFiles::default();
    let (mut written, mut failed) = (0, 0);
    // All cuts by their micro-batches, and the last one that was acknowledged.
    let mut cuts: BTreeMap<u64, Model> = BTreeMap::from([(0, Model::default())]);
    let mut acknowledged = 0;
    for _ in 0..4 {
        let checkpoints = open(&files, "p");
        let mut found = newest(&checkpoints);
        let at = found.resume.as_ref().map_or(0, |resume| resume.counts.batches);
        assert!(at >= acknowledged, "seed {seed}: {at} < {acknowledged}, {:?}", found.skipped);
        let mut model = cuts[&at].clone();
        if let Some(resume) = &mut found.resume {
            model.assert_is(resume);
        }
        // What was cut after it never happened.
        cuts.retain(|batches, _| *batches <= at);
        acknowledged = at;
        if chance.below(3) > 0 {
            files.stop_after(chance.below(60));
        }
        for _ in 0..chance.below(12) {
            files.fail_sync(chance.below(8) == 0);
            files.set_room((chance.below(8) == 0).then(|| chance.below(1500) as usize));
            let cut = model.resume(&mut chance);
            cuts.insert(model.batches, model.clone());
            if chance.below(10) == 0 {
                checkpoints.owe(cut);
            } else if write(&checkpoints, cut).is_ok() {
                acknowledged = model.batches;
                written += 1;
            } else {
                failed += 1;
            }
        }
        let shown = checkpoints.shown();
        assert!(shown.len() <= KEPT && shown.is_sorted_by_key(|s| s.id));
        files = files.crash(&mut chance);
    }
    (written, failed)
}

#[test]
fn what_was_acknowledged_is_found_again_whatever_fails() {
    let (mut written, mut failed) = (0, 0);
    let seeds = seeds(1_000);
    for seed in seeds.clone() {
        let (w, f) = simulate(seed);
        (written, failed) = (written + w, failed + f);
    }
    let least = |of_all: u64| of_all * seeds.end / 1_000;
    assert!(
        written as u64 > least(3_000) && failed as u64 > least(1_500),
        "{written} written, {failed} failed"
    );
}

#[test]
fn only_what_is_new_is_written_and_old_files_go() {
    let files = FaultyFiles::default();
    let checkpoints = open(&files, "p");
    let mut chance = Chance(1);
    let mut model = Model::default();
    for _ in 0..200 {
        write(&checkpoints, model.resume(&mut chance)).unwrap();
        let names = files.list(Path::new("checkpoints/v")).unwrap();
        assert!(names.len() < 60, "{names:?}");
    }
    let shown = checkpoints.shown();
    assert_eq!(shown.iter().map(|s| s.id).collect::<Vec<_>>(), [198, 199, 200]);
    assert!(shown.iter().all(|s| s.state == "kept" && s.micros == 2_000));
    // Nothing new: a manifest and nothing else.
    let before = files.list(Path::new("checkpoints/v")).unwrap();
    let mut cut = model.resume(&mut chance);
    for input in &mut cut.operators {
        let new: Vec<_> = input.state.new.drain(..).map(|s| s.id).collect();
        input.state.needed.retain(|id| !new.contains(id));
    }
    cut.unused.clear();
    write(&checkpoints, cut).unwrap();
    let after = files.list(Path::new("checkpoints/v")).unwrap();
    let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new, ["000000000201.checkpoint"]);
}

#[test]
fn another_plan_or_program_does_not_fit() {
    let files = FaultyFiles::default();
    write(&open(&files, "p"), Model::default().resume(&mut Chance(3))).unwrap();
    let found = newest(&open(&files, "q"));
    assert!(found.resume.is_none());
    assert_eq!(found.skipped, ["checkpoint 1 is not used: it is of another query"]);
    let other = Stamp { engine: "windrow 2".into(), ..stamp("p") };
    let other =
        Checkpoints::open(Arc::new(files.clone()), "checkpoints/v".into(), other, owner()).unwrap();
    assert_eq!(newest(&other).skipped, ["checkpoint 1 is not used: it was written by windrow 1"]);
    let refused = open(&files, "p").newest(&|_, _| Err("no".into())).unwrap();
    assert_eq!(refused.skipped, ["checkpoint 1 is not used: no"]);
    assert!(newest(&open(&files, "p")).resume.is_some());
}

#[test]
fn a_flipped_byte_anywhere_is_noticed() {
    let files = FaultyFiles::default();
    let mut model = Model::default();
    let mut chance = Chance(5);
    let checkpoints = open(&files, "p");
    for _ in 0..4 {
        write(&checkpoints, model.resume(&mut chance)).unwrap();
    }
    let dir = Path::new("checkpoints/v");
    let needed: BTreeSet<String> = {
        let state = checkpoints.state.lock();
        let newest = state.kept.back().unwrap();
        let names = newest.files.iter().chain(&newest.unused).map(|f| f.name.clone());
        names.chain([Manifest::file_name(newest.id)]).collect()
    };
    assert!(needed.len() > 2, "{needed:?}");
    for name in needed {
        let path = dir.join(&name);
        let bytes = files.read(&path).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            files.replace(&path, &damaged).unwrap();
            let found = newest(&open(&files, "p"));
            let told = found.skipped.first().cloned().unwrap_or_default();
            assert!(told.contains(&name) && told.contains("is damaged"), "{name}, {at}: {told}");
        }
        files.replace(&path, &bytes).unwrap();
    }
    model.assert_is(&mut newest(&open(&files, "p")).resume.unwrap());
}
