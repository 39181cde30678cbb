//! The positions of the leaves of a query in their streams, and the watermarks by which their windows close.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use windrow_core::{PartitionId, Watermark};
use windrow_storage::checkpoint::{Positions, TapCut, Unused};
use windrow_stream::kept::{BadRows, Late, LateRows};

use crate::progress::SharedProgress;

/// The position of one leaf of a query in its stream; shared by the workers and the coordinator.
#[derive(Debug)]
pub struct TapState {
    /// The stream that is read.
    pub stream: String,
    began: Option<u64>,
    /// The positions before a restart.
    pub(crate) from: Positions,
    hold: Mutex<Hold>,
    /// The current positions.
    pub positions: Mutex<Positions>,
    /// Late and bad rows from before a restart, until the ids of their partitions are known.
    unused: Mutex<Vec<Unused>>,
    /// The progress of its scan.
    progress: OnceLock<SharedProgress>,
}

/// Watermarks beyond those of the partitions, because windows were closed before a restart, or without idle inputs.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Rows before it are late.
    rows: Watermark,
    /// Windows may close up to it. It follows `rows` once that is in a checkpoint.
    windows: Watermark,
    /// The watermark at which windows stay until then.
    still: Option<Watermark>,
}

impl TapState {
    /// Returns the position of a leaf that is read from its beginning, or from the offset `began` of its log.
    pub fn new(stream: &str, began: Option<u64>) -> Self {
        Self::resumed(TapCut {
            stream: stream.to_owned(),
            began,
            hold: Watermark::NONE.ticks(),
            positions: began.map_or_else(Positions::default, Positions::behind),
        })
    }

    /// Returns the position of a leaf that resumes from a checkpoint.
    pub(crate) fn resumed(cut: TapCut) -> Self {
        let held = Watermark::at(cut.hold);
        Self {
            stream: cut.stream,
            began: cut.began,
            hold: Mutex::new(Hold { rows: held, windows: held, still: None }),
            positions: Mutex::new(cut.positions.clone()),
            from: cut.positions,
            unused: Mutex::default(),
            progress: OnceLock::new(),
        }
    }

    /// Sets the progress of its scan.
    pub fn reads(&self, progress: &SharedProgress) {
        // Set once: a query is launched once.
        drop(self.progress.set(Arc::clone(progress)));
    }

    /// Stores late and bad rows from before a restart.
    pub(crate) fn remember_unused(&self, unused: Vec<Unused>) {
        self.unused.lock().extend(unused);
    }

    /// Restores late and bad rows from before a restart, once the ids of the partitions are known.
    pub(crate) fn show_unused(
        &self,
        query: (&str, u64),
        names: &[(PartitionId, &str)],
        (late_rows, bad_rows): (&LateRows, &BadRows),
    ) {
        let unused = std::mem::take(&mut *self.unused.lock());
        let number =
            |name: &str| names.iter().find(|n| n.1 == name).map_or(PartitionId(0), |n| n.0);
        let mut shown = vec![];
        for row in unused {
            match row {
                Unused::Late(late) => shown.push(Late {
                    query: query.0.to_owned(),
                    query_id: query.1,
                    partition: number(&late.partition),
                    partition_name: late.partition,
                    stream: late.stream,
                    offset: late.offset,
                    event_time_micros: late.event_time_micros,
                    watermark_micros: late.watermark_micros,
                    row: late.row,
                    saved: true,
                }),
                Unused::Bad(bad) => bad_rows.restore(query, &bad, number(&bad.partition)),
                // The log of the view has them.
                Unused::Behind(_) => {}
            }
        }
        late_rows.keep(shown);
    }

    /// The progress of its scan, once that is known.
    pub fn progress(&self) -> Option<&SharedProgress> {
        self.progress.get()
    }

    /// How far it has read the log of a stream or view: one past the last offset.
    pub fn consumed(&self) -> u64 {
        let now = self.progress.get().map_or(0, |p| p.lock().consumed(PartitionId(0)));
        now.max(self.from.of_log())
    }

    /// Converts nanoseconds to a watermark in the unit of the stream.
    pub(crate) fn at_nanos(&self, nanos: i128) -> Watermark {
        self.progress.get().map_or(Watermark::NONE, |p| p.lock().at_nanos(nanos))
    }

    /// The watermark of the scan.
    pub fn own(&self) -> Watermark {
        self.progress.get().map_or(Watermark::NONE, |p| p.lock().watermark())
    }

    /// The watermark by which windows over it may close: the greater of those of the scan and the hold, where the hold
    /// is durable; otherwise it stays where it was.
    pub(crate) fn watermark(&self) -> Watermark {
        let own = self.own();
        let hold = *self.hold.lock();
        hold.still.unwrap_or(own.advance(hold.windows))
    }

    /// The same in µs since the epoch; `None` while nothing is known, and at the end.
    pub fn watermark_micros(&self) -> Option<i64> {
        self.micros_of(self.watermark())
    }

    /// A watermark of the stream in µs since the epoch; `None` while nothing is known, and at the end.
    pub fn micros_of(&self, watermark: Watermark) -> Option<i64> {
        let nanos = self.progress.get()?.lock().nanos(watermark);
        let known = !matches!(watermark, Watermark::NONE | Watermark::END) && nanos != i128::MIN;
        known.then(|| i64::try_from(nanos.div_euclid(1_000)).ok()).flatten()
    }

    /// The hold: rows before it are late, whatever the watermark of their partition.
    pub(crate) fn hold(&self) -> Watermark {
        self.hold.lock().rows
    }

    /// Makes rows before `to` late from now on. No window closes by that before [`close_windows`](Self::close_windows),
    /// nor by rows that arrive until then.
    pub(crate) fn hold_rows(&self, to: Watermark) {
        let own = self.own();
        let mut hold = self.hold.lock();
        if to <= hold.rows {
            return;
        }
        if own < to && hold.still.is_none() {
            hold.still = Some(own.advance(hold.windows));
        }
        hold.rows = to;
    }

    /// Lets windows close up to `to`: the [hold](Self::hold_rows) at it is durable.
    pub(crate) fn close_windows(&self, to: Watermark) {
        let mut hold = self.hold.lock();
        hold.windows = hold.windows.advance(to);
        hold.still = hold.still.filter(|_| hold.windows < hold.rows).map(|at| at.advance(to));
    }

    /// Whether the hold is not in a checkpoint yet.
    pub(crate) fn is_still(&self) -> bool {
        self.hold.lock().still.is_some()
    }

    fn cut(&self) -> TapCut {
        TapCut {
            stream: self.stream.clone(),
            began: self.began,
            // A partition's own watermark is never behind that of the scan, unless it is idle or new.
            hold: self.own().advance(self.hold()).ticks(),
            positions: self.positions.lock().clone(),
        }
    }
}

/// The positions of all leaves of a query, for a cut.
pub(crate) fn cut_taps(taps: &[Arc<TapState>]) -> Vec<TapCut> {
    taps.iter().map(|tap| tap.cut()).collect()
}
