//! How far a scan has come: per partition, who holds the watermark, who is idle.
//!
//! ```text
//! partition   split 0     split 1     split 2
//!             done        active      unread        watermark = max(done, active) − delay
//!             └── prefix ──┘
//! ```
//! Splits of one partition may be read at the same time, but the watermark follows their order:
//! only the done prefix and the first split after it count. A partition that nobody has begun
//! holds the watermark at its smallest event time where that is known, and entirely where it is
//! not. The scan's watermark is the minimum over partitions that are not idle, and never moves
//! back.

use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::{Partition, PartitionId, Watermark};

/// Progress that the scan's workers write and coordinators read.
pub(crate) type SharedProgress = Arc<Mutex<Progress>>;

/// The progress of one scan.
#[derive(Debug)]
pub(crate) struct Progress {
    delay_ticks: i64,
    partitions: Vec<PartitionProgress>,
    /// The minimum so far.
    watermark: Watermark,
    /// No further partitions will come.
    complete: bool,
}

#[derive(Debug)]
struct PartitionProgress {
    id: PartitionId,
    name: String,
    splits: Vec<SplitProgress>,
    /// Largest event time of the done prefix.
    prefix_max: Option<i64>,
    /// How many splits the done prefix has.
    prefix: usize,
    /// What the source itself promised.
    explicit: Watermark,
    idle: bool,
    last_row_micros: i64,
    /// One past the last offset that has reached the state.
    consumed: u64,
}

#[derive(Debug, Clone, Copy)]
struct SplitProgress {
    state: SplitState,
    max: Option<i64>,
    min_known: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SplitState {
    Unread,
    Active,
    Done,
}

/// What a micro-batch did to its split.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step {
    /// Largest event time of the split so far.
    pub(crate) max: Option<i64>,
    /// What the source itself promised.
    pub(crate) explicit: Option<Watermark>,
    /// One past the batch's last offset.
    pub(crate) consumed: u64,
    /// The wall clock.
    pub(crate) now_micros: i64,
}

/// What `windrow.watermarks` shows of a partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionStatus {
    pub(crate) id: PartitionId,
    pub(crate) name: String,
    pub(crate) watermark: Watermark,
    pub(crate) state: &'static str,
    pub(crate) holds: bool,
}

impl PartitionProgress {
    fn is_done(&self) -> bool {
        self.prefix == self.splits.len()
    }

    fn watermark(&self, delay_ticks: i64) -> Watermark {
        if self.is_done() {
            return Watermark::END;
        }
        let begun = self.splits.iter().any(|s| s.state != SplitState::Unread);
        if !begun {
            // The smallest of all splits, if every one of them knows.
            let known = self.splits.iter().map(|s| s.min_known).min().flatten();
            return known.map_or(Watermark::NONE, Watermark::at).advance(self.explicit);
        }
        let active = self.splits.get(self.prefix).and_then(|s| s.max);
        let max = self.prefix_max.max(active);
        max.map_or(Watermark::NONE, |m| Watermark::at(m).delayed(delay_ticks))
            .advance(self.explicit)
    }
}

impl Progress {
    pub(crate) fn new(delay_ticks: i64) -> Self {
        Self { delay_ticks, partitions: vec![], watermark: Watermark::NONE, complete: false }
    }

    /// Adds partitions that were discovered now.
    pub(crate) fn add(&mut self, partitions: &[Partition], now_micros: i64) {
        self.partitions.extend(partitions.iter().map(|p| {
            PartitionProgress {
                id: p.id,
                name: p.name.clone(),
                splits: p
                    .splits
                    .iter()
                    .map(|s| SplitProgress {
                        state: SplitState::Unread,
                        max: None,
                        min_known: s.event_times.map(|(min, _)| min),
                    })
                    .collect(),
                prefix_max: None,
                prefix: 0,
                explicit: Watermark::NONE,
                idle: false,
                last_row_micros: now_micros,
                consumed: 0,
            }
        }));
    }

    /// Whether the partition is already known.
    pub(crate) fn knows(&self, id: PartitionId) -> bool {
        self.partitions.iter().any(|p| p.id == id)
    }

    /// No further partitions will come.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The scan's watermark now; advances it to the minimum over the partitions.
    pub(crate) fn watermark(&mut self) -> Watermark {
        let delay = self.delay_ticks;
        let all = || self.partitions.iter().map(|p| (p, p.watermark(delay)));
        let low = all().filter(|(p, w)| !p.idle || *w == Watermark::END).map(|(_, w)| w).min();
        let awake = self.partitions.iter().any(|p| !p.idle && !p.is_done());
        let now = if !awake && self.partitions.iter().any(|p| p.idle) {
            // All that is left is idle: the furthest of them tells the time.
            all().filter(|(p, _)| p.idle).map(|(_, w)| w).max()
        } else {
            low
        };
        let now = match now {
            None if self.complete => Watermark::END,
            // Every partition of now is done, but more may come.
            Some(Watermark::END) if !self.complete => self.watermark.advance(self.furthest()),
            None => Watermark::NONE,
            Some(w) => w,
        };
        self.watermark = self.watermark.advance(now);
        self.watermark
    }

    /// The watermark that the rows read so far amount to, if nothing else came.
    fn furthest(&self) -> Watermark {
        self.partitions
            .iter()
            .filter_map(|p| p.prefix_max.map(|m| Watermark::at(m).delayed(self.delay_ticks)))
            .max()
            .unwrap_or(Watermark::NONE)
    }

    /// A split is being read.
    pub(crate) fn begin(&mut self, id: PartitionId, split: usize) {
        self.with(id, |p| {
            if let Some(s) = p.splits.get_mut(split) {
                s.state = SplitState::Active;
            }
        });
    }

    /// Rows of a split have reached the state.
    pub(crate) fn advance(&mut self, id: PartitionId, split: usize, step: &Step) {
        self.with(id, |p| {
            p.idle = false;
            p.last_row_micros = step.now_micros;
            p.consumed = p.consumed.max(step.consumed);
            if let Some(s) = p.splits.get_mut(split) {
                s.max = s.max.max(step.max);
            }
            if let Some(w) = step.explicit {
                p.explicit = p.explicit.advance(w);
            }
        });
    }

    /// One past the last offset of a partition that has reached the state.
    pub(crate) fn consumed(&self, id: PartitionId) -> u64 {
        self.partitions.iter().find(|p| p.id == id).map_or(0, |p| p.consumed)
    }

    /// A split is read to its end.
    pub(crate) fn finish(&mut self, id: PartitionId, split: usize) {
        self.with(id, |p| {
            if let Some(s) = p.splits.get_mut(split) {
                s.state = SplitState::Done;
            }
            while let Some(s) =
                p.splits.get(p.prefix).filter(|s| s.state == SplitState::Done).copied()
            {
                p.prefix_max = p.prefix_max.max(s.max);
                p.prefix += 1;
            }
        });
    }

    /// Whether the partition is idle (its next row must be held against the scan's watermark).
    pub(crate) fn is_idle(&self, id: PartitionId) -> bool {
        self.partitions.iter().any(|p| p.id == id && p.idle)
    }

    /// Marks the partitions idle that had no row for `timeout_micros`.
    pub(crate) fn mark_idle(&mut self, now_micros: i64, timeout_micros: i64) {
        for p in &mut self.partitions {
            if !p.is_done() && now_micros.saturating_sub(p.last_row_micros) >= timeout_micros {
                p.idle = true;
            }
        }
    }

    /// Every partition, for the user.
    pub(crate) fn status(&self) -> Vec<PartitionStatus> {
        let marks: Vec<_> =
            self.partitions.iter().map(|p| (p, p.watermark(self.delay_ticks))).collect();
        let low = marks.iter().filter(|(p, _)| !p.idle && !p.is_done()).map(|(_, w)| *w).min();
        marks
            .iter()
            .map(|(p, w)| PartitionStatus {
                id: p.id,
                name: p.name.clone(),
                watermark: *w,
                state: match () {
                    () if p.is_done() => "done",
                    () if p.idle => "idle",
                    () if p.splits.iter().all(|s| s.state == SplitState::Unread) => "unread",
                    () => "active",
                },
                holds: !p.idle && !p.is_done() && Some(*w) == low,
            })
            .collect()
    }

    fn with(&mut self, id: PartitionId, f: impl FnOnce(&mut PartitionProgress)) {
        if let Some(p) = self.partitions.iter_mut().find(|p| p.id == id) {
            f(p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windrow_core::Split;

    fn partition(id: u32, known: &[Option<(i64, i64)>]) -> Partition {
        let splits = known
            .iter()
            .enumerate()
            .map(|(number, event_times)| Split {
                partition: PartitionId(id),
                number,
                rows: None,
                bytes: None,
                event_times: *event_times,
                identity: Arc::from(""),
                place: None,
                detail: Arc::new(()),
            })
            .collect();
        Partition { id: PartitionId(id), name: format!("p{id}"), splits }
    }

    fn step(max: i64, now_micros: i64) -> Step {
        Step { max: Some(max), now_micros, ..Step::default() }
    }

    #[test]
    fn an_unread_partition_holds_at_its_smallest_event_time() {
        let mut progress = Progress::new(5);
        progress.add(&[partition(0, &[Some((100, 200))]), partition(1, &[Some((50, 60))])], 0);
        progress.complete();
        assert_eq!(progress.watermark(), Watermark::at(50));
        progress.begin(PartitionId(1), 0);
        progress.advance(PartitionId(1), 0, &step(60, 0));
        assert_eq!(progress.watermark(), Watermark::at(55));
        progress.finish(PartitionId(1), 0);
        assert_eq!(progress.watermark(), Watermark::at(100));
        progress.begin(PartitionId(0), 0);
        progress.advance(PartitionId(0), 0, &step(90, 0));
        assert_eq!(progress.watermark(), Watermark::at(100), "never back");
        progress.finish(PartitionId(0), 0);
        assert_eq!(progress.watermark(), Watermark::END);
    }

    #[test]
    fn an_unread_partition_that_knows_nothing_holds_entirely() {
        let mut progress = Progress::new(0);
        progress.add(&[partition(0, &[None]), partition(1, &[None])], 0);
        progress.begin(PartitionId(0), 0);
        progress.advance(PartitionId(0), 0, &step(60, 0));
        assert_eq!(progress.watermark(), Watermark::NONE);
    }

    #[test]
    fn splits_count_in_their_order() {
        let mut progress = Progress::new(0);
        progress.add(&[partition(0, &[None, None])], 0);
        progress.begin(PartitionId(0), 1);
        progress.advance(PartitionId(0), 1, &step(500, 0));
        assert_eq!(progress.watermark(), Watermark::NONE);
        progress.begin(PartitionId(0), 0);
        progress.advance(PartitionId(0), 0, &step(100, 0));
        assert_eq!(progress.watermark(), Watermark::at(100));
        progress.finish(PartitionId(0), 0);
        assert_eq!(progress.watermark(), Watermark::at(500));
    }

    #[test]
    fn idle_partitions_do_not_hold_and_when_all_are_idle_the_furthest_tells() {
        let mut progress = Progress::new(0);
        progress.add(&[partition(0, &[None]), partition(1, &[None])], 0);
        progress.begin(PartitionId(0), 0);
        progress.advance(PartitionId(0), 0, &step(100, 10));
        progress.mark_idle(10, 10);
        assert!(progress.is_idle(PartitionId(1)) && !progress.is_idle(PartitionId(0)));
        assert_eq!(progress.watermark(), Watermark::at(100));
        progress.mark_idle(30, 10);
        assert_eq!(progress.watermark(), Watermark::at(100));
    }

    #[test]
    fn a_following_source_does_not_end() {
        let mut progress = Progress::new(0);
        progress.add(&[partition(0, &[None])], 0);
        progress.begin(PartitionId(0), 0);
        progress.advance(PartitionId(0), 0, &step(100, 10));
        progress.finish(PartitionId(0), 0);
        assert_eq!(progress.watermark(), Watermark::at(100));
    }
}
