//! Idle inputs of one query: how its watermark advances without them.
//!
//! ```text
//! scan a   awake at 20 ─┐
//! scan b   idle at 5    ├─► the query's watermark is 20; rows of b before 20 are late from then on
//! view c   awake at 30 ─┘
//! ```
//! The watermark of a query is the minimum over the partitions of all its inputs that are not idle; when all are idle
//! it is the greatest of their watermarks, and stays there. So an input may have a *hold*, a watermark beyond its own:
//! its rows before that are late, also when its partition resumes.
//!
//! Invariants: a hold moves only while no worker is inside a micro-batch, so each row is either in the state or
//! compared with the hold; idleness is decided by the clock, which cannot be replayed, so where a query has
//! checkpoints, a hold is in one before a window is closed by it. Rows after that checkpoint, in this run or the next,
//! are compared with the same hold.

use std::sync::Arc;

use windrow_core::Watermark;

use crate::tap_state::TapState;

/// The interval between checkpoints that advance past idle inputs, in µs, when a window can close: the delay of its
/// result.
const CLOSE_MICROS: i64 = 200_000;
/// The same when no window can close, but a reader may be waiting for the watermark.
const MOVE_MICROS: i64 = 1_000_000;
/// The same when no window can close, and only the clock moves the watermark.
const CLOCK_MICROS: i64 = 10_000_000;

/// The watermark that a query may have without its idle inputs, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryOutlook {
    /// The watermark that it may have, in ns since the Unix epoch; `None`: no input is idle, nothing is known, or all
    /// have ended.
    pub target: Option<i128>,
    /// The minimum over the partitions that are not idle, in ns since the Unix epoch; `None`: there are none.
    pub awake: Option<i128>,
    /// Whether the target follows the clock.
    by_clock: bool,
    /// Whether any partition is idle.
    idle: bool,
    /// When to evaluate it again if no row arrives before, in µs since the Unix epoch.
    pub(crate) next_micros: Option<i64>,
}

impl QueryOutlook {
    /// Evaluates all inputs together at the wall-clock time `now_micros` (µs since the Unix epoch).
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

    /// As [`of`](Self::of); `None` if no input can be idle, which is cheap to determine.
    pub(crate) fn of_idle(taps: &[Arc<TapState>], now_micros: i64) -> Option<Self> {
        let progress = taps.iter().filter_map(|tap| tap.progress());
        let may_be_idle = progress.into_iter().any(|p| p.lock().may_be_idle());
        may_be_idle.then(|| Self::of(taps, now_micros))
    }

    /// Whether all inputs that have not ended are idle.
    pub fn all_idle(&self) -> bool {
        self.idle && self.awake.is_none()
    }

    /// Whether the watermark of any input is behind the target.
    pub fn is_ahead(&self, taps: &[Arc<TapState>]) -> bool {
        self.target
            .is_some_and(|target| taps.iter().any(|tap| tap.watermark() < tap.at_nanos(target)))
    }

    /// Sets the holds of all inputs to the target. No worker may be inside a micro-batch.
    pub(crate) fn hold(&self, taps: &[Arc<TapState>]) {
        if let Some(target) = self.target {
            taps.iter().for_each(|tap| tap.hold_rows(tap.at_nanos(target)));
        }
    }

    /// The interval, in µs, between two advances of a query that has checkpoints. `next_close`: the smallest watermark
    /// at which a window closes, if there is one.
    pub(crate) fn pause_micros(&self, taps: &[Arc<TapState>], next_close: Option<i64>) -> i64 {
        let target = self.target.zip(taps.first()).map(|(target, tap)| tap.at_nanos(target));
        match (target, next_close) {
            (Some(target), Some(end)) if target.closes(end) => CLOSE_MICROS,
            _ if self.by_clock => CLOCK_MICROS,
            _ => MOVE_MICROS,
        }
    }
}

/// The hold of each input.
pub(crate) type Holds = Vec<(Arc<TapState>, Watermark)>;

/// Advances the holds past idle inputs, for a cut, and returns them. No worker may be inside a micro-batch.
pub(crate) fn hold_for_cut(taps: &[Arc<TapState>], now_micros: i64) -> Holds {
    if let Some(outlook) = QueryOutlook::of_idle(taps, now_micros) {
        outlook.hold(taps);
    }
    taps.iter().map(|tap| (Arc::clone(tap), tap.hold())).collect()
}

/// Lets windows close up to the holds of a cut that is durable.
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
        // Not even by the input's own rows: some of these may be late only because of the hold.
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
