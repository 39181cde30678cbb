//! Idle inputs of one query: how its watermark proceeds without them.
//!
//! ```text
//! scan a   awake at 20 ─┐
//! scan b   idle at 5    ├─► the query's watermark is 20; rows of b before 20 are late from then on
//! view c   awake at 30 ─┘
//! ```
//! The watermark of a query is the minimum over those partitions of all its inputs that are not idle; when
//! all are idle it is the furthest of them, and stays there. So a scan may be *held* at a watermark
//! beyond its own: rows of it before that are late, also when its partition speaks again.
//!
//! Invariants: a hold moves only while no worker is inside of a micro-batch, so that a row is either in
//! the state or held against it; idleness is decided by the clock and cannot be decided again, so of
//! a query that has checkpoints a hold is in one before a window is closed by it. What comes
//! after that checkpoint, in this run or in the next, is held against it in the same way.

use std::sync::Arc;

use windrow_core::Watermark;

use crate::tap_state::TapState;

/// Windows that an idle input lets close come at most so much later in a query that has checkpoints.
const CLOSE_MICROS: i64 = 200_000;
/// As long if there is nothing to close, but a reader may wait for the watermark.
const MOVE_MICROS: i64 = 1_000_000;
/// As long if there is nothing to close and only the clock proceeds.
const CLOCK_MICROS: i64 = 10_000_000;

/// What the idleness of its inputs means for a query at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryOutlook {
    /// Where its watermark should be, in nanoseconds; `None`: nothing is known, or all has ended.
    pub target: Option<i128>,
    /// The minimum over the partitions that are not idle; `None`: there are none.
    pub awake: Option<i128>,
    /// The target comes of the clock.
    by_clock: bool,
    /// Some partition is idle.
    idle: bool,
    /// When it has to be asked again, if nothing comes before.
    pub(crate) next_micros: Option<i64>,
}

impl QueryOutlook {
    /// All inputs together at the wall-clock time `now_micros`.
    pub fn of(taps: &[Arc<TapState>], now_micros: i64) -> Self {
        let mut all =
            Self { target: None, awake: None, by_clock: false, idle: false, next_micros: None };
        let mut furthest = i128::MIN;
        for progress in taps.iter().filter_map(|tap| tap.progress()) {
            let progress = progress.lock();
            let scan = progress.outlook(now_micros);
            all.idle |= scan.idle;
            furthest = furthest.max(progress.nanos(scan.furthest));
            all.next_micros = all.next_micros.into_iter().chain(scan.next_micros).min();
            if let Some(awake) = scan.awake.map(|awake| progress.nanos(awake))
                && all.awake.is_none_or(|lowest| awake < lowest)
            {
                (all.awake, all.by_clock) = (Some(awake), scan.by_clock);
            }
        }
        let target = if all.idle { all.awake.or(Some(furthest)) } else { None };
        all.target = target.filter(|target| (i128::MIN + 1..i128::MAX).contains(target));
        all
    }

    /// The same, of a query that may have idle inputs; `None` costs next to nothing.
    pub(crate) fn of_idle(taps: &[Arc<TapState>], now_micros: i64) -> Option<Self> {
        let progress = taps.iter().filter_map(|tap| tap.progress());
        let may_be_idle = progress.into_iter().any(|p| p.lock().may_be_idle());
        may_be_idle.then(|| Self::of(taps, now_micros))
    }

    /// All its inputs are idle, but for those that have ended.
    pub fn all_idle(&self) -> bool {
        self.idle && self.awake.is_none()
    }

    /// Whether an input is still behind the target.
    pub fn is_ahead(&self, taps: &[Arc<TapState>]) -> bool {
        self.target
            .is_some_and(|target| taps.iter().any(|tap| tap.watermark() < tap.at_nanos(target)))
    }

    /// Holds the rows of all inputs against the target. No worker may be inside a micro-batch.
    pub(crate) fn hold(&self, taps: &[Arc<TapState>]) {
        if let Some(target) = self.target {
            taps.iter().for_each(|tap| tap.hold_rows(tap.at_nanos(target)));
        }
    }

    /// How long a query that has checkpoints waits from one move to the next. `next_close`: the smallest
    /// watermark at which a window closes, where there is one.
    pub(crate) fn pause_micros(&self, taps: &[Arc<TapState>], next_close: Option<i64>) -> i64 {
        let target = self.target.zip(taps.first()).map(|(target, tap)| tap.at_nanos(target));
        match (target, next_close) {
            (Some(target), Some(end)) if target.closes(end) => CLOSE_MICROS,
            _ if self.by_clock => CLOCK_MICROS,
            _ => MOVE_MICROS,
        }
    }
}

/// What the rows of each input are held against.
pub(crate) type Holds = Vec<(Arc<TapState>, Watermark)>;

/// For a cut: idle inputs are left behind as far as they may be now. No worker is inside a micro-batch.
pub(crate) fn hold_for_cut(taps: &[Arc<TapState>], now_micros: i64) -> Holds {
    if let Some(outlook) = QueryOutlook::of_idle(taps, now_micros) {
        outlook.hold(taps);
    }
    taps.iter().map(|tap| (Arc::clone(tap), tap.hold())).collect()
}

/// The cut is durable: windows may close up to its holds.
pub(crate) fn close_up_to(holds: &Holds) {
    holds.iter().for_each(|(tap, hold)| tap.close_windows(*hold));
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use parking_lot::Mutex;
    use windrow_core::{Partition, PartitionId, Split};
    use windrow_stream::WhenIdle;

    use super::*;
    use crate::progress::{Progress, Step};

    /// A tap whose one partition is idle after 10 µs.
    fn tap(unit: TimeUnit) -> Arc<TapState> {
        let id = PartitionId(0);
        let split = Split::new(id, 0, "log");
        let mut progress = Progress::new(0, Some(unit));
        progress.idles(WhenIdle { after_micros: 10, by_clock: false });
        progress.add(&[Partition { id, name: "log".into(), splits: vec![split] }], 0);
        progress.complete();
        progress.begin(id, 0, (false, 0));
        let tap = TapState::new("s", None);
        tap.reads(&Arc::new(Mutex::new(progress)));
        Arc::new(tap)
    }

    fn row(tap: &TapState, at: i64, now_micros: i64) {
        let step = Step { max: Some(at), now_micros, ..Step::default() };
        tap.progress().unwrap().lock().advance(PartitionId(0), 0, &step);
    }

    fn lift(taps: &[Arc<TapState>], now_micros: i64) -> Vec<i64> {
        close_up_to(&hold_for_cut(taps, now_micros));
        taps.iter().map(|tap| tap.watermark().ticks()).collect()
    }

    #[test]
    fn a_query_goes_on_without_idle_inputs_and_waits_for_those_that_speak_again() {
        let taps = [tap(TimeUnit::Second), tap(TimeUnit::Millisecond)];
        row(&taps[0], 20, 5);
        assert_eq!(lift(&taps, 9), [20, i64::MIN]);
        assert_eq!(lift(&taps, 10), [20, 20_000]);
        row(&taps[1], 7_000, 12);
        row(&taps[0], 30, 12);
        assert_eq!(lift(&taps, 13), [30, 20_000], "it holds again, but does not go back");
        assert_eq!(lift(&taps, 22), [30, 30_000], "all are idle: the furthest tells");
    }

    #[test]
    fn nothing_closes_by_a_hold_before_it_is_durable() {
        let taps = [tap(TimeUnit::Second), tap(TimeUnit::Second)];
        row(&taps[0], 20, 10);
        let holds = hold_for_cut(&taps, 15);
        assert_eq!((taps[1].hold(), taps[1].watermark()), (Watermark::at(20), Watermark::NONE));
        assert!(QueryOutlook::of(&taps, 15).is_ahead(&taps));
        // Not even by its own rows: some of those may be late by the hold alone.
        row(&taps[1], 40, 16);
        assert_eq!(taps[1].watermark(), Watermark::NONE);
        close_up_to(&holds);
        assert_eq!(taps[1].watermark(), Watermark::at(40));
        assert!(!QueryOutlook::of(&taps, 17).is_ahead(&taps));
    }

    #[test]
    fn an_older_cut_does_not_open_what_a_newer_one_holds() {
        let taps = [tap(TimeUnit::Second), tap(TimeUnit::Second)];
        row(&taps[0], 20, 10);
        let first = hold_for_cut(&taps, 15);
        row(&taps[0], 30, 16);
        let second = hold_for_cut(&taps, 17);
        close_up_to(&first);
        assert_eq!(taps[1].watermark(), Watermark::at(20));
        close_up_to(&second);
        assert_eq!(taps[1].watermark(), Watermark::at(30));
    }

    #[test]
    fn what_nobody_can_wait_for_is_not_written_often() {
        let taps = [tap(TimeUnit::Second), tap(TimeUnit::Second)];
        row(&taps[0], 20, 10);
        let outlook = QueryOutlook::of(&taps, 15);
        assert_eq!(outlook.pause_micros(&taps, Some(20)), CLOSE_MICROS);
        assert_eq!(outlook.pause_micros(&taps, Some(21)), MOVE_MICROS);
        assert_eq!(outlook.pause_micros(&taps, None), MOVE_MICROS);
    }
}
