//! The progress of a scan: its watermark, and which of its partitions are idle.
//!
//! ```text
//! partition   split 0     split 1     split 2
//!             done        active      unread        watermark = max(done, active) − delay
//!             └── prefix ──┘
//! ```
//! Splits of one partition may be read at the same time, but the watermark follows their order: only the done prefix
//! and the first split after it count. A partition that no worker has begun holds the watermark at its smallest event
//! time if that is known, and entirely otherwise. The scan's watermark is the minimum over all its partitions, and
//! never moves back.
//!
//! A partition is idle when its reader has waited for `idle_timeout`, or when its source reports it (a view whose
//! inputs are all idle). Idleness does not move the scan's watermark: its consequences are determined per query, over
//! all its scans ([`Outlook`], `idle.rs`). A partition that has not been begun, or whose rows are being read or
//! processed, is not idle, however long that takes: Windrow is slow then, not the source.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use parking_lot::Mutex;
use windrow_core::time::ticks_per_second;
use windrow_core::{Partition, PartitionId, Watermark};

use windrow_stream::WhenIdle;
use windrow_stream::intake::micros_to_ticks;

/// The interval at which the watermark of an idle partition that follows the clock is evaluated, in µs.
const CLOCK_STEP_MICROS: std::ops::RangeInclusive<i64> = 20_000..=1_000_000;

/// The progress of a scan, which its workers write and coordinators read.
pub(crate) type SharedProgress = Arc<Mutex<Progress>>;

/// The progress of one scan.
#[derive(Debug)]
pub struct Progress {
    delay_ticks: i64,
    /// The unit of the event times; `None`: there are none.
    unit: Option<TimeUnit>,
    /// When partitions are idle by the clock; `None`: never.
    when_idle: Option<WhenIdle>,
    partitions: Vec<PartitionProgress>,
    /// The scan's watermark.
    watermark: Watermark,
    /// Whether all partitions are known.
    complete: bool,
    /// When partitions were first discovered, or one last ended, in µs since the Unix epoch.
    since_micros: Option<i64>,
    /// Whether a source has ever reported that it is idle.
    reported_idle: bool,
}

/// The contribution of a scan to the watermark of a query, at one moment of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// The minimum over the partitions that are not idle; `None`: there are none.
    pub(crate) awake: Option<Watermark>,
    /// Whether that minimum follows the clock.
    pub(crate) by_clock: bool,
    /// The greatest watermark of partitions that are idle or have ended.
    pub(crate) furthest: Watermark,
    /// Whether any partition is idle.
    pub(crate) idle: bool,
    /// When another partition becomes idle if no row arrives, or when the clock has to be read again, in µs since the
    /// Unix epoch.
    pub(crate) next_micros: Option<i64>,
}

impl Outlook {
    const NOTHING: Self = Self {
        awake: None,
        by_clock: false,
        furthest: Watermark::NONE,
        idle: false,
        next_micros: None,
    };

    fn look_again(&mut self, at_micros: i64) {
        self.next_micros = Some(self.next_micros.map_or(at_micros, |next| next.min(at_micros)));
    }

    fn awake(&mut self, watermark: Watermark, by_clock: bool) {
        if self.awake.is_none_or(|awake| watermark < awake) {
            (self.awake, self.by_clock) = (Some(watermark), by_clock);
        }
    }
}

#[derive(Debug)]
struct PartitionProgress {
    id: PartitionId,
    name: String,
    splits: Vec<SplitProgress>,
    /// Largest event time of the done prefix.
    prefix_max: Option<i64>,
    /// The number of splits of the done prefix.
    prefix: usize,
    /// The explicit watermark of the source.
    explicit: Watermark,
    /// The same before the source ended.
    explicit_last: Watermark,
    /// Whether the source reports that it is idle.
    reported_idle: bool,
    /// The number of batches on their way into the queries.
    busy: usize,
    /// Whether rows that existed when reading began are still unread.
    backlog: bool,
    /// When the last batch reached the state, or reading began, in µs since the Unix epoch.
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

/// The progress of a split by a micro-batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step {
    /// The largest event time of the split so far, in ticks.
    pub(crate) max: Option<i64>,
    /// The explicit watermark of the source.
    pub(crate) explicit: Option<Watermark>,
    /// One past the batch's last offset.
    pub(crate) consumed: u64,
    /// The wall-clock time, in µs since the Unix epoch.
    pub(crate) now_micros: i64,
    /// Whether the source reports that it is idle; `None`: unknown.
    pub(crate) idle: Option<bool>,
    /// Whether rows that existed when reading began are still unread.
    pub(crate) backlog: bool,
}

/// A partition in `windrow.watermarks`.
#[derive(Debug, Clone)]
pub struct PartitionStatus {
    /// Its id in its stream.
    pub id: PartitionId,
    /// Its name, as the source gives it.
    pub name: String,
    /// Its own watermark.
    pub watermark: Watermark,
    /// Its state: `active`, `idle`, `done` and the like.
    pub state: &'static str,
    /// Whether it is neither idle nor done, so that it may hold the watermark back.
    pub awake: bool,
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
            // The minimum over all splits, if it is known for each of them.
            let known = self.splits.iter().map(|s| s.min_known).min().flatten();
            return known.map_or(Watermark::NONE, Watermark::at).advance(self.explicit);
        }
        let active = self.splits.get(self.prefix).and_then(|s| s.max);
        let max = self.prefix_max.max(active);
        max.map_or(Watermark::NONE, |m| Watermark::at(m).delayed(delay_ticks))
            .advance(self.explicit)
    }
}

impl PartitionProgress {
    /// The time from which on it is idle, in µs since the Unix epoch; `None`: not while rows are being read or
    /// processed.
    fn idle_from(&self, when: Option<WhenIdle>) -> Option<i64> {
        if self.reported_idle && self.busy == 0 {
            return Some(i64::MIN);
        }
        let waits = self.busy == 0
            && !self.backlog
            && self.splits.iter().any(|s| s.state == SplitState::Active);
        let after = when.filter(|_| waits)?.after_micros;
        Some(self.last_row_micros.saturating_add(after))
    }

    /// The watermark of a partition just before it ended.
    fn last(&self, delay_ticks: i64) -> Watermark {
        let max =
            self.prefix_max.map_or(Watermark::NONE, |m| Watermark::at(m).delayed(delay_ticks));
        max.advance(self.explicit_last)
    }
}

impl Progress {
    /// Returns the progress of a stream whose partitions are not known yet. `delay_ticks`: the delay of the watermark
    /// behind event times, in ticks of `unit`.
    pub fn new(delay_ticks: i64, unit: Option<TimeUnit>) -> Self {
        Self {
            delay_ticks,
            unit,
            when_idle: None,
            partitions: vec![],
            watermark: Watermark::NONE,
            complete: false,
            since_micros: None,
            reported_idle: false,
        }
    }

    /// Makes partitions become idle by the clock.
    pub(crate) fn idles(&mut self, when: WhenIdle) {
        self.when_idle = Some(when);
    }

    /// When partitions become idle by the clock; `None`: never.
    pub fn when_idle(&self) -> Option<WhenIdle> {
        self.when_idle
    }

    /// Whether a partition may ever be idle.
    pub(crate) fn may_be_idle(&self) -> bool {
        self.when_idle.is_some() || self.reported_idle
    }

    /// Converts a watermark to nanoseconds, so that those of streams with different units can be compared.
    pub fn nanos(&self, watermark: Watermark) -> i128 {
        match (watermark, self.unit) {
            (Watermark::NONE, _) | (_, None) => i128::MIN,
            (Watermark::END, _) => i128::MAX,
            (at, Some(unit)) => i128::from(at.ticks()) * nanos_per_tick(unit),
        }
    }

    /// Converts nanoseconds to a watermark in the unit of the stream, rounded down.
    pub(crate) fn at_nanos(&self, nanos: i128) -> Watermark {
        let Some(unit) = self.unit else { return Watermark::NONE };
        let ticks = i64::try_from(nanos.div_euclid(nanos_per_tick(unit)));
        ticks.ok().filter(|ticks| *ticks != i64::MAX).map_or(Watermark::NONE, Watermark::at)
    }

    /// Adds newly discovered partitions.
    pub(crate) fn add(&mut self, partitions: &[Partition], now_micros: i64) {
        self.since_micros.get_or_insert(now_micros);
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
                explicit_last: Watermark::NONE,
                reported_idle: false,
                busy: 0,
                backlog: false,
                last_row_micros: now_micros,
                consumed: 0,
            }
        }));
    }

    /// Whether the partition is already known.
    pub(crate) fn knows(&self, id: PartitionId) -> bool {
        self.partitions.iter().any(|p| p.id == id)
    }

    /// Whether all partitions are known.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// Advances the scan's watermark to the minimum over the partitions, and returns it.
    pub(crate) fn watermark(&mut self) -> Watermark {
        let now = match self.partitions.iter().map(|p| p.watermark(self.delay_ticks)).min() {
            None if self.complete => Watermark::END,
            // All known partitions are done, but more may be discovered.
            Some(Watermark::END) if !self.complete => self.watermark.advance(self.furthest()),
            None => Watermark::NONE,
            Some(w) => w,
        };
        self.watermark = self.watermark.advance(now);
        self.watermark
    }

    /// Determines which partitions are idle now, and the watermark of the others.
    pub(crate) fn outlook(&self, now_micros: i64) -> Outlook {
        let mut outlook = Outlook::NOTHING;
        for p in &self.partitions {
            if p.is_done() {
                outlook.furthest = outlook.furthest.advance(p.last(self.delay_ticks));
            } else {
                let own = p.watermark(self.delay_ticks);
                self.look(&mut outlook, own, p.idle_from(self.when_idle), now_micros);
            }
        }
        if !self.complete && self.partitions.iter().all(PartitionProgress::is_done) {
            // Partitions that are yet to be discovered count as one that is silent.
            let own = self.watermark.advance(self.furthest());
            let from = self.when_idle.zip(self.since_micros);
            let from = from.map(|(when, since)| since.saturating_add(when.after_micros));
            self.look(&mut outlook, own, from, now_micros);
        }
        outlook
    }

    /// Adds a partition with the watermark `own`, which is idle from `idle_from` on.
    fn look(&self, outlook: &mut Outlook, own: Watermark, idle_from: Option<i64>, now_micros: i64) {
        match (idle_from, self.when_idle) {
            (Some(from), _) if from > now_micros => {
                outlook.awake(own, false);
                outlook.look_again(from);
            }
            (None, _) => outlook.awake(own, false),
            (Some(_), Some(WhenIdle { by_clock: true, after_micros })) => {
                outlook.idle = true;
                outlook.awake(self.by_clock(own, now_micros), true);
                let (least, most) = (*CLOCK_STEP_MICROS.start(), *CLOCK_STEP_MICROS.end());
                outlook
                    .look_again(now_micros.saturating_add((after_micros / 4).clamp(least, most)));
            }
            (Some(_), _) => {
                outlook.idle = true;
                outlook.furthest = outlook.furthest.advance(own);
            }
        }
    }

    /// The watermark of an idle partition that follows the clock: as if a row with the current time had arrived.
    fn by_clock(&self, own: Watermark, now_micros: i64) -> Watermark {
        let Some(unit) = self.unit else { return own };
        let now = Watermark::at(micros_to_ticks(now_micros, unit));
        own.advance(now.delayed(self.delay_ticks))
    }

    /// The greatest watermark of the done prefixes of all partitions.
    fn furthest(&self) -> Watermark {
        self.partitions
            .iter()
            .filter_map(|p| p.prefix_max.map(|m| Watermark::at(m).delayed(self.delay_ticks)))
            .max()
            .unwrap_or(Watermark::NONE)
    }

    /// Records that reading of a split begins; `backlog`: it has rows already.
    pub fn begin(&mut self, id: PartitionId, split: usize, (backlog, now): (bool, i64)) {
        self.with(id, |p| {
            p.backlog = backlog;
            p.last_row_micros = p.last_row_micros.max(now);
            if let Some(s) = p.splits.get_mut(split) {
                s.state = SplitState::Active;
            }
        });
    }

    /// Records that a batch is on its way into the queries: the partition is not idle.
    pub fn take(&mut self, id: PartitionId) {
        self.with(id, |p| p.busy += 1);
    }

    /// Records that the batch that was [taken](Self::take) has reached the state.
    pub fn taken(&mut self, id: PartitionId, split: usize, step: &Step) {
        self.with(id, |p| {
            p.busy = p.busy.saturating_sub(1);
            p.reported_idle = step.idle.unwrap_or(false);
            p.backlog = step.backlog;
        });
        self.reported_idle |= step.idle.unwrap_or(false);
        self.advance(id, split, step);
    }

    /// Records that rows of a split have reached the state.
    pub fn advance(&mut self, id: PartitionId, split: usize, step: &Step) {
        self.with(id, |p| {
            p.last_row_micros = p.last_row_micros.max(step.now_micros);
            p.consumed = p.consumed.max(step.consumed);
            if let Some(s) = p.splits.get_mut(split) {
                s.max = s.max.max(step.max);
            }
            if let Some(w) = step.explicit {
                p.explicit = p.explicit.advance(w);
                if w != Watermark::END {
                    p.explicit_last = p.explicit_last.advance(w);
                }
            }
        });
    }

    /// Returns one past the last offset of a partition that has reached the state.
    pub fn consumed(&self, id: PartitionId) -> u64 {
        self.partitions.iter().find(|p| p.id == id).map_or(0, |p| p.consumed)
    }

    /// Records that a split has been read to its end.
    pub fn finish(&mut self, id: PartitionId, split: usize, now_micros: i64) {
        self.since_micros = self.since_micros.max(Some(now_micros));
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

    /// Returns the status of every partition, for `windrow.watermarks`.
    pub fn status(&self, now_micros: i64) -> Vec<PartitionStatus> {
        let is_idle = |p: &PartitionProgress| {
            p.idle_from(self.when_idle).is_some_and(|from| from <= now_micros)
        };
        let by_clock = self.when_idle.is_some_and(|when| when.by_clock);
        let status = self.partitions.iter().map(|p| {
            let own = p.watermark(self.delay_ticks);
            let (state, watermark) = match () {
                () if p.is_done() => ("done", own),
                () if is_idle(p) && by_clock => ("clock", self.by_clock(own, now_micros)),
                () if is_idle(p) => ("idle", own),
                () if p.splits.iter().all(|s| s.state == SplitState::Unread) => ("unread", own),
                () => ("active", own),
            };
            let awake = !matches!(state, "done" | "idle");
            PartitionStatus { id: p.id, name: p.name.clone(), watermark, state, awake }
        });
        status.collect()
    }

    fn with(&mut self, id: PartitionId, f: impl FnOnce(&mut PartitionProgress)) {
        if let Some(p) = self.partitions.iter_mut().find(|p| p.id == id) {
            f(p);
        }
    }
}

fn nanos_per_tick(unit: TimeUnit) -> i128 {
    1_000_000_000 / i128::from(ticks_per_second(unit))
}

#[cfg(test)]
mod tests {
    use windrow_core::Split;

    use super::*;

    fn new(delay: i64) -> Progress {
        Progress::new(delay, Some(TimeUnit::Microsecond))
    }

    fn partition(id: u32, known: &[Option<(i64, i64)>]) -> Partition {
        let splits = known
            .iter()
            .enumerate()
            .map(|(number, event_times)| Split {
                event_times: *event_times,
                ..Split::new(PartitionId(id), number, "")
            })
            .collect();
        Partition { id: PartitionId(id), name: format!("p{id}"), splits }
    }

    fn step(max: i64, now_micros: i64) -> Step {
        Step { max: Some(max), now_micros, ..Step::default() }
    }

    #[test]
    fn an_unread_partition_holds_at_its_smallest_event_time() {
        let mut progress = new(5);
        progress.add(&[partition(0, &[Some((100, 200))]), partition(1, &[Some((50, 60))])], 0);
        progress.complete();
        assert_eq!(progress.watermark(), Watermark::at(50));
        progress.begin(PartitionId(1), 0, (false, 0));
        progress.advance(PartitionId(1), 0, &step(60, 0));
        assert_eq!(progress.watermark(), Watermark::at(55));
        progress.finish(PartitionId(1), 0, 0);
        assert_eq!(progress.watermark(), Watermark::at(100));
        progress.begin(PartitionId(0), 0, (false, 0));
        progress.advance(PartitionId(0), 0, &step(90, 0));
        assert_eq!(progress.watermark(), Watermark::at(100), "never back");
        progress.finish(PartitionId(0), 0, 0);
        assert_eq!(progress.watermark(), Watermark::END);
    }

    #[test]
    fn an_unread_partition_that_knows_nothing_holds_entirely() {
        let mut progress = new(0);
        progress.add(&[partition(0, &[None]), partition(1, &[None])], 0);
        progress.begin(PartitionId(0), 0, (false, 0));
        progress.advance(PartitionId(0), 0, &step(60, 0));
        assert_eq!(progress.watermark(), Watermark::NONE);
    }

    #[test]
    fn splits_count_in_their_order() {
        let mut progress = new(0);
        progress.add(&[partition(0, &[None, None])], 0);
        progress.begin(PartitionId(0), 1, (false, 0));
        progress.advance(PartitionId(0), 1, &step(500, 0));
        assert_eq!(progress.watermark(), Watermark::NONE);
        progress.begin(PartitionId(0), 0, (false, 0));
        progress.advance(PartitionId(0), 0, &step(100, 0));
        assert_eq!(progress.watermark(), Watermark::at(100));
        progress.finish(PartitionId(0), 0, 0);
        assert_eq!(progress.watermark(), Watermark::at(500));
    }

    /// Two partitions that are being read.
    fn two(by_clock: bool) -> Progress {
        let mut progress = new(0);
        progress.idles(WhenIdle { after_micros: 10, by_clock });
        progress.add(&[partition(0, &[None]), partition(1, &[None])], 0);
        progress.complete();
        progress.begin(PartitionId(0), 0, (false, 0));
        progress.begin(PartitionId(1), 0, (false, 0));
        progress
    }

    #[test]
    fn idle_partitions_do_not_hold_and_when_all_are_idle_the_furthest_tells() {
        let mut progress = two(false);
        progress.advance(PartitionId(0), 0, &step(100, 5));
        let now = progress.outlook(9);
        assert_eq!((now.awake, now.next_micros), (Some(Watermark::NONE), Some(10)));
        let now = progress.outlook(10);
        assert_eq!((now.awake, now.next_micros), (Some(Watermark::at(100)), Some(15)));
        let now = progress.outlook(15);
        assert_eq!((now.awake, now.furthest, now.idle), (None, Watermark::at(100), true));
        assert_eq!(progress.watermark(), Watermark::NONE, "that is for the query to decide");
    }

    #[test]
    fn a_partition_whose_rows_are_on_their_way_is_not_idle() {
        let mut progress = two(false);
        progress.take(PartitionId(0));
        progress.begin(PartitionId(1), 0, (true, 0));
        let awake = |progress: &Progress| progress.outlook(1_000).awake.is_some();
        assert!(awake(&progress));
        progress.taken(PartitionId(0), 0, &step(100, 991));
        progress.taken(PartitionId(1), 0, &step(100, 0));
        assert!(awake(&progress), "it counts from the moment at which the rows were in");
        assert_eq!(progress.outlook(1_000).next_micros, Some(1_001));
        assert!(progress.outlook(1_001).awake.is_none());
    }

    #[test]
    fn what_its_source_says_counts_before_the_clock() {
        let mut progress = new(0);
        progress.add(&[partition(0, &[None])], 0);
        progress.complete();
        progress.begin(PartitionId(0), 0, (false, 0));
        assert!(!progress.may_be_idle());
        let told = |idle, at| Step { idle, explicit: Some(Watermark::at(at)), ..Step::default() };
        progress.taken(PartitionId(0), 0, &told(Some(true), 70));
        let now = progress.outlook(0);
        assert_eq!((now.awake, now.furthest), (None, Watermark::at(70)));
        progress.taken(PartitionId(0), 0, &told(Some(false), 80));
        assert_eq!(progress.outlook(0).awake, Some(Watermark::at(80)));
    }

    #[test]
    fn the_clock_goes_on_where_rows_do_not() {
        let mut progress = two(true);
        progress.advance(PartitionId(0), 0, &step(100, 5));
        let now = progress.outlook(2_000_000);
        assert_eq!((now.awake, now.by_clock), (Some(Watermark::at(2_000_000)), true));
        assert_eq!(now.next_micros, Some(2_020_000));
        let state: Vec<_> = progress.status(2_000_000).iter().map(|p| p.state).collect();
        assert_eq!(state, ["clock", "clock"]);
        progress.advance(PartitionId(1), 0, &step(50, 2_000_000));
        assert_eq!(progress.outlook(2_000_000).awake, Some(Watermark::at(50)));
    }

    #[test]
    fn a_stream_without_any_partition_is_idle_too() {
        let mut progress = new(0);
        progress.idles(WhenIdle { after_micros: 10, by_clock: false });
        assert_eq!(progress.outlook(100).awake, Some(Watermark::NONE), "nobody has looked");
        progress.add(&[], 100);
        assert_eq!(progress.outlook(109).next_micros, Some(110));
        assert_eq!(progress.outlook(110).awake, None);
    }

    #[test]
    fn watermarks_of_different_units_can_be_compared() {
        let nanos = |unit, at| Progress::new(0, Some(unit)).nanos(Watermark::at(at));
        assert_eq!(nanos(TimeUnit::Second, 2), nanos(TimeUnit::Nanosecond, 2_000_000_000));
        let seconds = Progress::new(0, Some(TimeUnit::Second));
        assert_eq!(seconds.at_nanos(-1), Watermark::at(-1), "rounded down");
        assert_eq!(seconds.at_nanos(seconds.nanos(Watermark::NONE)), Watermark::NONE);
        assert_eq!(seconds.at_nanos(i128::MAX), Watermark::NONE);
    }

    #[test]
    fn a_following_source_does_not_end() {
        let mut progress = new(0);
        progress.add(&[partition(0, &[None])], 0);
        progress.begin(PartitionId(0), 0, (false, 0));
        progress.advance(PartitionId(0), 0, &step(100, 10));
        progress.finish(PartitionId(0), 0, 0);
        assert_eq!(progress.watermark(), Watermark::at(100));
    }
}
